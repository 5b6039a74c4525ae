//! Runs that a configuration asks for before a model answers (`model_warmup`).

use std::collections::BTreeMap;

use bytes::Bytes;
use sluice_engine::Engine;
use sluice_protocol::grpc::model_warmup::input::InputDataType;
use sluice_protocol::grpc::{DataType, ModelConfig, ModelWarmup, model_warmup};
use sluice_protocol::{NamedTensor, Tensor, TensorData, TensorSpec, element_count};

use super::files::{named_file, warmup_path};
use super::signature::data_type;
use crate::deployment::Input;
use crate::error::LoadError;
use crate::load::{random_tensor, zero_tensor};

/// What the inputs of a warm-up run may take at most, in elements.
const MOST_ELEMENTS: usize = 32 << 20;

/// How many runs are made at most, of all samples together. A load holds up those behind it.
const MOST_RUNS: u64 = 10_000;

/// One run's inputs: the graph's own, and those that it has values of its own for.
type Run = (Vec<Tensor>, Vec<NamedTensor>);

/// Runs every sample on every engine, as often as it says. Refuses the model when one fails, and
/// when the gateway is `stopped` before the end. `files` are those of the model's folder.
pub(crate) fn warm_up(
    config: &ModelConfig,
    inputs: &[Input],
    max_batch_size: Option<usize>,
    files: &BTreeMap<String, Bytes>,
    engines: &mut [Box<dyn Engine>],
    stopped: impl Fn() -> bool,
) -> Result<(), LoadError> {
    // As Triton has it, a batch of nothing is no run.
    let samples = config.model_warmup.iter().filter(|sample| sample.batch_size > 0);
    let runs: u64 = samples.clone().map(|sample| u64::from(sample.count.max(1))).sum();
    if runs > MOST_RUNS {
        let reason = format!("model_warmup: count is {runs} in all, at most {MOST_RUNS} are made");
        return Err(LoadError::Configuration(reason));
    }
    for sample in samples {
        let refuse = |reason: String| {
            LoadError::Configuration(format!("model_warmup {:?}: {reason}", sample.name))
        };
        let (own, optional) = run(sample, inputs, max_batch_size, files).map_err(refuse)?;
        for engine in &mut *engines {
            for _ in 0..sample.count.max(1) {
                if stopped() {
                    return Err(refuse("the gateway is shutting down".to_owned()));
                }
                engine
                    .run_with(&own, &optional)
                    .map_err(|error| refuse(format!("the run failed: {error}")))?;
            }
        }
    }
    Ok(())
}

fn run(
    sample: &ModelWarmup,
    inputs: &[Input],
    max_batch_size: Option<usize>,
    files: &BTreeMap<String, Bytes>,
) -> Result<Run, String> {
    let size = usize::try_from(sample.batch_size).unwrap_or(usize::MAX);
    if size > max_batch_size.unwrap_or(1) {
        let most = max_batch_size.unwrap_or(1);
        return Err(format!("batch_size is {size}, but a request may have {most}"));
    }
    if let Some(name) = sample.inputs.keys().find(|name| inputs.iter().all(|i| i.name != **name)) {
        return Err(format!("input {name:?} is no input of the model"));
    }
    let batch = max_batch_size.map(|_| size);
    let (mut own, mut optional) = (Vec::new(), Vec::new());
    for input in inputs {
        let Some(given) = sample.inputs.get(&input.name) else {
            if input.optional {
                continue;
            }
            return Err(format!("input {:?} is missing", input.name));
        };
        let tensor = tensor(given, input, batch, files)
            .and_then(|tensor| to_graph(input, tensor))
            .map_err(|reason| format!("input {:?}: {reason}", input.name))?;
        if input.optional {
            optional.push(NamedTensor { name: input.name.clone(), tensor });
        } else {
            own.push(tensor);
        }
    }
    Ok((own, optional))
}

/// The tensor as requests would bring it.
fn tensor(
    given: &model_warmup::Input,
    input: &Input,
    batch: Option<usize>,
    files: &BTreeMap<String, Bytes>,
) -> Result<Tensor, String> {
    let expected = data_type(input.datatype);
    if given.data_type() != DataType::TypeInvalid && given.data_type() != expected {
        let (said, expected) = (given.data_type().as_str_name(), expected.as_str_name());
        return Err(format!("data_type is {said}, the model's is {expected}"));
    }
    let rows = batch.map(|rows| i64::try_from(rows).unwrap_or(i64::MAX));
    let shape: Vec<_> = rows.into_iter().chain(given.dims.iter().copied()).collect();
    let count = element_count(&shape).map_err(|error| error.to_string())?;
    if count > MOST_ELEMENTS {
        return Err(format!("shape {shape:?} is more than {MOST_ELEMENTS} elements"));
    }
    let (name, datatype) = (input.name.clone(), input.datatype);
    let spec = TensorSpec { name, datatype, shape: shape.clone() };
    match &given.input_data_type {
        Some(InputDataType::ZeroData(true)) => Ok(zero_tensor(&spec)),
        Some(InputDataType::RandomData(true)) => Ok(random_tensor(&spec)),
        Some(InputDataType::InputDataFile(file)) => {
            let raw = named_file(files, &warmup_path(file))?;
            let row = TensorData::from_raw(datatype, raw)
                .and_then(|row| Tensor::new(given.dims.clone(), row))
                .map_err(|error| format!("file {file:?}: {error}"))?;
            let mut data = row.data().clone();
            for _ in 1..batch.unwrap_or(1) {
                data.extend_from(row.data()).map_err(|error| error.to_string())?;
            }
            Tensor::new(shape, data).map_err(|error| error.to_string())
        }
        _ => Err("it has neither zero_data, random_data nor input_data_file".to_owned()),
    }
}

fn to_graph(input: &Input, tensor: Tensor) -> Result<Tensor, String> {
    if !super::fits(tensor.shape(), &input.shape) {
        return Err(format!("shape is {:?}, the model's is {:?}", tensor.shape(), input.shape));
    }
    match &input.reshape {
        None => Ok(tensor),
        Some(reshape) => reshape.apply(tensor),
    }
}
