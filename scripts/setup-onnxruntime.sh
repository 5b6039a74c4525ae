#!/usr/bin/env bash
# Puts ONNX Runtime's shared library at .tools/onnxruntime/libonnxruntime.so, out of the pinned
# wheel on PyPI. Only pip is needed for that: the wheel is a zip file, and nothing of it is run.
# Once the library is there this returns within milliseconds. Where SLUICE_ONNXRUNTIME, or else
# ORT_DYLIB_PATH, names another library, that one is used and nothing is fetched.
set -euo pipefail
here=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

version=1.32.0
folder=.tools/onnxruntime
library=libonnxruntime.so.$version
stamp=$folder/.checked

fail() {
    echo "setup-onnxruntime: $*" >&2
    exit 1
}

# What the stamp holds: the digest that was found right, and the file that it was found on.
state() {
    echo "$expected $(stat -L -c '%s %Y %i' "$folder/$library" 2>/dev/null)"
}

digest_is_right() {
    [ "$(sha256sum <"$1" | cut -d' ' -f1)" = "$expected" ]
}

finish() {
    ln -sfn "$library" "$folder/libonnxruntime.so"
    state >"$stamp"
    echo "onnxruntime: $1 $folder/libonnxruntime.so ($version, $architecture)"
    exit 0
}

# Whether $1 is the file that this script makes, whatever links lead to its folder.
is_ours() {
    [ "${1##*/}" = libonnxruntime.so ] && [ "$(realpath -m -- "$(dirname -- "$1")")" = "$(realpath -m -- "$folder")" ]
}

variable=
if [ -n "${SLUICE_ONNXRUNTIME:-}" ]; then
    variable=SLUICE_ONNXRUNTIME
elif [ -n "${ORT_DYLIB_PATH:-}" ]; then
    variable=ORT_DYLIB_PATH
fi
if [ -n "$variable" ]; then
    named=${!variable}
    case $named in
    /*) ;;
    *) named=$here/$named ;;
    esac
    if ! is_ours "$named"; then
        [ -e "$named" ] || fail "$variable names $named, which is not there"
        echo "onnxruntime: $variable names $named, nothing is fetched"
        exit 0
    fi
fi

architecture=$(uname -m)
[ "$architecture" != arm64 ] || architecture=aarch64
expected=
while read -r digest name; do
    [ "$name" != "$architecture/$library" ] || expected=$digest
done <scripts/onnxruntime.sha256
if [ -z "$expected" ] || [ "$(uname -s)" != Linux ]; then
    fail "no library is pinned for $(uname -s) on $architecture; install ONNX Runtime 1.23 or newer yourself and name its library in SLUICE_ONNXRUNTIME"
fi

if [ -e "$folder/libonnxruntime.so" ] && [ -e "$stamp" ] && [ "$(<"$stamp")" = "$(state)" ]; then
    echo "onnxruntime: $folder/libonnxruntime.so is there ($version, $architecture)"
    exit 0
fi
if [ -e "$folder/$library" ]; then
    if digest_is_right "$folder/$library"; then
        finish "checked"
    fi
    echo "onnxruntime: $folder/$library is not the pinned file, replacing it" >&2
fi

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "$python is not there; install Python 3 with pip (Debian: apt-get install python3-pip)"
"$python" -m pip --version >/dev/null 2>&1 || fail "$python has no pip; install it (Debian: apt-get install python3-pip)"
mkdir -p "$folder"
work=$(mktemp -d "$folder/.partial.XXXXXX")
trap 'rm -rf "$work"' EXIT

# The platform is named, so that any Python's pip takes the same wheel.
if ! "$python" -m pip download --quiet --disable-pip-version-check --retries 2 --no-deps --only-binary=:all: \
    --implementation cp --python-version 3.12 --platform "manylinux_2_28_$architecture" \
    --dest "$work" "onnxruntime==$version" 2>"$work/log"; then
    tail -n 3 "$work/log" >&2
    fail "pip could not download onnxruntime==$version; check that a Python package index is within reach, or name a library in SLUICE_ONNXRUNTIME"
fi
"$python" - "$work" "$library" <<'PYTHON' || fail "the wheel does not hold onnxruntime/capi/$library"
import pathlib, sys, zipfile
work, library = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(work.glob("*.whl"))) as wheel:
    (work / library).write_bytes(wheel.read(f"onnxruntime/capi/{library}"))
    (work / "LICENSE").write_bytes(wheel.read("onnxruntime/LICENSE"))
PYTHON
digest_is_right "$work/$library" || fail "$library from the wheel does not have the SHA-256 in scripts/onnxruntime.sha256"
mv "$work/LICENSE" "$folder/LICENSE"
mv "$work/$library" "$folder/$library"
finish "installed"
