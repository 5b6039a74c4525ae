"""The cases that all four forms of tritonclient share. Each suite gives them its form."""

import base64
import importlib
import json
import os
import pathlib
import threading

import numpy
from support import CALLS, GRPC, HTTP, VALUES, Case, Noted, bits, run_rounds, wait
from tritonclient.utils import InferenceServerException, np_to_triton_dtype, serialize_byte_tensor
from tritonclient.utils import shared_memory

GRAPHS = pathlib.Path(__file__).resolve().parents[3] / "gateway/tests/models"

# What a refusal is over HTTP and over gRPC.
STATUSES = {
    "invalid": ("400", "StatusCode.INVALID_ARGUMENT"),
    "unknown": ("404", "StatusCode.NOT_FOUND"),
    "denied": ("403", "StatusCode.PERMISSION_DENIED"),
    "exists": ("400", "StatusCode.ALREADY_EXISTS"),
    "unavailable": ("503", "StatusCode.UNAVAILABLE"),
    "unsupported": ("501", "StatusCode.UNIMPLEMENTED"),
    "internal": ("500", "StatusCode.INTERNAL"),
}

DURATIONS = [
    "success",
    "fail",
    "queue",
    "compute_input",
    "compute_infer",
    "compute_output",
    "cache_hit",
    "cache_miss",
]


class Form:
    """One of the four forms: its module, and where its protocol is served."""

    def __init__(self, module, address):
        self.module = module
        self.address = address
        self.kind = module.InferenceServerClient
        self.over_grpc = ".grpc" in module.__name__

    def connect(self, address=None, **options):
        """A client. Those of asyncio must be made where a loop runs."""

        async def make():
            return self.kind(address or self.address, **options)

        is_async = self.module.__name__.endswith(".aio")
        return Noted(wait(make()) if is_async else self.kind(address or self.address, **options))


def in_all_forms(kind):
    """One class of `kind`'s cases for each form."""
    for name in ("http", "http.aio", "grpc", "grpc.aio"):
        module = importlib.import_module(f"tritonclient.{name}")
        form = Form(module, GRPC if "grpc" in name else HTTP)
        yield type(f"{kind.__name__} to {module.__name__}", (kind,), {"form": form})


class TritonCase(Case):
    """A case of one form, with a client of its own."""

    form = None

    def setUp(self):
        super().setUp()
        self.client = self.connect()

    def connect(self, **options):
        client = self.form.connect(**options)
        self.addCleanup(lambda: wait(client._client.close()))
        return client

    def json(self, method, *arguments, **options):
        """What a method answers as JSON, whichever the protocol."""
        if self.form.over_grpc:
            options["as_json"] = True
        return getattr(self.client, method)(*arguments, **options)

    def tensor(self, name, array, binary=True):
        tensor = self.form.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        options = {} if self.form.over_grpc else {"binary_data": binary}
        tensor.set_data_from_numpy(array, **options)
        return tensor

    def tensors(self, arrays, binary=True):
        return [self.tensor(name, array, binary) for name, array in arrays.items()]

    def output(self, name, **options):
        return self.form.module.InferRequestedOutput(name, **options)

    def infer(self, model, arrays, **options):
        return self.client.infer(model, self.tensors(arrays), **options)

    def response(self, result):
        """A whole answer as a dictionary."""
        return result.get_response(as_json=True) if self.form.over_grpc else result.get_response()

    def refused(self, kinds, words, call):
        """The call must be refused with one of these kinds of status and with these words."""
        with self.assertRaises(InferenceServerException) as caught:
            call()
        error = caught.exception
        kinds = [kinds] if isinstance(kinds, str) else kinds
        self.assertIn(error.status(), [STATUSES[kind][self.form.over_grpc] for kind in kinds], error)
        for word in words:
            self.assertIn(word, error.message())
        return error


def pair(rows=1):
    """Inputs of add_sub, and what comes of them."""
    left = numpy.arange(16 * rows, dtype=numpy.int32).reshape(rows, 16)
    right = numpy.full((rows, 16), 3, numpy.int32)
    return {"INPUT0": left, "INPUT1": right}, {"OUTPUT0": left + right, "OUTPUT1": left - right}


def x(*values):
    return {"x": numpy.array([values], numpy.float32)}


class Health(TritonCase):
    def test_live(self):
        self.assertTrue(self.client.is_server_live())

    def test_ready(self):
        self.assertTrue(self.client.is_server_ready())

    def test_model_ready(self):
        self.assertTrue(self.client.is_model_ready("add_sub"))
        self.assertTrue(self.client.is_model_ready("add_sub", "1"))

    def test_unknown_model_is_not_ready(self):
        self.assertFalse(self.client.is_model_ready("other"))

    def test_unknown_version_is_not_ready(self):
        self.assertFalse(self.client.is_model_ready("add_sub", "7"))


