//! The pipeline file: what to learn from, how, and when a new version is good enough.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, bail};
use chrono::NaiveDate;
use serde::{Deserialize, Deserializer};
use sluice_protocol::{Format, ModelName, read_toml, toml_fault};

use crate::learner::{Metric, Parameters};

/// A pipeline, as its TOML file says it. Paths are relative to the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    #[expect(dead_code, reason = "reading it is checking it")]
    format: Format<1>,
    /// The model whose next version this makes.
    pub model: ModelName,
    /// What people read about it in the registry.
    #[serde(default)]
    pub description: String,
    /// Where the examples come from.
    pub data: Data,
    /// What the examples must look like.
    #[serde(default)]
    pub validation: Validation,
    /// Which examples train, which decide when to stop, which judge.
    pub split: Split,
    /// The learner's parameters.
    #[serde(default)]
    pub learner: Parameters,
    /// When a version is good enough.
    #[serde(default)]
    pub judge: Judge,
}

/// Where the examples come from.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Feature definitions: a file or a folder.
    pub features: PathBuf,
    /// The feature service that the model will be served with.
    pub service: String,
    /// The declared source whose rows are the examples.
    pub label_source: String,
    /// What is to be predicted: an expression over that source.
    pub label: String,
    /// For each request field, the expression that stands for what a request will bring.
    #[serde(default)]
    pub request_fields: BTreeMap<String, String>,
    /// Which rows are examples; all without it.
    #[serde(default)]
    pub filter: Option<String>,
    /// How long before the predicted day the features must have been known: whole days.
    #[serde(deserialize_with = "duration")]
    pub horizon: Duration,
    /// The first day of the examples.
    #[serde(default, deserialize_with = "optional_date")]
    pub from: Option<NaiveDate>,
    /// The last day of which anything is read.
    #[serde(default, deserialize_with = "optional_date")]
    pub until: Option<NaiveDate>,
}

/// What the examples must look like. A breach ends the run before anything is trained.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Validation {
    /// Examples at least.
    pub min_rows: usize,
    /// The smallest label that is plausible.
    pub min_label: f64,
    /// The largest label that is plausible.
    pub max_label: f64,
    /// The share of examples without a label, at most.
    pub max_missing_labels: f64,
    /// The share of examples without a value, at most, for every feature.
    pub max_missing_features: f64,
    /// Days in a row without any example, at most.
    pub max_gap_days: Option<u32>,
}

impl Default for Validation {
    fn default() -> Self {
        Self {
            min_rows: 100,
            min_label: f64::NEG_INFINITY,
            max_label: f64::INFINITY,
            max_missing_labels: 0.0,
            max_missing_features: 1.0,
            max_gap_days: None,
        }
    }
}

/// How examples are split by time: by two dates, or by days counted back from the last one.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Split {
    /// The last day that trains.
    #[serde(deserialize_with = "optional_date")]
    pub train_until: Option<NaiveDate>,
    /// The last day that decides when to stop; the days after it judge.
    #[serde(deserialize_with = "optional_date")]
    pub validation_until: Option<NaiveDate>,
    /// Days that decide when to stop, before the ones that judge.
    pub validation_days: Option<u32>,
    /// The last days, which judge.
    pub test_days: Option<u32>,
}

/// When a version is good enough.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Judge {
    /// The loss that decides.
    pub metric: Metric,
    /// How much worse than the production version is still as good, as a share of its loss.
    pub margin: f64,
    /// The part of cases in which a worse version may pass for as good.
    pub alpha: f64,
    /// Days that are resampled together, since neighbouring days are alike.
    pub block_days: usize,
    /// The largest bias, as a share of the mean label, that may go into production.
    pub max_bias: Option<f64>,
    /// Forecasts that any model must beat.
    pub baselines: Vec<Baseline>,
    /// What decides when the version in production cannot be compared.
    pub when_incomparable: WhenIncomparable,
    /// The alias that a version gets when it is good enough.
    pub alias: String,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            metric: Metric::AbsoluteError,
            margin: 0.01,
            alpha: 0.05,
            block_days: 7,
            max_bias: None,
            baselines: Vec::new(),
            when_incomparable: WhenIncomparable::Hold,
            alias: "champion".to_owned(),
        }
    }
}

/// What decides when the version in production cannot be compared with a candidate, above all
/// since it was trained with other features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenIncomparable {
    /// People do: the candidate is held.
    Hold,
    /// The baselines do.
    Baselines,
}

