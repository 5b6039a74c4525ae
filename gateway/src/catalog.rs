//! All deployments at one moment. A request takes one snapshot and keeps it, so no answer
//! mixes two versions; a change publishes a new catalog by one pointer swap.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use sluice_protocol::{ModelName, ModelVersion};

use crate::deployment::Deployment;
use crate::error::{GatewayError, clip};

/// Every model that is known, by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Catalog {
    models: HashMap<ModelName, Model>,
}

/// A model's loaded versions, and what is known of the others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) versions: BTreeMap<ModelVersion, Arc<Deployment>>,
    /// Versions that were refused, and why. One that was loaded before may still answer.
    pub(crate) refused: BTreeMap<ModelVersion, String>,
    /// Versions that are to be loaded, or loaded anew.
    pub(crate) loading: BTreeSet<ModelVersion>,
    /// Versions that were taken out by a call.
    unloaded: BTreeSet<ModelVersion>,
    /// Names for versions, whether or not they are loaded.
    pub(crate) labels: BTreeMap<String, ModelVersion>,
    default: Option<ModelVersion>,
    /// Whether requests that name no version were ever answered.
    had_default: bool,
}

/// What became of a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionState<'m> {
    /// It answers, if need be as it was loaded before.
    Ready {
        /// Why what is there by now was refused.
        refused: Option<&'m str>,
    },
    Loading,
    Refused(&'m str),
    Unloaded,
}

impl Catalog {
    /// The deployment that answers for `model`, or for one version of it.
    pub(crate) fn resolve(
        &self,
        model: &str,
        version: Option<&str>,
    ) -> Result<&Arc<Deployment>, GatewayError> {
        let unknown = |reason| GatewayError::UnknownModel { model: clip(model).to_owned(), reason };
        let (name, known) = self.models.get_key_value(model).ok_or_else(|| unknown(None))?;
        match version.filter(|text| !text.is_empty()) {
            None => known
                .default
                .and_then(|version| known.versions.get(&version))
                .ok_or_else(|| unknown(Some(known.why_unavailable()))),
            Some(text) => {
                let version = text.parse::<ModelVersion>().ok();
                let deployed = version.and_then(|version| known.versions.get(&version));
                deployed.ok_or_else(|| known.lacks(name, version, text))
            }
        }
    }

    /// The deployment that `label` names.
    pub(crate) fn resolve_label(
        &self,
        model: &str,
        label: &str,
    ) -> Result<&Arc<Deployment>, GatewayError> {
        let unknown = GatewayError::UnknownModel { model: clip(model).to_owned(), reason: None };
        let (name, known) = self.models.get_key_value(model).ok_or(unknown)?;
        let named = |version| known.versions.get(version);
        known.labels.get(label).and_then(named).ok_or_else(|| {
            let usable = known.labels.iter().filter(|(_, version)| named(version).is_some());
            let usable: Vec<&str> = usable.map(|(label, _)| label.as_str()).collect();
            let usable = match usable.as_slice() {
                [] => "none".to_owned(),
                some => some.join(", "),
            };
            let label = clip(label);
            GatewayError::NotFound(format!(
                "Unrecognized servable version label: {label:?} of model {name}; available: {usable}"
            ))
        })
    }

    /// A model, whether or not one of its versions is loaded.
    pub(crate) fn model(&self, name: &str) -> Option<&Model> {
        self.models.get(name)
    }

    /// All models by name, sorted.
    pub(crate) fn models(&self) -> BTreeMap<&ModelName, &Model> {
        self.models.iter().collect()
    }

    /// Whether something is served.
    pub(crate) fn serves(&self) -> bool {
        self.deployments().next().is_some()
    }

    /// Whether every model that answered when no version was named still does. A model without a
    /// version of that kind does not count (nothing of it was ever loaded, or only a candidate is
    /// tried): it must not take the others down.
    pub(crate) fn is_complete(&self) -> bool {
        self.models.values().all(Model::keeps_answering)
    }

