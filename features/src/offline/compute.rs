//! Expressions with windows over a source's table: first what feeds the windows, then the
//! windows, then what is made of them.

use datafusion::prelude::{DataFrame, Expr};

use super::session::column;
use super::source::column_name;
use super::{function, window};
use crate::error::FeatureError;
use crate::expression::{Expression, Node, Window};

/// The table with `key`, `time`, `pos` and one column per output, computed over the columns of
/// a source of so many `columns`.
pub(super) fn compute(
    table: DataFrame,
    columns: usize,
    outputs: &[(String, &Expression)],
) -> Result<DataFrame, FeatureError> {
    let mut windows: Vec<&Window> = Vec::new();
    for (_, expression) in outputs {
        expression.node().visit(&mut |node| {
            if let Node::Window(window) = node
                && !windows.contains(&window.as_ref())
            {
                windows.push(window);
            }
        });
    }
    let table = feed(table, columns, &windows)?;
    let table = if windows.is_empty() { table } else { apply(table, &windows)? };
    let name_of = |index: usize| match index.checked_sub(columns) {
        Some(window) => column(format!("w{window}")),
        None => column(column_name(index)),
    };
    let mut selected: Vec<Expr> = ["key", "time", "pos"].map(column).into();
    for (name, expression) in outputs {
        let over_windows = expression.node().rewrite(&mut |node| match node {
            Node::Window(window) => {
                let at = windows.iter().position(|known| *known == window.as_ref())?;
                let data_type = window.data_type();
                Some(Node::Column { index: columns + at, name: format!("w{at}").into(), data_type })
            }
            _ => None,
        });
        selected.push(function::call(&Expression::from_node(over_windows), name_of).alias(name));
    }
    Ok(table.select(selected)?)
}

/// Adds each window's argument and filter as columns `a0`, `b0`, ...
fn feed(table: DataFrame, columns: usize, windows: &[&Window]) -> Result<DataFrame, FeatureError> {
    let source = |index: usize| column(column_name(index));
    let mut selected: Vec<Expr> = ["key", "time", "pos"].map(column).into();
    selected.extend((0..columns).map(source));
    for (at, window) in windows.iter().enumerate() {
        for (prefix, node) in [("a", &window.argument), ("b", &window.filter)] {
            if let Some(node) = node {
                let expression = Expression::from_node(node.clone());
                selected.push(function::call(&expression, source).alias(format!("{prefix}{at}")));
            }
        }
    }
    Ok(table.select(selected)?)
}

/// Adds the windows' values as columns `w0`, `w1`, ...
fn apply(table: DataFrame, windows: &[&Window]) -> Result<DataFrame, FeatureError> {
    let mut calls = Vec::new();
    for (at, window) in windows.iter().enumerate() {
        let argument = window.argument.is_some().then(|| column(format!("a{at}")));
        let filter = window.filter.is_some().then(|| column(format!("b{at}")));
        calls.push(window::call(window, argument, filter)?.alias(format!("w{at}")));
    }
    Ok(table.window(calls)?)
}
