//! Reading definition files and checking them as a whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use sluice_protocol::read_toml;

use super::{Definitions, Entity, file, service, source, view};
use crate::error::{Complaint, Complaints, FeatureError};
use crate::value::{DataType, Value};

/// Everything that is wrong so far.
#[derive(Debug, Default)]
pub(super) struct Complaining {
    complaints: Vec<Complaint>,
}

/// A definition's place, to complain about it.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) name: String,
}

impl Place {
    /// The file as a whole.
    fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), name: String::new() }
    }
}

impl Complaining {
    pub(super) fn add(&mut self, place: &Place, reason: impl Into<String>) {
        self.complaints.push(Complaint {
            file: place.file.display().to_string(),
            name: place.name.clone(),
            reason: reason.into(),
        });
    }

    /// The value, or none and a complaint.
    pub(super) fn check<T>(&mut self, place: &Place, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.add(place, reason)).ok()
    }
}

/// A definition as written and its place.
type Placed<T> = Vec<(Place, T)>;

#[derive(Default)]
struct Written {
    entities: Placed<file::Entity>,
    sources: Placed<file::Source>,
    views: Placed<file::FeatureView>,
    services: Placed<file::FeatureService>,
}

pub(super) fn load(path: &Path) -> Result<Definitions, FeatureError> {
    let mut complaining = Complaining::default();
    let mut written = Written::default();
    let files = files(path)?;
    let alone = files.first().is_some_and(|first| first == path);
    for file in files {
        let text = std::fs::read_to_string(&file)
            .map_err(|reason| FeatureError::Io { path: file.clone(), reason })?;
        match read_toml(&text) {
            Ok(entries) => collect(&file, entries, &mut written, &mut complaining),
            Err(fault) => complaining.add(&Place::of(&file), unreadable(fault, alone)),
        }
    }
    let definitions = build(written, &mut complaining);
    if complaining.complaints.is_empty() {
        return Ok(definitions);
    }
    Err(FeatureError::Definitions(Complaints(complaining.complaints)))
}

/// The file, or the directory's TOML files in the order of their names.
fn files(path: &Path) -> Result<Vec<PathBuf>, FeatureError> {
    let io = |reason| FeatureError::Io { path: path.to_owned(), reason };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file.extension().is_some_and(|ending| ending == "toml") {
            files.push(file);
        }
    }
    files.sort();
    if files.is_empty() {
        let reason = "no .toml file in the directory";
        return Err(io(std::io::Error::new(std::io::ErrorKind::NotFound, reason)));
    }
    Ok(files)
}

/// A folder may hold a file that was never meant to be definitions.
fn unreadable(fault: String, alone: bool) -> String {
    if alone {
        return fault;
    }
    format!("{fault} (every .toml file of the folder is read; to leave others out, name one file)")
}

fn collect(path: &Path, file: file::File, written: &mut Written, complaining: &mut Complaining) {
    entries(path, "entity", file.entity, &mut written.entities, complaining);
    entries(path, "source", file.source, &mut written.sources, complaining);
    entries(path, "feature_view", file.feature_view, &mut written.views, complaining);
    entries(path, "feature_service", file.feature_service, &mut written.services, complaining);
}

fn entries<T: DeserializeOwned>(
    path: &Path,
    kind: &str,
    values: Vec<toml::Value>,
    out: &mut Placed<T>,
    complaining: &mut Complaining,
) {
    for (at, value) in values.into_iter().enumerate() {
        let field =
            |key: &str| value.get(key).map(|v| v.as_str().map_or(v.to_string(), Into::into));
        let name = match (field("name"), field("version")) {
            (Some(name), Some(version)) => format!("{kind} {name}@{version}"),
            (Some(name), None) => format!("{kind} {name}"),
            (None, _) => format!("{kind} number {}", at + 1),
        };
        let place = Place { file: path.to_owned(), name };
        match value.try_into() {
            Ok(entry) => out.push((place, entry)),
            Err(error) => complaining.add(&place, error.message()),
        }
    }
}

fn build(written: Written, complaining: &mut Complaining) -> Definitions {
    let mut definitions = Definitions::default();
    for (place, entity) in written.entities {
        if let Some(entity) = build_entity(&place, entity, complaining) {
            insert(&mut definitions.entities, entity.name.clone(), entity, &place, complaining);
        }
    }
    for (place, source) in written.sources {
        if let Some(source) = source::build(&place, source, complaining) {
            insert(&mut definitions.sources, source.name.clone(), source, &place, complaining);
        }
    }
    for (place, view) in written.views {
        if let Some(view) = view::build(&place, view, &definitions, complaining) {
            insert(&mut definitions.views, view.id.clone(), view, &place, complaining);
        }
    }
    for (place, service) in written.services {
        if let Some(service) = service::build(&place, service, &definitions, complaining) {
            insert(&mut definitions.services, service.name.clone(), service, &place, complaining);
        }
    }
    definitions
}

fn insert<K: Ord, V>(
    map: &mut BTreeMap<K, Arc<V>>,
    key: K,
    value: V,
    place: &Place,
    complaining: &mut Complaining,
) {
    if map.insert(key, Arc::new(value)).is_some() {
        complaining.add(place, "defined twice");
    }
}

fn build_entity(
    place: &Place,
    entity: file::Entity,
    complaining: &mut Complaining,
) -> Option<Entity> {
    let name = complaining.check(place, plain_name(entity.name));
    let join_key = complaining.check(place, plain_name(entity.join_key));
    let value_type = complaining.check(
        place,
        data_type(&entity.value_type).and_then(|found| match found {
            DataType::Int64 | DataType::String => Ok(found),
            other => Err(format!("value_type {other} cannot be a key, it is INT64 or STRING")),
        }),
    );
    Some(Entity { name: name?, join_key: join_key?, value_type: value_type? })
}

/// A name that is safe in messages, paths and SQL.
pub(super) fn plain_name(name: String) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > 100 || !name.chars().all(allowed) {
        return Err(format!(
            "name {name:?} must be 1 to 100 of ASCII letters, digits, '_' and '-'"
        ));
    }
    Ok(name)
}

/// The type that definitions call by this name.
pub(super) fn data_type(name: &str) -> Result<DataType, String> {
    DataType::ALL.into_iter().find(|known| known.as_str() == name).ok_or_else(|| {
        let names: Vec<_> = DataType::ALL.iter().map(|known| known.as_str()).collect();
        format!("type {name:?} is unknown, known are: {}", names.join(", "))
    })
}

/// A default as written, of the type it stands for.
pub(super) fn default_value(written: &toml::Value, data_type: DataType) -> Result<Value, String> {
    let value = match (written, data_type) {
        (toml::Value::Boolean(truth), DataType::Bool) => Some(Value::Bool(*truth)),
        (toml::Value::Integer(whole), DataType::Int64) => Some(Value::Int64(*whole)),
        (toml::Value::Integer(whole), DataType::Float64) => Some(Value::Float64(*whole as f64)),
        (toml::Value::Float(number), DataType::Float64) => Some(Value::Float64(*number)),
        (toml::Value::String(text), DataType::String | DataType::Date | DataType::Timestamp) => {
            Value::parse(text, data_type)
        }
        _ => None,
    };
    value.ok_or_else(|| format!("default {written} is not {}", data_type.expected()))
}

/// A span such as `30d`.
pub(super) fn duration(key: &str, text: &str) -> Result<std::time::Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{key} {text:?} is no duration such as \"30d\": {error}"))
}
