//! V1's rows (`instances`) and columns (`inputs`) as tensors.
//!
//! An object is read with a bound on its entries, since a body has room for far more names than
//! any model takes, and each of them would be compared and stored.
//!
//! A null is a missing value: NaN in a float input of the graph, and a raw field that need not
//! be there is filled with its default. Anything else has no missing value and is refused.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use sluice_features::Field;
use sluice_protocol::{Datatype, NamedTensor, Tensor, TensorData};

use super::elements;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::inputs;

/// Tensors of a list of rows: objects of named values, or bare values of the only input.
pub(super) fn rows_to_tensors(
    deployment: &Deployment,
    text: &str,
) -> Result<Vec<NamedTensor>, GatewayError> {
    let Some(inner) = text.strip_prefix('[').map(str::trim_start) else {
        return Err(invalid("\"instances\" must be a list"));
    };
    if inner.starts_with(']') {
        return Err(invalid("\"instances\" is empty"));
    }
    if !inner.starts_with('{') {
        return Ok(vec![only_input(deployment, text)?]);
    }
    let rows: Vec<Map<String, Value>> = read("instances", text, ObjectsSeed(deployment))?;
    let Some(first) = rows.first() else { return Ok(Vec::new()) };
    for (index, row) in rows.iter().enumerate().filter(|(_, row)| row.len() > first.len()) {
        if let Some(name) = row.keys().find(|name| !first.contains_key(*name)) {
            let reason = format!("is in instance {index} but not in instance 0");
            return Err(GatewayError::input(name, reason));
        }
    }
    let mut tensors = Vec::with_capacity(first.len());
    for name in first.keys() {
        let mut column = Vec::with_capacity(rows.len());
        for (index, row) in rows.iter().enumerate() {
            column.push(row.get(name).ok_or_else(|| {
                GatewayError::input(name, format!("is missing in instance {index}"))
            })?);
        }
        tensors.extend(column_to_tensor(deployment, name, &column)?);
    }
    Ok(tensors)
}

/// Tensors of an object of columns, or of the bare column of the only input.
pub(super) fn columns_to_tensors(
    deployment: &Deployment,
    text: &str,
) -> Result<Vec<NamedTensor>, GatewayError> {
    if !text.starts_with('{') {
        return Ok(vec![only_input(deployment, text)?]);
    }
    let columns = read("inputs", text, ObjectSeed(deployment))?;
    let mut tensors = Vec::with_capacity(columns.len());
    for (name, column) in &columns {
        let Value::Array(values) = column else {
            return Err(GatewayError::input(name, "must be a list of rows"));
        };
        tensors.extend(column_to_tensor(deployment, name, &values.iter().collect::<Vec<_>>())?);
    }
    Ok(tensors)
}

fn invalid(text: &str) -> GatewayError {
    GatewayError::Invalid(text.to_owned())
}

/// Bare values: those of the graph's only input, parsed straight into its memory.
fn only_input(deployment: &Deployment, text: &str) -> Result<NamedTensor, GatewayError> {
    let mut required = deployment.inputs.iter().filter(|input| !input.optional);
    let (Some(spec), None) = (required.next(), required.next()) else {
        return Err(GatewayError::Invalid(format!(
            "model {} has several inputs, so every instance must be an object of them",
            deployment.model
        )));
    };
    tensor(&spec.name, text, spec.datatype, 0)
}

/// One value a row, each a scalar or a nested list, as the input's datatype if the graph has
/// such an input, else (a raw field) as what the JSON says.
fn column_to_tensor(
    deployment: &Deployment,
    name: &str,
    column: &[&Value],
) -> Result<Option<NamedTensor>, GatewayError> {
    if let Some(own) = deployment.inputs.iter().find(|spec| spec.name == name) {
        return as_tensor(name, column, own.datatype).map(Some);
    }
    let fields = deployment.features.iter().flat_map(|features| features.plan.request_fields());
    raw_field(name, column, fields.filter(|field| !field.required).find(|field| field.name == name))
}

/// A raw field's column. `optional` is the field if it need not be there: then its default
/// stands for a null, and a column of nothing else is none.
fn raw_field(
    name: &str,
    column: &[&Value],
    optional: Option<&Field>,
) -> Result<Option<NamedTensor>, GatewayError> {
    let Some(field) = optional.filter(|_| column.iter().any(|value| value.is_null())) else {
        return as_tensor(name, column, json_datatype(name, column, false)?).map(Some);
    };
    if column.iter().all(|value| value.is_null()) {
        return Ok(None);
    }
    let default = field.default.to_json();
    let or_default =
        |value: &&'_ Value| if value.is_null() { default.clone() } else { (*value).clone() };
    let filled: Vec<Value> = column.iter().map(or_default).collect();
    let filled: Vec<&Value> = filled.iter().collect();
    as_tensor(name, &filled, json_datatype(name, &filled, true)?).map(Some)
}

fn as_tensor(
    name: &str,
    column: &[&Value],
    datatype: Datatype,
) -> Result<NamedTensor, GatewayError> {
    let text = serde_json::to_string(column).expect("a JSON value is JSON");
    tensor(name, &text, datatype, column.len())
}

fn tensor(
    name: &str,
    text: &str,
    datatype: Datatype,
    expected: usize,
) -> Result<NamedTensor, GatewayError> {
    let refuse = |reason: String| GatewayError::input(name, reason);
    let parsed = elements::parse(text, datatype, expected).map_err(refuse)?;
    let shape = parsed.shape.ok_or_else(|| refuse("has rows of different shapes".to_owned()))?;
    named(name, &shape, parsed.data)
}

