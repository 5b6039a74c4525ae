//! Training frames: labels with the features that would have been served for them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use datafusion::prelude::{DataFrame, Expr, lit};
use sluice_protocol::Digest;

use super::array::to_column;
use super::compute::compute;
use super::materialize::view_rows;
use super::session::{self, column};
use super::{as_of, function, source, window};
use crate::column::Column;
use crate::definitions::{Definitions, FeatureService, Field, Source, micros};
use crate::entity::EntityKey;
use crate::error::FeatureError;
use crate::expression::{Expression, Node, Windows};
use crate::timestamp::{MICROS_PER_DAY, Timestamp};
use crate::value::{DataType, Value};

/// Which training frame is asked for. Expressions are over the label source's columns and may
/// look at earlier and later rows of the same entity.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameRequest {
    /// The feature service whose columns are wanted.
    pub service: String,
    /// The declared source whose rows are the examples. If it has a created time, a row that a
    /// later written one for the same key and time replaces is none of its rows.
    pub label_source: String,
    /// The label: an expression that gives a number.
    pub label: String,
    /// For each request field, the expression that stands for what a request will bring.
    pub request_fields: BTreeMap<String, String>,
    /// Which rows are examples; all without a filter.
    pub filter: Option<String>,
    /// How long before a row's day its features must have been known: whole days. From one day
    /// on, a row of day T gets the features as of the end of the day that lies the horizon
    /// before T, which is before T begins. A horizon of 0 gives those as of the row's own time,
    /// rows of that very time included.
    pub horizon: Duration,
    /// The first day of the examples.
    pub from: Option<NaiveDate>,
    /// The last day of the examples.
    pub until: Option<NaiveDate>,
    /// The last day of which any source's rows are read.
    pub known_until: Option<NaiveDate>,
}

/// Examples in the order of the label source's rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// The service's schema hash, for the model's manifest.
    pub schema_hash: Digest,
    /// Which entity each example is about.
    pub keys: Vec<EntityKey>,
    /// The examples' times in microseconds since 1970.
    pub times: Vec<i64>,
    /// The labels; NaN is null. One that looks ahead is null where the rows end before it does.
    pub labels: Vec<f64>,
    /// The times of the last rows that the labels read, in microseconds since 1970: the example's
    /// own time unless the label looks ahead, never past its entity's last row.
    pub label_ends: Vec<i64>,
    /// The model's inputs, in the service's order.
    pub columns: Vec<FrameColumn>,
}

/// One model input of all examples.
#[derive(Debug, Clone, PartialEq)]
pub struct FrameColumn {
    /// The column's name.
    pub name: String,
    /// Its values as the gateway computes them; NaN is null.
    pub values: Vec<f32>,
}

/// Builds the training frame: for every row of the label source that the request selects, the
/// service's columns as [`FrameRequest::horizon`] says. Exactly one example a row, always:
/// features without a row in range are null, and rows of the same key and time stay as many as
/// they are. Only where the label source has a created time does the one written last stand for
/// them all, as in every source. The sources are checked first.
pub async fn training_frame(
    definitions: &Definitions,
    request: &FrameRequest,
) -> Result<Frame, FeatureError> {
    let plan = definitions.plan(&request.service)?;
    let service = plan.service();
    let labels = Labels::new(definitions, service, request)?;
    let session = session::new();
    let key = &service.entity.join_key;
    // A source of features must have one row a key and time; one of labels only need not.
    let views = service.views.iter().map(|view| (&view.source, true));
    let sources: BTreeMap<&str, (&Arc<Source>, bool)> = std::iter::once((&labels.source, false))
        .chain(views)
        .map(|(source, unique)| (source.name.as_str(), (source, unique)))
        .collect();
    for (source, unique) in sources.into_values() {
        source::validate(&session, source, key, unique).await?;
    }
    let table = source::open(&session, &labels.source, key, request.known_until).await?;
    let mut table = labels.select(table, request)?;
    for (at, view) in service.views.iter().enumerate() {
        let rows = view_rows(&session, view, request.known_until).await?;
        let names =
            (0..view.features.len()).map(|slot| (format!("f{slot}"), feature_name(at, slot)));
        let ttl = view.ttl.map(|ttl| micros(ttl).saturating_add(labels.as_of_slack()));
        table = as_of::join(table, rows, &names.collect::<Vec<_>>(), ttl)?;
    }
    let batches = model_inputs(table, service)?.collect().await?;
    let mut frame = Frame {
        schema_hash: plan.schema_hash(),
        keys: Vec::new(),
        times: Vec::new(),
        labels: Vec::new(),
        label_ends: Vec::new(),
        columns: Vec::new(),
    };
    for name in plan.columns() {
        frame.columns.push(FrameColumn { name: name.clone(), values: Vec::new() });
    }
    let mut types =
        vec![service.entity.value_type, DataType::Int64, DataType::Float64, DataType::Int64];
    types.extend(service.columns.iter().map(|column| column.expression.data_type()));
    for batch in &batches {
        let arrays = batch.columns().iter().zip(&types);
        let columns = arrays.map(|(array, data_type)| to_column(array, *data_type));
        frame.append(&columns.collect::<Result<Vec<_>, _>>()?, batch.num_rows());
    }
    Ok(frame)
}