class Metadata(TritonCase):
    def test_server(self):
        metadata = self.json("get_server_metadata")
        self.assertEqual(metadata["name"], "sluice")
        self.assertTrue(metadata["version"])
        expected = {
            "binary_tensor_data",
            "classification",
            "logging",
            "model_configuration",
            "model_repository",
            "parameters",
            "schedule_policy",
            "statistics",
            "system_shared_memory",
            "trace",
        }
        self.assertLessEqual(expected, set(metadata["extensions"]))
        self.assertNotIn("sequence", metadata["extensions"])

    def test_model(self):
        metadata = self.json("get_model_metadata", "add_sub")
        self.assertEqual((metadata["name"], metadata["versions"]), ("add_sub", ["1"]))
        self.assertEqual(metadata["platform"], "onnxruntime_onnx")
        for side, names in (("inputs", ("INPUT0", "INPUT1")), ("outputs", ("OUTPUT0", "OUTPUT1"))):
            found = [(port["name"], port["datatype"], [int(size) for size in port["shape"]]) for port in metadata[side]]
            self.assertEqual(found, [(name, "INT32", [-1, 16]) for name in names])

    def test_every_datatype(self):
        for datatype in VALUES:
            with self.subTest(datatype):
                metadata = self.json("get_model_metadata", f"identity_{datatype}")
                self.assertEqual(metadata["inputs"][0]["datatype"], datatype)
                self.assertEqual(metadata["outputs"][0]["datatype"], datatype)

    def test_versions(self):
        self.assertEqual(self.json("get_model_metadata", "versioned")["versions"], ["1", "2"])
        self.assertEqual(self.json("get_model_metadata", "versioned", "1")["versions"], ["1"])

    def test_unknown_model(self):
        self.refused("unknown", ["Request for unknown model", "other"], lambda: self.client.get_model_metadata("other"))

    def test_unknown_version(self):
        ask = lambda: self.client.get_model_metadata("add_sub", "7")
        self.refused("unknown", ["Request for unknown model", "add_sub", "7"], ask)


class Configuration(TritonCase):
    def config(self, *arguments):
        config = self.json("get_model_config", *arguments)
        return config["config"] if self.form.over_grpc else config

    def test_as_written(self):
        config = self.config("add_sub")
        self.assertEqual((config["name"], config["max_batch_size"]), ("add_sub", 8))
        self.assertEqual(config["platform"], "onnxruntime_onnx")
        found = [(port["name"], port["data_type"], [int(size) for size in port["dims"]]) for port in config["input"]]
        self.assertEqual(found, [(name, "TYPE_INT32", [16]) for name in ("INPUT0", "INPUT1")])
        self.assertEqual([port["name"] for port in config["output"]], ["OUTPUT0", "OUTPUT1"])
        self.assertIn("dynamic_batching", config)
        self.assertNotIn("sequence_batching", config)
        self.assertNotIn("ensemble_scheduling", config)

    def test_completed_from_the_graph(self):
        config = self.config("add_sub_one", "1")
        self.assertEqual(config["platform"], "onnxruntime_onnx")
        dims = [[int(size) for size in port["dims"]] for port in config["input"] + config["output"]]
        self.assertEqual(dims, [[1, 16]] * 4)

    def test_optional_input(self):
        inputs = {port["name"]: port for port in self.config("optional")["input"]}
        self.assertTrue(inputs["OFFSET"]["optional"])
        self.assertFalse(inputs["INPUT0"].get("optional", False))

    def test_unknown_model(self):
        self.refused("unknown", ["Request for unknown model"], lambda: self.client.get_model_config("other"))


