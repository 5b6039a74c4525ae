"""curl as people type it: no content type or a form's, bodies from the command line and from files."""

import gzip
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib

from support import HTTP, Case, main

FORM = "application/x-www-form-urlencoded"

V1_BODY = '{"instances": [[1, 2], [3, 4]]}'
V2_BODY = '{"inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]}'
V1_ANSWER = {"predictions": [[3, 5], [7, 9]]}


class Answer:
    """What curl got: status, headers in lower case, body."""

    def __init__(self, output):
        head, self.body = output.split(b"\r\n\r\n", 1)
        while head.startswith(b"HTTP/1.1 100"):
            head, self.body = self.body.split(b"\r\n\r\n", 1)
        status, *lines = head.decode().split("\r\n")
        self.status = int(status.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)

    def json(self):
        return json.loads(self.body)


def curl(path, *arguments, data=None):
    command = ["curl", "--silent", "--show-error", "--include", "--max-time", "20", "--noproxy", "*", *arguments]
    done = subprocess.run([*command, f"http://{HTTP}{path}"], input=data, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"curl ended with {done.returncode}: {done.stderr.decode()}")
    return Answer(done.stdout)


class Questions(Case):
    def test_v1_as_a_form(self):
        answer = curl("/v1/models/scale:predict", "-d", V1_BODY)
        self.assertEqual((answer.status, answer.json()), (200, V1_ANSWER))
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_v2_as_a_form(self):
        answer = curl("/v2/models/scale/infer", "-d", V2_BODY)
        self.assertEqual((answer.status, answer.json()["outputs"][0]["data"]), (200, [3, 5]))
        self.assertEqual(answer.headers["content-type"], "application/json")

    def test_without_a_content_type(self):
        for path, body in (("/v1/models/scale:predict", V1_BODY), ("/v2/models/scale/infer", V2_BODY)):
            with self.subTest(path):
                self.assertEqual(curl(path, "-H", "Content-Type:", "-d", body).status, 200)

    def test_other_content_types(self):
        for kind in ("application/json", "application/json; charset=utf-8", "application/octet-stream"):
            with self.subTest(kind):
                answer = curl("/v2/models/scale/infer", "-H", f"Content-Type: {kind}", "-d", V2_BODY)
                self.assertEqual(answer.status, 200)

    def test_a_file(self):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            file.write(V2_BODY.encode())
            file.flush()
            self.assertEqual(curl("/v2/models/scale/infer", "-d", f"@{file.name}").status, 200)
            upload = ("-X", "POST", "-T", file.name)
            self.assertEqual(curl("/v2/models/scale/infer", *upload).status, 200)

    def test_chunks(self):
        answer = curl("/v2/models/scale/infer", "-H", "Transfer-Encoding: chunked", "-d", V2_BODY)
        self.assertEqual(answer.status, 200)

    def test_expect(self):
        answer = curl("/v2/models/scale/infer", "-H", "Expect: 100-continue", "-d", V2_BODY)
        self.assertEqual(answer.status, 200)

    def test_compressed(self):
        for encoding, body in (("gzip", gzip.compress(V2_BODY.encode())), ("deflate", zlib.compress(V2_BODY.encode()))):
            with self.subTest(encoding):
                arguments = ("-H", f"Content-Encoding: {encoding}", "--data-binary", "@-")
                answer = curl("/v2/models/scale/infer", *arguments, data=body)
                self.assertEqual((answer.status, answer.json()["outputs"][0]["data"]), (200, [3, 5]))

    def test_compressed_v1(self):
        arguments = ("-H", "Content-Encoding: gzip", "--data-binary", "@-")
        answer = curl("/v1/models/scale:predict", *arguments, data=gzip.compress(V1_BODY.encode()))
        self.assertEqual((answer.status, answer.json()), (200, V1_ANSWER))

    def test_other_encodings(self):
        answer = curl("/v2/models/scale/infer", "-H", "Content-Encoding: br", "-d", V2_BODY)
        self.assertEqual(answer.status, 501)
        self.assertEqual(answer.headers["accept-encoding"], "gzip, deflate")
        self.assertIn("br", answer.json()["error"])

    def test_answers_are_compressed_when_asked(self):
        zeros = json.dumps({"inputs": [{"name": "INPUT0", "shape": [1, 4000], "datatype": "FP32", "data": [0.0] * 4000}]})
        for encoding in ("gzip", "deflate"):
            with self.subTest(encoding):
                arguments = ("-H", f"Accept-Encoding: {encoding}", "--data-binary", "@-")
                answer = curl("/v2/models/identity_FP32/infer", *arguments, data=zeros.encode())
                self.assertEqual((answer.status, answer.headers["content-encoding"]), (200, encoding))
                unpack = gzip.decompress if encoding == "gzip" else zlib.decompress
                self.assertEqual(json.loads(unpack(answer.body))["outputs"][0]["data"], [0] * 4000)
        plain = curl("/v2/models/identity_FP32/infer", "--data-binary", "@-", data=zeros.encode())
        self.assertNotIn("content-encoding", plain.headers)

    def test_small_answers_are_not_compressed(self):
        answer = curl("/v2/models/scale/infer", "-H", "Accept-Encoding: gzip", "-d", V2_BODY)
        self.assertEqual(answer.status, 200)
        self.assertNotIn("content-encoding", answer.headers)

    def test_curl_decompresses(self):
        answer = curl("/v2/models/scale/infer", "--compressed", "-d", V2_BODY)
        self.assertEqual((answer.status, answer.json()["outputs"][0]["data"]), (200, [3, 5]))


