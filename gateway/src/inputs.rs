//! From what a request brings to the graph's inputs, in the graph's order and checked.

use std::time::SystemTime;

use bytes::Bytes;
use sluice_features::{Column, EmbeddedStore, FeatureRows, Fields, Values};
use sluice_protocol::{NamedTensor, Tensor, TensorData};

use crate::deployment::{Deployment, FeatureInput, Input};
use crate::error::{GatewayError, clip};
use crate::model_config::fits;

/// The graph's inputs for one request.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// One tensor an input, in the graph's order and shape.
    pub(crate) inputs: Vec<Tensor>,
    /// What goes in the place of values that the graph has itself.
    pub(crate) optional: Vec<NamedTensor>,
    /// How many rows they hold.
    pub(crate) rows: usize,
    /// Which features were degraded, and how old they are, when they were looked up.
    pub(crate) freshness: Option<Freshness>,
}

/// What an answer says about the features behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Freshness {
    /// The day of the oldest features used.
    pub(crate) as_of: Option<String>,
    /// Views past their freshness bound.
    pub(crate) degraded_views: Vec<String>,
}

/// Takes the graph's own inputs if the request brings them, else looks the features up.
pub(crate) fn prepare(
    deployment: &Deployment,
    store: Option<&EmbeddedStore>,
    given: Vec<NamedTensor>,
) -> Result<Prepared, GatewayError> {
    check_count(deployment, given.len(), given.iter().map(|tensor| &*tensor.name))?;
    if let Some(twice) = first_duplicate(&given) {
        return Err(GatewayError::input(twice, "is given twice"));
    }
    check_batch_size(deployment, &given)?;
    match &deployment.features {
        Some(features) if !brings(&given, &deployment.inputs[features.index].name) => {
            with_features(deployment, features, store, given)
        }
        _ => own_inputs(deployment, given),
    }
}

/// Refuses a request with more inputs than the model can take, before any of them is looked at:
/// whoever compares them may then count on few.
pub(crate) fn check_count<'n>(
    deployment: &Deployment,
    given: usize,
    mut names: impl Iterator<Item = &'n str>,
) -> Result<(), GatewayError> {
    let fields = deployment.features.as_ref().map(|features| features.plan.request_fields().len());
    // The entity key is one more than the request fields.
    let most = deployment.inputs.len() + fields.map_or(0, |fields| fields + 1);
    if given <= most {
        return Ok(());
    }
    let listed = deployment.listed_inputs();
    if let Some(name) = names.find(|&name| !listed.iter().any(|input| input.name == name)) {
        let name = clip(name);
        let (model, names) = (&deployment.model, listed_names(deployment));
        let counted = counted(deployment, given);
        return Err(GatewayError::Invalid(format!(
            "unexpected inference input '{name}' for model '{model}': {counted}, which are {names}"
        )));
    }
    Err(GatewayError::Invalid(format!(
        "more inputs than model {} takes, which are {}: {}",
        deployment.model,
        listed_names(deployment),
        counted(deployment, given)
    )))
}

/// How many inputs there are and should be, in Triton's words.
fn counted(deployment: &Deployment, given: usize) -> String {
    let (all, model) = (deployment.inputs.len(), &deployment.model);
    let required = deployment.inputs.iter().filter(|input| !input.optional).count();
    if required < all {
        return format!(
            "expected number of inputs between {required} and {all} but got {given} inputs for model '{model}'"
        );
    }
    format!("expected {all} inputs but got {given} inputs for model '{model}'")
}

/// Refuses more rows than the model takes, before anything is done with them.
fn check_batch_size(deployment: &Deployment, given: &[NamedTensor]) -> Result<(), GatewayError> {
    let Some(most) = deployment.max_batch_size else { return Ok(()) };
    if given.iter().all(|input| input.tensor.rows().is_none_or(|rows| rows <= most)) {
        return Ok(());
    }
    let model = &deployment.model;
    Err(GatewayError::Invalid(format!(
        "inference request batch-size must be <= {most} for '{model}'"
    )))
}

fn listed_names(deployment: &Deployment) -> String {
    let names = deployment.listed_inputs().into_iter().map(|input| input.name);
    names.collect::<Vec<_>>().join(", ")
}

fn first_duplicate(given: &[NamedTensor]) -> Option<&str> {
    given.iter().enumerate().find_map(|(index, tensor)| {
        given[..index].iter().any(|other| other.name == tensor.name).then_some(&*tensor.name)
    })
}

fn brings(given: &[NamedTensor], name: &str) -> bool {
    given.iter().any(|tensor| tensor.name == name)
}

fn own_inputs(
    deployment: &Deployment,
    mut given: Vec<NamedTensor>,
) -> Result<Prepared, GatewayError> {
    let (inputs, optional) = take_all(deployment, &mut given, None)?;
    if let Some(extra) = given.first() {
        let names = listed_names(deployment);
        let model = &deployment.model;
        let reason = format!(
            "is no input of model {model}; its inputs are {names}: {}",
            unexpected(deployment, extra)
        );
        return Err(GatewayError::input(&extra.name, reason));
    }
    let rows = common_rows(deployment, &inputs, &optional)?;
    Ok(Prepared { inputs, optional, rows, freshness: None })
}

