//! Types and single values of fields and features.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::timestamp::{Timestamp, date_of, parse_date, parse_timestamp};

/// The type of a column, field or feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataType {
    /// True or false.
    Bool,
    /// A 64-bit whole number.
    Int64,
    /// A 64-bit floating point number.
    Float64,
    /// UTF-8 text.
    String,
    /// A calendar day.
    Date,
    /// A moment in UTC, to the microsecond.
    Timestamp,
}

impl DataType {
    /// All types, in the order of their one-byte codes in stored rows.
    pub const ALL: [Self; 6] =
        [Self::Bool, Self::Int64, Self::Float64, Self::String, Self::Date, Self::Timestamp];

    /// The type as definitions spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Int64 => "INT64",
            Self::Float64 => "FLOAT64",
            Self::String => "STRING",
            Self::Date => "DATE",
            Self::Timestamp => "TIMESTAMP",
        }
    }

    /// What a value of this type looks like, for messages.
    pub const fn expected(self) -> &'static str {
        match self {
            Self::Bool => "a BOOL (true or false)",
            Self::Int64 => "an INT64 (a whole number)",
            Self::Float64 => "a FLOAT64 (a number)",
            Self::String => "a STRING (text)",
            Self::Date => "a DATE (YYYY-MM-DD)",
            Self::Timestamp => "a TIMESTAMP (RFC 3339)",
        }
    }

    /// Whether arithmetic takes it.
    pub const fn is_number(self) -> bool {
        matches!(self, Self::Int64 | Self::Float64)
    }
}

impl std::fmt::Display for DataType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A single value, or null.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Unknown.
    Null,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int64(i64),
    /// A floating point number.
    Float64(f64),
    /// Text.
    String(Arc<str>),
    /// Days since 1970-01-01.
    Date(i32),
    /// Microseconds since 1970-01-01 in UTC.
    Timestamp(i64),
}

impl Value {
    /// The value's type, none for null.
    pub const fn data_type(&self) -> Option<DataType> {
        Some(match self {
            Self::Null => return None,
            Self::Bool(_) => DataType::Bool,
            Self::Int64(_) => DataType::Int64,
            Self::Float64(_) => DataType::Float64,
            Self::String(_) => DataType::String,
            Self::Date(_) => DataType::Date,
            Self::Timestamp(_) => DataType::Timestamp,
        })
    }

    /// Reads `text` as a value of `data_type`, as a source file or a command line spells it.
    pub fn parse(text: &str, data_type: DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Bool => Self::Bool(parse_bool(text)?),
            DataType::Int64 => Self::Int64(text.parse().ok()?),
            DataType::Float64 => Self::Float64(text.parse().ok()?),
            DataType::String => Self::String(text.into()),
            DataType::Date => Self::Date(parse_date(text)?),
            DataType::Timestamp => Self::Timestamp(parse_timestamp(text)?),
        })
    }

    /// The value in JSON: days and moments as text, NaN and the infinities as text too.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int64(value) => (*value).into(),
            Self::Float64(value) => number_to_json(*value),
            Self::String(value) => value.as_ref().into(),
            Self::Date(_) | Self::Timestamp(_) => self.to_string().into(),
        }
    }
}

/// A number in JSON, which has no NaN and no infinities: those become text.
pub(crate) fn number_to_json(value: f64) -> serde_json::Value {
    serde_json::Number::from_f64(value)
        .map_or_else(|| value.to_string().into(), serde_json::Value::Number)
}

/// Reads what SQL and the common file formats write for truth values.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "true" | "TRUE" | "True" | "t" | "1" => Some(true),
        "false" | "FALSE" | "False" | "f" | "0" => Some(false),
        _ => None,
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => value.fmt(f),
            Self::Int64(value) => value.fmt(f),
            Self::Float64(value) => write!(f, "{value:?}"),
            Self::String(value) => f.write_str(value),
            Self::Date(days) => match date_of(*days) {
                Some(date) => date.fmt(f),
                None => write!(f, "day {days}"),
            },
            Self::Timestamp(micros) => Timestamp(*micros).fmt(f),
        }
    }
}
