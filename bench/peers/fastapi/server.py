"""FastAPI over onnxruntime, as teams write it: one process, uvloop, httptools and orjson."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import numpy
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

from graph import NUMPY, Graph, arguments

path, name, http, _ = arguments()
graph = Graph(path)
app = FastAPI()
JSON_LENGTH = "inference-header-content-length"


def reply(content):
    return Response(orjson.dumps(content), media_type="application/json")


@app.get("/v2/health/ready")
async def ready():
    return Response()


@app.get("/v2/models/{model}")
async def metadata(model: str):
    tensors = lambda all: [{"name": n, "datatype": d, "shape": s} for n, d, s in all]
    return {"name": name, "inputs": tensors(graph.inputs), "outputs": tensors(graph.outputs)}


@app.post("/v1/models/{model}:predict")
async def predict(request: Request):
    body = orjson.loads(await request.body())
    outputs = graph.run(graph.rows(body["instances"]))
    return reply({"predictions": graph.predictions(outputs)})


@app.post("/v2/models/{model}/infer")
async def infer(request: Request):
    body = await request.body()
    length = request.headers.get(JSON_LENGTH)
    if length is not None:
        return binary(body, int(length))
    feeds = {
        tensor["name"]: numpy.array(tensor["data"], dtype=NUMPY[tensor["datatype"]]).reshape(
            tensor["shape"]
        )
        for tensor in orjson.loads(body)["inputs"]
    }
    return reply({"model_name": name, "outputs": [described(*output) for output in outputs_of(feeds)]})


def binary(body, length):
    feeds, at = {}, length
    for tensor in orjson.loads(body[:length])["inputs"]:
        size = tensor["parameters"]["binary_data_size"]
        values = numpy.frombuffer(body, NUMPY[tensor["datatype"]], offset=at, count=-1)
        count = size // values.itemsize
        feeds[tensor["name"]] = values[:count].reshape(tensor["shape"])
        at += size
    heads, raw = [], []
    for output, datatype, values in outputs_of(feeds):
        raw.append(values.tobytes())
        parameters = {"binary_data_size": len(raw[-1])}
        heads.append(
            {"name": output, "datatype": datatype, "shape": values.shape, "parameters": parameters}
        )
    head = orjson.dumps({"model_name": name, "outputs": heads})
    return Response(
        b"".join([head, *raw]),
        media_type="application/octet-stream",
        headers={JSON_LENGTH: str(len(head))},
    )


def outputs_of(feeds):
    answers = graph.run(feeds)
    return [(output, datatype, answers[output]) for output, datatype, _ in graph.outputs]


def described(output, datatype, values):
    return {
        "name": output,
        "datatype": datatype,
        "shape": values.shape,
        "data": values.ravel().tolist(),
    }


uvicorn.run(
    app,
    host="127.0.0.1",
    port=http,
    loop="uvloop",
    http="httptools",
    access_log=False,
    log_level="warning",
)