class Repository(TritonCase):
    """Models that come and go. Each case leaves the repository as it found it."""

    def index(self):
        index = self.json("get_model_repository_index")
        entries = index["models"] if self.form.over_grpc else index
        return {entry["name"]: entry for entry in entries}

    def unload(self, name):
        if self.client.is_model_ready(name):
            self.client.unload_model(name)

    def test_index(self):
        index = self.index()
        self.assertEqual((index["add_sub"]["version"], index["add_sub"]["state"]), ("1", "READY"))
        self.assertNotEqual(index["spare"].get("state", ""), "READY")

    def test_load_and_unload(self):
        self.refused("unknown", ["Request for unknown model"], lambda: self.infer("spare", x(1, 2)))
        self.client.load_model("spare")
        self.addCleanup(self.unload, "spare")
        self.assertTrue(self.client.is_model_ready("spare"))
        self.assertEqual(self.index()["spare"]["state"], "READY")
        self.assertEqual(self.infer("spare", x(1, 2)).as_numpy("y").tolist(), [[3, 5]])
        self.client.unload_model("spare")
        self.assertFalse(self.client.is_model_ready("spare"))
        self.assertIn(self.index()["spare"]["state"], ["UNLOADING", "UNAVAILABLE"])
        self.refused(["unknown", "unavailable"], ["spare"], lambda: self.infer("spare", x(1, 2)))

    def test_unload_what_is_not_loaded(self):
        self.client.unload_model("spare")
        self.assertFalse(self.client.is_model_ready("spare"))

    def test_unload_dependents(self):
        self.client.load_model("spare")
        self.client.unload_model("spare", unload_dependents=True)
        self.assertFalse(self.client.is_model_ready("spare"))

    def test_load_again(self):
        self.client.load_model("add_sub")
        self.client.load_model("add_sub")
        arrays, expected = pair()
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_load_unknown(self):
        kinds = ["invalid", "unknown", "internal"]
        self.refused(kinds, ["failed to poll from model repository"], lambda: self.client.load_model("other"))

    def test_load_with_config(self):
        self.addCleanup(self.client.load_model, "add_sub")
        self.client.load_model("add_sub", config=json.dumps({"max_batch_size": 2}))
        config = self.json("get_model_config", "add_sub")
        self.assertEqual((config.get("config") or config)["max_batch_size"], 2)
        arrays, _ = pair(rows=3)
        self.refused("invalid", ["batch", "2"], lambda: self.infer("add_sub", arrays))

    def test_load_with_broken_config(self):
        load = lambda: self.client.load_model("add_sub", config="{")
        self.refused("invalid", ["config"], load)
        self.assertTrue(self.client.is_model_ready("add_sub"))

    def test_load_with_files(self):
        graph = (GRAPHS / "add_sub.onnx").read_bytes()
        config = json.dumps({"platform": "onnxruntime_onnx", "max_batch_size": 8})
        self.client.load_model("sent", config=config, files={"file:3/model.onnx": graph})
        self.addCleanup(self.unload, "sent")
        self.assertTrue(self.client.is_model_ready("sent", "3"))
        arrays, expected = pair(rows=2)
        result = self.infer("sent", arrays)
        self.assertEqual(self.response(result)["model_version"], "3")
        self.assertEqual(bits(result.as_numpy("OUTPUT1")), bits(expected["OUTPUT1"]))

    def test_files_take_a_config(self):
        files = {"file:1/model.onnx": (GRAPHS / "add_sub.onnx").read_bytes()}
        self.refused(["invalid"], ["config"], lambda: self.client.load_model("sent", files=files))
        self.assertFalse(self.client.is_model_ready("sent"))

    def test_a_broken_file_leaves_the_model_in_force(self):
        files = {"file:1/model.onnx": b"no graph at all"}
        config = json.dumps({"platform": "onnxruntime_onnx"})
        load = lambda: self.client.load_model("add_sub", config=config, files=files)
        self.refused("invalid", ["add_sub"], load)
        arrays, expected = pair()
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))


class Statistics(TritonCase):
    def statistics(self, *arguments):
        return self.json("get_inference_statistics", *arguments)["model_stats"]

    def of(self, model, version=""):
        (found,) = self.statistics(model, version)
        return found

    @staticmethod
    def count(statistics, what):
        return int(statistics.get("inference_stats", {}).get(what, {}).get("count", 0))

    def test_counts(self):
        before = self.of("add_sub")
        for rows in (1, 2, 3):
            self.infer("add_sub", pair(rows)[0])
        after = self.of("add_sub")
        self.assertEqual((after["name"], after["version"]), ("add_sub", "1"))
        grown = lambda key: int(after.get(key, 0)) - int(before.get(key, 0))
        self.assertEqual((grown("inference_count"), grown("execution_count")), (6, 3))
        self.assertEqual(self.count(after, "success") - self.count(before, "success"), 3)
        self.assertEqual(self.count(after, "fail"), self.count(before, "fail"))
        for what in ("queue", "compute_input", "compute_infer", "compute_output"):
            self.assertEqual(self.count(after, what) - self.count(before, what), 3, what)
        self.assertGreater(int(after["last_inference"]), 1_600_000_000_000)

    def test_all_durations(self):
        self.infer("add_sub", pair()[0])
        durations = self.of("add_sub")["inference_stats"]
        self.assertEqual(sorted(durations), sorted(DURATIONS))
        if not self.form.over_grpc:
            for duration in durations.values():
                self.assertEqual(sorted(duration), ["count", "ns"])
        self.assertGreater(int(durations["compute_infer"]["ns"]), 0)
        self.assertGreaterEqual(int(durations["success"]["ns"]), int(durations["compute_infer"]["ns"]))

    def test_batches(self):
        sizes = lambda: {
            int(batch["batch_size"]): int(batch["compute_infer"]["count"])
            for batch in self.of("add_sub").get("batch_stats", [])
        }
        before = sizes()
        for _ in range(2):
            self.infer("add_sub", pair(5)[0])
        self.assertEqual(sizes()[5] - before.get(5, 0), 2)

    def test_failures(self):
        before = self.of("parse")
        text = {"text": numpy.array(["no number"], numpy.object_)}
        self.refused("invalid", [], lambda: self.infer("parse", text))
        after = self.of("parse")
        self.assertEqual(self.count(after, "fail") - self.count(before, "fail"), 1)
        self.assertEqual(self.count(after, "success"), self.count(before, "success"))

    def test_all_models(self):
        found = {(model["name"], model["version"]) for model in self.statistics()}
        self.assertLessEqual({("add_sub", "1"), ("versioned", "1"), ("versioned", "2")}, found)

    def test_one_version(self):
        self.assertEqual({model["version"] for model in self.statistics("versioned")}, {"1", "2"})
        self.assertEqual(self.of("versioned", "2")["version"], "2")

    def test_unknown_model(self):
        self.refused("invalid", ["other"], lambda: self.client.get_inference_statistics("other"))
        self.refused("invalid", ["add_sub"], lambda: self.client.get_inference_statistics("add_sub", "7"))


