//! What requests bring and get, agreed between a model's configuration and its graph. The graph
//! says what there is; a configuration may leave outputs out, fix dimensions that the graph
//! leaves free, and give tensors other dims on the wire than in the graph.

use sluice_engine::Engine;
use sluice_protocol::grpc::model_input::Format;
use sluice_protocol::grpc::{DataType, ModelConfig, ModelInput, ModelOutput, ModelTensorReshape};
use sluice_protocol::{Datatype, TensorSpec};

use super::Reshape;
use crate::deployment::{Input, Output};
use crate::error::LoadError;

/// What was agreed.
#[derive(Debug)]
pub(crate) struct Signature {
    /// The graph's inputs in its order, then those that need not be brought.
    pub(crate) inputs: Vec<Input>,
    /// The outputs that are answered, in the graph's order.
    pub(crate) outputs: Vec<Output>,
    pub(crate) batching: Batching,
    /// The graph's inputs with the dimensions that requests' tensors will have.
    pub(crate) graph_inputs: Vec<TensorSpec>,
}

/// Whether the first dimension of every tensor is the batch, which dims leave out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Batching {
    /// It is, and so many rows are the most that a request may have.
    Bounded(usize),
    /// It is, since the dims in the configuration leave it out, but nobody sets a bound.
    Unbounded,
    /// It is not.
    Never,
    /// Nobody says, so it is where requests can share a run.
    Found,
}

/// A tensor as a configuration describes it.
struct Described<'c> {
    kind: &'static str,
    name: &'c str,
    data_type: i32,
    dims: &'c [i64],
    reshape: Option<&'c ModelTensorReshape>,
}

/// A tensor's dims on both sides, without the batch.
struct Dims {
    wire: Vec<i64>,
    graph: Vec<i64>,
}

impl Signature {
    /// Checks the configuration against the graph, and completes it from there.
    pub(crate) fn agree(config: &ModelConfig, engine: &dyn Engine) -> Result<Self, LoadError> {
        check_names(config, engine)?;
        let batching = batching(config, engine)?;
        let mut agreed =
            Self { inputs: Vec::new(), outputs: Vec::new(), batching, graph_inputs: Vec::new() };
        let replaced = engine.optional_inputs().iter();
        let replaced = replaced.filter(|spec| config.input.iter().any(|own| own.name == spec.name));
        for (spec, optional) in
            engine.inputs().iter().map(|spec| (spec, false)).chain(replaced.map(|s| (s, true)))
        {
            let described = config.input.iter().find(|own| own.name == spec.name);
            if let Some(described) = described {
                check_input(described, optional)?;
            }
            let (shape, graph) = agree_shape(described.map(Described::input), spec, batching)?;
            if let Some(described) = described {
                check_format(described, &shape, batching)?;
            }
            let reshape = reshape("input", &spec.name, &shape, &graph)?;
            let (name, datatype) = (spec.name.clone(), spec.datatype);
            if !optional {
                let shape = graph.iter().zip(&spec.shape).map(|(&said, &has)| fixed(said, has));
                let (name, shape) = (name.clone(), shape.collect());
                agreed.graph_inputs.push(TensorSpec { name, datatype, shape });
            }
            agreed.inputs.push(Input { name, datatype, shape, reshape, optional });
        }
        for (index, spec) in engine.outputs().iter().enumerate() {
            let described = config.output.iter().find(|own| own.name == spec.name);
            if described.is_none() && !config.output.is_empty() {
                continue;
            }
            let (shape, graph) = agree_shape(described.map(Described::output), spec, batching)?;
            let reshape = reshape("output", &spec.name, &graph, &shape)?;
            let (name, datatype) = (spec.name.clone(), spec.datatype);
            agreed.outputs.push(Output { name, datatype, shape, reshape, index, labels: None });
        }
        Ok(agreed)
    }
}

impl Batching {
    /// How many rows a request may have, if tensors have a batch dimension. `shared` says whether
    /// requests can share a run.
    pub(crate) fn max_batch_size(self, shared: bool) -> Option<usize> {
        match self {
            Self::Bounded(most) => Some(most),
            Self::Unbounded => Some(usize::MAX),
            Self::Never => None,
            Self::Found => shared.then_some(usize::MAX),
        }
    }
}

impl<'c> Described<'c> {
    fn input(own: &'c ModelInput) -> Self {
        Self {
            kind: "input",
            name: &own.name,
            data_type: own.data_type,
            dims: &own.dims,
            reshape: own.reshape.as_ref(),
        }
    }

    fn output(own: &'c ModelOutput) -> Self {
        Self {
            kind: "output",
            name: &own.name,
            data_type: own.data_type,
            dims: &own.dims,
            reshape: own.reshape.as_ref(),
        }
    }

    fn refuse<T>(&self, reason: impl std::fmt::Display) -> Result<T, LoadError> {
        refuse(self.kind, self.name, reason)
    }

