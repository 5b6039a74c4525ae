//! A model package's files: the graph, the reference profile, the parity rows, and the
//! manifest that names them by digest.

use std::collections::BTreeMap;

use sluice_protocol::{
    Datatype, Digest, FeatureServicePin, Format, MANIFEST_FILE, MODEL_FILE, Manifest, ModelName,
    PARITY_FILE, PROFILE_FILE, ParityRows, ReferenceProfile, TensorSpec,
};

use crate::export::OUTPUT;

/// What a package is made of.
#[derive(Debug)]
pub struct Contents<'c> {
    /// The model that it is a version of.
    pub model: &'c ModelName,
    /// The exported graph.
    pub graph: Vec<u8>,
    /// How the training rows were distributed.
    pub profile: &'c ReferenceProfile,
    /// Rows with their expected answers.
    pub parity: &'c ParityRows,
    /// The feature service, and the graph's input that it fills.
    pub service: FeatureServicePin,
    /// How the version came about.
    pub training: toml::Table,
}

/// The files of a package by their path inside it.
pub fn files(contents: Contents<'_>) -> BTreeMap<String, Vec<u8>> {
    let json = |value: serde_json::Result<Vec<u8>>| value.expect("packages hold nothing but data");
    let mut files = BTreeMap::from([
        (MODEL_FILE.to_owned(), contents.graph),
        (PROFILE_FILE.to_owned(), json(serde_json::to_vec(contents.profile))),
        (PARITY_FILE.to_owned(), json(serde_json::to_vec(contents.parity))),
    ]);
    let digests = files.iter().map(|(path, bytes)| (path.clone(), Digest::of(bytes)));
    let width = i64::try_from(contents.service.columns.len()).unwrap_or(i64::MAX);
    let tensor = |name: &str, shape: Vec<i64>| TensorSpec {
        name: name.to_owned(),
        datatype: Datatype::Fp32,
        shape,
    };
    let manifest = Manifest {
        format: Format::CURRENT,
        model: contents.model.clone(),
        inputs: vec![tensor(&contents.service.input, vec![-1, width])],
        outputs: vec![tensor(OUTPUT, vec![-1])],
        feature_service: Some(contents.service),
        files: digests.collect(),
        training: contents.training,
    };
    files.insert(MANIFEST_FILE.to_owned(), manifest.to_toml().into_bytes());
    files
}
