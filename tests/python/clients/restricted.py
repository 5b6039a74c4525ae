"""A group of APIs that wants a header, asked by all forms of tritonclient: with the header of a call, with
that of a plugin, and without.
"""

from support import bits, main
from triton import TritonCase, in_all_forms, pair
from tritonclient._plugin import InferenceServerClientPlugin

# As the gateway is told with --restrict.
HEADER = {"word": "open"}


class Opening(InferenceServerClientPlugin):
    """Adds the header to every call."""

    def __call__(self, request):
        request.headers.update(HEADER)


class Restricted(TritonCase):
    def answered(self, **options):
        arrays, expected = pair()
        result = self.infer("add_sub", arrays, **options)
        self.assertEqual(bits(result.as_numpy("OUTPUT0")), bits(expected["OUTPUT0"]))

    def closed(self, **options):
        kind = "unavailable" if self.form.over_grpc else "denied"
        self.refused(kind, ["restricted", "word"], lambda: self.infer("add_sub", pair()[0], **options))

    def test_without(self):
        self.closed()
        self.closed(headers={"word": "shut"})
        self.assertTrue(self.client.is_server_live())

    def test_headers(self):
        # The HTTP forms add their own to what they are given.
        self.answered(headers=dict(HEADER))

    def test_plugin(self):
        self.client.register_plugin(Opening())
        self.answered(headers={})
        self.client.unregister_plugin()
        self.closed(headers={})


main("restricted", *in_all_forms(Restricted))
