//! The columnar evaluator. A node gives an operand: a column lent from the inputs or made
//! here, or a single value that stands for every row, so constants are never spread out.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::calendar::{Unit, extract, truncate_date, truncate_timestamp};
use super::cast::{cast_column, float_to_whole};
use super::compare::{and, compare_floats, compare_values, holds, or};
use super::function::Function;
use super::tree::Node;
use super::{EvaluateError, arithmetic};
use crate::column::{Column, Values};
use crate::timestamp::MICROS_PER_DAY;
use crate::value::{DataType, Value};

const TYPED: &str = "types are checked when an expression is parsed";

/// Computes `node` over `rows` rows of `inputs`.
pub(super) fn evaluate(
    node: &Node,
    inputs: &[&Column],
    rows: usize,
) -> Result<Column, EvaluateError> {
    let operand = Evaluator { inputs, rows }.operand(node)?;
    Ok(if operand.constant {
        operand.column.take((0..rows).map(|_| Some(0)))
    } else {
        operand.column.into_owned()
    })
}

/// A column, or one value for all rows.
struct Operand<'a> {
    column: Cow<'a, Column>,
    constant: bool,
}

/// How an operand's values are read: row `r` is `values[r & mask]`.
struct Reader<'a, T> {
    values: &'a Values<T>,
    mask: usize,
}

impl<T> Reader<'_, T> {
    fn get(&self, row: usize) -> Option<&T> {
        self.values.get(row & self.mask)
    }
}

macro_rules! reader {
    ($name:ident, $type:ty, $($variant:ident)|+) => {
        fn $name(&self) -> Reader<'_, $type> {
            match self.column.as_ref() {
                $(Column::$variant(values))|+ => Reader { values, mask: self.mask() },
                other => unreachable!("{TYPED}, not {}", other.data_type()),
            }
        }
    };
}

impl Operand<'_> {
    fn mask(&self) -> usize {
        if self.constant { 0 } else { usize::MAX }
    }

    reader!(bools, bool, Bool);
    reader!(wholes, i64, Int64 | Timestamp);
    reader!(floats, f64, Float64);
    reader!(texts, Arc<str>, String);
    reader!(days, i32, Date);

    fn data_type(&self) -> DataType {
        self.column.data_type()
    }

    fn value(&self, row: usize) -> Value {
        self.column.value(row & self.mask())
    }

    fn is_null(&self, row: usize) -> bool {
        self.column.is_null(row & self.mask())
    }
}

struct Evaluator<'a> {
    inputs: &'a [&'a Column],
    rows: usize,
}

impl<'a> Evaluator<'a> {
    fn operand<'n: 'a>(&self, node: &'n Node) -> Result<Operand<'a>, EvaluateError> {
        Ok(match node {
            Node::Column { index, .. } => {
                Operand { column: Cow::Borrowed(self.inputs[*index]), constant: false }
            }
            Node::Literal(column) => Operand { column: Cow::Borrowed(column), constant: true },
            Node::Null => {
                Operand { column: Cow::Owned(Column::nulls(DataType::Float64, 1)), constant: true }
            }
            Node::Cast { input, to, try_cast } => {
                let input = self.operand(input)?;
                let column = Cow::Owned(cast_column(&input.column, *to, *try_cast)?);
                Operand { column, constant: input.constant }
            }
            Node::Call { function, arguments, data_type } => {
                self.call(function, arguments, *data_type)?
            }
            Node::Case { branches, otherwise, data_type } => {
                let column = self.case(branches, otherwise, *data_type)?;
                Operand { column: Cow::Owned(column), constant: false }
            }
            Node::Window(_) => unreachable!("windows are computed before rows are"),
        })
    }

    fn call<'n: 'a>(
        &self,
        function: &'n Function,
        arguments: &'n [Node],
        data_type: DataType,
    ) -> Result<Operand<'a>, EvaluateError> {
        let operands =
            arguments.iter().map(|node| self.operand(node)).collect::<Result<Vec<_>, _>>()?;
        let constant = operands.iter().all(|operand| operand.constant);
        let rows = if constant { 1 } else { self.rows };
        let column = match operands.as_slice() {
            [one] => unary(function, one, data_type, rows),
            [a, b] => binary(function, a, b, rows),
            _ => None,
        };
        let column = column.unwrap_or_else(|| variadic(function, &operands, data_type, rows));
        Ok(Operand { column: Cow::Owned(column), constant })
    }

