"""The cases that both of tritonclient's gRPC forms share."""

import asyncio

import grpc
from support import bits, rounds, wait
from triton import TritonCase, pair
from tritonclient.utils import InferenceServerException


class Unary(TritonCase):
    def test_compression(self):
        arrays, expected = pair(8)
        for algorithm in (None, "gzip", "deflate"):
            with self.subTest(algorithm):
                result = self.infer("add_sub", arrays, compression_algorithm=algorithm)
                for name, array in expected.items():
                    self.assertEqual(bits(result.as_numpy(name)), bits(array))

    def test_client_timeout(self):
        with self.assertRaises(InferenceServerException) as caught:
            self.infer("rounds", rounds(), client_timeout=0.1)
        self.assertEqual(caught.exception.status(), "StatusCode.DEADLINE_EXCEEDED")
        self.assertTrue(self.client.is_server_live(client_timeout=5))

    def test_messages(self):
        """What the client gives when nobody asks for JSON."""
        self.assertEqual(self.client.get_server_metadata().name, "sluice")
        self.assertEqual(self.client.get_model_metadata("add_sub").versions, ["1"])
        self.assertEqual(self.client.get_model_config("add_sub").config.max_batch_size, 8)
        statistics = self.client.get_inference_statistics("add_sub").model_stats
        self.assertEqual([model.name for model in statistics], ["add_sub"])
        models = self.client.get_model_repository_index().models
        self.assertIn("add_sub", [model.name for model in models])
        self.assertEqual(self.client.get_trace_settings().settings["trace_level"].value, ["OFF"])
        self.assertTrue(self.client.get_log_settings().settings["log_error"].bool_param)
        self.assertEqual(dict(self.client.get_system_shared_memory_status().regions), {})

    def test_answers_are_raw(self):
        response = self.infer("add_sub", pair()[0]).get_response()
        self.assertEqual(len(response.raw_output_contents), 2)
        self.assertFalse(any(output.HasField("contents") for output in response.outputs))

    def test_versions_are_numbers(self):
        for version in ("one", "-1", "1.0"):
            with self.subTest(version):
                self.refused("invalid", [version], lambda: self.infer("add_sub", pair()[0], model_version=version))

    def test_keepalive(self):
        """Pings on an idle connection, far more than a server of gRPC's own lets a client send."""
        options = self.form.module.KeepAliveOptions(
            keepalive_time_ms=200,
            keepalive_timeout_ms=20_000,
            keepalive_permit_without_calls=True,
            http2_max_pings_without_data=0,
        )
        client = self.connect(keepalive_options=options)
        self.assertTrue(client.is_server_live())
        states, channel = [], client._client._channel
        is_async = isinstance(channel, grpc.aio.Channel)
        if not is_async:
            channel.subscribe(states.append)
        wait(asyncio.sleep(3))
        # A connection that the server had ended would be idle, and the next call would make another.
        if is_async:
            states.append(channel.get_state())
        self.assertEqual(set(states), {grpc.ChannelConnectivity.READY})
        self.assertTrue(client.is_server_live())


BOTH = [Unary]