impl Frame {
    fn append(&mut self, columns: &[Column], rows: usize) {
        for row in 0..rows {
            self.keys.extend(EntityKey::from_value(&columns[0].value(row)));
            if let Value::Int64(time) = columns[1].value(row) {
                self.times.push(time);
            }
            self.labels.push(match columns[2].value(row) {
                Value::Float64(label) => label,
                _ => f64::NAN,
            });
            if let Value::Int64(end) = columns[3].value(row) {
                self.label_ends.push(end);
            }
        }
        for (column, out) in columns[4..].iter().zip(&mut self.columns) {
            let start = out.values.len();
            out.values.resize(start + rows, f32::NAN);
            column.write_f32(&mut out.values[start..], 1, 0);
        }
    }

    /// How many examples.
    pub fn rows(&self) -> usize {
        self.labels.len()
    }
}

/// The label source and what is computed over its rows.
struct Labels {
    source: Arc<Source>,
    horizon: i64,
    /// The label, the filter, then the request fields in the service's order.
    outputs: Vec<(String, Expression)>,
}

fn request_name(at: usize) -> String {
    format!("q{at}")
}

fn feature_name(view: usize, slot: usize) -> String {
    format!("v{view}f{slot}")
}

impl Labels {
    fn new(
        definitions: &Definitions,
        service: &FeatureService,
        request: &FrameRequest,
    ) -> Result<Self, FeatureError> {
        let wrong = |reason: String| FeatureError::Request(reason);
        let source = definitions.sources.get(&request.label_source).ok_or_else(|| {
            wrong(format!("label source {:?} is not defined", request.label_source))
        })?;
        let (entity, name) = (&service.entity, &source.name);
        if source.column_type(&entity.join_key) != Some(entity.value_type) {
            let Some(found) = source.column_type(&entity.join_key) else {
                return Err(wrong(format!("source {name} has no column {}", entity.join_key)));
            };
            let (key, wanted) = (&entity.join_key, entity.value_type);
            return Err(wrong(format!("column {key} of source {name} is {found}, not {wanted}")));
        }
        let whole =
            request.horizon.subsec_nanos() == 0 && request.horizon.as_secs().is_multiple_of(86_400);
        if !whole {
            return Err(wrong(format!("horizon {:?} is not whole days", request.horizon)));
        }
        let known = |field: &String| service.request_fields.iter().any(|f| f.name == **field);
        if let Some(unknown) = request.request_fields.keys().find(|field| !known(field)) {
            let service = &service.name;
            return Err(wrong(format!("feature service {service} has no request field {unknown}")));
        }
        let mut labels = Self {
            source: Arc::clone(source),
            horizon: micros(request.horizon),
            outputs: Vec::new(),
        };
        labels.push("label", &request.label, DataType::Float64)?;
        if let Some(filter) = &request.filter {
            labels.push("filter", filter, DataType::Bool)?;
        }
        for (at, field) in service.request_fields.iter().enumerate() {
            labels.push_field(request_name(at), field, request)?;
        }
        Ok(labels)
    }

    fn push(&mut self, name: &str, text: &str, to: DataType) -> Result<(), FeatureError> {
        let expression = Expression::parse(text, &self.source.schema(), Windows::Both)
            .and_then(|expression| coerced(expression, to))
            .map_err(|reason| FeatureError::Request(format!("{name}: {reason}")))?;
        self.outputs.push((name.to_owned(), expression));
        Ok(())
    }

