"""tritonclient.http.aio, every method."""

import asyncio

import tritonclient.http.aio
import tritonclient.http.aio.auth
from support import HTTP, bits, main, rounds, wait
from triton import Form, TritonCase, of_form, pair
from triton_http import BOTH


class Tasks(TritonCase):
    def test_many_at_once(self):
        async def ask(rows):
            arrays, expected = pair(rows)
            result = await self.client._client.infer("add_sub", self.tensors(arrays), request_id=str(rows))
            for name, array in expected.items():
                self.assertEqual(bits(result.as_numpy(name)), bits(array))
            self.assertEqual(result.get_response()["id"], str(rows))

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

    def test_timeout(self):
        client = self.connect(conn_timeout=0.1)
        with self.assertRaises(asyncio.TimeoutError):
            client.infer("rounds", self.tensors(rounds()))
        self.assertTrue(self.client.is_server_live())

    def test_context_manager(self):
        async def use():
            async with tritonclient.http.aio.InferenceServerClient(HTTP) as client:
                return await client.is_server_live()

        self.assertTrue(wait(use()))


FORM = Form(tritonclient.http.aio, HTTP)
main("tritonclient_http_aio", *of_form(FORM, *BOTH, Tasks))
