#!/usr/bin/env python3
"""Counts the tests of a `cargo test` run by crate.

    scripts/test-summary.py LOG BINARIES

LOG is the run's output; BINARIES is that of `cargo test --no-run --message-format json`, which
names the package of each test binary. The suites of real clients say themselves how many cases
they ran. Exits with 1 when no test ran, one failed, or, in CI, one was ignored.
"""

import json
import os
import re
import sys
from collections import defaultdict
from pathlib import Path

RUNNING = re.compile(r"^\s*Running .*\((.+)\)$")
DOC_TESTS = re.compile(r"^\s*Doc-tests (\S+)$")
RESULT = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored;")
CLIENTS = re.compile(r"clients: (\w+): (\d+ cases, \d+ failed, \d+ skipped)$")
IGNORED = re.compile(r"^test (.+) \.\.\. ignored")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def main():
    log, binaries = (Path(argument).read_text(encoding="utf-8", errors="replace") for argument in sys.argv[1:3])
    counts, ignored = count(log, crates_of_binaries(binaries))
    passed, failed, skipped = (sum(column) for column in zip(*counts.values())) if counts else (0, 0, 0)
    print("\ntests by crate")
    for crate, (crate_passed, crate_failed, _) in sorted(counts.items()):
        print(f"{crate_passed + crate_failed:>7}  {crate}")
    for suite, cases in clients(log):
        print(f"clients: {suite}: {cases}")
    for test in ignored:
        print(f"not run: {test}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    skipped_in_ci = skipped > 0 and "CI" in os.environ
    if skipped_in_ci:
        print("tests were skipped, which CI does not allow", file=sys.stderr)
    sys.exit(1 if failed or skipped_in_ci or not passed else 0)


def clients(log):
    """Each suite of real clients, and what it says of its cases."""
    # Anywhere in a line: cargo may be in the midst of naming the test.
    found = (CLIENTS.search(line) for line in COLOUR.sub("", log).splitlines())
    return sorted({match.groups() for match in found if match})


def crates_of_binaries(messages):
    """File name of each test binary -> the package that it tests."""
    crates = {}
    for line in messages.splitlines():
        if not line.startswith("{"):
            continue
        message = json.loads(line)
        if message.get("executable"):
            crates[Path(message["executable"]).name] = package_name(message)
    return crates


def package_name(message):
    # Ids read path+file:///folder#name@version, or ...#version where the folder has the name.
    folder, _, rest = message["package_id"].partition("#")
    return rest.partition("@")[0] if "@" in rest else folder.rstrip("/").rpartition("/")[2]


def count(log, crates):
    """Crate -> [passed, failed, ignored], and the names of the ignored tests."""
    counts, ignored, crate = defaultdict(lambda: [0, 0, 0]), [], "?"
    for line in COLOUR.sub("", log).splitlines():
        if match := RUNNING.match(line):
            binary = Path(match[1]).name
            crate = crates.get(binary, binary)
        elif match := DOC_TESTS.match(line):
            crate = match[1].replace("_", "-")
        elif match := IGNORED.match(line):
            ignored.append(f"{crate}: {match[1]}")
        elif match := RESULT.match(line):
            counts[crate] = [sum(pair) for pair in zip(counts[crate], map(int, match.groups()))]
    return counts, ignored


if __name__ == "__main__":
    main()
