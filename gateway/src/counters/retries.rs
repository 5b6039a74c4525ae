//! How many of those who are refused may well try again at once.
//!
//! A gateway that refuses has more to do than it can; retries are more of it, and so many that they
//! keep it from coming round where everybody retries. As many as a tenth of what is answered do no
//! harm: those are told when to come, the others not to come by themselves.

use std::time::Duration;

use super::count::Count;
use crate::error::RetryHint;

/// Of so many answers, one retry.
const ANSWERS: u64 = 10;
/// So many retries are had in advance.
const SAVED: u64 = 100;

/// A serving core's part of the retries of a deployment. It has one writer.
#[derive(Debug, Default)]
pub(super) struct Retries {
    /// Answers that were used up by retries.
    used: Count,
    told: Count,
}

impl Retries {
    /// What one more who is refused is told, after so many answers, where what waits takes so long.
    /// The times are spread, so that they do not all come back at once.
    pub(super) fn hint(&self, answered: u64, waiting: Duration) -> RetryHint {
        /// The golden ratio's part of 256: the parts of it that follow each other lie far apart.
        const STEP: u64 = 158;
        let told = self.told.get();
        self.told.add(1);
        let part = u32::try_from(told.wrapping_mul(STEP) % 256).unwrap_or(0);
        let after = waiting / 2 + waiting.saturating_mul(part) / 256;
        // What was saved before that much is lost.
        let used = self.used.get().max(answered);
        let welcome = used + ANSWERS <= answered + ANSWERS * SAVED;
        self.used.set(if welcome { used + ANSWERS } else { used });
        RetryHint { after, welcome }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Retries;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_tenth_of_what_is_answered_may_be_tried_again() {
        let retries = Retries::default();
        let welcome = |answered, refused| {
            (0..refused).filter(|_| retries.hint(answered, SECOND).welcome).count()
        };
        assert_eq!(welcome(0, 1000), 100, "those that are had in advance");
        assert_eq!(welcome(5000, 1000), 100, "no more than that are saved");
        assert_eq!(welcome(5100, 1000), 10);
        assert_eq!(welcome(5109, 1000), 0);
        assert_eq!(welcome(5110, 1000), 1);
    }

    #[test]
    fn retries_are_spread() {
        let retries = Retries::default();
        let mut after: Vec<_> = (0..64).map(|_| retries.hint(0, SECOND).after).collect();
        after.sort_unstable();
        assert!(after[0] >= SECOND / 2 && after[63] <= SECOND * 3 / 2, "{after:?}");
        let gaps = after.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(gaps.max().unwrap() < SECOND / 20, "{after:?}");
    }
}