/// Takes the graph's inputs out of `given`, but for the one that is `filled` otherwise: one tensor
/// an input in the graph's order, and those that need not be brought.
fn take_all(
    deployment: &Deployment,
    given: &mut Vec<NamedTensor>,
    filled: Option<usize>,
) -> Result<(Vec<Tensor>, Vec<NamedTensor>), GatewayError> {
    let count = given.len();
    let mut inputs = Vec::with_capacity(deployment.inputs.len());
    let mut optional = Vec::new();
    for (index, input) in deployment.inputs.iter().enumerate() {
        if filled == Some(index) {
            continue;
        }
        match take_own(deployment, given, input)? {
            Some(tensor) if input.optional => {
                optional.push(NamedTensor { name: input.name.clone(), tensor });
            }
            Some(tensor) => inputs.push(tensor),
            None if input.optional => {}
            None => return Err(missing(deployment, &input.name, count, given)),
        }
    }
    Ok((inputs, optional))
}

/// A required input is not among the `count` that were given, of which some are left.
fn missing(
    deployment: &Deployment,
    name: &str,
    count: usize,
    left: &[NamedTensor],
) -> GatewayError {
    let known = deployment.listed_inputs();
    let is_known = |given: &&NamedTensor| known.iter().any(|input| input.name == given.name);
    let reason = match left.iter().find(|given| !is_known(given)) {
        Some(extra) => format!("is missing: {}", unexpected(deployment, extra)),
        None => format!(
            "is missing: {}, missing required input(s) ['{name}']",
            counted(deployment, count)
        ),
    };
    GatewayError::input(name, reason)
}

/// An input that the model has not, in Triton's words.
fn unexpected(deployment: &Deployment, extra: &NamedTensor) -> String {
    let name = clip(&extra.name);
    format!("unexpected inference input '{name}' for model '{}'", deployment.model)
}

/// Takes the tensor for `input` out of `given`, checks its datatype and shape, and gives it the
/// graph's shape. None when it was not given.
fn take_own(
    deployment: &Deployment,
    given: &mut Vec<NamedTensor>,
    input: &Input,
) -> Result<Option<Tensor>, GatewayError> {
    let Some(position) = given.iter().position(|tensor| tensor.name == input.name) else {
        return Ok(None);
    };
    let tensor = given.swap_remove(position).tensor;
    let (name, model) = (&input.name, &deployment.model);
    if tensor.datatype() != input.datatype {
        let (found, expected) = (tensor.datatype(), input.datatype);
        return Err(GatewayError::Invalid(format!(
            "inference input '{name}' data-type is '{found}', but model '{model}' expects '{expected}'"
        )));
    }
    if !fits(tensor.shape(), &input.shape) {
        return Err(GatewayError::Invalid(wrong_shape(deployment, input, tensor.shape())));
    }
    match &input.reshape {
        None => Ok(Some(tensor)),
        Some(reshape) => {
            reshape.apply(tensor).map(Some).map_err(|reason| GatewayError::input(name, reason))
        }
    }
}

/// What is wrong with a shape, in Triton's words.
fn wrong_shape(deployment: &Deployment, input: &Input, found: &[i64]) -> String {
    let (name, model, expected) = (&input.name, &deployment.model, &input.shape);
    let batched = deployment.max_batch_size.is_some();
    if batched && found.is_empty() {
        return format!(
            "input '{name}' has no shape but model requires batch dimension for '{model}'"
        );
    }
    let written = |shape: &[i64]| {
        let sizes: Vec<_> = shape.iter().map(i64::to_string).collect();
        format!("[{}]", sizes.join(","))
    };
    let hint = if batched && found.len() + 1 == expected.len() {
        ". NOTE: Setting a non-zero max_batch_size in the model config requires a batch dimension \
         to be prepended to each input shape"
    } else {
        ""
    };
    let (expected, found) = (written(expected), written(found));
    format!(
        "unexpected shape for input '{name}' for model '{model}'. Expected {expected}, got {found}{hint}"
    )
}

/// The rows that share a run: those of the batch, which all inputs must have in common, or one
/// where requests run alone. An empty batch would come back with whatever the graph makes of
/// nothing, so it is refused.
fn common_rows(
    deployment: &Deployment,
    inputs: &[Tensor],
    optional: &[NamedTensor],
) -> Result<usize, GatewayError> {
    if deployment.max_batch_size.is_none() {
        return Ok(1);
    }
    let named = deployment.inputs.iter().map(|input| input.name.as_str()).zip(inputs);
    let optional = optional.iter().map(|input| (input.name.as_str(), &input.tensor));
    let mut rows = None;
    for (name, tensor) in named.chain(optional) {
        let own = tensor.rows().unwrap_or(0);
        if own == 0 {
            return Err(GatewayError::input(name, "has no rows"));
        }
        let others = *rows.get_or_insert(own);
        if others != own {
            let model = &deployment.model;
            return Err(GatewayError::Invalid(format!(
                "input '{name}' batch size does not match other inputs for '{model}': it has {own} rows, others have {others}"
            )));
        }
    }
    Ok(rows.filter(|_| deployment.batches).unwrap_or(1))
}

