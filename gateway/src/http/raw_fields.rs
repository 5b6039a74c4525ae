//! Raw fields of V1's rows and columns: values that the graph has no input for, of the datatype that
//! the JSON says. They become features' entity keys and request fields, so a whole number stays what
//! it is or is refused.
//!
//! A null in a field that need not be there is its default.

use serde_json::Value;
use sluice_features::Field;
use sluice_protocol::{Datatype, NamedTensor};

use super::base64::Base64;
use super::elements;
use super::rows::tensor;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::room::Room;

/// The tensor of a raw field's text, one value a row. None when it has nothing but nulls and need
/// not be there.
pub(super) fn column(
    deployment: &Deployment,
    name: &str,
    text: &str,
    room: &Room,
) -> Result<Option<NamedTensor>, GatewayError> {
    let no_list = || GatewayError::input(name, "must be a list of rows");
    if !text.starts_with('[') {
        return Err(no_list());
    }
    let _values = room.lend(values_weight(text))?;
    let values: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        // serde_json's own words for one past the range of FP64.
        let is_large = error.to_string().starts_with("number out of range");
        let reason = if room.holds_words() && text.contains(elements::INFINITY) {
            "has infinity, which is no value of a field"
        } else {
            "has a number that is out of the range of FP64"
        };
        if is_large { GatewayError::input(name, reason) } else { no_list() }
    })?;
    let fields = deployment.features.iter().flat_map(|features| features.plan.request_fields());
    let optional = fields.filter(|field| !field.required).find(|field| field.name == name);
    raw_field(name, &values, optional, room)
}

/// A raw field's column. `optional` is the field if it need not be there: then its default
/// stands for a null, and a column of nothing else is none.
fn raw_field(
    name: &str,
    column: &[Value],
    optional: Option<&Field>,
    room: &Room,
) -> Result<Option<NamedTensor>, GatewayError> {
    let Some(field) = optional.filter(|_| column.iter().any(Value::is_null)) else {
        return as_tensor(name, column, json_datatype(name, column, false)?, room).map(Some);
    };
    if column.iter().all(Value::is_null) {
        return Ok(None);
    }
    let default = field.default.to_json();
    let or_default = |value: &Value| if value.is_null() { default.clone() } else { value.clone() };
    let filled: Vec<Value> = column.iter().map(or_default).collect();
    as_tensor(name, &filled, json_datatype(name, &filled, true)?, room).map(Some)
}

fn as_tensor(
    name: &str,
    column: &[Value],
    datatype: Datatype,
    room: &Room,
) -> Result<NamedTensor, GatewayError> {
    let text = serde_json::to_string(column).expect("a JSON value is JSON");
    tensor(name, &text, datatype, room)
}

/// About how much memory a list of JSON values takes, and then the same list as text.
fn values_weight(text: &str) -> usize {
    /// A list that has something in it has room for four values, a node of a map for eleven.
    const LIST: usize = 4 * size_of::<Value>();
    const MAP: usize = 12 * size_of::<(String, Value)>();
    let weight = text.bytes().fold(0usize, |weight, byte| {
        weight.saturating_add(match byte {
            // The list grows: twice as long as it was, and the old one is still there. So may the
            // copies of optional values.
            b',' => 4 * size_of::<Value>(),
            b'[' => LIST,
            b'{' => MAP,
            _ => 0,
        })
    });
    weight.saturating_add(text.len().saturating_mul(4))
}

