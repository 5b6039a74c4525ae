//! The logging extension: the process's log as Triton's clients see it and change it.

use std::sync::{Mutex, PoisonError};

use crate::error::{GatewayError, clip};
use crate::logs::{self, Levels};

/// A setting's value on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogValue {
    Bool(bool),
    Number(u32),
    Text(String),
}

/// What `log_format` may be. Lines of both begin with an ISO 8601 time here.
const FORMATS: [&str; 2] = ["default", "ISO8601"];
/// The format that was asked for last.
static FORMAT: Mutex<&'static str> = Mutex::new(FORMATS[0]);

/// All settings, in Triton's order.
pub(crate) fn settings() -> Vec<(&'static str, LogValue)> {
    let levels = logs::levels();
    let format = *FORMAT.lock().unwrap_or_else(PoisonError::into_inner);
    vec![
        // Lines go to standard error.
        ("log_file", LogValue::Text(String::new())),
        ("log_info", LogValue::Bool(levels.info)),
        ("log_warning", LogValue::Bool(levels.warning)),
        ("log_error", LogValue::Bool(levels.error)),
        ("log_verbose_level", LogValue::Number(levels.verbose)),
        ("log_format", LogValue::Text(format.to_owned())),
    ]
}

/// Changes some settings: all that are given, or none if one of them cannot be. Settings that are
/// not known are ignored, as Triton does it.
pub(crate) fn update(
    changes: impl IntoIterator<Item = (String, Option<LogValue>)>,
) -> Result<(), GatewayError> {
    let mut levels = logs::levels();
    let mut format = None;
    for (name, value) in changes {
        match name.as_str() {
            "log_info" => levels.info = truth(&name, value)?,
            "log_warning" => levels.warning = truth(&name, value)?,
            "log_error" => levels.error = truth(&name, value)?,
            "log_verbose_level" => match value {
                Some(LogValue::Number(verbose)) => levels.verbose = verbose,
                other => return Err(wrong(&name, "a whole number from 0 on", other.as_ref())),
            },
            "log_format" => match value {
                Some(LogValue::Text(text)) => format = Some(known_format(&text)?),
                other => return Err(wrong(&name, "a string", other.as_ref())),
            },
            "log_file" => match value {
                Some(LogValue::Text(text)) if text.is_empty() => {}
                Some(LogValue::Text(_)) => {
                    return Err(GatewayError::Unsupported(
                        "log file location can not be updated through network protocol".to_owned(),
                    ));
                }
                other => return Err(wrong(&name, "a string", other.as_ref())),
            },
            _ => {}
        }
    }
    apply(levels, format)
}

fn apply(levels: Levels, format: Option<&'static str>) -> Result<(), GatewayError> {
    logs::set_levels(levels).map_err(GatewayError::Invalid)?;
    if let Some(format) = format {
        *FORMAT.lock().unwrap_or_else(PoisonError::into_inner) = format;
    }
    Ok(())
}

fn truth(name: &str, value: Option<LogValue>) -> Result<bool, GatewayError> {
    match value {
        Some(LogValue::Bool(value)) => Ok(value),
        other => Err(wrong(name, "true or false", other.as_ref())),
    }
}

fn known_format(text: &str) -> Result<&'static str, GatewayError> {
    FORMATS.into_iter().find(|known| *known == text).ok_or_else(|| {
        let text = clip(text);
        GatewayError::Invalid(format!("log_format {text:?} is neither \"default\" nor \"ISO8601\""))
    })
}

fn wrong(name: &str, expected: &str, found: Option<&LogValue>) -> GatewayError {
    let found = match found {
        None => "nothing of the kind".to_owned(),
        Some(LogValue::Bool(value)) => value.to_string(),
        Some(LogValue::Number(value)) => value.to_string(),
        Some(LogValue::Text(text)) => format!("{:?}", clip(text)),
    };
    GatewayError::Invalid(format!("{name} must be {expected}, got {found}"))
}

#[cfg(test)]
mod tests {
    use super::{LogValue, settings, update};

    /// One test, since the log is the process's.
    #[test]
    fn settings_change_together_or_not_at_all() {
        let value = |name: &str| {
            settings().into_iter().find(|(known, _)| *known == name).map(|(_, value)| value)
        };
        let some = |name: &str, value| (name.to_owned(), Some(value));
        let names: Vec<_> = settings().into_iter().map(|(name, _)| name).collect();
        let order =
            ["log_file", "log_info", "log_warning", "log_error", "log_verbose_level", "log_format"];
        assert_eq!(names, order);

        update([
            some("log_info", LogValue::Bool(false)),
            some("log_verbose_level", LogValue::Number(1)),
            some("log_format", LogValue::Text("ISO8601".to_owned())),
            some("unknown", LogValue::Number(3)),
        ])
        .unwrap();
        assert_eq!(value("log_info"), Some(LogValue::Bool(false)));
        assert_eq!(value("log_verbose_level"), Some(LogValue::Number(1)));
        assert_eq!(value("log_format"), Some(LogValue::Text("ISO8601".to_owned())));

        for (name, wrong, says) in [
            ("log_info", LogValue::Number(1), "log_info must be true or false, got 1"),
            ("log_verbose_level", LogValue::Text("x".to_owned()), "whole number"),
            ("log_format", LogValue::Text("xml".to_owned()), "neither"),
            ("log_file", LogValue::Text("/tmp/x".to_owned()), "can not be updated"),
        ] {
            let error = update([some("log_error", LogValue::Bool(false)), some(name, wrong)]);
            assert!(error.unwrap_err().to_string().contains(says), "{name}");
            assert_eq!(value("log_error"), Some(LogValue::Bool(true)), "{name}");
        }
        update([
            some("log_info", LogValue::Bool(true)),
            some("log_verbose_level", LogValue::Number(0)),
            some("log_format", LogValue::Text("default".to_owned())),
            some("log_file", LogValue::Text(String::new())),
        ])
        .unwrap();
        assert_eq!(value("log_info"), Some(LogValue::Bool(true)));
    }
}
