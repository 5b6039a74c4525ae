"""grpcio with the generated messages alone: what tritonclient never sends.

Typed contents, both forms at once, lengths that do not fit, health and reflection.
"""

import grpc
import numpy
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from support import GRPC, VALUES, Case, bits, main
from tritonclient.grpc import service_pb2, service_pb2_grpc

SERVICE = "inference.GRPCInferenceService"

# The field of typed contents for each datatype that has one.
FIELDS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}

# Longest wait for an answer, in seconds.
PATIENCE = 20


def contents(datatype):
    """The elements of a datatype's values as the typed field takes them."""
    elements = VALUES[datatype].flatten().tolist()
    return [text.encode() for text in elements] if datatype == "BYTES" else elements


class GrpcCase(Case):
    def setUp(self):
        super().setUp()
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        self.channel = grpc.insecure_channel(GRPC, options=options)
        self.addCleanup(self.channel.close)
        self.stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)

    def request(self, model, **fields):
        return service_pb2.ModelInferRequest(model_name=model, **fields)

    def identity(self, datatype, shape=(2, 4)):
        """A question to an identity without its data."""
        request = self.request(f"identity_{datatype}")
        request.inputs.add(name="INPUT0", datatype=datatype, shape=shape)
        return request

    def typed(self, datatype):
        request = self.identity(datatype)
        getattr(request.inputs[0].contents, FIELDS[datatype]).extend(contents(datatype))
        return request

    def infer(self, request, **options):
        return self.stub.ModelInfer(request, timeout=PATIENCE, **options)

    def refused(self, code, words, request):
        with self.assertRaises(grpc.RpcError) as caught:
            self.infer(request)
        self.assertEqual(caught.exception.code(), code, caught.exception)
        for word in words:
            self.assertIn(word, caught.exception.details())


class Typed(GrpcCase):
    def test_typed_in_typed_out(self):
        for datatype, field in FIELDS.items():
            with self.subTest(datatype):
                response = self.infer(self.typed(datatype))
                (output,) = response.outputs
                self.assertEqual((output.name, output.datatype, list(output.shape)), ("OUTPUT0", datatype, [2, 4]))
                self.assertEqual(len(response.raw_output_contents), 0)
                elements = list(getattr(output.contents, field))
                if datatype == "BYTES":
                    self.assertEqual(elements, contents(datatype))
                else:
                    array = numpy.array(elements, VALUES[datatype].dtype).reshape(2, 4)
                    self.assertEqual(bits(array), bits(VALUES[datatype]))

    def test_nothing_typed(self):
        request = self.identity("FP32", (2, 0))
        request.inputs[0].contents.SetInParent()
        response = self.infer(request)
        self.assertEqual(list(response.outputs[0].shape), [2, 0])

    def test_the_wrong_field(self):
        for datatype in FIELDS:
            with self.subTest(datatype):
                request = self.identity(datatype)
                other = "int64_contents" if FIELDS[datatype] == "fp32_contents" else "fp32_contents"
                getattr(request.inputs[0].contents, other).extend([1] * 8)
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], request)

    def test_halves_are_raw_only(self):
        for datatype in ("FP16", "BF16"):
            with self.subTest(datatype):
                request = self.identity(datatype)
                request.inputs[0].contents.fp32_contents.extend([1] * 8)
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], request)

    def test_too_few_and_too_many(self):
        for count in (7, 9):
            with self.subTest(count):
                request = self.identity("INT32")
                request.inputs[0].contents.int_contents.extend([1] * count)
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], request)

    def test_as_tritons_explicit_examples_send_it(self):
        """Two typed inputs, as grpc_explicit_int_content_client.py has them, and their sum."""
        request = self.request("add_sub", id="42")
        for name, elements in (("INPUT0", range(16)), ("INPUT1", [1] * 16)):
            tensor = request.inputs.add(name=name, datatype="INT32", shape=[1, 16])
            tensor.contents.int_contents.extend(elements)
        for name in ("OUTPUT0", "OUTPUT1"):
            request.outputs.add(name=name)
        response = self.infer(request)
        self.assertEqual((response.id, response.model_name, response.model_version), ("42", "add_sub", "1"))
        self.assertEqual(list(response.outputs[0].contents.int_contents), [number + 1 for number in range(16)])
        self.assertEqual(list(response.outputs[1].contents.int_contents), [number - 1 for number in range(16)])