/// The datatype of a raw field's values. A null that no default replaced can only stand among
/// numbers, as NaN.
fn json_datatype(name: &str, column: &[Value], optional: bool) -> Result<Datatype, GatewayError> {
    let mut found = None;
    let mut null = None;
    for (index, value) in column.iter().enumerate() {
        let own = match value {
            Value::Bool(_) => Datatype::Bool,
            Value::String(_) => Datatype::Bytes,
            Value::Object(object) if Base64::is(object) => Datatype::Bytes,
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
    let datatype = match (null, found) {
        (None, found) => found.unwrap_or(Datatype::Fp64),
        (Some(_), Some(Datatype::Int64 | Datatype::Fp64)) if optional => Datatype::Fp64,
        (Some(index), _) => {
            return Err(GatewayError::input(name, format!("is null in instance {index}")));
        }
    };
    if datatype == Datatype::Fp64 {
        check_exact(name, column)?;
    }
    Ok(datatype)
}

/// Refuses whole numbers that are others as floats: an entity key would be another entity's.
fn check_exact(name: &str, column: &[Value]) -> Result<(), GatewayError> {
    let is_exact = |magnitude: u64| {
        magnitude.leading_zeros() + magnitude.trailing_zeros() >= u64::BITS - f64::MANTISSA_DIGITS
    };
    for (index, value) in column.iter().enumerate() {
        let Value::Number(number) = value else { continue };
        let whole = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64());
        if !whole.is_none_or(is_exact) {
            let reason = if number.is_i64() {
                "which cannot be held exactly beside fractions and missing values"
            } else {
                "which is out of the range of INT64"
            };
            return Err(GatewayError::input(
                name,
                format!("has {number} in instance {index}, {reason}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use sluice_features::{DataType, Field};
    use sluice_protocol::TensorData;

    use super::raw_field;
    use crate::room::Room;

    fn field(data_type: DataType, default: sluice_features::Value) -> Field {
        Field { name: "f".to_owned(), data_type, required: false, default }
    }

    fn column(values: &Value, optional: Option<&Field>) -> Result<Option<TensorData>, String> {
        let values = values.as_array().unwrap();
        let tensor = raw_field("f", values, optional, &Room::new(1000))
            .map_err(|error| error.to_string())?;
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
    fn texts_may_be_in_base64() {
        let texts = TensorData::Bytes(vec!["hi".into(), "a".into()]);
        assert_eq!(column(&json!([{"b64": "aGk="}, "a"]), None), Ok(Some(texts)));
        let error = column(&json!([{"b64": "aGk="}, 1]), None).unwrap_err();
        assert!(error.contains("BYTES before instance 1 and INT64 in it"), "{error}");
        for (value, says) in [
            (json!([{"b64": 1}]), "is no single value in instance 0"),
            (json!([{"b64": "", "a": ""}]), "is no single value in instance 0"),
            (json!([{"b64": "*"}]), "Unable to base64 decode"),
        ] {
            let error = column(&value, None).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
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
    fn whole_numbers_stay_what_they_are_or_are_refused() {
        const LARGE: i64 = 9_007_199_254_740_993;
        let seven = field(DataType::Int64, sluice_features::Value::Int64(7));
        let none = field(DataType::Int64, sluice_features::Value::Null);
        for (values, optional, expected) in [
            (json!([LARGE, 1]), None, TensorData::Int64(vec![LARGE, 1])),
            (json!([LARGE, null]), Some(&seven), TensorData::Int64(vec![LARGE, 7])),
            (json!([i64::MIN]), None, TensorData::Int64(vec![i64::MIN])),
            (json!([3, 0.5]), None, TensorData::Fp64(vec![3.0, 0.5])),
            (json!([1_u64 << 63]), None, TensorData::Fp64(vec![9_223_372_036_854_775_808.0])),
        ] {
            assert_eq!(column(&values, optional), Ok(Some(expected)), "{values}");
        }
        let beside = "has 9007199254740993 in instance 0, which cannot be held exactly beside";
        for (values, optional, says) in [
            (json!([LARGE, 1.0]), None, beside),
            (json!([LARGE, null]), Some(&none), beside),
            (json!([-LARGE, 0.5]), None, "has -9007199254740993 in instance 0"),
            (json!([1, u64::MAX]), None, "in instance 1, which is out of the range of INT64"),
        ] {
            let error = column(&values, optional).unwrap_err();
            assert!(error.contains(says), "{values}: {error}");
        }
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
