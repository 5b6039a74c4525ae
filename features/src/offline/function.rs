//! A row-by-row expression as a DataFusion function.

use std::hash::{Hash, Hasher};

use datafusion::arrow::datatypes::DataType as ArrowType;
use datafusion::common::Result as EngineResult;
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::Expr;

use super::array::{arrow_type, to_array, to_column};
use super::fault::Fault;
use crate::column::{Column, Values};
use crate::expression::{Expression, Node};
use crate::value::DataType;

/// The call of `expression` over table columns; `name_of` gives the table's name for a column
/// of the expression's schema.
pub(super) fn call(expression: &Expression, name_of: impl Fn(usize) -> Expr) -> Expr {
    if let Some(index) = expression.as_column() {
        return name_of(index);
    }
    let columns = inputs(expression);
    let arguments = columns.iter().map(|(index, _)| name_of(*index)).collect();
    let signature = match columns.len() {
        0 => Signature::nullary(Volatility::Immutable),
        count => Signature::any(count, Volatility::Immutable),
    };
    let name = format!("expression {expression}");
    let function = RowFunction { name, expression: expression.clone(), columns, signature };
    ScalarUDF::from(function).call(arguments)
}

/// The columns that an expression reads, with their types.
fn inputs(expression: &Expression) -> Vec<(usize, DataType)> {
    let mut inputs = Vec::new();
    expression.node().visit(&mut |node| {
        if let Node::Column { index, data_type, .. } = node {
            inputs.push((*index, *data_type));
        }
    });
    inputs.sort_unstable_by_key(|(index, _)| *index);
    inputs.dedup();
    inputs
}

#[derive(Debug)]
struct RowFunction {
    /// The canonical form: two functions of the same name compute the same.
    name: String,
    expression: Expression,
    columns: Vec<(usize, DataType)>,
    signature: Signature,
}

impl PartialEq for RowFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.columns == other.columns
    }
}

impl Eq for RowFunction {}

impl Hash for RowFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for RowFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[ArrowType]) -> EngineResult<ArrowType> {
        Ok(arrow_type(self.expression.data_type()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> EngineResult<ColumnarValue> {
        let rows = args.number_rows;
        let mut columns = Vec::new();
        for (value, (_, data_type)) in args.args.iter().zip(&self.columns) {
            columns.push(to_column(&value.to_array(rows)?, *data_type)?);
        }
        let unread = Column::Bool(Values::new(Vec::new()));
        let width = self.columns.last().map_or(0, |(index, _)| index + 1);
        let mut inputs = vec![&unread; width];
        for ((index, _), column) in self.columns.iter().zip(&columns) {
            inputs[*index] = column;
        }
        let result = self.expression.evaluate(&inputs, rows).map_err(Fault::from)?;
        Ok(ColumnarValue::Array(to_array(&result)))
    }
}
