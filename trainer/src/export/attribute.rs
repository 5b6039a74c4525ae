//! Node attributes, one constructor a kind.

use super::onnx::AttributeProto;
use super::onnx::attribute_proto::AttributeType;

pub(super) fn integer(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..empty(name, AttributeType::Int) }
}

pub(super) fn text(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.into()), ..empty(name, AttributeType::String) }
}

pub(super) fn floats(name: &str, values: Vec<f32>) -> AttributeProto {
    AttributeProto { floats: values, ..empty(name, AttributeType::Floats) }
}

pub(super) fn integers(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..empty(name, AttributeType::Ints) }
}

pub(super) fn texts(name: &str, values: &[&str]) -> AttributeProto {
    let strings = values.iter().map(|&value| value.into()).collect();
    AttributeProto { strings, ..empty(name, AttributeType::Strings) }
}

fn empty(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() }
}
