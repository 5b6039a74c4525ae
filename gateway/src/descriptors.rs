//! File descriptors: as many as the system lets this process have, and how many of them are for
//! connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections that a serving core holds at most, however many descriptors there are.
const MOST_PER_CORE: usize = 20_000;
/// The share of the descriptors that is left to everything else, and how many that is at most:
/// administration, models, libraries, state.
const RESERVED_SHARE: usize = 4;
const MOST_RESERVED: usize = 4096;

/// Raises the limit of open files to the highest that the process may set. Gives how many there may
/// be then; none says that it does not matter.
pub(crate) fn raise() -> Option<usize> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
    let files = getrlimit(Resource::Nofile).current?;
    usize::try_from(files).ok()
}

/// How many connections each of `cores` holds at most: its share of `wanted`, or as many as go well
/// with `files`.
pub(crate) fn connections(cores: usize, wanted: Option<usize>, files: Option<usize>) -> usize {
    let cores = cores.max(1);
    if let Some(wanted) = wanted {
        return wanted.div_ceil(cores);
    }
    let Some(files) = files else { return MOST_PER_CORE };
    let reserved = (files / RESERVED_SHARE).min(MOST_RESERVED);
    ((files - reserved) / cores).clamp(1, MOST_PER_CORE)
}

#[cfg(test)]
mod tests {
    use super::connections;

    #[test]
    fn connections_leave_descriptors_to_the_rest() {
        for (cores, wanted, files, most) in [
            (2, None, Some(1024), 384),
            (2, None, Some(20_000), 7952),
            (2, None, Some(1 << 20), 20_000),
            (2, None, None, 20_000),
            (64, None, Some(10), 1),
            (2, Some(5), Some(1024), 3),
            (2, Some(1 << 20), Some(1024), 1 << 19),
        ] {
            assert_eq!(connections(cores, wanted, files), most, "{cores} {wanted:?} {files:?}");
        }
    }
}
