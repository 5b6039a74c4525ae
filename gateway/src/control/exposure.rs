//! Which calls for operators the serving ports answer. The administration port answers all of
//! them; the others none, unless they are turned on, since whoever can ask for a prediction
//! reaches those.

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::error::GatewayError;

/// Calls that change how a gateway serves, by what they are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ControlGroup {
    /// Load and unload.
    ModelRepository,
    /// What is logged.
    Logging,
    /// Regions of shared memory.
    SharedMemory,
    /// What is traced.
    Trace,
}

/// Which way a call came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// HTTP and gRPC for everybody.
    Serving,
    /// The one for operators.
    Admin,
}

/// The groups that the serving ports answer too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Exposure(u8);

impl Exposure {
    /// These groups and no others.
    pub(crate) fn new(groups: impl IntoIterator<Item = ControlGroup>) -> Self {
        Self(groups.into_iter().fold(0, |all, group| all | bit(group)))
    }

    /// Whether `port` answers calls of `group`.
    pub(crate) const fn answers(self, group: ControlGroup, port: Port) -> bool {
        matches!(port, Port::Admin) || self.0 & bit(group) != 0
    }

    /// Refuses a call of `group` where it is not answered.
    pub(crate) const fn check(self, group: ControlGroup, port: Port) -> Result<(), GatewayError> {
        if self.answers(group, port) { Ok(()) } else { Err(GatewayError::NotExposed(group)) }
    }
}

const fn bit(group: ControlGroup) -> u8 {
    1 << group as u8
}

impl fmt::Display for ControlGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ModelRepository => "model-repository",
            Self::Logging => "logging",
            Self::SharedMemory => "shared-memory",
            Self::Trace => "trace",
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::{ControlGroup, Exposure, Port};

    #[test]
    fn the_serving_ports_answer_what_is_turned_on_and_nothing_else() {
        for on in ControlGroup::value_variants() {
            for asked in ControlGroup::value_variants() {
                let exposure = Exposure::new([*on]);
                assert_eq!(exposure.answers(*asked, Port::Serving), on == asked);
                assert!(exposure.answers(*asked, Port::Admin));
                assert!(!Exposure::default().answers(*asked, Port::Serving));
            }
        }
    }

    /// What an error tells to type is what the flag takes.
    #[test]
    fn groups_are_called_what_the_flag_calls_them() {
        for group in ControlGroup::value_variants() {
            let flag = group.to_possible_value().unwrap();
            assert_eq!(group.to_string(), flag.get_name());
        }
    }
}
