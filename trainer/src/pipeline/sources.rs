//! Which bytes a run learned from: the digests of the files that its examples are built from.
//!
//! Files may be replaced at any time, so digests are taken before the examples are built and
//! again after: only if both agree do they tell what was read.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use sluice_features::{Definitions, Source};
use sluice_protocol::Digest;

use super::file::Data;

/// The files of a run's sources by the source's name, with their digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sources(BTreeMap<String, (std::path::PathBuf, Digest)>);

impl Sources {
    /// Reads the label's source and those of the service's views.
    pub(super) fn read(definitions: &Definitions, data: &Data) -> anyhow::Result<Self> {
        let service = definitions.services().filter(|service| service.name == data.service);
        let views = service.flat_map(|service| &service.views).map(|view| view.source.as_ref());
        let labels = definitions.sources().filter(|source| source.name == data.label_source);
        let mut sources = BTreeMap::new();
        for Source { name, path, .. } in views.chain(labels) {
            if sources.contains_key(name) {
                continue;
            }
            let bytes = std::fs::read(path)
                .with_context(|| format!("read source {name} at {}", path.display()))?;
            sources.insert(name.clone(), (path.clone(), Digest::of(&bytes)));
        }
        Ok(Self(sources))
    }

    /// Refuses a file that is another one than it was `before`.
    pub(super) fn check_unchanged_since(&self, before: &Self) -> anyhow::Result<()> {
        let changed = |name: &&String| before.0.get(*name) != self.0.get(*name);
        if let Some(name) = self.0.keys().find(changed) {
            let path = self.0[name].0.display();
            bail!(
                "source {name} at {path} changed while the examples were built; run again once \
                 it is complete"
            );
        }
        Ok(())
    }

    /// The digests by source, for the manifest.
    pub(super) fn digests(&self) -> toml::Table {
        let entries = self.0.iter();
        entries.map(|(name, (_, digest))| (name.clone(), digest.to_string().into())).collect()
    }
}
