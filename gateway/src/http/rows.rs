//! V1's rows (`instances`) and columns (`inputs`) as tensors.
//!
//! Values stay text until they are parsed into a tensor's memory. An object is read with a bound
//! on its entries, since a body has room for far more names than any model takes, and each of
//! them would be compared and stored.
//!
//! A null is a missing value: NaN in a float input of the graph, and a raw field that need not
//! be there is filled with its default. Anything else has no missing value and is refused.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use sluice_features::Field;
use sluice_protocol::{Datatype, NamedTensor, Tensor, TensorData};

use super::base64::Base64;
use super::brief::text_instead;
use super::elements;
use crate::deployment::Deployment;
use crate::error::GatewayError;
use crate::inputs;
use crate::room::Room;

/// Tensors of a list of rows: objects of named values, or bare values of the only input. None
/// when there is no row.
pub(super) fn rows_to_tensors(
    deployment: &Deployment,
    text: &str,
    room: &Room,
) -> Result<Option<Vec<NamedTensor>>, GatewayError> {
    let Some(inner) = text.strip_prefix('[').map(str::trim_start) else {
        return Err(invalid(
            "Expecting 'instances' to be an list/array: it must be a list of rows",
        ));
    };
    if inner.starts_with(']') {
        return Ok(None);
    }
    if !is_named(deployment, inner) {
        return Ok(Some(vec![only_input(deployment, text, "instances is a plain list", room)?]));
    }
    let table = read("instances", text, room, TableSeed(deployment, room))?;
    let mut tensors = Vec::with_capacity(table.columns.len());
    for column in &table.columns {
        tensors.extend(column_to_tensor(deployment, &column.name, &column.text, room)?);
    }
    Ok(Some(tensors))
}

/// Tensors of an object of columns, or of the bare column of the only input.
pub(super) fn columns_to_tensors(
    deployment: &Deployment,
    text: &str,
    room: &Room,
) -> Result<Vec<NamedTensor>, GatewayError> {
    if !is_named(deployment, text) {
        return Ok(vec![only_input(deployment, text, "inputs is a plain value/list", room)?]);
    }
    let columns = read("inputs", text, room, ColumnsSeed(deployment))?;
    let mut tensors = Vec::with_capacity(columns.len());
    for (name, column) in &columns {
        tensors.extend(column_to_tensor(deployment, name, column.get(), room)?);
    }
    Ok(tensors)
}

fn invalid(text: &str) -> GatewayError {
    GatewayError::Invalid(text.to_owned())
}

/// Whether `text` begins with an object of names and not with a bare value, as bytes in base64
/// are one. An input that is called like the key of such an object keeps its name.
fn is_named(deployment: &Deployment, text: &str) -> bool {
    let takes_b64 = || deployment.inputs.iter().any(|spec| spec.name == "b64");
    text.starts_with('{') && (!Base64::leads(text) || takes_b64())
}

/// Bare values: those of the graph's only input, parsed straight into its memory.
fn only_input(
    deployment: &Deployment,
    text: &str,
    what: &str,
    room: &Room,
) -> Result<NamedTensor, GatewayError> {
    let mut required = deployment.inputs.iter().filter(|input| !input.optional);
    let (Some(spec), None) = (required.next(), required.next()) else {
        return Err(GatewayError::Invalid(format!(
            "{what}, but model {} has several inputs, so that objects of them are expected",
            deployment.model
        )));
    };
    tensor(&spec.name, text, spec.datatype, room)
}

