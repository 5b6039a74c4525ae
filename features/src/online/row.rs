//! A stored row: the event time and the features' values, in one piece of memory.
//!
//! Little-endian: the time (8 bytes), one bit a column that is set where the value is null,
//! 8 bytes a column, then the texts, to which a text column's 8 bytes point (offset, length).
//! Column `i` is found by arithmetic, so a look-up decodes only what it reads.

use std::sync::Arc;

use crate::column::narrow;
use crate::value::{DataType, Value};

const TIME: usize = 8;
const SLOT: usize = 8;

/// One entity's values in one view. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    bytes: Arc<[u8]>,
}

impl Row {
    /// The row of these values at `time`, microseconds since 1970.
    pub fn new(time: i64, values: &[Value]) -> Self {
        let nulls = values.len().div_ceil(8);
        let mut bytes = vec![0; TIME + nulls + values.len() * SLOT];
        let heap = bytes.len();
        bytes[..TIME].copy_from_slice(&time.to_le_bytes());
        for (at, value) in values.iter().enumerate() {
            let slot = match value {
                Value::Null => {
                    bytes[TIME + at / 8] |= 1 << (at % 8);
                    [0; SLOT]
                }
                Value::Bool(truth) => u64::from(*truth).to_le_bytes(),
                Value::Int64(whole) | Value::Timestamp(whole) => whole.to_le_bytes(),
                Value::Float64(number) => number.to_le_bytes(),
                Value::Date(days) => i64::from(*days).to_le_bytes(),
                Value::String(text) => {
                    let offset = bytes.len() - heap;
                    bytes.extend_from_slice(text.as_bytes());
                    text_slot(offset, text.len())
                }
            };
            let start = TIME + nulls + at * SLOT;
            bytes[start..start + SLOT].copy_from_slice(&slot);
        }
        Self { bytes: bytes.into() }
    }

    /// The row in `bytes`, none when they are not one of these columns.
    pub(crate) fn from_bytes(bytes: &[u8], columns: &[DataType]) -> Option<Self> {
        let row = Self { bytes: bytes.into() };
        let nulls = columns.len().div_ceil(8);
        let heap = bytes.get(TIME + nulls + columns.len() * SLOT..)?;
        for (at, data_type) in columns.iter().enumerate() {
            if row.is_null(at) {
                continue;
            }
            let slot = row.slot(at, columns.len());
            let fits = match data_type {
                DataType::String => std::str::from_utf8(heap.get(text_range(slot))?).is_ok(),
                DataType::Bool => u64::from_le_bytes(slot) < 2,
                DataType::Date => i32::try_from(i64::from_le_bytes(slot)).is_ok(),
                _ => true,
            };
            if !fits {
                return None;
            }
        }
        Some(row)
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The event time, microseconds since 1970.
    pub fn time(&self) -> i64 {
        i64::from_le_bytes(self.array(0))
    }

    fn is_null(&self, at: usize) -> bool {
        self.bytes[TIME + at / 8] & (1 << (at % 8)) != 0
    }

    fn array(&self, start: usize) -> [u8; SLOT] {
        let bytes = &self.bytes[start..start + SLOT];
        bytes.try_into().expect("a slice of this length")
    }

    fn slot(&self, at: usize, columns: usize) -> [u8; SLOT] {
        self.array(TIME + columns.div_ceil(8) + at * SLOT)
    }

    /// The value of column `at` of `columns`, which is of `data_type`.
    pub(crate) fn value(&self, at: usize, columns: usize, data_type: DataType) -> Value {
        if self.is_null(at) {
            return Value::Null;
        }
        let slot = self.slot(at, columns);
        match data_type {
            DataType::Bool => Value::Bool(slot[0] != 0),
            DataType::Int64 => Value::Int64(i64::from_le_bytes(slot)),
            DataType::Timestamp => Value::Timestamp(i64::from_le_bytes(slot)),
            DataType::Float64 => Value::Float64(f64::from_le_bytes(slot)),
            DataType::Date => {
                i32::try_from(i64::from_le_bytes(slot)).map_or(Value::Null, Value::Date)
            }
            DataType::String => {
                let heap = &self.bytes[TIME + columns.div_ceil(8) + columns * SLOT..];
                let text = heap.get(text_range(slot)).and_then(|t| std::str::from_utf8(t).ok());
                text.map_or(Value::Null, |text| Value::String(text.into()))
            }
        }
    }

    /// A number's column as a model's input: null is NaN.
    #[inline]
    pub(crate) fn f32(&self, at: usize, columns: usize, data_type: DataType) -> f32 {
        if self.is_null(at) {
            return f32::NAN;
        }
        let slot = self.slot(at, columns);
        match data_type {
            DataType::Float64 => narrow(f64::from_le_bytes(slot)),
            DataType::Int64 => narrow(i64::from_le_bytes(slot) as f64),
            DataType::Bool => f32::from(slot[0]),
            DataType::String | DataType::Date | DataType::Timestamp => f32::NAN,
        }
    }
}

fn text_slot(offset: usize, length: usize) -> [u8; SLOT] {
    let half = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    (u64::from(half(offset)) | u64::from(half(length)) << 32).to_le_bytes()
}

fn text_range(slot: [u8; SLOT]) -> std::ops::Range<usize> {
    let half = |bytes: [u8; 4]| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
    let [a, b, c, d, e, f, g, h] = slot;
    let (offset, length) = (half([a, b, c, d]), half([e, f, g, h]));
    offset..offset.saturating_add(length)
}

#[cfg(test)]
mod tests {
    use super::Row;
    use crate::value::{DataType, Value};

    const COLUMNS: [DataType; 7] = [
        DataType::Bool,
        DataType::Int64,
        DataType::Float64,
        DataType::String,
        DataType::Date,
        DataType::Timestamp,
        DataType::String,
    ];

    fn values() -> Vec<Value> {
        vec![
            Value::Bool(true),
            Value::Int64(i64::MIN),
            Value::Null,
            Value::String("Grüße".into()),
            Value::Date(-3),
            Value::Timestamp(7),
            Value::String("".into()),
        ]
    }

    #[test]
    fn values_come_back() {
        let row = Row::new(-5, &values());
        let read = Row::from_bytes(row.as_bytes(), &COLUMNS).unwrap();
        assert_eq!(read.time(), -5);
        let back: Vec<Value> =
            COLUMNS.iter().enumerate().map(|(at, t)| read.value(at, 7, *t)).collect();
        assert_eq!(back, values());
        assert!(read.f32(2, 7, DataType::Float64).is_nan());
        assert_eq!(read.f32(0, 7, DataType::Bool).to_bits(), 1f32.to_bits());
    }

    #[test]
    fn damaged_bytes_are_refused() {
        let bytes = Row::new(0, &values()).as_bytes().to_vec();
        for length in 0..bytes.len() {
            assert_eq!(Row::from_bytes(&bytes[..length], &COLUMNS), None, "{length} bytes");
        }
        let mut wrong = bytes;
        wrong[8 + 1] = 7;
        assert_eq!(Row::from_bytes(&wrong, &COLUMNS), None);
    }
}
