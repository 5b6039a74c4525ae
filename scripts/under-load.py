#!/usr/bin/env python3
"""What a gateway does under load that it cannot answer, while models come and go, and for long.

    scripts/under-load.py overload|fairness|loading|soak [--short]

Runs target/release/sluice-gateway on the first core and target/release/sluice's generator on the
second, over loopback, with made-up models: a costly one of a row a run, and one of 200 MB. MODELS names
a folder with mlp_small.onnx and gbt_500x6.onnx for what is measured with them. Figures go to standard
output; docs/performance.md says what they mean.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
GATEWAY = pathlib.Path(os.environ.get("SLUICE_GATEWAY", TARGET / "sluice-gateway"))
GENERATOR = pathlib.Path(os.environ.get("SLUICE", TARGET / "sluice"))
MODELS = pathlib.Path(os.environ.get("MODELS", ROOT.parent / "shared" / "models"))


# A graph's bytes, by protobuf's rules: enough for matrix products.


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def products(widths):
    """x[batch, widths[0]] times constant matrices, each as wide as the next number says."""
    nodes, weights, name = b"", b"", "x"
    for index, (rows, columns) in enumerate(zip(widths, widths[1:])):
        out = "y" if index == len(widths) - 2 else f"h{index}"
        node = field(1, name) + field(1, f"w{index}") + field(2, out) + field(4, "MatMul")
        nodes += field(1, node)
        raw = (b"\x0a\xd7\x23\x3c" * columns + b"\x0a\xd7\x23\xbc" * columns) * (rows // 2)
        tensor = field(1, rows) + field(1, columns) + field(2, 1) + field(8, f"w{index}")
        weights += field(5, tensor + field(9, raw))
        name = out

    def value(name, width):
        shape = field(1, field(2, "batch")) + field(1, field(1, width))
        return field(1, name) + field(2, field(1, field(1, 1) + field(2, shape)))

    graph = nodes + field(2, "products") + weights
    graph += field(11, value("x", widths[0])) + field(12, value("y", widths[-1]))
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def place(folder, name, graph, deployment=""):
    version = folder / name / "1"
    version.mkdir(parents=True)
    if isinstance(graph, bytes):
        (version / "model.onnx").write_bytes(graph)
    else:
        shutil.copy(graph, version / "model.onnx")
    (folder / name / "deployment.toml").write_text("format = 1\n" + deployment)


def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Gateway:
    """A gateway on the first core."""

    def __init__(self, repository, *arguments):
        self.http, self.grpc, self.admin = (f"127.0.0.1:{port()}" for _ in range(3))
        command = ["taskset", "-c", "0", GATEWAY, "--model-repository", repository, "--cores", "1"]
        command += ["--http", self.http, "--grpc", self.grpc, "--admin", self.admin, *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://{self.http}/v2/health/ready").read()
                return
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        sys.exit("the gateway did not get ready")

    def call(self, path):
        request = urllib.request.Request(f"http://{self.admin}{path}", method="POST", data=b"")
        return urllib.request.urlopen(request, timeout=120).read()

    def status(self):
        """Its memory in MB, threads and open files."""
        proc = pathlib.Path(f"/proc/{self.process.pid}")
        text = (proc / "status").read_text()
        number = lambda key: int(re.search(rf"{key}:\s+(\d+)", text).group(1))
        return number("VmRSS") / 1024, number("Threads"), len(os.listdir(proc / "fd"))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(30)


def start_load(gateway, model, *arguments, grpc=False):
    """The generator on the second core, with made-up rows."""
    report = tempfile.NamedTemporaryFile(suffix=".json", delete=False)
    url = f"http://{gateway.grpc if grpc else gateway.http}"
    command = ["taskset", "-c", "1", GENERATOR, "bench", "run", "--url", url, "--model", model]
    command += ["--protocol", "grpc" if grpc else "v2", "--pid", str(gateway.process.pid)]
    command += ["--json", report.name, *map(str, arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **quiet, text=True), report.name


def end_load(started):
    process, report = started
    _, errors = process.communicate()
    text = pathlib.Path(report).read_text()
    os.unlink(report)
    if not text:
        sys.exit(f"the generator failed: {errors}")
    return json.loads(text)


def load(*arguments, **keywords):
    return end_load(start_load(*arguments, **keywords))


def cpu_us(report):
    """Processor time of the server, in microseconds in all."""
    return report["server"]["cpu_s"] * 1e6


def failures(report):
    return ", ".join(f"{kind} {one['count']}" for kind, one in report["total"]["failures"].items()) or "none"


def p(report, percent, what="latency"):
    return report["total"][what][f"p{percent.replace('.', '')}_us"] / 1000


class Memory:
    """The gateway's memory, once a second."""

    def __init__(self, gateway):
        self.seen, self.over = [], threading.Event()
        self.thread = threading.Thread(target=self.look, args=(gateway,))
        self.thread.start()

    def look(self, gateway):
        while not self.over.wait(1):
            self.seen.append(gateway.status())

    def end(self):
        self.over.set()
        self.thread.join()
        return self.seen


