//! Functions by name: which exist, what they take and what they give.

use sqlparser::ast::{self, FunctionArg, FunctionArgExpr, FunctionArguments};

use super::super::calendar::Unit;
use super::super::function::{Function, NAMES, WINDOW_NAMES};
use super::super::nearest;
use super::super::tree::Node;
use super::coerce::{coerce, unify};
use super::{Typer, call, operator};
use crate::value::{DataType, Value};

impl Typer<'_> {
    pub(super) fn function(&mut self, function: &ast::Function) -> Result<Node, String> {
        let name = function.name.to_string().to_lowercase();
        let windowed = WINDOW_NAMES.contains(&name.as_str());
        match (&function.over, windowed) {
            (Some(over), true) => return self.window(&name, function, over),
            (None, true) => {
                return Err(format!("{name} looks over rows: write {name}(...) OVER (...)"));
            }
            (Some(_), false) if NAMES.contains(&name.as_str()) => {
                return Err(format!("{name} works row by row and takes no OVER"));
            }
            _ => {}
        }
        if !NAMES.contains(&name.as_str()) {
            let known = NAMES.into_iter().chain(WINDOW_NAMES);
            return Err(match nearest(&name, known) {
                Some(near) => format!("function {name} is unknown, did you mean {near}?"),
                None => format!("function {name} is unknown, known are: {}", NAMES.join(", ")),
            });
        }
        if function.filter.is_some() {
            return Err(format!("{name} is no aggregate and takes no FILTER"));
        }
        let arguments = plain_arguments(&name, function)?;
        self.named(&name, &arguments)
    }

    fn named(&mut self, name: &str, arguments: &[&ast::Expr]) -> Result<Node, String> {
        let (wanted, found) = (arity(name), arguments.len());
        if !wanted.contains(&found) {
            let (low, high) = (wanted.start(), wanted.end());
            let wanted = if low == high { low.to_string() } else { format!("{low} to {high}") };
            return Err(format!("{name} takes {wanted} arguments, got {found}"));
        }
        match name {
            "date_part" | "extract" | "date_trunc" => {
                self.calendar(name, arguments[0], arguments[1])
            }
            "coalesce" | "least" | "greatest" => self.variadic(name, arguments),
            "nullif" => self.null_if(arguments[0], arguments[1]),
            "round" => self.round(arguments),
            "abs" => self.abs(arguments[0]),
            "lower" | "upper" | "length" => self.text(name, arguments[0]),
            "pow" | "power" => self.floats(Function::Pow, name, arguments),
            "ln" => self.floats(Function::Ln, name, arguments),
            "exp" => self.floats(Function::Exp, name, arguments),
            "sqrt" => self.floats(Function::Sqrt, name, arguments),
            "floor" => self.floats(Function::Floor, name, arguments),
            _ => self.floats(Function::Ceil, name, arguments),
        }
    }

    fn null_if(&mut self, left: &ast::Expr, right: &ast::Expr) -> Result<Node, String> {
        let (left, right) = (typed_null(self.node(left)?), self.node(right)?);
        let data_type = left.data_type();
        let alike = operator::comparison(Function::Equal, left.clone(), right)?;
        Ok(call(Function::NullIf, vec![left, alike], data_type))
    }

    fn abs(&mut self, expr: &ast::Expr) -> Result<Node, String> {
        let node = typed_null(self.node(expr)?);
        let data_type = node.data_type();
        if !data_type.is_number() {
            return Err(format!("abs needs a number, got {data_type}"));
        }
        Ok(call(Function::Abs, vec![node], data_type))
    }

    fn variadic(&mut self, name: &str, arguments: &[&ast::Expr]) -> Result<Node, String> {
        let nodes = arguments.iter().map(|expr| self.node(expr)).collect::<Result<_, _>>()?;
        let (nodes, data_type) = unify(nodes, name)?;
        let function = match name {
            "coalesce" => Function::Coalesce,
            "least" => Function::Least,
            _ => Function::Greatest,
        };
        Ok(call(function, nodes, data_type))
    }

    fn floats(
        &mut self,
        function: Function,
        name: &str,
        arguments: &[&ast::Expr],
    ) -> Result<Node, String> {
        let nodes = arguments
            .iter()
            .map(|expr| {
                let node = self.node(expr)?;
                let data_type = node.data_type();
                coerce(node, DataType::Float64)
                    .ok_or_else(|| format!("{name} needs a number, got {data_type}"))
            })
            .collect::<Result<_, _>>()?;
        Ok(call(function, nodes, DataType::Float64))
    }

    fn round(&mut self, arguments: &[&ast::Expr]) -> Result<Node, String> {
        let digits = match arguments.get(1) {
            None => 0,
            Some(expr) => match self.node(expr)?.as_literal() {
                Some(Value::Int64(digits)) if digits.abs() <= 15 => {
                    i32::try_from(digits).unwrap_or(0)
                }
                _ => return Err("round takes a constant number of digits, -15 to 15".into()),
            },
        };
        self.floats(Function::Round(digits), "round", &arguments[..1])
    }

    pub(super) fn rounded(
        &mut self,
        function: Function,
        expr: &ast::Expr,
        kind: &ast::CeilFloorKind,
    ) -> Result<Node, String> {
        match kind {
            ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime) => {
                let name = function.to_string();
                self.floats(function, &name, &[expr])
            }
            _ => Err(format!("{function} takes one number")),
        }
    }

    fn text(&mut self, name: &str, expr: &ast::Expr) -> Result<Node, String> {
        let node = self.node(expr)?;
        let data_type = node.data_type();
        let node = coerce(node, DataType::String)
            .ok_or_else(|| format!("{name} needs a STRING, got {data_type}"))?;
        Ok(match name {
            "lower" => call(Function::Lower, vec![node], DataType::String),
            "upper" => call(Function::Upper, vec![node], DataType::String),
            _ => call(Function::Length, vec![node], DataType::Int64),
        })
    }

    fn calendar(&mut self, name: &str, unit: &ast::Expr, expr: &ast::Expr) -> Result<Node, String> {
        let Some(Value::String(unit)) = self.node(unit)?.as_literal() else {
            return Err(format!("{name} takes its unit as a constant text such as 'month'"));
        };
        if name != "date_trunc" {
            return self.extract(&unit, expr);
        }
        let (unit, node) = (Unit::parse(&unit)?, self.moment(name, expr)?);
        let data_type = node.data_type();
        let fits = if data_type == DataType::Date { unit.is_of_days() } else { unit.is_span() };
        if !fits {
            return Err(format!("a {data_type} cannot be cut to {unit}"));
        }
        Ok(call(Function::Truncate(unit), vec![node], data_type))
    }

    pub(super) fn extract(&mut self, unit: &str, expr: &ast::Expr) -> Result<Node, String> {
        let (unit, node) = (Unit::parse(unit)?, self.moment("extract", expr)?);
        let data_type = match unit {
            Unit::Second | Unit::Epoch => DataType::Float64,
            _ => DataType::Int64,
        };
        Ok(call(Function::Extract(unit), vec![node], data_type))
    }

    fn moment(&mut self, name: &str, expr: &ast::Expr) -> Result<Node, String> {
        let node = self.node(expr)?;
        match node.data_type() {
            DataType::Date | DataType::Timestamp => Ok(node),
            other => Err(format!("{name} needs a DATE or TIMESTAMP, {expr} is {other}")),
        }
    }
}

