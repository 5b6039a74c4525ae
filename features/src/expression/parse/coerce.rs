//! Conversions: those that the surroundings imply and those that a CAST asks for.

use super::super::tree::Node;
use crate::value::{DataType, Value};

/// `node` as `to` where that is implied: a null, a whole number as a float, a day as a moment,
/// a constant text as what it spells. None otherwise.
pub(crate) fn coerce(node: Node, to: DataType) -> Option<Node> {
    let from = node.data_type();
    if matches!(node, Node::Null) {
        return Some(Node::literal(&Value::Null, to));
    }
    if from == to {
        return Some(node);
    }
    if let Some(value) = node.as_literal() {
        let value = match (value, to) {
            (Value::Int64(whole), DataType::Float64) => Value::Float64(whole as f64),
            (Value::String(text), DataType::Date | DataType::Timestamp) => Value::parse(&text, to)?,
            (Value::Null, _) => Value::Null,
            _ => return implied(from, to).then(|| cast(node, to, false)),
        };
        return Some(Node::literal(&value, to));
    }
    implied(from, to).then(|| cast(node, to, false))
}

const fn implied(from: DataType, to: DataType) -> bool {
    matches!(
        (from, to),
        (DataType::Int64, DataType::Float64) | (DataType::Date, DataType::Timestamp)
    )
}

/// `node` converted to `to` as CAST does.
pub(crate) fn explicit_cast(node: Node, to: DataType, try_cast: bool) -> Result<Node, String> {
    use DataType::{Bool, Date, Float64, Int64, Timestamp};
    if matches!(node, Node::Null) {
        return Ok(Node::literal(&Value::Null, to));
    }
    let from = node.data_type();
    let possible = match (from, to) {
        (from, to) if from == to => return Ok(node),
        (DataType::String, _) | (_, DataType::String) => true,
        (Bool | Int64 | Float64, Bool | Int64 | Float64) => true,
        (Date, Timestamp) | (Timestamp, Date) => true,
        _ => false,
    };
    if possible {
        Ok(cast(node, to, try_cast))
    } else {
        Err(format!("{from} cannot be cast to {to}"))
    }
}

fn cast(node: Node, to: DataType, try_cast: bool) -> Node {
    Node::Cast { input: Box::new(node), to, try_cast }
}

/// The nodes, all converted to the one type that suits them.
pub(super) fn unify(nodes: Vec<Node>, what: &str) -> Result<(Vec<Node>, DataType), String> {
    let data_type = common_type(&nodes).map_err(|(a, b)| {
        format!("{what} mixes {a} and {b}; write a CAST for the conversion that is meant")
    })?;
    let unified = nodes
        .into_iter()
        .map(|node| {
            let shown = node.to_string();
            coerce(node, data_type)
                .ok_or_else(|| format!("{shown} is not {}", data_type.expected()))
        })
        .collect::<Result<_, _>>()?;
    Ok((unified, data_type))
}

fn common_type(nodes: &[Node]) -> Result<DataType, (DataType, DataType)> {
    let is_text = |node: &&Node| matches!(node.as_literal(), Some(Value::String(_)));
    let firm = |node: &&Node| !matches!(node, Node::Null) && !is_text(node);
    let mut common = None;
    for data_type in nodes.iter().filter(firm).map(Node::data_type) {
        common = Some(match (common, data_type) {
            (None, only) => only,
            (Some(a), b) if a == b => a,
            (Some(DataType::Int64), DataType::Float64)
            | (Some(DataType::Float64), DataType::Int64) => DataType::Float64,
            (Some(DataType::Date), DataType::Timestamp)
            | (Some(DataType::Timestamp), DataType::Date) => DataType::Timestamp,
            (Some(a), b) => return Err((a, b)),
        });
    }
    let text = nodes.iter().any(|node| is_text(&node)).then_some(DataType::String);
    match (common, text) {
        // A text constant beside a day is read as a day; beside a number it is a mistake.
        (Some(firm @ (DataType::Bool | DataType::Int64 | DataType::Float64)), Some(text)) => {
            Err((firm, text))
        }
        (common, text) => Ok(common.or(text).unwrap_or(DataType::Float64)),
    }
}
