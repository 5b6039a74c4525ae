//! What is computed over one entity's rows in time order, as DataFusion window functions: a
//! window's values, and how far ahead an expression reads.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{Field, FieldRef};
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ExprFunctionExt, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::prelude::Expr;

use super::array::{arrow_type, to_array, to_column};
use super::session::column;
use crate::column::{Column, Values};
use crate::expression::{Expression, Node, Window};
use crate::value::DataType;

/// The window's value in each row of a table that has the arguments as columns.
pub(super) fn call(
    window: &Window,
    argument: Option<Expr>,
    filter: Option<Expr>,
) -> EngineResult<Expr> {
    let arguments: Vec<Expr> =
        std::iter::once(column("time")).chain(argument).chain(filter).collect();
    let computed = Computed::Value(window.clone());
    over_entity(format!("window {window}"), computed, arguments)
}

/// The time of the last row that `expression` reads in each row of a table with `time`: the
/// row's own unless it looks ahead. None for an expression that never does.
pub(super) fn last_read(expression: &Expression) -> EngineResult<Option<Expr>> {
    let mut ahead = Vec::new();
    expression.node().visit(&mut |node| {
        if let Node::Window(window) = node
            && window.looks_ahead()
        {
            ahead.push(window.as_ref().clone());
        }
    });
    if ahead.is_empty() {
        return Ok(None);
    }
    let name = format!("last read {expression}");
    over_entity(name, Computed::LastRead(ahead), vec![column("time")]).map(Some)
}

fn over_entity(name: String, computed: Computed, arguments: Vec<Expr>) -> EngineResult<Expr> {
    let signature = Signature::any(arguments.len(), Volatility::Immutable);
    WindowUDF::from(WindowFunction { name, computed: Arc::new(computed), signature })
        .call(arguments)
        .partition_by(vec![column("key")])
        .order_by(vec![column("time").sort(true, true), column("pos").sort(true, true)])
        .build()
}

/// What a function computes.
#[derive(Debug)]
enum Computed {
    /// A window's values. The arguments are the rows' times, then the window's argument, then
    /// its filter, as far as it has them.
    Value(Window),
    /// The time of the last row that any of these windows reads. The argument is the times.
    LastRead(Vec<Window>),
}

#[derive(Debug)]
struct WindowFunction {
    /// The canonical form: two functions of the same name compute the same.
    name: String,
    computed: Arc<Computed>,
    signature: Signature,
}

impl PartialEq for WindowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for WindowFunction {}

impl Hash for WindowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl WindowUDFImpl for WindowFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> EngineResult<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(EntityRows { computed: Arc::clone(&self.computed) }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> EngineResult<FieldRef> {
        let data_type = match self.computed.as_ref() {
            Computed::Value(window) => window.data_type(),
            Computed::LastRead(_) => DataType::Int64,
        };
        Ok(Arc::new(Field::new(args.name(), arrow_type(data_type), true)))
    }
}

/// The rows of one entity, computed all at once.
#[derive(Debug)]
struct EntityRows {
    computed: Arc<Computed>,
}

impl PartitionEvaluator for EntityRows {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> EngineResult<ArrayRef> {
        let mut values = values.iter();
        let mut next = |data_type: DataType| {
            values.next().map(|array| to_column(&array.slice(0, num_rows), data_type)).transpose()
        };
        let times = match next(DataType::Int64)? {
            Some(Column::Int64(times)) => times,
            _ => Values::new(vec![0; num_rows]),
        };
        let window = match self.computed.as_ref() {
            Computed::Value(window) => window,
            Computed::LastRead(windows) => return Ok(to_array(&last_times(windows, &times))),
        };
        let argument = match &window.argument {
            Some(node) => next(node.data_type())?,
            None => None,
        };
        let filter = match window.filter.as_ref().map(Node::data_type) {
            Some(data_type) => next(data_type)?,
            None => None,
        };
        let filter = match &filter {
            Some(Column::Bool(values)) => Some(values),
            _ => None,
        };
        Ok(to_array(&window.evaluate(argument.as_ref(), filter, times.slots())))
    }
}

/// The time of the last row that any of the windows reads at each row.
fn last_times(windows: &[Window], times: &Values<i64>) -> Column {
    let times = times.slots();
    let mut last: Vec<usize> = (0..times.len()).collect();
    for window in windows {
        for (known, read) in last.iter_mut().zip(window.last_read(times)) {
            *known = read.max(*known);
        }
    }
    Column::Int64(Values::new(last.into_iter().map(|row| times[row]).collect()))
}
