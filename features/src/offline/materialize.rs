//! Materialisation: the latest row of every entity in each view.

use std::sync::Arc;

use chrono::NaiveDate;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::ExprFunctionExt;
use datafusion::prelude::{DataFrame, SessionContext, lit};

use super::array::to_column;
use super::compute::compute;
use super::session::{self, column};
use super::source;
use crate::column::Column;
use crate::definitions::{Definitions, FeatureView};
use crate::entity::EntityKey;
use crate::error::FeatureError;
use crate::online::{ViewHeader, ViewRows};
use crate::value::{DataType, Value};

/// Computes, for the named views (`name@version` or `name`; all without names), every entity's
/// row as of its last source row on or before the day `until`. Later rows are not read. The
/// sources are checked as a whole first, so what is wrong in them is found before anything is
/// stored. Rows come in the order of their keys.
pub async fn materialize(
    definitions: &Definitions,
    views: Option<&[String]>,
    until: Option<NaiveDate>,
) -> Result<Vec<ViewRows>, FeatureError> {
    let session = session::new();
    let views = definitions.select_views(views)?;
    for (at, view) in views.iter().enumerate() {
        let same = |other: &Arc<FeatureView>| {
            other.source.name == view.source.name && other.entity.join_key == view.entity.join_key
        };
        if !views[..at].iter().any(|other| same(other)) {
            source::validate(&session, &view.source, &view.entity.join_key, true).await?;
        }
    }
    let mut batches = Vec::new();
    for view in views {
        batches.push(latest(&session, view, until).await?);
    }
    Ok(batches)
}

/// All rows of a view: `key`, `time`, `pos` and the features as `f0`, `f1`, ...
pub(super) async fn view_rows(
    session: &SessionContext,
    view: &FeatureView,
    until: Option<NaiveDate>,
) -> Result<DataFrame, FeatureError> {
    let table = source::open(session, &view.source, &view.entity.join_key, until).await?;
    let outputs: Vec<_> = view
        .features
        .iter()
        .enumerate()
        .map(|(at, feature)| (format!("f{at}"), &feature.expression))
        .collect();
    compute(table, view.source.columns.len(), &outputs)
}

async fn latest(
    session: &SessionContext,
    view: &FeatureView,
    until: Option<NaiveDate>,
) -> Result<ViewRows, FeatureError> {
    let newest = vec![column("time").sort(false, false), column("pos").sort(false, false)];
    let place =
        row_number().partition_by(vec![column("key")]).order_by(newest).build()?.alias("place");
    let batches = view_rows(session, view, until)
        .await?
        .window(vec![place])?
        .filter(column("place").eq(lit(1u64)))?
        .sort(vec![column("key").sort(true, false)])?
        .collect()
        .await?;
    let header = ViewHeader::of(view);
    let types = [view.entity.value_type, DataType::Int64, DataType::Int64];
    let types: Vec<DataType> = types.into_iter().chain(header.types()).collect();
    let mut rows = Vec::new();
    for batch in &batches {
        let columns = batch.columns().iter().zip(&types);
        let columns: Vec<Column> = columns
            .map(|(array, data_type)| to_column(array, *data_type))
            .collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let key = EntityKey::from_value(&columns[0].value(row));
            let (Some(key), Value::Int64(time)) = (key, columns[1].value(row)) else { continue };
            rows.push((key, time, columns[3..].iter().map(|column| column.value(row)).collect()));
        }
    }
    ViewRows::new(header, rows)
}