    /// Everything that is deployed.
    pub(crate) fn deployments(&self) -> impl Iterator<Item = &Arc<Deployment>> {
        self.models.values().flat_map(|model| model.versions.values())
    }
}

impl Model {
    /// The version that answers when none is named.
    pub(crate) const fn default_version(&self) -> Option<ModelVersion> {
        self.default
    }

    /// Lets `version` answer when none is named.
    pub(crate) const fn set_default_version(&mut self, version: Option<ModelVersion>) {
        self.default = version;
        self.had_default |= version.is_some();
    }

    fn keeps_answering(&self) -> bool {
        !self.had_default
            || self.default.is_some_and(|version| self.versions.contains_key(&version))
    }

    /// Takes every version out because a call says so: nobody misses them.
    pub(crate) fn unload(&mut self) {
        self.unloaded.extend(std::mem::take(&mut self.versions).into_keys());
        self.refused.clear();
        self.default = None;
        self.had_default = false;
    }

    /// Forgets what was unloaded: from now on these are the model's versions.
    pub(crate) fn retain(&mut self, wanted: impl Fn(&ModelVersion) -> bool) {
        self.versions.retain(|version, _| wanted(version));
        self.refused.retain(|version, _| wanted(version));
        self.loading.clear();
        self.unloaded.clear();
    }

    /// Whether there is nothing of it but what was unloaded.
    pub(crate) fn is_unloaded(&self) -> bool {
        self.versions.is_empty() && self.refused.is_empty() && self.loading.is_empty()
    }

    /// What became of each version that is known, sorted.
    pub(crate) fn states(&self) -> BTreeMap<ModelVersion, VersionState<'_>> {
        // The later ones win: what answers is ready, whatever else is tried.
        let unloaded = self.unloaded.iter().map(|&version| (version, VersionState::Unloaded));
        let refused = self.refused.iter();
        let refused = refused.map(|(&version, reason)| (version, VersionState::Refused(reason)));
        let loading = self.loading.iter().map(|&version| (version, VersionState::Loading));
        let ready = self.versions.keys().map(|&version| {
            let refused = self.refused.get(&version).map(String::as_str);
            (version, VersionState::Ready { refused })
        });
        unloaded.chain(refused).chain(loading).chain(ready).collect()
    }

    /// Why this version does not answer.
    fn lacks(&self, name: &ModelName, version: Option<ModelVersion>, text: &str) -> GatewayError {
        let state = version.and_then(|version| Some((version, self.states().remove(&version)?)));
        let Some((version, state)) = state else {
            let available = self.versions.keys().copied().collect();
            return GatewayError::UnknownVersion {
                model: name.clone(),
                version: clip(text).to_owned(),
                available,
            };
        };
        let reason = match state {
            VersionState::Refused(reason) => reason.to_owned(),
            VersionState::Loading => "it is being loaded".to_owned(),
            VersionState::Unloaded => "unloaded".to_owned(),
            VersionState::Ready { .. } => "it is ready".to_owned(),
        };
        GatewayError::VersionNotReady { model: name.clone(), version, reason }
    }

    fn why_unavailable(&self) -> String {
        match self.refused.last_key_value() {
            None => "has no available versions".to_owned(),
            Some((version, reason)) => {
                format!("has no available versions; version {version} was refused: {reason}")
            }
        }
    }
}

/// The catalog in force, and the only way to change it.
#[derive(Debug, Default)]
pub(crate) struct Published {
    catalog: ArcSwap<Catalog>,
    /// What was taken out and may still be answering. It is held here so that the last request
    /// does not have to free a model's memory on a serving core.
    retired: Mutex<Vec<Arc<Deployment>>>,
}

impl Published {
    /// The catalog at this moment.
    pub(crate) fn snapshot(&self) -> arc_swap::Guard<Arc<Catalog>> {
        self.catalog.load()
    }

    /// Changes one model. Readers see all of the change or nothing of it.
    pub(crate) fn update(&self, name: &ModelName, change: impl Fn(&mut Model)) {
        self.publish(|catalog| change(catalog.models.entry(name.clone()).or_default()));
    }