    /// Each branch sees only the rows that reach it: a CAST that would fail elsewhere does not.
    fn case<'n: 'a>(
        &self,
        branches: &'n [(Node, Node)],
        otherwise: &'n Node,
        data_type: DataType,
    ) -> Result<Column, EvaluateError> {
        let mut result = vec![Value::Null; self.rows];
        let mut open: Vec<usize> = (0..self.rows).collect();
        for (condition, value) in branches {
            let truths = self.over(condition, &open)?;
            let hit = |at: usize| truths.value(at) == Value::Bool(true);
            let taken: Vec<usize> =
                (0..open.len()).filter(|at| hit(*at)).map(|at| open[at]).collect();
            self.fill(value, &taken, &mut result)?;
            let mut at = 0;
            open.retain(|_| {
                at += 1;
                !hit(at - 1)
            });
        }
        self.fill(otherwise, &open, &mut result)?;
        Ok(Column::from_values(data_type, result.iter()).expect(TYPED))
    }

    fn fill(&self, node: &Node, rows: &[usize], out: &mut [Value]) -> Result<(), EvaluateError> {
        if rows.is_empty() {
            return Ok(());
        }
        let values = self.over(node, rows)?;
        rows.iter().enumerate().for_each(|(at, row)| out[*row] = values.value(at));
        Ok(())
    }

    /// `node` over some of the rows.
    fn over(&self, node: &Node, rows: &[usize]) -> Result<Column, EvaluateError> {
        if rows.len() == self.rows {
            return evaluate(node, self.inputs, self.rows);
        }
        let mut taken: Vec<Cow<'_, Column>> =
            self.inputs.iter().map(|c| Cow::Borrowed(*c)).collect();
        node.visit(&mut |below| {
            if let Node::Column { index, .. } = below {
                let chosen = rows.iter().map(|row| Some(*row));
                taken[*index] = Cow::Owned(self.inputs[*index].take(chosen));
            }
        });
        let inputs: Vec<&Column> = taken.iter().map(AsRef::as_ref).collect();
        evaluate(node, &inputs, rows.len())
    }
}

fn each<T: Default>(rows: usize, value: impl FnMut(usize) -> Option<T>) -> Values<T> {
    (0..rows).map(value).collect()
}

fn unary(function: &Function, x: &Operand<'_>, data_type: DataType, rows: usize) -> Option<Column> {
    Some(match function {
        Function::Not => {
            let x = x.bools();
            Column::Bool(each(rows, |row| x.get(row).map(|truth| !truth)))
        }
        Function::IsNull => Column::Bool(each(rows, |row| Some(x.is_null(row)))),
        Function::Negate | Function::Abs if data_type == DataType::Int64 => {
            let (x, negate) = (x.wholes(), *function == Function::Negate);
            let one = |v: &i64| if negate { v.checked_neg() } else { v.checked_abs() };
            Column::Int64(each(rows, |row| x.get(row).and_then(one)))
        }
        Function::Lower | Function::Upper => {
            let (x, lower) = (x.texts(), *function == Function::Lower);
            let one = |v: &Arc<str>| if lower { v.to_lowercase() } else { v.to_uppercase() };
            Column::String(each(rows, |row| x.get(row).map(|v| one(v).into())))
        }
        Function::Length => {
            let x = x.texts();
            let one = |v: &Arc<str>| i64::try_from(v.chars().count()).ok();
            Column::Int64(each(rows, |row| x.get(row).and_then(one)))
        }
        Function::Extract(unit) => extracted(*unit, x, data_type, rows),
        Function::Truncate(unit) => moved(
            x,
            rows,
            |days| truncate_date(*unit, days),
            |micros| truncate_timestamp(*unit, micros),
        ),
        Function::AddInterval(interval) => moved(
            x,
            rows,
            |days| interval.add_to_date(days),
            |micros| interval.add_to_timestamp(micros),
        ),
        Function::Coalesce | Function::Least | Function::Greatest => return None,
        _ => {
            let x = x.floats();
            let one = |v: &f64| arithmetic::float_of_one(function, *v);
            Column::Float64(each(rows, |row| x.get(row).map(one)))
        }
    })
}

fn extracted(unit: Unit, x: &Operand<'_>, data_type: DataType, rows: usize) -> Column {
    let read = |row: usize| {
        let micros = match x.data_type() {
            DataType::Date => i64::from(*x.days().get(row)?) * MICROS_PER_DAY,
            _ => *x.wholes().get(row)?,
        };
        extract(unit, micros)
    };
    match data_type {
        DataType::Int64 => Column::Int64(each(rows, |row| read(row).and_then(float_to_whole))),
        _ => Column::Float64(each(rows, read)),
    }
}

