//! V1's rows (`instances`) and columns (`inputs`) as tensors.
//!
//! Values stay text until they are parsed into a tensor's memory. An object is read with a bound
//! on its entries, since a body has room for far more names than any model takes, and each of
//! them would be compared and stored.
//!
//! A null is a missing value: NaN in a float input of the graph; [`raw_fields`] says what it is in
//! others. Anything else has no missing value and is refused.

use std::borrow::Cow;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sluice_protocol::{Datatype, NamedTensor, Tensor, TensorData};

use super::base64::Base64;
use super::brief::text_instead;
use super::{elements, raw_fields};
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
    raw_fields::column(deployment, name, text, room)
}

pub(super) fn tensor(
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