/// A column's text, one value a row, each a scalar or a nested list: as the input's datatype if
/// the graph has such an input, else (a raw field) as what the JSON says.
fn column_to_tensor(
    deployment: &Deployment,
    name: &str,
    text: &str,
    room: &Room,
) -> Result<Option<NamedTensor>, GatewayError> {
    if let Some(own) = deployment.inputs.iter().find(|spec| spec.name == name) {
        return tensor(name, text, own.datatype, room).map(Some);
    }
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

fn tensor(
    name: &str,
    text: &str,
    datatype: Datatype,
    room: &Room,
) -> Result<NamedTensor, GatewayError> {
    let refuse = |reason: String| GatewayError::input(name, reason);
    let bounds = elements::take_room(room, datatype, text)?;
    let parsed = elements::parse_or_base64(text, datatype, bounds).map_err(refuse)?;
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

/// Reads `text` by `seed`. Its errors' places are in `text` and not in the body, so they are
/// left out.
fn read<'t, S: DeserializeSeed<'t>>(
    key: &str,
    text: &'t str,
    room: &Room,
    seed: S,
) -> Result<S::Value, GatewayError> {
    seed.deserialize(&mut serde_json::Deserializer::from_str(text)).map_err(|error| {
        let error = error.to_string();
        let reason = error.rsplit_once(" at line ").map_or(&*error, |(reason, _)| reason);
        room.reason(GatewayError::Invalid(format!("{key:?}: {reason}")))
    })
}

/// A list of objects, turned into columns.
#[derive(Debug, Default)]
struct Table {
    columns: Vec<ColumnText>,
    /// Rows that are complete.
    rows: usize,
}

/// The JSON list of one name's values.
#[derive(Debug)]
struct ColumnText {
    name: String,
    text: String,
    /// How many values it has.
    values: usize,
}

impl ColumnText {
    /// Appends a value behind `before`. There is always a byte left for the end of the list.
    fn push(&mut self, before: char, value: &str, room: &Room) -> Result<(), GatewayError> {
        let more = value.len() + 2;
        let (length, capacity) = (self.text.len(), self.text.capacity());
        if capacity - length < more {
            // While the text moves, it is there twice.
            let larger = capacity.max(more).max(64);
            room.take(larger)?;
            drop(room.lend(capacity)?);
            self.text.reserve_exact(capacity - length + larger);
        }
        self.text.push(before);
        self.text.push_str(value);
        self.values += 1;
        Ok(())
    }
}

impl Table {
    /// Adds a value of the row that is being read. The first row says which columns there are.
    fn add(&mut self, name: &str, value: &str, room: &Room) -> Result<(), GatewayError> {
        let rows = self.rows;
        let Some(column) = self.columns.iter_mut().find(|column| column.name == name) else {
            if rows > 0 {
                return Err(GatewayError::input(name, "is not in instance 0"));
            }
            room.take(size_of::<ColumnText>() + name.len())?;
            let mut column = ColumnText { name: name.to_owned(), text: String::new(), values: 0 };
            column.push('[', value, room)?;
            self.columns.push(column);
            return Ok(());
        };
        if column.values > rows {
            return Err(GatewayError::input(name, "is given twice"));
        }
        column.push(',', value, room)
    }

    /// Ends the row that is being read.
    fn end_row(&mut self) -> Result<(), GatewayError> {
        let rows = self.rows;
        if let Some(column) = self.columns.iter().find(|column| column.values == rows) {
            let reason = format!("is missing in instance {rows}");
            return Err(GatewayError::input(&column.name, reason));
        }
        self.rows += 1;
        Ok(())
    }
}

struct TableSeed<'d>(&'d Deployment, &'d Room);

impl<'de> DeserializeSeed<'de> for TableSeed<'_> {
    type Value = Table;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Table, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for TableSeed<'_> {
    type Value = Table;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Table, A::Error> {
        let mut table = Table::default();
        loop {
            let index = table.rows;
            let row = list.next_element_seed(RowSeed(self.0, self.1, &mut table));
            let row =
                row.map_err(|error| A::Error::custom(format!("instance {index}: {error}")))?;
            if row.is_none() {
                table.columns.iter_mut().for_each(|column| column.text.push(']'));
                return Ok(table);
            }
            table.end_row().map_err(A::Error::custom)?;
        }
    }
}

/// One object of a list, added to the table.
struct RowSeed<'d>(&'d Deployment, &'d Room, &'d mut Table);

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object, as the first one is")
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Err(text_instead(&self))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<(), A::Error> {
        let Self(deployment, room, table) = self;
        visit_entries(deployment, entries, |name, value| table.add(&name, value.get(), room))
    }
}

/// An object of columns, none of them twice.
struct ColumnsSeed<'d>(&'d Deployment);

impl<'de> DeserializeSeed<'de> for ColumnsSeed<'_> {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for ColumnsSeed<'_> {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of columns")
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        let mut columns = Vec::new();
        visit_entries(self.0, entries, |name, value| {
            if columns.iter().any(|(other, _)| *other == name) {
                return Err(GatewayError::input(&name, "is given twice"));
            }
            columns.push((name, value));
            Ok(())
        })?;
        Ok(columns)
    }
}

/// Hands every entry to `take`, as long as there are no more of them than the model takes.
fn visit_entries<'de, A: MapAccess<'de>>(
    deployment: &Deployment,
    mut entries: A,
    mut take: impl FnMut(Cow<'de, str>, &'de RawValue) -> Result<(), GatewayError>,
) -> Result<(), A::Error> {
    #[derive(Deserialize)]
    struct Name<'n>(#[serde(borrow)] Cow<'n, str>);

    let mut count = 0;
    while let Some(Name(name)) = entries.next_key()? {
        count += 1;
        let names = std::iter::once(&*name);
        inputs::check_count(deployment, count, names).map_err(A::Error::custom)?;
        let value = entries.next_value()?;
        take(name, value).map_err(A::Error::custom)?;
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