class Traces(TritonCase):
    """Trace settings, each a list of texts whichever the protocol."""

    def settings(self, answer):
        if self.form.over_grpc:
            return {name: setting.get("value", []) for name, setting in answer["settings"].items()}
        return {name: value if isinstance(value, list) else [value] for name, value in answer.items()}

    def get(self, model=None):
        return self.settings(self.json("get_trace_settings", model))

    def update(self, model=None, **settings):
        return self.settings(self.json("update_trace_settings", model, settings))

    def test_get(self):
        settings = self.get()
        self.assertLessEqual({"trace_level", "trace_rate", "trace_count", "log_frequency"}, set(settings))
        self.assertEqual(settings["trace_level"], ["OFF"])

    def test_update_and_clear(self):
        before = self.get()
        self.addCleanup(self.update, trace_level=None, trace_rate=None)
        after = self.update(trace_level=["TIMESTAMPS"], trace_rate="500")
        self.assertEqual((after["trace_level"], after["trace_rate"]), (["TIMESTAMPS"], ["500"]))
        self.assertEqual(after, self.get())
        self.infer("add_sub", pair()[0])
        self.assertEqual(self.update(trace_level=None, trace_rate=None), before)

    def test_one_model(self):
        self.addCleanup(self.update, "add_sub", trace_rate=None)
        whole = self.get()
        self.assertEqual(self.update("add_sub", trace_rate="7")["trace_rate"], ["7"])
        self.assertEqual(self.get("add_sub")["trace_rate"], ["7"])
        self.assertEqual(self.get(), whole)
        self.assertEqual(self.update("add_sub", trace_rate=None)["trace_rate"], whole["trace_rate"])

    def test_refusals(self):
        self.refused(["invalid"], ["trace_rate"], lambda: self.update(trace_rate="often"))
        self.refused(["invalid", "unsupported"], ["trace"], lambda: self.update(trace_file="/tmp/trace"))
        self.refused(["invalid", "unknown"], ["other"], lambda: self.get("other"))


class Logging(TritonCase):
    def settings(self, answer):
        if self.form.over_grpc:
            return {name: next(iter(value.values())) for name, value in answer["settings"].items()}
        return answer

    def get(self):
        return self.settings(self.json("get_log_settings"))

    def update(self, **settings):
        return self.settings(self.json("update_log_settings", settings))

    def test_get(self):
        settings = self.get()
        self.assertEqual((settings["log_info"], settings["log_warning"], settings["log_error"]), (True,) * 3)
        self.assertIsInstance(settings["log_verbose_level"], int)
        self.assertIn(settings["log_format"], ["default", "ISO8601"])
        self.assertIsInstance(settings["log_file"], str)

    def test_update(self):
        before = self.get()
        restored = {name: before[name] for name in ("log_info", "log_verbose_level")}
        self.addCleanup(self.update, **restored)
        after = self.update(log_info=False, log_verbose_level=1)
        self.assertEqual((after["log_info"], after["log_verbose_level"]), (False, 1))
        self.assertEqual(after, self.get())
        self.assertEqual(self.update(**restored), before)

    def test_refusals(self):
        before = self.get()
        self.refused("unsupported", ["log file"], lambda: self.update(log_file="/tmp/log"))
        self.refused("invalid", ["log_format"], lambda: self.update(log_format="pretty"))
        self.assertEqual(self.get(), before)


