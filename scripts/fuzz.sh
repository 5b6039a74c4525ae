#!/usr/bin/env bash
# Fuzzes every target of fuzz/, two at a time, and says how far each came. It fails when one fails,
# and what made it fail is then in fuzz/artifacts. What is found on the way is kept in fuzz/target
# and goes on from there the next time; fuzz/README.md tells how it gets into the corpora.
#   FUZZ_SECONDS=600   how long each is fuzzed
#   FUZZ_TARGETS=...   some of them only
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

seconds=${FUZZ_SECONDS:-600}
targets=${FUZZ_TARGETS:-$(sed -n 's/^name = "\(.*\)"$/\1/p' fuzz/Cargo.toml | tail -n +2)}
tool=.tools/cargo-fuzz
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/fuzz/target}
# libFuzzer's instrumentation is an unstable option of the compiler, and nothing else here is.
export RUSTC_BOOTSTRAP=1

if ! PATH=$PWD/$tool/bin:$PATH command -v cargo-fuzz >/dev/null; then
    CARGO_TARGET_DIR=$PWD/$tool/target cargo install --quiet --locked --root "$tool" --version 0.13.2 cargo-fuzz
    rm -rf "$tool/target"
fi
PATH=$PWD/$tool/bin:$PATH
cargo fuzz build --sanitizer none
programs=$CARGO_TARGET_DIR/$(rustc -vV | sed -n 's/^host: //p')/release
found=$CARGO_TARGET_DIR/corpus

fuzz() {
    mkdir -p "$found/$1" "fuzz/artifacts/$1"
    local dictionary=fuzz/dictionaries/$1.dict
    "$programs/$1" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 -print_final_stats=1 \
        ${dictionary:+-dict="$dictionary"} -artifact_prefix="fuzz/artifacts/$1/" \
        "$found/$1" "fuzz/corpus/$1" >"$found/$1.log" 2>&1 && echo "$1: done" || echo "$1: FAILED"
}

# The last line of libFuzzer's that has a key, and the number behind it.
last() {
    sed -n "s/.*$2 *\([0-9]*\).*/\1/p" "$found/$1.log" | tail -n 1
}

export -f fuzz
export seconds programs found
echo "fuzz: $seconds s each"
printf '%s\n' $targets | xargs -P 2 -I '{}' bash -c 'fuzz {}'

status=0
printf '%-14s %12s %7s %7s %7s %9s %s\n' target executions cov ft corpus 'RSS in MB' failures
for target in $targets; do
    failures=$(find "fuzz/artifacts/$target" -type f | wc -l)
    [ "$failures" -eq 0 ] && grep -q '^stat::number_of_executed_units' "$found/$target.log" || status=1
    printf '%-14s %12s %7s %7s %7s %9s %s\n' "$target" "$(last "$target" stat::number_of_executed_units:)" \
        "$(last "$target" cov:)" "$(last "$target" ft:)" "$(last "$target" corp:)" \
        "$(last "$target" stat::peak_rss_mb:)" "$failures"
done
exit $status
