//! Where traces go and what is traced from the start. OpenTelemetry's environment variables count
//! as well.

use clap::{Args, ValueEnum};
use http::Uri;
use serde::{Deserialize, Serialize};

use super::sampler::{Levels, Values};

/// Where a collector takes traces, below an address without a path.
const TRACES: &str = "/v1/traces";
/// What is spoken, as OpenTelemetry's variables call it.
const PROTOCOL: &str = "http/protobuf";

/// The settings in force.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct TraceOptions {
    /// The collector's address for traces.
    pub(crate) endpoint: Option<Uri>,
    pub(crate) values: Values,
}

/// The settings as written: what is absent has a default.
#[derive(Debug, Clone, Default, Args, Deserialize, Serialize)]
#[serde(default)]
pub struct TraceSettings {
    /// Collector that traces are sent to, by OTLP over HTTP; also OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT
    #[arg(long, value_name = "URL", env = "SLUICE_TRACE_OTLP")]
    pub trace_otlp: Option<String>,
    /// What of requests is traced from the start: when their stages were, and what their tensors are [default: OFF]
    #[arg(
        long,
        value_name = "LEVEL",
        env = "SLUICE_TRACE_LEVEL",
        value_delimiter = ',',
        ignore_case = true
    )]
    #[serde(deserialize_with = "crate::settings::list::deserialize")]
    pub trace_level: Vec<TraceLevel>,
    /// Every so many-th request is traced; 0: only those that come with a sampled traceparent [default: 1000]
    #[arg(long, value_name = "N", env = "SLUICE_TRACE_RATE")]
    pub trace_rate: Option<u32>,
    /// How many requests are traced by that; -1 any number [default: -1]
    #[arg(long, value_name = "N", env = "SLUICE_TRACE_COUNT", allow_negative_numbers = true)]
    pub trace_count: Option<i32>,
    /// Why OpenTelemetry's variables name no collector, if they are about one.
    #[arg(skip)]
    #[serde(skip)]
    no_collector: Option<NoCollector>,
}

/// Why OpenTelemetry's variables name no collector.
#[derive(Debug, Clone, PartialEq, Eq)]
enum NoCollector {
    /// Nobody is to trace anything.
    Disabled,
    /// What they name cannot be used.
    Unusable(String),
}

/// What of a request is traced, in Triton's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "UPPERCASE", try_from = "String")]
#[value(rename_all = "UPPER")]
pub enum TraceLevel {
    /// Nothing.
    Off,
    /// When its stages began and ended.
    Timestamps,
    /// The names, datatypes and shapes of its tensors.
    Tensors,
}

/// In any case, as the flag has it.
impl TryFrom<String> for TraceLevel {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let expected = "expected one of `OFF`, `TIMESTAMPS`, `TENSORS`";
        Self::from_str(&text, true).map_err(|_| format!("unknown variant `{text}`, {expected}"))
    }
}

impl TraceLevel {
    /// All of `levels` together, or what is wrong with that.
    pub(crate) fn combine(levels: &[Self]) -> Result<Levels, &'static str> {
        if levels.len() > 1 && levels.contains(&Self::Off) {
            return Err("OFF goes with no other level");
        }
        Ok(Levels {
            timestamps: levels.contains(&Self::Timestamps),
            tensors: levels.contains(&Self::Tensors),
        })
    }
}

impl TraceSettings {
    /// These, and where they name no collector, the one that OpenTelemetry's own variables name.
    /// Those are often said to all processes of a machine at once, so that what cannot be used is
    /// left aside.
    pub(crate) fn or_opentelemetry(self, variable: impl Fn(&str) -> Option<String>) -> Self {
        if self.trace_otlp.is_some() {
            return self;
        }
        match collector(variable) {
            Ok(trace_otlp) => Self { trace_otlp, ..self },
            Err(reason) => Self { no_collector: Some(reason), ..self },
        }
    }

    /// These, and where they say nothing, `file`.
    pub(crate) fn over(self, file: Self) -> Self {
        let levels = if self.trace_level.is_empty() { file.trace_level } else { self.trace_level };
        Self {
            trace_otlp: self.trace_otlp.or(file.trace_otlp),
            trace_level: levels,
            trace_rate: self.trace_rate.or(file.trace_rate),
            trace_count: self.trace_count.or(file.trace_count),
            no_collector: self.no_collector,
        }
    }

