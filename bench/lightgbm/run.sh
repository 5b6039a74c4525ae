#!/usr/bin/env bash
# Holds Sluice's learner against LightGBM on real sales: bench/lightgbm/run.sh PASTA.CSV [OPTION...]
# Options are compare.py's, such as --repeat 5. SLUICE names the program; without it
# target/release/sluice is built, unless nothing changed.
# Exit status: 0 within the bounds, 1 outside, 2 when something could not be run.
set -euo pipefail

fail() {
    echo "bench/lightgbm: $*" >&2
    exit 2
}

[ $# -ge 1 ] || fail "usage: bench/lightgbm/run.sh PASTA.CSV [OPTION...]"
data=$(realpath -e "$1" 2>/dev/null) || fail "no file $1; bench/lightgbm/README.md says where it comes from"
shift
sluice=${SLUICE:-}
[ -z "$sluice" ] || sluice=$(realpath -e "$sluice" 2>/dev/null) || fail "SLUICE names $SLUICE, which is not there"
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if [ -z "$sluice" ]; then
    cargo build --release --locked --package sluice --bin sluice || fail "sluice could not be built"
    sluice=${CARGO_TARGET_DIR:-target}/release/sluice
fi
if [ -z "${SLUICE_ONNXRUNTIME:-}${ORT_DYLIB_PATH:-}" ]; then
    scripts/setup-onnxruntime.sh || exit 2
    export SLUICE_ONNXRUNTIME=$PWD/.tools/onnxruntime/libonnxruntime.so
fi
# A registry in the environment is not for these versions.
unset SLUICE_REGISTRY
scripts/setup-python.sh lightgbm || exit 2
.tools/lightgbm/bin/python scripts/pasta.py "$data" .tools/pasta || exit 2

.tools/lightgbm/bin/python bench/lightgbm/compare.py bench/lightgbm/pasta/train.toml --sluice "$sluice" "$@"
