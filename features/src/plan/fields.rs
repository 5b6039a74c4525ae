//! A request's fields: named columns with as many rows as the request, checked against what a
//! feature service takes.

use std::borrow::Cow;

use crate::column::Column;
use crate::definitions::Field;
use crate::error::FeatureError;
use crate::expression::float_to_whole;
use crate::value::{DataType, Value};

/// Named columns of equal length: a request's entity keys and request fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields {
    columns: Vec<(String, Column)>,
    rows: Option<usize>,
}

impl Fields {
    /// No fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. Fails when it has another number of rows than those before, or was there.
    pub fn push(&mut self, name: impl Into<String>, column: Column) -> Result<(), FeatureError> {
        let (name, found) = (name.into(), column.len());
        let expected = *self.rows.get_or_insert(found);
        if found != expected {
            return Err(FeatureError::RowCount { field: name, found, expected });
        }
        if self.get(&name).is_some() {
            let (value, expected) = ("given twice".into(), "given once".into());
            return Err(FeatureError::InvalidField { field: name, row: 0, value, expected });
        }
        self.columns.push((name, column));
        Ok(())
    }

    /// How many rows the fields have; 0 without fields.
    pub fn rows(&self) -> usize {
        self.rows.unwrap_or(0)
    }

    /// The field of this name.
    pub fn get(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|(known, _)| known == name).map(|(_, column)| column)
    }

    /// The fields' names, in the order they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|(name, _)| name.as_str())
    }
}

impl Field {
    /// The request's column for this field as the field's type, or its default. Whole floats
    /// pass for INT64, whole numbers for FLOAT64, texts for DATE and TIMESTAMP.
    pub(super) fn column_of<'a>(
        &self,
        fields: &'a Fields,
        rows: usize,
    ) -> Result<Cow<'a, Column>, FeatureError> {
        let expected = || self.data_type.expected().to_owned();
        let Some(column) = fields.get(&self.name) else {
            if self.required {
                return Err(FeatureError::MissingField {
                    field: self.name.clone(),
                    expected: expected(),
                });
            }
            return Ok(Cow::Owned(Column::repeat(&self.default, self.data_type, rows)));
        };
        let null = (0..rows).find(|row| column.is_null(*row));
        match null {
            Some(row) if self.required => Err(self.invalid(row, "null")),
            None if column.data_type() == self.data_type => Ok(Cow::Borrowed(column)),
            _ => self.converted(column, rows).map(Cow::Owned),
        }
    }

    fn converted(&self, column: &Column, rows: usize) -> Result<Column, FeatureError> {
        let convert = |row: usize| match (column.value(row), self.data_type) {
            (Value::Null, _) => Ok(self.default.clone()),
            (value, data_type) if value.data_type() == Some(data_type) => Ok(value),
            (Value::Float64(number), DataType::Int64)
                if number.is_finite() && is_inexact(number) =>
            {
                Err(self
                    .invalid(row, &format!("{number}, which floats hold for its neighbours too,")))
            }
            (value, data_type) => {
                convert(&value, data_type).ok_or_else(|| self.invalid(row, &shown(&value)))
            }
        };
        let values = (0..rows).map(convert).collect::<Result<Vec<_>, _>>()?;
        Ok(Column::from_values(self.data_type, values.iter()).expect("converted to this type"))
    }

    fn invalid(&self, row: usize, value: &str) -> FeatureError {
        FeatureError::InvalidField {
            field: self.name.clone(),
            row,
            value: value.to_owned(),
            expected: self.data_type.expected().to_owned(),
        }
    }
}

/// Whether a whole float may be what is left of another whole number: 2^53 is, of the one behind it.
fn is_inexact(number: f64) -> bool {
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    number.abs() >= EXACT_BELOW
}

/// A value as another type, none where that would not be the same. Floats are known to be exact.
fn convert(value: &Value, to: DataType) -> Option<Value> {
    match (value, to) {
        (Value::Float64(number), DataType::Int64) if number.fract() == 0.0 => {
            float_to_whole(*number).map(Value::Int64)
        }
        (Value::Int64(whole), DataType::Float64) => Some(Value::Float64(*whole as f64)),
        (Value::String(text), DataType::Date | DataType::Timestamp) => Value::parse(text, to),
        _ => None,
    }
}

/// A value for a message: texts quoted and cut short.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.chars().take(60).collect::<String>()),
        other => other.to_string(),
    }
}
