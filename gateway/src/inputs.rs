//! From what a request brings to the graph's inputs, in the graph's order and checked.

use std::time::SystemTime;

use bytes::Bytes;
use sluice_features::{Column, EmbeddedStore, FeatureRows, Fields, Values};
use sluice_protocol::{NamedTensor, Tensor, TensorData, TensorSpec};

use crate::deployment::{Deployment, FeatureInput};
use crate::error::GatewayError;

/// The graph's inputs for one request.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// One tensor an input, in the graph's order.
    pub(crate) inputs: Vec<Tensor>,
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
    check_count(deployment, given.len())?;
    if let Some(twice) = first_duplicate(&given) {
        return Err(GatewayError::input(twice, "is given twice"));
    }
    match &deployment.features {
        Some(features) if !brings(&given, &deployment.inputs[features.index].name) => {
            with_features(deployment, features, store, given)
        }
        _ => own_inputs(deployment, given),
    }
}

/// Refuses a request with more inputs than the model can take, before any of them is looked at:
/// whoever compares them may then count on few.
pub(crate) fn check_count(deployment: &Deployment, given: usize) -> Result<(), GatewayError> {
    let fields = deployment.features.as_ref().map(|features| features.plan.request_fields().len());
    // The entity key is one more than the request fields.
    let most = deployment.inputs.len() + fields.map_or(0, |fields| fields + 1);
    if given <= most {
        return Ok(());
    }
    Err(GatewayError::Invalid(format!(
        "more inputs than model {} takes, which are {}",
        deployment.model,
        listed_names(deployment)
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
    let mut inputs = Vec::with_capacity(deployment.inputs.len());
    for spec in &deployment.inputs {
        inputs.push(take_own(&mut given, spec)?);
    }
    if let Some(extra) = given.first() {
        let names = listed_names(deployment);
        let reason = format!("is no input of model {}; its inputs are {names}", deployment.model);
        return Err(GatewayError::input(&extra.name, reason));
    }
    let rows = common_rows(deployment, &inputs)?;
    Ok(Prepared { inputs, rows, freshness: None })
}

/// Takes the tensor for `spec` out of `given`, and checks its datatype and shape.
fn take_own(given: &mut Vec<NamedTensor>, spec: &TensorSpec) -> Result<Tensor, GatewayError> {
    let Some(position) = given.iter().position(|tensor| tensor.name == spec.name) else {
        return Err(GatewayError::input(&spec.name, "is missing"));
    };
    let tensor = given.swap_remove(position).tensor;
    if tensor.datatype() != spec.datatype {
        let (found, expected) = (tensor.datatype(), spec.datatype);
        return Err(GatewayError::input(
            &spec.name,
            format!("has datatype {found}, expected {expected}"),
        ));
    }
    let fits = tensor.shape().len() == spec.shape.len()
        && tensor.shape().iter().zip(&spec.shape).all(|(got, want)| *want < 0 || got == want);
    if !fits {
        let reason =
            format!("has unexpected shape: expected {:?}, got {:?}", spec.shape, tensor.shape());
        return Err(GatewayError::input(&spec.name, reason));
    }
    Ok(tensor)
}

/// The rows that all inputs share. An empty batch would come back with whatever the graph
/// makes of nothing, so it is refused.
fn common_rows(deployment: &Deployment, inputs: &[Tensor]) -> Result<usize, GatewayError> {
    if !deployment.batches {
        return Ok(1);
    }
    let mut rows = None;
    for (tensor, spec) in inputs.iter().zip(&deployment.inputs) {
        let own = tensor.rows().unwrap_or(0);
        if own == 0 {
            return Err(GatewayError::input(&spec.name, "has no rows"));
        }
        if *rows.get_or_insert(own) != own {
            let reason = format!("has {own} rows, other inputs have {}", rows.unwrap_or(0));
            return Err(GatewayError::input(&spec.name, reason));
        }
    }
    Ok(rows.unwrap_or(1))
}

fn with_features(
    deployment: &Deployment,
    features: &FeatureInput,
    store: Option<&EmbeddedStore>,
    mut given: Vec<NamedTensor>,
) -> Result<Prepared, GatewayError> {
    let store = store.ok_or(GatewayError::Unavailable("serving without --features"))?;
    let mut inputs = Vec::with_capacity(deployment.inputs.len());
    for (index, spec) in deployment.inputs.iter().enumerate() {
        if index != features.index {
            inputs.push(take_own(&mut given, spec)?);
        }
    }
    let found = features.plan.evaluate(store, &fields(given)?, SystemTime::now())?;
    let freshness = freshness(&found);
    let width = features.plan.columns().len();
    let shape = [found.rows, width].map(|size| i64::try_from(size).unwrap_or(i64::MAX)).to_vec();
    let filled = Tensor::new(shape, TensorData::Fp32(found.values))
        .map_err(|error| GatewayError::shape(&deployment.inputs[features.index].name, &error))?;
    inputs.insert(features.index, filled);
    let rows = common_rows(deployment, &inputs)?;
    Ok(Prepared { inputs, rows, freshness: Some(freshness) })
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