fn named(name: &str, shape: &[usize], data: TensorData) -> Result<NamedTensor, GatewayError> {
    let shape = shape.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
    let tensor = Tensor::new(shape, data).map_err(|error| GatewayError::shape(name, &error))?;
    Ok(NamedTensor { name: name.to_owned(), tensor })
}

/// The datatype of a raw field's values. A null that no default replaced can only stand among
/// numbers, as NaN.
fn json_datatype(name: &str, column: &[&Value], optional: bool) -> Result<Datatype, GatewayError> {
    let mut found = None;
    let mut null = None;
    for (index, value) in column.iter().enumerate() {
        let own = match value {
            Value::Bool(_) => Datatype::Bool,
            Value::String(_) => Datatype::Bytes,
            Value::Number(number) if number.is_i64() => Datatype::Int64,
            Value::Number(_) => Datatype::Fp64,
            Value::Null => {
                null.get_or_insert(index);
                continue;
            }
            Value::Array(_) | Value::Object(_) => {
                let reason = format!("is no single value in instance {index}");
                return Err(GatewayError::input(name, reason));
            }
        };
        found = match (found, own) {
            (None, own) => Some(own),
            (Some(before), own) if before == own => Some(own),
            (Some(Datatype::Int64), Datatype::Fp64) | (Some(Datatype::Fp64), Datatype::Int64) => {
                Some(Datatype::Fp64)
            }
            (Some(before), own) => {
                let reason = format!("is {before} before instance {index} and {own} in it");
                return Err(GatewayError::input(name, reason));
            }
        };
    }
    match (null, found) {
        (None, found) => Ok(found.unwrap_or(Datatype::Fp64)),
        (Some(_), Some(Datatype::Int64 | Datatype::Fp64)) if optional => Ok(Datatype::Fp64),
        (Some(index), _) => Err(GatewayError::input(name, format!("is null in instance {index}"))),
    }
}

/// Reads `text` by `seed`. Its errors' places are in `text` and not in the body, so they are
/// left out.
fn read<'t, S: DeserializeSeed<'t>>(
    key: &str,
    text: &'t str,
    seed: S,
) -> Result<S::Value, GatewayError> {
    seed.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let error = error.to_string();
        let reason = error.rsplit_once(" at line ").map_or(&*error, |(reason, _)| reason);
        GatewayError::Invalid(format!("{key:?}: {reason}"))
    })
}

/// A list of objects, each as [`ObjectSeed`] reads it.
struct ObjectsSeed<'d>(&'d Deployment);

impl<'de> DeserializeSeed<'de> for ObjectsSeed<'_> {
    type Value = Vec<Map<String, Value>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for ObjectsSeed<'_> {
    type Value = Vec<Map<String, Value>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut rows = Vec::new();
        loop {
            let row = list.next_element_seed(ObjectSeed(self.0));
            match row
                .map_err(|error| A::Error::custom(format!("instance {}: {error}", rows.len())))?
            {
                Some(row) => rows.push(row),
                None => return Ok(rows),
            }
        }
    }
}

/// An object with no more entries than the model takes, and none twice.
struct ObjectSeed<'d>(&'d Deployment);

impl<'de> DeserializeSeed<'de> for ObjectSeed<'_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ObjectSeed<'_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object, as the first one is")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            inputs::check_count(self.0, object.len() + 1).map_err(A::Error::custom)?;
            if object.contains_key(&name) {
                return Err(A::Error::custom(GatewayError::input(&name, "is given twice")));
            }
            object.insert(name, entries.next_value()?);
        }
        Ok(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_features::{DataType, Field};
    use sluice_protocol::TensorData;

    use super::raw_field;

    fn field(data_type: DataType, default: sluice_features::Value) -> Field {
        Field { name: "f".to_owned(), data_type, required: false, default }
    }

    fn column(values: &Value, optional: Option<&Field>) -> Result<Option<TensorData>, String> {
        let values: Vec<&Value> = values.as_array().unwrap().iter().collect();
        let tensor = raw_field("f", &values, optional).map_err(|error| error.to_string())?;
        Ok(tensor.map(|named| named.tensor.into_parts().1))
    }

    #[test]
    fn a_null_in_a_field_that_need_not_be_there_is_its_default() {
        let seven = field(DataType::Int64, sluice_features::Value::Int64(7));
        let text = field(DataType::String, sluice_features::Value::String("d".into()));
        for (values, optional, expected) in [
            (json!([1, null]), &seven, Some(TensorData::Int64(vec![1, 7]))),
            (json!([null, null]), &seven, None),
            (json!(["a", null]), &text, Some(TensorData::Bytes(vec!["a".into(), "d".into()]))),
        ] {
            assert_eq!(column(&values, Some(optional)), Ok(expected), "{values}");
        }
    }

    #[test]
    fn without_a_default_only_numbers_can_be_missing() {
        let number = field(DataType::Int64, sluice_features::Value::Null);
        let data = column(&json!([1, null]), Some(&number)).unwrap();
        let Some(TensorData::Fp64(values)) = data else { panic!("{data:?}") };
        assert!(values[0] == 1.0 && values[1].is_nan());
        let text = field(DataType::String, sluice_features::Value::Null);
        let error = column(&json!(["a", null]), Some(&text)).unwrap_err();
        assert!(error.contains("\"f\": is null in instance 1"), "{error}");
        assert_eq!(column(&json!([null]), Some(&text)), Ok(None));
    }

    #[test]
    fn a_null_in_a_field_that_must_be_there_is_refused() {
        for values in [json!([1, null]), json!([null, "a"]), json!([null])] {
            assert!(column(&values, None).unwrap_err().contains("is null in instance"), "{values}");
        }
        let error = column(&json!([1, "a"]), None).unwrap_err();
        assert!(error.contains("INT64 before instance 1 and BYTES in it"), "{error}");
    }
}