/// How many arguments a function takes.
fn arity(name: &str) -> std::ops::RangeInclusive<usize> {
    match name {
        "coalesce" | "least" | "greatest" => 1..=64,
        "date_part" | "extract" | "date_trunc" | "nullif" | "pow" | "power" => 2..=2,
        "round" => 1..=2,
        _ => 1..=1,
    }
}

/// The arguments of a call that brings nothing but arguments.
pub(super) fn plain_arguments<'a>(
    name: &str,
    function: &'a ast::Function,
) -> Result<Vec<&'a ast::Expr>, String> {
    let wrong = || format!("{name} takes plain arguments only");
    let FunctionArguments::List(list) = &function.args else { return Err(wrong()) };
    let decorated = list.duplicate_treatment.is_some()
        || !list.clauses.is_empty()
        || !function.within_group.is_empty()
        || function.null_treatment.is_some()
        || !matches!(function.parameters, FunctionArguments::None);
    if decorated {
        return Err(wrong());
    }
    let plain = |argument: &'a FunctionArg| match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Ok(expr),
        _ => Err(wrong()),
    };
    list.args.iter().map(plain).collect()
}

fn typed_null(node: Node) -> Node {
    let data_type = node.data_type();
    if matches!(node, Node::Null) { Node::literal(&Value::Null, data_type) } else { node }
}