def overload(options):
    seconds = 10 if options.short else 60
    for title, models, arguments in [
        ("a costly model, a row a run", {"costly": products([32, 256, 49152, 1])}, []),
        ("mlp_small and gbt_500x6 in turn, 20 rows each",
         {name: MODELS / f"{name}.onnx" for name in ("mlp_small", "gbt_500x6")}, ["--rows", "20"]),
    ]:
        with tempfile.TemporaryDirectory() as folder:
            for name, graph in models.items():
                alone = "max_batch_rows = 1\ninstances = 1\n" if name == "costly" else ""
                place(pathlib.Path(folder), name, graph, alone)
            gateway = Gateway(folder, "--max-waiting", "50ms")
            asked = ",".join(models)
            best = load(gateway, asked, *arguments, "--closed", "--connections", 16, "--duration", "8s")
            peak, served = best["total"]["ok_per_second"], cpu_us(best) / best["total"]["ok"]
            memory = Memory(gateway)
            offered = 10 * peak
            over = load(gateway, asked, *arguments, "--rate", f"{offered:.0f}", "--duration", f"{seconds}s",
                        "--connections", 512, "--timeout", "1s")
            total = over["total"]
            refused = total["failed"]
            sent = (total["ok"] + refused) / seconds
            cost = max(0.0, (cpu_us(over) - total["ok"] * served) / max(refused, 1))
            times = sent / peak
            goodput = total["ok_per_second"] / peak
            bound = served / (served + (times - 1) * cost) if cost else 1.0
            print(f"## {title}, {seconds} s")
            print(f"peak {peak:.0f}/s, {served:.1f} us each; offered {offered / peak:.1f} x, of which sent {times:.1f} x")
            print(f"goodput {goodput:.2f} of the peak; s / (s + (k - 1) r) with r = {cost:.1f} us: {bound:.2f}")
            print(f"answered p50 {p(over, '50'):.1f} p99 {p(over, '99'):.1f} ms; failures: {failures(over)}")
            print(f"refused p50 {p(over, '50', 'failed_latency'):.2f} p99 {p(over, '99', 'failed_latency'):.2f} ms")
            print(f"in both, waiting for one of the generator's connections: p50 {p(over, '50', 'wait'):.2f} ms")
            for second in range(5):
                after = load(gateway, asked, *arguments, "--rate", f"{peak / 2:.0f}", "--duration", "1s", "--connections", 64)
                print(f"half load, second {second + 1} after: p99 {p(after, '99'):.2f} ms, failures: {failures(after)}")
            seen = [f"{megabytes:.0f}" for megabytes, _, _ in memory.end()]
            print(f"memory, MB: {' '.join(seen[::max(1, len(seen) // 12)])}\n", flush=True)
            gateway.stop()


def fairness(options):
    seconds = 5 if options.short else 10
    with tempfile.TemporaryDirectory() as folder:
        one = "max_batch_rows = 1\ninstances = 1\n"
        place(pathlib.Path(folder), "costly", products([32, 256, 49152, 1]), one)
        for told_apart in ([], ["--tenant-header", "x-tenant"]):
            gateway = Gateway(folder, "--max-waiting", "50ms", *told_apart)
            best = load(gateway, "costly", "--closed", "--connections", 16, "--duration", "5s")
            peak = best["total"]["ok_per_second"]
            ask = ["--rate", f"{peak / 5:.0f}", "--poisson", "--duration", f"{seconds}s", "--connections", 32]
            alone, beside = [], []
            for _ in range(5):
                alone.append(load(gateway, "costly", *ask, "--header", "x-tenant:small"))
                flood = start_load(gateway, "costly", "--rate", f"{10 * peak:.0f}", "--duration", f"{seconds + 2}s",
                                   "--connections", 256, "--timeout", "1s", "--header", "x-tenant:flood")
                time.sleep(1)
                beside.append(load(gateway, "costly", *ask, "--header", "x-tenant:small"))
                end_load(flood)
            kind = "told apart" if told_apart else "not told apart"
            print(f"## two tenants, {kind}: one at a fifth of the peak ({peak:.0f}/s), one at 10 x the peak")
            for what, reports in (("alone", alone), ("beside the flood", beside)):
                p99 = sorted(p(report, "99") for report in reports)
                answered = sum(report["total"]["ok"] for report in reports)
                asked = sum(report["total"]["requests"] for report in reports)
                print(f"{what}: p99 {statistics.median(p99):.2f} ms ({p99[0]:.2f}..{p99[-1]:.2f}), {answered} of {asked} answered")
            print(flush=True)
            gateway.stop()