    fn push_field(
        &mut self,
        name: String,
        field: &Field,
        request: &FrameRequest,
    ) -> Result<(), FeatureError> {
        let expression = match request.request_fields.get(&field.name) {
            Some(text) => Expression::parse(text, &self.source.schema(), Windows::Both)
                .and_then(|expression| coerced(expression, field.data_type)),
            None if field.required => Err("needs an expression over the label source".into()),
            None => Ok(Expression::from_node(Node::literal(&field.default, field.data_type))),
        };
        let expression = expression.map_err(|reason| {
            FeatureError::Request(format!("request field {}: {reason}", field.name))
        })?;
        self.outputs.push((name, expression));
        Ok(())
    }

    /// The examples: `key`, `time`, `pos`, `at` (as of when features are taken), `label_end`, the
    /// label and the request fields. Windows see the rows that are left out here.
    fn select(&self, table: DataFrame, request: &FrameRequest) -> Result<DataFrame, FeatureError> {
        let outputs: Vec<_> = self.outputs.iter().map(|(name, e)| (name.clone(), e)).collect();
        let mut table = compute(table, self.source.columns.len(), &outputs)?;
        table = match window::last_read(&self.outputs[0].1)? {
            Some(last_read) => table.window(vec![last_read.alias("label_end")])?,
            None => table.with_column("label_end", column("time"))?,
        };
        if request.filter.is_some() {
            table = table.filter(column("filter"))?;
        }
        if let Some(from) = request.from {
            table = table.filter(column("time").gt_eq(lit(Timestamp::from_date(from).0)))?;
        }
        if let Some(until) = request.until {
            table = table.filter(column("time").lt_eq(lit(Timestamp::end_of(until).0)))?;
        }
        let mut selected: Vec<Expr> = ["key", "time", "pos", "label_end"].map(column).into();
        selected.push(self.as_of().alias("at"));
        let names = self.outputs.iter().map(|(name, _)| name).filter(|name| *name != "filter");
        selected.extend(names.map(column));
        Ok(table.select(selected)?)
    }

    /// As of when an example's features are taken. Materialising reads whole days, so it is the
    /// end of the day that lies the horizon before the example's. Only without a horizon would
    /// that day's end be later than the label: there it is the example's own time.
    fn as_of(&self) -> Expr {
        if self.horizon == 0 {
            return column("time");
        }
        let day = || lit(MICROS_PER_DAY);
        // The remainder is negative before 1970.
        let within_day = ((column("time") % day()) + day()) % day();
        column("time") - within_day + lit(self.as_of_slack() - self.horizon)
    }

    /// How much later [`Self::as_of`] is than the start of its day. A view's `ttl` is counted
    /// from that start: a row of a day does not age within the day that is looked back from.
    const fn as_of_slack(&self) -> i64 {
        if self.horizon == 0 { 0 } else { MICROS_PER_DAY - 1 }
    }
}

/// `expression` as `to`, where that is an implied conversion or one between numbers and BOOL.
fn coerced(expression: Expression, to: DataType) -> Result<Expression, String> {
    let from = expression.data_type();
    let numbers =
        |data_type| matches!(data_type, DataType::Bool | DataType::Int64 | DataType::Float64);
    let simple = (numbers(from) && to == DataType::Float64)
        || (from == DataType::Bool && to == DataType::Int64);
    let converted = if simple { expression.cast(to) } else { expression.coerced(to) };
    converted.ok_or_else(|| format!("is {from}, {to} is needed"))
}

/// The service's columns over the joined table, in the order of the labels.
fn model_inputs(table: DataFrame, service: &FeatureService) -> Result<DataFrame, FeatureError> {
    let mut names = vec!["key".to_owned()];
    names.extend((0..service.request_fields.len()).map(request_name));
    for (at, view) in service.views.iter().enumerate() {
        names.extend((0..view.features.len()).map(|slot| feature_name(at, slot)));
    }
    let mut selected: Vec<Expr> = ["key", "time", "label", "label_end"].map(column).into();
    for (at, output) in service.columns.iter().enumerate() {
        let call = function::call(&output.expression, |index| column(names[index].as_str()));
        selected.push(call.alias(format!("c{at}")));
    }
    Ok(table.sort(vec![column("pos").sort(true, false)])?.select(selected)?)
}
