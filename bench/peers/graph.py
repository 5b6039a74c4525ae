"""The graph that every peer runs: onnxruntime with one thread that does not spin, as Sluice has it."""

import sys

import numpy
import onnxruntime

# V2's names of the types that tabular graphs have, by onnxruntime's.
DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(int64)": "INT64",
    "tensor(int32)": "INT32",
    "tensor(bool)": "BOOL",
}
NUMPY = {
    "FP32": numpy.float32,
    "FP64": numpy.float64,
    "INT64": numpy.int64,
    "INT32": numpy.int32,
    "BOOL": numpy.bool_,
}


def arguments():
    """What every peer is started with: the graph's path, its name, the ports of HTTP and gRPC."""
    if len(sys.argv) != 5:
        sys.exit(f"usage: {sys.argv[0]} MODEL.onnx NAME HTTP_PORT GRPC_PORT")
    path, name, http, grpc = sys.argv[1:]
    return path, name, int(http), int(grpc)


class Graph:
    """A loaded graph. Tensors are (name, datatype, shape) with -1 for a free size."""

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [self._tensor(node) for node in self.session.get_inputs()]
        self.outputs = [self._tensor(node) for node in self.session.get_outputs()]

    def run(self, feeds):
        """Arrays by the names of the outputs."""
        names = [name for name, _, _ in self.outputs]
        return dict(zip(names, self.session.run(names, feeds)))

    def rows(self, instances):
        """V1's instances as arrays: rows of the only input, or objects by input."""
        if len(self.inputs) == 1:
            name, datatype, _ = self.inputs[0]
            return {name: numpy.array(instances, dtype=NUMPY[datatype])}
        return {
            name: numpy.array([instance[name] for instance in instances], dtype=NUMPY[datatype])
            for name, datatype, _ in self.inputs
        }

    @staticmethod
    def predictions(outputs):
        """V1's answer: rows of the only output, or objects by output."""
        if len(outputs) == 1:
            return next(iter(outputs.values())).tolist()
        columns = {name: values.tolist() for name, values in outputs.items()}
        return [dict(zip(columns, row)) for row in zip(*columns.values())]

    @staticmethod
    def _tensor(node):
        shape = [size if isinstance(size, int) else -1 for size in node.shape]
        return node.name, DATATYPES[node.type], shape
