//! A batch of materialised rows of one view, and its bytes on the wire and in files.

use std::collections::HashSet;
use std::sync::Arc;

use chrono::NaiveDate;
use sluice_protocol::{Digest, Format};

use super::row::Row;
use crate::definitions::{FeatureView, ViewId};
use crate::entity::EntityKey;
use crate::error::FeatureError;
use crate::timestamp::Timestamp;
use crate::value::{DataType, Value};

const MAGIC: &[u8; 4] = b"SLVR";
const WHAT: &str = "batch of feature rows";

/// The format that this binary writes; a newer one is refused.
type RowsFormat = Format<1>;

/// What rows of a view are: enough to read them, and to refuse those of another definition.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewHeader {
    /// The view and its version.
    pub view: ViewId,
    /// The hash of the definition that the values were computed from.
    pub definition: Digest,
    /// The entity's join key.
    pub join_key: String,
    /// Its type.
    pub key_type: DataType,
    /// The features' names and types, in the order of a row's values.
    pub columns: Vec<(Arc<str>, DataType)>,
}

/// The latest row of every entity in one view: what materialisation gives and a store takes.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewRows {
    header: ViewHeader,
    rows: Vec<(EntityKey, Row)>,
}

impl ViewHeader {
    /// The header of rows that are computed from this view's definition.
    pub fn of(view: &FeatureView) -> Self {
        let columns = view.features.iter().map(|f| (Arc::clone(&f.name), f.data_type)).collect();
        Self {
            view: view.id.clone(),
            definition: view.definition(),
            join_key: view.entity.join_key.clone(),
            key_type: view.entity.value_type,
            columns,
        }
    }

    pub(crate) fn types(&self) -> Vec<DataType> {
        self.columns.iter().map(|(_, data_type)| *data_type).collect()
    }
}

impl ViewRows {
    /// A batch of rows: key, event time in microseconds since 1970, one value a column. Fails
    /// when a key or value is not of the header's type, or a key comes twice.
    pub fn new(
        header: ViewHeader,
        rows: impl IntoIterator<Item = (EntityKey, i64, Vec<Value>)>,
    ) -> Result<Self, FeatureError> {
        let types = header.types();
        let fits = |(value, data_type): (&Value, &DataType)| {
            value.data_type().is_none_or(|found| found == *data_type)
        };
        let mut out = Vec::new();
        for (key, time, values) in rows {
            let typed = values.len() == types.len() && values.iter().zip(&types).all(fits);
            if key.data_type() != header.key_type || !typed {
                return Err(damaged(&format!("the row of {key} does not fit its columns")));
            }
            out.push((key, Row::new(time, &values)));
        }
        Self { header, rows: out }.unique()
    }

    fn unique(self) -> Result<Self, FeatureError> {
        let mut keys = HashSet::new();
        match self.rows.iter().find(|(key, _)| !keys.insert(key)) {
            Some((key, _)) => Err(damaged(&format!("it has two rows of {key}"))),
            None => Ok(self),
        }
    }

    /// A batch without rows.
    pub(super) fn empty(header: &ViewHeader) -> Self {
        Self { header: header.clone(), rows: Vec::new() }
    }

    /// The rows that a store holds, which it checked.
    pub(super) fn stored(header: ViewHeader, rows: Vec<(EntityKey, Row)>) -> Self {
        Self { header, rows }
    }

    pub(super) fn into_parts(self) -> (ViewHeader, Vec<(EntityKey, Row)>) {
        (self.header, self.rows)
    }

    /// What the rows are.
    pub fn header(&self) -> &ViewHeader {
        &self.header
    }

    /// The rows by key, in the order of materialisation.
    pub fn rows(&self) -> &[(EntityKey, Row)] {
        &self.rows
    }

    /// The day of the newest row, none without rows.
    pub fn as_of(&self) -> Option<NaiveDate> {
        self.rows.iter().map(|(_, row)| row.time()).max().map(|time| Timestamp(time).date())
    }

