#!/usr/bin/env python3
"""Runs the examples of docs/models.md as they stand there, against a gateway:

    run_page.py GATEWAY [SECTION...]

GATEWAY is the program `sluice-gateway`; sections are named by their titles, all when none is. The
blocks of the first section that has any begin each of the others, which has a process and a folder
of its own and runs its blocks in order: `python` in one namespace, `sh` by bash. A block marked
`text` or `json` right after one of them is what that one printed. There are no other blocks, so
nothing on the page is left out. What differs from a reader's terminal: the gateway takes free ports,
which replace those on the page, and looks for models more often.
"""

import contextlib
import dataclasses
import io
import math
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "models.md"
# Longest that the gateway may take to start, and a section to end, in seconds.
START, PATIENCE = 30, 240
# How far a number may be from the page's. Another processor trains another last digit; what is
# asked of the gateway is in the page's own assertions.
TOLERANCE = {"rel_tol": 1e-3, "abs_tol": 1e-6}
PORTS = {"http": "localhost:8080", "grpc": "localhost:8081", "admin": "localhost:8082"}
NUMBER = re.compile(r"(-?\d+(?:\.\d*)?(?:e[-+]?\d+)?)")


@dataclasses.dataclass
class Block:
    language: str
    line: int  # of its first line in the page, from 1
    text: str = ""
    printed: str | None = None


def sections(page=None):
    """The blocks of each section by its title, outputs joined to what printed them."""
    page = PAGE.read_text() if page is None else page
    found, title, block, end = {}, "", None, 0
    for number, line in enumerate(page.splitlines(), 1):
        if block is not None:
            if line == "```":
                block, end = None, number
            elif block.printed is not None:
                block.printed += line + "\n"
            else:
                block.text += line + "\n"
        elif line.startswith("## "):
            title = line.removeprefix("## ")
        elif line.startswith("```"):
            language, blocks = line.removeprefix("```"), found.setdefault(title, [])
            if language in ("text", "json"):
                between = number - end
                if not blocks or between > 2 or blocks[-1].printed is not None:
                    sys.exit(f"{PAGE.name}:{number}: an output without the block that printed it")
                block = blocks[-1]
                block.printed = ""
            elif language in ("python", "sh"):
                block = Block(language, number + 1)
                blocks.append(block)
            else:
                sys.exit(f"{PAGE.name}:{number}: blocks are python, sh, text or json, not {language!r}")
    return found


def agree(expected, found):
    """Whether texts are the same but for spaces around punctuation and the last digits of fractions."""
    pieces = []
    for text in (expected, found):
        text = re.sub(r"\s*([,:\[\]{}])\s*", r"\1", text)
        pieces.append(NUMBER.split(" ".join(text.split())))
    if len(pieces[0]) != len(pieces[1]):
        return False
    for index, (one, other) in enumerate(zip(*pieces)):
        is_fraction = index % 2 == 1 and any(sign in one + other for sign in ".e")
        if one != other and not (is_fraction and math.isclose(float(one), float(other), **TOLERANCE)):
            return False
    return True


class Session:
    """One section's namespace, gateway and processes, in the working folder."""

    def __init__(self, gateway):
        self.namespace = {"__name__": "page"}
        self.addresses = {}
        self.groups = []
        free = {f"SLUICE_{port.upper()}": "127.0.0.1:0" for port in PORTS}
        path = os.pathsep.join([str(gateway.parent), os.environ["PATH"]])
        self.environment = os.environ | free | {"PATH": path, "SLUICE_REPOSITORY_POLL": "200ms", "SLUICE_CORES": "2"}

    def run(self, block):
        for port, address in self.addresses.items():
            block.text = block.text.replace(PORTS[port], address)
        printed = self.python(block) if block.language == "python" else self.shell(block)
        if "sluice-gateway " in block.text:
            self.addresses = serving(Path("gateway.log"), self.groups[-1])
        expected = block.printed or ""
        if not agree(expected, printed):
            sys.exit(f"{PAGE.name}:{block.line}: printed\n{printed}\nthe page says\n{expected}")

    def python(self, block):
        # Empty lines before it, so that a traceback names the page's lines.
        code = compile("\n" * (block.line - 1) + block.text, str(PAGE), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, self.namespace)
        return printed.getvalue()

    def shell(self, block):
        # Into a file: what goes on in the background would keep a pipe open.
        with tempfile.TemporaryFile("w+") as printed:
            command = ["bash", "-euo", "pipefail", "-c", block.text]
            bash = subprocess.Popen(command, stdout=printed, env=self.environment, start_new_session=True)
            self.groups.append(bash.pid)
            if bash.wait():
                sys.exit(f"{PAGE.name}:{block.line}: ended with status {bash.returncode}")
            printed.seek(0)
            return printed.read()

    def end(self):
        for group in self.groups:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(group, signal.SIGTERM)


def serving(log, group):
    """The addresses that the gateway of a process group says it serves at."""
    until = time.monotonic() + START
    while time.monotonic() < until:
        said = re.search(r" serving (.*)", log.read_text() if log.exists() else "")
        if said:
            return {port: re.search(rf"\b{port}=(\S+)", said[1])[1] for port in PORTS}
        time.sleep(0.05)
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            sys.exit("the gateway ended at once")
    sys.exit("the gateway did not start")


def too_late(_signal, _frame):
    sys.exit(f"not done after {PATIENCE} s")


def run_section(gateway, title):
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(PATIENCE)
    found = sections()
    shared = next(iter(found))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        session = Session(gateway)
        try:
            for block in found[shared] + found[title]:
                session.run(block)
        except BaseException:
            with contextlib.suppress(OSError):
                print(f"the gateway's log:\n{Path('gateway.log').read_text()}", file=sys.stderr)
            raise
        finally:
            session.end()
            os.chdir("/")


def main():
    gateway, *titles = sys.argv[1:] or sys.exit(__doc__)
    gateway = Path(gateway).resolve()
    if titles[:1] == ["--only"]:
        run_section(gateway, titles[1])
        return
    found = sections()
    known = list(found)[1:]
    for title in titles:
        if title not in known:
            sys.exit(f"no section {title!r}; there are: {', '.join(known)}")
    failed = 0
    for title in titles or known:
        started = time.monotonic()
        command = [sys.executable, __file__, str(gateway), "--only", title]
        ran = subprocess.run(command, capture_output=True, text=True)
        blocks = found[title]
        compared = sum(block.printed is not None for block in blocks)
        took = f"{time.monotonic() - started:.1f} s"
        if ran.returncode:
            failed += 1
            print(f"{title}: FAILED after {took}\n{ran.stdout}{ran.stderr}")
        else:
            print(f"{title}: {len(blocks)} blocks, {compared} outputs, {took}", flush=True)
    print(f"sections: {len(titles or known) - failed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
