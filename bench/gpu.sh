#!/usr/bin/env bash
# What a GPU makes of a model: answers against the CPU's, rows a second by rows a request beside bare
# onnxruntime, latencies at half of that, and what the card says meanwhile. Less than 8 minutes.
#
#   bench/gpu.sh MODEL.onnx
#
# ONNXRUNTIME=FILE  a library with CUDA; otherwise the wheel onnxruntime-gpu is set up in .tools/gpu
# SLUICE=FILE       the binary; target/release/sluice when absent
# PROVIDER=NAME     cuda when absent. cpu tries the script itself out, on a machine without a card
set -euo pipefail
cd "$(dirname "$0")/.."

model=${1:?usage: bench/gpu.sh MODEL.onnx}
provider=${PROVIDER:-cuda}
sluice=${SLUICE:-target/release/sluice}
python=${SLUICE_PYTHON:-.tools/python/bin/python}
version=1.31.1

fail() {
    echo "bench/gpu.sh: $*" >&2
    exit 3
}

[ -f "$model" ] || fail "$model is missing"
[ -x "$sluice" ] || fail "$sluice is missing: run \`make build\`, or name it by SLUICE"
if [ "$provider" != cpu ]; then
    command -v nvidia-smi > /dev/null && nvidia-smi -L || fail "there is no NVIDIA GPU, or no driver for it"
    if [ -z "${ONNXRUNTIME:-}" ]; then
        if [ ! -x .tools/gpu/bin/python ]; then
            echo "setting up onnxruntime-gpu $version, which is large"
            python3 -m venv .tools/gpu
            .tools/gpu/bin/pip install --quiet "onnxruntime-gpu[cuda,cudnn]==$version" numpy
        fi
        python=$PWD/.tools/gpu/bin/python
        packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
        ONNXRUNTIME=$packages/onnxruntime/capi/libonnxruntime.so.$version
        libraries=$(printf '%s:' "$packages"/nvidia/*/lib)
        export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:-}
    fi
fi
library=${ONNXRUNTIME:-${SLUICE_ONNXRUNTIME:-.tools/onnxruntime/libonnxruntime.so}}
[ -f "$library" ] || fail "$library is missing"

work=$(mktemp -d)
started=()
end() {
    for process in "${started[@]}"; do
        kill "$process" 2> /dev/null || true
        wait "$process" 2> /dev/null || true
    done
    rm -rf "$work"
}
trap end EXIT

# serve NAME PORT PROVIDER: a gateway with the model on that provider.
serve() {
    mkdir -p "$work/$1/m/1"
    cp "$model" "$work/$1/m/1/model.onnx"
    printf 'format = 1\nproviders = [{ name = "%s" }]\n' "$3" > "$work/$1/m/deployment.toml"
    "$sluice" serve --model-repository "$work/$1" --onnxruntime "$library" --http "127.0.0.1:$2" \
        --grpc "127.0.0.1:$(($2 + 1))" --admin "127.0.0.1:$(($2 + 2))" 2> "$work/$1.log" &
    started+=($!)
    for _ in $(seq 600); do
        curl --silent --fail --output /dev/null "http://127.0.0.1:$2/v2/models/m/ready" && return
        kill -0 "${started[-1]}" 2> /dev/null || break
        sleep 0.1
    done
    fail "the gateway on $3 does not serve: $(grep -E 'refused|error' "$work/$1.log" | tail -n 1)"
}

# figure REPORT KEY...: a number of a report.
figure() {
    "$python" -c 'import json, sys
value = json.load(open(sys.argv[1]))
for key in sys.argv[2:]: value = value[key]
print(round(value, 1))' "$@"
}

serve cpu 18080 cpu
serve device 18180 "$provider"

if [ "$provider" != cpu ]; then
    nvidia-smi --query-gpu=timestamp,utilization.gpu,memory.used,power.draw --format=csv,noheader --loop=1 \
        > "$work/card.csv" &
    started+=($!)
fi

echo "## answers against the CPU's"
"$python" - <<'PYTHON'
import json, random, urllib.request

def ask(port, path, body=None):
    data = json.dumps(body).encode() if body else None
    return json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/models/m{path}", data))

inputs = ask(18080, "")["inputs"]
chance, worst, seen = random.Random(7), 0.0, 0
for rows in (1, 3, 16, 64):
    question = []
    for one in inputs:
        shape = [rows if size < 0 else size for size in one["shape"]]
        count = 1
        for size in shape:
            count *= size
        whole = not one["datatype"].startswith(("FP", "BF"))
        data = [chance.randrange(4) if whole else chance.uniform(-1, 1) for _ in range(count)]
        question.append({"name": one["name"], "shape": shape, "datatype": one["datatype"], "data": data})
    cpu, device = (ask(port, "/infer", {"inputs": question})["outputs"] for port in (18080, 18180))
    for expected, found in zip(cpu, device, strict=True):
        assert expected["shape"] == found["shape"], (expected["shape"], found["shape"])
        scale = max(map(abs, expected["data"])) or 1.0
        for a, b in zip(expected["data"], found["data"], strict=True):
            worst, seen = max(worst, abs(a - b) / scale), seen + 1
print(f"{seen} numbers, of which the farthest is {worst:.1e} of the largest away")
assert worst < 1e-2, "the device answers otherwise"
PYTHON

echo "## requests a second, by rows a request, 16 connections"
best=0
for rows in 1 16 64 256; do
    "$sluice" bench run --url http://127.0.0.1:18180 --model m --protocol v2-binary --rows "$rows" --closed \
        --connections 16 --duration 4s --json "$work/report.json" > /dev/null
    requests=$(figure "$work/report.json" total ok_per_second)
    [ "$rows" = 1 ] && best=$requests
    echo "$rows rows: $requests requests/s, $("$python" -c "print(round($requests * $rows))") rows/s, p99 $(figure "$work/report.json" total latency p99_us) us"
done

echo "## bare onnxruntime, one thread, rows a second"
"$python" - "$model" "$provider" 2> /dev/null <<'PYTHON' || echo "(not measured: this Python has no onnxruntime with that provider)"
import sys, time
import numpy, onnxruntime

model, provider = sys.argv[1:]
names = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider", "cpu": "CPUExecutionProvider"}
session = onnxruntime.InferenceSession(model, providers=[names[provider]])
assert session.get_providers()[0] == names[provider]
types = {"tensor(float)": numpy.float32, "tensor(double)": numpy.float64, "tensor(int64)": numpy.int64}
for rows in (1, 16, 64, 256):
    feed = {one.name: numpy.ones([size if isinstance(size, int) else rows for size in one.shape], types[one.type])
            for one in session.get_inputs()}
    until, runs = time.monotonic() + 2, 0
    while time.monotonic() < until:
        session.run(None, feed)
        runs += 1
    print(f"{rows} rows: {runs * rows / 2:.0f} rows/s")
PYTHON

rate=$("$python" -c "print(max(1, round($best / 2)))")
echo "## half of what it gives of single rows: $rate a second, by chance"
"$sluice" bench run --url http://127.0.0.1:18180 --model m --protocol v2-binary --rate "$rate" --poisson \
    --connections 64 --duration 20s --json "$work/report.json" > /dev/null
for percentile in p50 p99 p999; do
    echo "$percentile $(figure "$work/report.json" total latency ${percentile}_us) us"
done

if [ -s "$work/card.csv" ]; then
    echo "## the card: time, busy, memory, power"
    tail -n 40 "$work/card.csv"
fi