/// A forecast that costs nothing: the value of one of the service's columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    /// What it is called in reports.
    pub name: String,
    /// The column whose value is the forecast.
    pub column: String,
}

impl Pipeline {
    /// Reads a pipeline file. `overrides` are `key.path=value` pairs that replace what it says.
    pub fn load(path: &Path, overrides: &[String]) -> anyhow::Result<Self> {
        let file = || format!("pipeline file {}", path.display());
        let text = std::fs::read_to_string(path).with_context(file)?;
        let alone = Self::parse(&text).with_context(file);
        let mut pipeline = if overrides.is_empty() {
            alone?
        } else {
            // What the file alone does not suffer from, the overrides brought.
            let overridden = Self::overridden(&text, overrides);
            overridden.or_else(|fault| alone.and(Err(fault).context("--set")))?
        };
        let folder = path.parent().unwrap_or(Path::new("."));
        pipeline.data.features = folder.join(&pipeline.data.features);
        Ok(pipeline)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let pipeline: Self = read_toml(text).map_err(Error::msg)?;
        pipeline.check()?;
        Ok(pipeline)
    }

    fn overridden(text: &str, overrides: &[String]) -> anyhow::Result<Self> {
        let mut table: toml::Table = toml::from_str(text)?;
        for pair in overrides {
            set(&mut table, pair)?;
        }
        let pipeline: Self =
            table.try_into().map_err(|error| Error::msg(toml_fault("", &error)))?;
        pipeline.check()?;
        Ok(pipeline)
    }

    fn check(&self) -> anyhow::Result<()> {
        self.learner.check()?;
        self.data.check()?;
        self.validation.check()?;
        self.judge.check()?;
        let split = &self.split;
        let dates = [split.train_until.is_some(), split.validation_until.is_some()];
        let days = [split.validation_days.is_some(), split.test_days.is_some()];
        if !matches!((dates, days), ([true, true], [false, false]) | ([false, false], [true, true]))
        {
            bail!(
                "[split] needs either train_until and validation_until, or validation_days and test_days, and nothing of the other pair"
            );
        }
        if split.train_until.zip(split.validation_until).is_some_and(|(train, stop)| train >= stop)
        {
            bail!("[split] train_until must be before validation_until");
        }
        Ok(())
    }
}

impl Data {
    fn check(&self) -> anyhow::Result<()> {
        if self.horizon.is_zero() {
            bail!(
                "[data] horizon must be at least \"1d\": with none, the features of an example \
                 come from the predicted day itself and contain the label"
            );
        }
        let whole =
            self.horizon.subsec_nanos() == 0 && self.horizon.as_secs().is_multiple_of(86_400);
        if !whole {
            let horizon = humantime::format_duration(self.horizon);
            bail!("[data] horizon {horizon} is not whole days: examples are days");
        }
        Ok(())
    }
}

impl Validation {
    /// A bound that is no number would never be breached.
    fn check(&self) -> anyhow::Result<()> {
        for (key, value) in [
            ("min_label", self.min_label),
            ("max_label", self.max_label),
            ("max_missing_labels", self.max_missing_labels),
            ("max_missing_features", self.max_missing_features),
        ] {
            if value.is_nan() {
                bail!("[validation] {key} is no number");
            }
        }
        Ok(())
    }
}

impl Judge {
    fn check(&self) -> anyhow::Result<()> {
        if !(0.0..0.5).contains(&self.alpha) || self.alpha == 0.0 {
            bail!("[judge] alpha must be above 0 and below 0.5");
        }
        if !(0.0..1.0).contains(&self.margin) {
            bail!("[judge] margin must be at least 0 and below 1");
        }
        if self.max_bias.is_some_and(|most| most.is_nan() || most < 0.0) {
            bail!("[judge] max_bias must be at least 0");
        }
        if self.block_days == 0 {
            bail!("[judge] block_days must be at least 1");
        }
        Ok(())
    }
}

