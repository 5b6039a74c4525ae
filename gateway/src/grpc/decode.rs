//! From a ModelInfer message to the tensors that it brings.

use std::collections::HashMap;
use std::mem::take;

use bytes::Bytes;
use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferRequest};
use sluice_protocol::{
    Datatype, InferRequest, NamedTensor, Parameter, Parameters, RegionSlice, RequestedOutput,
    Tensor, TensorData, element_count,
};

use crate::control::shared_memory::Regions;
use crate::deployment::Deployment;
use crate::error::{GatewayError, clip};
use crate::room::Room;
use crate::{binary, inputs, tensor_parameters};

/// The one parameter of Triton's own that requests bring. Every answer on a stream says that it is
/// the last one to its request, so there is nothing to turn on.
const EMPTY_FINAL_RESPONSE: &str = "triton_enable_empty_final_response";

/// The request that `wire` makes of `deployment`.
pub(super) fn request(
    deployment: &Deployment,
    regions: &Regions,
    mut wire: ModelInferRequest,
    room: &Room,
) -> Result<InferRequest, GatewayError> {
    let names = wire.inputs.iter().map(|input| &*input.name);
    inputs::check_count(deployment, wire.inputs.len(), names)?;
    if let Some(parameter) = wire.parameters.remove(EMPTY_FINAL_RESPONSE) {
        let Some(ParameterChoice::BoolParam(_)) = parameter.parameter_choice else {
            return Err(tensor_parameters::wrong(EMPTY_FINAL_RESPONSE, "true or false"));
        };
    }
    tensor_parameters::check(wire.parameters.keys())?;
    let parameters = wire.parameters.into_iter().map(|(name, value)| parameter(name, value));
    let outputs = wire.outputs.into_iter();
    Ok(InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: wire.id,
        parameters: parameters.collect::<Result<Parameters, _>>()?,
        inputs: named_tensors(
            deployment.model.as_str(),
            regions,
            wire.inputs,
            wire.raw_input_contents,
            room,
        )?,
        outputs: outputs.map(requested).collect::<Result<_, _>>()?,
    })
}

fn requested(output: InferRequestedOutputTensor) -> Result<RequestedOutput, GatewayError> {
    let InferRequestedOutputTensor { name, parameters } = output;
    let parameters = tensor_parameters_of(parameters)?;
    let classes = tensor_parameters::classes(&parameters)?;
    let region = tensor_parameters::region(&parameters)?;
    if classes.is_some() && region.is_some() {
        return Err(GatewayError::Invalid(format!(
            "output {:?} is put into shared memory as it is, not as classes",
            clip(&name)
        )));
    }
    Ok(RequestedOutput { name, classes, region })
}

/// The parameters of an input or an output. Most have none.
fn tensor_parameters_of(wire: HashMap<String, InferParameter>) -> Result<Parameters, GatewayError> {
    tensor_parameters::check(wire.keys())?;
    wire.into_iter().map(|(name, value)| parameter(name, value)).collect()
}

/// A parameter as it came, of whatever type.
fn parameter(name: String, value: InferParameter) -> Result<(String, Parameter), GatewayError> {
    let Some(choice) = value.parameter_choice else {
        return Err(tensor_parameters::wrong(&name, "a value"));
    };
    let value = match choice {
        ParameterChoice::BoolParam(value) => Parameter::Bool(value),
        ParameterChoice::Int64Param(value) => Parameter::Int64(value),
        ParameterChoice::StringParam(value) => Parameter::String(value),
        ParameterChoice::DoubleParam(value) => Parameter::Double(value),
        ParameterChoice::Uint64Param(value) => Parameter::Uint64(value),
    };
    Ok((name, value))
}

/// The inputs with their elements. Those that have no contents of their own take the raw ones by
/// turns.
fn named_tensors(
    model: &str,
    regions: &Regions,
    inputs: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    room: &Room,
) -> Result<Vec<NamedTensor>, GatewayError> {
    let has_raw = !raw.is_empty();
    let given = raw.len();
    let mut raw = raw.into_iter();
    let mut tensors = Vec::with_capacity(inputs.len());
    for mut input in inputs {
        let region =
            tensor_parameters::region(&tensor_parameters_of(take(&mut input.parameters))?)?;
        let contents = match (input.contents.take(), has_raw) {
            (Some(_), _) if region.is_some() => {
                let reason = "must have one of contents and shared_memory_region, not both";
                return Err(GatewayError::input(&input.name, reason));
            }
            (None, _) if let Some(region) = region => Contents::Region(region),
            (Some(_), true) => {
                return Err(GatewayError::Invalid(format!(
                    "contents field must not be specified when using raw_input_contents for {:?} for model {:?}",
                    clip(&input.name),
                    model,
                )));
            }
            (Some(contents), false) => Contents::Typed(contents),
            (None, _) => {
                let raw = raw.next().ok_or_else(|| {
                    let reason = "unable to find data for it in the request for model";
                    GatewayError::input(&input.name, format!("{reason} {model}"))
                })?;
                Contents::Raw(raw)
            }
        };
        tensors.push(tensor(input, contents, regions, room)?);
    }
    match raw.len() {
        0 => Ok(tensors),
        // Triton ignores them, KServe does not. A client that sends more than it names is mistaken
        // about what the model saw.
        more => Err(GatewayError::Invalid(format!(
            "raw_input_contents has {given} entries, {more} more than there are inputs for them"
        ))),
    }
}

