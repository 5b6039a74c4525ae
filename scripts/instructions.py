#!/usr/bin/env python3
"""Counts the instructions of a request, stage by stage, and compares them with bench/instructions.json.

    scripts/instructions.py target/release/sluice-gateway            compare; fails if something grew
    scripts/instructions.py target/release/sluice-gateway --accept   make these counts the baseline

The gateway runs under valgrind's callgrind with one serving core and a graph of next to no work; a
thousand equal requests are counted over each protocol, after some that warm it up. Counts do not mind
what else the machine does, but they do mind the compiler, the C library and the processor, whose
string functions differ: a baseline holds on machines of its kind, which it names.
"""

import argparse
import collections
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BASELINE = ROOT / "bench" / "instructions.json"
GRAPH = ROOT / "gateway" / "tests" / "models" / "scale.onnx"
WARM, COUNTED = 300, 1000
# A figure may grow by this part of it and by so many instructions: addresses differ between runs,
# and with them how maps and allocators fare.
TOLERANCE, SLACK = 0.03, 100

# What a stage takes, calls included. What a compiler has put into its caller is not told apart.
GATEWAY = "sluice_gateway::"
STAGES = {
    "route": [f"{GATEWAY}http::route::Route::parse"],
    "decode": [
        f"{GATEWAY}http::v1::request::decode",
        f"{GATEWAY}http::v2::decode::decode",
        f"<{GATEWAY}grpc::codec::Reader as tonic::codec::Decoder>::decode",
        f"{GATEWAY}grpc::decode::request",
    ],
    "inputs and look-up": [f"{GATEWAY}inputs::prepare"],
    "submit": [f"{GATEWAY}pipeline::submit"],
    "batch and run": [f"{GATEWAY}executor::batch::run_batch"],
    "run": ["<sluice_engine::onnx::OnnxEngine as sluice_engine::Engine>::run_timed"],
    "encode": [
        f"{GATEWAY}http::v1::answer::encode",
        f"{GATEWAY}http::v2::encode::encode",
        f"{GATEWAY}grpc::encode::reply",
        f"<{GATEWAY}grpc::codec::Writer<T> as tonic::codec::Encoder>::encode",
    ],
}


def fail(text):
    sys.exit(f"instructions: {text}")