class SharedMemory(TritonCase):
    """Regions in shared memory, made by tritonclient's own module."""

    def setUp(self):
        super().setUp()
        self.addCleanup(self.client.unregister_system_shared_memory)

    def region(self, name, size):
        key = f"/sluice-{os.getpid()}-{name}"
        region = shared_memory.create_shared_memory_region(name, key, size)
        self.addCleanup(shared_memory.destroy_shared_memory_region, region)
        return region, key

    def status(self, name=""):
        status = self.json("get_system_shared_memory_status", name)
        regions = status.get("regions", {}).values() if self.form.over_grpc else status
        fields = ("offset", "byte_size")
        return {
            region["name"]: (region["key"], *(int(region.get(field, 0)) for field in fields)) for region in regions
        }

    def test_register_and_unregister(self):
        self.assertEqual(self.status(), {})
        self.client.unregister_system_shared_memory("one")
        _, key = self.region("one", 8192)
        self.client.register_system_shared_memory("one", key, 128, offset=4096)
        self.client.register_system_shared_memory("two", key, 256)
        self.assertEqual(self.status(), {"one": (key, 4096, 128), "two": (key, 0, 256)})
        self.assertEqual(self.status("one"), {"one": (key, 4096, 128)})
        self.client.unregister_system_shared_memory("one")
        self.assertEqual(list(self.status()), ["two"])
        self.client.unregister_system_shared_memory()
        self.assertEqual(self.status(), {})

    def test_refusals(self):
        _, key = self.region("one", 256)
        register = self.client.register_system_shared_memory
        register("one", key, 256)
        self.refused("exists", ["one"], lambda: register("one", key, 256))
        self.refused("invalid", [], lambda: register("two", "/sluice-nowhere", 256))
        self.refused("invalid", [], lambda: register("two", key, 1 << 20))
        self.refused("invalid", [], lambda: register("two", key, 256, offset=1))
        self.refused("invalid", [], lambda: register("triton_python_backend_shm_region_1", key, 256))
        self.refused("unknown", ["other"], lambda: self.status("other"))
        self.assertEqual(list(self.status()), ["one"])

    def given(self, arrays, region="in"):
        """Inputs that lie one after the other in a registered region."""
        size = sum(array.nbytes for array in arrays.values())
        handle, key = self.region(region, size)
        self.client.register_system_shared_memory(region, key, size)
        inputs, offset = [], 0
        for name, array in arrays.items():
            shared_memory.set_shared_memory_region(handle, [array], offset=offset)
            tensor = self.form.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            inputs.append(tensor.set_shared_memory(region, array.nbytes, offset=offset))
            offset += array.nbytes
        return inputs

    def test_infer_in_and_out(self):
        arrays, expected = pair(rows=2)
        inputs = self.given(arrays)
        size = expected["OUTPUT0"].nbytes
        handle, key = self.region("out", 2 * size)
        self.client.register_system_shared_memory("out", key, 2 * size)
        outputs = [self.output("OUTPUT0"), self.output("OUTPUT1")]
        for place, output in enumerate(outputs):
            output.set_shared_memory("out", size, offset=place * size)
        result = self.client.infer("add_sub", inputs, outputs=outputs)
        for place, (name, array) in enumerate(expected.items()):
            found = shared_memory.get_contents_as_numpy(handle, array.dtype, array.shape, offset=place * size)
            self.assertEqual(bits(found), bits(array))
            output = result.get_output(name)
            shape, datatype = (
                (list(output.shape), output.datatype)
                if self.form.over_grpc
                else (output["shape"], output["datatype"])
            )
            self.assertEqual((shape, datatype), ([2, 16], "INT32"))
        for output in outputs:
            output.unset_shared_memory()
        sent = self.client.infer("add_sub", inputs, outputs=outputs)
        for name, array in expected.items():
            self.assertEqual(bits(sent.as_numpy(name)), bits(array))

    def test_infer_beside_sent_data(self):
        arrays, expected = pair()
        inputs = self.given({"INPUT0": arrays["INPUT0"]})
        inputs.append(self.tensor("INPUT1", arrays["INPUT1"]))
        result = self.client.infer("add_sub", inputs)
        for name, array in expected.items():
            self.assertEqual(bits(result.as_numpy(name)), bits(array))

    def test_texts(self):
        array = VALUES["BYTES"]
        size = sum(4 + len(text.encode()) for text in array.flatten())
        handle, key = self.region("texts", 2 * size)
        self.client.register_system_shared_memory("texts", key, 2 * size)
        shared_memory.set_shared_memory_region(handle, [serialize_byte_tensor(array)])
        tensor = self.form.module.InferInput("INPUT0", [2, 4], "BYTES").set_shared_memory("texts", size)
        output = self.output("OUTPUT0")
        output.set_shared_memory("texts", size, offset=size)
        self.client.infer("identity_BYTES", [tensor], outputs=[output])
        found = shared_memory.get_contents_as_numpy(handle, numpy.object_, (2, 4), offset=size)
        self.assertEqual(bits(found), bits(array))

    def test_wrong_use(self):
        arrays, _ = pair()
        inputs = self.given(arrays)
        infer = self.client.infer
        size = arrays["INPUT0"].nbytes

        def fresh():
            # The client keeps an offset that was set once, so each place gets an input of its own.
            return self.form.module.InferInput("INPUT0", list(arrays["INPUT0"].shape), "INT32")

        for kind, place in (
            ("unknown", ("other", size)),
            ("invalid", ("in", size, 1 << 40)),
            ("invalid", ("in", 1 << 40)),
            ("invalid", ("in", size - 4)),
        ):
            with self.subTest(place):
                inputs[0] = fresh().set_shared_memory(*place)
                self.refused(kind, ["INPUT0"], lambda: infer("add_sub", inputs))
        inputs[0] = fresh().set_shared_memory("in", size)
        small = self.output("OUTPUT0")
        small.set_shared_memory("in", 4)
        self.refused("invalid", ["OUTPUT0"], lambda: infer("add_sub", inputs, outputs=[small]))
        self.client.infer("add_sub", inputs)

    def test_a_region_cut_short_harms_nobody(self):
        arrays, expected = pair()
        inputs = self.given(arrays)
        with open(f"/dev/shm/sluice-{os.getpid()}-in", "r+b") as file:
            file.truncate(0)
        self.refused("invalid", ["INPUT0"], lambda: self.client.infer("add_sub", inputs))
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))


