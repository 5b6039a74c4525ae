//! The functions and operators that expressions know.

use super::calendar::{Interval, Unit};

/// A function or operator over columns, row by row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Function {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Negate,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    And,
    Or,
    Not,
    IsNull,
    Coalesce,
    NullIf,
    Least,
    Greatest,
    Abs,
    Ln,
    Exp,
    Sqrt,
    Pow,
    Floor,
    Ceil,
    /// To so many digits after the point.
    Round(i32),
    Lower,
    Upper,
    Length,
    Extract(Unit),
    Truncate(Unit),
    /// A day and a number of days.
    AddDays,
    /// Days between two days.
    DaysBetween,
    AddInterval(Interval),
}

/// The functions that are written by name, without those that only a window can compute.
pub(super) const NAMES: [&str; 20] = [
    "abs",
    "ceil",
    "ceiling",
    "coalesce",
    "date_part",
    "date_trunc",
    "exp",
    "extract",
    "floor",
    "greatest",
    "least",
    "length",
    "ln",
    "lower",
    "nullif",
    "pow",
    "power",
    "round",
    "sqrt",
    "upper",
];

/// The functions that only a window can compute.
pub(super) const WINDOW_NAMES: [&str; 9] =
    ["avg", "count", "lag", "lead", "max", "min", "run_length", "stddev", "sum"];

impl std::fmt::Display for Function {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Add => "add",
            Self::Subtract => "subtract",
            Self::Multiply => "multiply",
            Self::Divide => "divide",
            Self::Modulo => "modulo",
            Self::Negate => "negate",
            Self::Equal => "equal",
            Self::NotEqual => "not_equal",
            Self::Less => "less",
            Self::LessOrEqual => "less_or_equal",
            Self::Greater => "greater",
            Self::GreaterOrEqual => "greater_or_equal",
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::IsNull => "is_null",
            Self::Coalesce => "coalesce",
            Self::NullIf => "nullif",
            Self::Least => "least",
            Self::Greatest => "greatest",
            Self::Abs => "abs",
            Self::Ln => "ln",
            Self::Exp => "exp",
            Self::Sqrt => "sqrt",
            Self::Pow => "pow",
            Self::Floor => "floor",
            Self::Ceil => "ceil",
            Self::Round(digits) => return write!(f, "round[{digits}]"),
            Self::Lower => "lower",
            Self::Upper => "upper",
            Self::Length => "length",
            Self::Extract(unit) => return write!(f, "extract[{unit}]"),
            Self::Truncate(unit) => return write!(f, "date_trunc[{unit}]"),
            Self::AddDays => "add_days",
            Self::DaysBetween => "days_between",
            Self::AddInterval(interval) => return write!(f, "add_interval[{interval}]"),
        })
    }
}
