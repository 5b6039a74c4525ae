#!/usr/bin/env bash
# Says what is missing on this machine to build and test Sluice, all of it at once.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

missing=0
complain() {
    echo "missing: $*" >&2
    missing=1
}

# The oldest Rust that the workspace takes, as Cargo.toml says.
wanted=$(sed -n 's/^rust-version = "\([0-9.]*\)"/\1/p' Cargo.toml)
if ! command -v cargo >/dev/null; then
    complain "cargo; install Rust $wanted or newer with rustup (https://rustup.rs)"
else
    found=$(cargo --version | sed 's/^cargo \([0-9.]*\).*/\1/')
    if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
        complain "Rust $wanted, cargo is $found; run: rustup update stable"
    fi
    cargo fmt --version >/dev/null 2>&1 || complain "rustfmt; run: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || complain "clippy; run: rustup component add clippy"
fi
command -v cc >/dev/null || complain "a C compiler named cc (Debian: apt-get install build-essential)"
python=${PYTHON:-python3}
if ! command -v "$python" >/dev/null; then
    complain "Python 3 as $python (Debian: apt-get install python3 python3-pip python3-venv)"
else
    "$python" -m pip --version >/dev/null 2>&1 || complain "pip for $python (Debian: apt-get install python3-pip)"
    "$python" -c 'import venv, ensurepip' 2>/dev/null || complain "venv for $python (Debian: apt-get install python3-venv)"
fi
exit "$missing"
