//! Columns of values: what expressions read and give, and what a request's fields are.

use std::sync::Arc;

use crate::value::{DataType, Value};

/// The values of a column and which of them are known. A null's slot holds a default.
#[derive(Debug, Clone, PartialEq)]
pub struct Values<T> {
    values: Vec<T>,
    valid: Option<Vec<bool>>,
}

impl<T> Values<T> {
    /// Values of which none is null.
    pub fn new(values: Vec<T>) -> Self {
        Self { values, valid: None }
    }

    /// The value at `row`, none when it is null. Panics past the end.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&T> {
        match &self.valid {
            Some(valid) if !valid[row] => None,
            _ => Some(&self.values[row]),
        }
    }

    /// How many values, nulls included.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The values in order, none for a null.
    pub fn iter(&self) -> impl Iterator<Item = Option<&T>> {
        (0..self.len()).map(|row| self.get(row))
    }

    /// The raw slots, which hold a default where the value is null.
    #[cfg(feature = "offline")]
    pub(crate) fn slots(&self) -> &[T] {
        &self.values
    }
}

impl<T: Default> FromIterator<Option<T>> for Values<T> {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(items: I) -> Self {
        let items = items.into_iter();
        let mut values = Vec::with_capacity(items.size_hint().0);
        let mut valid: Option<Vec<bool>> = None;
        for item in items {
            if item.is_none() && valid.is_none() {
                valid = Some(vec![true; values.len()]);
            }
            if let Some(valid) = &mut valid {
                valid.push(item.is_some());
            }
            values.push(item.unwrap_or_default());
        }
        Self { values, valid }
    }
}

/// A column: values of one type, each of which may be null.
#[derive(Debug, Clone, PartialEq)]
pub enum Column {
    /// Truth values.
    Bool(Values<bool>),
    /// Whole numbers.
    Int64(Values<i64>),
    /// Floating point numbers.
    Float64(Values<f64>),
    /// Texts.
    String(Values<Arc<str>>),
    /// Days since 1970-01-01.
    Date(Values<i32>),
    /// Microseconds since 1970-01-01 in UTC.
    Timestamp(Values<i64>),
}

/// Runs `$body` with `$values` bound to the values of `$column`, whatever their type.
macro_rules! each {
    ($column:expr, $values:ident => $body:expr) => {
        match $column {
            Column::Bool($values) => $body,
            Column::Int64($values) => $body,
            Column::Float64($values) => $body,
            Column::String($values) => $body,
            Column::Date($values) => $body,
            Column::Timestamp($values) => $body,
        }
    };
}