    /// With the defaults for what nobody said, or what is wrong with what somebody did.
    pub(crate) fn resolve(&self) -> Result<TraceOptions, String> {
        let named = self.trace_otlp.as_deref();
        let endpoint = named.map(|url| endpoint("--trace-otlp", url)).transpose()?;
        let mut levels = TraceLevel::combine(&self.trace_level)
            .map_err(|reason| format!("--trace-level: {reason}"))?;
        if endpoint.is_none() {
            match &self.no_collector {
                // The variables are often said to all processes of a machine at once, so that they
                // are no mistake of this one.
                Some(reason) => {
                    reason.warn(!levels.is_off());
                    levels = Levels::default();
                }
                None if levels.is_off() => {}
                None => {
                    return Err(
                        "--trace-level: name the collector as well, by --trace-otlp URL".to_owned()
                    );
                }
            }
        }
        let count = match self.trace_count {
            None | Some(-1) => None,
            Some(count) => Some(
                u32::try_from(count)
                    .map_err(|_| format!("--trace-count {count}: must be -1 or more"))?,
            ),
        };
        let defaults = Values::default();
        let rate = self.trace_rate.unwrap_or(defaults.rate);
        Ok(TraceOptions { endpoint, values: Values { levels, rate, count, ..defaults } })
    }
}

impl NoCollector {
    /// Tells the operator. With `wanted`, the settings ask for traces.
    fn warn(&self, wanted: bool) {
        match self {
            Self::Unusable(reason) => {
                tracing::warn!(%reason, "traces are not sent where OpenTelemetry's variables say");
            }
            Self::Disabled if wanted => {
                tracing::warn!(
                    "nothing is traced, since OTEL_SDK_DISABLED is true; --trace-otlp URL names a collector all the same"
                );
            }
            Self::Disabled => {}
        }
    }
}

/// The collector that OpenTelemetry's own variables name, or why there is none.
fn collector(variable: impl Fn(&str) -> Option<String>) -> Result<Option<String>, NoCollector> {
    const ENDPOINTS: [&str; 2] =
        ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
    const PROTOCOLS: [&str; 2] =
        ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
    let said = |name: &'static str| {
        variable(name).filter(|text| !text.trim().is_empty()).map(|text| (name, text))
    };
    let first = |names: [&'static str; 2]| names.into_iter().find_map(said);
    if said("OTEL_SDK_DISABLED").is_some_and(|(_, is)| is.eq_ignore_ascii_case("true")) {
        return Err(NoCollector::Disabled);
    }
    let Some((name, named)) = first(ENDPOINTS) else { return Ok(None) };
    if let Some((name, protocol)) = first(PROTOCOLS).filter(|(_, protocol)| protocol != PROTOCOL) {
        let reason = format!("{name} is {protocol:?}, and {PROTOCOL:?} is what is spoken here");
        return Err(NoCollector::Unusable(reason));
    }
    // Only the general address is one to put a path behind.
    let url = if name == ENDPOINTS[0] {
        named
    } else {
        format!("{}{TRACES}", named.trim_end_matches('/'))
    };
    match endpoint(name, &url) {
        Ok(_) => Ok(Some(url)),
        Err(reason) => Err(NoCollector::Unusable(reason)),
    }
}

