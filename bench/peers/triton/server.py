"""Starts Triton in this process's place: the server for CPU out of nvidia-pytriton's wheel, its
Python back end, one instance of the model and dynamic batching without a delay.
"""

import os
import pathlib
import shutil
import sys
import sysconfig
import tempfile

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))

from graph import Graph, arguments

path, name, http, grpc = arguments()
packages = pathlib.Path(sysconfig.get_paths()["purelib"])
triton = packages / "pytriton" / "tritonserver"
version = f"{sys.version_info.major}.{sys.version_info.minor}"
stub = packages / "pytriton/tritonserver/python_backend_stubs" / version
if not stub.exists():
    sys.exit(f"nvidia-pytriton has no back end for Python {version}")

folder = pathlib.Path(tempfile.mkdtemp(prefix="peer-triton-"))
backends = folder / "backends"
shutil.copytree(triton / "backends" / "python", backends / "python")
shutil.copy(stub / "triton_python_backend_stub", backends / "python")

model = folder / "models" / name
(model / "1").mkdir(parents=True)
# The back end looks for modules here and in the environment's packages, whatever PYTHONPATH says.
for module in [here / "model.py", here.parent / "graph.py"]:
    shutil.copy(module, model / "1")


def tensors(kind, all):
    # The first size is the batch's, which Triton does not name.
    lines = [
        f'{{ name: "{n}" data_type: TYPE_{d} dims: {s[1:] or [1]} }}' for n, d, s in all
    ]
    return f"{kind} [ {', '.join(lines)} ]\n"


graph = Graph(path)
(model / "config.pbtxt").write_text(
    'backend: "python"\nmax_batch_size: 64\n'
    + tensors("input", graph.inputs)
    + tensors("output", graph.outputs)
    + "instance_group [ { kind: KIND_CPU count: 1 } ]\ndynamic_batching { }\n"
    + f'parameters {{ key: "path" value: {{ string_value: "{path}" }} }}\n'
)
libraries = [str(pathlib.Path(sysconfig.get_config_var("LIBDIR"))), str(packages / "nvidia_pytriton.libs")]
os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
os.environ["PATH"] = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
server = triton / "bin" / "tritonserver"
flags = {
    "model-repository": folder / "models",
    "backend-directory": backends,
    "http-address": "127.0.0.1",
    "grpc-address": "127.0.0.1",
    "http-port": http,
    "grpc-port": grpc,
    "allow-metrics": "false",
    "log-info": "false",
}
os.execv(server, [str(server), *(f"--{flag}={value}" for flag, value in flags.items())])
