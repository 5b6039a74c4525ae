#!/usr/bin/env python3
"""Makes the PyTorch of this environment importable where CUDA's libraries are not installed.

PyPI has no build of PyTorch for Linux without CUDA. The libraries of the one that is there cannot be
loaded unless a dozen others are found, 2.4 GB, none of which computes anything on a CPU. So
one library takes the place of those that are missing: it has every function by name, and each of
them ends the process with its name. A PyTorch that lacks nothing is left as it is.
"""

import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

STAND_IN = "libstand_in_for_cuda.so"
# Ends the process without C's headers, so that nothing declares the names that follow.
FIRST_LINES = """
extern long write(int, const void *, unsigned long);
extern void abort(void);
static void absent(const char *name, unsigned long length) {
    static const char why[] = ": this PyTorch was installed without CUDA\\n";
    write(2, name, length);
    write(2, why, sizeof why - 1);
    abort();
}
"""


def output(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(library):
    """The names of libraries that are not found, and the paths of those that are."""
    missing, found = set(), set()
    for line in output("ldd", library).splitlines():
        name, _, place = line.strip().rpartition(" => ")
        if place == "not found":
            missing.add(name)
        elif place.startswith("/"):
            found.add(place.split(" ")[0])
    return missing, found


def symbols(library, *kind):
    """The dynamic symbols of one kind, without their versions."""
    lines = output("nm", "--dynamic", "--format=just-symbols", "--without-symbol-versions", *kind, library)
    return set(lines.split())


def main():
    folder = Path(sysconfig.get_path("platlib")) / "torch" / "lib"
    libraries = [str(library) for library in sorted(folder.glob("lib*.so*")) if not library.is_symlink()]
    if not libraries:
        sys.exit(f"without_cuda: {folder} holds no libraries of PyTorch")
    missing, found = set(), set(libraries)
    for library in libraries:
        lacks, has = needed(library)
        missing |= lacks
        found |= has
    if not missing:
        print("without_cuda: PyTorch lacks no library")
        return
    wanted = set().union(*(symbols(library, "--undefined-only") for library in libraries))
    there = set().union(*(symbols(library, "--defined-only") for library in found))
    # What Python's own program brings, and what may be there or not.
    absent = sorted(name for name in wanted - there if not name.startswith(("Py", "_Py", "_")))
    with tempfile.NamedTemporaryFile("w", suffix=".c") as source:
        source.write(FIRST_LINES)
        source.writelines(f'void {name}(void) {{ absent("{name}", {len(name)}); }}\n' for name in absent)
        source.flush()
        output("cc", "-shared", "-fPIC", "-fno-builtin", "-o", str(folder / STAND_IN), source.name)
    for name in missing:
        (folder / name).symlink_to(STAND_IN)
    print(f"without_cuda: {STAND_IN} stands in for {len(missing)} libraries ({len(absent)} functions)")


main()
