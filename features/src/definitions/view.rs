//! Feature views: features of one entity, computed from one source.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use sluice_protocol::Digest;

use super::load::{Complaining, Place, default_value, duration, plain_name};
use super::{Definitions, Entity, Source, file, listed};
use crate::expression::{Expression, Node, Windows};
use crate::value::{DataType, Value};

/// Bigger expressions are refused, once the features that they name are written out.
const MAX_NODES: usize = 4096;

/// A feature view's name and version, written `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId {
    /// The view's name.
    pub name: Arc<str>,
    /// Its version, counted from 1.
    pub version: u32,
}

impl std::fmt::Display for ViewId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

impl std::str::FromStr for ViewId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('@').and_then(|(name, version)| {
            let version = version.parse().ok().filter(|version| *version > 0)?;
            (!name.is_empty()).then(|| Self { name: name.into(), version })
        });
        parts.ok_or_else(|| format!("view {text:?} must be written name@version"))
    }
}

/// What is served past a view's freshness bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stale {
    /// The last values, marked as degraded.
    Degrade,
    /// The declared defaults, marked as degraded; null where none is declared.
    Default,
}

/// A value computed from the source's rows.
#[derive(Debug, Clone)]
pub struct Feature {
    /// The feature's name.
    pub name: Arc<str>,
    /// The type of its values.
    pub data_type: DataType,
    /// What stands in past the freshness bound.
    pub default: Value,
    /// How it is computed, over the source's columns.
    pub(crate) expression: Expression,
}

/// Features of one entity, computed from one source.
#[derive(Debug, Clone)]
pub struct FeatureView {
    /// Name and version.
    pub id: ViewId,
    /// Whose features these are.
    pub entity: Arc<Entity>,
    /// Where the rows come from.
    pub source: Arc<Source>,
    /// How old the last row may be before it counts as stale.
    pub freshness: Duration,
    /// What is served then.
    pub stale: Stale,
    /// How far a training row looks back for this view's row; without bound when none.
    pub ttl: Option<Duration>,
    /// The features, in order.
    pub features: Vec<Feature>,
    pub(crate) definition: Digest,
}

impl FeatureView {
    /// The hash of everything that decides the values that are materialised.
    pub fn definition(&self) -> Digest {
        self.definition
    }

    /// A text that changes when, and only when, a materialised value may.
    pub(crate) fn canonical(&self) -> String {
        let mut text = String::from("sluice feature view 1\n");
        let (entity, source) = (&self.entity, &self.source);
        let created = source.created_timestamp_field.as_deref().unwrap_or("-");
        let mut used: Vec<&str> = vec![&entity.join_key, &source.timestamp_field];
        used.extend(source.created_timestamp_field.as_deref());
        let indices = self.features.iter().flat_map(|feature| feature.expression.columns());
        used.extend(indices.map(|index| source.columns[index].0.as_str()));
        used.sort_unstable();
        used.dedup();
        let _ = writeln!(text, "view {}", self.id);
        let _ = writeln!(text, "key {} {}", entity.join_key, entity.value_type);
        let _ = writeln!(text, "time {} created {created}", source.timestamp_field);
        for name in used {
            if let Some(data_type) = source.column_type(name) {
                let _ = writeln!(text, "column {name} {data_type}");
            }
        }
        for feature in &self.features {
            let Feature { name, data_type, expression, .. } = feature;
            let _ = writeln!(text, "feature {name} {data_type} = {expression}");
        }
        text
    }
}

pub(super) fn build(
    place: &Place,
    written: file::FeatureView,
    definitions: &Definitions,
    complaining: &mut Complaining,
) -> Option<FeatureView> {
    let name = complaining.check(place, plain_name(written.name));
    if written.version == 0 {
        complaining.add(place, "version counts from 1");
    }
    let freshness = complaining.check(place, duration("freshness", &written.freshness));
    let ttl = match &written.ttl {
        None => Some(None),
        Some(ttl) => complaining.check(place, duration("ttl", ttl)).map(Some),
    };
    let stale = complaining.check(
        place,
        match written.stale.as_deref() {
            None | Some("degrade") => Ok(Stale::Degrade),
            Some("default") => Ok(Stale::Default),
            Some(other) => Err(format!("stale {other:?} is unknown, write degrade or default")),
        },
    );
    let entity = definitions.entities.get(&written.entity).ok_or_else(|| {
        let known = listed(definitions.entities.keys());
        format!("entity {:?} is not defined, known are: {known}", written.entity)
    });
    let source = definitions.sources.get(&written.source).ok_or_else(|| {
        let known = listed(definitions.sources.keys());
        format!("source {:?} is not defined, known are: {known}", written.source)
    });
    let entity = complaining.check(place, entity);
    let source = complaining.check(place, source);
    let (entity, source) = (entity?, source?);
    check_key(entity, source, place, complaining);
    let count = written.features.len();
    let features = features(place, source, written.features, complaining);
    if features.len() < count {
        return None;
    }
    let mut view = FeatureView {
        id: ViewId { name: name?.into(), version: written.version },
        entity: Arc::clone(entity),
        source: Arc::clone(source),
        freshness: freshness?,
        stale: stale?,
        ttl: ttl?.filter(|ttl| !ttl.is_zero()),
        features,
        definition: Digest::of(b""),
    };
    view.definition = Digest::of(view.canonical().as_bytes());
    Some(view)
}

