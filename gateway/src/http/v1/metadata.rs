//! A model's signature in the form of TensorFlow Serving's GetModelMetadata.

use serde_json::{Map, Value, json};
use sluice_protocol::Datatype;

use crate::deployment::Deployment;

/// The one signature that a model has here.
pub(super) const SIGNATURE: &str = "serving_default";

/// `GET /v1/models/{model}/metadata`.
pub(super) fn signature(deployment: &Deployment) -> Value {
    let inputs = deployment.listed_inputs();
    let inputs = inputs.iter().map(|input| tensor(&input.name, input.datatype, &input.shape));
    let outputs = deployment.outputs.iter();
    let outputs = outputs.map(|output| tensor(&output.name, output.datatype, &output.shape));
    let signature = json!({
        "inputs": inputs.collect::<Map<_, _>>(),
        "outputs": outputs.collect::<Map<_, _>>(),
        "method_name": "tensorflow/serving/predict",
    });
    let version = deployment.version.to_string();
    json!({
        "model_spec": {"name": deployment.model, "signature_name": "", "version": version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    })
}

fn tensor(name: &str, datatype: Datatype, shape: &[i64]) -> (String, Value) {
    let dimensions = shape.iter().map(|size| json!({"size": size.to_string(), "name": ""}));
    let info = json!({
        "dtype": spelling(datatype),
        "tensor_shape": {"dim": dimensions.collect::<Vec<_>>(), "unknown_rank": false},
        "name": format!("{name}:0"),
    });
    (name.to_owned(), info)
}

const fn spelling(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "DT_BOOL",
        Datatype::Uint8 => "DT_UINT8",
        Datatype::Uint16 => "DT_UINT16",
        Datatype::Uint32 => "DT_UINT32",
        Datatype::Uint64 => "DT_UINT64",
        Datatype::Int8 => "DT_INT8",
        Datatype::Int16 => "DT_INT16",
        Datatype::Int32 => "DT_INT32",
        Datatype::Int64 => "DT_INT64",
        Datatype::Fp16 => "DT_HALF",
        Datatype::Bf16 => "DT_BFLOAT16",
        Datatype::Fp32 => "DT_FLOAT",
        Datatype::Fp64 => "DT_DOUBLE",
        Datatype::Bytes => "DT_STRING",
    }
}
