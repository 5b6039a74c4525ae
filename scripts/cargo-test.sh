#!/usr/bin/env bash
# Runs cargo test with the given flags, then prints the number of tests by crate. Fails when a
# test failed, and in CI also when one was ignored: nothing is skipped silently there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
cargo test "$@" 2>&1 | tee "$log" || status=$?
# Built by now, so this only names the crate of each test binary.
cargo test "$@" --no-run --message-format json >"$log.binaries" 2>/dev/null || true
python3 scripts/test-summary.py "$log" "$log.binaries" || status=1
rm -f "$log.binaries"
exit "$status"