fn check_key(entity: &Entity, source: &Source, place: &Place, complaining: &mut Complaining) {
    let Entity { name, join_key, value_type } = entity;
    match source.column_type(join_key) {
        None => complaining.add(
            place,
            format!("source {} has no column {join_key}, the join key of {name}", source.name),
        ),
        Some(found) if found != *value_type => complaining.add(
            place,
            format!(
                "column {join_key} of source {} is {found}, entity {name} says {value_type}",
                source.name
            ),
        ),
        Some(_) => {}
    }
}

/// The features, each computed after those that it names.
fn features(
    place: &Place,
    source: &Source,
    written: Vec<file::Feature>,
    complaining: &mut Complaining,
) -> Vec<Feature> {
    if written.is_empty() {
        complaining.add(place, "a view needs at least one feature");
    }
    let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
    for (at, feature) in written.iter().enumerate() {
        complaining.check(place, plain_name(feature.name.clone()));
        if by_name.insert(feature.name.clone(), at).is_some() {
            complaining.add(place, format!("feature {} is defined twice", feature.name));
        }
    }
    let mut builder = Builder { place, source, written: &written, by_name, built: Vec::new() };
    builder.built.resize_with(written.len(), || State::Open);
    for at in 0..written.len() {
        builder.build(at, complaining);
    }
    let built = builder.built.into_iter();
    built
        .filter_map(|state| if let State::Done(feature) = state { Some(feature) } else { None })
        .collect()
}

enum State {
    Open,
    InWork,
    Failed,
    Done(Feature),
}

struct Builder<'a> {
    place: &'a Place,
    source: &'a Source,
    written: &'a [file::Feature],
    by_name: BTreeMap<String, usize>,
    built: Vec<State>,
}

impl Builder<'_> {
    fn build(&mut self, at: usize, complaining: &mut Complaining) {
        match self.built[at] {
            State::Done(_) | State::Failed => return,
            State::InWork => {
                let name = &self.written[at].name;
                complaining.add(self.place, format!("feature {name} is defined by way of itself"));
                return;
            }
            State::Open => self.built[at] = State::InWork,
        }
        let feature = &self.written[at];
        let mut siblings = Vec::new();
        for word in Expression::words(&feature.expression) {
            // A column of the source goes before a feature of the same name.
            let Some(other) = self.by_name.get(&word).copied() else { continue };
            if self.source.column_type(&word).is_none() {
                self.build(other, complaining);
                siblings.push(other);
            }
        }
        siblings.sort_unstable();
        siblings.dedup();
        let unready = siblings.iter().any(|other| !matches!(self.built[*other], State::Done(_)));
        if unready {
            // The feature that it names has complained.
            self.built[at] = State::Failed;
            return;
        }
        let result = self.one(feature, &siblings);
        let result = result.map_err(|reason| format!("feature {}: {reason}", feature.name));
        let built = complaining.check(self.place, result);
        self.built[at] = built.map_or(State::Failed, State::Done);
    }

    fn one(&self, written: &file::Feature, siblings: &[usize]) -> Result<Feature, String> {
        let mut schema = self.source.schema();
        let own = schema.columns().len();
        let done = |at: &usize| match &self.built[*at] {
            State::Done(feature) => Some(feature),
            _ => None,
        };
        let siblings: Vec<&Feature> = siblings.iter().filter_map(done).collect();
        for sibling in &siblings {
            schema.push(None, &sibling.name, sibling.data_type);
        }
        let parsed = Expression::parse(&written.expression, &schema, Windows::Backward)?;
        let node = parsed.node().rewrite(&mut |node| match node {
            Node::Column { index, .. } if *index >= own => {
                Some(siblings[*index - own].expression.node().clone())
            }
            _ => None,
        });
        check_shape(&node)?;
        let expression = Expression::from_node(node);
        let data_type = expression.data_type();
        let default = match &written.default {
            None => Value::Null,
            Some(default) => default_value(default, data_type)?,
        };
        Ok(Feature { name: written.name.as_str().into(), data_type, default, expression })
    }
}

/// Refuses what substitution may have made: a window inside a window, an endless tree.
fn check_shape(node: &Node) -> Result<(), String> {
    let (mut nodes, mut nested) = (0, false);
    node.visit(&mut |below| {
        nodes += 1;
        if let Node::Window(window) = below {
            window.inputs().for_each(|input| {
                input.visit(&mut |inner| nested |= matches!(inner, Node::Window(_)));
            });
        }
    });
    if nested {
        return Err("a window cannot look at another window's values".into());
    }
    if nodes > MAX_NODES {
        return Err(format!("expression has more than {MAX_NODES} parts"));
    }
    Ok(())
}