/// The address that `name`, a flag or a variable, gives.
fn endpoint(name: &str, text: &str) -> Result<Uri, String> {
    let wrong = |reason: &str| format!("{name} {text}: {reason}");
    let url: Uri = text.parse().map_err(|_| wrong("is no URL; such as http://127.0.0.1:4318"))?;
    match (url.scheme_str(), url.authority()) {
        (Some("http" | "https"), Some(host)) if !host.as_str().contains('@') => {}
        (Some("http" | "https"), Some(_)) => {
            // Not to be repeated.
            return Err(format!(
                "{name} names credentials; give them in OTEL_EXPORTER_OTLP_HEADERS"
            ));
        }
        _ => return Err(wrong("must be a URL such as http://127.0.0.1:4318")),
    }
    if matches!(url.path(), "" | "/") {
        let base = text.trim_end_matches('/');
        return format!("{base}{TRACES}").parse().map_err(|_| wrong("is no URL"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::{NoCollector, TraceLevel, TraceSettings};

    fn at(url: &str) -> TraceSettings {
        TraceSettings { trace_otlp: Some(url.to_owned()), ..TraceSettings::default() }
    }

    #[test]
    fn a_collector_is_named_by_its_address_or_by_the_whole_url() {
        for (given, url) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://collector/otlp/v1/traces", "https://collector/otlp/v1/traces"),
        ] {
            let endpoint = at(given).resolve().unwrap().endpoint.unwrap();
            assert_eq!(endpoint.to_string(), url);
        }
        for (given, says) in [
            ("collector:4318", "must be a URL"),
            ("/v1/traces", "must be a URL"),
            ("http://a b", "is no URL"),
            ("ftp://collector", "must be a URL"),
            ("http://me:secret@collector", "OTEL_EXPORTER_OTLP_HEADERS"),
        ] {
            let complaint = at(given).resolve().unwrap_err();
            assert!(complaint.starts_with("--trace-otlp") && complaint.contains(says), "{given}");
        }
    }

    #[test]
    fn our_own_name_wins_over_those_of_opentelemetry() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/");
        let traces = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces/x");
        let named = |settings: TraceSettings, said: &[(&str, &str)]| {
            let variable = |name: &str| {
                said.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
            };
            settings.or_opentelemetry(variable).trace_otlp
        };
        let nothing = TraceSettings::default;
        let found = |said: &[(&str, &str)]| named(nothing(), said);
        assert_eq!(found(&[all]).as_deref(), Some("http://all:4318/v1/traces"));
        assert_eq!(found(&[all, traces]).as_deref(), Some("http://traces/x"));
        let ours = named(at("http://ours"), &[all, traces]);
        assert_eq!(ours.as_deref(), Some("http://ours"));
        for unusable in [
            ("OTEL_SDK_DISABLED", "true"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "unix:/traces"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ] {
            assert_eq!(found(&[unusable, all]), None, "{unusable:?}");
        }
        let spoken = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf");
        assert!(found(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"), spoken, all]).is_some());
    }

    #[test]
    fn levels_and_counts_are_checked() {
        let (off, stamps) = (TraceLevel::Off, TraceLevel::Timestamps);
        let with = |levels: &[TraceLevel], count| TraceSettings {
            trace_level: levels.to_vec(),
            trace_count: count,
            ..at("http://c")
        };
        let resolved = with(&[stamps, TraceLevel::Tensors], Some(5)).resolve().unwrap();
        assert!(resolved.values.levels.timestamps && resolved.values.levels.tensors);
        assert_eq!(resolved.values.count, Some(5));
        assert_eq!(with(&[off], Some(-1)).resolve().unwrap().values.count, None);
        assert!(with(&[off, stamps], None).resolve().unwrap_err().contains("OFF"));
        assert!(with(&[], Some(-2)).resolve().unwrap_err().contains("--trace-count"));
        let nowhere = TraceSettings { trace_level: vec![stamps], ..TraceSettings::default() };
        assert!(nowhere.resolve().unwrap_err().contains("--trace-otlp"));
    }

    /// Then they are no reason not to start.
    #[test]
    fn without_a_collector_for_opentelemetry_s_variables_nothing_is_traced() {
        for said in [
            &[("OTEL_SDK_DISABLED", "True")][..],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "unix:/traces")],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
        ] {
            let variable = |name: &str| {
                said.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned())
            };
            let wanted = || TraceSettings {
                trace_level: vec![TraceLevel::Timestamps],
                ..TraceSettings::default()
            };
            let resolved = wanted().or_opentelemetry(variable).resolve().unwrap();
            assert!(resolved.endpoint.is_none() && resolved.values.levels.is_off(), "{said:?}");
            // The settings file may name one.
            let named = wanted().or_opentelemetry(variable).over(at("http://file"));
            let resolved = named.resolve().unwrap();
            assert!(resolved.endpoint.is_some() && !resolved.values.levels.is_off(), "{said:?}");
        }
        let unusable = |name: &'static str, text: &'static str| {
            let said = move |asked: &str| (asked == name).then(|| text.to_owned());
            match TraceSettings::default().or_opentelemetry(said).no_collector {
                Some(NoCollector::Unusable(reason)) => reason,
                other => panic!("{other:?}"),
            }
        };
        let endpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
        let reason = unusable(endpoint, "unix:/traces");
        assert!(reason.starts_with(endpoint), "{reason}");
    }
}
