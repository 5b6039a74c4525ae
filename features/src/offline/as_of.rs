//! The point-in-time join. Labels and a view's rows are put into one table, ordered by key and
//! time with the view's rows first, and every label takes the last view row before it. This is
//! linear in the rows of a key, however many labels and rows it has.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::array::{Array as _, ArrayRef, AsArray, UInt64Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{Field, FieldRef, Int64Type};
use datafusion::common::{Result as EngineResult, ScalarValue};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{
    ExprFunctionExt, PartitionEvaluator, Signature, Volatility, WindowUDF, WindowUDFImpl,
};
use datafusion::prelude::{DataFrame, Expr, lit};

use super::session::column;

/// Joins to every row of `labels` (with columns `key`, `at`, `pos`) the row of `rows` (with
/// `key`, `time`, `pos`) of the same key with the latest time at or before `at`, the last by
/// position among equals, but none that is older than `at - ttl`. The columns `joined` of
/// `rows` are added under their new names; they are null where there is no such row.
pub(super) fn join(
    labels: DataFrame,
    rows: DataFrame,
    joined: &[(String, String)],
    ttl: Option<i64>,
) -> EngineResult<DataFrame> {
    let kept: Vec<String> = labels.schema().fields().iter().map(|f| f.name().clone()).collect();
    let kept_types = labels.schema().clone();
    let row_types = rows.schema().clone();
    let null = |schema: &datafusion::common::DFSchema, name: &str| {
        let field = schema.field_with_unqualified_name(name)?;
        Ok::<Expr, DataFusionError>(lit(ScalarValue::try_new_null(field.data_type())?))
    };
    let mut left = vec![lit(1i64).alias("side")];
    let mut right = vec![lit(0i64).alias("side")];
    for name in &kept {
        left.push(column(name));
        right.push(match name.as_str() {
            "key" | "pos" => column(name),
            "at" => column("time").alias("at"),
            other => null(&kept_types, other)?.alias(other),
        });
    }
    for (name, new_name) in joined {
        left.push(null(&row_types, name)?.alias(new_name));
        right.push(column(name).alias(new_name));
    }
    let both = labels.select(left)?.union(rows.select(right)?)?;
    let mut windows = Vec::new();
    for (_, name) in joined {
        windows.push(call(name, ttl)?.alias(format!("as_of {name}")));
    }
    let mut selected: Vec<Expr> = kept.iter().map(column).collect();
    selected.extend(joined.iter().map(|(_, name)| column(format!("as_of {name}")).alias(name)));
    both.window(windows)?.filter(column("side").eq(lit(1i64)))?.select(selected)
}

fn call(name: &str, ttl: Option<i64>) -> EngineResult<Expr> {
    let signature = Signature::any(3, Volatility::Immutable);
    let order = ["at", "side", "pos"].map(|by| column(by).sort(true, true));
    WindowUDF::from(AsOf { ttl, signature })
        .call(vec![column("side"), column("at"), column(name)])
        .partition_by(vec![column("key")])
        .order_by(order.into())
        .build()
}

/// In a label's row (side 1) the value of the last view row (side 0) before it.
#[derive(Debug)]
struct AsOf {
    ttl: Option<i64>,
    signature: Signature,
}

impl PartialEq for AsOf {
    fn eq(&self, other: &Self) -> bool {
        self.ttl == other.ttl
    }
}

impl Eq for AsOf {}

impl Hash for AsOf {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.ttl.hash(state);
    }
}

impl WindowUDFImpl for AsOf {
    fn name(&self) -> &str {
        "as_of"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(
        &self,
        _: PartitionEvaluatorArgs<'_>,
    ) -> EngineResult<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(KeyRows { ttl: self.ttl }))
    }

    fn field(&self, args: WindowUDFFieldArgs<'_>) -> EngineResult<FieldRef> {
        let value = args.get_input_field(2).ok_or_else(|| {
            DataFusionError::Internal("as_of takes a side, a time and a value".into())
        })?;
        Ok(Arc::new(Field::new(args.name(), value.data_type().clone(), true)))
    }
}

/// The labels and view rows of one key, in order.
#[derive(Debug)]
struct KeyRows {
    ttl: Option<i64>,
}

impl PartitionEvaluator for KeyRows {
    fn evaluate_all(&mut self, values: &[ArrayRef], num_rows: usize) -> EngineResult<ArrayRef> {
        let sides = values[0].as_primitive::<Int64Type>();
        let times = values[1].as_primitive::<Int64Type>();
        let mut last: Option<usize> = None;
        let mut rows = Vec::with_capacity(num_rows);
        for row in 0..num_rows {
            if sides.value(row) == 0 {
                last = Some(row);
            }
            let fresh = |at: &usize| {
                let age = times.value(row).saturating_sub(times.value(*at));
                self.ttl.is_none_or(|ttl| age <= ttl)
            };
            let taken = last.filter(fresh).map(u64::try_from).transpose();
            rows.push(taken.map_err(|error| DataFusionError::External(Box::new(error)))?);
        }
        Ok(take(&values[2].slice(0, num_rows), &UInt64Array::from(rows), None)?)
    }
}
