//! By whose names metrics are told.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whose names and meanings they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MetricNames {
    /// `sluice_*`, of models.
    Sluice,
    /// `nv_*`, as dashboards and autoscalers for Triton read them.
    Triton,
    /// `request_*_seconds`, as KServe's model server tells them.
    Kserve,
}

/// Those that were chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    pub(super) sluice: bool,
    pub(super) triton: bool,
    pub(super) kserve: bool,
}

impl Chosen {
    /// Sluice's own when none is named.
    pub(super) fn new(names: &[MetricNames]) -> Self {
        Self {
            sluice: names.is_empty() || names.contains(&MetricNames::Sluice),
            triton: names.contains(&MetricNames::Triton),
            kserve: names.contains(&MetricNames::Kserve),
        }
    }
}
