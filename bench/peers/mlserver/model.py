"""The model that MLServer loads: onnxruntime behind its codecs for arrays."""

import os

from graph import Graph
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse, MetadataTensor


class OnnxModel(MLModel):
    async def load(self) -> bool:
        self.graph = Graph(os.environ["PEER_MODEL"])
        tensor = lambda t: MetadataTensor(name=t[0], datatype=t[1], shape=t[2])
        self.inputs = [tensor(t) for t in self.graph.inputs]
        self.outputs = [tensor(t) for t in self.graph.outputs]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs}
        answers = self.graph.run(feeds)
        outputs = [NumpyCodec.encode_output(n, answers[n]) for n, _, _ in self.graph.outputs]
        return InferenceResponse(model_name=self.name, outputs=outputs)
