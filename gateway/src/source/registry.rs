//! Follows the registry: every version that an alias names is loaded, and `champion` is the
//! one that answers when none is named. When the registry is away, what is served goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_protocol::{Digest, ModelName, ModelVersion};
use sluice_registry::{Client, RegistryError, Snapshot};
use tokio::sync::watch;

use super::package_cache::PackageCache;
use super::saved::{Saved, SavedModel};
use super::{install, refuse};
use crate::load::{Candidate, DeploymentSettings};
use crate::shared::Shared;

/// The alias of the version that answers when none is named.
const CHAMPION: &str = "champion";
/// How long one look at the feed waits for a change.
const WAIT: Duration = Duration::from_secs(30);
/// How long the start waits for a registry before it turns to the saved state.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// Brings the catalog to where the registry is, again and again.
#[derive(Debug)]
pub(crate) struct Follower {
    shared: Arc<Shared>,
    client: Client,
    cache: PackageCache,
    serving: Saved,
    /// Versions that cannot be served, whatever happens.
    refused: BTreeSet<(ModelName, ModelVersion)>,
}

impl Follower {
    pub(crate) fn new(shared: Arc<Shared>, client: Client) -> std::io::Result<Self> {
        let cache = PackageCache::open(shared.state.as_deref())?;
        let serving = Saved::new(String::new());
        Ok(Self { shared, client, cache, serving, refused: BTreeSet::new() })
    }

