"""tritonclient.grpc, every method."""

import queue

import tritonclient.grpc
import tritonclient.grpc.auth
from support import GRPC, bits, main, rounds
from triton import Form, TritonCase, of_form, pair
from triton_grpc import BOTH

# Longest wait for an answer, in seconds.
PATIENCE = 20


class Answered(TritonCase):
    """Cases whose answers go to a callback."""

    def setUp(self):
        super().setUp()
        self.answers = queue.Queue()

    def answer(self, result, error):
        self.answers.put((result, error))

    def next(self):
        return self.answers.get(timeout=PATIENCE)


class Async(Answered):
    """async_infer."""

    def test_results(self):
        for rows in range(1, 9):
            self.client.async_infer("add_sub", self.tensors(pair(rows)[0]), self.answer, request_id=str(rows))
        seen = set()
        for _ in range(8):
            result, error = self.next()
            self.assertIsNone(error)
            rows = int(result.get_response().id)
            seen.add(rows)
            for name, array in pair(rows)[1].items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))
        self.assertEqual(seen, set(range(1, 9)))

    def test_errors(self):
        self.client.async_infer("other", self.tensors(pair()[0]), self.answer)
        result, error = self.next()
        self.assertIsNone(result)
        self.assertEqual(error.status(), "StatusCode.NOT_FOUND")
        self.assertIn("Request for unknown model", error.message())

    def test_cancellation(self):
        many = self.tensors(rounds())
        call = self.client.async_infer("rounds", many, self.answer)
        call.cancel()
        result, error = self.next()
        self.assertIsNone(result)
        self.assertEqual(error.status(), "StatusCode.CANCELLED")
        arrays, expected = pair()
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_deadline(self):
        many = self.tensors(rounds())
        self.client.async_infer("rounds", many, self.answer, client_timeout=0.1)
        _, error = self.next()
        self.assertEqual(error.status(), "StatusCode.DEADLINE_EXCEEDED")


class Stream(Answered):
    """One stream with many requests."""

    def start(self, **options):
        self.client.start_stream(self.answer, **options)

    def ask(self, rows, model="add_sub", **options):
        self.client.async_stream_infer(model, self.tensors(pair(rows)[0]), request_id=str(rows), **options)

    def answered(self, expected):
        """The ids of so many answers, each of which must be right."""
        seen = set()
        for _ in range(expected):
            result, error = self.next()
            self.assertIsNone(error)
            rows = int(result.get_response().id)
            seen.add(rows)
            for name, array in pair(rows)[1].items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))
        return seen

    def test_results(self):
        self.start()
        for rows in range(1, 9):
            self.ask(rows)
        self.assertEqual(self.answered(8), set(range(1, 9)))
        self.client.stop_stream()
        self.assertTrue(self.answers.empty())

    def test_stop_waits_for_the_answers(self):
        self.start()
        for rows in range(1, 9):
            self.ask(rows)
        self.client.stop_stream()
        self.assertEqual(self.answers.qsize(), 8)

    def test_requested_outputs(self):
        self.start()
        self.ask(2, outputs=[self.output("OUTPUT1")])
        result, error = self.next()
        self.assertIsNone(error)
        self.assertIsNone(result.as_numpy("OUTPUT0"))
        self.assertEqual(bits(result.as_numpy("OUTPUT1")), bits(pair(2)[1]["OUTPUT1"]))

    def test_errors(self):
        self.start()
        self.ask(1)
        self.assertEqual(self.answered(1), {1})
        self.ask(2, model="other")
        result, error = self.next()
        self.assertIsNone(result)
        self.assertIn("Request for unknown model", error.message())
        self.ask(3)
        self.assertEqual(self.answered(1), {3})

    def test_errors_that_end_the_stream(self):
        self.start(headers={"triton_grpc_error": "true"})
        self.ask(1)
        self.assertEqual(self.answered(1), {1})
        self.ask(2, model="other")
        _, error = self.next()
        self.assertEqual(error.status(), "StatusCode.NOT_FOUND")
        self.assertIn("Request for unknown model", error.message())

    def test_forwarded_headers(self):
        self.start(headers={"x-tenant": "a"})
        self.ask(1)
        self.ask(2)
        self.assertEqual(self.answered(2), {1, 2})
        self.client.stop_stream()
        self.start(headers={"sequence_id": "1"})
        self.ask(1)
        _, error = self.next()
        self.assertIn("that name is reserved", error.message())

    def test_final_responses(self):
        self.start()
        self.ask(1, enable_empty_final_response=True)
        result, error = self.next()
        self.assertIsNone(error)
        self.assertTrue(result.get_response().parameters["triton_final_response"].bool_param)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(pair(1)[1]["OUTPUT0"]))
        self.client.stop_stream()
        self.assertTrue(self.answers.empty())

    def test_parameters(self):
        self.start()
        self.ask(1, priority=1, timeout=2_000_000, parameters={"text": "a"})
        self.assertEqual(self.answered(1), {1})

    def test_compression(self):
        for algorithm in ("gzip", "deflate"):
            with self.subTest(algorithm):
                self.start(compression_algorithm=algorithm)
                self.ask(3)
                self.assertEqual(self.answered(1), {3})
                self.client.stop_stream()

    def test_cancellation(self):
        self.start()
        many = self.tensors(rounds())
        self.client.async_stream_infer("rounds", many)
        self.client.stop_stream(cancel_requests=True)
        _, error = self.next()
        self.assertEqual(error.status(), "StatusCode.CANCELLED")
        self.assertTrue(self.client.is_server_live())

    def test_deadline(self):
        self.start(stream_timeout=0.1)
        many = self.tensors(rounds())
        self.client.async_stream_infer("rounds", many)
        _, error = self.next()
        self.assertEqual(error.status(), "StatusCode.DEADLINE_EXCEEDED")


class Use(TritonCase):
    def test_context_manager(self):
        with tritonclient.grpc.InferenceServerClient(GRPC) as client:
            self.assertTrue(client.is_server_live())


FORM = Form(tritonclient.grpc, GRPC)
main("tritonclient_grpc", *of_form(FORM, *BOTH, Async, Stream, Use))
