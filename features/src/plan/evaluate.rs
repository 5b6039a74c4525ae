//! From a request's fields to a model's inputs: check the fields, look the rows up, compute.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use chrono::NaiveDate;

use super::{Fields, Gathered, Output, ServicePlan};
use crate::column::Column;
use crate::definitions::{FeatureView, Stale, micros};
use crate::entity::KeyRef;
use crate::error::FeatureError;
use crate::expression::Expression;
use crate::online::{EmbeddedStore, Row};
use crate::timestamp::Timestamp;
use crate::value::Value;

/// How many unknown keys an error names.
const NAMED_KEYS: usize = 5;

/// The model's inputs for a request.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRows {
    /// Row-major, one value a column of the service; NaN is null.
    pub values: Vec<f32>,
    /// How many rows.
    pub rows: usize,
    /// The views whose rows were past their freshness bound.
    pub degraded: Vec<DegradedView>,
    /// The oldest event time among the rows that were used; none when no view was looked up.
    pub as_of: Option<Timestamp>,
}

/// A view of which a row was older than its freshness bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DegradedView {
    /// The view, as `name@version`.
    pub view: String,
    /// The day of the oldest row that was used.
    pub as_of: NaiveDate,
    /// The age of that row.
    pub age: Duration,
}

/// The rows of one view for the request's rows.
pub(super) struct ViewLookup {
    pub(super) rows: Vec<Option<Row>>,
    /// Which rows are past the freshness bound; empty when none is.
    pub(super) stale: Vec<bool>,
}

impl ServicePlan {
    /// Fills the model's inputs for every row of `fields`, with ages measured at `now`.
    ///
    /// A row without stored features in any view fails the whole request with `NotFound`; one
    /// that only some views hold gets nulls for the others, as it did in training.
    pub fn evaluate(
        &self,
        store: &EmbeddedStore,
        fields: &Fields,
        now: SystemTime,
    ) -> Result<FeatureRows, FeatureError> {
        let (rows, inputs) = self.request_columns(fields)?;
        let now = Timestamp::from(now);
        let lookups = self.look_up(store, &inputs[0], rows, now)?;
        let mut values = vec![f32::NAN; rows * self.columns.len()];
        let gathered = self.gather(&lookups, rows);
        let empty = Column::Bool(crate::column::Values::new(Vec::new()));
        let mut schema: Vec<&Column> = inputs.iter().map(AsRef::as_ref).collect();
        schema.resize(self.schema_len(), &empty);
        self.gathered.iter().zip(&gathered).for_each(|(at, column)| schema[at.index] = column);
        for (offset, output) in self.outputs.iter().enumerate() {
            match output {
                Output::Feature { view, slot } => {
                    let definition = &self.service.views[*view];
                    self.write_feature(definition, *slot, &lookups[*view], offset, &mut values);
                }
                Output::Expression(expression) => {
                    self.write_expression(expression, &schema, rows, offset, &mut values)?;
                }
            }
        }
        let times = lookups.iter().flat_map(|lookup| &lookup.rows).flatten().map(Row::time);
        let as_of = times.min().map(Timestamp);
        Ok(FeatureRows { values, rows, degraded: self.degraded(&lookups, now), as_of })
    }

