"""KServe's own clients, every method: InferenceRESTClient over V1 and V2, and InferenceGRPCClient."""

import logging

import grpc
import httpx
import numpy
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.errors import UnsupportedProtocol
from kserve.protocol.infer_type import RequestedOutput
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as text_families
from support import BASE_PATH, CALLS, GRPC, HTTP, VALUES, Case, Noted, bits, main, wait

BASE = f"http://{HTTP}"
BELOW = f"{BASE}{BASE_PATH}"

# Without a name in KServe's messages.
UNNAMED = {"BF16"}

ROUNDS = 200_000


def tensor(name, array, datatype, binary=True):
    made = InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


def question(model, arrays, binary=True, **options):
    datatypes = {numpy.dtype(numpy.int32): "INT32", numpy.dtype(numpy.float32): "FP32", numpy.dtype(numpy.int64): "INT64"}
    inputs = [tensor(name, array, datatypes[array.dtype], binary) for name, array in arrays.items()]
    return InferRequest(model_name=model, infer_inputs=inputs, **options)


def pair(rows=1):
    left = numpy.arange(16 * rows, dtype=numpy.int32).reshape(rows, 16)
    right = numpy.full((rows, 16), 3, numpy.int32)
    return {"INPUT0": left, "INPUT1": right}, {"OUTPUT0": left + right, "OUTPUT1": left - right}


def outputs(response):
    return {output.name: output.as_numpy() for output in response.outputs}


class RestCase(Case):
    protocol = None

    def setUp(self):
        super().setUp()

        async def make():
            return InferenceRESTClient(RESTConfig(protocol=self.protocol))

        self.client = Noted(wait(make()))
        self.addCleanup(lambda: wait(self.client._client.close()))

    def refused(self, status, words, call):
        with self.assertRaises(httpx.HTTPStatusError) as caught:
            call()
        self.assertEqual(caught.exception.response.status_code, status)
        for word in words:
            self.assertIn(word, str(caught.exception))


class V1(RestCase):
    protocol = "v1"

    def test_live(self):
        self.assertTrue(self.client.is_server_live(BASE))

    def test_ready_is_no_question_of_v1(self):
        with self.assertRaises(UnsupportedProtocol):
            self.client.is_server_ready(BASE)

    def test_model_ready(self):
        self.assertIs(self.client.is_model_ready(BASE, "scale"), True)

    def test_unknown_model(self):
        self.refused(404, ["other"], lambda: self.client.is_model_ready(BASE, "other"))
        ask = lambda: self.client.infer(BASE, {"instances": [[1, 2]]}, model_name="other")
        self.refused(404, ["other"], ask)

    def test_rows(self):
        answer = self.client.infer(BASE, {"instances": [[1, 2], [3, 4]]}, model_name="scale")
        self.assertEqual(answer, {"predictions": [[3, 5], [7, 9]]})

    def test_rows_of_several_inputs_and_outputs(self):
        rows = [{"INPUT0": [number] * 16, "INPUT1": [1] * 16} for number in (5, 6)]
        answer = self.client.infer(BASE, {"instances": rows}, model_name="add_sub")
        expected = [{"OUTPUT0": [number + 1] * 16, "OUTPUT1": [number - 1] * 16} for number in (5, 6)]
        self.assertEqual(answer, {"predictions": expected})

    def test_columns(self):
        answer = self.client.infer(BASE, {"inputs": [[1, 2], [3, 4]]}, model_name="scale")
        self.assertEqual(answer, {"outputs": [[3, 5], [7, 9]]})

    def test_columns_of_several_inputs_and_outputs(self):
        columns = {"INPUT0": [[5] * 16], "INPUT1": [[1] * 16]}
        answer = self.client.infer(BASE, {"inputs": columns}, model_name="add_sub")
        self.assertEqual(answer, {"outputs": {"OUTPUT0": [[6] * 16], "OUTPUT1": [[4] * 16]}})

    def test_a_base_path(self):
        self.assertTrue(self.client.is_server_live(BELOW))
        answer = self.client.infer(BELOW, {"instances": [[1, 2]]}, model_name="scale")
        self.assertEqual(answer, {"predictions": [[3, 5]]})

    def test_texts(self):
        answer = self.client.infer(BASE, {"instances": [["Grüße", "世界"]]}, model_name="identity_BYTES")
        self.assertEqual(answer, {"predictions": [["Grüße", "世界"]]})

    def test_headers(self):
        headers = {"Content-Type": "application/json; charset=utf-8", "x-request-id": "7"}
        seen = {}
        answer = self.client.infer(
            BASE, {"instances": [[1, 2]]}, model_name="scale", headers=headers, response_headers=seen
        )
        self.assertEqual(answer, {"predictions": [[3, 5]]})
        self.assertEqual(seen["content-type"], "application/json")

    def test_wrong_bodies(self):
        for body in ({}, {"instances": 5}, {"instances": [[1, 2]], "inputs": [[1, 2]]}, {"instances": [["a", "b"]]}):
            with self.subTest(body):
                self.refused(400, ["'400 Bad Request'"], lambda: self.client.infer(BASE, body, model_name="scale"))

    def test_explain(self):
        ask = lambda: self.client.explain(BASE, "scale", {"instances": [[1, 2]]})
        self.refused(501, ["scale"], ask)

    def test_a_graph_endpoint(self):
        url = f"{BASE}/v1/models/scale:predict"
        answer = self.client.infer(url, {"instances": [[1, 2]]}, is_graph_endpoint=True)
        self.assertEqual(answer, {"predictions": [[3, 5]]})

    def test_timeout(self):
        with self.assertRaises(httpx.TimeoutException):
            self.client.infer(BASE, {"inputs": [ROUNDS]}, model_name="rounds", timeout=0.05)
        self.assertTrue(self.client.is_server_live(BASE))


