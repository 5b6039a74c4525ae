//! The registry's side of a run: the version in production, and the new one.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use sluice_engine::{Engine, OnnxRuntime};
use sluice_protocol::{
    Digest, MANIFEST_FILE, MODEL_FILE, Manifest, ModelName, ModelVersion, Tensor, TensorData,
};
use sluice_registry::{Client, PackageFile, RegistryError};

use super::file::Pipeline;
use super::report::RunReport;
use super::run::RunOptions;
use crate::judge::{Judgement, Production, Verdict};
use crate::learner::Matrix;

/// The version in production.
#[derive(Debug)]
pub(super) struct Champion {
    pub(super) version: ModelVersion,
    files: Vec<PackageFile>,
}

impl Champion {
    /// What `alias` names in the registry, if it names anything.
    pub(super) async fn fetch(
        client: &Client,
        model: &ModelName,
        alias: &str,
    ) -> anyhow::Result<Option<Self>> {
        let Some(version) = named(client, model, alias).await? else { return Ok(None) };
        let files =
            client.fetch_version(model, version).await.context("fetch the production version")?;
        Ok(Some(Self { version, files }))
    }

    /// Its answers to the rows, or why it has none.
    pub(super) fn predict(
        &self,
        runtime: &OnnxRuntime,
        schema_hash: Digest,
        rows: &Matrix,
    ) -> Production {
        let name = format!("version {}", self.version);
        match self.answers(runtime, schema_hash, rows) {
            Ok(predictions) => Production::Comparable { name, predictions },
            Err(error) => Production::Incomparable { reason: format!("{name} {error:#}") },
        }
    }

    /// The errors go on a sentence about the version.
    fn answers(
        &self,
        runtime: &OnnxRuntime,
        schema_hash: Digest,
        rows: &Matrix,
    ) -> anyhow::Result<Vec<f32>> {
        let manifest = Manifest::parse(self.file(MANIFEST_FILE)?).context("has no manifest")?;
        let Some(pin) = manifest.feature_service else { bail!("uses no feature service") };
        if pin.schema_hash != schema_hash {
            bail!("was trained with other features: their schema hash is {}", pin.schema_hash);
        }
        let graph = self.file(MODEL_FILE)?;
        let input = Tensor::new(
            [rows.rows(), rows.names().len()]
                .map(|size| i64::try_from(size).unwrap_or(i64::MAX))
                .to_vec(),
            TensorData::Fp32(row_major(rows)),
        )?;
        let mut engine = runtime.open(graph, 1).context("cannot be loaded")?;
        let answers = engine.run(&[input]).context("does not take the test rows")?;
        match answers.first().map(Tensor::data) {
            Some(TensorData::Fp32(predictions)) if predictions.len() == rows.rows() => {
                Ok(predictions.clone())
            }
            _ => bail!("does not answer with one FP32 for each test row"),
        }
    }

    fn file(&self, path: &str) -> anyhow::Result<&[u8]> {
        let file = self.files.iter().find(|file| file.path == path);
        Ok(&file.with_context(|| format!("has no {path}"))?.bytes)
    }
}

/// The version that `alias` names, if it names one; none of a model that nobody registered.
async fn named(
    client: &Client,
    model: &ModelName,
    alias: &str,
) -> anyhow::Result<Option<ModelVersion>> {
    match client.alias(model, alias).await {
        Ok(named) => Ok(named),
        Err(RegistryError::NotFound(_)) => Ok(None),
        Err(error) => Err(error).context("ask the registry for the production version"),
    }
}

fn row_major(rows: &Matrix) -> Vec<f32> {
    let width = rows.names().len();
    let mut elements = vec![0.0; rows.rows() * width];
    for (column, values) in rows.columns().iter().enumerate() {
        for (row, value) in values.iter().enumerate() {
            elements[row * width + column] = *value;
        }
    }
    elements
}

/// Registers the version and promotes it if all speaks for it.
pub(super) async fn register(
    pipeline: &Pipeline,
    options: &RunOptions,
    client: &Client,
    package: &BTreeMap<String, Vec<u8>>,
    judged_against: Option<ModelVersion>,
    report: &mut RunReport,
) -> anyhow::Result<()> {
    let version = create(client, pipeline, package, &report.judgement).await?;
    report.version = Some(version);
    report.not_promoted = Some("the run failed before".to_owned());
    report.not_promoted =
        promote_version(pipeline, options, client, version, judged_against, report).await?;
    report.promoted = report.not_promoted.is_none();
    Ok(())
}

/// Registers a package as the next version. The registry shows it whole or not at all.
async fn create(
    client: &Client,
    pipeline: &Pipeline,
    files: &BTreeMap<String, Vec<u8>>,
    judgement: &Judgement,
) -> anyhow::Result<ModelVersion> {
    let (model, description) = (&pipeline.model, &pipeline.description);
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

/// Moves the alias if all speaks for it; else why it stays.
async fn promote_version(
    pipeline: &Pipeline,
    options: &RunOptions,
    client: &Client,
    version: ModelVersion,
    judged_against: Option<ModelVersion>,
    report: &RunReport,
) -> anyhow::Result<Option<String>> {
    let verdict = report.judgement.verdict;
    if verdict != Verdict::Promote {
        return Ok(Some(format!("the verdict is {}", verdict.as_str())));
    }
    if options.no_promote {
        return Ok(Some("the run was told not to promote".to_owned()));
    }
    // The alias moves last: whoever follows it finds the version whole.
    promote(client, &pipeline.model, &pipeline.judge.alias, version, judged_against).await
}

/// Lets `alias` name `version`, unless it no longer names what `version` was judged against:
/// then the verdict is about something that is not in production any more. Returns why it was
/// not moved, if it was not. The registry cannot compare and move in one step, so a run that
/// moves it in the moment between still wins or loses by chance.
async fn promote(
    client: &Client,
    model: &ModelName,
    alias: &str,
    version: ModelVersion,
    judged_against: Option<ModelVersion>,
) -> anyhow::Result<Option<String>> {
    let now = named(client, model, alias).await?;
    if now != judged_against {
        let say = |named: Option<ModelVersion>| {
            named.map_or_else(|| "nothing".to_owned(), |version| format!("version {version}"))
        };
        return Ok(Some(format!(
            "{alias} named {} when version {version} was judged and names {} now; run again to \
             be judged against that",
            say(judged_against),
            say(now)
        )));
    }
    let moved = client.set_alias(model, alias, version).await;
    moved.with_context(|| format!("move alias {alias} to version {version}"))?;
    Ok(None)
}
