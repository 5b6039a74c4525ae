//! Window calls: `f(x) OVER (frame)`. The partition is the entity's key and the order its
//! time, so neither is written.

use sqlparser::ast::{
    self, FunctionArg, FunctionArgExpr, FunctionArguments, WindowFrameBound, WindowFrameUnits,
    WindowType,
};

use super::super::tree::Node;
use super::super::window::{Aggregate, Frame, MAX_FRAME_ROWS, Window, WindowFunction};
use super::call::plain_arguments;
use super::coerce::coerce;
use super::{Typer, Windows, literal};
use crate::timestamp::MICROS_PER_DAY;
use crate::value::{DataType, Value};

impl Typer<'_> {
    pub(super) fn window(
        &mut self,
        name: &str,
        function: &ast::Function,
        over: &WindowType,
    ) -> Result<Node, String> {
        if self.windows == Windows::Refused {
            return Err(format!(
                "{name} looks over rows, which only a view's features may do, and labels, but not inside another window"
            ));
        }
        let frame = frame_clause(name, over)?;
        let outer = std::mem::replace(&mut self.windows, Windows::Refused);
        let window = self.window_call(name, function, frame, outer);
        self.windows = outer;
        let window = window?;
        if outer == Windows::Backward && window.looks_ahead() {
            return Err(format!(
                "{name} reads later rows, which only labels and fields that are known ahead may do"
            ));
        }
        Ok(Node::Window(Box::new(window)))
    }

    fn window_call(
        &mut self,
        name: &str,
        function: &ast::Function,
        frame: Option<&ast::WindowFrame>,
        outer: Windows,
    ) -> Result<Window, String> {
        let filter = match &function.filter {
            Some(filter) => Some(self.condition(filter)?),
            None => None,
        };
        if let Some(aggregate) = Aggregate::parse(name) {
            let argument = self.aggregated(name, function)?;
            let frame = self.frame(name, frame, outer)?;
            return Ok(Window {
                function: WindowFunction::Aggregate(aggregate, frame),
                argument,
                filter,
            });
        }
        if filter.is_some() || frame.is_some() {
            return Err(format!("{name} takes neither a FILTER nor a frame: write OVER ()"));
        }
        let arguments = plain_arguments(name, function)?;
        let (argument, offset) = match (name, arguments.as_slice()) {
            (_, [argument]) => (argument, 1),
            ("lag" | "lead", [argument, offset]) => (argument, self.offset(name, offset)?),
            _ => return Err(format!("{name} takes a value{}", offset_hint(name))),
        };
        let function = match name {
            "lag" => WindowFunction::Lag(offset),
            "lead" => WindowFunction::Lead(offset),
            _ => WindowFunction::RunLength,
        };
        Ok(Window { function, argument: Some(self.node(argument)?), filter: None })
    }

    /// The aggregated value, none for `count(*)`.
    fn aggregated(&mut self, name: &str, function: &ast::Function) -> Result<Option<Node>, String> {
        if let (FunctionArguments::List(list), "count") = (&function.args, name)
            && matches!(list.args.as_slice(), [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)])
        {
            return Ok(None);
        }
        let arguments = plain_arguments(name, function)?;
        let [argument] = arguments.as_slice() else {
            return Err(format!("{name} takes 1 argument, got {}", arguments.len()));
        };
        let node = self.node(argument)?;
        let data_type = node.data_type();
        let node = match name {
            "avg" | "stddev" => coerce(node, DataType::Float64),
            "sum" if !data_type.is_number() => None,
            _ => Some(node),
        };
        node.map(Some).ok_or_else(|| format!("{name} needs a number, {argument} is {data_type}"))
    }

    fn offset(&mut self, name: &str, expr: &ast::Expr) -> Result<usize, String> {
        let offset = match self.node(expr)?.as_literal() {
            Some(Value::Int64(offset)) => usize::try_from(offset).ok(),
            _ => None,
        };
        offset
            .filter(|offset| *offset <= MAX_FRAME_ROWS)
            .ok_or_else(|| format!("{name} takes a constant number of rows, 0 to {MAX_FRAME_ROWS}"))
    }

    fn frame(
        &mut self,
        name: &str,
        frame: Option<&ast::WindowFrame>,
        outer: Windows,
    ) -> Result<Frame, String> {
        let example = "ROWS BETWEEN 27 PRECEDING AND CURRENT ROW";
        let frame = frame
            .ok_or_else(|| format!("{name} needs a frame, such as {name}(...) OVER ({example})"))?;
        let end = frame.end_bound.as_ref().unwrap_or(&WindowFrameBound::CurrentRow);
        let days = match frame.units {
            WindowFrameUnits::Rows => false,
            WindowFrameUnits::Range => true,
            WindowFrameUnits::Groups => return Err("frames are ROWS or RANGE".into()),
        };
        let (start, end) = (self.bound(&frame.start_bound, days)?, self.bound(end, days)?);
        if start > end {
            return Err("the frame ends before it starts".into());
        }
        if outer == Windows::Backward && end > 0 {
            return Err(format!(
                "{name} reads later rows, which only labels and fields that are known ahead may do"
            ));
        }
        Ok(if days { Frame::Range { start, end } } else { Frame::Rows { start, end } })
    }

    /// A bound's distance from the current row: rows, or microseconds; negative is before.
    fn bound(&mut self, bound: &WindowFrameBound, days: bool) -> Result<i64, String> {
        let unbounded = "a frame must be bounded on both ends, so that a value does not depend \
                         on how much history there is";
        let (distance, sign) = match bound {
            WindowFrameBound::CurrentRow => return Ok(0),
            WindowFrameBound::Preceding(distance) => (distance, -1),
            WindowFrameBound::Following(distance) => (distance, 1),
        };
        let distance = distance.as_deref().ok_or(unbounded)?;
        let size = match (distance, days) {
            (ast::Expr::Interval(interval), true) => {
                let interval = literal::interval(interval)?;
                if interval.months != 0 {
                    return Err("a RANGE frame is counted in days or hours, not months".into());
                }
                i64::from(interval.days)
                    .checked_mul(MICROS_PER_DAY)
                    .and_then(|days| days.checked_add(interval.micros))
            }
            (_, true) => return Err("a RANGE frame is written INTERVAL '28' DAY PRECEDING".into()),
            (expr, false) => i64::try_from(self.offset("a ROWS frame", expr)?).ok(),
        };
        size.filter(|size| *size >= 0)
            .map(|size| size * sign)
            .ok_or_else(|| "a frame's bound must be a distance of 0 or more".into())
    }
}

fn offset_hint(name: &str) -> &'static str {
    if name == "run_length" { "" } else { " and a constant number of rows" }
}

fn frame_clause<'a>(
    name: &str,
    over: &'a WindowType,
) -> Result<Option<&'a ast::WindowFrame>, String> {
    let WindowType::WindowSpec(window) = over else {
        return Err(format!("{name}: named windows are not supported"));
    };
    if !window.partition_by.is_empty()
        || !window.order_by.is_empty()
        || window.window_name.is_some()
    {
        return Err(format!(
            "{name}: PARTITION BY and ORDER BY are not written; a window is over the rows of the \
             same entity in the order of time"
        ));
    }
    Ok(window.window_frame.as_ref())
}
