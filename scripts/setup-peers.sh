#!/usr/bin/env bash
# Installs the servers that `sluice bench compare` drives beside Sluice, those of
# bench/peers/peers.toml or only those that are named: scripts/setup-peers.sh [NAME...]
# One that cannot be installed is reported, and the others go on.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

list=bench/peers/peers.toml
names=$(sed -n 's/^name = "\(.*\)"$/\1/p' "$list")
failed=0
for name in ${*:-$names}; do
    setup=$(sed -n "/^name = \"$name\"\$/,/^command/s/^setup = \"\(.*\)\"\$/\1/p" "$list")
    if [ -z "$setup" ]; then
        echo "setup-peers: no peer is '$name'; there are" $names >&2
        failed=1
    elif $setup; then
        echo "$name: set up"
    else
        echo "$name: could not be set up by: $setup" >&2
        failed=1
    fi
done
exit "$failed"
