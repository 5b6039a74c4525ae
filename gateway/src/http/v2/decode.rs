//! From a request's body to what the pipeline takes.

use bytes::{Buf, Bytes};
use sluice_protocol::{
    Datatype, InferRequest, NamedTensor, Parameter, Parameters, RequestedOutput, Tensor,
    TensorData, element_count,
};

use super::envelope::{self, WireInput, WireOutput};
use super::parameters::WireParameters;
use super::{ReplyForm, Split};
use crate::control::shared_memory::Regions;
use crate::deployment::{Deployment, Input, Output};
use crate::dialect::NanForm;
use crate::error::{GatewayError, clip};
use crate::http::elements;
use crate::room::Room;
use crate::{binary, inputs};

/// Reads a request, and how it wants its outputs.
pub(in crate::http) fn decode(
    deployment: &Deployment,
    regions: &Regions,
    body: Split,
    nan: NanForm,
    room: &Room,
) -> Result<(InferRequest, ReplyForm), GatewayError> {
    let (json, binary) = match body {
        Split::Raw(body) => return decode_raw(deployment, &body),
        Split::Json { json, binary } => (json, binary),
    };
    envelope::read(&json, nan, room, |wire| {
        let names = wire.inputs.iter().map(|input| &*input.name);
        inputs::check_count(deployment, wire.inputs.len(), names)?;
        let inputs = decode_inputs(wire.inputs, binary, regions, room)?;
        let parameters = WireParameters::of_request(wire.parameters)?;
        let wanted = wire.outputs;
        let form = reply_form(&parameters, &wanted)?;
        let request = InferRequest {
            model: deployment.model.clone(),
            version: Some(deployment.version),
            id: wire.id.unwrap_or_default(),
            parameters,
            inputs,
            outputs: wanted.into_iter().map(requested).collect::<Result<_, _>>()?,
        };
        check_forms(deployment, &request.outputs, &form)?;
        Ok((request, form))
    })
}

fn requested(output: WireOutput<'_>) -> Result<RequestedOutput, GatewayError> {
    let parameters = output.parameters.unwrap_or_default();
    let (classes, region) = (parameters.classes()?, parameters.region()?);
    if region.is_some() && (classes.is_some() || parameters.binary_data()?) {
        return Err(GatewayError::Invalid(format!(
            "output {:?} is put into shared memory as it is: neither as classes nor as binary data",
            clip(&output.name)
        )));
    }
    Ok(RequestedOutput { name: output.name.into_owned(), classes, region })
}

