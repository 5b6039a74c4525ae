//! The swap of versions while a steady load goes on.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::bail;
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use sluice_bench::{Check, Load, LoadOptions, Pace, PhaseReport, Report};
use sluice_protocol::ModelVersion;
use sluice_registry::Client;

use super::{MODEL, QUESTION};
use crate::admin::Admin;

/// How long the load runs before and after.
const PHASE: Duration = Duration::from_secs(5);
/// How long the new version may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the swap came to.
pub(super) struct Swapped {
    pub(super) report: Report,
    took: Duration,
}

/// Moves the alias to `version` under load and waits until it answers.
pub(super) async fn under_load(
    client: &Client,
    version: ModelVersion,
    http: SocketAddr,
    admin: &Admin,
    rate: f64,
) -> anyhow::Result<Swapped> {
    let url = format!("http://{http}/v1/models/{MODEL}:predict").parse()?;
    let mut options = LoadOptions::new(url);
    options.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    options.questions[0].bodies = vec![Bytes::from_static(QUESTION.as_bytes())];
    options.pace = Pace::even(rate);
    options.check = Check::Json;
    options.phase = "before".to_owned();
    let load = Load::start(options)?;
    tokio::time::sleep(PHASE).await;
    load.phase("swap");
    let began = Instant::now();
    client.set_alias(&MODEL.parse()?, "champion", version).await?;
    wait_until_answering(admin, version).await?;
    let took = began.elapsed();
    load.phase("after");
    tokio::time::sleep(PHASE).await;
    Ok(Swapped { report: load.stop().await, took })
}

/// Waits until `version` is the one that answers when none is named.
async fn wait_until_answering(admin: &Admin, version: ModelVersion) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let known = admin.models().await?;
        let models = known["models"].as_array().into_iter().flatten();
        let default = models.filter(|model| model["name"] == MODEL).map(|model| &model["default"]);
        if default.into_iter().any(|default| *default == version.0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    bail!("version {version} did not begin to answer within {PATIENCE:?}")
}

impl Swapped {
    pub(super) fn summary(&self) -> String {
        let total = &self.report.total;
        let milliseconds = |phase: Option<&PhaseReport>| {
            phase.map_or_else(String::new, |phase| {
                let p50 = phase.latency.p50.as_secs_f64() * 1e3;
                let p99 = phase.latency.p99.as_secs_f64() * 1e3;
                format!("p50 {p50:.2} ms, p99 {p99:.2} ms")
            })
        };
        format!(
            "the new version answers after {:.2} s; {} requests, {} failed; before {}; after {}",
            self.took.as_secs_f64(),
            total.requests,
            total.failed + total.unsent,
            milliseconds(self.report.phase("before")),
            milliseconds(self.report.phase("after")),
        )
    }

    /// A swap loses no request.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let lost = self.report.total.failed + self.report.total.unsent;
        if lost > 0 {
            bail!("{lost} requests failed during the swap");
        }
        Ok(())
    }
}
