//! Entity keys and their bytes in the online store, which are Feast's serialisation 3.

use std::hash::Hash;
use std::sync::Arc;

use papaya::Equivalent;
use serde::{Deserialize, Serialize};

use crate::column::Column;
use crate::value::{DataType, Value};

/// The value of a join key: which store, which customer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EntityKey {
    /// A whole number.
    Int64(i64),
    /// A text.
    String(Arc<str>),
}

/// A key that is only borrowed, for look-ups without a copy. It hashes as [`EntityKey`] does,
/// which needs the variants in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum KeyRef<'a> {
    Int64(i64),
    String(&'a str),
}

const FEAST_STRING: u32 = 2;
const FEAST_INT64: u32 = 4;

impl EntityKey {
    /// Reads `text`, as on a command line, as a key of the type.
    pub fn parse(text: &str, value_type: DataType) -> Option<Self> {
        Value::parse(text, value_type).and_then(|value| Self::from_value(&value))
    }

    /// The key that a value is; none for null and types that are no keys.
    pub(crate) fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Int64(key) => Some(Self::Int64(*key)),
            Value::String(key) => Some(Self::String(Arc::clone(key))),
            _ => None,
        }
    }

    /// The key as a value.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Int64(key) => Value::Int64(*key),
            Self::String(key) => Value::String(Arc::clone(key)),
        }
    }

    /// The type of the key.
    pub const fn data_type(&self) -> DataType {
        match self {
            Self::Int64(_) => DataType::Int64,
            Self::String(_) => DataType::String,
        }
    }

    /// The bytes of Feast's entity key serialisation 3, without a project.
    pub fn to_feast_bytes(&self, join_key: &str) -> Vec<u8> {
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut bytes = Vec::with_capacity(28 + join_key.len());
        let number = |bytes: &mut Vec<u8>, n: u32| bytes.extend_from_slice(&n.to_le_bytes());
        number(&mut bytes, 1);
        number(&mut bytes, FEAST_STRING);
        number(&mut bytes, length(join_key));
        bytes.extend_from_slice(join_key.as_bytes());
        match self {
            Self::Int64(key) => {
                number(&mut bytes, FEAST_INT64);
                number(&mut bytes, 8);
                bytes.extend_from_slice(&key.to_le_bytes());
            }
            Self::String(key) => {
                number(&mut bytes, FEAST_STRING);
                number(&mut bytes, length(key));
                bytes.extend_from_slice(key.as_bytes());
            }
        }
        bytes
    }

    /// Reads what [`Self::to_feast_bytes`] wrote.
    pub fn from_feast_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, rest) = split_number(bytes)?;
        let (name_type, rest) = split_number(rest)?;
        let (name_length, rest) = split_number(rest)?;
        let rest = rest.get(usize::try_from(name_length).ok()?..)?;
        let (value_type, rest) = split_number(rest)?;
        let (length, value) = split_number(rest)?;
        if (count, name_type) != (1, FEAST_STRING) || usize::try_from(length).ok()? != value.len() {
            return None;
        }
        match value_type {
            FEAST_INT64 => Some(Self::Int64(i64::from_le_bytes(value.try_into().ok()?))),
            FEAST_STRING => Some(Self::String(std::str::from_utf8(value).ok()?.into())),
            _ => None,
        }
    }
}

fn split_number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

impl std::fmt::Display for EntityKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int64(key) => key.fmt(f),
            Self::String(key) => key.fmt(f),
        }
    }
}

impl<'a> KeyRef<'a> {
    /// The key in a row of a key column; none for null and types that are no keys.
    pub(crate) fn at(column: &'a Column, row: usize) -> Option<Self> {
        match column {
            Column::Int64(values) => values.get(row).map(|key| Self::Int64(*key)),
            Column::String(values) => values.get(row).map(|key| Self::String(key)),
            _ => None,
        }
    }
}

impl Equivalent<EntityKey> for KeyRef<'_> {
    fn equivalent(&self, key: &EntityKey) -> bool {
        match (self, key) {
            (Self::Int64(a), EntityKey::Int64(b)) => a == b,
            (Self::String(a), EntityKey::String(b)) => **a == **b,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, RandomState};

    use proptest::prelude::*;

    use super::{EntityKey, KeyRef};

    #[test]
    fn key_bytes_are_feasts() {
        let check = |key: EntityKey, name: &str, expected: &str| {
            let bytes = key.to_feast_bytes(name);
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected, "{key}");
            assert_eq!(EntityKey::from_feast_bytes(&bytes), Some(key));
        };
        // As Feast 0.67 wrote them.
        check(
            EntityKey::Int64(1001),
            "driver_id",
            "0100000002000000090000006472697665725f69640400000008000000e903000000000000",
        );
        check(
            EntityKey::String("".into()),
            "__dummy_id",
            "01000000020000000a0000005f5f64756d6d795f69640200000000000000",
        );
    }

    proptest! {
        #[test]
        fn bytes_round_trip_and_damage_is_no_panic(key: i64, text: String, junk: Vec<u8>) {
            for key in [EntityKey::Int64(key), EntityKey::String(text.as_str().into())] {
                let bytes = key.to_feast_bytes("id");
                prop_assert_eq!(EntityKey::from_feast_bytes(&bytes[..bytes.len() - 1]), None);
                prop_assert_eq!(EntityKey::from_feast_bytes(&bytes), Some(key));
            }
            let _ = EntityKey::from_feast_bytes(&junk);
        }

        #[test]
        fn a_borrowed_key_hashes_as_the_owned_one(key: i64, text: String) {
            let state = RandomState::new();
            prop_assert_eq!(state.hash_one(KeyRef::Int64(key)), state.hash_one(EntityKey::Int64(key)));
            let owned = EntityKey::String(text.as_str().into());
            prop_assert_eq!(state.hash_one(KeyRef::String(&text)), state.hash_one(owned));
        }
    }
}