class CudaSharedMemory(TritonCase):
    """There is none: nothing can be registered. Triton's examples ask for an empty table first."""

    def test_register(self):
        handle = base64.b64encode(bytes(64))
        self.refused(
            ["unsupported", "invalid"],
            ["CUDA"],
            lambda: self.client.register_cuda_shared_memory("one", handle, 0, 64),
        )

    def test_status_and_unregister(self):
        for region in ("", "one"):
            self.client.unregister_cuda_shared_memory(region)
        status = self.json("get_cuda_shared_memory_status")
        self.assertFalse(status.get("regions") if self.form.over_grpc else status)


class Infer(TritonCase):
    def test_every_datatype(self):
        for datatype, array in VALUES.items():
            with self.subTest(datatype):
                result = self.infer(f"identity_{datatype}", {"INPUT0": array})
                self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_numbers_that_are_none(self):
        patterns = numpy.array([[0x7FC00001, 0xFFC00000, 0x7F800000, 0xFF800000]], numpy.uint32)
        array = patterns.view(numpy.float32)
        result = self.infer("identity_FP32", {"INPUT0": array})
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_bytes_that_are_no_text_harm_nobody(self):
        array = numpy.array([[b"\xff\xfe", b"text"]], numpy.object_)
        self.refused("invalid", ["UTF-8"], lambda: self.infer("identity_BYTES", {"INPUT0": array}))
        text = numpy.array([[b"text"]], numpy.object_)
        self.assertEqual(bits(self.infer("identity_BYTES", {"INPUT0": text}).as_numpy("OUTPUT0")), bits(text))

    def test_nothing(self):
        for datatype in ("FP32", "INT64", "BOOL", "BYTES"):
            with self.subTest(datatype):
                array = numpy.empty([2, 0], VALUES[datatype].dtype)
                result = self.infer(f"identity_{datatype}", {"INPUT0": array})
                self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_nothing_without_batching(self):
        array = numpy.empty([0], numpy.float32)
        result = self.infer("optional", {"INPUT0": array})
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_a_batch_of_no_rows(self):
        array = numpy.empty([0, 3], numpy.float32)
        self.refused("invalid", ["INPUT0"], lambda: self.infer("identity_FP32", {"INPUT0": array}))

    def test_a_lot(self):
        array = numpy.arange(2_000_000, dtype=numpy.float32).reshape(2, 1_000_000)
        result = self.infer("identity_FP32", {"INPUT0": array})
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_rows(self):
        for rows in (1, 2, 8):
            arrays, expected = pair(rows)
            result = self.infer("add_sub", arrays)
            for name, array in expected.items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))

    def test_order_of_inputs(self):
        arrays, expected = pair()
        result = self.infer("add_sub", dict(reversed(arrays.items())))
        self.assertEqual(bits(result.as_numpy("OUTPUT1")), bits(expected["OUTPUT1"]))

    def test_without_batching(self):
        arrays, expected = pair()
        result = self.infer("add_sub_one", arrays)
        self.assertEqual(bits(result.as_numpy("OUTPUT1")), bits(expected["OUTPUT1"]))

    def test_versions(self):
        for version, expected in (("1", [[3, 5]]), ("2", [[2, 3]]), ("", [[2, 3]])):
            with self.subTest(version):
                result = self.infer("versioned", x(1, 2), model_version=version)
                self.assertEqual(result.as_numpy("y").tolist(), expected)
                self.assertEqual(self.response(result)["model_version"], version or "2")

    def test_names_in_the_answer(self):
        response = self.response(self.infer("add_sub", pair()[0], request_id="question 1"))
        self.assertEqual((response["model_name"], response["id"]), ("add_sub", "question 1"))
        self.assertEqual([output["name"] for output in response["outputs"]], ["OUTPUT0", "OUTPUT1"])

    def test_no_id_unless_given(self):
        self.assertEqual(self.response(self.infer("add_sub", pair()[0])).get("id", ""), "")

    def test_requested_outputs(self):
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, outputs=[self.output("OUTPUT1")])
        self.assertEqual(bits(result.as_numpy("OUTPUT1")), bits(expected["OUTPUT1"]))
        self.assertIsNone(result.as_numpy("OUTPUT0"))
        both = self.infer("add_sub", arrays, outputs=[self.output("OUTPUT1"), self.output("OUTPUT0")])
        for name, array in expected.items():
            self.assertEqual(bits(both.as_numpy(name)), bits(array))

    def test_optional_input(self):
        given = {"INPUT0": numpy.array([1, 2, 3], numpy.float32)}
        self.assertEqual(self.infer("optional", given).as_numpy("OUTPUT0").tolist(), [11, 12, 13])
        given["OFFSET"] = numpy.array([-1], numpy.float32)
        self.assertEqual(self.infer("optional", given).as_numpy("OUTPUT0").tolist(), [0, 1, 2])

    def test_priority_and_timeout(self):
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, priority=1, timeout=2_000_000)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))
        # One for each of its workers.
        busy = [threading.Thread(target=run_rounds, args=(2,)) for _ in range(2)]
        for run in busy:
            run.start()
            self.addCleanup(run.join)
        one = {"rounds": numpy.array([1], numpy.int64)}

        def ask_behind_them():
            """What comes before they have begun is answered."""
            while all(run.is_alive() for run in busy):
                self.infer("rounds", one, timeout=100_000)

        self.refused("unavailable", ["Request timeout expired"], ask_behind_them)

    def test_parameters(self):
        parameters = {"text": "a", "number": 7, "yes": True, "part": 0.5}
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, parameters=parameters)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_headers(self):
        headers = {"x-request-id": "7", "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, headers=headers)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))
        self.assertTrue(self.client.is_server_live(headers=headers))

    def test_forwarded_headers(self):
        """Those that the gateway forwards become parameters, which are told in traces and change no answer."""
        arrays, expected = pair()
        for headers in ({"x-tenant": "a"}, {"x-tenant": "a", "other": "b"}, {"authorization": "Bearer a", "x-": ""}):
            result = self.infer("add_sub", arrays, headers=headers, parameters={"x-tenant": 7})
            self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))
        reserved = {"sequence_id": "1"}
        self.refused("invalid", ["sequence_id", "reserved"], lambda: self.infer("add_sub", arrays, headers=reserved))
        result = self.infer("add_sub", arrays, headers={"priority": "u=1, i", "not-sequence_id": "1"}, priority=1)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_classes(self):
        scores = numpy.array([[0.25, 3, -1, 2], [9, 0, 0.5, 1]], numpy.float32)
        result = self.infer("scores", {"INPUT0": scores}, outputs=[self.output("OUTPUT0", class_count=2)])
        found = result.as_numpy("OUTPUT0")
        self.assertEqual(found.shape, (2, 2))
        texts = [[item if isinstance(item, str) else item.decode() for item in row] for row in found]
        self.assertEqual(
            texts,
            [["6.000000:1:banana", "4.000000:3:date"], ["18.000000:0:apple", "2.000000:3:date"]],
        )

    def test_more_classes_than_there_are(self):
        scores = numpy.array([[1, 2, 3, 4]], numpy.float32)
        result = self.infer("scores", {"INPUT0": scores}, outputs=[self.output("OUTPUT0", class_count=10)])
        self.assertEqual(result.as_numpy("OUTPUT0").shape, (1, 4))

    def test_classes_without_labels(self):
        array = numpy.array([[5, 1, 9]], numpy.int32)
        result = self.infer("identity_INT32", {"INPUT0": array}, outputs=[self.output("OUTPUT0", class_count=1)])
        (found,) = result.as_numpy("OUTPUT0").flatten()
        self.assertEqual(found if isinstance(found, str) else found.decode(), "9:2")

    def test_classes_of_what_has_no_order(self):
        for datatype in ("BOOL", "BYTES", "FP16"):
            with self.subTest(datatype):
                outputs = [self.output("OUTPUT0", class_count=1)]
                ask = lambda: self.infer(f"identity_{datatype}", {"INPUT0": VALUES[datatype]}, outputs=outputs)
                self.refused("invalid", ["class"], ask)