    /// The join key and the request fields, in the schema's order and types.
    pub(super) fn request_columns<'a>(
        &self,
        fields: &'a Fields,
    ) -> Result<(usize, Vec<Cow<'a, Column>>), FeatureError> {
        self.refuse_unknown_fields(fields)?;
        let rows = fields.rows();
        let known = std::iter::once(&self.entity_key).chain(self.request_fields());
        let columns = known.map(|field| field.column_of(fields, rows)).collect::<Result<_, _>>()?;
        Ok((rows, columns))
    }

    /// A field that the service does not take is a mistake worth naming.
    pub(super) fn refuse_unknown_fields(&self, fields: &Fields) -> Result<(), FeatureError> {
        let known = || std::iter::once(&self.entity_key).chain(self.request_fields());
        if let Some(unknown) = fields.names().find(|name| known().all(|field| field.name != *name))
        {
            let names: Vec<&str> = known().map(|field| field.name.as_str()).collect();
            return Err(FeatureError::UnknownField {
                field: unknown.to_owned(),
                service: self.name().to_owned(),
                known: names.join(", "),
            });
        }
        Ok(())
    }

    /// Every view's rows for the keys.
    pub(super) fn look_up(
        &self,
        store: &EmbeddedStore,
        keys: &Column,
        rows: usize,
        now: Timestamp,
    ) -> Result<Vec<ViewLookup>, FeatureError> {
        let mut lookups = Vec::with_capacity(self.service.views.len());
        for view in &self.service.views {
            let found: Vec<Option<Row>> = store.with_view(view, |table| {
                let table = table.rows.pin();
                let find = |row| KeyRef::at(keys, row).and_then(|key| table.get(&key).cloned());
                (0..rows).map(find).collect()
            })?;
            let oldest = now.0.saturating_sub(micros(view.freshness));
            let is_stale = |row: &Option<Row>| row.as_ref().is_some_and(|row| row.time() < oldest);
            let stale = if found.iter().any(is_stale) {
                found.iter().map(is_stale).collect()
            } else {
                Vec::new()
            };
            lookups.push(ViewLookup { rows: found, stale });
        }
        self.refuse_unknown(keys, rows, &lookups)?;
        Ok(lookups)
    }

    fn refuse_unknown(
        &self,
        keys: &Column,
        rows: usize,
        lookups: &[ViewLookup],
    ) -> Result<(), FeatureError> {
        let unknown = |row: &usize| lookups.iter().all(|lookup| lookup.rows[*row].is_none());
        if lookups.is_empty() || !(0..rows).any(|row| unknown(&row)) {
            return Ok(());
        }
        let mut names: Vec<String> = Vec::new();
        for row in (0..rows).filter(unknown) {
            let name = keys.value(row).to_string();
            if !names.contains(&name) {
                names.push(name);
            }
            if names.len() > NAMED_KEYS {
                names[NAMED_KEYS] = "...".into();
                break;
            }
        }
        Err(FeatureError::UnknownEntity {
            entity: self.service.entity.name.clone(),
            join_key: self.service.entity.join_key.clone(),
            keys: names.join(", "),
        })
    }

    /// The stored features that expressions read, as columns.
    fn gather(&self, lookups: &[ViewLookup], rows: usize) -> Vec<Column> {
        let column = |place: &Gathered| {
            let view = &self.service.views[place.view];
            let lookup = &lookups[place.view];
            let values: Vec<Value> =
                (0..rows).map(|row| feature_value(view, place.slot, lookup, row)).collect();
            Column::from_values(place.data_type, values.iter()).expect("a feature has one type")
        };
        self.gathered.iter().map(column).collect()
    }

    fn schema_len(&self) -> usize {
        let features: usize = self.service.views.iter().map(|view| view.features.len()).sum();
        1 + self.service.request_fields.len() + features
    }

    fn write_feature(
        &self,
        view: &FeatureView,
        slot: usize,
        lookup: &ViewLookup,
        offset: usize,
        out: &mut [f32],
    ) {
        let (columns, data_type) = (view.features.len(), view.features[slot].data_type);
        let places = out.iter_mut().skip(offset).step_by(self.columns.len());
        if view.stale == Stale::Default && !lookup.stale.is_empty() {
            for (row, place) in places.enumerate() {
                let value = feature_value(view, slot, lookup, row);
                Column::repeat(&value, data_type, 1).write_f32(std::slice::from_mut(place), 1, 0);
            }
            return;
        }
        for (row, place) in lookup.rows.iter().zip(places) {
            *place = row.as_ref().map_or(f32::NAN, |row| row.f32(slot, columns, data_type));
        }
    }

    fn write_expression(
        &self,
        expression: &Expression,
        schema: &[&Column],
        rows: usize,
        offset: usize,
        out: &mut [f32],
    ) -> Result<(), FeatureError> {
        let stride = self.columns.len();
        match expression.as_column() {
            Some(index) => schema[index].write_f32(out, stride, offset),
            None => expression.evaluate(schema, rows)?.write_f32(out, stride, offset),
        }
        Ok(())
    }

    fn degraded(&self, lookups: &[ViewLookup], now: Timestamp) -> Vec<DegradedView> {
        let views = self.service.views.iter().zip(lookups);
        views
            .filter_map(|(view, lookup)| {
                let stale = lookup.rows.iter().zip(&lookup.stale).filter(|(_, stale)| **stale);
                let oldest = stale.filter_map(|(row, _)| row.as_ref()).map(Row::time).min()?;
                let age = u64::try_from(now.0.saturating_sub(oldest)).unwrap_or(0);
                Some(DegradedView {
                    view: view.id.to_string(),
                    as_of: Timestamp(oldest).date(),
                    age: Duration::from_micros(age),
                })
            })
            .collect()
    }
}

/// A feature's value as it is served: the default where the row is stale and the view says so.
pub(super) fn feature_value(
    view: &FeatureView,
    slot: usize,
    lookup: &ViewLookup,
    row: usize,
) -> Value {
    let feature = &view.features[slot];
    if view.stale == Stale::Default && lookup.stale.get(row) == Some(&true) {
        return feature.default.clone();
    }
    match &lookup.rows[row] {
        Some(stored) => stored.value(slot, view.features.len(), feature.data_type),
        None => Value::Null,
    }
}
