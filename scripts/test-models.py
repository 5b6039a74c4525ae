#!/usr/bin/env python3
"""Writes the small graphs under gateway/tests/models/. Needs PyPI's onnx (1.22 was used).

    scale.onnx     y[batch, 2] = 2 x[batch, 2] + 1, both FP32: batches
    slow.onnx      as scale, behind a chain of large matrix products: a costly row
    mixed.onnx     id INT64 [batch], name STRING [batch], on BOOL [batch] -> each unchanged
    fixed.onnx     y[1, 2] = -x[1, 2]: does not batch
    pick.onnx      y[batch] = table[index[batch]]: fails on an index outside 0..3
    center.onnx    y[batch, 2] = x[batch, 2] minus its mean over the batch: mixes its rows
    loud.onnx      y[batch, 4] = 1e6 x[batch, 2] beside the logistic function of what center.onnx gives:
                   mixes its rows, by far less than its largest value
    burst.onnx     y[batch, 2] = the same logistic function, plus x + 1e5 where that is above 0
    place.onnx     y[batch, 2] = x[batch, 2] plus the row's place in the batch
    half.onnx      half FP16 [batch, 2], brain BF16 [batch, 2] -> each unchanged
    pair.onnx      y = a[batch, n] + b[batch, m]: fails unless they broadcast
    fold.onnx      y[pairs, 2] = x[batch, width] in pairs: fails on an odd number of elements
    parse.onnx     y[batch] = text[batch] as a number: fails on any other text
    keep.onnx      y[kept, 2] = rows of x[batch, 2] that begin above 0: not the input's rows
    patch.onnx     y[batch, 1, h, w]: a 3 x 3 convolution without padding, of any height and width
    rounds.onnx    y[1] = rounds[1] counted by a loop: takes as long as its input says
    fill.onnx      y = zeros of the shape[2] that is asked for: takes as much memory as its input says
    shift.onnx     y[batch, 2] = factor[2] x[batch, 2] + offset[batch, 2]: factor is 2 and offset is 0
                   where nobody brings them
    look.onnx      y[picked] = table[entries][index[picked]]: inputs of different lengths
    blob.onnx      blob STRING [batch, n] -> blob_bytes, unchanged
    vast.onnx      y = -x, both FP32 [4194304, 1048576]: more than any memory
    endless.onnx   y = -x, both FP32 [2^40, 2^40]: more than can be counted

and, with the names that Triton's examples have:

    identity/*.onnx  OUTPUT0 = INPUT0, both [batch, n], one for each datatype that the protocol has
    add_sub.onnx     OUTPUT0, OUTPUT1 = INPUT0 + INPUT1, INPUT0 - INPUT1, all INT32 [batch, 16]
    add_sub_one.onnx the same of INT32 [1, 16]: does not batch
    scores.onnx      OUTPUT0 = 2 INPUT0, both FP32 [batch, 4]: for the classes that lead
    optional.onnx    OUTPUT0[n] = INPUT0[n] + OFFSET[1], all FP32; OFFSET is 10 unless it is given

and outside/*.onnx, whose weights would be read from a file that is named in them
"""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "gateway/tests/models"


