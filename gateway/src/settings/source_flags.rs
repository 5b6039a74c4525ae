//! Which source of models the command line itself names. A flag wins over the environment, also
//! where the two name different sources; clap's conflicts take both for the same.

use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, Error, FromArgMatches};

/// Whether each of the two flags is on the command line.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct SourceFlags {
    model_repository: bool,
    registry: bool,
}

impl SourceFlags {
    /// Drops what the environment says where a flag names the other source.
    pub(super) fn win(self, repository: &mut Option<PathBuf>, registry: &mut Option<String>) {
        match (self.model_repository, self.registry) {
            (true, false) => *registry = None,
            (false, true) => *repository = None,
            (true, true) | (false, false) => {}
        }
    }
}

/// Reads the flags of the settings that it is part of, and adds none.
impl Args for SourceFlags {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

impl FromArgMatches for SourceFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let named = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        Ok(Self { model_repository: named("model_repository"), registry: named("registry") })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