    /// Forgets a model; its deployments end when their last request is answered.
    pub(crate) fn remove(&self, name: &ModelName) {
        self.publish(|catalog| drop(catalog.models.remove(name)));
    }

    /// Frees what was taken out and has answered its last request.
    pub(crate) fn free_retired(&self) {
        let freed = {
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            let (used, unused): (Vec<_>, Vec<_>) =
                std::mem::take(&mut *retired).into_iter().partition(is_used);
            *retired = used;
            unused
        };
        // Sessions take their time to end, for which nobody should wait.
        drop(freed);
    }

    /// Whether what was taken out of this version still answers a request.
    pub(crate) fn is_ending(&self, model: &ModelName, version: ModelVersion) -> bool {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        retired.iter().any(|deployment| {
            deployment.model == *model && deployment.version == version && is_used(deployment)
        })
    }

    fn publish(&self, change: impl Fn(&mut Catalog)) {
        let mut after = Arc::default();
        let before = self.catalog.rcu(|catalog| {
            let mut next = Catalog::clone(catalog);
            change(&mut next);
            after = Arc::new(next);
            Arc::clone(&after)
        });
        // Those that stay are held by the catalog; the list is for those that go.
        let kept: HashSet<_> = after.deployments().map(Arc::as_ptr).collect();
        let gone = before.deployments().filter(|old| !kept.contains(&Arc::as_ptr(old))).cloned();
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
    }
}

/// Whether anybody but the list of retired ones holds it. A core's queue holds the executor alone,
/// also for jobs whose callers have left, and would free its sessions itself if it were the last.
fn is_used(deployment: &Arc<Deployment>) -> bool {
    Arc::strong_count(deployment) > 1 || Arc::strong_count(&deployment.executor) > 1
}

/// The versions that metadata lists: the one asked for, else all that are loaded.
pub(crate) fn listed_versions(
    catalog: &Catalog,
    deployment: &Deployment,
    asked: Option<&str>,
) -> Vec<String> {
    match asked.filter(|version| !version.is_empty()) {
        Some(_) => vec![deployment.version.to_string()],
        None => catalog
            .model(deployment.model.as_str())
            .map(|model| model.versions.keys().map(ModelVersion::to_string).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sluice_protocol::{ModelName, ModelVersion};

    use super::{Model, Published};
    use crate::deployment::{Deployment, idle};

    fn deployment(model: &ModelName) -> Arc<Deployment> {
        Arc::new(idle::deployment(model, &[]))
    }

    #[test]
    fn a_model_counts_from_its_first_default_on() {
        let mut model = Model::default();
        model.set_default_version(None);
        assert!(model.keeps_answering(), "it never answered");
        model.set_default_version(Some(ModelVersion(1)));
        assert!(!model.keeps_answering(), "version 1 is not loaded");
        model.set_default_version(None);
        assert!(!model.keeps_answering(), "it did answer once");
    }

    /// Whoever still uses a retired deployment, or its executor alone, must not be the one to
    /// free it.
    #[test]
    fn what_was_taken_out_is_freed_when_nobody_uses_it() {
        let (published, name) = (Published::default(), "m".parse::<ModelName>().unwrap());
        let deployed = deployment(&name);
        let (request, queue) = (deployed.clone(), deployed.executor.clone());
        let watched = Arc::downgrade(&deployed);
        published.update(&name, |model| {
            model.versions.insert(ModelVersion(1), deployed.clone());
        });
        drop(deployed);
        published.remove(&name);
        published.free_retired();
        assert!(watched.upgrade().is_some(), "a request has it");
        drop(request);
        published.free_retired();
        assert!(watched.upgrade().is_some(), "a core's queue has its executor");
        drop(queue);
        assert!(watched.upgrade().is_some(), "which did not free it");
        published.free_retired();
        assert!(watched.upgrade().is_none());
    }
}
