//! Runs by the number of their rows, in a table of fixed size.

use std::collections::BTreeMap;

use super::{Count, Tally};
use crate::executor::Times;

/// Sizes that a shard can tell apart, at 40 bytes each. Sizes up to this many always can be,
/// where none is larger. A larger one takes the place of a smaller one that never ran.
const PLACES: usize = 512;
/// Places that a size may take, one behind the other. A size that finds them taken is counted in
/// the totals and has no entry of its own.
const TRIES: usize = 16;

/// One shard's runs by size. One thread writes.
#[derive(Debug)]
pub(super) struct Sizes(Box<[Place]>);

#[derive(Debug, Default)]
struct Place {
    /// The size that this place is of; 0 as long as it is free.
    rows: Count,
    runs: Count,
    input: Count,
    infer: Count,
    output: Count,
}

/// What was counted of the runs of one size.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SizeTotals {
    pub(crate) input: Tally,
    pub(crate) infer: Tally,
    pub(crate) output: Tally,
}

impl Sizes {
    /// A table for a thread that runs, or none.
    pub(super) fn new(runs: bool) -> Self {
        let places = if runs { PLACES } else { 0 };
        Self((0..places).map(|_| Place::default()).collect())
    }

    pub(super) fn add(&self, rows: usize, times: &Times) {
        let home = rows.wrapping_sub(1) % PLACES;
        let rows = rows as u64;
        let places = (home..home + TRIES).filter_map(|place| self.0.get(place % PLACES));
        let mut open = places.filter(|place| [0, rows].contains(&place.rows.get()));
        // A thread that runs nothing has no table.
        let Some(place) = open.next() else { return };
        place.runs.add(1);
        place.input.add(times.input.0);
        place.infer.add(times.infer.0);
        place.output.add(times.output.0);
        // Last: whoever reads the size finds its first run counted.
        place.rows.set(rows);
    }

    /// Adds what was counted to `totals`.
    pub(super) fn add_to(&self, totals: &mut BTreeMap<u64, SizeTotals>) {
        for place in &self.0 {
            let rows = place.rows.get();
            if rows == 0 {
                continue;
            }
            let totals = totals.entry(rows).or_default();
            let count = place.runs.get();
            for (total, sum) in [
                (&mut totals.input, &place.input),
                (&mut totals.infer, &place.infer),
                (&mut totals.output, &place.output),
            ] {
                *total += Tally { count, nanoseconds: sum.get() };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{PLACES, Sizes, TRIES};
    use crate::counters::Nanoseconds;
    use crate::executor::Times;

    fn count(sizes: impl IntoIterator<Item = usize>) -> BTreeMap<u64, u64> {
        let table = Sizes::new(true);
        let times = Times { infer: Nanoseconds(7), ..Times::default() };
        sizes.into_iter().for_each(|rows| table.add(rows, &times));
        let mut totals = BTreeMap::new();
        table.add_to(&mut totals);
        for totals in totals.values() {
            assert_eq!(totals.infer.nanoseconds, 7 * totals.infer.count);
            assert_eq!((totals.input.nanoseconds, totals.output.nanoseconds), (0, 0));
        }
        totals.into_iter().map(|(rows, totals)| (rows, totals.infer.count)).collect()
    }

    #[test]
    fn every_size_up_to_the_bound_is_told_apart() {
        let counted = count((1..=PLACES).chain(1..=PLACES));
        assert_eq!(counted, (1..=PLACES as u64).map(|rows| (rows, 2)).collect());
    }

    #[test]
    fn large_sizes_are_counted_as_they_are_until_their_places_are_taken() {
        let large = [20_000, 1_000_000, usize::MAX, 20_000];
        let expected = [(20_000, 2), (1_000_000, 1), (usize::MAX as u64, 1)];
        assert_eq!(count(large), expected.into());
        let counted = count((1..=10 * TRIES).map(|n| n * PLACES));
        assert_eq!(counted.len(), TRIES, "they all want the same places");
    }
}
