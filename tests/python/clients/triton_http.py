"""The cases that both of tritonclient's HTTP forms share."""

import urllib.request

import numpy
from support import BASE_PATH, BINARY_ONLY, HTTP, VALUES, bits
from triton import TritonCase, pair


class Json(TritonCase):
    """Tensors in the JSON itself, and beside it."""

    def infer_json(self, model, arrays, binary_in=False, binary_out=False, **options):
        outputs = [self.output("OUTPUT0", binary_data=binary_out)]
        return self.client.infer(model, self.tensors(arrays, binary_in), outputs=outputs, **options)

    def test_every_datatype(self):
        for datatype in VALUES.keys() - BINARY_ONLY:
            for binary_in, binary_out in ((False, False), (False, True), (True, False)):
                with self.subTest(datatype=datatype, binary_in=binary_in, binary_out=binary_out):
                    arrays = {"INPUT0": VALUES[datatype]}
                    result = self.infer_json(f"identity_{datatype}", arrays, binary_in, binary_out)
                    self.assertEqual("data" in result.get_output("OUTPUT0"), not binary_out)
                    self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(VALUES[datatype]))

    def test_halves_have_no_json(self):
        ask = lambda: self.infer_json("identity_FP16", {"INPUT0": VALUES["FP16"]})
        self.refused("invalid", ["FP16"], ask)
        for datatype in BINARY_ONLY:
            ask = lambda: self.infer_json(f"identity_{datatype}", {"INPUT0": VALUES[datatype]}, binary_in=True)
            self.refused("invalid", [datatype], ask)

    def test_nothing(self):
        for datatype in ("FP32", "BYTES"):
            for binary_in, binary_out in ((False, False), (False, True), (True, False)):
                with self.subTest(datatype=datatype, binary_in=binary_in, binary_out=binary_out):
                    array = numpy.empty([2, 0], VALUES[datatype].dtype)
                    result = self.infer_json(f"identity_{datatype}", {"INPUT0": array}, binary_in, binary_out)
                    self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_not_a_number(self):
        arrays = {"INPUT0": numpy.array([[numpy.nan, 1]], numpy.float32)}
        self.refused("invalid", [], lambda: self.infer_json("identity_FP32", arrays))
        answered = self.infer_json("identity_FP32", arrays, binary_in=True)
        self.assertEqual(answered.get_output("OUTPUT0")["data"], [None, 1])

    def test_a_mixture(self):
        arrays, expected = pair(2)
        inputs = [self.tensor("INPUT0", arrays["INPUT0"], False), self.tensor("INPUT1", arrays["INPUT1"], True)]
        outputs = [self.output("OUTPUT0", binary_data=True), self.output("OUTPUT1", binary_data=False)]
        result = self.client.infer("add_sub", inputs, outputs=outputs)
        for name, array in expected.items():
            self.assertEqual(bits(result.as_numpy(name)), bits(array))
        self.assertNotIn("data", result.get_output("OUTPUT0"))
        self.assertIn("data", result.get_output("OUTPUT1"))

    def test_classes(self):
        arrays = {"INPUT0": numpy.array([[1, 4, 2, 3]], numpy.float32)}
        for binary in (True, False):
            with self.subTest(binary=binary):
                outputs = [self.output("OUTPUT0", binary_data=binary, class_count=1)]
                result = self.client.infer("scores", self.tensors(arrays), outputs=outputs)
                self.assertEqual(bits(result.as_numpy("OUTPUT0")), ((1, 1), "texts", [b"8.000000:1:banana"]))

    def test_lists_are_no_parameters(self):
        ask = lambda: self.infer("add_sub", pair()[0], parameters={"list": [1, 2]})
        self.refused("invalid", ["list"], ask)


class Compression(TritonCase):
    def test_requests_and_answers(self):
        arrays, expected = pair(8)
        for asked in (None, "gzip", "deflate"):
            for answered in (None, "gzip", "deflate"):
                for binary in (True, False):
                    with self.subTest(asked=asked, answered=answered, binary=binary):
                        result = self.client.infer(
                            "add_sub",
                            self.tensors(arrays, binary),
                            request_compression_algorithm=asked,
                            response_compression_algorithm=answered,
                        )
                        for name, array in expected.items():
                            self.assertEqual(bits(result.as_numpy(name)), bits(array))

    def test_a_lot(self):
        array = numpy.zeros([2, 250_000], numpy.float32)
        for algorithm in ("gzip", "deflate"):
            with self.subTest(algorithm):
                result = self.client.infer(
                    "identity_FP32",
                    self.tensors({"INPUT0": array}),
                    request_compression_algorithm=algorithm,
                    response_compression_algorithm=algorithm,
                )
                self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(array))

    def test_other_encodings(self):
        headers = {"Content-Encoding": "br"}
        self.refused("unsupported", ["br"], lambda: self.infer("add_sub", pair()[0], headers=headers))

    def test_broken_gzip(self):
        headers = {"Content-Encoding": "gzip"}
        self.refused("invalid", [], lambda: self.infer("add_sub", pair()[0], headers=headers))


class Addresses(TritonCase):
    def test_queries_are_let_pass(self):
        query = {"token": "a b", "list": [1, 2]}
        self.assertTrue(self.client.is_server_live(query_params=query))
        self.assertTrue(self.client.is_model_ready("add_sub", query_params=query))
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, query_params=query)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_a_base_path(self):
        client = self.form.connect(f"{HTTP}{BASE_PATH}")
        self.addCleanup(client.close)
        self.assertTrue(client.is_server_live())
        arrays, expected = pair()
        result = client.infer("add_sub", self.tensors(arrays))
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_a_path_that_is_not_served(self):
        client = self.form.connect(f"{HTTP}/elsewhere")
        self.addCleanup(client.close)
        self.assertFalse(client.is_server_live())
        with self.assertRaisesRegex(Exception, "404|Not Found|elsewhere"):
            client.get_server_metadata()

    def test_odd_names(self):
        for name in ("a b", "ü", "a%2fb", "../add_sub", "..%2fadd_sub"):
            with self.subTest(name):
                self.assertFalse(self.client.is_model_ready(name))


class Bodies(TritonCase):
    """The bodies that the client makes and reads for those who send them themselves."""

    def test_generate_and_parse(self):
        arrays, expected = pair(2)
        for binary in (True, False):
            with self.subTest(binary=binary):
                body, header = self.client.generate_request_body(self.tensors(arrays, binary), request_id="7")
                self.assertEqual(header is not None, binary)
                request = urllib.request.Request(f"http://{HTTP}/v2/models/add_sub/infer", bytes(body))
                if header is not None:
                    request.add_header("Inference-Header-Content-Length", str(header))
                with urllib.request.urlopen(request, timeout=20) as response:
                    length = int(response.headers["Inference-Header-Content-Length"])
                    self.assertEqual(response.headers["Content-Type"], "application/octet-stream")
                    result = self.client.parse_response_body(response.read(), header_length=length)
                self.assertEqual(result.get_response()["id"], "7")
                for name, array in expected.items():
                    self.assertEqual(bits(result.as_numpy(name)), bits(array))


BOTH = [Json, Compression, Addresses, Bodies]
