//! Feature services: what one model reads, in the order of its inputs.

use std::sync::Arc;

use super::load::{Complaining, Place, data_type, default_value, plain_name};
use super::{Definitions, Entity, FeatureView, ViewId, file, listed};
use crate::expression::{Expression, Schema, Windows};
use crate::value::{DataType, Value};

/// A field that a request brings.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// The field's name.
    pub name: String,
    /// The type of its values.
    pub data_type: DataType,
    /// Whether a request must bring it, without nulls.
    pub required: bool,
    /// What stands in where a request does not bring it.
    pub default: Value,
}

/// A model input: a name and how it is computed.
#[derive(Debug, Clone)]
pub(crate) struct ServiceColumn {
    pub(crate) name: String,
    /// Over the service's schema: join key, request fields, features.
    pub(crate) expression: Expression,
}

/// The features, request fields and transforms that one model reads.
#[derive(Debug, Clone)]
pub struct FeatureService {
    /// The service's name.
    pub name: String,
    /// Whose features are looked up.
    pub entity: Arc<Entity>,
    /// The views that they come from.
    pub views: Vec<Arc<FeatureView>>,
    /// What a request brings beside the join key.
    pub request_fields: Vec<Field>,
    pub(crate) columns: Vec<ServiceColumn>,
}

impl FeatureService {
    /// The names of the model's inputs, in order.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }
}

/// What the columns' expressions may name: the join key, the request fields, then each view's
/// features.
fn schema(entity: &Entity, fields: &[Field], views: &[Arc<FeatureView>]) -> Schema {
    let mut schema = Schema::default();
    schema.push(Some("request"), &entity.join_key, entity.value_type);
    for field in fields {
        schema.push(Some("request"), &field.name, field.data_type);
    }
    for view in views {
        for feature in &view.features {
            schema.push(Some(&view.id.name), &feature.name, feature.data_type);
        }
    }
    schema
}

pub(super) fn build(
    place: &Place,
    written: file::FeatureService,
    definitions: &Definitions,
    complaining: &mut Complaining,
) -> Option<FeatureService> {
    let name = complaining.check(place, plain_name(written.name));
    let entity = definitions.entities.get(&written.entity).ok_or_else(|| {
        let known = listed(definitions.entities.keys());
        format!("entity {:?} is not defined, known are: {known}", written.entity)
    });
    let entity = Arc::clone(complaining.check(place, entity)?);
    let views = views(place, &entity, &written.views, definitions, complaining)?;
    let mut request_fields: Vec<Field> = Vec::new();
    for field in written.request_fields {
        let taken = field.name == entity.join_key
            || request_fields.iter().any(|other| other.name == field.name);
        if taken {
            complaining.add(place, format!("request field {} is defined twice", field.name));
        }
        let shown = field.name.clone();
        let built = build_field(field).map_err(|reason| format!("request field {shown}: {reason}"));
        request_fields.push(complaining.check(place, built)?);
    }
    let schema = schema(&entity, &request_fields, &views);
    let columns = columns(place, written.columns, &schema, complaining);
    Some(FeatureService { name: name?, entity, views, request_fields, columns })
}

fn views(
    place: &Place,
    entity: &Arc<Entity>,
    names: &[String],
    definitions: &Definitions,
    complaining: &mut Complaining,
) -> Option<Vec<Arc<FeatureView>>> {
    let mut views: Vec<Arc<FeatureView>> = Vec::new();
    let mut complete = true;
    for text in names {
        let found = text.parse::<ViewId>().and_then(|id| {
            definitions.views.get(&id).ok_or_else(|| {
                let known = listed(definitions.views.keys());
                format!("view {text} is not defined or is broken, known are: {known}")
            })
        });
        let Some(view) = complaining.check(place, found) else {
            complete = false;
            continue;
        };
        if view.entity.name != entity.name {
            let reason = format!("view {text} is about {}, not {}", view.entity.name, entity.name);
            complaining.add(place, reason);
        }
        if views.iter().any(|other| other.id.name == view.id.name) {
            complaining.add(place, format!("view {} is used twice", view.id.name));
        }
        views.push(Arc::clone(view));
    }
    complete.then_some(views)
}

fn build_field(written: file::RequestField) -> Result<Field, String> {
    let name = plain_name(written.name)?;
    let data_type = data_type(&written.data_type)?;
    let default = match (&written.default, written.required) {
        (None, _) => Value::Null,
        (Some(_), true) => return Err("is required and has a default; write one of the two".into()),
        (Some(default), false) => default_value(default, data_type)?,
    };
    Ok(Field { name, data_type, required: written.required, default })
}

fn columns(
    place: &Place,
    written: Vec<file::Column>,
    schema: &Schema,
    complaining: &mut Complaining,
) -> Vec<ServiceColumn> {
    if written.is_empty() {
        complaining.add(place, "a service needs at least one column");
    }
    let mut columns: Vec<ServiceColumn> = Vec::new();
    for column in written {
        let (name, text) = column.into_parts();
        if columns.iter().any(|other| other.name == name) {
            complaining.add(place, format!("column {name} is defined twice"));
        }
        let expression = Expression::parse(&text, schema, Windows::Refused)
            .and_then(|expression| match expression.data_type() {
                DataType::Bool | DataType::Int64 | DataType::Float64 => Ok(expression),
                other => Err(format!("is {other}; a model's input is a number or BOOL")),
            })
            .map_err(|reason| format!("column {name}: {reason}"));
        if let Some(expression) = complaining.check(place, expression) {
            columns.push(ServiceColumn { name, expression });
        }
    }
    columns
}
