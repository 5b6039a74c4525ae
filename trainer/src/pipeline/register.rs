//! The registry's side of a run: the version in production, and the new one.

use std::collections::BTreeMap;

use anyhow::Context;
use sluice_engine::{Engine, OnnxRuntime};
use sluice_protocol::{
    Digest, MANIFEST_FILE, MODEL_FILE, Manifest, ModelName, ModelVersion, Tensor, TensorData,
};
use sluice_registry::{Client, PackageFile, RegistryError};

use crate::judge::Judgement;
use crate::learner::Matrix;

/// The version in production.
#[derive(Debug)]
pub(super) struct Champion {
    pub(super) version: ModelVersion,
    graph: Vec<u8>,
    schema_hash: Option<Digest>,
}

impl Champion {
    /// What `alias` names in the registry, if it names anything.
    pub(super) async fn fetch(
        client: &Client,
        model: &ModelName,
        alias: &str,
    ) -> anyhow::Result<Option<Self>> {
        let named = match client.alias(model, alias).await {
            Ok(named) => named,
            Err(RegistryError::NotFound(_)) => None,
            Err(error) => return Err(error).context("ask the registry for the production version"),
        };
        let Some(version) = named else { return Ok(None) };
        let files =
            client.fetch_version(model, version).await.context("fetch the production version")?;
        let file = |path: &str| files.iter().find(|file| file.path == path).map(|file| &file.bytes);
        let manifest = file(MANIFEST_FILE).map(|bytes| Manifest::parse(bytes)).transpose()?;
        let pin = manifest.and_then(|manifest| manifest.feature_service);
        let graph =
            file(MODEL_FILE).with_context(|| format!("version {version} has no {MODEL_FILE}"))?;
        Ok(Some(Self {
            version,
            graph: graph.to_vec(),
            schema_hash: pin.map(|pin| pin.schema_hash),
        }))
    }

    /// Its answers to the rows, or why it cannot answer them: it was trained with other
    /// features than the rows have.
    pub(super) fn predict(
        &self,
        runtime: &OnnxRuntime,
        schema_hash: Digest,
        rows: &Matrix,
    ) -> anyhow::Result<Option<Vec<f32>>> {
        if self.schema_hash != Some(schema_hash) {
            return Ok(None);
        }
        let mut engine = runtime.open(&self.graph, 1)?;
        let width = rows.names().len();
        let mut elements = vec![0.0; rows.rows() * width];
        for (column, values) in rows.columns().iter().enumerate() {
            for (row, value) in values.iter().enumerate() {
                elements[row * width + column] = *value;
            }
        }
        let shape = [rows.rows(), width].map(|size| i64::try_from(size).unwrap_or(i64::MAX));
        let answers = engine.run(&[Tensor::new(shape.to_vec(), TensorData::Fp32(elements))?])?;
        match answers.first().map(Tensor::data) {
            Some(TensorData::Fp32(predictions)) => Ok(Some(predictions.clone())),
            _ => anyhow::bail!("the production version answers with something else than FP32"),
        }
    }
}

/// Registers a package as the next version. The registry shows it whole or not at all.
pub(super) async fn register(
    client: &Client,
    model: &ModelName,
    description: &str,
    files: &BTreeMap<String, Vec<u8>>,
    judgement: &Judgement,
) -> anyhow::Result<ModelVersion> {
    client.ensure_model(model, description).await.context("register the model")?;
    let files: Vec<PackageFile> = files
        .iter()
        .map(|(path, bytes)| PackageFile { path: path.clone(), bytes: bytes.clone().into() })
        .collect();
    let tags = BTreeMap::from([
        ("sluice.verdict".to_owned(), judgement.verdict.as_str().to_owned()),
        ("sluice.reason".to_owned(), judgement.reason.clone()),
        ("sluice.mae".to_owned(), judgement.measures.mae.to_string()),
    ]);
    client
        .create_version(model, &files, &judgement.reason, &tags)
        .await
        .context("register the version")
}
