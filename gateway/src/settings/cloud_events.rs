//! How answers to CloudEvents are signed. KServe's environment variables count as well.

use clap::Args;
use http::HeaderValue;
use serde::{Deserialize, Serialize};
use sluice_protocol::ModelName;

/// The settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CloudEvents {
    /// The `type` of an answer.
    pub(crate) kind: String,
    source: Option<String>,
    /// Whether an answer repeats the request's attributes.
    pub(crate) merge: bool,
}

/// The settings as written: what is absent has a default.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct CloudEventSettings {
    /// Type of the CloudEvents that are answered with; also CE_TYPE [default: io.kserve.inference.response]
    #[arg(long, value_name = "TYPE", env = "SLUICE_CE_TYPE")]
    pub ce_type: Option<String>,
    /// Source of the CloudEvents that are answered with; also CE_SOURCE [default: io.kserve.inference.MODEL]
    #[arg(long, value_name = "SOURCE", env = "SLUICE_CE_SOURCE")]
    pub ce_source: Option<String>,
    /// Repeat a request's attributes in the CloudEvent that answers it; also CE_MERGE [default: false]
    #[arg(long, value_name = "BOOL", env = "SLUICE_CE_MERGE", num_args = 0..=1, default_missing_value = "true")]
    pub ce_merge: Option<bool>,
}

impl Default for CloudEvents {
    fn default() -> Self {
        let kind = "io.kserve.inference.response".to_owned();
        Self { kind, source: None, merge: false }
    }
}

impl CloudEvents {
    /// The `source` of an answer of `model`.
    pub(crate) fn source_of(&self, model: &ModelName) -> String {
        self.source.clone().unwrap_or_else(|| format!("io.kserve.inference.{model}"))
    }
}

impl CloudEventSettings {
    /// These, and where they say nothing, what KServe's own variables say. Its manifests have them
    /// empty, too, where they are to say nothing.
    pub(super) fn or_kserve(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| variable(name).filter(|text| !text.is_empty());
        let merge = || variable("CE_MERGE").map(|text| text.eq_ignore_ascii_case("true"));
        Self {
            ce_type: self.ce_type.or_else(|| variable("CE_TYPE")),
            ce_source: self.ce_source.or_else(|| variable("CE_SOURCE")),
            ce_merge: self.ce_merge.or_else(merge),
        }
    }

    /// These, and where they say nothing, `file`.
    pub(super) fn over(self, file: Self) -> Self {
        Self {
            ce_type: self.ce_type.or(file.ce_type),
            ce_source: self.ce_source.or(file.ce_source),
            ce_merge: self.ce_merge.or(file.ce_merge),
        }
    }

    /// With the defaults for what nobody said, or what is wrong with what somebody did.
    pub(crate) fn resolve(&self) -> Result<CloudEvents, String> {
        for (flag, text) in [("--ce-type", &self.ce_type), ("--ce-source", &self.ce_source)] {
            let Some(text) = text else { continue };
            // Headers hold it too.
            let is_printable =
                HeaderValue::from_str(text).is_ok_and(|value| value.to_str().is_ok());
            if text.is_empty() || !is_printable {
                return Err(format!("{flag} {text:?} must be printable ASCII, and not empty"));
            }
        }
        let defaults = CloudEvents::default();
        Ok(CloudEvents {
            kind: self.ce_type.clone().unwrap_or(defaults.kind),
            source: self.ce_source.clone(),
            merge: self.ce_merge.unwrap_or_default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{CloudEventSettings, CloudEvents};

    #[test]
    fn our_own_names_win_over_those_of_kserve() {
        let kserve = |name: &str| match name {
            "CE_TYPE" => Some("theirs".to_owned()),
            "CE_MERGE" => Some("True".to_owned()),
            _ => None,
        };
        let ours = |text: &str| Some(text.to_owned());
        let file = CloudEventSettings { ce_merge: Some(true), ..Default::default() };
        let empty = CloudEventSettings::default().or_kserve(|_| Some(String::new())).over(file);
        let resolved = empty.resolve().unwrap();
        let defaults = CloudEvents { merge: true, ..Default::default() };
        assert_eq!(resolved, defaults);
        let given = CloudEventSettings { ce_type: ours("ours"), ..Default::default() };
        let resolved = given.clone().or_kserve(kserve).resolve().unwrap();
        assert_eq!((&*resolved.kind, resolved.merge), ("ours", true));
        let resolved =
            CloudEventSettings::default().or_kserve(kserve).over(given).resolve().unwrap();
        assert_eq!((&*resolved.kind, resolved.source.as_deref()), ("theirs", None));
        assert_eq!(resolved.source_of(&"m".parse().unwrap()), "io.kserve.inference.m");
    }

    #[test]
    fn what_no_header_can_hold_is_complained_about() {
        for text in ["", "a\nb", "é"] {
            let settings =
                CloudEventSettings { ce_source: Some(text.to_owned()), ..Default::default() };
            assert!(settings.resolve().unwrap_err().starts_with("--ce-source"), "{text:?}");
        }
    }
}