/// An input's elements as they came.
enum Contents {
    Typed(InferTensorContents),
    Raw(Bytes),
    Region(RegionSlice),
}

fn tensor(
    input: InferInputTensor,
    contents: Contents,
    regions: &Regions,
    room: &Room,
) -> Result<NamedTensor, GatewayError> {
    let InferInputTensor { name, datatype, shape, .. } = input;
    let datatype = Datatype::parse(&datatype).ok_or_else(|| {
        GatewayError::input(&name, format!("has the unknown datatype {:?}", clip(&datatype)))
    })?;
    let expected = element_count(&shape).map_err(|error| GatewayError::shape(&name, &error))?;
    let tensor = match contents {
        Contents::Typed(contents) => {
            let data = typed(datatype, contents);
            let data = data.map_err(|reason| GatewayError::input(&name, reason))?;
            Tensor::new(shape, data).map_err(|error| GatewayError::shape(&name, &error))?
        }
        Contents::Raw(raw) => {
            check_length(datatype, &shape, expected, &raw)
                .map_err(|reason| GatewayError::input(&name, reason))?;
            binary::tensor(&name, datatype, shape, &raw, room)?
        }
        Contents::Region(slice) => {
            binary::tensor_in_region(&name, datatype, shape, &slice, regions, room)?
        }
    };
    Ok(NamedTensor { name, tensor })
}

/// Whether `raw` has the bytes that `expected` elements of a fixed size take: before it is copied,
/// and in the words of who counts bytes.
fn check_length(
    datatype: Datatype,
    shape: &[i64],
    expected: usize,
    raw: &Bytes,
) -> Result<(), String> {
    let Some(size) = datatype.size() else { return Ok(()) };
    let bytes = expected.checked_mul(size);
    if bytes == Some(raw.len()) {
        return Ok(());
    }
    let bytes = bytes.map_or_else(|| "more".to_owned(), |bytes| bytes.to_string());
    Err(format!(
        "byte size mismatch: expected {bytes} bytes for {datatype} of shape {shape:?}, got {}",
        raw.len()
    ))
}

/// The elements of the one field that belongs to `datatype`, which nothing else may fill.
fn typed(datatype: Datatype, contents: InferTensorContents) -> Result<TensorData, String> {
    let mut c = contents;
    let data = match datatype {
        Datatype::Bool => TensorData::Bool(take(&mut c.bool_contents)),
        Datatype::Int8 => TensorData::Int8(narrow(datatype, take(&mut c.int_contents))?),
        Datatype::Int16 => TensorData::Int16(narrow(datatype, take(&mut c.int_contents))?),
        Datatype::Int32 => TensorData::Int32(take(&mut c.int_contents)),
        Datatype::Int64 => TensorData::Int64(take(&mut c.int64_contents)),
        Datatype::Uint8 => TensorData::Uint8(narrow(datatype, take(&mut c.uint_contents))?),
        Datatype::Uint16 => TensorData::Uint16(narrow(datatype, take(&mut c.uint_contents))?),
        Datatype::Uint32 => TensorData::Uint32(take(&mut c.uint_contents)),
        Datatype::Uint64 => TensorData::Uint64(take(&mut c.uint64_contents)),
        Datatype::Fp32 => TensorData::Fp32(take(&mut c.fp32_contents)),
        Datatype::Fp64 => TensorData::Fp64(take(&mut c.fp64_contents)),
        Datatype::Bytes => TensorData::Bytes(take(&mut c.bytes_contents)),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!("{datatype} goes into raw_input_contents"));
        }
    };
    match filled(&c) {
        None => Ok(data),
        Some(other) => Err(format!(
            "has {other}, where the elements of {datatype} go into {}",
            field(datatype)
        )),
    }
}

fn narrow<T: TryFrom<W>, W: Copy + std::fmt::Display>(
    datatype: Datatype,
    values: Vec<W>,
) -> Result<Vec<T>, String> {
    let mut narrowed = Vec::with_capacity(values.len());
    for value in values {
        let value = T::try_from(value)
            .map_err(|_| format!("element {value} is out of the range of {datatype}"))?;
        narrowed.push(value);
    }
    Ok(narrowed)
}

