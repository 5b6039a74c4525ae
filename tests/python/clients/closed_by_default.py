"""What a gateway does not let its callers do unless it is told to, seen by all forms of tritonclient.

Loading and unloading, the log, traces and shared memory belong to operators: on the serving ports
they are refused, in words that say so, and nothing has changed afterwards.
"""

from support import bits, main
from triton import TritonCase, in_all_forms, pair


class Closed(TritonCase):
    def tearDown(self):
        arrays, expected = pair()
        self.assertEqual(bits(self.infer("add_sub", arrays).as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def closed(self, kind, setting, method, *arguments):
        """The refusal says what would open it."""
        self.refused(kind, [setting], lambda: getattr(self.client, method)(*arguments))

    def test_models(self):
        self.closed("denied", "--serve-control model-repository", "load_model", "add_sub")
        self.closed("denied", "--serve-control model-repository", "unload_model", "add_sub")
        self.assertTrue(self.client.is_model_ready("add_sub"))

    def test_log(self):
        self.closed("denied", "--serve-control logging", "update_log_settings", {"log_info": False})

    def test_traces(self):
        self.closed("denied", "--serve-control trace", "update_trace_settings", None, {"trace_level": ["TIMESTAMPS"]})

    def test_shared_memory(self):
        self.closed("denied", "--serve-control shared-memory", "register_system_shared_memory", "one", "/sluice-one", 16)

    def test_metadata_claims_none_of_it(self):
        extensions = self.json("get_server_metadata")["extensions"]
        for extension in ("model_repository", "system_shared_memory", "logging", "cuda_shared_memory"):
            self.assertNotIn(extension, extensions)

    def test_the_rest_is_open(self):
        self.assertTrue(self.client.is_model_ready("add_sub"))
        self.assertTrue(self.client.get_model_config("add_sub"))
        self.assertTrue(self.client.get_inference_statistics("add_sub"))
        self.assertTrue(self.client.get_model_repository_index())


main("closed_by_default", *in_all_forms(Closed))
