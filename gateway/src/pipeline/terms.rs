//! What a request's parameters ask of the queue.

use std::time::Duration;

use sluice_protocol::{Parameter, Parameters};

use crate::error::GatewayError;
use crate::executor::Terms;

/// Reads `priority` (1 goes first, 0 is the default) and `timeout` (microseconds of waiting, 0 is
/// the default). Either may come signed or unsigned, since clients differ in it.
pub(super) fn terms(parameters: &Parameters) -> Result<Terms, GatewayError> {
    let timeout = whole_number(parameters, "timeout")?;
    Ok(Terms {
        priority: whole_number(parameters, "priority")?,
        timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
    })
}

/// A parameter that counts something; 0 when it is not there.
fn whole_number(parameters: &Parameters, name: &str) -> Result<u64, GatewayError> {
    let number = match parameters.get(name) {
        None => Some(0),
        Some(Parameter::Uint64(number)) => Some(*number),
        Some(Parameter::Int64(number)) => u64::try_from(*number).ok(),
        Some(Parameter::Bool(_) | Parameter::Double(_) | Parameter::String(_)) => None,
    };
    number.ok_or_else(|| {
        GatewayError::Invalid(format!("parameter {name:?} must be an integer of 0 or more"))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_protocol::{Parameter, Parameters};

    use super::{Terms, terms};

    #[test]
    fn numbers_may_be_signed_or_not_but_never_negative() {
        let of = |name: &str, parameter| Parameters::from([(name.to_owned(), parameter)]);
        let priority = |priority| Terms { priority, timeout: None };
        let timeout = |us| Terms { priority: 0, timeout: Some(Duration::from_micros(us)) };
        for (parameters, expected) in [
            (Parameters::new(), Some(Terms::default())),
            (of("priority", Parameter::Int64(3)), Some(priority(3))),
            (of("priority", Parameter::Uint64(u64::MAX)), Some(priority(u64::MAX))),
            (of("timeout", Parameter::Int64(250)), Some(timeout(250))),
            (of("timeout", Parameter::Uint64(u64::MAX)), Some(timeout(u64::MAX))),
            (of("timeout", Parameter::Uint64(0)), Some(Terms::default())),
            (of("other", Parameter::Bool(true)), Some(Terms::default())),
            (of("priority", Parameter::Int64(-1)), None),
            (of("timeout", Parameter::Int64(-1)), None),
            (of("priority", Parameter::Double(1.0)), None),
            (of("priority", Parameter::Bool(true)), None),
            (of("timeout", Parameter::String("5".to_owned())), None),
        ] {
            assert_eq!(terms(&parameters).ok(), expected, "{parameters:?}");
        }
    }
}