fn with_features(
    deployment: &Deployment,
    features: &FeatureInput,
    store: Option<&EmbeddedStore>,
    mut given: Vec<NamedTensor>,
) -> Result<Prepared, GatewayError> {
    let store = store.ok_or(GatewayError::Unavailable("serving without --features"))?;
    let (mut inputs, optional) = take_all(deployment, &mut given, Some(features.index))?;
    let found = features.plan.evaluate(store, &fields(given)?, SystemTime::now())?;
    let freshness = freshness(&found);
    let width = features.plan.columns().len();
    let shape = [found.rows, width].map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec();
    let filled = Tensor::new(shape, TensorData::Fp32(found.values))
        .map_err(|error| GatewayError::shape(&deployment.inputs[features.index].name, &error))?;
    inputs.insert(features.index, filled);
    let rows = common_rows(deployment, &inputs, &optional)?;
    Ok(Prepared { inputs, optional, rows, freshness: Some(freshness) })
}

fn freshness(found: &FeatureRows) -> Freshness {
    Freshness {
        as_of: found.as_of.map(|moment| moment.date().to_string()),
        degraded_views: found.degraded.iter().map(|view| view.view.clone()).collect(),
    }
}

/// The raw fields as columns: shape [rows] or [rows, 1].
fn fields(given: Vec<NamedTensor>) -> Result<Fields, GatewayError> {
    let mut fields = Fields::new();
    for NamedTensor { name, tensor } in given {
        if !matches!(tensor.shape(), [_] | [_, 1]) {
            let shape = tensor.shape();
            return Err(GatewayError::input(
                &name,
                format!("has shape {shape:?}; a field has one value a row"),
            ));
        }
        let column =
            column(tensor.into_parts().1).map_err(|reason| GatewayError::input(&name, reason))?;
        fields.push(name, column)?;
    }
    Ok(fields)
}

/// A field's values. NaN is how a tensor says that a value is missing, so it is a null here.
fn column(data: TensorData) -> Result<Column, String> {
    fn whole<T: Into<i64>>(values: Vec<T>) -> Column {
        Column::Int64(Values::new(values.into_iter().map(Into::into).collect()))
    }
    Ok(match data {
        TensorData::Bool(values) => Column::Bool(Values::new(values)),
        TensorData::Uint8(values) => whole(values),
        TensorData::Uint16(values) => whole(values),
        TensorData::Uint32(values) => whole(values),
        TensorData::Int8(values) => whole(values),
        TensorData::Int16(values) => whole(values),
        TensorData::Int32(values) => whole(values),
        TensorData::Int64(values) => Column::Int64(Values::new(values)),
        TensorData::Uint64(values) => {
            let signed = values.into_iter().map(i64::try_from).collect::<Result<_, _>>();
            Column::Int64(Values::new(signed.map_err(|_| "is past the largest INT64")?))
        }
        TensorData::Fp32(values) => floats(values.into_iter().map(f64::from).collect()),
        TensorData::Fp64(values) => floats(values),
        TensorData::Bytes(values) => {
            let texts = values.iter().map(text).collect::<Result<_, _>>()?;
            Column::String(Values::new(texts))
        }
        TensorData::Fp16(_) | TensorData::Bf16(_) => {
            return Err("has a 16-bit datatype; a field takes FP32 or FP64".to_owned());
        }
    })
}

fn floats(values: Vec<f64>) -> Column {
    if !values.iter().any(|value| value.is_nan()) {
        return Column::Float64(Values::new(values));
    }
    let known = values.into_iter().map(|value| (!value.is_nan()).then_some(value));
    Column::Float64(known.collect())
}

fn text(bytes: &Bytes) -> Result<std::sync::Arc<str>, String> {
    std::str::from_utf8(bytes).map(Into::into).map_err(|_| "is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use sluice_features::Column;
    use sluice_protocol::TensorData;

    use super::column;

    #[test]
    fn a_nan_in_a_field_is_a_missing_value() {
        let known = column(TensorData::Fp64(vec![1.0, 2.0])).unwrap();
        assert_eq!(known, Column::Float64(sluice_features::Values::new(vec![1.0, 2.0])));
        for data in [TensorData::Fp32(vec![1.0, f32::NAN]), TensorData::Fp64(vec![1.0, f64::NAN])] {
            let missing = column(data).unwrap();
            assert_eq!((missing.is_null(0), missing.is_null(1)), (false, true));
        }
    }
}
