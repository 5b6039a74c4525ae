//! One entity's vector for people: the stored values by view and the model's inputs.

use std::time::SystemTime;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::evaluate::feature_value;
use super::{Fields, ServicePlan};
use crate::column::Column;
use crate::definitions::Field;
use crate::error::FeatureError;
use crate::online::EmbeddedStore;
use crate::timestamp::Timestamp;
use crate::value::{Value, number_to_json};

/// Names and values that serialise as a JSON object in this order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct NamedValues(pub Vec<(String, serde_json::Value)>);

impl Serialize for NamedValues {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        self.0.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for NamedValues {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = NamedValues;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamedValues, A::Error> {
                let mut values = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    values.push(entry);
                }
                Ok(NamedValues(values))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// What a service holds and computes for one entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceVector {
    /// The feature service.
    pub service: String,
    /// The entity's name.
    pub entity: String,
    /// Its join key.
    pub join_key: String,
    /// The key.
    pub key: serde_json::Value,
    /// The stored rows, view by view.
    pub views: Vec<ViewVector>,
    /// The model's inputs; none unless every required request field was given.
    pub columns: Option<NamedValues>,
}

/// What one view holds for one entity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ViewVector {
    /// The view, as `name@version`.
    pub view: String,
    /// When the row holds, a day or a moment; none when the view has no row for the key.
    pub as_of: Option<String>,
    /// Whether the row is past the view's freshness bound.
    pub degraded: bool,
    /// The features as they are served.
    pub features: NamedValues,
}

impl ServicePlan {
    /// The vector of the entity `key`, with request fields as texts: `("promo", "1")`. The
    /// model's inputs are computed when all required fields are there.
    pub fn vector(
        &self,
        store: &EmbeddedStore,
        key: &str,
        fields: &[(String, String)],
        now: SystemTime,
    ) -> Result<ServiceVector, FeatureError> {
        let request = self.fields_from_text(key, fields)?;
        self.refuse_unknown_fields(&request)?;
        let key = self.entity_key.column_of(&request, 1)?;
        let lookups = self.look_up(store, &key, 1, Timestamp::from(now))?;
        let views = self.service.views.iter().zip(&lookups);
        let views = views.map(|(view, lookup)| ViewVector {
            view: view.id.to_string(),
            as_of: lookup.rows[0].as_ref().map(|row| Timestamp(row.time()).to_string()),
            degraded: lookup.stale.first() == Some(&true),
            features: NamedValues(
                (0..view.features.len())
                    .map(|slot| {
                        let value = feature_value(view, slot, lookup, 0);
                        (view.features[slot].name.to_string(), value.to_json())
                    })
                    .collect(),
            ),
        });
        let missing = |field: &Field| field.required && request.get(&field.name).is_none();
        let columns = if self.request_fields().iter().any(missing) {
            None
        } else {
            let values = self.evaluate(store, &request, now)?.values;
            let numbers = values.iter().map(|value| number_to_json(f64::from(*value)));
            Some(NamedValues(self.columns.iter().cloned().zip(numbers).collect()))
        };
        Ok(ServiceVector {
            service: self.name().to_owned(),
            entity: self.entity().to_owned(),
            join_key: self.entity_key.name.clone(),
            key: key.value(0).to_json(),
            views: views.collect(),
            columns,
        })
    }

    /// One row of fields out of texts, each read as its field's type.
    pub fn fields_from_text(
        &self,
        key: &str,
        fields: &[(String, String)],
    ) -> Result<Fields, FeatureError> {
        let mut row = Fields::new();
        row.push(&self.entity_key.name, read(&self.entity_key, key)?)?;
        for (name, text) in fields {
            let known = self.request_fields().iter().find(|field| field.name == *name);
            let column = match known {
                Some(field) => read(field, text)?,
                // The check of the fields says what is known instead.
                None => {
                    Column::repeat(&Value::String(text.as_str().into()), crate::DataType::String, 1)
                }
            };
            row.push(name, column)?;
        }
        Ok(row)
    }
}

fn read(field: &Field, text: &str) -> Result<Column, FeatureError> {
    let value = Value::parse(text, field.data_type).ok_or_else(|| FeatureError::InvalidField {
        field: field.name.clone(),
        row: 0,
        value: format!("{text:?}"),
        expected: field.data_type.expected().to_owned(),
    })?;
    Ok(Column::repeat(&value, field.data_type, 1))
}