    /// A batch of the same view with only the rows that `keep` accepts.
    #[must_use]
    pub fn filtered(&self, keep: impl Fn(&EntityKey) -> bool) -> Self {
        let rows = self.rows.iter().filter(|(key, _)| keep(key)).cloned().collect();
        Self { header: self.header.clone(), rows }
    }

    /// The batch as bytes. `POST /features/rows` carries one or several of them.
    pub fn encode(&self) -> Vec<u8> {
        let header = &self.header;
        let mut out = MAGIC.to_vec();
        put_number(&mut out, 1);
        put_text(&mut out, &header.view.name);
        put_number(&mut out, header.view.version);
        put_text(&mut out, &header.definition.to_string());
        put_text(&mut out, &header.join_key);
        out.push(type_code(header.key_type));
        put_length(&mut out, header.columns.len());
        for (name, data_type) in &header.columns {
            put_text(&mut out, name);
            out.push(type_code(*data_type));
        }
        put_length(&mut out, self.rows.len());
        for (key, row) in &self.rows {
            match key {
                EntityKey::Int64(key) => out.extend_from_slice(&key.to_le_bytes()),
                EntityKey::String(key) => put_text(&mut out, key),
            }
            put_length(&mut out, row.as_bytes().len());
            out.extend_from_slice(row.as_bytes());
        }
        out
    }

    /// Several batches as bytes: one after the other.
    pub fn encode_all(batches: &[Self]) -> Vec<u8> {
        batches.iter().flat_map(Self::encode).collect()
    }

    /// Reads what [`Self::encode_all`] wrote: at least one batch, no two of them of one view.
    /// Bytes from outside are safe: damage is an error.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, FeatureError> {
        let mut reader = Reader { rest: bytes };
        let mut batches = vec![Self::read(&mut reader)?];
        while !reader.rest.is_empty() {
            batches.push(Self::read(&mut reader)?);
        }
        Self::check_distinct(&batches)?;
        Ok(batches)
    }

    /// Two batches of one view would have to say which comes first.
    pub(super) fn check_distinct(batches: &[Self]) -> Result<(), FeatureError> {
        let mut views = HashSet::new();
        match batches.iter().find(|batch| !views.insert(&batch.header.view)) {
            Some(batch) => Err(damaged(&format!("view {} comes twice", batch.header.view))),
            None => Ok(()),
        }
    }

    /// Reads what [`Self::encode`] wrote. Bytes from outside are safe: damage is an error.
    pub fn decode(bytes: &[u8]) -> Result<Self, FeatureError> {
        let mut reader = Reader { rest: bytes };
        let batch = Self::read(&mut reader)?;
        if !reader.rest.is_empty() {
            return Err(damaged("it is too long"));
        }
        Ok(batch)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, FeatureError> {
        if reader.take(4)? != MAGIC {
            return Err(damaged("it does not start as one"));
        }
        RowsFormat::new(reader.number()?)
            .map_err(|reason| FeatureError::Format { what: WHAT.into(), reason })?;
        let header = reader.header()?;
        let types = header.types();
        let count = reader.length()?;
        let mut rows = Vec::new();
        for at in 0..count {
            let key = match header.key_type {
                DataType::Int64 => EntityKey::Int64(i64::from_le_bytes(reader.array()?)),
                _ => EntityKey::String(reader.text()?.into()),
            };
            let length = reader.length()?;
            let row = Row::from_bytes(reader.take(length)?, &types)
                .ok_or_else(|| damaged(&format!("row {at} does not fit its columns")))?;
            rows.push((key, row));
        }
        Self { header, rows }.unique()
    }
}

fn damaged(reason: &str) -> FeatureError {
    FeatureError::Damaged { what: WHAT.into(), reason: reason.into() }
}

