//! Operators: arithmetic, comparison, logic, BETWEEN and IN.

use sqlparser::ast::{self, BinaryOperator, UnaryOperator};

use super::super::calendar::Interval;
use super::super::function::Function;
use super::super::tree::Node;
use super::coerce::{coerce, unify};
use super::{Typer, call, literal, not};
use crate::value::{DataType, Value};

impl Typer<'_> {
    pub(super) fn unary(&mut self, op: UnaryOperator, expr: &ast::Expr) -> Result<Node, String> {
        match op {
            UnaryOperator::Not => Ok(not(self.condition(expr)?)),
            UnaryOperator::Plus => self.number(expr),
            UnaryOperator::Minus => {
                let node = self.number(expr)?;
                let data_type = node.data_type();
                Ok(match node.as_literal() {
                    Some(Value::Int64(whole)) => Node::literal(&Value::Int64(-whole), data_type),
                    Some(Value::Float64(x)) => Node::literal(&Value::Float64(-x), data_type),
                    _ => call(Function::Negate, vec![node], data_type),
                })
            }
            other => Err(format!("operator {other} is not supported")),
        }
    }

    fn number(&mut self, expr: &ast::Expr) -> Result<Node, String> {
        let node = self.node(expr)?;
        let data_type = node.data_type();
        match node {
            Node::Null => Ok(Node::literal(&Value::Null, DataType::Float64)),
            node if data_type.is_number() => Ok(node),
            _ => Err(format!("{expr} is {data_type}, a number is needed")),
        }
    }

    pub(super) fn binary(
        &mut self,
        left: &ast::Expr,
        op: &BinaryOperator,
        right: &ast::Expr,
    ) -> Result<Node, String> {
        let function = function_of(op)?;
        match function {
            Function::And | Function::Or => {
                let arguments = vec![self.condition(left)?, self.condition(right)?];
                Ok(call(function, arguments, DataType::Bool))
            }
            Function::Add | Function::Subtract => self.sum(function, left, right),
            Function::Multiply | Function::Divide | Function::Modulo => {
                arithmetic(function, self.number(left)?, self.number(right)?)
            }
            comparing => comparison(comparing, self.node(left)?, self.node(right)?),
        }
    }

    fn sum(
        &mut self,
        function: Function,
        left: &ast::Expr,
        right: &ast::Expr,
    ) -> Result<Node, String> {
        let subtracting = function == Function::Subtract;
        if let ast::Expr::Interval(interval) = unnested(right) {
            let interval = literal::interval(interval)?;
            let interval = if subtracting { interval.negated() } else { interval };
            return add_interval(self.node(left)?, interval);
        }
        if let (ast::Expr::Interval(interval), false) = (unnested(left), subtracting) {
            return add_interval(self.node(right)?, literal::interval(interval)?);
        }
        let (left, right) = (self.node(left)?, self.node(right)?);
        match (left.data_type(), right.data_type()) {
            (DataType::Date, DataType::Date) if subtracting => {
                Ok(call(Function::DaysBetween, vec![left, right], DataType::Int64))
            }
            (DataType::Date, DataType::Int64) => {
                let days = if subtracting {
                    call(Function::Negate, vec![right], DataType::Int64)
                } else {
                    right
                };
                Ok(call(Function::AddDays, vec![left, days], DataType::Date))
            }
            (DataType::Int64, DataType::Date) if !subtracting => {
                Ok(call(Function::AddDays, vec![right, left], DataType::Date))
            }
            _ => arithmetic(function, left, right),
        }
    }

    pub(super) fn between(
        &mut self,
        expr: &ast::Expr,
        negated: bool,
        low: &ast::Expr,
        high: &ast::Expr,
    ) -> Result<Node, String> {
        let above = comparison(Function::GreaterOrEqual, self.node(expr)?, self.node(low)?)?;
        let below = comparison(Function::LessOrEqual, self.node(expr)?, self.node(high)?)?;
        let inside = call(Function::And, vec![above, below], DataType::Bool);
        Ok(if negated { not(inside) } else { inside })
    }

    /// `x IN (a, b)` is `x = a OR x = b`, nulls included.
    pub(super) fn in_list(
        &mut self,
        expr: &ast::Expr,
        list: &[ast::Expr],
        negated: bool,
    ) -> Result<Node, String> {
        let mut any = None;
        for item in list {
            let equal = comparison(Function::Equal, self.node(expr)?, self.node(item)?)?;
            any = Some(match any {
                None => equal,
                Some(any) => call(Function::Or, vec![any, equal], DataType::Bool),
            });
        }
        let any = any.ok_or("IN needs at least one value")?;
        Ok(if negated { not(any) } else { any })
    }
}

/// A comparison of two nodes, converted to one type.
pub(super) fn comparison(function: Function, left: Node, right: Node) -> Result<Node, String> {
    let (arguments, _) = unify(vec![left, right], "a comparison")?;
    Ok(call(function, arguments, DataType::Bool))
}

fn arithmetic(function: Function, left: Node, right: Node) -> Result<Node, String> {
    let (arguments, data_type) = unify(vec![left, right], "arithmetic")?;
    if !data_type.is_number() {
        return Err(format!("{function} needs numbers, got {data_type}"));
    }
    Ok(call(function, arguments, data_type))
}

fn add_interval(node: Node, interval: Interval) -> Result<Node, String> {
    let data_type = node.data_type();
    let fits = match data_type {
        DataType::Date => interval.micros == 0,
        DataType::Timestamp => true,
        _ => {
            return Err(format!("an interval is added to a DATE or TIMESTAMP, not to {data_type}"));
        }
    };
    if !fits {
        return Err("a DATE moves by whole days; CAST it to TIMESTAMP first".into());
    }
    let node = coerce(node, data_type).ok_or("an interval needs a DATE or TIMESTAMP")?;
    Ok(call(Function::AddInterval(interval), vec![node], data_type))
}

fn unnested(expr: &ast::Expr) -> &ast::Expr {
    match expr {
        ast::Expr::Nested(inner) => unnested(inner),
        other => other,
    }
}

fn function_of(op: &BinaryOperator) -> Result<Function, String> {
    Ok(match op {
        BinaryOperator::Plus => Function::Add,
        BinaryOperator::Minus => Function::Subtract,
        BinaryOperator::Multiply => Function::Multiply,
        BinaryOperator::Divide => Function::Divide,
        BinaryOperator::Modulo => Function::Modulo,
        BinaryOperator::Eq => Function::Equal,
        BinaryOperator::NotEq => Function::NotEqual,
        BinaryOperator::Lt => Function::Less,
        BinaryOperator::LtEq => Function::LessOrEqual,
        BinaryOperator::Gt => Function::Greater,
        BinaryOperator::GtEq => Function::GreaterOrEqual,
        BinaryOperator::And => Function::And,
        BinaryOperator::Or => Function::Or,
        other => return Err(format!("operator {other} is not supported")),
    })
}