/// Sets `key.path` of `pair` to its value: TOML if it is any, else text.
fn set(table: &mut toml::Table, pair: &str) -> anyhow::Result<()> {
    let Some((path, text)) = pair.split_once('=') else {
        bail!("override {pair:?} is not key.path=value");
    };
    let value = toml::from_str::<toml::Table>(&format!("value = {text}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("value"))
        .unwrap_or_else(|| toml::Value::String(text.to_owned()));
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().unwrap_or_default();
    let mut at = table;
    for key in keys {
        let inner = at.entry(key).or_insert(toml::Value::Boolean(false));
        if !inner.is_table() {
            // `learner.objective.tweedie.power` replaces `objective = "squared"`.
            *inner = toml::Value::Table(toml::Table::new());
        }
        at = inner.as_table_mut().expect("just made one");
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn optional_date<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<NaiveDate>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let date = text.parse().map_err(|_| format!("{text:?} is no date (YYYY-MM-DD)"));
    date.map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::{Pipeline, WhenIncomparable};

    const GOOD: &str = r#"
        format = 1
        model = "m"
        [data]
        features = "features.toml"
        service = "s"
        label_source = "sales"
        label = "units"
        horizon = "7d"
        [split]
        validation_days = 28
        test_days = 28
    "#;

    fn load(text: &str, overrides: &[&str]) -> anyhow::Result<Pipeline> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train.toml");
        std::fs::write(&path, text).unwrap();
        let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
        Pipeline::load(&path, &overrides)
    }

    #[test]
    fn overrides_replace_what_the_file_says() {
        let pipeline = load(
            GOOD,
            &["learner.objective=poisson", "data.until=2011-06-30", "split.test_days=7"],
        )
        .unwrap();
        assert_eq!(pipeline.learner.objective, crate::learner::Objective::Poisson);
        assert_eq!(pipeline.data.until.unwrap().to_string(), "2011-06-30");
        assert_eq!(pipeline.split.test_days, Some(7));
        assert_eq!(pipeline.judge.when_incomparable, WhenIncomparable::Hold);
        let pipeline = load(GOOD, &["judge.when_incomparable=baselines"]).unwrap();
        assert_eq!(pipeline.judge.when_incomparable, WhenIncomparable::Baselines);
    }

    #[test]
    fn mistakes_are_named() {
        for (from, to, says) in [
            ("format = 1", "format = 2", "newer"),
            ("label =", "lable =", "lable"),
            ("test_days = 28", "", "[split] needs either"),
            ("\"7d\"", "\"7 parsecs\"", "parsecs"),
            ("\"7d\"", "\"0d\"", "contain the label"),
            ("\"7d\"", "\"36h\"", "not whole days"),
            ("model = \"m\"", "model = \"../m\"", "model name"),
        ] {
            let error = format!("{:#}", load(&GOOD.replace(from, to), &[]).unwrap_err());
            assert!(error.contains(says), "{to}: {error}");
        }
    }

    #[test]
    fn mistakes_of_overrides_are_not_blamed_on_the_file() {
        for (pair, says) in [
            ("nonsense", "not key.path=value"),
            ("model.x=1", "model"),
            ("learner.learning_rate=7", "learning_rate"),
            ("learner.rate=7", "rate"),
            ("learner.objective=tweedie", "{ tweedie = { power = 1.5 } }"),
            ("split.train_until=2011-06-30", "[split] needs either"),
            ("learner.metric=tweedie_deviance", "{ tweedie_deviance = { power = 1.5 } }"),
            ("learner.objective=squares", "squares"),
            ("judge.margin=nan", "margin"),
            ("judge.max_bias=nan", "max_bias"),
            ("judge.when_incomparable=promote", "promote"),
            ("validation.max_label=nan", "max_label"),
        ] {
            let error = format!("{:#}", load(GOOD, &[pair]).unwrap_err());
            assert!(error.starts_with("--set: "), "{pair}: {error}");
            assert!(error.contains(says), "{pair}: {error}");
        }
        let broken = GOOD.replace("label =", "lable =");
        let error = format!("{:#}", load(&broken, &["learner.seed=7"]).unwrap_err());
        assert!(error.contains("train.toml: line 8: "), "{error}");
    }

    #[test]
    fn a_power_is_set_in_a_table_or_by_its_path() {
        let tweedie = |power| crate::learner::Objective::Tweedie { power };
        for (pair, power) in [
            ("learner.objective={ tweedie = { power = 1.2 } }", 1.2),
            ("learner.objective.tweedie.power=1.7", 1.7),
        ] {
            assert_eq!(load(GOOD, &[pair]).unwrap().learner.objective, tweedie(power), "{pair}");
        }
        let poisson = GOOD.replace("[split]", "[learner]\nobjective = \"poisson\"\n[split]");
        let pipeline = load(&poisson, &["learner.objective.tweedie.power=1.7"]).unwrap();
        assert_eq!(pipeline.learner.objective, tweedie(1.7));
    }
}