fn type_code(data_type: DataType) -> u8 {
    let position = DataType::ALL.iter().position(|known| *known == data_type);
    position.and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

fn put_number(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    put_number(out, u32::try_from(length).unwrap_or(u32::MAX));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_length(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], FeatureError> {
        let (taken, rest) =
            self.rest.split_at_checked(length).ok_or_else(|| damaged("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FeatureError> {
        Ok(self.take(N)?.try_into().expect("a slice of this length"))
    }

    fn number(&mut self) -> Result<u32, FeatureError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn length(&mut self) -> Result<usize, FeatureError> {
        usize::try_from(self.number()?).map_err(|_| damaged("a length is out of range"))
    }

    fn text(&mut self) -> Result<&'a str, FeatureError> {
        let length = self.length()?;
        std::str::from_utf8(self.take(length)?).map_err(|_| damaged("a text is not UTF-8"))
    }

    fn data_type(&mut self) -> Result<DataType, FeatureError> {
        let [code] = self.array()?;
        let known = DataType::ALL.get(usize::from(code)).copied();
        known.ok_or_else(|| damaged(&format!("type {code} is unknown")))
    }

    fn header(&mut self) -> Result<ViewHeader, FeatureError> {
        let view = ViewId { name: self.text()?.into(), version: self.number()? };
        let definition =
            self.text()?.parse().map_err(|_| damaged("its definition is no SHA-256"))?;
        let join_key = self.text()?.to_owned();
        let key_type = self.data_type()?;
        if !matches!(key_type, DataType::Int64 | DataType::String) {
            return Err(damaged(&format!("{key_type} is no type of a key")));
        }
        let count = self.length()?;
        let mut columns = Vec::new();
        for _ in 0..count {
            columns.push((self.text()?.into(), self.data_type()?));
        }
        Ok(ViewHeader { view, definition, join_key, key_type, columns })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sluice_protocol::Digest;

    use super::{ViewHeader, ViewRows};
    use crate::definitions::ViewId;
    use crate::entity::EntityKey;
    use crate::error::FeatureError;
    use crate::value::{DataType, Value};

    fn batch() -> ViewRows {
        let header = ViewHeader {
            view: ViewId { name: "sales".into(), version: 2 },
            definition: Digest::of(b"x"),
            join_key: "store".into(),
            key_type: DataType::String,
            columns: vec![("mean".into(), DataType::Float64), ("name".into(), DataType::String)],
        };
        let values = vec![Value::Float64(1.5), Value::String("ä".into())];
        ViewRows::new(header, [(EntityKey::String("a".into()), 9, values)]).unwrap()
    }

    #[test]
    fn a_row_of_other_types_is_refused() {
        let header = batch().header().clone();
        let text = || EntityKey::String("a".into());
        for (key, values) in [
            (EntityKey::Int64(1), vec![Value::Null, Value::Null]),
            (text(), vec![Value::Null]),
            (text(), vec![Value::Int64(1), Value::Null]),
        ] {
            assert!(ViewRows::new(header.clone(), [(key, 0, values)]).is_err());
        }
        let row = || (text(), 0, vec![Value::Null, Value::Null]);
        assert!(ViewRows::new(header.clone(), [row()]).is_ok());
        let twice = ViewRows::new(header, [row(), row()]).unwrap_err();
        assert!(twice.to_string().contains("two rows of a"), "{twice}");
    }

    #[test]
    fn a_newer_format_is_refused() {
        let mut bytes = batch().encode();
        bytes[4] = 2;
        assert!(matches!(ViewRows::decode(&bytes), Err(FeatureError::Format { .. })));
    }

    proptest! {
        #[test]
        fn batches_round_trip_and_damage_is_no_panic(cut in 0usize..150, at in 0usize..150, byte: u8) {
            let bytes = batch().encode();
            prop_assert_eq!(ViewRows::decode(&bytes).unwrap(), batch());
            prop_assert!(ViewRows::decode(&bytes[..cut % bytes.len()]).is_err());
            let mut changed = bytes;
            let length = changed.len();
            changed[at % length] = byte;
            let _ = ViewRows::decode(&changed);
        }
    }
}