fn reply_form(
    parameters: &Parameters,
    wanted: &[WireOutput<'_>],
) -> Result<ReplyForm, GatewayError> {
    let mut binary = Vec::new();
    for output in wanted {
        let Some(parameters) = &output.parameters else { continue };
        if parameters.binary_data()? {
            binary.push(output.name.clone().into_owned());
        }
    }
    // It only decides where no outputs are listed, as Triton does it.
    let all_binary =
        wanted.is_empty() && parameters.get("binary_data_output") == Some(&Parameter::Bool(true));
    Ok(ReplyForm { all_binary, binary })
}

/// Refuses, before anything runs, outputs in JSON that it has no form for.
fn check_forms(
    deployment: &Deployment,
    wanted: &[RequestedOutput],
    form: &ReplyForm,
) -> Result<(), GatewayError> {
    let is_wanted =
        |spec: &&Output| wanted.is_empty() || wanted.iter().any(|output| output.name == spec.name);
    // What is put into shared memory needs no form, and what cannot be classified has no classes.
    let is_elsewhere = |name: &str| {
        let mut wanted = wanted.iter().filter(|output| output.name == name);
        wanted.any(|output| output.region.is_some() || output.classes.is_some())
    };
    let stuck = deployment
        .outputs
        .iter()
        .filter(|spec| !elements::has_json_form(spec.datatype))
        .filter(is_wanted)
        .filter(|spec| !is_elsewhere(&spec.name))
        .find(|spec| !form.is_binary(&spec.name));
    stuck.map_or(Ok(()), |spec| {
        let reason = elements::no_json_form(spec.datatype);
        Err(GatewayError::Invalid(format!("output {:?}: {reason}", spec.name)))
    })
}

/// Reads every input. Those with binary data take theirs from `binary`, in their order, and leave
/// nothing over.
fn decode_inputs(
    inputs: Vec<WireInput<'_>>,
    mut binary: Bytes,
    regions: &Regions,
    room: &Room,
) -> Result<Vec<NamedTensor>, GatewayError> {
    let decoded = inputs
        .into_iter()
        .map(|input| decode_input(input, &mut binary, regions, room))
        .collect::<Result<_, _>>()?;
    if binary.has_remaining() {
        return Err(GatewayError::Invalid(format!(
            "{} bytes of binary data are left over behind the last input",
            binary.remaining()
        )));
    }
    Ok(decoded)
}

/// One input, whose binary data, if it has some, is at the beginning of `rest`.
fn decode_input(
    input: WireInput<'_>,
    rest: &mut Bytes,
    regions: &Regions,
    room: &Room,
) -> Result<NamedTensor, GatewayError> {
    let WireInput { name, datatype, shape, parameters, data } = input;
    let refuse = |reason: String| GatewayError::input(&name, reason);
    let parameters = parameters.unwrap_or_default();
    let (size, region) = (parameters.binary_data_size()?, parameters.region()?);
    let datatype = Datatype::parse(&datatype)
        .ok_or_else(|| refuse(format!("has the unknown datatype {:?}", clip(&datatype))))?;
    element_count(&shape).map_err(|error| GatewayError::shape(&name, &error))?;
    let sources =
        [data.is_some(), size.is_some(), region.is_some()].iter().filter(|is| **is).count();
    let tensor = match (data, size, region) {
        _ if sources > 1 => {
            let reason = "must have one of data, binary_data_size and shared_memory_region";
            return Err(refuse(format!("{reason}, not {sources}")));
        }
        (Some(text), ..) => {
            let bounds = elements::take_room(room, datatype, text.get())?;
            let data = elements::parse(text.get(), datatype, bounds).map_err(refuse)?.data;
            Tensor::new(shape, data).map_err(|error| GatewayError::shape(&name, &error))?
        }
        (_, _, Some(region)) => {
            binary::tensor_in_region(&name, datatype, shape, &region, regions, room)?
        }
        (_, None, None) => {
            let reason = "has neither data nor binary_data_size nor shared_memory_region";
            return Err(refuse(reason.to_owned()));
        }
        (_, Some(size), _) => {
            let left = rest.len();
            let size =
                usize::try_from(size).ok().filter(|&size| size <= left).ok_or_else(|| {
                    refuse(format!("needs {size} bytes of binary data, {left} are left"))
                })?;
            binary::tensor(&name, datatype, shape, &rest.split_to(size), room)?
        }
    };
    Ok(NamedTensor { name, tensor })
}

/// Reads a body that is nothing but the data of the model's only input, for one row of it. All
/// outputs are wanted in binary form.
fn decode_raw(
    deployment: &Deployment,
    body: &Bytes,
) -> Result<(InferRequest, ReplyForm), GatewayError> {
    let mut required = deployment.inputs.iter().filter(|input| !input.optional);
    let (Some(spec), None, None) = (required.next(), required.next(), &deployment.features) else {
        return Err(GatewayError::Invalid(format!(
            "a raw binary request brings one input, and model {} takes several; send JSON, and its length as Inference-Header-Content-Length",
            deployment.model
        )));
    };
    let tensor = raw_tensor(spec, deployment.max_batch_size.is_some(), body)?;
    let request = InferRequest {
        model: deployment.model.clone(),
        version: Some(deployment.version),
        id: String::new(),
        parameters: Parameters::new(),
        inputs: vec![NamedTensor { name: spec.name.clone(), tensor }],
        outputs: Vec::new(),
    };
    Ok((request, ReplyForm { all_binary: true, binary: Vec::new() }))
}

/// `raw` as one row of an input, with its one variable dimension, if there is one, as long as the
/// data makes it. A single text comes without its length.
fn raw_tensor(spec: &Input, batches: bool, raw: &Bytes) -> Result<Tensor, GatewayError> {
    let refuse = |reason: String| GatewayError::input(&spec.name, reason);
    let mut shape = spec.shape.clone();
    if let (true, Some(rows)) = (batches, shape.first_mut()) {
        *rows = 1;
    }
    let variable: Vec<usize> = (0..shape.len()).filter(|&index| shape[index] < 0).collect();
    if variable.len() > 1 {
        let reason = format!("has several variable dimensions in {:?}", spec.shape);
        return Err(refuse(format!("{reason}, which a raw binary request cannot tell apart")));
    }
    variable.iter().for_each(|&index| shape[index] = 1);
    let count = element_count(&shape).map_err(|error| GatewayError::shape(&spec.name, &error))?;
    let data = match spec.datatype {
        Datatype::Bytes if count == 1 => TensorData::Bytes(vec![raw.clone()]),
        Datatype::Bytes => {
            let reason = format!("holds {count} texts, and a raw binary request brings one");
            return Err(refuse(reason));
        }
        numbers => TensorData::from_raw(numbers, raw)
            .map_err(|error| GatewayError::shape(&spec.name, &error))?,
    };
    if let (&[index], false) = (&variable[..], spec.datatype == Datatype::Bytes) {
        // Too few or too many for whole rows are found by the count.
        shape[index] = i64::try_from(data.len().checked_div(count).unwrap_or(0)).unwrap_or(0);
    }
    Tensor::new(shape, data).map_err(|error| GatewayError::shape(&spec.name, &error))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use sluice_protocol::{Datatype, TensorData};

    use super::super::envelope;
    use super::{Regions, WireParameters, decode_inputs, raw_tensor, reply_form};
    use crate::deployment::Input;
    use crate::dialect::NanForm;
    use crate::room::Room;

    fn input(datatype: Datatype, shape: &[i64]) -> Input {
        let (name, shape) = ("x".to_owned(), shape.to_vec());
        Input { name, datatype, shape, reshape: None, optional: false }
    }

    fn raw(
        shape: &[i64],
        datatype: Datatype,
        batches: bool,
        raw: &str,
    ) -> Result<Vec<i64>, String> {
        let spec = input(datatype, shape);
        let tensor = raw_tensor(&spec, batches, &Bytes::copy_from_slice(raw.as_bytes()));
        tensor.map(|tensor| tensor.shape().to_vec()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_size_of_raw_data_tells_the_variable_dimension() {
        for (shape, batches, data, expected) in [
            (&[-1, 2][..], true, "12345678", &[1, 2][..]),
            (&[-1, 2], false, "1234567812345678", &[2, 2]),
            (&[-1, -1], true, "123412341234", &[1, 3]),
            (&[2], false, "12345678", &[2]),
            (&[], false, "1234", &[]),
            (&[-1, -1], true, "", &[1, 0]),
        ] {
            assert_eq!(raw(shape, Datatype::Fp32, batches, data).unwrap(), expected, "{shape:?}");
        }
        for (shape, batches, data, says) in [
            (&[-1, 2][..], true, "1234", "needs 2 elements, got 1"),
            (&[-1, 2], false, "123412341234", "shape does not match true shape"),
            (&[-1, -1], false, "1234", "several variable dimensions"),
            (&[-1, 2], true, "12345", "no whole number of FP32"),
            (&[-1, 0, -1], true, "1234", "needs 0 elements"),
        ] {
            let error = raw(shape, Datatype::Fp32, batches, data).unwrap_err();
            assert!(error.contains(says), "{shape:?}: {error}");
        }
        assert_eq!(raw(&[-1, 1], Datatype::Bytes, true, "a text").unwrap(), [1, 1]);
        assert_eq!(raw(&[-1], Datatype::Bytes, false, "a text").unwrap(), [1]);
        assert!(raw(&[-1, 2], Datatype::Bytes, true, "a text").unwrap_err().contains("brings one"));
    }

    /// All of decoding that does not need a model.
    fn read(json: &[u8], binary: Bytes, nan: NanForm) -> bool {
        let room = Room::new(1 << 20);
        let read = envelope::read(json, nan, &room, |wire| {
            let inputs = decode_inputs(wire.inputs, binary, &Regions::default(), &room)?;
            let parameters = WireParameters::of_request(wire.parameters)?;
            reply_form(&parameters, &wire.outputs)?;
            Ok(inputs)
        });
        read.is_ok()
    }

    /// Texts that come near to requests, and now and then are one.
    fn near_requests() -> impl Strategy<Value = String> {
        let datatype =
            prop::sample::select(vec!["FP32", "INT8", "BOOL", "BYTES", "UINT64", "FP16"]);
        let piece = prop::sample::select(vec![
            "1",
            "-1",
            "0",
            "4294967296",
            "1e3",
            "true",
            "\"a\"",
            "null",
            "NaN",
            "[",
            "]",
            "{",
            "}",
            ",",
            "[1]",
            "[[1,2],[3]]",
            "{\"binary_data_size\":4}",
            "\"\\ud800\"",
            "Infinity",
        ]);
        let data = prop::collection::vec(piece.clone(), 0..6).prop_map(|pieces| pieces.concat());
        let shape = prop::collection::vec(
            prop::sample::select(vec!["1", "2", "0", "-1", "4294967296"]),
            0..4,
        );
        (datatype, data, shape, piece).prop_map(|(datatype, data, shape, parameters)| {
            let shape = shape.join(",");
            format!(
                r#"{{"inputs":[{{"name":"x","datatype":"{datatype}","shape":[{shape}],"data":{data},"parameters":{parameters}}}]}}"#
            )
        })
    }

    #[test]
    fn a_request_is_read() {
        let json =
            br#"{"inputs":[{"name":"x","datatype":"FP32","shape":[2],"data":[NaN,-Infinity]}]}"#;
        assert!(read(json, Bytes::new(), NanForm::Words));
        assert!(!read(json, Bytes::new(), NanForm::Null));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(json in any::<Vec<u8>>(), binary in any::<Vec<u8>>()) {
            read(&json, binary.into(), NanForm::Words);
        }

        #[test]
        fn near_requests_are_read_or_refused(
            json in near_requests(),
            binary in prop::collection::vec(any::<u8>(), 0..9),
            cut in 0..300usize,
        ) {
            for nan in [NanForm::Null, NanForm::Words] {
                read(json.as_bytes(), binary.clone().into(), nan);
                read(&json.as_bytes()[..cut.min(json.len())], binary.clone().into(), nan);
            }
        }

        #[test]
        fn any_raw_data_is_read_or_refused(
            shape in prop::collection::vec(-1..5i64, 0..5),
            data in prop::collection::vec(any::<u8>(), 0..40),
            batches in any::<bool>(),
        ) {
            for datatype in [Datatype::Fp64, Datatype::Bool, Datatype::Bytes, Datatype::Bf16] {
                let spec = input(datatype, &shape);
                if let Ok(tensor) = raw_tensor(&spec, batches, &data.clone().into()) {
                    let mut back = Vec::new();
                    tensor.data().write_raw(&mut back);
                    match tensor.data() {
                        TensorData::Bytes(_) => prop_assert_eq!(&back[4..], &data),
                        TensorData::Bool(_) => prop_assert_eq!(back.len(), data.len()),
                        _ => prop_assert_eq!(&back, &data),
                    }
                }
            }
        }
    }
}