    /// The dims that the graph is to see.
    fn graph_dims(&self) -> &[i64] {
        self.reshape.map_or(self.dims, |reshape| &reshape.shape)
    }
}

fn refuse<T>(kind: &str, name: &str, reason: impl std::fmt::Display) -> Result<T, LoadError> {
    Err(LoadError::Configuration(format!("{kind} {name:?}: {reason}")))
}

/// Every input that is described is the graph's, and all that it needs are, or none is. Outputs
/// may be left out.
fn check_names(config: &ModelConfig, engine: &dyn Engine) -> Result<(), LoadError> {
    let names = |specs: &[TensorSpec]| -> Vec<String> {
        specs.iter().map(|spec| spec.name.clone()).collect()
    };
    let (inputs, optional) = (names(engine.inputs()), names(engine.optional_inputs()));
    let described: Vec<_> = config.input.iter().map(|own| own.name.as_str()).collect();
    let known = [inputs.clone(), optional].concat();
    check_known("input", &described, &known)?;
    if let Some(missing) = inputs.iter().find(|name| !described.contains(&name.as_str()))
        && !described.is_empty()
    {
        let listed = described.join(", ");
        let reason = format!("the graph needs it, the configuration has only {listed}");
        return refuse("input", missing, reason);
    }
    let described: Vec<_> = config.output.iter().map(|own| own.name.as_str()).collect();
    check_known("output", &described, &names(engine.outputs()))
}

fn check_known(kind: &str, described: &[&str], known: &[String]) -> Result<(), LoadError> {
    for (index, name) in described.iter().enumerate() {
        if described[..index].contains(name) {
            return refuse(kind, name, "the configuration has it twice");
        }
        if !known.iter().any(|known| known == name) {
            let known = known.join(", ");
            let reason = format!("the configuration has it, the graph has only {known}");
            return refuse(kind, name, reason);
        }
    }
    Ok(())
}

/// Checks what a configuration says of an input beside its name, type and dims.
fn check_input(own: &ModelInput, has_own_value: bool) -> Result<(), LoadError> {
    if own.optional && !has_own_value {
        let reason = "it is optional, but the graph has no value of its own for it; export the \
                      model with an initializer that is an input too";
        return refuse("input", &own.name, reason);
    }
    if has_own_value && !own.optional {
        let reason = "the graph has a value of its own for it; say optional: true";
        return refuse("input", &own.name, reason);
    }
    Ok(())
}

/// Checks an input's format against its `shape` as requests have it.
fn check_format(own: &ModelInput, shape: &[i64], batching: Batching) -> Result<(), LoadError> {
    let fits = match batching {
        Batching::Bounded(_) | Batching::Unbounded => shape.len() == 4,
        Batching::Never => shape.len() == 3,
        // Whether the first one is the batch is yet to be found.
        Batching::Found => matches!(shape.len(), 3 | 4),
    };
    if own.format() == Format::None || fits {
        return Ok(());
    }
    let format = own.format().as_str_name();
    let reason = format!("{format} has three dims beside the batch, the shape is {shape:?}");
    refuse("input", &own.name, reason)
}

/// Whether tensors have a batch dimension: as `max_batch_size` says, and where that is not set,
/// as the dims say that are given.
fn batching(config: &ModelConfig, engine: &dyn Engine) -> Result<Batching, LoadError> {
    let max = config.max_batch_size;
    let Ok(max) = usize::try_from(max) else {
        let reason = format!("max_batch_size is {max}, which is below 0");
        return Err(LoadError::Configuration(reason));
    };
    if max > 0 {
        return Ok(Batching::Bounded(max));
    }
    let inputs = engine.inputs().iter().chain(engine.optional_inputs());
    let inputs = inputs.filter_map(|spec| {
        let own = config.input.iter().find(|own| own.name == spec.name)?;
        Some((own.reshape.as_ref(), &own.dims, spec))
    });
    let outputs = engine.outputs().iter().filter_map(|spec| {
        let own = config.output.iter().find(|own| own.name == spec.name)?;
        Some((own.reshape.as_ref(), &own.dims, spec))
    });
    // What has no dims is completed, so it says nothing.
    let given: Vec<_> = inputs.chain(outputs).filter(|(_, dims, _)| !dims.is_empty()).collect();
    if given.is_empty() {
        return Ok(Batching::Found);
    }
    let lacks_batch = given.iter().all(|(reshape, dims, spec)| {
        let rank = reshape.map_or(dims.len(), |reshape| reshape.shape.len());
        rank + 1 == spec.shape.len()
    });
    // Whoever describes both sides and sets no size means a model that does not batch.
    let complete = !config.input.is_empty() && !config.output.is_empty();
    Ok(if lacks_batch && !complete { Batching::Unbounded } else { Batching::Never })
}

