//! A booster as an ONNX graph, which computes the same in any runtime.
//!
//! `features`, FP32 of batch x columns, -> TreeEnsembleRegressor -> the link -> `prediction`
//! FP32 of batch. Operators are ai.onnx 17 and ai.onnx.ml 3, which every converter emits and
//! every runtime accepts.

mod attribute;
mod ensemble;

/// The messages of an ONNX file, generated from `proto/`.
#[allow(unreachable_pub, missing_debug_implementations, clippy::all)]
mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

use onnx::tensor_proto::DataType;
use onnx::tensor_shape_proto::{Dimension, dimension};
use onnx::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use prost::Message;

use crate::learner::{Booster, Link};

/// The graph's input: FP32 of batch x columns, NaN for a missing value.
pub const INPUT: &str = "features";
/// The graph's output: FP32 of batch.
pub const OUTPUT: &str = "prediction";

/// The version of what `metadata_props` hold.
const METADATA_FORMAT: u32 = 1;
const IR_VERSION: i64 = 8;
const AI_ONNX_VERSION: i64 = 17;
const AI_ONNX_ML: &str = "ai.onnx.ml";
const AI_ONNX_ML_VERSION: i64 = 3;

/// The bytes of an ONNX file that predicts what the booster predicts.
pub fn to_onnx(booster: &Booster) -> Vec<u8> {
    let operators = |domain: &str, version| OperatorSetIdProto {
        domain: Some(domain.into()),
        version: Some(version),
    };
    let model = ModelProto {
        ir_version: Some(IR_VERSION),
        producer_name: Some("sluice".into()),
        producer_version: Some(env!("CARGO_PKG_VERSION").into()),
        graph: Some(graph(booster)),
        opset_import: vec![
            operators("", AI_ONNX_VERSION),
            operators(AI_ONNX_ML, AI_ONNX_ML_VERSION),
        ],
        metadata_props: metadata(booster),
        ..ModelProto::default()
    };
    model.encode_to_vec()
}

fn graph(booster: &Booster) -> GraphProto {
    let mut node = vec![ensemble::node(booster, INPUT, "raw_score")];
    let mut scores = "raw_score";
    if booster.objective().link() == Link::Log {
        node.push(operator("Exp", &[scores], "mean"));
        scores = "mean";
    }
    node.push(operator("Squeeze", &[scores, "column_axis"], OUTPUT));
    let batch = || dimension::Value::DimParam("batch".into());
    let columns = i64::try_from(booster.columns().len()).expect("columns are in memory");
    let axis = TensorProto {
        dims: vec![1],
        data_type: Some(DataType::Int64 as i32),
        int64_data: vec![1],
        name: Some("column_axis".into()),
    };
    GraphProto {
        node,
        name: Some("booster".into()),
        initializer: vec![axis],
        input: vec![float_tensor(INPUT, [batch(), dimension::Value::DimValue(columns)])],
        output: vec![float_tensor(OUTPUT, [batch()])],
    }
}

fn operator(op_type: &str, input: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: input.iter().map(|&name| name.into()).collect(),
        output: vec![output.into()],
        name: Some(output.into()),
        op_type: Some(op_type.into()),
        ..NodeProto::default()
    }
}

fn float_tensor<const N: usize>(name: &str, shape: [dimension::Value; N]) -> ValueInfoProto {
    let dim = shape.into_iter().map(|value| Dimension { value: Some(value) }).collect();
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim }),
    };
    let value = Some(type_proto::Value::TensorType(tensor));
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { value }) }
}

/// What the graph itself does not say, for whoever finds the file alone.
fn metadata(booster: &Booster) -> Vec<StringStringEntryProto> {
    let columns = serde_json::to_string(booster.columns()).expect("names are always JSON");
    let entries = [
        ("sluice.format", METADATA_FORMAT.to_string()),
        ("sluice.objective", booster.objective().as_str().into()),
        ("sluice.columns", columns),
        ("sluice.trees", booster.trees().len().to_string()),
    ];
    entries
        .into_iter()
        .map(|(key, value)| StringStringEntryProto { key: Some(key.into()), value: Some(value) })
        .collect()
}
