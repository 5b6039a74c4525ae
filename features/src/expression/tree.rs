//! The typed tree that an expression is parsed into.

use std::fmt;
use std::sync::Arc;

use super::function::Function;
use super::window::Window;
use crate::column::Column;
use crate::value::{DataType, Value};

/// A node of the tree. Every node has one type; implied casts stand in the tree.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    /// An input column.
    Column { index: usize, name: Arc<str>, data_type: DataType },
    /// A constant: a column of one value, so that the evaluator can lend it out.
    Literal(Column),
    /// A null whose type its surroundings decide.
    Null,
    /// An explicit or implied conversion; `try_cast` gives null where it fails.
    Cast { input: Box<Node>, to: DataType, try_cast: bool },
    /// A function or operator over whole columns.
    Call { function: Function, arguments: Vec<Node>, data_type: DataType },
    /// The first branch whose condition is true, else `otherwise`.
    Case { branches: Vec<(Node, Node)>, otherwise: Box<Node>, data_type: DataType },
    /// A value over the entity's own rows in time order.
    Window(Box<Window>),
}

impl Node {
    pub(crate) fn literal(value: &Value, data_type: DataType) -> Self {
        Self::Literal(Column::repeat(value, data_type, 1))
    }

    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Self::Column { data_type, .. }
            | Self::Call { data_type, .. }
            | Self::Case { data_type, .. } => *data_type,
            Self::Literal(column) => column.data_type(),
            Self::Null => DataType::Float64,
            Self::Cast { to, .. } => *to,
            Self::Window(window) => window.data_type(),
        }
    }

    /// The constant that the node is.
    pub(crate) fn as_literal(&self) -> Option<Value> {
        match self {
            Self::Literal(column) => Some(column.value(0)),
            Self::Null => Some(Value::Null),
            _ => None,
        }
    }

    /// Calls `seen` for this node and all below, those inside windows included.
    pub(crate) fn visit<'a>(&'a self, seen: &mut dyn FnMut(&'a Self)) {
        seen(self);
        match self {
            Self::Column { .. } | Self::Literal(_) | Self::Null => {}
            Self::Cast { input, .. } => input.visit(seen),
            Self::Call { arguments, .. } => arguments.iter().for_each(|node| node.visit(seen)),
            Self::Case { branches, otherwise, .. } => {
                for (condition, result) in branches {
                    condition.visit(seen);
                    result.visit(seen);
                }
                otherwise.visit(seen);
            }
            Self::Window(window) => window.inputs().for_each(|node| node.visit(seen)),
        }
    }

    /// The tree with every node for which `replace` gives another one replaced by it.
    pub(crate) fn rewrite(&self, replace: &mut dyn FnMut(&Self) -> Option<Self>) -> Self {
        if let Some(other) = replace(self) {
            return other;
        }
        match self {
            Self::Column { .. } | Self::Literal(_) | Self::Null => self.clone(),
            Self::Cast { input, to, try_cast } => {
                Self::Cast { input: Box::new(input.rewrite(replace)), to: *to, try_cast: *try_cast }
            }
            Self::Call { function, arguments, data_type } => Self::Call {
                function: function.clone(),
                arguments: arguments.iter().map(|node| node.rewrite(replace)).collect(),
                data_type: *data_type,
            },
            Self::Case { branches, otherwise, data_type } => Self::Case {
                branches: branches
                    .iter()
                    .map(|(when, then)| (when.rewrite(replace), then.rewrite(replace)))
                    .collect(),
                otherwise: Box::new(otherwise.rewrite(replace)),
                data_type: *data_type,
            },
            Self::Window(window) => Self::Window(Box::new(window.rewrite(replace))),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Column { name, .. } => write!(f, "\"{}\"", name.replace('"', "\"\"")),
            Self::Literal(column) => fmt_literal(&column.value(0), column.data_type(), f),
            Self::Null => f.write_str("NULL"),
            Self::Cast { input, to, try_cast } => {
                let keyword = if *try_cast { "TRY_CAST" } else { "CAST" };
                write!(f, "{keyword}({input} AS {to})")
            }
            Self::Call { function, arguments, .. } => {
                write!(f, "{function}(")?;
                fmt_list(arguments, f)?;
                f.write_str(")")
            }
            Self::Case { branches, otherwise, .. } => {
                f.write_str("CASE")?;
                for (condition, result) in branches {
                    write!(f, " WHEN {condition} THEN {result}")?;
                }
                write!(f, " ELSE {otherwise} END")
            }
            Self::Window(window) => write!(f, "{window}"),
        }
    }
}

fn fmt_literal(value: &Value, data_type: DataType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match value {
        Value::Null => write!(f, "CAST(NULL AS {data_type})"),
        Value::String(text) => write!(f, "'{}'", text.replace('\'', "''")),
        Value::Date(_) | Value::Timestamp(_) => write!(f, "{data_type} '{value}'"),
        _ => write!(f, "{value}"),
    }
}

fn fmt_list(nodes: &[Node], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, node) in nodes.iter().enumerate() {
        if at > 0 {
            f.write_str(", ")?;
        }
        write!(f, "{node}")?;
    }
    Ok(())
}
