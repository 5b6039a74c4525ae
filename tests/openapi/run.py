"""Asks a gateway everything that its OpenAPI document lists, on both ports, with what schemathesis
makes up. No answer may be one that the document does not have, and none a 5xx but the 501 of what an
operation says that it does not do; the log may hold no error and no panic.

    run.py GATEWAY [SECONDS]

GATEWAY is the program, SECONDS (80) how long each port is asked; the shorter runs, of loads on the
serving port and of a gateway with tokens, take a quarter of that each. schemathesis is the one beside
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
LOADS = ["repositoryLoad", "repositoryUnload"]
# Those that say something of an API that ignores what it does not know, and whose models refuse
# nearly every request that the document allows.
CHECKS = ("not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
          "response_schema_conformance,unsupported_method,allow_header_conformance")
# What callers of a gateway with tokens send, by the port that they ask: it is not enough on either.
TOKENS = {"serving": "guess", "admin": "user"}


class Gateway:
    """A process, its addresses, and its log as it grows."""

    def __init__(self, program, folder, flags=()):
        for model, graph in MODELS.items():
            version = folder / "models" / model / "1"
            version.mkdir(parents=True)
            shutil.copy(GRAPHS / graph, version / "model.onnx")
        self.log = []
        self.process = subprocess.Popen(
            [program, "--http=127.0.0.1:0", "--grpc=127.0.0.1:0", "--admin=127.0.0.1:0", "--model-control=explicit",
             "--load-model=*", "--serve-control=model-repository,logging,shared-memory,trace", "--shared-memory",
             "--serve-metrics", "--compress-replies=1024", "--log=info,ort=off", "--log-format=json",
             "--model-repository", str(folder / "models"), *flags],
            stderr=subprocess.PIPE, text=True)
        said = queue.Queue()
        threading.Thread(target=self.follow, args=(said,), daemon=True).start()
        while True:
            line = said.get(timeout=60)
            if line is None:
                sys.exit(f"openapi: the gateway did not start:\n{''.join(self.log)}")
            entry = json.loads(line) if line.startswith("{") else {}
            if "http" in entry and "admin" in entry:
                self.addresses = {"serving": entry["http"], "admin": entry["admin"]}
                return

    def follow(self, said):
        for line in self.process.stderr:
            self.log.append(line)
            said.put(line)
        said.put(None)

    def end(self):
        """What is wrong with how it ended and with what it logged."""
        self.process.send_signal(signal.SIGTERM)
        ended = self.process.wait(timeout=60)
        wrong = [line for line in self.log if not line.startswith("{") or json.loads(line).get("level") == "ERROR"]
        return wrong + ([f"the gateway ended with status {ended}\n"] if ended else [])


def described(address, token=None):
    """The operations that a gateway's document lists."""
    request = urllib.request.Request(f"http://{address}/openapi.json")
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as response:
        document = json.load(response)
    return document, [operation for path in document["paths"].values() for operation in path.values()]


def config(folder, operations):
    """schemathesis' settings: those of the file, and where a 501 is an answer."""
    undone = [operation["operationId"] for operation in operations if "501" in operation["responses"]]
    allowed = '["2xx", "3xx", "4xx", 501]'
    text = (HERE / "schemathesis.toml").read_text()
    text += f"\n[[operations]]\ninclude-operation-id = {json.dumps(undone)}\nchecks.not_a_server_error.expected-statuses = {allowed}\n"
    path = folder / "schemathesis.toml"
    path.write_text(text)
    return path


def ask(gateway, folder, port, seconds, only=None, without=(), token=None):
    """Whether every answer of a port was one that the document has."""
    address = gateway.addresses[port]
    document, operations = described(address, token="operator" if token else None)
    path = folder / "openapi.json"
    path.write_text(json.dumps(document))
    asked = [operation["operationId"] for operation in operations if port in operation["x-ports"]]
    asked = [name for name in asked if name not in without and (only is None or name in only)]
    command = [Path(sys.executable).parent / "schemathesis", "--config-file", config(folder, operations),
               "run", path, "--url", f"http://{address}", "--max-time", seconds, "--phases",
               "examples,coverage,fuzzing", "--checks", CHECKS]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    for name in asked:
        command += ["--include-operation-id", name]
    print(f"== {port} port: {len(asked)} operations, {seconds} s", flush=True)
    # It keeps what it has found where it runs.
    return subprocess.run([str(part) for part in command], cwd=folder).returncode == 0


def open_run(program, folder, seconds):
    """Everything, and then loads and unloads on the serving port, which leave nothing to predict with."""
    gateway = Gateway(program, folder)
    try:
        # A gateway that drains is no longer ready, and says so by 503.
        fine = [ask(gateway, folder, "serving", seconds, without=LOADS),
                ask(gateway, folder, "admin", seconds, without=["drain"]),
                ask(gateway, folder, "serving", seconds // 4, only=LOADS)]
    finally:
        wrong = gateway.end()
    return all(fine), wrong


def run_with_tokens(program, folder, seconds):
    """Those who have no token that is good for what they ask for."""
    for name, token in (("inference", "user"), ("admin", "operator")):
        (folder / name).write_text(f"{token}\n")
    flags = [f"--{name}-token-file={folder / name}" for name in ("inference", "admin")]
    gateway = Gateway(program, folder, flags)
    try:
        fine = [ask(gateway, folder, port, seconds // 8, token=token) for port, token in TOKENS.items()]
    finally:
        wrong = gateway.end()
    return all(fine), wrong


def main():
    program = os.path.abspath(sys.argv[1])
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 80
    failed = False
    for run in (open_run, run_with_tokens):
        with tempfile.TemporaryDirectory() as folder:
            fine, wrong = run(program, Path(folder), seconds)
        for line in wrong[:20]:
            print(f"log: {line}", end="")
        failed |= not fine or bool(wrong)
    if failed:
        sys.exit("openapi: failed (see above)")


main()