class Gateway:
    """A gateway under callgrind that serves one model."""

    def __init__(self, binary, folder):
        models = folder / "models" / "scale"
        (models / "1").mkdir(parents=True)
        shutil.copy(GRAPH, models / "1" / "model.onnx")
        settings = 'format = 1\nexecutor = "tick"\nmax_batch_rows = 64\nmax_run_time = "1h"\n'
        (models / "deployment.toml").write_text(settings)
        self.folder = folder
        any_port = "127.0.0.1:0"
        command = ["valgrind", "--tool=callgrind", "--compress-strings=no", "--compress-pos=no"]
        command += [f"--callgrind-out-file={folder}/out", str(binary), "--cores=1"]
        command += [f"--{port}={any_port}" for port in ("http", "grpc", "admin")]
        command += ["--repository-poll=1h", "--log-format=json"]
        command += ["--model-repository", str(folder / "models")]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.http = self.grpc = None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if not line.startswith("{"):
                continue
            entry = json.loads(line)
            if "http" in entry:
                self.http, self.grpc = (int(entry[key].rsplit(":", 1)[1]) for key in ("http", "grpc"))
            if entry.get("message") == "loaded model version":
                break
            if entry.get("level") in ("WARN", "ERROR"):
                self.end()
                fail(f"the gateway does not serve the graph: {line.strip()}")
        else:
            fail(f"the gateway ended: {''.join(said[-3:])}")
        # Nobody else reads what it says, and a full pipe would stop it.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def control(self, what):
        command = ["callgrind_control", what, str(self.process.pid)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def count(self, ask):
        """The instructions of a request by stage."""
        ask(WARM)
        self.control("-z")
        before = set(self.folder.glob("out.*"))
        ask(COUNTED)
        self.control("-d")
        for _ in range(100):
            dumped = set(self.folder.glob("out.*")) - before
            if dumped:
                break
            time.sleep(0.1)
        time.sleep(0.5)
        return stages(dumped)

    def end(self):
        self.process.terminate()
        self.process.wait(timeout=120)


def stages(files):
    total, library, inclusive = 0, 0, collections.Counter()
    for file in files:
        function = called = None
        in_call, in_library = False, False
        for line in file.read_text(errors="replace").splitlines():
            if line.startswith("ob="):
                in_library = "onnxruntime" in line
            elif line.startswith("fn="):
                function = line[3:]
            elif line.startswith("cfn="):
                called = line[4:]
            elif line.startswith("calls="):
                in_call = True
            elif re.match(r"[+\-*\d]", line):
                cost = int(line.split()[1])
                if not in_call:
                    total += cost
                    library += cost if in_library else 0
                # A recursion's inner calls are part of the outer one's.
                elif called.split("'")[0] != function.split("'")[0]:
                    inclusive[called] += cost
                in_call = False
    counts = {"request": total}
    for stage, functions in STAGES.items():
        cost = sum(inclusive[function] for function in functions)
        if cost:
            counts[stage] = cost
    if "run" in counts:
        counts["all but the run"] = total - counts["run"]
        counts["batch"] = counts.pop("batch and run", counts["run"]) - counts["run"]
    return {stage: round(cost / COUNTED) for stage, cost in counts.items()}


def http(port, path, body, headers=""):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    request, answers = head.encode() + body, connection.makefile("rb")

    def ask(times):
        for _ in range(times):
            connection.sendall(request)
            if b" 200 " not in answers.readline():
                fail(f"{path} was not answered with 200")
            length = 0
            while (line := answers.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            answers.read(length)

    return ask


def grpc(port, raw):
    import grpc as library
    from tritonclient.grpc import service_pb2, service_pb2_grpc

    stub = service_pb2_grpc.GRPCInferenceServiceStub(library.insecure_channel(f"127.0.0.1:{port}"))
    request = service_pb2.ModelInferRequest(model_name="scale")
    tensor = request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    if raw:
        request.raw_input_contents.append(struct.pack("<ff", 1, 2.5))
    else:
        tensor.contents.fp32_contents.extend([1, 2.5])

    def ask(times):
        for _ in range(times):
            stub.ModelInfer(request)

    return ask


def protocols(gateway):
    infer = "/v2/models/scale/infer"
    tensor = b'"name":"x","datatype":"FP32","shape":[1,2]'
    head = b'{"inputs":[{%b,"parameters":{"binary_data_size":8}}],"parameters":{"binary_data_output":true}}'
    head %= tensor
    length = f"Inference-Header-Content-Length: {len(head)}\r\n"
    yield "v1", http(gateway.http, "/v1/models/scale:predict", b'{"instances":[[1,2.5]]}')
    yield "v2", http(gateway.http, infer, b'{"inputs":[{%b,"data":[1,2.5]}]}' % tensor)
    yield "v2-binary", http(gateway.http, infer, head + struct.pack("<ff", 1, 2.5), length)
    yield "grpc typed", grpc(gateway.grpc, raw=False)
    yield "grpc raw", grpc(gateway.grpc, raw=True)


def compare(baseline, counted):
    """Prints a table; what grew."""
    grown = []
    print(f"{'':32}{'baseline':>10}{'now':>10}{'change':>10}")
    for protocol, counts in counted.items():
        for stage, now in counts.items():
            before = baseline.get(protocol, {}).get(stage)
            change = "" if not before else f"{100 * (now / before - 1):+.1f} %"
            print(f"{protocol + ', ' + stage:32}{before or '':>10}{now:>10}{change:>10}")
            if before and now > before * (1 + TOLERANCE) + SLACK:
                grown.append(f"{protocol}, {stage}")
    return grown


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=pathlib.Path, help="sluice-gateway, a release build")
    parser.add_argument("--accept", action="store_true", help="make these counts the baseline")
    arguments = parser.parse_args()
    if not arguments.binary.exists():
        fail(f"{arguments.binary} is not there; `make build` makes it")
    if not shutil.which("valgrind"):
        fail("valgrind is not there; install it (Debian: apt-get install valgrind)")
    with tempfile.TemporaryDirectory(prefix="instructions-") as folder:
        gateway = Gateway(arguments.binary, pathlib.Path(folder))
        try:
            counted = {protocol: gateway.count(ask) for protocol, ask in protocols(gateway)}
        finally:
            gateway.end()
    baseline = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    grown = compare(baseline, counted)
    if arguments.accept:
        library = os.confstr("CS_GNU_LIBC_VERSION") if hasattr(os, "confstr") else ""
        machine = f"{platform.machine()}, {library}"
        BASELINE.write_text(json.dumps({"machine": machine, **counted}, indent=2) + "\n")
        print(f"accepted into {BASELINE.relative_to(ROOT)}")
    elif grown:
        fail(f"more than {TOLERANCE:.0%} more of: {'; '.join(grown)}; `make bench-accept` if that is worth it")


if __name__ == "__main__":
    main()
