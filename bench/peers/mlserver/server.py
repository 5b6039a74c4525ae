"""Starts MLServer in this process's place: one process without a pool of workers, which would
only add a hop here (`parallel_workers` 0), no adaptive batching, and warnings as its only words.
"""

import json
import os
import pathlib
import sys
import tempfile

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here.parent))

from graph import arguments

path, name, http, grpc = arguments()
folder = pathlib.Path(tempfile.mkdtemp(prefix="peer-mlserver-"))
settings = {
    "host": "127.0.0.1",
    "http_port": http,
    "grpc_port": grpc,
    "metrics_port": 0,
    "metrics_endpoint": None,
    "parallel_workers": 0,
    "debug": False,
    "root_path": "",
}
(folder / "settings.json").write_text(json.dumps(settings))
model = {"name": name, "implementation": "model.OnnxModel"}
(folder / "model-settings.json").write_text(json.dumps(model))
os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent)])
os.environ["PEER_MODEL"] = path
mlserver = pathlib.Path(sys.executable).parent / "mlserver"
os.execv(mlserver, [str(mlserver), "start", str(folder)])
