//! From a ModelInfer message to the tensors that it brings.

use bytes::Bytes;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::InferInputTensor;
use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferRequest};
use sluice_protocol::{
    Datatype, InferRequest, NamedTensor, Parameter, RequestedOutput, Tensor, TensorData,
    element_count,
};

use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::{inputs, unserved};

/// The request that `wire` makes of `deployment`.
pub(super) fn request(
    deployment: &Deployment,
    wire: ModelInferRequest,
) -> Result<InferRequest, GatewayError> {
    inputs::check_count(deployment, wire.inputs.len())?;
    unserved::check(wire.parameters.keys())?;
    let tensors = wire.inputs.iter().map(|input| &input.parameters);
    for parameters in tensors.chain(wire.outputs.iter().map(|output| &output.parameters)) {
        unserved::check(parameters.keys())?;
    }
    let mut raw = wire.raw_input_contents.into_iter();
    let is_raw = raw.len() > 0;
    if is_raw && raw.len() != wire.inputs.len() {
        return Err(GatewayError::Invalid(format!(
            "raw_input_contents has {} entries for {} inputs",
            raw.len(),
            wire.inputs.len()
        )));
    }
    let inputs = wire
        .inputs
        .into_iter()
        .map(|input| decode_input(input, raw.next()))
        .collect::<Result<_, _>>()?;
    let outputs = wire.outputs.into_iter();
    Ok(InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: wire.id,
        parameters: wire.parameters.into_iter().filter_map(parameter).collect(),
        inputs,
        outputs: outputs.map(|o| RequestedOutput { name: o.name }).collect(),
    })
}

fn parameter((name, value): (String, InferParameter)) -> Option<(String, Parameter)> {
    let parameter = match value.parameter_choice? {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int64(value),
        ParameterChoice::StringParam(value) => Parameter::String(value),
        ParameterChoice::DoubleParam(value) => Parameter::Double(value),
        ParameterChoice::Uint64Param(value) => Parameter::Uint64(value),
    };
    Some((name, parameter))
}

fn decode_input(input: InferInputTensor, raw: Option<Bytes>) -> Result<NamedTensor, GatewayError> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let datatype = Datatype::parse(&datatype).ok_or_else(|| {
        GatewayError::input(&name, format!("has the unknown datatype {datatype:?}"))
    })?;
    element_count(&shape).map_err(|error| GatewayError::shape(&name, &error))?;
    let data = match (contents, raw) {
        (Some(_), Some(_)) => {
            return Err(GatewayError::input(&name, "has contents beside raw_input_contents"));
        }
        (None, Some(raw)) => TensorData::from_raw(datatype, &raw)
            .map_err(|error| GatewayError::shape(&name, &error))?,
        (Some(contents), None) => {
            typed(datatype, contents).map_err(|reason| GatewayError::input(&name, reason))?
        }
        (None, None) => return Err(GatewayError::input(&name, "has no contents")),
    };
    let tensor = Tensor::new(shape, data).map_err(|error| GatewayError::shape(&name, &error))?;
    Ok(NamedTensor { name, tensor })
}

/// The elements of the one field that belongs to `datatype`.
fn typed(datatype: Datatype, contents: InferTensorContents) -> Result<TensorData, String> {
    fn narrow<T: TryFrom<W>, W: Copy + std::fmt::Display>(
        datatype: Datatype,
        values: &[W],
    ) -> Result<Vec<T>, String> {
        let narrowed = values.iter().map(|&value| {
            T::try_from(value)
                .map_err(|_| format!("element {value} is out of the range of {datatype}"))
        });
        narrowed.collect()
    }
    let c = contents;
    Ok(match datatype {
        Datatype::Bool => TensorData::Bool(c.bool_contents),
        Datatype::Int8 => TensorData::Int8(narrow(datatype, &c.int_contents)?),
        Datatype::Int16 => TensorData::Int16(narrow(datatype, &c.int_contents)?),
        Datatype::Int32 => TensorData::Int32(c.int_contents),
        Datatype::Int64 => TensorData::Int64(c.int64_contents),
        Datatype::Uint8 => TensorData::Uint8(narrow(datatype, &c.uint_contents)?),
        Datatype::Uint16 => TensorData::Uint16(narrow(datatype, &c.uint_contents)?),
        Datatype::Uint32 => TensorData::Uint32(c.uint_contents),
        Datatype::Uint64 => TensorData::Uint64(c.uint64_contents),
        Datatype::Fp32 => TensorData::Fp32(c.fp32_contents),
        Datatype::Fp64 => TensorData::Fp64(c.fp64_contents),
        Datatype::Bytes => TensorData::Bytes(c.bytes_contents),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!("{datatype} goes into raw_input_contents"));
        }
    })
}
