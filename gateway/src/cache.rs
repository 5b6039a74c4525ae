//! Answers that were given before, for models whose deployment says that they may be given again.
//!
//! What is found is what the same version of the model computed from the same bits. The bound is
//! one of bytes, for all models together; what was not asked for lately makes room.

use std::sync::Arc;

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use sha2::{Digest, Sha256};
use sluice_protocol::{NamedTensor, RequestedOutput, Tensor, TensorData};

use crate::deployment::Deployment;

/// Parts that are locked by themselves. An answer larger than a part is not kept.
const PARTS: usize = 8;
/// What an entry takes beside its tensors' elements, names and shapes: key, links and counts.
const ENTRY: usize = 256;
/// The same for a tensor, and for an element of text.
const TENSOR: usize = size_of::<NamedTensor>() + 64;
const TEXT: usize = size_of::<bytes::Bytes>() + 32;
/// The size of an answer that the number of entries is estimated by.
const USUAL: usize = 4096;

/// The outputs of an answer.
type Outputs = Arc<[NamedTensor]>;

/// The answers, bounded by bytes.
pub(crate) struct ResponseCache(
    Cache<Key, Outputs, Weight, DefaultHashBuilder, DefaultLifecycle<Key, Outputs>>,
);

/// What an answer depends on: the SHA-256 of the deployment's number, which outputs were asked
/// for, and all of the graph's inputs, features included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key([u8; 32]);

impl ResponseCache {
    /// A cache of so many bytes; none of 0.
    pub(crate) fn new(bytes: usize) -> Option<Self> {
        let options = OptionsBuilder::new()
            .shards(PARTS)
            .estimated_items_capacity((bytes / USUAL).max(1))
            .weight_capacity(bytes as u64)
            .build();
        let options = options.ok().filter(|_| bytes > 0)?;
        let (hash, lifecycle) = Default::default();
        Some(Self(Cache::with_options(options, Weight, hash, lifecycle)))
    }

    /// The outputs that were kept under `key`. Never waits: while another core changes that part
    /// of the cache, nothing is found.
    pub(crate) fn find(&self, key: &Key) -> Option<Vec<NamedTensor>> {
        self.0.try_get(key).ok().flatten().map(|outputs| outputs.to_vec())
    }

    /// Keeps `outputs` under `key`, unless another core uses that part of the cache just now.
    pub(crate) fn keep(&self, key: Key, outputs: &[NamedTensor]) {
        let _kept = self.0.try_insert(key, outputs.into());
    }

    /// How many bytes are kept.
    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.0.weight()
    }
}

impl std::fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseCache")
            .field("capacity", &self.0.capacity())
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Of a request for `wanted` outputs, all when none is named, of `inputs` in the graph's order
    /// and of what goes in the place of values that the graph has itself.
    pub(crate) fn new(
        deployment: &Deployment,
        wanted: &[RequestedOutput],
        inputs: &[Tensor],
        optional: &[NamedTensor],
    ) -> Self {
        let mut hash = Sha256::new();
        hash.update(deployment.number.0.to_le_bytes());
        for spec in &deployment.outputs {
            let asked = wanted.is_empty() || wanted.iter().any(|output| output.name == spec.name);
            hash.update([u8::from(asked)]);
        }
        let mut raw = Vec::new();
        let required = inputs.iter().map(|tensor| ("", tensor));
        let named = optional.iter().map(|NamedTensor { name, tensor }| (name.as_str(), tensor));
        for (name, tensor) in required.chain(named) {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(tensor.datatype().as_str());
            hash.update((tensor.shape().len() as u64).to_le_bytes());
            tensor.shape().iter().for_each(|size| hash.update(size.to_le_bytes()));
            raw.clear();
            tensor.data().write_raw(&mut raw);
            hash.update((raw.len() as u64).to_le_bytes());
            hash.update(&raw);
        }
        Self(hash.finalize().into())
    }
}

/// An entry's bytes.
#[derive(Debug, Clone, Copy)]
struct Weight;

impl Weighter<Key, Outputs> for Weight {
    fn weight(&self, _key: &Key, outputs: &Outputs) -> u64 {
        let outputs = outputs.iter().map(|NamedTensor { name, tensor }| {
            TENSOR + name.len() + size_of_val(tensor.shape()) + data_bytes(tensor.data())
        });
        (ENTRY + outputs.sum::<usize>()) as u64
    }
}

fn data_bytes(data: &TensorData) -> usize {
    match data {
        TensorData::Bytes(texts) => texts.iter().map(|text| TEXT + text.len()).sum(),
        other => other.len() * other.datatype().size().unwrap_or_default(),
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
