//! The serving plan of a feature service: how a request's fields and the stored rows become a
//! model's inputs. It is made once and then evaluated without looking at definitions again.

mod evaluate;
mod fields;
mod vector;

#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::sync::Arc;

use sluice_protocol::Digest;

use crate::definitions::{Definitions, FeatureService, Field};
use crate::error::FeatureError;
use crate::expression::Expression;
use crate::value::{DataType, Value};

pub use evaluate::{DegradedView, FeatureRows};
pub use fields::Fields;
pub use vector::{NamedValues, ServiceVector, ViewVector};

/// How one model input comes about.
#[derive(Debug, Clone)]
enum Output {
    /// A stored feature as it is: the view's place in the service and the feature's in the view.
    Feature { view: usize, slot: usize },
    /// Computed over the service's schema.
    Expression(Expression),
}

/// A stored feature that expressions read.
#[derive(Debug, Clone)]
struct Gathered {
    view: usize,
    slot: usize,
    /// Its index in the service's schema.
    index: usize,
    data_type: DataType,
}

/// How to fill a model's inputs for a request.
#[derive(Debug, Clone)]
pub struct ServicePlan {
    service: Arc<FeatureService>,
    entity_key: Field,
    columns: Vec<String>,
    outputs: Vec<Output>,
    gathered: Vec<Gathered>,
    schema_hash: Digest,
}

impl Definitions {
    /// The plan of the service of this name.
    pub fn plan(&self, service: &str) -> Result<ServicePlan, FeatureError> {
        Ok(ServicePlan::new(Arc::clone(self.service(service)?)))
    }
}

impl ServicePlan {
    fn new(service: Arc<FeatureService>) -> Self {
        let entity_key = Field {
            name: service.entity.join_key.clone(),
            data_type: service.entity.value_type,
            required: true,
            default: Value::Null,
        };
        let places = places(&service);
        let output = |expression: &Expression| {
            let named = expression.as_column().and_then(|at| places.iter().find(|p| p.index == at));
            match named {
                Some(place) => Output::Feature { view: place.view, slot: place.slot },
                None => Output::Expression(expression.clone()),
            }
        };
        let outputs: Vec<Output> = service.columns.iter().map(|c| output(&c.expression)).collect();
        let mut read: Vec<usize> = Vec::new();
        for output in &outputs {
            if let Output::Expression(expression) = output {
                read.extend(expression.columns());
            }
        }
        let gathered = places.into_iter().filter(|place| read.contains(&place.index)).collect();
        Self {
            columns: service.columns().map(str::to_owned).collect(),
            schema_hash: Digest::of(canonical(&service).as_bytes()),
            entity_key,
            outputs,
            gathered,
            service,
        }
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.service.name
    }

    /// The entity's name.
    pub fn entity(&self) -> &str {
        &self.service.entity.name
    }

    /// The field that says which entity a row is about.
    pub fn entity_key(&self) -> &Field {
        &self.entity_key
    }

    /// What a request brings beside the entity key.
    pub fn request_fields(&self) -> &[Field] {
        &self.service.request_fields
    }

    /// The model's inputs, in order.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The views that are looked up, as `name@version`.
    pub fn views(&self) -> Vec<String> {
        self.service.views.iter().map(|view| view.id.to_string()).collect()
    }

    /// The hash of everything that decides a value. A model is served only with the one that
    /// it was trained with.
    pub fn schema_hash(&self) -> Digest {
        self.schema_hash
    }

    #[cfg(feature = "offline")]
    pub(crate) fn service(&self) -> &FeatureService {
        &self.service
    }
}

/// Every feature of the service's views and its index in the schema: the join key and the
/// request fields come before.
fn places(service: &FeatureService) -> Vec<Gathered> {
    let mut index = 1 + service.request_fields.len();
    let mut places = Vec::new();
    for (view, definition) in service.views.iter().enumerate() {
        for (slot, feature) in definition.features.iter().enumerate() {
            places.push(Gathered { view, slot, index, data_type: feature.data_type });
            index += 1;
        }
    }
    places
}

/// A text that changes when, and only when, a value may that a model sees.
fn canonical(service: &FeatureService) -> String {
    let mut text = String::from("sluice feature service 1\n");
    let entity = &service.entity;
    let _ = writeln!(text, "key {} {}", entity.join_key, entity.value_type);
    for field in &service.request_fields {
        let Field { name, data_type, required, default } = field;
        let _ = writeln!(text, "field {name} {data_type} required {required} default {default:?}");
    }
    for view in &service.views {
        text.push_str(&view.canonical());
        let ttl = view.ttl.map(|ttl| ttl.as_nanos());
        let _ = writeln!(text, "ttl {ttl:?} stale {:?}", view.stale);
        for feature in &view.features {
            let _ = writeln!(text, "default {} {:?}", feature.name, feature.default);
        }
    }
    for column in &service.columns {
        let data_type = column.expression.data_type();
        let _ = writeln!(text, "column {} {data_type} = {}", column.name, column.expression);
    }
    text
}
