//! From an answer to the message that carries it.

use std::collections::HashMap;

use sluice_protocol::grpc::infer_parameter::ParameterChoice;
use sluice_protocol::grpc::model_infer_response::InferOutputTensor;
use sluice_protocol::grpc::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use sluice_protocol::{
    Datatype, InferResponse, NamedTensor, Parameter, Parameters, RegionSlice, TensorData,
};

use super::codec::Reply;
use crate::dialect::GrpcOutput;
use crate::tensor_parameters::{REGION, REGION_OFFSET, REGION_SIZE};

/// Where an answer has its elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Each in the field of its datatype.
    Typed,
    /// In the protocol's binary form.
    Raw,
    /// In both.
    Both,
}

impl Form {
    /// The form of the answer to `wire`.
    pub(super) fn of(choice: GrpcOutput, wire: &ModelInferRequest) -> Self {
        let is_typed = wire.raw_input_contents.is_empty()
            && !wire.inputs.is_empty()
            && wire.inputs.iter().all(|input| input.contents.is_some());
        match choice {
            GrpcOutput::Both => Self::Both,
            GrpcOutput::Mirror if is_typed => Self::Typed,
            GrpcOutput::Mirror | GrpcOutput::Raw => Self::Raw,
        }
    }

    /// What `output` gets: whether it is raw, and whether it is typed.
    const fn parts(self) -> (bool, bool) {
        match self {
            Self::Typed => (false, true),
            Self::Raw => (true, false),
            Self::Both => (true, true),
        }
    }
}

/// The message for `response`. An output without a typed form makes all of a typed one raw: the
/// protocol does not mix them.
pub(super) fn reply(response: InferResponse, form: Form) -> Reply {
    let has_typed_form =
        |output: &NamedTensor| !matches!(output.tensor.datatype(), Datatype::Fp16 | Datatype::Bf16);
    let form = match form {
        Form::Typed if !response.outputs.iter().all(has_typed_form) => Form::Raw,
        form => form,
    };
    let (is_raw, is_typed) = form.parts();
    let mut raw = Vec::with_capacity(if is_raw { response.outputs.len() } else { 0 });
    let regions = response.regions;
    let outputs = response.outputs.into_iter().map(|output| {
        let region = regions.iter().find(|(name, _)| *name == output.name);
        let is_typed = is_typed && has_typed_form(&output) && region.is_none();
        let NamedTensor { name, tensor } = output;
        let datatype = tensor.datatype().as_str().to_owned();
        let (shape, data) = tensor.into_parts();
        let (contents, kept) = match (is_typed, is_raw) {
            // It is elsewhere; its place among the raw ones is kept empty.
            _ if region.is_some() => (None, is_raw.then(|| TensorData::Uint8(Vec::new()))),
            (true, false) => (Some(contents(data)), None),
            (true, true) => (Some(contents(data.clone())), Some(data)),
            (false, _) => (None, Some(data)),
        };
        raw.extend(kept);
        let parameters = region.map(|(_, region)| region_parameters(region)).unwrap_or_default();
        InferOutputTensor { name, datatype, shape, parameters, contents }
    });
    let message = ModelInferResponse {
        outputs: outputs.collect(),
        model_name: response.model.to_string(),
        model_version: response.version.to_string(),
        id: response.id,
        parameters: wire_parameters(response.parameters),
        raw_output_contents: Vec::new(),
    };
    Reply { message, raw }
}

/// Where an output was put.
fn region_parameters(region: &RegionSlice) -> HashMap<String, InferParameter> {
    let bytes = |bytes: u64| Parameter::Int64(i64::try_from(bytes).unwrap_or(i64::MAX));
    wire_parameters(Parameters::from([
        (REGION.to_owned(), Parameter::String(region.region.clone())),
        (REGION_SIZE.to_owned(), bytes(region.byte_size)),
        (REGION_OFFSET.to_owned(), bytes(region.offset)),
    ]))
}

/// The elements in the field that belongs to their datatype.
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

fn wire_parameters(parameters: Parameters) -> HashMap<String, InferParameter> {
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use sluice_protocol::grpc::model_infer_request::InferInputTensor;
    use sluice_protocol::grpc::{InferTensorContents, ModelInferRequest};
    use sluice_protocol::{
        InferResponse, ModelVersion, NamedTensor, Parameters, Tensor, TensorData,
    };

    use super::{Form, reply};
    use crate::dialect::GrpcOutput::{Both, Mirror, Raw};

    #[test]
    fn an_answer_has_the_form_of_its_question_unless_told_otherwise() {
        let contents = Some(InferTensorContents::default());
        let typed = InferInputTensor { contents, ..Default::default() };
        let bare = InferInputTensor::default();
        for (inputs, raw, mirrored) in [
            (vec![typed.clone(), typed.clone()], 0, Form::Typed),
            (vec![bare.clone()], 1, Form::Raw),
            // One that comes out of shared memory, for which there is nothing to mirror.
            (vec![typed, bare.clone()], 0, Form::Raw),
            (vec![bare], 0, Form::Raw),
            (vec![], 0, Form::Raw),
        ] {
            let raw_input_contents = vec![Bytes::new(); raw];
            let wire = ModelInferRequest { inputs, raw_input_contents, ..Default::default() };
            let forms = [Mirror, Raw, Both].map(|choice| Form::of(choice, &wire));
            assert_eq!(forms, [mirrored, Form::Raw, Form::Both], "{wire:?}");
        }
    }

    #[test]
    fn an_output_without_a_typed_form_makes_all_raw() {
        let floats = TensorData::Fp32(vec![1.0, 2.0]);
        let halves = TensorData::Fp16(vec![15360, 16384]);
        for (data, form, raw, typed) in [
            (vec![floats.clone()], Form::Typed, 0, vec![true]),
            (vec![floats.clone(), halves.clone()], Form::Typed, 2, vec![false, false]),
            (vec![floats.clone(), halves.clone()], Form::Both, 2, vec![true, false]),
            (vec![floats, halves], Form::Raw, 2, vec![false, false]),
        ] {
            let outputs = data.into_iter().map(|data| {
                let tensor = Tensor::new(vec![2], data).unwrap();
                NamedTensor { name: "y".to_owned(), tensor }
            });
            let response = InferResponse {
                model: "m".parse().unwrap(),
                version: ModelVersion(1),
                id: String::new(),
                parameters: Parameters::new(),
                outputs: outputs.collect(),
                regions: Vec::new(),
            };
            let reply = reply(response, form);
            let has_contents = reply.message.outputs.iter().map(|output| output.contents.is_some());
            assert_eq!((reply.raw.len(), has_contents.collect()), (raw, typed), "{form:?}");
        }
    }
}
