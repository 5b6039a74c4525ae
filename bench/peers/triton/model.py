"""The model that Triton's Python back end runs: onnxruntime, once for all that waits."""

import json

import numpy
import triton_python_backend_utils as backend
from graph import Graph


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.graph = Graph(parameters["path"]["string_value"])

    def execute(self, requests):
        tensors = [
            [backend.get_input_tensor_by_name(r, name).as_numpy() for name, _, _ in self.graph.inputs]
            for r in requests
        ]
        joined = [numpy.concatenate(of_input) for of_input in zip(*tensors)]
        names = [name for name, _, _ in self.graph.inputs]
        answers = self.graph.run(dict(zip(names, joined)))
        responses, at = [], 0
        for of_request in tensors:
            rows = slice(at, at + len(of_request[0]))
            at = rows.stop
            outputs = [
                backend.Tensor(name, answers[name][rows]) for name, _, _ in self.graph.outputs
            ]
            responses.append(backend.InferenceResponse(outputs))
        return responses
