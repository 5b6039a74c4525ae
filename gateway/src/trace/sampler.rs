//! Which requests are traced: every so many-th, until so many have been, and those whose caller
//! traces them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

/// What of a request is traced. Nothing, unless something is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Levels {
    /// When its stages began and ended.
    pub(crate) timestamps: bool,
    /// The names, datatypes and shapes of its tensors.
    pub(crate) tensors: bool,
}

/// The values of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Values {
    pub(crate) levels: Levels,
    /// Every so many-th request is traced; with 0, only those whose caller traces them.
    pub(crate) rate: u32,
    /// How many more; without bound if there is none.
    pub(crate) count: Option<u32>,
    /// Kept for clients that set it. Spans leave in batches whatever it says.
    pub(crate) log_frequency: u32,
}

/// Settings, and the requests that they have been applied to.
#[derive(Debug)]
pub(crate) struct Sampler {
    values: Values,
    seen: AtomicU64,
    /// How many more may be traced; negative for any number.
    left: AtomicI64,
}

impl Levels {
    pub(crate) const fn is_off(self) -> bool {
        !self.timestamps && !self.tensors
    }
}

impl Default for Values {
    /// Triton's own.
    fn default() -> Self {
        Self { levels: Levels::default(), rate: 1000, count: None, log_frequency: 0 }
    }
}

impl Sampler {
    pub(crate) fn new(values: Values) -> Self {
        let left = AtomicI64::new(values.count.map_or(-1, i64::from));
        Self { values, seen: AtomicU64::new(0), left }
    }

    /// The settings, with what is left of the count.
    pub(crate) fn values(&self) -> Values {
        let left = u32::try_from(self.left.load(Ordering::Relaxed)).ok();
        Values { count: left, ..self.values }
    }

    pub(crate) const fn levels(&self) -> Levels {
        self.values.levels
    }

    /// Whether the request that has come is traced. One whose caller traces it always is; it
    /// counts like the others.
    pub(crate) fn takes(&self, callers_do: bool) -> bool {
        if self.values.levels.is_off() {
            return false;
        }
        self.is_next() || callers_do
    }

    /// Whether its turn has come, and there are some left.
    fn is_next(&self) -> bool {
        let rate = u64::from(self.values.rate);
        if rate == 0 || !(self.seen.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(rate) {
            return false;
        }
        let one_less = |left| match left {
            0 => None,
            1.. => Some(left - 1),
            _ => Some(left),
        };
        self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::{Levels, Sampler, Values};

    fn sampler(rate: u32, count: Option<u32>) -> Sampler {
        let levels = Levels { timestamps: true, tensors: false };
        Sampler::new(Values { levels, rate, count, log_frequency: 0 })
    }

    fn taken(sampler: &Sampler, requests: usize) -> Vec<usize> {
        (1..=requests).filter(|_| sampler.takes(false)).collect()
    }

    #[test]
    fn every_so_many_th_is_taken_until_the_count_is_used_up() {
        assert_eq!(taken(&sampler(1, None), 4), [1, 2, 3, 4]);
        assert_eq!(taken(&sampler(3, None), 10), [3, 6, 9]);
        let bounded = sampler(2, Some(3));
        assert_eq!(taken(&bounded, 20), [2, 4, 6]);
        assert_eq!(bounded.values().count, Some(0));
        assert_eq!(taken(&sampler(0, None), 10), [0; 0]);
        assert_eq!(taken(&Sampler::new(Values { rate: 1, ..Values::default() }), 10), [0; 0]);
    }

    #[test]
    fn what_its_caller_traces_is_taken_and_counts_like_the_others() {
        let bounded = sampler(2, Some(1));
        let taken: Vec<_> = [true, true, true, false].map(|traced| bounded.takes(traced)).to_vec();
        assert_eq!(taken, [true, true, true, false]);
        assert_eq!(bounded.values().count, Some(0));
        assert!(sampler(0, Some(0)).takes(true));
        assert!(!Sampler::new(Values::default()).takes(true), "while it is off");
    }

    #[test]
    fn cores_share_one_count() {
        let shared = sampler(1, Some(1000));
        let taken: usize = std::thread::scope(|scope| {
            let threads = [(); 4].map(|()| scope.spawn(|| taken(&shared, 500).len()));
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((taken, shared.values().count), (1000, Some(0)));
    }
}
