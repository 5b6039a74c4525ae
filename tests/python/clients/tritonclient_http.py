"""tritonclient.http, every method."""

import tritonclient.http
import tritonclient.http.auth
from support import HTTP, bits, main, rounds
from triton import Form, TritonCase, of_form, pair
from triton_http import BOTH
from tritonclient.utils import InferenceServerException


class Async(TritonCase):
    """async_infer, whose greenlets share one client."""

    def connect(self, **options):
        return super().connect(concurrency=4, **options)

    def test_results(self):
        asked = []
        for rows in range(1, 9):
            arrays, expected = pair(rows)
            asked.append((self.client.async_infer("add_sub", self.tensors(arrays), request_id=str(rows)), expected))
        for request, expected in reversed(asked):
            result = request.get_result()
            for name, array in expected.items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))
            self.assertEqual(result.get_response()["id"], str(len(expected["OUTPUT0"])))

    def test_compressed(self):
        arrays, expected = pair()
        compression = {"request_compression_algorithm": "gzip", "response_compression_algorithm": "deflate"}
        result = self.client.async_infer("add_sub", self.tensors(arrays), **compression).get_result()
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_errors(self):
        request = self.client.async_infer("other", self.tensors(pair()[0]))
        self.refused("unknown", ["Request for unknown model"], request.get_result)

    def test_a_result_that_nobody_waits_for(self):
        request = self.client.async_infer("rounds", self.tensors(rounds()))
        with self.assertRaisesRegex(InferenceServerException, "failed to obtain inference response"):
            request.get_result(timeout=0.02)
        request._greenlet.kill()
        arrays, expected = pair()
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))


class Patience(TritonCase):
    def test_network_timeout(self):
        client = self.connect(network_timeout=0.1)
        with self.assertRaises(TimeoutError):
            client.infer("rounds", self.tensors(rounds()))
        self.assertTrue(self.client.is_server_live())

    def test_context_manager(self):
        with tritonclient.http.InferenceServerClient(HTTP) as client:
            self.assertTrue(client.is_server_live())


FORM = Form(tritonclient.http, HTTP)
main("tritonclient_http", *of_form(FORM, *BOTH, Async, Patience))
