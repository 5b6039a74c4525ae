//! CAST between types. A float becomes a whole number by cutting its fraction off.

use std::sync::Arc;

use super::EvaluateError;
use crate::column::{Column, Values};
use crate::timestamp::MICROS_PER_DAY;
use crate::value::{DataType, Value, parse_bool};

/// `column` as `to`. A value that does not fit is null with `try_cast`, an error without.
pub(crate) fn cast_column(
    column: &Column,
    to: DataType,
    try_cast: bool,
) -> Result<Column, EvaluateError> {
    Ok(match to {
        DataType::Bool => Column::Bool(cast(column, to, try_cast, to_bool)?),
        DataType::Int64 => Column::Int64(cast(column, to, try_cast, to_whole)?),
        DataType::Float64 => Column::Float64(cast(column, to, try_cast, to_float)?),
        DataType::String => Column::String(cast(column, to, try_cast, to_text)?),
        DataType::Date => Column::Date(cast(column, to, try_cast, to_date)?),
        DataType::Timestamp => Column::Timestamp(cast(column, to, try_cast, to_timestamp)?),
    })
}

fn cast<T: Default>(
    column: &Column,
    data_type: DataType,
    try_cast: bool,
    convert: impl Fn(&Value) -> Option<T>,
) -> Result<Values<T>, EvaluateError> {
    let one = |row| {
        let value = column.value(row);
        if value == Value::Null {
            return Ok(None);
        }
        match convert(&value) {
            None if !try_cast => Err(EvaluateError { value: value.to_string(), data_type }),
            converted => Ok(converted),
        }
    };
    let items = (0..column.len()).map(one).collect::<Result<Vec<_>, _>>()?;
    Ok(items.into_iter().collect())
}

fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Int64(whole) => Some(*whole != 0),
        Value::Float64(number) => Some(*number != 0.0),
        Value::String(text) => parse_bool(text.trim()),
        _ => None,
    }
}

fn to_whole(value: &Value) -> Option<i64> {
    match value {
        Value::Bool(truth) => Some(i64::from(*truth)),
        Value::Int64(whole) => Some(*whole),
        Value::Float64(number) => float_to_whole(*number),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

/// The whole part, none when INT64 does not hold it.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the range is checked; the fraction is cut off"
)]
pub(crate) fn float_to_whole(number: f64) -> Option<i64> {
    // -2^63 is a float, 2^63 is the first one above the range.
    let range = -9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0;
    range.contains(&number).then_some(number as i64)
}

fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        Value::Int64(whole) => Some(*whole as f64),
        Value::Float64(number) => Some(*number),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn to_text(value: &Value) -> Option<Arc<str>> {
    match value {
        Value::String(text) => Some(Arc::clone(text)),
        other => Some(other.to_string().into()),
    }
}

fn to_date(value: &Value) -> Option<i32> {
    match value {
        Value::Date(days) => Some(*days),
        Value::Timestamp(micros) => i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok(),
        Value::String(text) => match Value::parse(text.trim(), DataType::Date)? {
            Value::Date(days) => Some(days),
            _ => None,
        },
        _ => None,
    }
}

fn to_timestamp(value: &Value) -> Option<i64> {
    match value {
        Value::Date(days) => Some(i64::from(*days) * MICROS_PER_DAY),
        Value::Timestamp(micros) => Some(*micros),
        Value::String(text) => match Value::parse(text.trim(), DataType::Timestamp)? {
            Value::Timestamp(micros) => Some(micros),
            _ => None,
        },
        _ => None,
    }
}
