//! Expressions with SQL's syntax: parsed once into a small typed tree, computed by one columnar
//! evaluator. Online and offline run the same tree, so they give the same bits.
//!
//! Names are case-sensitive. Arithmetic, comparison and the three-valued logic are SQL's, with
//! these choices where dialects differ: whole numbers divided by zero or out of range give null,
//! NaN equals itself and is above every number, `pow`, `floor`, `ceil` and `round` give FLOAT64.

mod arithmetic;
mod calendar;
mod cast;
mod compare;
mod evaluate;
mod function;
mod nearest;
mod parse;
mod schema;
mod tree;
mod window;

#[cfg(test)]
mod tests;

use crate::column::Column;
use crate::value::DataType;

#[cfg(feature = "offline")]
pub(crate) use cast::cast_column;
pub(crate) use cast::float_to_whole;
pub(crate) use nearest::nearest;
pub(crate) use parse::Windows;
pub(crate) use schema::Schema;
pub(crate) use tree::Node;
#[cfg(feature = "offline")]
pub(crate) use window::Window;

/// A value for which an expression cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("CAST of {value} to {data_type} failed; TRY_CAST gives null instead")]
pub struct EvaluateError {
    /// The value, as text.
    pub value: String,
    /// The type that it could not be cast to.
    pub data_type: DataType,
}

/// A typed expression over the columns of a [`Schema`].
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expression {
    node: Node,
}

impl Expression {
    /// Parses and types `text`; what is wrong comes back as a sentence fragment.
    pub(crate) fn parse(text: &str, schema: &Schema, windows: Windows) -> Result<Self, String> {
        Ok(Self { node: parse::parse(text, schema, windows)? })
    }

    /// The words in `text` that may be names of columns: a superset of what it reads.
    pub(crate) fn words(text: &str) -> Vec<String> {
        parse::words(text)
    }

    pub(crate) const fn from_node(node: Node) -> Self {
        Self { node }
    }

    /// The type of the result.
    pub(crate) fn data_type(&self) -> DataType {
        self.node.data_type()
    }

    /// The same expression, cast to `to` where that loses nothing and is usual: a whole number
    /// to a float, a day to a moment, a bool to a number.
    #[cfg(feature = "offline")]
    pub(crate) fn coerced(self, to: DataType) -> Option<Self> {
        parse::coerce(self.node, to).map(Self::from_node)
    }

    /// The same expression with an explicit SQL cast to `to`.
    #[cfg(feature = "offline")]
    pub(crate) fn cast(self, to: DataType) -> Option<Self> {
        parse::explicit_cast(self.node, to, false).ok().map(Self::from_node)
    }

    pub(crate) const fn node(&self) -> &Node {
        &self.node
    }

    /// The column that the expression merely names.
    pub(crate) fn as_column(&self) -> Option<usize> {
        match self.node {
            Node::Column { index, .. } => Some(index),
            _ => None,
        }
    }

    /// The indices of the columns that the expression reads, ascending.
    pub(crate) fn columns(&self) -> Vec<usize> {
        let mut columns = Vec::new();
        self.node.visit(&mut |node| {
            if let Node::Column { index, .. } = node {
                columns.push(*index);
            }
        });
        columns.sort_unstable();
        columns.dedup();
        columns
    }

    /// Computes the expression, which must hold no window, over `rows` rows. `inputs[i]` is the
    /// schema's column `i`, of its type and as long as `rows` wherever the expression reads it.
    pub(crate) fn evaluate(
        &self,
        inputs: &[&Column],
        rows: usize,
    ) -> Result<Column, EvaluateError> {
        evaluate::evaluate(&self.node, inputs, rows)
    }
}

impl std::fmt::Display for Expression {
    /// The canonical form: fully parenthesised, with every implied cast written out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.node.fmt(f)
    }
}