def save(name, nodes, inputs, outputs, constants=()):
    """Writes a graph. A constant with the name of an input is that input's default."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        name,
        [value(*item) for item in inputs],
        [value(*item) for item in outputs],
        [numpy_helper.from_array(array, key) for key, array in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    (FOLDER / f"{name}.onnx").write_bytes(model.SerializeToString())


FP32, FP16, BF16 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
INT64, STRING, BOOL = TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL
node = helper.make_node

two, one = ("two", np.float32(2)), ("one", np.float32(1))
scale = [node("Mul", ["x", "two"], ["twice"]), node("Add", ["twice", "one"], ["y"])]
save("scale", scale, [("x", FP32, ["batch", 2])], [("y", FP32, ["batch", 2])], [two, one])

# Identity through a wide space, again and again: each row costs some hundred microseconds.
width = 256
up = np.zeros((2, width), np.float32)
up[0, 0] = up[1, 1] = 1
eye = np.eye(width, dtype=np.float32)
chain = [node("MatMul", ["x", "up"], ["h0"])]
chain += [node("MatMul", [f"h{i}", "eye"], [f"h{i + 1}"]) for i in range(40)]
chain += [
    node("MatMul", ["h40", "down"], ["wide"]),
    node("Mul", ["wide", "two"], ["twice"]),
    node("Add", ["twice", "one"], ["y"]),
]
constants = [two, one, ("up", up), ("eye", eye), ("down", up.T.copy())]
save("slow", chain, [("x", FP32, ["batch", 2])], [("y", FP32, ["batch", 2])], constants)

save(
    "mixed",
    [node("Identity", [name], [f"{name}_out"]) for name in ("id", "name", "on")],
    [("id", INT64, ["batch"]), ("name", STRING, ["batch"]), ("on", BOOL, ["batch"])],
    [("id_out", INT64, ["batch"]), ("name_out", STRING, ["batch"]), ("on_out", BOOL, ["batch"])],
)
save("fixed", [node("Neg", ["x"], ["y"])], [("x", FP32, [1, 2])], [("y", FP32, [1, 2])])
save(
    "pick",
    [node("Gather", ["table", "index"], ["y"])],
    [("index", INT64, ["batch"])],
    [("y", FP32, ["batch"])],
    [("table", np.array([10, 20, 30, 40], np.float32))],
)
mean = [node("ReduceMean", ["x"], ["mean"], axes=[0]), node("Sub", ["x", "mean"], ["y"])]
save("center", mean, [("x", FP32, ["batch", 2])], [("y", FP32, ["batch", 2])])
center_of = [*mean[:1], node("Sub", ["x", "mean"], ["off"]), node("Sigmoid", ["off"], ["quiet"])]
million = ("million", np.float32(1e6))
loud = [
    *center_of,
    node("Mul", ["x", "million"], ["loud"]),
    node("Concat", ["loud", "quiet"], ["y"], axis=1),
]
save("loud", loud, [("x", FP32, ["batch", 2])], [("y", FP32, ["batch", 4])], [million])
burst = [
    *center_of,
    node("Add", ["x", "lift"], ["lifted"]),
    node("Relu", ["lifted"], ["burst"]),
    node("Add", ["burst", "quiet"], ["y"]),
]
lift = ("lift", np.float32(1e5))
save("burst", burst, [("x", FP32, ["batch", 2])], [("y", FP32, ["batch", 2])], [lift])
place = [
    node("Sub", ["x", "x"], ["nothing"]),
    node("Add", ["nothing", "one"], ["ones"]),
    node("CumSum", ["ones", "first"], ["place"]),
    node("Add", ["x", "place"], ["y"]),
]
first = ("first", np.array(0, np.int64))
save("place", place, [("x", FP32, ["batch", 2])], [("y", FP32, ["batch", 2])], [one, first])
keep = [
    node("Slice", ["x", "start", "end", "axis"], ["begin"]),
    node("Greater", ["begin", "zero"], ["above"]),
    node("Squeeze", ["above", "axis"], ["kept"]),
    node("Compress", ["x", "kept"], ["y"], axis=0),
]
bounds = [(name, np.array([at], np.int64)) for name, at in (("start", 0), ("end", 1), ("axis", 1))]
bounds.append(("zero", np.float32(0)))
save("keep", keep, [("x", FP32, ["batch", 2])], [("y", FP32, ["kept", 2])], bounds)
save(
    "patch",
    [node("Conv", ["x", "kernel"], ["y"], kernel_shape=[3, 3])],
    [("x", FP32, ["batch", 1, "height", "width"])],
    [("y", FP32, ["batch", 1, "h", "w"])],
    [("kernel", np.ones((1, 1, 3, 3), np.float32))],
)
save(
    "half",
    [node("Identity", [name], [f"{name}_out"]) for name in ("half", "brain")],
    [("half", FP16, ["batch", 2]), ("brain", BF16, ["batch", 2])],
    [("half_out", FP16, ["batch", 2]), ("brain_out", BF16, ["batch", 2])],
)
save(
    "pair",
    [node("Add", ["a", "b"], ["y"])],
    [("a", FP32, ["batch", "n"]), ("b", FP32, ["batch", "m"])],
    [("y", FP32, ["batch", "k"])],
)
save(
    "fold",
    [node("Reshape", ["x", "pairs"], ["y"])],
    [("x", FP32, ["batch", "width"])],
    [("y", FP32, ["pairs", 2])],
    [("pairs", np.array([-1, 2], np.int64))],
)
save(
    "parse",
    [node("Cast", ["text"], ["y"], to=FP32)],
    [("text", STRING, ["batch"])],
    [("y", FP32, ["batch"])],
)
body = helper.make_graph(
    [node("Identity", ["on"], ["go_on"]), node("Add", ["count", "step"], ["next"])],
    "round",
    [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("i", INT64, []), ("on", BOOL, []), ("count", INT64, [1]))
    ],
    [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("go_on", BOOL, []), ("next", INT64, [1]))
    ],
)
save(
    "rounds",
    [
        node("Squeeze", ["rounds"], ["most"]),
        node("Sub", ["rounds", "rounds"], ["zero"]),
        node("Loop", ["most", "", "zero"], ["y"], body=body),
    ],
    [("rounds", INT64, [1])],
    [("y", INT64, [1])],
    [("step", np.array([1], np.int64))],
)
save(
    "fill",
    [node("ConstantOfShape", ["shape"], ["y"])],
    [("shape", INT64, [2])],
    [("y", FP32, ["rows", "columns"])],
)
# Initializers that are inputs too may be brought instead.
save(
    "shift",
    [node("Mul", ["x", "factor"], ["scaled"]), node("Add", ["scaled", "offset"], ["y"])],
    [("x", FP32, ["batch", 2]), ("factor", FP32, [2]), ("offset", FP32, ["batch", 2])],
    [("y", FP32, ["batch", 2])],
    [("factor", np.full(2, 2, np.float32)), ("offset", np.zeros((1, 2), np.float32))],
)
save(
    "look",
    [node("Gather", ["table", "index"], ["y"])],
    [("table", FP32, ["entries"]), ("index", INT64, ["picked"])],
    [("y", FP32, ["picked"])],
)
save(
    "blob",
    [node("Identity", ["blob"], ["blob_bytes"])],
    [("blob", STRING, ["batch", "n"])],
    [("blob_bytes", STRING, ["batch", "n"])],
)
for name, shape in (("vast", [1 << 22, 1 << 20]), ("endless", [1 << 40, 1 << 40])):
    save(name, [node("Neg", ["x"], ["y"])], [("x", FP32, shape)], [("y", FP32, shape)])

identity = {
    "BOOL": BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": INT64,
    "FP16": FP16,
    "BF16": BF16,
    "FP32": FP32,
    "FP64": TensorProto.DOUBLE,
    "BYTES": STRING,
}
(FOLDER / "identity").mkdir(exist_ok=True)
for datatype, kind in identity.items():
    shape = ["batch", "n"]
    ports = [("INPUT0", kind, shape)], [("OUTPUT0", kind, shape)]
    save(f"identity/{datatype}", [node("Identity", ["INPUT0"], ["OUTPUT0"])], *ports)
add_sub = [
    node(operation, ["INPUT0", "INPUT1"], [output])
    for operation, output in (("Add", "OUTPUT0"), ("Sub", "OUTPUT1"))
]
for name, rows in (("add_sub", "batch"), ("add_sub_one", 1)):
    ports = [
        [(f"{side}{number}", TensorProto.INT32, [rows, 16]) for number in (0, 1)]
        for side in ("INPUT", "OUTPUT")
    ]
    save(name, add_sub, *ports)
save(
    "scores",
    [node("Mul", ["INPUT0", "two"], ["OUTPUT0"])],
    [("INPUT0", FP32, ["batch", 4])],
    [("OUTPUT0", FP32, ["batch", 4])],
    [two],
)
save(
    "optional",
    [node("Add", ["INPUT0", "OFFSET"], ["OUTPUT0"])],
    [("INPUT0", FP32, ["n"]), ("OFFSET", FP32, [1])],
    [("OUTPUT0", FP32, ["n"])],
    [("OFFSET", np.array([10], np.float32))],
)

# Weights in a file: of the folder that the program runs in, above it, or anywhere.
for name, location in (("here", "Cargo.toml"), ("above", "../Cargo.toml"), ("anywhere", "/etc/hostname")):
    weights = TensorProto(name="weights", data_type=FP32, dims=[64])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    weights.external_data.add(key="offset", value="0")
    weights.external_data.add(key="length", value="256")
    value = helper.make_tensor_value_info
    x, y = value("x", INT64, ["batch"]), value("y", FP32, ["batch"])
    graph = helper.make_graph([node("Gather", ["weights", "x"], ["y"])], name, [x], [y], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (FOLDER / "outside").mkdir(exist_ok=True)
    (FOLDER / "outside" / f"{name}.onnx").write_bytes(model.SerializeToString())
