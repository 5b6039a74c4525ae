//! What a request's parameters ask of the queue, over every protocol.

use std::time::Duration;

use sluice_protocol::{Parameter, Parameters};

use crate::error::GatewayError;
use crate::executor::Terms;
use crate::tenant::Tenant;
use crate::tensor_parameters::{truth, whole, wrong};

/// Reads `priority` (1 goes first, 0 is the default) and `timeout` (microseconds of waiting, 0 is
/// the default). Either may come signed or unsigned, since clients differ in it.
pub(super) fn terms(parameters: &Parameters, tenant: Tenant) -> Result<Terms, GatewayError> {
    check_sequence(parameters)?;
    let timeout = whole(parameters, "timeout")?.unwrap_or(0);
    Ok(Terms {
        priority: whole(parameters, "priority")?.unwrap_or(0),
        timeout: (timeout > 0).then(|| Duration::from_micros(timeout)),
        tenant,
    })
}

/// Refuses a request whose place in a sequence is none. Otherwise it has no effect: each request
/// is answered by itself.
fn check_sequence(parameters: &Parameters) -> Result<(), GatewayError> {
    const ID: &str = "sequence_id";
    if !matches!(parameters.get(ID), Some(Parameter::String(_))) {
        let text = "a whole number that is not negative, or a string";
        whole(parameters, ID).map_err(|_| wrong(ID, text))?;
    }
    for name in ["sequence_start", "sequence_end"] {
        truth(parameters, name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sluice_protocol::{Parameter, Parameters};

    use super::{Tenant, Terms, terms};

    #[test]
    fn numbers_may_be_signed_or_not_but_never_negative() {
        let of = |name: &str, parameter| Parameters::from([(name.to_owned(), parameter)]);
        let priority = |priority| Terms { priority, ..Terms::default() };
        let timeout = |us| Terms { timeout: Some(Duration::from_micros(us)), ..Terms::default() };
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
            assert_eq!(terms(&parameters, Tenant::default()).ok(), expected, "{parameters:?}");
        }
    }

    #[test]
    fn a_place_in_a_sequence_has_its_types() {
        let text = || Parameter::String("a".to_owned());
        for (name, value, fits) in [
            ("sequence_id", Parameter::Int64(7), true),
            ("sequence_id", Parameter::Uint64(u64::MAX), true),
            ("sequence_id", text(), true),
            ("sequence_id", Parameter::Int64(-1), false),
            ("sequence_id", Parameter::Double(1.0), false),
            ("sequence_id", Parameter::Bool(true), false),
            ("sequence_start", Parameter::Bool(true), true),
            ("sequence_start", text(), false),
            ("sequence_end", Parameter::Int64(1), false),
        ] {
            let parameters = Parameters::from([(name.to_owned(), value.clone())]);
            let read = terms(&parameters, Tenant::default());
            assert_eq!(read.is_ok(), fits, "{name} {value:?}: {read:?}");
        }
    }
}
