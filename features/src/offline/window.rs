//! A window over one entity's rows as a DataFusion window function. It takes the rows' times,
//! then its argument, then its filter, as far as it has them.

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
use crate::expression::{Node, Window};
use crate::value::DataType;

/// The window's value in each row of a table that has the arguments as columns.
pub(super) fn call(
    window: &Window,
    argument: Option<Expr>,
    filter: Option<Expr>,
) -> EngineResult<Expr> {
    let arguments: Vec<Expr> =
        std::iter::once(column("time")).chain(argument).chain(filter).collect();
    let name = format!("window {window}");
    let signature = Signature::any(arguments.len(), Volatility::Immutable);
    let function = WindowFunction { name, window: Arc::new(window.clone()), signature };
    WindowUDF::from(function)
        .call(arguments)
        .partition_by(vec![column("key")])
        .order_by(vec![column("time").sort(true, true), column("pos").sort(true, true)])
        .build()
}

#[derive(Debug)]
struct WindowFunction {
    name: String,
    window: Arc<Window>,
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
        Ok(Box::new(EntityRows { window: Arc::clone(&self.window) }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> EngineResult<FieldRef> {
        Ok(Arc::new(Field::new(args.name(), arrow_type(self.window.data_type()), true)))
    }
}

/// Computes the window over the rows of one entity, all at once.
#[derive(Debug)]
struct EntityRows {
    window: Arc<Window>,
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
        let argument = match &self.window.argument {
            Some(node) => next(node.data_type())?,
            None => None,
        };
        let filter = match self.window.filter.as_ref().map(Node::data_type) {
            Some(data_type) => next(data_type)?,
            None => None,
        };
        let filter = match &filter {
            Some(Column::Bool(values)) => Some(values),
            _ => None,
        };
        Ok(to_array(&self.window.evaluate(argument.as_ref(), filter, times.slots())))
    }
}