class Raw(GrpcCase):
    def raw(self, *values, shape=(2, 4), datatype="INT32"):
        request = self.identity(datatype, shape)
        request.raw_input_contents.extend(values)
        return request

    def test_raw_in_raw_out(self):
        for datatype in ("FP16", "BF16", "INT8", "UINT64", "BOOL"):
            with self.subTest(datatype):
                data = VALUES[datatype].tobytes()
                response = self.infer(self.raw(data, datatype=datatype))
                self.assertEqual(list(response.raw_output_contents), [data])
                self.assertFalse(response.outputs[0].HasField("contents"))

    def test_both_forms(self):
        request = self.typed("INT32")
        request.raw_input_contents.append(bytes(32))
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], request)

    def test_neither_form(self):
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], self.raw())

    def test_lengths(self):
        for length in (0, 31, 33, 64):
            with self.subTest(length):
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], self.raw(bytes(length)))

    def test_texts_that_do_not_fit(self):
        for data in (b"", b"\x01", b"\xff\xff\xff\xffa", b"\x01\x00\x00\x00a" * 7, b"\x01\x00\x00\x00a" * 9):
            with self.subTest(data):
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], self.raw(data, datatype="BYTES"))

    def test_shapes(self):
        for shape in ((-1, 4), (2, 5), (1 << 62, 4), (1 << 32, 1 << 32), (8,), ()):
            with self.subTest(shape):
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], self.raw(bytes(32), shape=shape))

    def test_nothing(self):
        response = self.infer(self.raw(b"", shape=(2, 0)))
        self.assertEqual((list(response.raw_output_contents), list(response.outputs[0].shape)), ([b""], [2, 0]))

    def test_unknown_datatype(self):
        request = self.raw(bytes(32))
        request.inputs[0].datatype = "INT33"
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["INPUT0"], request)

    def test_parameters_of_the_wrong_kind(self):
        for name, field, value in (("priority", "string_param", "high"), ("timeout", "bool_param", True)):
            with self.subTest(name):
                request = self.raw(bytes(32))
                setattr(request.parameters[name], field, value)
                self.refused(grpc.StatusCode.INVALID_ARGUMENT, [name], request)

    def test_reserved_parameters(self):
        request = self.raw(bytes(32))
        request.parameters["triton_other"].bool_param = True
        self.refused(grpc.StatusCode.INVALID_ARGUMENT, ["triton_"], request)


class Service(GrpcCase):
    def test_unknown_method(self):
        call = self.channel.unary_unary(f"/{SERVICE}/Other")
        with self.assertRaises(grpc.RpcError) as caught:
            call(b"", timeout=PATIENCE)
        self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_broken_messages(self):
        for method in ("ModelInfer", "ModelReady", "RepositoryModelLoad"):
            with self.subTest(method):
                call = self.channel.unary_unary(f"/{SERVICE}/{method}")
                with self.assertRaises(grpc.RpcError) as caught:
                    call(b"\x0a\xff\xff\xff\xff\x0fabc", timeout=PATIENCE)
                codes = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL)
                self.assertIn(caught.exception.code(), codes)
        self.assertTrue(self.stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=PATIENCE).live)

    def test_repository_names_are_not_served(self):
        for method, message in (
            ("RepositoryIndex", service_pb2.RepositoryIndexRequest(repository_name="other")),
            ("RepositoryModelLoad", service_pb2.RepositoryModelLoadRequest(repository_name="other", model_name="add_sub")),
        ):
            with self.subTest(method), self.assertRaises(grpc.RpcError) as caught:
                getattr(self.stub, method)(message, timeout=PATIENCE)
            self.assertEqual(caught.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_load_and_unload_as_kserve_asks(self):
        """KServe's messages have the name as field 1, and the answers say what was done."""
        name = b"\x0a\x05spare"
        for method in ("RepositoryModelLoad", "RepositoryModelUnload"):
            with self.subTest(method):
                call = self.channel.unary_unary(f"/{SERVICE}/{method}")
                self.assertEqual(call(name, timeout=PATIENCE), name + b"\x10\x01")


class Health(GrpcCase):
    def test_check(self):
        stub = health_pb2_grpc.HealthStub(self.channel)
        for service in ("", SERVICE, "anything"):
            with self.subTest(service):
                response = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=PATIENCE)
                self.assertEqual(response.status, health_pb2.HealthCheckResponse.SERVING)


class Reflection(GrpcCase):
    """What grpcurl asks."""

    def database(self):
        return ProtoReflectionDescriptorDatabase(self.channel)

    def test_services(self):
        services = set(self.database().get_services())
        self.assertLessEqual({SERVICE, "grpc.health.v1.Health"}, services)

    def test_file_of_a_symbol(self):
        file = self.database().FindFileContainingSymbol(SERVICE)
        methods = {method.name for service in file.service for method in service.method}
        expected = {method.name for method in service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods}
        self.assertEqual(methods, expected)

    def test_messages_are_tritons(self):
        """Every field that Triton's own messages have, under its number and with its type."""
        ours = {}
        database = self.database()
        for symbol in (f"{SERVICE}", "inference.ModelConfig"):
            self.collect(ours, database.FindFileContainingSymbol(symbol))
        theirs = {}
        for module in (service_pb2, __import__("tritonclient.grpc.model_config_pb2", fromlist=["DESCRIPTOR"])):
            file = descriptor_pb2.FileDescriptorProto()
            module.DESCRIPTOR.CopyToProto(file)
            self.collect(theirs, file)
        for message, fields in theirs.items():
            with self.subTest(message):
                self.assertIn(message, ours)
                self.assertLessEqual(fields.items(), ours[message].items())

    def collect(self, found, file):
        def walk(prefix, messages):
            for message in messages:
                name = f"{prefix}.{message.name}"
                found[name] = {field.number: (field.name, field.type, field.label) for field in message.field}
                walk(name, message.nested_type)

        walk(file.package, file.message_type)

    def test_unknown_symbol(self):
        stub = reflection_pb2_grpc.ServerReflectionStub(self.channel)
        request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="inference.Other")
        with self.assertRaises(grpc.RpcError) as caught:
            list(stub.ServerReflectionInfo(iter([request]), timeout=PATIENCE))
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)


main("grpc_messages", Typed, Raw, Service, Health, Reflection)
