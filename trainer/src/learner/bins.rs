//! Columns cut into bins: 255 value bins at most, and one for missing values.
//!
//! A column's edges are f32 thresholds between values that occur, and bin `b` holds the
//! values above edge `b - 1` and not above edge `b`. So `bin <= b` and `x <= edges[b]` are the
//! same question, and a tree learned on bins is exact on numbers.

use super::matrix::Matrix;

/// The bin of a missing value. Values have bins below it.
pub(super) const MISSING: u8 = u8::MAX;

/// Edges are chosen from at most this many rows a column.
const SAMPLED_ROWS: usize = 200_000;
/// A bin holds at least this many sampled rows, where the column has more values than bins.
const MIN_ROWS_PER_BIN: usize = 3;

/// The thresholds between the bins of one column, ascending, none NaN: one less than bins.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Edges(Vec<f32>);

/// A matrix in bins, once by row (histograms visit all columns of a row) and once by column
/// (partitions visit one column of many rows).
#[derive(Debug)]
pub(super) struct Binned {
    width: usize,
    by_row: Vec<u8>,
    by_column: Vec<Vec<u8>>,
}

impl Edges {
    /// Cuts a column into at most `max_bins` bins of about equal numbers of rows. A value that
    /// is more frequent than that has a bin of its own.
    pub(super) fn choose(column: &[f32], max_bins: usize) -> Self {
        let values = distinct(column);
        if values.len() <= max_bins {
            return Self(values.windows(2).map(|pair| between(pair[0].0, pair[1].0)).collect());
        }
        Self(cut(&values, max_bins))
    }

    /// The threshold above bin `bin`; infinite for the last bin, which has no upper end.
    pub(super) fn threshold(&self, bin: u8) -> f32 {
        self.0.get(usize::from(bin)).copied().unwrap_or(f32::INFINITY)
    }

    /// How many value bins there are; at least one.
    pub(super) fn bins(&self) -> usize {
        self.0.len() + 1
    }

    /// The bin of a value.
    #[expect(clippy::cast_possible_truncation, reason = "there are at most 254 edges")]
    pub(super) fn bin(&self, value: f32) -> u8 {
        if value.is_nan() { MISSING } else { self.0.partition_point(|&edge| edge < value) as u8 }
    }
}

impl Binned {
    /// Puts every value into its bin. There are as many `edges` as columns.
    pub(super) fn new(matrix: &Matrix, edges: &[Edges]) -> Self {
        let width = edges.len();
        let columns = matrix.columns().iter().zip(edges);
        let by_column: Vec<Vec<u8>> = columns
            .map(|(column, edges)| column.iter().map(|&value| edges.bin(value)).collect())
            .collect();
        let mut by_row = vec![0; width * matrix.rows()];
        for (at, column) in by_column.iter().enumerate() {
            for (row, &bin) in by_row.chunks_exact_mut(width).zip(column) {
                row[at] = bin;
            }
        }
        Self { width, by_row, by_column }
    }

    /// The bins of one row, in the order of the columns.
    pub(super) fn row(&self, row: usize) -> &[u8] {
        &self.by_row[row * self.width..][..self.width]
    }

    /// The bins of one column, in the order of the rows.
    pub(super) fn column(&self, column: usize) -> &[u8] {
        &self.by_column[column]
    }

    /// How many columns.
    pub(super) fn columns(&self) -> usize {
        self.width
    }
}

/// The values that occur in a sample of the column's rows, ascending, with their counts.
fn distinct(column: &[f32]) -> Vec<(f32, usize)> {
    let step = column.len().div_ceil(SAMPLED_ROWS).max(1);
    // One row of each stretch, not always at the same place in it: a frame of few stores by
    // many days repeats itself, and equal steps would only ever meet some of the stores.
    let stretches = column.chunks(step).enumerate();
    let sampled = stretches.map(|(at, rows)| rows[scrambled(at) % rows.len()]);
    let present = sampled.filter(|value| !value.is_nan());
    // Sorting integers is several times quicker than sorting floats. Adding zero turns -0 into
    // 0, which equals it.
    let mut keys: Vec<u32> = present.map(|value| order_key(value + 0.0)).collect();
    keys.sort_unstable();
    let equal = keys.chunk_by(|a, b| a == b);
    equal.map(|chunk| (from_order_key(chunk[0]), chunk.len())).collect()
}

/// A number that looks drawn at random: the high bits of a multiple of 2^64 by the golden ratio.
fn scrambled(at: usize) -> usize {
    at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33
}

