"""Many clients at once, each with rows of its own: everybody gets their own rows back, always.

64 clients, each with a connection of its own, ask as fast as they are answered, over HTTP and
then over gRPC, for SLUICE_DISTINCT_ROWS_SECONDS each (3 unless told otherwise). What they ask is
batched with what the others ask: cheap rows, costly rows, and texts of every length.
"""

import asyncio
import os
import time

import numpy
import tritonclient.grpc.aio
import tritonclient.http.aio
from support import GRPC, HTTP, Case, main, wait

CLIENTS = 64
SECONDS = float(os.environ.get("SLUICE_DISTINCT_ROWS_SECONDS", "3"))

# Longest wait for one answer, in seconds.
PATIENCE = 30


def numbers(model, client, round_):
    """Rows that no other client and no other round has; small enough to be exact in FP32."""
    rows = 1 + (client + round_) % 4
    start = client * 65536 + round_ * 8 % 65536
    x = numpy.arange(start, start + 2 * rows, dtype=numpy.float32).reshape(rows, 2)
    return model, {"x": x}, "FP32", "y", 2 * x + 1


def texts(client, round_):
    """Texts of a client and a round, of up to 200 bytes."""
    words = [f"client {client} round {round_} ".ljust(1 + (client * 7 + round_) % 200, "ü") for _ in range(2)]
    array = numpy.array([words], numpy.object_)
    return "identity_BYTES", {"INPUT0": array}, "BYTES", "OUTPUT0", array


def question(client, round_):
    if round_ % 8 == 7:
        return texts(client, round_)
    return numbers("costly" if round_ % 4 == 3 else "scale", client, round_)


class DistinctRows(Case):
    async def ask(self, module, client, number, end):
        """The number of requests that one client had answered, all of them rightly."""
        round_ = 0
        while time.monotonic() < end:
            model, arrays, datatype, output, expected = question(number, round_)
            inputs = []
            for name, array in arrays.items():
                tensor = module.InferInput(name, list(array.shape), datatype)
                tensor.set_data_from_numpy(array)
                inputs.append(tensor)
            name = f"{number}-{round_}"
            result = await asyncio.wait_for(client.infer(model, inputs, request_id=name), PATIENCE)
            found = result.as_numpy(output)
            if datatype == "BYTES":
                found = numpy.array([[text.decode() for text in row] for row in found], numpy.object_)
            self.assertTrue(numpy.array_equal(found, expected), f"{name}: {found} instead of {expected}")
            response = result.get_response()
            self.assertEqual(response["id"] if isinstance(response, dict) else response.id, name)
            round_ += 1
        return round_

    async def all_of_them(self, module, connect):
        clients = [connect() for _ in range(CLIENTS)]
        start = time.monotonic()
        try:
            asking = (self.ask(module, client, number, start + SECONDS) for number, client in enumerate(clients))
            counts = await asyncio.gather(*asking)
        finally:
            for client in clients:
                await client.close()
        seconds = time.monotonic() - start
        self.assertTrue(all(counts), "a client had no answer at all")
        print(f"{module.__name__}: {sum(counts)} requests of {CLIENTS} clients in {seconds:.1f} s, {sum(counts) / seconds:.0f} a second")

    def test_over_http(self):
        module = tritonclient.http.aio
        connect = lambda: module.InferenceServerClient(HTTP, conn_limit=1)
        wait(self.all_of_them(module, connect))

    def test_over_grpc(self):
        module = tritonclient.grpc.aio
        # Clients of one process share their connections unless told not to.
        own = [("grpc.use_local_subchannel_pool", 1)]
        connect = lambda: module.InferenceServerClient(GRPC, channel_args=own)
        wait(self.all_of_them(module, connect))


main("distinct_rows", DistinctRows)
