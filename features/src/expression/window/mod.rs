//! Values over an entity's own rows in time order: what they are. They are computed offline
//! only; online, a row holds them.

#[cfg(any(test, feature = "offline"))]
mod evaluate;

use std::fmt;

use super::tree::Node;
use crate::value::DataType;

/// The farthest that a frame or an offset reaches, in rows.
pub(super) const MAX_FRAME_ROWS: usize = 100_000;

/// A window call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Window {
    pub(crate) function: WindowFunction,
    /// What is looked at in each row; none for `count(*)`.
    pub(crate) argument: Option<Node>,
    /// Only rows for which this is true are aggregated.
    pub(crate) filter: Option<Node>,
}

/// What a window computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum WindowFunction {
    /// The value so many rows before.
    Lag(usize),
    /// The value so many rows after.
    Lead(usize),
    /// How many rows up to this one have its value without a break; nulls are alike. It has no
    /// frame: it counts back through all rows that are read.
    RunLength,
    /// An aggregate over a frame.
    Aggregate(Aggregate, Frame),
}

/// An aggregate over the values of a frame that are not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Avg,
    Count,
    Max,
    Min,
    /// Of a sample: over n - 1; null for fewer than two values.
    Stddev,
    Sum,
}

/// The rows that an aggregate reads, relative to the current one, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Counted in rows.
    Rows { start: i64, end: i64 },
    /// By their time, in microseconds.
    Range { start: i64, end: i64 },
}

impl Aggregate {
    pub(super) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "avg" => Self::Avg,
            "count" => Self::Count,
            "max" => Self::Max,
            "min" => Self::Min,
            "stddev" => Self::Stddev,
            "sum" => Self::Sum,
            _ => return None,
        })
    }
}

impl Frame {
    const fn looks_ahead(self) -> bool {
        let (Self::Rows { end, .. } | Self::Range { end, .. }) = self;
        end > 0
    }
}

impl Window {
    pub(crate) fn data_type(&self) -> DataType {
        let argument = || self.argument.as_ref().map_or(DataType::Int64, Node::data_type);
        match self.function {
            WindowFunction::RunLength | WindowFunction::Aggregate(Aggregate::Count, _) => {
                DataType::Int64
            }
            WindowFunction::Aggregate(Aggregate::Avg | Aggregate::Stddev, _) => DataType::Float64,
            WindowFunction::Lag(_) | WindowFunction::Lead(_) | WindowFunction::Aggregate(..) => {
                argument()
            }
        }
    }

    /// The row-by-row expressions that feed the window.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Node> {
        self.argument.iter().chain(&self.filter)
    }

    /// Whether the window reads rows after the current one.
    pub(crate) fn looks_ahead(&self) -> bool {
        match self.function {
            WindowFunction::Lead(offset) => offset > 0,
            WindowFunction::Aggregate(_, frame) => frame.looks_ahead(),
            WindowFunction::Lag(_) | WindowFunction::RunLength => false,
        }
    }

    pub(super) fn rewrite(&self, replace: &mut dyn FnMut(&Node) -> Option<Node>) -> Self {
        Self {
            function: self.function,
            argument: self.argument.as_ref().map(|node| node.rewrite(replace)),
            filter: self.filter.as_ref().map(|node| node.rewrite(replace)),
        }
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.function {
            WindowFunction::Lag(_) => "lag",
            WindowFunction::Lead(_) => "lead",
            WindowFunction::RunLength => "run_length",
            WindowFunction::Aggregate(Aggregate::Avg, _) => "avg",
            WindowFunction::Aggregate(Aggregate::Count, _) => "count",
            WindowFunction::Aggregate(Aggregate::Max, _) => "max",
            WindowFunction::Aggregate(Aggregate::Min, _) => "min",
            WindowFunction::Aggregate(Aggregate::Stddev, _) => "stddev",
            WindowFunction::Aggregate(Aggregate::Sum, _) => "sum",
        };
        write!(f, "{name}(")?;
        match &self.argument {
            Some(argument) => argument.fmt(f)?,
            None => f.write_str("*")?,
        }
        if let WindowFunction::Lag(offset) | WindowFunction::Lead(offset) = self.function {
            write!(f, ", {offset}")?;
        }
        f.write_str(")")?;
        if let Some(filter) = &self.filter {
            write!(f, " FILTER (WHERE {filter})")?;
        }
        match self.function {
            WindowFunction::Aggregate(_, Frame::Rows { start, end }) => {
                write!(f, " OVER (rows {start} to {end})")
            }
            WindowFunction::Aggregate(_, Frame::Range { start, end }) => {
                write!(f, " OVER (range {start} to {end} micros)")
            }
            _ => f.write_str(" OVER ()"),
        }
    }
}
