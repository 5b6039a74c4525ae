//! From an answer to the message that carries it.

use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_response::InferOutputTensor;
use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferResponse};
use sluice_protocol::{Datatype, InferResponse, NamedTensor, Parameter, Parameters, TensorData};

/// Raw in, raw out; typed in, typed out, unless an output has no typed form.
pub(super) fn response(response: InferResponse, raw: bool) -> ModelInferResponse {
    let has_typed_form =
        |output: &NamedTensor| !matches!(output.tensor.datatype(), Datatype::Fp16 | Datatype::Bf16);
    let raw = raw || !response.outputs.iter().all(has_typed_form);
    let mut raw_contents = Vec::new();
    let outputs = response.outputs.into_iter().map(|NamedTensor { name, tensor }| {
        let datatype = tensor.datatype().as_str().to_owned();
        let (shape, data) = tensor.into_parts();
        let contents = if raw {
            let mut bytes = Vec::new();
            data.write_raw(&mut bytes);
            raw_contents.push(bytes.into());
            None
        } else {
            Some(contents(data))
        };
        let parameters = std::collections::HashMap::new();
        InferOutputTensor { name, datatype, shape, parameters, contents }
    });
    ModelInferResponse {
        outputs: outputs.collect(),
        model_name: response.model.to_string(),
        model_version: response.version.to_string(),
        id: response.id,
        parameters: wire_parameters(response.parameters),
        raw_output_contents: raw_contents,
    }
}

fn contents(data: TensorData) -> InferTensorContents {
    let mut c = InferTensorContents::default();
    match data {
        TensorData::Bool(v) => c.bool_contents = v,
        TensorData::Int8(v) => c.int_contents = v.into_iter().map(Into::into).collect(),
        TensorData::Int16(v) => c.int_contents = v.into_iter().map(Into::into).collect(),
        TensorData::Int32(v) => c.int_contents = v,
        TensorData::Int64(v) => c.int64_contents = v,
        TensorData::Uint8(v) => c.uint_contents = v.into_iter().map(Into::into).collect(),
        TensorData::Uint16(v) | TensorData::Fp16(v) | TensorData::Bf16(v) => {
            c.uint_contents = v.into_iter().map(Into::into).collect();
        }
        TensorData::Uint32(v) => c.uint_contents = v,
        TensorData::Uint64(v) => c.uint64_contents = v,
        TensorData::Fp32(v) => c.fp32_contents = v,
        TensorData::Fp64(v) => c.fp64_contents = v,
        TensorData::Bytes(v) => c.bytes_contents = v,
    }
    c
}

fn wire_parameters(parameters: Parameters) -> std::collections::HashMap<String, InferParameter> {
    let wire = parameters.into_iter().map(|(name, parameter)| {
        let choice = match parameter {
            Parameter::Bool(value) => ParameterChoice::BoolParam(value),
            Parameter::Int64(value) => ParameterChoice::Int64Param(value),
            Parameter::Uint64(value) => ParameterChoice::Uint64Param(value),
            Parameter::Double(value) => ParameterChoice::DoubleParam(value),
            Parameter::String(value) => ParameterChoice::StringParam(value),
        };
        (name, InferParameter { parameter_choice: Some(choice) })
    });
    wire.collect()
}
