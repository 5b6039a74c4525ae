#!/usr/bin/env python3
"""Asks a running gateway the demo's question with Triton's own client, over HTTP and gRPC.

    triton_client.py HTTP_ADDRESS GRPC_ADDRESS EXPECTED_NUMBER
"""

import sys

import numpy
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

MODEL = "demand-forecast"


def inputs(protocol, binary):
    fields = {
        "store_id": numpy.array([42], numpy.int64),
        "date": numpy.array([b"2025-01-15"], numpy.object_),
        "promo": numpy.array([1], numpy.int64),
    }
    datatypes = {"store_id": "INT64", "date": "BYTES", "promo": "INT64"}
    made = []
    for name, values in fields.items():
        tensor = protocol.InferInput(name, [1], datatypes[name])
        if protocol is tritonclient.http:
            tensor.set_data_from_numpy(values, binary_data=binary)
        else:
            tensor.set_data_from_numpy(values)
        made.append(tensor)
    return made


def check(protocol, client, expected):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(MODEL)
    assert not client.is_model_ready("other")
    metadata = client.get_model_metadata(MODEL)
    listed = metadata["inputs"] if isinstance(metadata, dict) else metadata.inputs
    names = [item["name"] if isinstance(item, dict) else item.name for item in listed]
    assert names == ["store_id", "date", "promo", "features"], names
    for binary in (True, False):
        answer = client.infer(MODEL, inputs(protocol, binary), request_id="q1")
        assert answer.as_numpy("prediction").tolist() == [expected], answer.as_numpy("prediction")
        response = answer.get_response()
        assert (response["id"] if isinstance(response, dict) else response.id) == "q1"
    try:
        client.infer("other", inputs(protocol, True))
        raise AssertionError("an unknown model was answered")
    except InferenceServerException as error:
        assert "unknown model" in error.message(), error
    try:
        client.infer(MODEL, inputs(protocol, True)[:1])
        raise AssertionError("a missing field was let through")
    except InferenceServerException as error:
        assert "date" in error.message(), error


def main():
    http, grpc, expected = sys.argv[1:]
    expected = float(numpy.float32(float(expected)))
    check(tritonclient.http, tritonclient.http.InferenceServerClient(http), expected)
    check(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(grpc), expected)
    print("tritonclient: health, metadata, infer over HTTP and gRPC, errors: ok")


main()
