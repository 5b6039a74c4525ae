//! The order of values and SQL's three-valued logic.
//!
//! NaN equals itself and is above every number, so that an order is total; 0 equals -0.

use std::cmp::Ordering;

use super::function::Function;
use crate::value::Value;

/// The order of two floats.
pub(super) fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The order of two values of one type; values of two types are alike.
pub(super) fn compare_values(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::Int64(a), Value::Int64(b)) | (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
        (Value::Float64(a), Value::Float64(b)) => compare_floats(*a, *b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        (Value::Date(a), Value::Date(b)) => a.cmp(b),
        _ => Ordering::Equal,
    }
}

/// Whether `ordering` fulfils a comparison.
pub(super) fn holds(function: &Function, ordering: Ordering) -> bool {
    match function {
        Function::Equal => ordering.is_eq(),
        Function::NotEqual => ordering.is_ne(),
        Function::Less => ordering.is_lt(),
        Function::LessOrEqual => ordering.is_le(),
        Function::Greater => ordering.is_gt(),
        _ => ordering.is_ge(),
    }
}

/// AND where null means unknown.
pub(super) fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    }
}

/// OR where null means unknown.
pub(super) fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    }
}
