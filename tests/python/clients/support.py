"""What the suites share: where the gateway is, how a suite runs, and values of every datatype.

A suite is a program:

    SUITE.py HTTP_ADDRESS GRPC_ADDRESS [--methods] [PATTERN...]

against a gateway over the models of gateway/tests/clients/repository.rs. Its last line counts its
cases; with --methods it also lists which case called which method of its client. Patterns, as
`*Infer*`, name the cases to run when not all are wanted.
"""

import asyncio
import collections
import faulthandler
import functools
import inspect
import json
import sys
import time
import unittest
import urllib.request

import ml_dtypes
import numpy

if len(sys.argv) < 3:
    sys.exit(f"usage: {sys.argv[0]} HTTP_ADDRESS GRPC_ADDRESS [--methods] [PATTERN...]")
HTTP, GRPC = sys.argv[1:3]

# Below which the gateway serves too; gateway/tests/clients/process.rs says so to it.
BASE_PATH = "/serving/here"

# Longest that a suite may take, in seconds: what hangs says where.
PATIENCE = 240

LOOP = asyncio.new_event_loop()
asyncio.set_event_loop(LOOP)


def wait(value):
    """The value, or what comes of it where it must be awaited."""
    return LOOP.run_until_complete(value) if inspect.isawaitable(value) else value


def ask_for_rounds(count):
    """Has the model `rounds` run so many, and says how many seconds that took."""
    body = json.dumps({"inputs": [count]}).encode()
    begun = time.monotonic()
    with urllib.request.urlopen(f"http://{HTTP}/v1/models/rounds:predict", body, PATIENCE) as answer:
        answer.read()
    return time.monotonic() - begun


@functools.cache
def round_time():
    """What a round takes on this machine, in seconds."""
    count = 20_000
    return min(ask_for_rounds(count) for _ in range(5)) / count


def rounds(seconds=1.0):
    """Inputs of the model `rounds` for a run of about so long."""
    return {"rounds": numpy.array([int(seconds / round_time())], numpy.int64)}


def run_rounds(seconds):
    """Keeps a worker of the model `rounds` busy for about so long."""
    ask_for_rounds(int(rounds(seconds)["rounds"][0]))


class Calls:
    """Which case called which method of which class."""

    def __init__(self):
        self.cases = collections.defaultdict(lambda: collections.defaultdict(list))
        self.case = None

    def note(self, kind, method):
        cases = self.cases[kind][method]
        if self.case not in cases:
            cases.append(self.case)

    def missing(self, kind):
        """The public methods of a class that no case has called."""
        return [name for name in dir(kind) if not name.startswith("_") and name not in self.cases[kind]]

    def print(self):
        for kind, methods in self.cases.items():
            for method, cases in sorted(methods.items()):
                print(f"method: {kind.__module__}.{kind.__name__}.{method}: {', '.join(cases)}")


CALLS = Calls()


class Noted:
    """A client whose calls are noted, and awaited where they are coroutines."""

    def __init__(self, client):
        self._client = client

    def __getattr__(self, name):
        member = getattr(self._client, name)
        if not callable(member):
            return member

        def call(*arguments, **options):
            CALLS.note(type(self._client), name)
            return wait(member(*arguments, **options))

        return call


class Case(unittest.TestCase):
    """A test that says in whose name calls are made."""

    maxDiff = None

    def setUp(self):
        CALLS.case = f"{type(self).__name__}.{self._testMethodName.removeprefix('test_')}"

    def shortDescription(self):
        """The name of the case says it all."""
        return None


def main(suite, *kinds):
    """Runs the cases, in the order of the classes, and prints the suite's last line."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    loader = unittest.TestLoader()
    loader.testNamePatterns = [pattern for pattern in sys.argv[3:] if pattern != "--methods"] or None
    cases = unittest.TestSuite(loader.loadTestsFromTestCase(kind) for kind in kinds)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2).run(cases)
    if "--methods" in sys.argv:
        CALLS.print()
    failed = len(result.failures) + len(result.errors) + len(result.unexpectedSuccesses)
    skipped = len(result.skipped) + len(result.expectedFailures)
    print(f"clients: {suite}: {result.testsRun} cases, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed or skipped else 0)


def floats(kind):
    """Values of a floating-point type that are easily lost: its bounds, its zeros, its smallest."""
    limits = ml_dtypes.finfo(kind) if kind is ml_dtypes.bfloat16 else numpy.finfo(kind)
    smallest = limits.smallest_subnormal
    return numpy.array([[0, -0.0, 1.5, limits.max], [limits.min, limits.tiny, smallest, 1 / 3]], kind)


def integers(kind):
    """The bounds of an integer type, and what lies between."""
    limits = numpy.iinfo(kind)
    middle = limits.max // 2
    return numpy.array([[limits.min, limits.max, 0, 1], [middle, middle + 1, limits.max - 1, 7]], kind)


TEXTS = ["", "plain", "Grüße, 世界 🎈", 'a "quoted" \\ line\nwith\ttabs']

# One [2, 4] array for each datatype of the protocol.
VALUES = {
    "BOOL": numpy.array([[True, False, True, True], [False, False, True, False]]),
    "UINT8": integers(numpy.uint8),
    "UINT16": integers(numpy.uint16),
    "UINT32": integers(numpy.uint32),
    "UINT64": integers(numpy.uint64),
    "INT8": integers(numpy.int8),
    "INT16": integers(numpy.int16),
    "INT32": integers(numpy.int32),
    "INT64": integers(numpy.int64),
    "FP16": floats(numpy.float16),
    "BF16": floats(ml_dtypes.bfloat16),
    "FP32": floats(numpy.float32),
    "FP64": floats(numpy.float64),
    "BYTES": numpy.array([TEXTS, list(reversed(TEXTS))], numpy.object_),
}

# Without a form in JSON.
BINARY_ONLY = {"FP16", "BF16"}


def bits(array):
    """What two arrays must have in common to be the same: shape, type and every bit."""
    if array.dtype == numpy.object_:
        texts = [item.encode() if isinstance(item, str) else bytes(item) for item in array.flatten()]
        return array.shape, "texts", texts
    return array.shape, array.dtype, array.tobytes()
