#!/usr/bin/env bash
# Makes a virtual environment from a lock file, unless it is there already:
#   scripts/setup-python.sh            .tools/python   from tests/python/requirements.txt
#   scripts/setup-python.sh lightgbm   .tools/lightgbm from bench/lightgbm/requirements.txt
#   scripts/setup-python.sh frameworks .tools/frameworks from tests/frameworks/requirements.txt, 700 MB
#   scripts/setup-python.sh openapi    .tools/openapi from tests/openapi/requirements.txt
#   scripts/setup-python.sh peer-NAME  .tools/peer-NAME from bench/peers/NAME/requirements.txt
# The lock files are complete and carry digests, so nothing is looked up and nothing else gets in.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "setup-python: $*" >&2
    exit 1
}

case ${1:-python} in
python) folder=.tools/python requirements=tests/python/requirements.txt ;;
lightgbm) folder=.tools/lightgbm requirements=bench/lightgbm/requirements.txt ;;
frameworks) folder=.tools/frameworks requirements=tests/frameworks/requirements.txt ;;
openapi) folder=.tools/openapi requirements=tests/openapi/requirements.txt ;;
peer-*) folder=.tools/$1 requirements=bench/peers/${1#peer-}/requirements.txt ;;
*) fail "unknown environment '$1': python, lightgbm, frameworks, openapi or peer-NAME" ;;
esac
[ -e "$requirements" ] || fail "unknown environment '$1': there is no $requirements"

# Written last, so that an interrupted installation is made again.
stamp=$folder/.installed
wanted=$(sha256sum <"$requirements")
if [ -x "$folder/bin/python" ] && [ -e "$stamp" ] && [ "$(<"$stamp")" = "$wanted" ] && "$folder/bin/python" -c ''; then
    echo "python: $folder is there"
    exit 0
fi

is_new_enough() {
    command -v "$1" >/dev/null && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if is_new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "no Python 3.11 or newer is there; install one, or name it in PYTHON"
"$python" -c 'import venv, ensurepip' 2>/dev/null ||
    fail "$python has no venv; install it (Debian: apt-get install python3-venv)"

rm -rf "$folder"
mkdir -p "$folder"
"$python" -m venv "$folder" >"$folder/.log" 2>&1 || { tail -n 3 "$folder/.log" >&2; fail "$python could not make $folder"; }
# Some packages name the Pythons that their makers have tried; the lock is for all from 3.11 on.
if ! "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 --no-deps --require-hashes \
    --ignore-requires-python --only-binary=:all: --requirement "$requirements" >"$folder/.log" 2>&1; then
    tail -n 3 "$folder/.log" >&2
    fail "pip could not install $requirements (its last lines are above); it needs a Python package index within reach"
fi
if [ "$folder" = .tools/frameworks ]; then
    "$folder/bin/python" tests/frameworks/without_cuda.py
fi
echo "$wanted" >"$stamp"
echo "python: installed $folder ($("$folder/bin/python" --version), $(grep -c '==' "$requirements") pinned packages)"
