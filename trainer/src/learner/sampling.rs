//! Which rows and columns a tree sees.

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// Draws rows and columns; the seed decides all draws.
#[derive(Debug)]
pub(super) struct Sampler {
    random: Pcg64Mcg,
    row_fraction: f64,
    column_fraction: f64,
}

impl Sampler {
    /// A sampler that keeps these shares of the rows and the columns.
    pub(super) fn new(seed: u64, row_fraction: f64, column_fraction: f64) -> Self {
        Self { random: Pcg64Mcg::seed_from_u64(seed), row_fraction, column_fraction }
    }

    /// Parts the rows below `rows` into those that the tree learns from, at least one, and the
    /// others. Both ascend.
    #[expect(clippy::cast_possible_truncation, reason = "rows are limited to 2^27")]
    pub(super) fn rows(&mut self, rows: usize, inside: &mut Vec<u32>, outside: &mut Vec<u32>) {
        let rows = rows as u32;
        inside.clear();
        outside.clear();
        if self.row_fraction >= 1.0 {
            inside.extend(0..rows);
            return;
        }
        let kept = (self.row_fraction * f64::from(u32::MAX)) as u32;
        for row in 0..rows {
            let side =
                if self.random.random::<u32>() < kept { &mut *inside } else { &mut *outside };
            side.push(row);
        }
        if inside.is_empty() {
            inside.extend(outside.pop());
        }
    }

    /// The columns that the tree may use, ascending: the stated share of them, rounded, and at
    /// least one.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a share of a count is a count"
    )]
    pub(super) fn columns(&mut self, columns: usize) -> Vec<usize> {
        let kept = ((columns as f64 * self.column_fraction).round() as usize).clamp(1, columns);
        let mut order: Vec<usize> = (0..columns).collect();
        for at in 0..kept {
            let other = self.random.random_range(at..columns);
            order.swap(at, other);
        }
        order.truncate(kept);
        order.sort_unstable();
        order
    }
}

#[cfg(test)]
mod tests {
    use super::Sampler;

    #[test]
    fn samples_are_parts_of_the_stated_size() {
        let mut sampler = Sampler::new(7, 0.8, 0.8);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        sampler.rows(10_000, &mut inside, &mut outside);
        assert!((7_800..8_200).contains(&inside.len()), "{}", inside.len());
        let mut all = [inside, outside].concat();
        all.sort_unstable();
        assert_eq!(all, (0..10_000).collect::<Vec<u32>>());

        let columns = sampler.columns(28);
        assert_eq!(columns.len(), 22);
        assert!(columns.is_sorted_by(|a, b| a < b) && columns[21] < 28);
        assert_ne!(columns, sampler.columns(28));
    }

    #[test]
    fn there_is_always_a_row_and_a_column() {
        let mut sampler = Sampler::new(1, 1e-9, 1e-9);
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        sampler.rows(3, &mut inside, &mut outside);
        assert_eq!((inside.len(), outside.len()), (1, 2));
        assert_eq!(sampler.columns(5).len(), 1);
    }
}
