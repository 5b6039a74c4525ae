//! The models that the suites ask for, in Triton's layout.

use std::path::Path;

/// One model: its name, its versions with their graphs, and its `config.pbtxt`, if it has one.
struct Model {
    name: &'static str,
    versions: &'static [(u64, &'static str)],
    config: &'static str,
}

const MODELS: &[Model] = &[
    Model { name: "add_sub", versions: &[(1, "add_sub")], config: ADD_SUB },
    Model { name: "add_sub_one", versions: &[(1, "add_sub_one")], config: "" },
    // x -> 2 x + 1, then x + 1 for the first row.
    Model {
        name: "versioned",
        versions: &[(1, "scale"), (2, "place")],
        config: "version_policy { all { } }",
    },
    Model { name: "scale", versions: &[(1, "scale")], config: "max_batch_size: 64" },
    Model { name: "costly", versions: &[(1, "slow")], config: "max_batch_size: 64" },
    // Takes as long as it is asked to.
    Model { name: "rounds", versions: &[(1, "rounds")], config: "" },
    // One run at a time, behind which one request may wait.
    Model { name: "bounded", versions: &[(1, "rounds")], config: BOUNDED },
    // Fails on texts that are no numbers.
    Model { name: "parse", versions: &[(1, "parse")], config: "" },
    Model { name: "half", versions: &[(1, "half")], config: "" },
    Model { name: "scores", versions: &[(1, "scores")], config: SCORES },
    Model { name: "optional", versions: &[(1, "optional")], config: OPTIONAL },
];

/// Those that are not loaded until somebody asks for them, where that can be had.
const SPARE: &[Model] = &[Model { name: "spare", versions: &[(1, "scale")], config: "" }];

const DATATYPES: [&str; 14] = [
    "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16",
    "BF16", "FP32", "FP64", "BYTES",
];

const ADD_SUB: &str = r#"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [
  { name: "INPUT0", data_type: TYPE_INT32, dims: [ 16 ] },
  { name: "INPUT1", data_type: TYPE_INT32, dims: [ 16 ] }
]
output [
  { name: "OUTPUT0", data_type: TYPE_INT32, dims: [ 16 ] },
  { name: "OUTPUT1", data_type: TYPE_INT32, dims: [ 16 ] }
]
dynamic_batching { priority_levels: 4 default_priority_level: 2 }
"#;

const BOUNDED: &str = r#"
instance_group [ { count: 1 } ]
dynamic_batching { default_queue_policy { max_queue_size: 1 } }
"#;

const SCORES: &str = r#"
max_batch_size: 8
input [ { name: "INPUT0", data_type: TYPE_FP32, dims: [ 4 ] } ]
output [ { name: "OUTPUT0", data_type: TYPE_FP32, dims: [ 4 ], label_filename: "labels.txt" } ]
"#;

const OPTIONAL: &str = r#"
input [
  { name: "INPUT0", data_type: TYPE_FP32, dims: [ -1 ] },
  { name: "OFFSET", data_type: TYPE_FP32, dims: [ 1 ], optional: true }
]
output [ { name: "OUTPUT0", data_type: TYPE_FP32, dims: [ -1 ] } ]
"#;

/// Four labels, one a line.
const LABELS: &str = "apple\nbanana\ncherry\ndate\n";

/// Writes all of them into a folder, and gives the names of those to load at the start. Where all
/// that is there is loaded, there is one beside them that cannot be, which is called `broken`.
pub(crate) fn write(root: &Path, with_spare: bool) -> Vec<String> {
    let mut names = Vec::new();
    for model in MODELS {
        write_model(root, model);
        names.push(model.name.to_owned());
    }
    for datatype in DATATYPES {
        let name = format!("identity_{datatype}");
        place(&root.join(&name), 1, &format!("identity/{datatype}"));
        names.push(name);
    }
    if with_spare {
        SPARE.iter().for_each(|model| write_model(root, model));
    } else {
        let folder = root.join("broken/1");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("model.onnx"), "no graph").unwrap();
    }
    names
}

fn write_model(root: &Path, model: &Model) {
    let folder = root.join(model.name);
    for (version, graph) in model.versions {
        place(&folder, *version, graph);
    }
    if !model.config.is_empty() {
        std::fs::write(folder.join("config.pbtxt"), model.config).unwrap();
    }
    if model.config.contains("labels.txt") {
        std::fs::write(folder.join("labels.txt"), LABELS).unwrap();
    }
}

fn place(folder: &Path, version: u64, graph: &str) {
    let graphs = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let folder = folder.join(version.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::copy(graphs.join(format!("{graph}.onnx")), folder.join("model.onnx")).unwrap();
}
