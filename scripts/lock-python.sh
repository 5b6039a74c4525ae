#!/usr/bin/env bash
# Makes the lock files of scripts/setup-python.sh again from the requirements.in beside them: one
# file for every Python from 3.11 on and every platform, with the digests of all of their wheels.
# Run it to take newer packages; uv is installed into .tools/lock for that.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=.tools/lock/bin/uv
if [ ! -x "$uv" ]; then
    python3 -m venv .tools/lock
    .tools/lock/bin/pip install --quiet --disable-pip-version-check uv==0.13.9
fi

# uv brings its own certificates unless told otherwise; a company's proxy needs the system's.
lock() {
    "$uv" --system-certs pip compile --quiet --universal --python-version 3.11 --generate-hashes --only-binary :all: \
        --no-annotate --custom-compile-command scripts/lock-python.sh "$@"
}

lock --config-file tests/python/uv.toml tests/python/requirements.in --output-file tests/python/requirements.txt
lock --no-config bench/lightgbm/requirements.in --output-file bench/lightgbm/requirements.txt
lock --config-file tests/frameworks/uv.toml tests/frameworks/requirements.in --output-file tests/frameworks/requirements.txt
lock --no-config tests/openapi/requirements.in --output-file tests/openapi/requirements.txt
for peer in bench/peers/*/requirements.in; do
    lock --no-config "$peer" --output-file "${peer%.in}.txt"
done
wc -l tests/python/requirements.txt bench/lightgbm/requirements.txt tests/frameworks/requirements.txt tests/openapi/requirements.txt
