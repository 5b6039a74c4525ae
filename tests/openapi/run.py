"""Asks a gateway everything that its OpenAPI document lists, on both ports, with what schemathesis
makes up. No answer may be one that the document does not have, and none a 500; the log may hold no
error and no panic.

    run.py GATEWAY [SECONDS]

GATEWAY is the program, SECONDS (120) how long each port is asked; schemathesis is the one beside
the Python that runs this.
"""

import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
GRAPHS = HERE.parents[1] / "gateway" / "tests" / "models"
# Models, and the graphs that they are.
MODELS = {name: f"{name}.onnx" for name in ("scale", "pair", "mixed", "optional", "parse", "scores", "shift")}
MODELS |= {"texts": "identity/BYTES.onnx", "numbers": "identity/INT32.onnx", "halves": "identity/FP16.onnx"}
# What would leave the rest of a run without models, or without a gateway that is ready. Loads and
# unloads are asked for on the admin port, which has no predictions.
LEFT_OUT = {"serving": ["repositoryLoad", "repositoryUnload"], "admin": ["drain"]}
# Those that say something of an API that ignores what it does not know, and whose models refuse
# nearly every request that the document allows.
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,unsupported_method,allow_header_conformance")


def start(program, folder):
    """The process, its addresses, and its log as it grows."""
    for model, graph in MODELS.items():
        version = folder / model / "1"
        version.mkdir(parents=True)
        shutil.copy(GRAPHS / graph, version / "model.onnx")
    process = subprocess.Popen(
        [program, "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin=127.0.0.1:0", "--model-control=explicit",
         "--load-model=*", "--serve-control=model-repository,logging,shared-memory,trace", "--shared-memory",
         "--serve-metrics", "--compress-replies=1024", "--log=info,ort=off", "--log-format=json",
         "--model-repository", str(folder)],
        stderr=subprocess.PIPE, text=True)
    log, said = [], queue.Queue()

    def follow():
        for line in process.stderr:
            log.append(line)
            said.put(line)
        said.put(None)

    threading.Thread(target=follow, daemon=True).start()
    while True:
        line = said.get(timeout=60)
        if line is None:
            sys.exit(f"openapi: the gateway did not start:\n{''.join(log)}")
        entry = json.loads(line) if line.startswith("{") else {}
        if "http" in entry and "admin" in entry:
            return process, {"serving": entry["http"], "admin": entry["admin"]}, log


def ask(port, address, seconds):
    """Whether every answer of a port was one that the document has."""
    location = f"http://{address}/openapi.json"
    with urllib.request.urlopen(location, timeout=30) as response:
        paths = json.load(response)["paths"].values()
    operations = [operation["operationId"] for path in paths for operation in path.values()
                  if port in operation["x-ports"] and operation["operationId"] not in LEFT_OUT[port]]
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", HERE / "schemathesis.toml",
               "run", location, "--max-time", seconds, "--phases", "examples,coverage,fuzzing", "--checks", CHECKS]
    for operation in operations:
        command += ["--include-operation-id", operation]
    print(f"== {port} port: {len(operations)} operations, {seconds} s", flush=True)
    return subprocess.run([str(part) for part in command]).returncode == 0


def main():
    program = sys.argv[1]
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 120
    with tempfile.TemporaryDirectory() as folder:
        process, addresses, log = start(program, Path(folder))
        try:
            fine = [ask(port, address, seconds) for port, address in addresses.items()]
        finally:
            process.send_signal(signal.SIGTERM)
            ended = process.wait(timeout=60)
    wrong = [line for line in log if not line.startswith("{") or json.loads(line).get("level") == "ERROR"]
    for line in wrong[:20]:
        print(f"log: {line}", end="")
    if not all(fine) or wrong or ended != 0:
        sys.exit(f"openapi: failed (ports {fine}, {len(wrong)} lines of the log, exit status {ended})")


main()