/// A day or moment moved by the function for its type.
fn moved(
    x: &Operand<'_>,
    rows: usize,
    date: impl Fn(i32) -> Option<i32>,
    timestamp: impl Fn(i64) -> Option<i64>,
) -> Column {
    match x.data_type() {
        DataType::Date => {
            let x = x.days();
            Column::Date(each(rows, |row| x.get(row).and_then(|days| date(*days))))
        }
        _ => {
            let x = x.wholes();
            Column::Timestamp(each(rows, |row| x.get(row).and_then(|micros| timestamp(*micros))))
        }
    }
}

fn binary(function: &Function, a: &Operand<'_>, b: &Operand<'_>, rows: usize) -> Option<Column> {
    Some(match function {
        Function::Add
        | Function::Subtract
        | Function::Multiply
        | Function::Divide
        | Function::Modulo
        | Function::Pow => numbers(function, a, b, rows),
        Function::Equal
        | Function::NotEqual
        | Function::Less
        | Function::LessOrEqual
        | Function::Greater
        | Function::GreaterOrEqual => compared(function, a, b, rows),
        Function::And | Function::Or => {
            let combine = if *function == Function::And { and } else { or };
            let (a, b) = (a.bools(), b.bools());
            Column::Bool(each(rows, |row| combine(a.get(row).copied(), b.get(row).copied())))
        }
        Function::NullIf => {
            let alike = b.bools();
            let keep = |row: usize| (alike.get(row) != Some(&true)).then_some(row & a.mask());
            a.column.take((0..rows).map(keep))
        }
        Function::AddDays => {
            let (days, count) = (a.days(), b.wholes());
            let sum = |row: usize| {
                let count = i32::try_from(*count.get(row)?).ok()?;
                days.get(row)?.checked_add(count)
            };
            Column::Date(each(rows, sum))
        }
        Function::DaysBetween => {
            let (a, b) = (a.days(), b.days());
            let apart = |row: usize| Some(i64::from(*a.get(row)?) - i64::from(*b.get(row)?));
            Column::Int64(each(rows, apart))
        }
        _ => return None,
    })
}

fn numbers(function: &Function, a: &Operand<'_>, b: &Operand<'_>, rows: usize) -> Column {
    if a.data_type() == DataType::Int64 {
        let (a, b) = (a.wholes(), b.wholes());
        let one = |row: usize| arithmetic::whole(function, *a.get(row)?, *b.get(row)?);
        return Column::Int64(each(rows, one));
    }
    let (a, b) = (a.floats(), b.floats());
    let one = |row: usize| Some(arithmetic::float(function, *a.get(row)?, *b.get(row)?));
    Column::Float64(each(rows, one))
}

fn compared(function: &Function, a: &Operand<'_>, b: &Operand<'_>, rows: usize) -> Column {
    macro_rules! by {
        ($reader:ident, $compare:expr) => {{
            let (a, b) = (a.$reader(), b.$reader());
            each(rows, |row| Some(holds(function, $compare(a.get(row)?, b.get(row)?))))
        }};
    }
    Column::Bool(match a.data_type() {
        DataType::Bool => by!(bools, bool::cmp),
        DataType::Int64 | DataType::Timestamp => by!(wholes, i64::cmp),
        DataType::Float64 => by!(floats, |a: &f64, b: &f64| compare_floats(*a, *b)),
        DataType::String => by!(texts, |a: &Arc<str>, b: &Arc<str>| a.cmp(b)),
        DataType::Date => by!(days, i32::cmp),
    })
}

fn variadic(
    function: &Function,
    operands: &[Operand<'_>],
    data_type: DataType,
    rows: usize,
) -> Column {
    let values: Vec<Value> = (0..rows)
        .map(|row| {
            let mut known = operands
                .iter()
                .map(|x| x.value(row))
                .map(|v| Some(v).filter(|v| *v != Value::Null));
            let best = match function {
                Function::Coalesce => known.find_map(|value| value),
                function => {
                    let less = *function == Function::Least;
                    let wanted = if less { Ordering::Less } else { Ordering::Greater };
                    known.fold(None, |best, value| {
                        arithmetic::extreme(best, value, wanted, compare_values)
                    })
                }
            };
            best.unwrap_or(Value::Null)
        })
        .collect();
    Column::from_values(data_type, values.iter()).expect(TYPED)
}