def loading(options):
    rounds, seconds = (3, 3) if options.short else (10, 6)
    with tempfile.TemporaryDirectory() as folder:
        place(pathlib.Path(folder), "mlp_small", MODELS / "mlp_small.onnx")
        place(pathlib.Path(folder), "large", products([32, 256, 196608, 1]), "max_batch_rows = 1\ninstances = 1\n")
        gateway = Gateway(folder, "--model-control", "explicit", "--load-model", "mlp_small")
        for grpc in (False, True):
            best = load(gateway, "mlp_small", "--closed", "--connections", 32, "--duration", "5s", grpc=grpc)
            rate = best["total"]["ok_per_second"] / 2
            ask = ["--rate", f"{rate:.0f}", "--poisson", "--duration", f"{seconds}s", "--connections", 64]
            figures = {"quiet": [], "quiet again": [], "loading": []}
            loads, after = [], []
            for _ in range(rounds):
                for kind, p99 in figures.items():
                    running = start_load(gateway, "mlp_small", *ask, grpc=grpc)
                    while kind == "loading" and running[0].poll() is None:
                        begun = time.monotonic()
                        gateway.call("/v2/repository/models/large/load")
                        loads.append(time.monotonic() - begun)
                        gateway.call("/v2/repository/models/large/unload")
                    report = end_load(running)
                    p99.append((p(report, "99"), p(report, "99.9"), report["total"]["failed"]))
                    time.sleep(1.2)
                after.append(gateway.status()[0])
            name = "gRPC" if grpc else "HTTP"
            print(f"## {name}: mlp_small at half load ({rate:.0f}/s), {rounds} rounds of {seconds} s")
            for kind, all in figures.items():
                p99s, p999s = (sorted(one[at] for one in all) for at in (0, 1))
                print(f"{kind}: p99 {statistics.median(p99s):.2f} ms ({p99s[0]:.2f}..{p99s[-1]:.2f}), "
                      f"p99.9 {statistics.median(p999s):.2f} ms, failed {sum(one[2] for one in all)}")
            ratios = [sorted(loaded[0] / quiet[0] for loaded, quiet in zip(figures[kind], figures["quiet"])) for kind in ("quiet again", "loading")]
            for kind, ratio in zip(("quiet again", "loading"), ratios):
                print(f"{kind} against quiet: {statistics.median(ratio):.2f} ({ratio[0]:.2f}..{ratio[-1]:.2f})")
            print(f"{len(loads)} loads of 200 MB, {statistics.median(loads):.2f} s each; memory after each round, MB: "
                  + " ".join(f"{megabytes:.0f}" for megabytes in after) + "\n", flush=True)
        gateway.stop()


def soak(options):
    minutes = 1 if options.short else 20
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        place(root, "mlp_small", MODELS / "mlp_small.onnx")
        place(root, "large", products([32, 256, 16384, 1]))
        settings = root.parent / f"{root.name}.toml"
        settings.write_text('max_waiting = "1s"\n')
        gateway = Gateway(folder, "--model-control", "explicit", "--load-model", "mlp_small", "--config", settings)
        peak = load(gateway, "mlp_small", "--closed", "--connections", 32, "--duration", "5s")["total"]["ok_per_second"]
        before, over, turns = gateway.status(), time.monotonic() + 60 * minutes, 0
        running = start_load(gateway, "mlp_small", "--rate", f"{0.7 * peak:.0f}", "--poisson", "--connections", 64,
                             "--duration", f"{60 * minutes}s")
        seen = []
        while time.monotonic() < over:
            gateway.call("/v2/repository/models/large/load")
            settings.write_text(f'max_waiting = "{1 + turns % 2}s"\n')
            gateway.call("/reload")
            host, number = gateway.http.split(":")
            for _ in range(20):
                with socket.create_connection((host, int(number))) as leaves:
                    leaves.sendall(b"POST /v2/models/mlp_small/infer HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
            gateway.call("/v2/repository/models/large/unload")
            turns += 1
            seen.append((time.monotonic(), *gateway.status()))
            time.sleep(1)
        report = end_load(running)
        gateway.stop()
        settings.unlink()
        half = seen[len(seen) // 2:]
        at, megabytes = [one[0] for one in half], [one[1] for one in half]
        slope = statistics.linear_regression(at, megabytes).slope * 3600
        print(f"## {minutes} min at 0.7 of the peak ({peak:.0f}/s), {turns} loads, unloads and reloads, {20 * turns} clients that left")
        print(f"answered {report['total']['ok']}, p99 {p(report, '99'):.2f} ms, failures: {failures(report)}")
        for what, place_ in (("memory, MB", 0), ("threads", 1), ("open files", 2)):
            values = [one[place_ + 1] for one in seen]
            print(f"{what}: {before[place_]:.0f} before, {values[0]:.0f} at first, {values[-1]:.0f} at last")
        print(f"memory in the second half: {slope:+.1f} MB an hour")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overload", "fairness", "loading", "soak"])
    parser.add_argument("--short", action="store_true", help="a few seconds of each, to see that it works")
    options = parser.parse_args()
    for needed in (GATEWAY, GENERATOR):
        if not needed.exists():
            sys.exit(f"{needed} is missing: run `make build`")
    globals()[options.what](options)


if __name__ == "__main__":
    main()
