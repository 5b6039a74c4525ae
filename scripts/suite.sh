#!/usr/bin/env bash
# Runs one suite of tests and says how long it took: scripts/suite.sh NAME BUDGET COMMAND...
# BUDGET is in seconds of wall time. Going over it is a warning: a slow machine is not a defect.
set -euo pipefail

name=$1 budget=$2
shift 2

echo "== $name: $*"
status=0
started=$SECONDS
"$@" || status=$?
took=$((SECONDS - started))

echo "suite $name took $took s of a budget of $budget s"
if [ "$took" -gt "$budget" ]; then
    echo "warning: suite $name is over its budget" >&2
fi
if [ "$status" -ne 0 ]; then
    echo "suite $name failed with status $status" >&2
fi
exit "$status"