class Refusals(TritonCase):
    """What is wrong with a request, with the words that clients look for."""

    def refused_arrays(self, kinds, words, arrays, model="add_sub", **options):
        return self.refused(kinds, words, lambda: self.infer(model, arrays, **options))

    def test_unknown_model(self):
        self.refused_arrays("unknown", ["Request for unknown model", "other"], pair()[0], "other")

    def test_unknown_version(self):
        words = ["Request for unknown model", "add_sub", "7"]
        self.refused_arrays("unknown", words, pair()[0], model_version="7")

    def test_missing_input(self):
        arrays = pair()[0]
        del arrays["INPUT1"]
        self.refused_arrays("invalid", ["INPUT1"], arrays)

    def test_unexpected_input(self):
        arrays = pair()[0]
        arrays["INPUT2"] = arrays["INPUT0"]
        self.refused_arrays("invalid", ["INPUT2"], arrays)

    def test_wrong_datatype(self):
        arrays = {name: array.astype(numpy.float32) for name, array in pair()[0].items()}
        self.refused_arrays("invalid", ["INPUT", "FP32", "INT32"], arrays)

    def test_wrong_shape(self):
        arrays = {name: array[:, :15] for name, array in pair()[0].items()}
        self.refused_arrays("invalid", ["unexpected shape", "INPUT", "-1", "15"], arrays)

    def test_missing_dimension(self):
        arrays = {name: array[0] for name, array in pair()[0].items()}
        self.refused_arrays("invalid", [], arrays)

    def test_batch_too_large(self):
        self.refused_arrays("invalid", ["batch", "8"], pair(rows=9)[0])

    def test_different_batches(self):
        arrays = {"INPUT0": pair(2)[0]["INPUT0"], "INPUT1": pair(3)[0]["INPUT1"]}
        self.refused_arrays("invalid", ["INPUT"], arrays)

    def test_unknown_output(self):
        outputs = [self.output("OUTPUT7")]
        self.refused_arrays("invalid", ["OUTPUT7"], pair()[0], outputs=outputs)

    def test_output_named_twice(self):
        outputs = [self.output("OUTPUT0"), self.output("OUTPUT0")]
        self.refused_arrays("invalid", ["OUTPUT0"], pair()[0], outputs=outputs)

    def test_input_named_twice(self):
        arrays, _ = pair()
        tensors = self.tensors(arrays) + [self.tensor("INPUT0", arrays["INPUT0"])]
        self.refused("invalid", ["INPUT0"], lambda: self.client.infer("add_sub", tensors))

    def test_shape_that_does_not_fit_the_data(self):
        arrays, _ = pair()
        tensors = self.tensors(arrays)
        tensors[0].set_shape([2, 16])
        tensors[1].set_shape([2, 16])
        self.refused("invalid", ["INPUT"], lambda: self.client.infer("add_sub", tensors))

    def test_what_the_model_cannot_compute_with(self):
        text = {"text": numpy.array(["no number"], numpy.object_)}
        self.refused_arrays("invalid", ["parse"], text, "parse")

    def test_the_client_refuses_reserved_parameters(self):
        with self.assertRaises(InferenceServerException):
            self.infer("add_sub", pair()[0], parameters={"triton_enable": True})


