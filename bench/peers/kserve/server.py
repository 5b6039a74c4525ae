"""KServe's Python server with a model that calls onnxruntime: one process, as it is by default."""

import logging
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from graph import Graph, arguments

path, name, http, grpc = arguments()
# KServe reads its own flags from here.
sys.argv = [sys.argv[0], f"--http_port={http}", f"--grpc_port={grpc}", "--workers=1"]

from kserve import InferOutput, InferResponse, Model, ModelServer

logging.disable(logging.INFO)


class OnnxModel(Model):
    def __init__(self):
        super().__init__(name)
        self.graph = Graph(path)
        self.ready = True

    async def get_input_types(self):
        return self.described(self.graph.inputs)

    async def get_output_types(self):
        return self.described(self.graph.outputs)

    async def predict(self, payload, headers=None, response_headers=None):
        if isinstance(payload, dict):
            outputs = self.graph.run(self.graph.rows(payload["instances"]))
            return {"predictions": self.graph.predictions(outputs)}
        answers = self.graph.run({tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        binary = payload.from_grpc or any(
            "binary_data_size" in (tensor.parameters or {}) for tensor in payload.inputs
        )
        outputs = []
        for output, datatype, _ in self.graph.outputs:
            values = answers[output]
            tensor = InferOutput(output, list(values.shape), datatype)
            tensor.set_data_from_numpy(values, binary_data=binary)
            outputs.append(tensor)
        return InferResponse(payload.id or "", name, outputs)

    @staticmethod
    def described(tensors):
        return [{"name": n, "datatype": d, "shape": s} for n, d, s in tensors]


ModelServer(access_log_format=None).start([OnnxModel()])