impl Column {
    /// A column of `values`, all of `data_type` or null; none if one is of another type.
    pub fn from_values<'a>(
        data_type: DataType,
        values: impl Iterator<Item = &'a Value>,
    ) -> Option<Self> {
        macro_rules! collect {
            ($variant:ident, $convert:expr) => {{
                let items = values.map(|value| match value {
                    Value::Null => Some(None),
                    Value::$variant(value) => Some(Some($convert(value))),
                    _ => None,
                });
                Self::$variant(items.collect::<Option<Vec<_>>>()?.into_iter().collect())
            }};
        }
        Some(match data_type {
            DataType::Bool => collect!(Bool, |v: &bool| *v),
            DataType::Int64 => collect!(Int64, |v: &i64| *v),
            DataType::Float64 => collect!(Float64, |v: &f64| *v),
            DataType::String => collect!(String, Arc::clone),
            DataType::Date => collect!(Date, |v: &i32| *v),
            DataType::Timestamp => collect!(Timestamp, |v: &i64| *v),
        })
    }

    /// `rows` times the same value; a null is one of `data_type`.
    pub fn repeat(value: &Value, data_type: DataType, rows: usize) -> Self {
        match value {
            Value::Null => Self::nulls(data_type, rows),
            Value::Bool(value) => Self::Bool(Values::new(vec![*value; rows])),
            Value::Int64(value) => Self::Int64(Values::new(vec![*value; rows])),
            Value::Float64(value) => Self::Float64(Values::new(vec![*value; rows])),
            Value::String(value) => Self::String(Values::new(vec![Arc::clone(value); rows])),
            Value::Date(value) => Self::Date(Values::new(vec![*value; rows])),
            Value::Timestamp(value) => Self::Timestamp(Values::new(vec![*value; rows])),
        }
    }

    /// `rows` nulls of a type.
    pub fn nulls(data_type: DataType, rows: usize) -> Self {
        fn none<T: Default>(rows: usize) -> Values<T> {
            (0..rows).map(|_| None).collect()
        }
        match data_type {
            DataType::Bool => Self::Bool(none(rows)),
            DataType::Int64 => Self::Int64(none(rows)),
            DataType::Float64 => Self::Float64(none(rows)),
            DataType::String => Self::String(none(rows)),
            DataType::Date => Self::Date(none(rows)),
            DataType::Timestamp => Self::Timestamp(none(rows)),
        }
    }

    /// The type of the values.
    pub const fn data_type(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::Int64(_) => DataType::Int64,
            Self::Float64(_) => DataType::Float64,
            Self::String(_) => DataType::String,
            Self::Date(_) => DataType::Date,
            Self::Timestamp(_) => DataType::Timestamp,
        }
    }

    /// How many values, nulls included.
    pub fn len(&self) -> usize {
        each!(self, values => values.len())
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the value at `row` is null. Panics past the end.
    pub fn is_null(&self, row: usize) -> bool {
        each!(self, values => values.get(row).is_none())
    }

    /// The value at `row`. Panics past the end.
    pub fn value(&self, row: usize) -> Value {
        fn or_null<T: Clone>(value: Option<&T>, wrap: impl Fn(T) -> Value) -> Value {
            value.cloned().map_or(Value::Null, wrap)
        }
        match self {
            Self::Bool(values) => or_null(values.get(row), Value::Bool),
            Self::Int64(values) => or_null(values.get(row), Value::Int64),
            Self::Float64(values) => or_null(values.get(row), Value::Float64),
            Self::String(values) => or_null(values.get(row), Value::String),
            Self::Date(values) => or_null(values.get(row), Value::Date),
            Self::Timestamp(values) => or_null(values.get(row), Value::Timestamp),
        }
    }

    /// The rows at `rows`, a null where there is none. Panics past the end.
    pub fn take(&self, rows: impl Iterator<Item = Option<usize>>) -> Self {
        fn pick<T: Clone + Default>(
            values: &Values<T>,
            rows: impl Iterator<Item = Option<usize>>,
        ) -> Values<T> {
            rows.map(|row| row.and_then(|row| values.get(row).cloned())).collect()
        }
        match self {
            Self::Bool(values) => Self::Bool(pick(values, rows)),
            Self::Int64(values) => Self::Int64(pick(values, rows)),
            Self::Float64(values) => Self::Float64(pick(values, rows)),
            Self::String(values) => Self::String(pick(values, rows)),
            Self::Date(values) => Self::Date(pick(values, rows)),
            Self::Timestamp(values) => Self::Timestamp(pick(values, rows)),
        }
    }

    /// Writes the values as a model's 32-bit inputs, null as NaN: row `r` goes to
    /// `out[r * stride + offset]`. Only Bool, Int64 and Float64 are numbers; others give NaN.
    pub(crate) fn write_f32(&self, out: &mut [f32], stride: usize, offset: usize) {
        fn write<T>(
            values: &Values<T>,
            out: &mut [f32],
            (stride, offset): (usize, usize),
            convert: impl Fn(&T) -> f32,
        ) {
            let slots = out.iter_mut().skip(offset).step_by(stride);
            slots
                .zip(values.iter())
                .for_each(|(slot, value)| *slot = value.map_or(f32::NAN, &convert));
        }
        let at = (stride, offset);
        match self {
            Self::Bool(values) => write(values, out, at, |v| f32::from(u8::from(*v))),
            Self::Int64(values) => write(values, out, at, |v| narrow(*v as f64)),
            Self::Float64(values) => write(values, out, at, |v| narrow(*v)),
            Self::String(_) | Self::Date(_) | Self::Timestamp(_) => {
                out.iter_mut().skip(offset).step_by(stride).for_each(|slot| *slot = f32::NAN);
            }
        }
    }
}

/// The one way from a feature's 64 bits to a model's 32: whole numbers go over 64-bit floats.
#[expect(clippy::cast_possible_truncation, reason = "models read 32-bit inputs")]
pub(crate) fn narrow(value: f64) -> f32 {
    value as f32
}

#[cfg(test)]
mod tests {
    use super::{Column, Values};
    use crate::value::{DataType, Value};

    #[test]
    fn a_null_keeps_its_place() {
        let column = Column::Int64([Some(1), None, Some(3)].into_iter().collect());
        assert_eq!(column.value(1), Value::Null);
        assert_eq!(column.value(2), Value::Int64(3));
        let taken = column.take([Some(2), None, Some(1)].into_iter());
        assert_eq!(taken, Column::Int64([Some(3), None, None].into_iter().collect()));
        assert_eq!(Column::nulls(DataType::Date, 2).len(), 2);
    }

    #[test]
    fn model_inputs_are_written_by_row() {
        let mut out = [0.0; 4];
        Column::Float64([Some(1.5), None].into_iter().collect()).write_f32(&mut out, 2, 1);
        Column::Bool(Values::new(vec![true, false])).write_f32(&mut out, 2, 0);
        assert_eq!(out[..3], [1.0, 1.5, 0.0]);
        assert!(out[3].is_nan());
    }

    #[test]
    fn values_of_two_types_make_no_column() {
        let values = [Value::Int64(1), Value::Float64(2.0)];
        assert_eq!(Column::from_values(DataType::Int64, values.iter()), None);
    }
}