/// A field of `contents` that is not empty.
fn filled(contents: &InferTensorContents) -> Option<&'static str> {
    let c = contents;
    let fields = [
        ("bool_contents", c.bool_contents.is_empty()),
        ("int_contents", c.int_contents.is_empty()),
        ("int64_contents", c.int64_contents.is_empty()),
        ("uint_contents", c.uint_contents.is_empty()),
        ("uint64_contents", c.uint64_contents.is_empty()),
        ("fp32_contents", c.fp32_contents.is_empty()),
        ("fp64_contents", c.fp64_contents.is_empty()),
        ("bytes_contents", c.bytes_contents.is_empty()),
    ];
    fields.into_iter().find_map(|(name, is_empty)| (!is_empty).then_some(name))
}

/// The field of the contents that has the elements of `datatype`.
const fn field(datatype: Datatype) -> &'static str {
    match datatype {
        Datatype::Bool => "bool_contents",
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 => "int_contents",
        Datatype::Int64 => "int64_contents",
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 => "uint_contents",
        Datatype::Uint64 => "uint64_contents",
        Datatype::Fp32 => "fp32_contents",
        Datatype::Fp64 => "fp64_contents",
        Datatype::Bytes => "bytes_contents",
        Datatype::Fp16 | Datatype::Bf16 => "raw_input_contents",
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use prost::Message;
    use sluice_protocol::grpc::model_infer_request::InferInputTensor;
    use sluice_protocol::grpc::{InferParameter, InferTensorContents, ModelInferRequest};

    use super::{Regions, named_tensors, parameter};
    use crate::room::Room;

    /// Whatever comes, it is decoded or refused, and what is decoded fills its shape.
    fn take_in(wire: ModelInferRequest) {
        let parameters = wire.parameters.into_iter();
        parameters.for_each(|(name, value)| drop(parameter(name, value)));
        let (regions, room) = (Regions::default(), Room::new(1 << 20));
        let (inputs, raw) = (wire.inputs, wire.raw_input_contents);
        for input in named_tensors("m", &regions, inputs, raw, &room).into_iter().flatten() {
            let elements: i64 = input.tensor.shape().iter().product();
            assert_eq!(usize::try_from(elements).unwrap(), input.tensor.data().len());
        }
    }

    fn contents() -> impl Strategy<Value = InferTensorContents> {
        let bytes = vec(vec(any::<u8>(), 0..3).prop_map(Bytes::from), 0..3);
        let whole = (vec(any::<bool>(), 0..3), vec(any::<i32>(), 0..3), vec(any::<u32>(), 0..3));
        (whole, vec(any::<f32>(), 0..3), bytes).prop_map(|(whole, floats, bytes)| {
            let (bool_contents, int_contents, uint_contents) = whole;
            InferTensorContents {
                bool_contents,
                int_contents,
                uint_contents,
                fp32_contents: floats,
                bytes_contents: bytes,
                ..Default::default()
            }
        })
    }

    fn input() -> impl Strategy<Value = InferInputTensor> {
        let datatype = prop::sample::select(&[
            "BOOL", "INT8", "INT32", "UINT16", "UINT32", "INT64", "FP16", "FP32", "FP64", "BYTES",
            "", "FLOAT",
        ]);
        let dimension = prop_oneof![-1i64..4, Just(i64::MAX), Just(1 << 32)];
        let contents = prop::option::of(contents());
        (datatype, vec(dimension, 0..4), contents).prop_map(|(datatype, shape, contents)| {
            let (name, datatype) = ("x".to_owned(), datatype.to_owned());
            InferInputTensor { name, datatype, shape, contents, ..Default::default() }
        })
    }

    proptest! {
        #[test]
        fn any_message_is_taken_or_refused(
            inputs in vec(input(), 0..3),
            raw in vec(vec(any::<u8>(), 0..20), 0..3),
        ) {
            let raw_input_contents = raw.into_iter().map(Bytes::from).collect();
            let wire = ModelInferRequest { inputs, raw_input_contents, ..Default::default() };
            take_in(wire.clone());
            take_in(ModelInferRequest { raw_input_contents: Vec::new(), ..wire });
        }

        #[test]
        fn any_bytes_are_taken_or_refused(
            wire in vec(input(), 0..2),
            noise in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            parameter in any::<i64>(),
        ) {
            use sluice_protocol::grpc::infer_parameter::ParameterChoice::Int64Param;
            let choice = InferParameter { parameter_choice: Some(Int64Param(parameter)) };
            let parameters = [("priority".to_owned(), choice)].into_iter().collect();
            let wire = ModelInferRequest { inputs: wire, parameters, ..Default::default() };
            let mut bytes = wire.encode_to_vec();
            for (place, byte) in noise {
                let index = place.index(bytes.len());
                bytes[index] = byte;
            }
            if let Ok(wire) = ModelInferRequest::decode(&bytes[..]) {
                take_in(wire);
            }
        }
    }
}
