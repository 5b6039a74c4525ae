//! Constants and the names of types.

use sqlparser::ast;

use super::super::calendar::{Interval, Unit};
use super::super::tree::Node;
use crate::value::{DataType, Value};

/// A plain constant.
pub(super) fn value(value: &ast::Value) -> Result<Node, String> {
    Ok(match value {
        ast::Value::Number(text, _) => number(text)?,
        ast::Value::SingleQuotedString(text) => {
            Node::literal(&Value::String(text.as_str().into()), DataType::String)
        }
        ast::Value::Boolean(truth) => Node::literal(&Value::Bool(*truth), DataType::Bool),
        ast::Value::Null => Node::Null,
        other => return Err(format!("constant {other} is not supported")),
    })
}

fn number(text: &str) -> Result<Node, String> {
    if let Ok(whole) = text.parse::<i64>() {
        return Ok(Node::literal(&Value::Int64(whole), DataType::Int64));
    }
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && text.contains(['.', 'e', 'E']) => {
            Ok(Node::literal(&Value::Float64(number), DataType::Float64))
        }
        _ => Err(format!("number {text} is out of range")),
    }
}

/// A constant such as `DATE '2020-01-01'`.
pub(super) fn typed(typed: &ast::TypedString) -> Result<Node, String> {
    let data_type = data_type(&typed.data_type)?;
    let ast::Value::SingleQuotedString(text) = &typed.value.value else {
        return Err(format!("constant {typed} is not supported"));
    };
    let value = Value::parse(text, data_type)
        .ok_or_else(|| format!("'{text}' is not {}", data_type.expected()))?;
    Ok(Node::literal(&value, data_type))
}

/// The type that SQL calls by any of its names.
pub(super) fn data_type(sql: &ast::DataType) -> Result<DataType, String> {
    let text = sql.to_string().to_uppercase();
    let name = text.split('(').next().unwrap_or_default().trim();
    Ok(match name {
        "BOOL" | "BOOLEAN" => DataType::Bool,
        "INT64" | "BIGINT" | "INT" | "INTEGER" => DataType::Int64,
        "FLOAT64" | "DOUBLE" | "DOUBLE PRECISION" | "FLOAT" | "REAL" => DataType::Float64,
        "STRING" | "VARCHAR" | "TEXT" | "CHARACTER VARYING" => DataType::String,
        "DATE" => DataType::Date,
        "TIMESTAMP" => DataType::Timestamp,
        _ => {
            return Err(format!(
                "type {sql} is unknown, known are: BOOL, INT64, FLOAT64, STRING, DATE, TIMESTAMP"
            ));
        }
    })
}

/// `INTERVAL '28' DAY`, or with the unit inside the text.
pub(super) fn interval(interval: &ast::Interval) -> Result<Interval, String> {
    let wrong = || format!("{interval} is no interval: write INTERVAL '28' DAY");
    let ast::Expr::Value(value) = interval.value.as_ref() else { return Err(wrong()) };
    let text = match &value.value {
        ast::Value::SingleQuotedString(text) | ast::Value::Number(text, _) => text.as_str(),
        _ => return Err(wrong()),
    };
    let (count, unit) = match (&interval.leading_field, text.split_once(' ')) {
        (Some(field), None) => (text, field.to_string()),
        (None, Some((count, unit))) => (count, unit.trim().to_owned()),
        _ => return Err(wrong()),
    };
    let count = count.trim().parse().map_err(|_| wrong())?;
    Interval::new(count, Unit::parse(&unit)?).ok_or_else(wrong)
}