/// An integer that orders like the float, which is not NaN.
fn order_key(value: f32) -> u32 {
    let bits = value.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

fn from_order_key(key: u32) -> f32 {
    f32::from_bits(if key >> 31 == 1 { key & !(1 << 31) } else { !key })
}

/// Chooses `max_bins - 1` edges at most among more values than that. A value that would fill a
/// bin by itself has its own; the other rows are shared evenly among the bins that are left.
fn cut(values: &[(f32, usize)], max_bins: usize) -> Vec<f32> {
    let rows: usize = values.iter().map(|&(_, count)| count).sum();
    // Fewer than `max_bins` values can each have more than their share.
    let is_large = |count: usize| count > rows / max_bins;
    let mut bins_left = max_bins - values.iter().filter(|value| is_large(value.1)).count();
    let mut rows_left: usize = values.iter().map(|v| v.1).filter(|&count| !is_large(count)).sum();
    let mut share = (rows_left / bins_left).max(MIN_ROWS_PER_BIN);
    let mut edges = Vec::with_capacity(max_bins - 1);
    let mut filled = 0;
    for pair in values.windows(2) {
        let [(value, count), (next, next_count)] = [pair[0], pair[1]];
        let large = is_large(count);
        filled += count;
        rows_left -= if large { 0 } else { count };
        let half_full_before_large = is_large(next_count) && filled * 2 >= share;
        if !(large || filled >= share || half_full_before_large) || edges.len() + 1 == max_bins {
            continue;
        }
        edges.push(between(value, next));
        filled = 0;
        if !large {
            bins_left = bins_left.saturating_sub(1).max(1);
            share = (rows_left / bins_left).max(MIN_ROWS_PER_BIN);
        }
    }
    edges
}

/// A threshold with `below <= threshold < above`, halfway where f32 has such a number.
fn between(below: f32, above: f32) -> f32 {
    #[expect(clippy::cast_possible_truncation, reason = "the middle is rounded to f32 on purpose")]
    let middle = f64::midpoint(f64::from(below), f64::from(above)) as f32;
    if below <= middle && middle < above { middle } else { below }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Edges, MISSING, between};

    #[test]
    fn a_threshold_parts_its_neighbours() {
        let check = |below: f32, above: f32, expected: f32| {
            let threshold = between(below, above);
            assert!(below <= threshold && threshold < above, "{below} {threshold} {above}");
            assert_eq!(threshold, expected, "between {below} and {above}");
        };
        check(1.0, 2.0, 1.5);
        check(1.0, 1.0_f32.next_up(), 1.0);
        check(1.0_f32.next_down(), 1.0, 1.0_f32.next_down());
        check(f32::MIN, f32::MAX, 0.0);
        check(f32::NEG_INFINITY, f32::MIN, f32::NEG_INFINITY);
        check(f32::MAX, f32::INFINITY, f32::MAX);
        check(f32::NEG_INFINITY, f32::INFINITY, f32::NEG_INFINITY);
    }

    #[test]
    fn few_values_have_a_bin_each() {
        let edges = Edges::choose(&[3.0, f32::NAN, -0.0, 1.0, 0.0, 1.0], 255);
        assert_eq!(edges.bins(), 3);
        assert_eq!([-0.0, 0.0, 1.0, 3.0, 9.0].map(|x| edges.bin(x)), [0, 0, 1, 2, 2]);
        assert_eq!(edges.bin(f32::NAN), MISSING);
        assert_eq!(Edges::choose(&[f32::NAN], 255).bins(), 1);
        assert_eq!(Edges::choose(&[], 255).bins(), 1);
    }

    #[test]
    fn many_values_share_bins_evenly_beside_a_frequent_one() {
        let column: Vec<f32> =
            (0..20_000).map(|i| if i % 2 == 0 { 5000.0 } else { i as f32 }).collect();
        let edges = Edges::choose(&column, 101);
        let mut rows = vec![0; edges.bins()];
        column.iter().for_each(|&value| rows[usize::from(edges.bin(value))] += 1);
        rows.sort_unstable();
        assert_eq!(rows.len(), 101);
        assert_eq!(rows[100], 10_000, "the frequent value is alone");
        assert!(rows[0] >= 50 && rows[99] <= 150, "{rows:?}");
    }

    #[test]
    fn a_sample_meets_every_store_of_a_panel() {
        let column: Vec<f32> = (0..900_000_u32).map(|row| (row % 10) as f32).collect();
        assert_eq!(Edges::choose(&column, 255).bins(), 10);
    }

    fn number() -> impl Strategy<Value = f32> {
        prop_oneof![
            any::<f32>(),
            (-20..20_i8).prop_map(f32::from),
            (0..3000_u32).prop_map(|ulps| f32::from_bits(1.0_f32.to_bits() + ulps)),
            Just(f32::INFINITY),
            Just(f32::NEG_INFINITY),
        ]
    }

    proptest! {
        #[test]
        fn bins_and_thresholds_agree(
            column in prop::collection::vec(number(), 1..600),
            others in prop::collection::vec(number(), 1..50),
            max_bins in 2..=255_usize,
        ) {
            let edges = Edges::choose(&column, max_bins);
            prop_assert!(edges.bins() <= max_bins);
            prop_assert!(edges.0.is_sorted_by(|a, b| a < b));
            for &value in column.iter().chain(&others).filter(|value| !value.is_nan()) {
                let bin = edges.bin(value);
                prop_assert!(usize::from(bin) < edges.bins());
                for other in 0..edges.bins() {
                    let other = u8::try_from(other).unwrap();
                    prop_assert_eq!(bin <= other, value <= edges.threshold(other));
                }
            }
        }
    }
}