class Plugins(TritonCase):
    def test_headers_that_a_plugin_adds(self):
        plugin = self.form.module.auth.BasicAuth("user", "word")
        self.assertIsNone(self.client.plugin())
        self.client.register_plugin(plugin)
        self.assertIs(self.client.plugin(), plugin)
        with self.assertRaises(InferenceServerException):
            self.client.register_plugin(plugin)
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, headers={})
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))
        self.assertTrue(self.client.is_server_live(headers={}))
        self.client.unregister_plugin()
        with self.assertRaises(InferenceServerException):
            self.client.unregister_plugin()


class Ending(TritonCase):
    def test_close(self):
        client = self.form.connect()
        self.assertTrue(client.is_server_live())
        client.close()
        with self.assertRaises(Exception):
            client.is_server_live()


class EveryMethod(TritonCase):
    """Comes last: no public method of the client was left out."""

    def test_every_public_method_has_a_case(self):
        self.assertEqual(CALLS.missing(self.form.kind), [])


SHARED = [
    Health,
    Metadata,
    Configuration,
    Repository,
    Statistics,
    Traces,
    Logging,
    SharedMemory,
    CudaSharedMemory,
    Infer,
    Refusals,
    Plugins,
    Ending,
]


def of_form(form, *kinds):
    """The shared cases and others for one form, the check of the methods last."""
    return [type(kind.__name__, (kind,), {"form": form}) for kind in (*SHARED, *kinds, EveryMethod)]
