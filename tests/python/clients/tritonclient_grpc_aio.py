"""tritonclient.grpc.aio, every method."""

import asyncio

import tritonclient.grpc.aio
import tritonclient.grpc.aio.auth
from support import CALLS, GRPC, bits, main, rounds, wait
from triton import Form, TritonCase, of_form, pair
from triton_grpc import BOTH


class Tasks(TritonCase):
    def test_many_at_once(self):
        async def ask(rows):
            arrays, expected = pair(rows)
            result = await self.client._client.infer("add_sub", self.tensors(arrays), request_id=str(rows))
            for name, array in expected.items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))
            self.assertEqual(result.get_response().id, str(rows))

        async def all_of_them():
            await asyncio.gather(*(ask(1 + number % 8) for number in range(64)))

        wait(all_of_them())

    def test_cancellation(self):
        many = self.tensors(rounds())

        async def cancel():
            task = asyncio.create_task(self.client._client.infer("rounds", many))
            await asyncio.sleep(0.05)
            task.cancel()
            with self.assertRaises(asyncio.CancelledError):
                await task

        wait(cancel())
        arrays, expected = pair()
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def test_context_manager(self):
        async def use():
            async with tritonclient.grpc.aio.InferenceServerClient(GRPC) as client:
                return await client.is_server_live()

        self.assertTrue(wait(use()))


class Stream(TritonCase):
    """stream_infer: questions and answers are asynchronous iterators."""

    def question(self, rows, model="add_sub", **more):
        return {"model_name": model, "inputs": self.tensors(pair(rows)[0]), "request_id": str(rows), **more}

    def stream(self, questions, **options):
        """The answers to these questions, as (result, error)."""
        CALLS.note(self.form.kind, "stream_infer")

        async def ask():
            for question in questions:
                yield question

        async def collect():
            return [answer async for answer in self.client._client.stream_infer(ask(), **options)]

        return wait(collect())

    def test_results(self):
        answers = self.stream([self.question(rows) for rows in range(1, 9)])
        self.assertEqual({result.get_response().id for result, _ in answers}, {str(rows) for rows in range(1, 9)})
        for result, error in answers:
            self.assertIsNone(error)
            for name, array in pair(int(result.get_response().id))[1].items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))

    def test_errors(self):
        answers = self.stream([self.question(1), self.question(2, model="other"), self.question(3)])
        errors = [error.message() for _, error in answers if error is not None]
        self.assertEqual(len(errors), 1)
        self.assertIn("Request for unknown model", errors[0])
        self.assertEqual({result.get_response().id for result, _ in answers if result is not None}, {"1", "3"})

    def test_errors_that_end_the_stream(self):
        with self.assertRaises(Exception) as caught:
            self.stream([self.question(2, model="other")], headers={"triton_grpc_error": "true"})
        self.assertIn("Request for unknown model", str(caught.exception))
        self.assertIn("NOT_FOUND", str(caught.exception))

    def test_forwarded_headers(self):
        answers = self.stream([self.question(1), self.question(2)], headers={"x-tenant": "a"})
        self.assertEqual([error for _, error in answers], [None, None])
        ((_, error),) = self.stream([self.question(1)], headers={"sequence_id": "1"})
        self.assertIn("that name is reserved", error.message())

    def test_compression(self):
        for algorithm in ("gzip", "deflate"):
            with self.subTest(algorithm):
                ((result, error),) = self.stream([self.question(2)], compression_algorithm=algorithm)
                self.assertIsNone(error)
                self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(pair(2)[1]["OUTPUT0"]))

    def test_cancellation(self):
        many = {"model_name": "rounds", "inputs": self.tensors(rounds())}

        async def ask():
            yield many
            await asyncio.sleep(60)

        async def cancel():
            answers = self.client._client.stream_infer(ask())
            task = asyncio.create_task(anext(answers))
            await asyncio.sleep(0.05)
            self.assertTrue(answers.cancel())
            with self.assertRaises(asyncio.CancelledError):
                await task

        wait(cancel())
        self.assertTrue(self.client.is_server_live())

    def test_deadline(self):
        many = {"model_name": "rounds", "inputs": self.tensors(rounds())}
        with self.assertRaises(Exception) as caught:
            self.stream([many], stream_timeout=0.1)
        self.assertIn("DEADLINE_EXCEEDED", str(caught.exception))


FORM = Form(tritonclient.grpc.aio, GRPC)
main("tritonclient_grpc_aio", *of_form(FORM, *BOTH, Tasks, Stream))