    /// Runs until `stop` says so.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        tokio::select! {
            () = self.follow() => {}
            _ = stop.wait_for(|&stop| stop) => {}
        }
    }

    async fn follow(&mut self) {
        let mut cursor = self.start().await;
        let mut pause = PAUSES.0;
        loop {
            let step = match cursor {
                None => self.catch_up().await.map(Some),
                Some(after) => self.next_change(after).await,
            };
            match step {
                Ok(next) => {
                    self.shared.set_started();
                    cursor = next;
                    pause = PAUSES.0;
                }
                Err(error) => {
                    if pause == PAUSES.0 {
                        tracing::warn!(%error, "cannot follow the registry; serving what is loaded");
                    }
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSES.1);
                }
            }
        }
    }

    /// The first state: what was served last, if it is saved, and then what the registry says.
    /// The saved state comes first so that a refused or unreachable new version finds it there.
    async fn start(&mut self) -> Option<u64> {
        self.apply_saved().await;
        if !self.serving.models.is_empty() {
            self.shared.set_started();
        }
        let caught_up = tokio::time::timeout(START_TIMEOUT, self.catch_up()).await;
        let reached = caught_up.unwrap_or_else(|_| {
            Err(RegistryError::Unavailable("registry does not answer".to_owned()))
        });
        match reached {
            Ok(sequence) => {
                self.shared.set_started();
                Some(sequence)
            }
            Err(error) => {
                tracing::warn!(%error, "cannot follow the registry; serving what was saved");
                None
            }
        }
    }

    async fn catch_up(&mut self) -> Result<u64, RegistryError> {
        let snapshot = self.client.snapshot().await?;
        self.apply(&snapshot).await?;
        Ok(snapshot.sequence)
    }

    /// Waits for a change after `after`; any change is answered by a new snapshot, so that a
    /// burst of them costs one.
    async fn next_change(&mut self, after: u64) -> Result<Option<u64>, RegistryError> {
        match self.client.changes(after, WAIT).await {
            Ok(changes) if changes.registry != self.serving.registry => Ok(None),
            Ok(changes) if changes.events.is_empty() => Ok(Some(changes.next)),
            Ok(_) => self.catch_up().await.map(Some),
            Err(RegistryError::SnapshotRequired(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Brings the catalog to `snapshot`.
    async fn apply(&mut self, snapshot: &Snapshot) -> Result<(), RegistryError> {
        let same_registry = self.serving.registry == snapshot.registry;
        let mut next = Saved::new(snapshot.registry.clone());
        let mut failed = None;
        for model in snapshot.models.iter().filter(|model| !model.aliases.is_empty()) {
            let wanted: BTreeSet<ModelVersion> = model.aliases.values().copied().collect();
            let champion = model.aliases.get(CHAMPION).copied();
            // One model that cannot be fetched must not hold up the others.
            let serving = match self.apply_model(&model.name, &wanted, champion).await {
                Ok(serving) => serving,
                Err(error) => {
                    failed = Some(error);
                    self.serving.models.get(&model.name).cloned().unwrap_or_default()
                }
            };
            next.models.insert(model.name.clone(), serving);
        }
        for (name, kept) in &self.serving.models {
            if next.models.contains_key(name) {
                continue;
            }
            if same_registry {
                tracing::info!(model = %name, "model is gone from the registry");
                self.shared.catalog.remove(name);
                self.shared.metrics.set_default_version(name, None);
            } else {
                // A registry that lost its data must not take the models down with it.
                tracing::warn!(model = %name, "another registry does not know this model; still serving it");
                next.models.insert(name.clone(), kept.clone());
            }
        }
        if next != self.serving {
            self.serving = next;
            self.save();
        }
        failed.map_or(Ok(()), Err)
    }

    /// Loads what is wanted of one model, then swaps, then lets go of what is not. Gives what
    /// is served afterwards.
    async fn apply_model(
        &mut self,
        name: &ModelName,
        wanted: &BTreeSet<ModelVersion>,
        champion: Option<ModelVersion>,
    ) -> Result<SavedModel, RegistryError> {
        let before = self.serving.models.get(name).cloned().unwrap_or_default();
        let mut versions = before.versions.clone();
        versions.retain(|version, _| self.is_loaded(name, *version));
        for &version in wanted {
            if self.is_loaded(name, version) || self.refused.contains(&(name.clone(), version)) {
                continue;
            }
            let (files, digests) = self.fetch(name, version).await?;
            if self.install(name, version, files).await {
                versions.insert(version, digests);
            }
        }
        let loaded = |version: &ModelVersion| versions.contains_key(version);
        let default = champion.filter(loaded).or(before.default.filter(loaded));
        let keep = |version: &ModelVersion| wanted.contains(version) || default == Some(*version);
        versions.retain(|version, _| keep(version));
        self.shared.catalog.update(name, |known| {
            known.default = default;
            known.versions.retain(|version, _| keep(version));
            known.refused.retain(|version, _| wanted.contains(version));
        });
        self.shared.metrics.set_default_version(name, default);
        if default != before.default {
            let version = default.map_or_else(|| "none".to_owned(), |version| version.to_string());
            tracing::info!(model = %name, %version, "answering version changed");
        }
        Ok(SavedModel { default, versions })
    }

    fn is_loaded(&self, name: &ModelName, version: ModelVersion) -> bool {
        let catalog = self.shared.catalog.snapshot();
        catalog.model(name.as_str()).is_some_and(|known| known.versions.contains_key(&version))
    }

    async fn fetch(
        &self,
        name: &ModelName,
        version: ModelVersion,
    ) -> Result<(BTreeMap<String, Bytes>, BTreeMap<String, Digest>), RegistryError> {
        let mut files = BTreeMap::new();
        let mut digests = BTreeMap::new();
        for entry in self.client.version(name, version).await?.files {
            let bytes = match self.cache.get(entry.digest) {
                Some(bytes) => bytes,
                None => {
                    let bytes = self.client.fetch_blob(entry.digest).await?;
                    self.cache.put(entry.digest, &bytes);
                    bytes
                }
            };
            digests.insert(entry.path.clone(), entry.digest);
            files.insert(entry.path, bytes);
        }
        Ok((files, digests))
    }

    /// Loads a version on a thread of its own. False when it was refused.
    async fn install(
        &mut self,
        name: &ModelName,
        version: ModelVersion,
        files: BTreeMap<String, Bytes>,
    ) -> bool {
        let shared = self.shared.clone();
        let mut candidate = Candidate {
            model: name.clone(),
            version,
            files,
            settings: DeploymentSettings::default(),
        };
        match self.settings(name) {
            Ok(settings) => candidate.settings = settings,
            Err(reason) => {
                // Somebody can mend the file, so the version itself is not given up.
                refuse(&shared, &candidate, &reason);
                return false;
            }
        }
        let loading = tokio::task::spawn_blocking(move || install(&shared, &candidate).is_some());
        let installed = loading.await.unwrap_or_else(|error| {
            tracing::error!(model = %name, %version, %error, "loading a model version failed");
            false
        });
        if !installed {
            // Versions do not change, so this one will not become better.
            self.refused.insert((name.clone(), version));
        }
        installed
    }

    /// `deployments/<model>.toml` of the state folder, if there is one.
    fn settings(&self, name: &ModelName) -> Result<DeploymentSettings, String> {
        let Some(state) = &self.shared.state else { return Ok(DeploymentSettings::default()) };
        let path = state.join("deployments").join(format!("{name}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => DeploymentSettings::parse(&text).map_err(|error| error.to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(DeploymentSettings::default())
            }
            Err(error) => Err(format!("{}: {error}", path.display())),
        }
    }

    fn save(&self) {
        let Some(state) = &self.shared.state else { return };
        if let Err(error) = self.serving.store(state) {
            tracing::warn!(%error, "cannot save what is served; a restart will need the registry");
            return;
        }
        let models = self.serving.models.values();
        let digests = models.flat_map(|model| model.versions.values().flat_map(BTreeMap::values));
        self.cache.prune(&digests.copied().collect());
    }

    /// Serves the saved state again.
    async fn apply_saved(&mut self) {
        let Some(state) = self.shared.state.clone() else { return };
        let saved = match Saved::load(&state) {
            Ok(Some(saved)) => saved,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(%error, "cannot read the saved state");
                return;
            }
        };
        for (name, model) in &saved.models {
            for (&version, digests) in &model.versions {
                let files = digests
                    .iter()
                    .map(|(path, digest)| Some((path.clone(), self.cache.get(*digest)?)))
                    .collect::<Option<BTreeMap<_, _>>>();
                match files {
                    Some(files) => drop(self.install(name, version, files).await),
                    None => {
                        tracing::warn!(model = %name, %version, "a saved package is incomplete")
                    }
                }
            }
            let default = model.default.filter(|version| self.is_loaded(name, *version));
            self.shared.catalog.update(name, |known| known.default = default);
            self.shared.metrics.set_default_version(name, default);
        }
        self.serving = saved;
    }
}
