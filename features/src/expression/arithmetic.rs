//! Arithmetic on single numbers. Floats follow IEEE 754; whole numbers that leave their range
//! or are divided by zero give null, since a request cannot be failed for one odd row.

use super::function::Function;

pub(super) fn whole(function: &Function, a: i64, b: i64) -> Option<i64> {
    match function {
        Function::Add => a.checked_add(b),
        Function::Subtract => a.checked_sub(b),
        Function::Multiply => a.checked_mul(b),
        Function::Divide => a.checked_div(b),
        _ => a.checked_rem(b),
    }
}

pub(super) fn float(function: &Function, a: f64, b: f64) -> f64 {
    match function {
        Function::Add => a + b,
        Function::Subtract => a - b,
        Function::Multiply => a * b,
        Function::Divide => a / b,
        Function::Modulo => a % b,
        _ => a.powf(b),
    }
}

pub(super) fn float_of_one(function: &Function, x: f64) -> f64 {
    match function {
        Function::Negate => -x,
        Function::Abs => x.abs(),
        Function::Ln => x.ln(),
        Function::Exp => x.exp(),
        Function::Sqrt => x.sqrt(),
        Function::Floor => x.floor(),
        Function::Ceil => x.ceil(),
        Function::Round(digits) => round(x, *digits),
        _ => x,
    }
}

/// Half away from zero. What has no digits to lose (too large, not finite) stays as it is.
fn round(x: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    let rounded = (x * scale).round() / scale;
    if rounded.is_finite() { rounded } else { x }
}

/// The least or greatest known value.
pub(super) fn extreme<T>(
    a: Option<T>,
    b: Option<T>,
    wanted: std::cmp::Ordering,
    compare: impl Fn(&T, &T) -> std::cmp::Ordering,
) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if compare(&b, &a) == wanted { b } else { a }),
        (a, b) => a.or(b),
    }
}