/// A tensor's shape on the wire and in the graph, -1 where it is free.
fn agree_shape(
    described: Option<Described<'_>>,
    spec: &TensorSpec,
    batching: Batching,
) -> Result<(Vec<i64>, Vec<i64>), LoadError> {
    let kind = described.as_ref().map_or("tensor", |own| own.kind);
    let batched = match batching {
        Batching::Bounded(_) | Batching::Unbounded => true,
        Batching::Never | Batching::Found => false,
    };
    let own = match spec.shape.split_first() {
        _ if !batched => spec.shape.as_slice(),
        Some((-1, rest)) => rest,
        _ => {
            let reason = format!(
                "model does not support batching while non-zero max_batch_size is specified: \
                 the graph has shape {:?}, whose first dimension is not free",
                spec.shape
            );
            return refuse(kind, &spec.name, reason);
        }
    };
    let dims = match described {
        None => Dims { wire: own.to_vec(), graph: own.to_vec() },
        Some(described) => agree_dims(&described, spec, own, batched)?,
    };
    let with_batch =
        |dims: Vec<i64>| -> Vec<i64> { batched.then_some(-1).into_iter().chain(dims).collect() };
    Ok((with_batch(dims.wire), with_batch(dims.graph)))
}

/// A tensor's dims as they are described, checked against the graph's `own`.
fn agree_dims(
    described: &Described<'_>,
    spec: &TensorSpec,
    own: &[i64],
    batched: bool,
) -> Result<Dims, LoadError> {
    let expected = data_type(spec.datatype);
    let said = DataType::try_from(described.data_type).unwrap_or(DataType::TypeInvalid);
    if said != DataType::TypeInvalid && said != expected {
        let (said, has) = (said.as_str_name(), expected.as_str_name());
        return described.refuse(format!("the configuration says {said}, the graph has {has}"));
    }
    if described.dims.is_empty() {
        if described.reshape.is_some() {
            return described.refuse("it has a reshape, but no dims that requests have");
        }
        return Ok(Dims { wire: own.to_vec(), graph: own.to_vec() });
    }
    let said = described.graph_dims();
    if described.dims.iter().chain(said).any(|&dim| dim < -1) {
        return described.refuse("dims are -1 where they are free, and never below that");
    }
    let agrees = |(said, has): (&i64, &i64)| *said < 0 || *has < 0 || said == has;
    if said.len() != own.len() || !said.iter().zip(own).all(agrees) {
        let (has, whole) = (&spec.shape, said);
        let batch = match (batched, said.len() + 1 == spec.shape.len()) {
            (true, _) => ", of which the first is the batch, since max_batch_size is above 0",
            (false, true) => "; where the first is the batch, max_batch_size must be above 0",
            (false, false) => "",
        };
        let reshaped = if described.reshape.is_some() { " after its reshape" } else { "" };
        return described.refuse(format!(
            "the configuration says dims {whole:?}{reshaped}, the graph has shape {has:?}{batch}"
        ));
    }
    let graph: Vec<_> = said.iter().zip(own).map(|(&said, &has)| fixed(said, has)).collect();
    if described.reshape.is_none() {
        return Ok(Dims { wire: graph.clone(), graph });
    }
    // Which of a request's dims a free one of the graph's belongs to is said by their order, so
    // none may become fixed on one side only.
    Ok(Dims { wire: described.dims.to_vec(), graph: said.to_vec() })
}

/// A dimension of which either side may say what it is.
const fn fixed(said: i64, has: i64) -> i64 {
    if said < 0 { has } else { said }
}

/// How to get from one shape to the other, where they differ.
fn reshape(kind: &str, name: &str, from: &[i64], to: &[i64]) -> Result<Option<Reshape>, LoadError> {
    if from == to {
        return Ok(None);
    }
    match Reshape::new(from.to_vec(), to.to_vec()) {
        Ok(reshape) => Ok(Some(reshape)),
        Err(reason) => refuse(kind, name, format!("reshape: {reason}")),
    }
}

/// A configuration's name for a datatype.
pub(super) const fn data_type(datatype: Datatype) -> DataType {
    match datatype {
        Datatype::Bool => DataType::TypeBool,
        Datatype::Uint8 => DataType::TypeUint8,
        Datatype::Uint16 => DataType::TypeUint16,
        Datatype::Uint32 => DataType::TypeUint32,
        Datatype::Uint64 => DataType::TypeUint64,
        Datatype::Int8 => DataType::TypeInt8,
        Datatype::Int16 => DataType::TypeInt16,
        Datatype::Int32 => DataType::TypeInt32,
        Datatype::Int64 => DataType::TypeInt64,
        Datatype::Fp16 => DataType::TypeFp16,
        Datatype::Bf16 => DataType::TypeBf16,
        Datatype::Fp32 => DataType::TypeFp32,
        Datatype::Fp64 => DataType::TypeFp64,
        Datatype::Bytes => DataType::TypeString,
    }
}