class Binary(Case):
    def test_header_and_tensor(self):
        header = {
            "inputs": [{"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": 8}}],
            "parameters": {"binary_data_output": True},
        }
        text = json.dumps(header).encode()
        body = text + struct.pack("<2f", 1, 2)
        length = ("-H", f"Inference-Header-Content-Length: {len(text)}")
        answer = curl("/v2/models/scale/infer", *length, "--data-binary", "@-", data=body)
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/octet-stream"))
        at = int(answer.headers["inference-header-content-length"])
        self.assertEqual(json.loads(answer.body[:at])["outputs"][0]["parameters"], {"binary_data_size": 8})
        self.assertEqual(struct.unpack("<2f", answer.body[at:]), (3, 5))

    def test_compressed(self):
        header = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
        arguments = ("-H", f"Inference-Header-Content-Length: {len(header)}", "-H", "Content-Encoding: gzip")
        body = gzip.compress(header + struct.pack("<2f", 1, 2))
        answer = curl("/v2/models/scale/infer", *arguments, "--data-binary", "@-", data=body)
        self.assertEqual((answer.status, answer.json()["outputs"][0]["data"]), (200, [3, 5]))

    def test_a_raw_body(self):
        """Header length 0: the body is the only input."""
        arguments = ("-H", "Inference-Header-Content-Length: 0", "--data-binary", "@-")
        answer = curl("/v2/models/identity_FP32/infer", *arguments, data=struct.pack("<3f", 1, 2, 3))
        self.assertEqual(answer.status, 200, answer.body)
        at = int(answer.headers["inference-header-content-length"])
        self.assertEqual(json.loads(answer.body[:at])["outputs"][0]["shape"], [1, 3])
        self.assertEqual(struct.unpack("<3f", answer.body[at:]), (1, 2, 3))

    def test_raw_bodies_that_do_not_fit(self):
        arguments = ("-H", "Inference-Header-Content-Length: 0", "--data-binary", "@-")
        for model, data in (("identity_FP32", b"abc"), ("add_sub", bytes(64))):
            with self.subTest(model):
                answer = curl(f"/v2/models/{model}/infer", *arguments, data=data)
                self.assertEqual(answer.status, 400)
                self.assertTrue(answer.json()["error"])

    def test_lengths_that_lie(self):
        header = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":8}}]}'
        for length in (-1, len(header) - 1, len(header) + 9, 1 << 40, "many"):
            with self.subTest(length):
                arguments = ("-H", f"Inference-Header-Content-Length: {length}", "--data-binary", "@-")
                answer = curl("/v2/models/scale/infer", *arguments, data=header + bytes(8))
                self.assertEqual(answer.status, 400)
        for rest in (7, 9):
            with self.subTest(rest):
                arguments = ("-H", f"Inference-Header-Content-Length: {len(header)}", "--data-binary", "@-")
                answer = curl("/v2/models/scale/infer", *arguments, data=header + bytes(rest))
                self.assertEqual(answer.status, 400)


class Pages(Case):
    def test_get(self):
        for path in ("/", "/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/scale", "/v1/models/scale"):
            with self.subTest(path):
                answer = curl(path)
                self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))
                self.assertIsInstance(answer.json(), dict)

    def test_health_bodies(self):
        self.assertIs(curl("/v2/health/live").json()["live"], True)
        self.assertIs(curl("/v2/health/ready").json()["ready"], True)
        self.assertEqual(curl("/").json()["status"], "alive")

    def test_head(self):
        for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/scale/ready", "/v2"):
            with self.subTest(path):
                answer = curl(path, "--head")
                self.assertEqual((answer.status, answer.body), (200, b""))
                self.assertEqual(answer.headers["content-length"], str(len(curl(path).body)))

    def test_a_probe(self):
        answer = curl("/v2/health/ready", "-A", "kube-probe/1.33")
        self.assertEqual(answer.status, 200)

    def test_what_is_not_there(self):
        for path in ("/nothing", "/v2/models/other", "/v2/models/scale/versions/x", "/v2/models/scale/other"):
            with self.subTest(path):
                answer = curl(path)
                self.assertEqual((answer.status, answer.headers["content-type"]), (404, "application/json"))
                self.assertTrue(answer.json()["error"])

    def test_the_wrong_method(self):
        for arguments in (("/v2/models/scale/infer",), ("/v2/health/live", "-d", "{}"), ("/v2", "-X", "DELETE")):
            with self.subTest(arguments):
                answer = curl(*arguments)
                self.assertEqual(answer.status, 405)
                self.assertTrue(answer.json()["error"])

    def test_paths_that_climb(self):
        for path in ("/v2/models/..%2fscale", "/v2/models/%2e%2e/scale", "/v2/models/a%00b"):
            with self.subTest(path):
                self.assertIn(curl(path, "--path-as-is").status, (400, 404))

    def test_queries_are_let_pass(self):
        self.assertEqual(curl("/v2/health/ready?a=b&c").status, 200)
        self.assertEqual(curl("/v2/models/scale/infer?a=b", "-d", V2_BODY).status, 200)

    def test_broken_bodies(self):
        for body in ("", "{", "[]", "{}", '{"inputs": 5}', '{"inputs": [{"name": "x"}]}', "\x00"):
            with self.subTest(body):
                answer = curl("/v2/models/scale/infer", "--data-binary", "@-", data=body.encode())
                self.assertEqual(answer.status, 400)
                self.assertTrue(answer.json()["error"])


if shutil.which("curl") is None:
    sys.exit("curl is not installed (Debian: apt-get install curl)")
main("curl", Questions, Binary, Pages)
