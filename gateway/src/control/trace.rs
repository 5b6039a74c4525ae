//! The trace extension: which requests are traced, as Triton's clients see it and change it. All
//! settings are texts there.

use clap::ValueEnum;
use sluice_protocol::ModelName;

use crate::error::GatewayError;
use crate::shared::Shared;
use crate::trace::{Change, Changes, Levels, TraceLevel, Values};

/// The one setting that is a list.
pub(crate) const LEVEL: &str = "trace_level";
/// The only mode there is.
const MODE: &str = "opentelemetry";
/// As much of a wrong value as an error repeats, in characters.
const VALUE_LENGTH: usize = 100;

/// A setting's value, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TraceValue {
    One(String),
    Many(Vec<String>),
}

/// What a client sends for a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Asked {
    /// What holds for all models, or from the start, shall hold again.
    Clear,
    One(String),
    Many(Vec<String>),
    /// What no setting can be, as it was written.
    Other(String),
}

/// All settings of a model, or those of all models without their own, in Triton's order.
pub(crate) fn settings(
    shared: &Shared,
    model: Option<&str>,
) -> Result<Vec<(&'static str, TraceValue)>, GatewayError> {
    let model = model.map(|model| known(shared, model)).transpose()?;
    let values = shared.tracer.values(model.as_ref().map(ModelName::as_str));
    let Values { levels, rate, count, log_frequency } = values;
    let one = |text: String| TraceValue::One(text);
    Ok(vec![
        (LEVEL, TraceValue::Many(names(levels))),
        ("trace_rate", one(rate.to_string())),
        ("trace_count", one(count.map_or_else(|| "-1".to_owned(), |count| count.to_string()))),
        ("log_frequency", one(log_frequency.to_string())),
        // Traces go to a collector.
        ("trace_file", one(String::new())),
        ("trace_mode", one(MODE.to_owned())),
    ])
}

/// Changes some settings: all that are given, or none if one of them cannot be. Settings that are
/// not known are ignored, as Triton does it.
pub(crate) fn update(
    shared: &Shared,
    model: Option<&str>,
    asked: impl IntoIterator<Item = (String, Asked)>,
) -> Result<(), GatewayError> {
    let model = model.map(|model| known(shared, model)).transpose()?;
    let mut changes = Changes::default();
    for (name, asked) in asked {
        match name.as_str() {
            LEVEL => changes.levels = levels(asked)?,
            "trace_rate" => changes.rate = number(&name, asked, "a whole number from 0 on")?,
            "trace_count" => changes.count = count(&name, asked)?,
            "log_frequency" => {
                changes.log_frequency = number(&name, asked, "a whole number from 0 on")?;
            }
            "trace_file" => fixed(asked, "", "file location")?,
            "trace_mode" => fixed(asked, MODE, "mode")?,
            _ => {}
        }
    }
    shared.tracer.change(model.as_ref(), &changes)
}

/// A model that is there, in Triton's words if it is not.
fn known(shared: &Shared, model: &str) -> Result<ModelName, GatewayError> {
    let catalog = shared.catalog.snapshot();
    catalog.resolve(model, None).map(|deployment| deployment.model.clone()).map_err(|_| {
        GatewayError::Invalid(format!("Request for unknown model : {}", clipped(model)))
    })
}

fn names(levels: Levels) -> Vec<String> {
    let all = [
        (levels.is_off(), TraceLevel::Off),
        (levels.timestamps, TraceLevel::Timestamps),
        (levels.tensors, TraceLevel::Tensors),
    ];
    all.into_iter().filter(|(is_on, _)| *is_on).map(|(_, level)| name(level)).collect()
}

fn name(level: TraceLevel) -> String {
    level.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

fn levels(asked: Asked) -> Result<Change<Levels>, GatewayError> {
    let texts = match asked {
        Asked::Clear => return Ok(Change::Clear),
        Asked::Many(texts) => texts,
        Asked::One(text) => return Err(wrong(LEVEL, "a list of texts", &format!("{text:?}"))),
        Asked::Other(text) => return Err(wrong(LEVEL, "a list of texts", &text)),
    };
    let known = |text: &String| {
        let all = TraceLevel::value_variants().iter().copied();
        all.into_iter()
            .find(|level| name(*level) == *text)
            .ok_or_else(|| wrong(LEVEL, "of OFF, TIMESTAMPS and TENSORS", text))
    };
    let levels: Vec<TraceLevel> = texts.iter().map(known).collect::<Result<_, _>>()?;
    if levels.is_empty() {
        return Ok(Change::Clear);
    }
    let together = TraceLevel::combine(&levels);
    together.map(Change::Set).map_err(|reason| wrong(LEVEL, reason, &texts.join(", ")))
}

fn number<T: std::str::FromStr>(
    name: &str,
    asked: Asked,
    expected: &str,
) -> Result<Change<T>, GatewayError> {
    match asked {
        Asked::Clear => Ok(Change::Clear),
        Asked::One(text) => match text.parse() {
            Ok(number) => Ok(Change::Set(number)),
            Err(_) => Err(GatewayError::Invalid(format!(
                "Unable to parse '{name}', got: {}; it must be {expected}",
                clipped(&text)
            ))),
        },
        Asked::Many(texts) => Err(wrong(name, "one text", &texts.join(", "))),
        Asked::Other(text) => Err(wrong(name, "a text", &text)),
    }
}

fn count(name: &str, asked: Asked) -> Result<Change<Option<u32>>, GatewayError> {
    const EXPECTED: &str = "a whole number from 0 on, or -1 for no bound";
    match asked {
        Asked::One(text) if text == "-1" => Ok(Change::Set(None)),
        asked => Ok(match number(name, asked, EXPECTED)? {
            Change::Keep => Change::Keep,
            Change::Clear => Change::Clear,
            Change::Set(count) => Change::Set(Some(count)),
        }),
    }
}

/// A setting that is as it is; somebody may say so.
fn fixed(asked: Asked, value: &str, what: &str) -> Result<(), GatewayError> {
    match asked {
        Asked::Clear => Ok(()),
        Asked::One(text) if text == value => Ok(()),
        _ => Err(GatewayError::Unsupported(format!(
            "trace {what} can not be updated through network protocol"
        ))),
    }
}

fn wrong(name: &str, expected: &str, found: &str) -> GatewayError {
    GatewayError::Invalid(format!("{name} must be {expected}, got: {}", clipped(found)))
}

fn clipped(text: &str) -> String {
    text.chars().take(VALUE_LENGTH).collect()
}
