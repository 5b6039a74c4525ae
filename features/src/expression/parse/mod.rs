//! From SQL text to the typed tree: names are resolved, types checked, implied casts written.

mod call;
mod coerce;
mod literal;
mod operator;
mod over;

use sqlparser::ast;
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use super::function::Function;
use super::schema::Schema;
use super::tree::Node;
use crate::value::DataType;

pub(super) use coerce::{coerce, explicit_cast};

/// Longer texts are refused, so that no input makes the parser's trees deep.
const MAX_CHARACTERS: usize = 4096;
/// Deeper trees are refused: the evaluator recurses.
const MAX_DEPTH: usize = 128;

/// Which windows an expression may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Windows {
    /// None: the expression is computed row by row, at request time.
    Refused,
    /// Over this row and the ones before it.
    Backward,
    /// Also over later rows: labels, and fields that are known ahead.
    #[cfg(any(test, feature = "offline"))]
    Both,
}

/// Parses and types `text` over the columns of `schema`.
pub(super) fn parse(text: &str, schema: &Schema, windows: Windows) -> Result<Node, String> {
    if text.chars().count() > MAX_CHARACTERS {
        return Err(format!("expression is longer than {MAX_CHARACTERS} characters"));
    }
    let syntax = |error: sqlparser::parser::ParserError| {
        let text = error.to_string();
        let reason = text.strip_prefix("sql parser error: ").unwrap_or(&text).to_owned();
        format!("not a SQL expression: {reason}")
    };
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).map_err(syntax)?;
    let expr = parser.parse_expr().map_err(syntax)?;
    let rest = parser.peek_token();
    if rest.token != Token::EOF {
        return Err(format!("not a SQL expression: unexpected {rest} after its end"));
    }
    Typer { schema, windows, depth: 0 }.node(&expr)
}

/// The words in `text` that may be names of columns.
pub(super) fn words(text: &str) -> Vec<String> {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    let word = |token| match token {
        Token::Word(word) => Some(word.value),
        _ => None,
    };
    tokens.into_iter().filter_map(word).collect()
}

/// Turns SQL's tree into the typed one.
struct Typer<'a> {
    schema: &'a Schema,
    windows: Windows,
    depth: usize,
}

impl Typer<'_> {
    fn node(&mut self, expr: &ast::Expr) -> Result<Node, String> {
        if self.depth >= MAX_DEPTH {
            return Err(format!("expression is nested deeper than {MAX_DEPTH} levels"));
        }
        self.depth += 1;
        let node = self.untracked(expr);
        self.depth -= 1;
        node
    }

    fn untracked(&mut self, expr: &ast::Expr) -> Result<Node, String> {
        use ast::Expr as E;
        match expr {
            E::Nested(inner) => self.node(inner),
            E::Identifier(name) => self.column(None, &name.value),
            E::CompoundIdentifier(path) => match path.as_slice() {
                [qualifier, name] => self.column(Some(&qualifier.value), &name.value),
                _ => Err(format!("{expr} is no column: write name or view.name")),
            },
            E::Value(value) => literal::value(&value.value),
            E::TypedString(typed) => literal::typed(typed),
            E::UnaryOp { op, expr } => self.unary(*op, expr),
            E::BinaryOp { left, op, right } => self.binary(left, op, right),
            E::IsNull(inner) => self.is_null(inner),
            E::IsNotNull(inner) => Ok(not(self.is_null(inner)?)),
            E::Between { expr, negated, low, high } => self.between(expr, *negated, low, high),
            E::InList { expr, list, negated } => self.in_list(expr, list, *negated),
            E::Case { operand, conditions, else_result, .. } => {
                self.case(operand.as_deref(), conditions, else_result.as_deref())
            }
            E::Cast { kind, expr, data_type, .. } => self.cast(kind, expr, data_type),
            E::Extract { field, expr, .. } => self.extract(&field.to_string(), expr),
            E::Floor { expr, field } => self.rounded(Function::Floor, expr, field),
            E::Ceil { expr, field } => self.rounded(Function::Ceil, expr, field),
            E::Function(function) => self.function(function),
            other => Err(format!("{other} is not supported in expressions")),
        }
    }

    fn column(&self, qualifier: Option<&str>, name: &str) -> Result<Node, String> {
        let index = self.schema.resolve(qualifier, name)?;
        let column = &self.schema.columns()[index];
        Ok(Node::Column { index, name: column.full_name().into(), data_type: column.data_type })
    }

    fn condition(&mut self, expr: &ast::Expr) -> Result<Node, String> {
        let node = self.node(expr)?;
        let data_type = node.data_type();
        coerce(node, DataType::Bool)
            .ok_or_else(|| format!("{expr} is {data_type}, a condition must be BOOL"))
    }

    fn is_null(&mut self, expr: &ast::Expr) -> Result<Node, String> {
        Ok(call(Function::IsNull, vec![self.node(expr)?], DataType::Bool))
    }

    fn case(
        &mut self,
        operand: Option<&ast::Expr>,
        conditions: &[ast::CaseWhen],
        otherwise: Option<&ast::Expr>,
    ) -> Result<Node, String> {
        let mut whens = Vec::new();
        let mut results = Vec::new();
        for branch in conditions {
            whens.push(match operand {
                None => self.condition(&branch.condition)?,
                Some(operand) => {
                    let (left, right) = (self.node(operand)?, self.node(&branch.condition)?);
                    operator::comparison(Function::Equal, left, right)?
                }
            });
            results.push(self.node(&branch.result)?);
        }
        results.push(match otherwise {
            Some(expr) => self.node(expr)?,
            None => Node::Null,
        });
        let (mut results, data_type) = coerce::unify(results, "CASE")?;
        let otherwise = Box::new(results.pop().unwrap_or(Node::Null));
        let branches = whens.into_iter().zip(results).collect();
        Ok(Node::Case { branches, otherwise, data_type })
    }

    fn cast(
        &mut self,
        kind: &ast::CastKind,
        expr: &ast::Expr,
        to: &ast::DataType,
    ) -> Result<Node, String> {
        let try_cast = matches!(kind, ast::CastKind::TryCast | ast::CastKind::SafeCast);
        explicit_cast(self.node(expr)?, literal::data_type(to)?, try_cast)
    }
}

fn call(function: Function, arguments: Vec<Node>, data_type: DataType) -> Node {
    Node::Call { function, arguments, data_type }
}

fn not(node: Node) -> Node {
    call(Function::Not, vec![node], DataType::Bool)
}