class V2(RestCase):
    protocol = "v2"

    def infer(self, model, arrays, binary=True, **options):
        return self.client.infer(BASE, question(model, arrays, binary, **options), model_name=model)

    def test_live_and_ready(self):
        self.assertIs(self.client.is_server_live(BASE), True)
        self.assertIs(self.client.is_server_ready(BASE), True)

    def test_model_ready(self):
        self.assertTrue(self.client.is_model_ready(BASE, "add_sub"))
        self.assertFalse(self.client.is_model_ready(BASE, "other"))

    def test_json_and_binary(self):
        arrays, expected = pair(2)
        for binary in (False, True):
            for parameters in (None, {"binary_data_output": True}, {"binary_data_output": False}):
                with self.subTest(binary=binary, parameters=parameters):
                    found = outputs(self.infer("add_sub", arrays, binary, parameters=parameters))
                    self.assertEqual({name: bits(found[name]) for name in found}, {name: bits(expected[name]) for name in expected})

    def test_every_datatype(self):
        for datatype in VALUES.keys() - UNNAMED:
            with self.subTest(datatype):
                made = tensor("INPUT0", VALUES[datatype], datatype)
                parameters = {"binary_data_output": True}
                model = f"identity_{datatype}"
                request = InferRequest(model_name=model, infer_inputs=[made], parameters=parameters)
                found = outputs(self.client.infer(BASE, request, model_name=model))["OUTPUT0"]
                self.assertEqual(bits(found), bits(VALUES[datatype]))

    def test_requested_outputs(self):
        arrays, expected = pair()
        for parameters in (None, {"binary_data": True}):
            wanted = [RequestedOutput("OUTPUT1", parameters)]
            found = outputs(self.infer("add_sub", arrays, request_outputs=wanted))
            self.assertEqual(list(found), ["OUTPUT1"])
            self.assertEqual(bits(found["OUTPUT1"]), bits(expected["OUTPUT1"]))

    def test_ids(self):
        arrays, _ = pair()
        self.assertEqual(self.infer("add_sub", arrays, request_id="7").id, "7")
        self.assertTrue(self.infer("add_sub", arrays).id)

    def test_a_base_path(self):
        self.assertIs(self.client.is_server_ready(BELOW), True)
        arrays, expected = pair()
        found = outputs(self.client.infer(BELOW, question("add_sub", arrays), model_name="add_sub"))
        self.assertEqual(bits(found["OUTPUT0"]), bits(expected["OUTPUT0"]))

    def test_a_plain_dictionary(self):
        body = {"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2]]}]}
        response = self.client.infer(BASE, body, model_name="scale")
        self.assertEqual(outputs(response)["y"].tolist(), [[3, 5]])

    def test_refusals(self):
        arrays, _ = pair()
        self.refused(404, ["Request for unknown model", "other"], lambda: self.infer("other", arrays))
        self.refused(400, ["INPUT1"], lambda: self.infer("add_sub", {"INPUT0": arrays["INPUT0"]}))

    def test_explain_is_no_question_of_v2(self):
        with self.assertRaises(UnsupportedProtocol):
            self.client.explain(BASE, "scale", {})

    def test_context_manager(self):
        async def use():
            async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
                return await client.is_server_live(BASE)

        self.assertTrue(wait(use()))

    def test_close(self):
        self.client.close()
        with self.assertRaises(RuntimeError):
            self.client.is_server_live(BASE)


class Grpc(Case):
    def setUp(self):
        super().setUp()

        async def make():
            return InferenceGRPCClient(GRPC, timeout=20)

        self.client = Noted(wait(make()))
        self.addCleanup(lambda: wait(self.client._client.close()))

    def refused(self, code, words, call):
        with self.assertRaises(grpc.RpcError) as caught:
            call()
        self.assertEqual(caught.exception.code(), code)
        for word in words:
            self.assertIn(word, caught.exception.details())

    def test_live_and_ready(self):
        self.assertTrue(self.client.is_server_live())
        self.assertTrue(self.client.is_server_ready())

    def test_model_ready(self):
        self.assertTrue(self.client.is_model_ready("add_sub"))
        self.assertFalse(self.client.is_model_ready("other"))

    def test_raw(self):
        for datatype in VALUES.keys() - UNNAMED:
            with self.subTest(datatype):
                request = InferRequest(f"identity_{datatype}", [tensor("INPUT0", VALUES[datatype], datatype)])
                found = outputs(self.client.infer(request))["OUTPUT0"]
                self.assertEqual(bits(found), bits(VALUES[datatype]))

    def test_typed(self):
        for datatype in VALUES.keys() - UNNAMED - {"FP16"}:
            with self.subTest(datatype):
                made = tensor("INPUT0", VALUES[datatype], datatype, binary=False)
                response = self.client.infer(InferRequest(f"identity_{datatype}", [made]))
                self.assertEqual(len(response.outputs[0].data), 8)
                self.assertEqual(bits(outputs(response)["OUTPUT0"]), bits(VALUES[datatype]))

    def test_ids_and_names(self):
        arrays, expected = pair()
        response = self.client.infer(question("add_sub", arrays, request_id="7"), headers=(("request_type", "grpc_v2"),))
        self.assertEqual((response.id, response.model_name, response.model_version), ("7", "add_sub", "1"))
        found = outputs(response)
        self.assertEqual({name: bits(found[name]) for name in found}, {name: bits(expected[name]) for name in expected})

    def test_refusals(self):
        arrays, _ = pair()
        ask = lambda model, some: lambda: self.client.infer(question(model, some))
        self.refused(grpc.StatusCode.NOT_FOUND, ["Request for unknown model"], ask("other", arrays))
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT1"], ask("add_sub", {"INPUT0": arrays["INPUT0"]}))

    def test_deadline(self):
        rounds = question("rounds", {"rounds": numpy.array([ROUNDS], numpy.int64)})
        self.refused(grpc.StatusCode.DEADLINE_EXCEEDED, [], lambda: self.client.infer(rounds, timeout=0.05))

    def test_context_manager(self):
        async def use():
            async with InferenceGRPCClient(GRPC) as client:
                return await client.is_server_live()

        self.assertTrue(wait(use()))

    def test_close(self):
        self.client.close()
        with self.assertRaises(grpc.aio.UsageError):
            self.client.is_server_live()


class Metrics(Case):
    """The client of Prometheus that KServe's servers tell their metrics with reads both forms."""

    def test_both_forms_tell_the_same(self):
        told = []
        for accepted, parse in (("text/plain", text_families), ("application/openmetrics-text", open_families)):
            answer = httpx.get(f"{BASE}/metrics", headers={"accept": accepted})
            self.assertEqual((answer.status_code, answer.headers["content-type"].split(";")[0]), (200, accepted))
            families = list(parse(answer.text))
            # The parser of the older form names counters as the newer one would have them.
            told.append({line.rsplit(" ", 1)[0] for line in answer.text.splitlines() if line and line[0] != "#"})
            for name in ("sluice_requests", "nv_inference_request_success", "request_predict_seconds"):
                self.assertIn(name, [family.name for family in families])
        self.assertEqual(told[0], told[1])


class EveryMethod(Case):
    def test_every_public_method_has_a_case(self):
        for kind in (InferenceRESTClient, InferenceGRPCClient):
            with self.subTest(kind.__name__):
                self.assertEqual(CALLS.missing(kind), [])


# The clients log each refusal, stack and all.
logging.disable(logging.CRITICAL)
main("kserve_clients", V1, V2, Grpc, Metrics, EveryMethod)
