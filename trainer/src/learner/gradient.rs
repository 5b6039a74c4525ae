//! Derivatives in fixed point, so that sums over rows are exact.
//!
//! A histogram cell is two 64-bit integers: the gradient sum above a count of rows in the first,
//! the hessian sum in the second. One 128-bit addition adds a row to a cell, a child's
//! histogram is its parent's minus its sibling's exactly, and no sum depends on its order.
//! Each tree has a scale of its own, the largest power of two at which no sum can overflow:
//! with 2^17 rows a gradient keeps 26 bits below the largest one's, with 2^26 rows 8.

use std::ops::{Add, AddAssign, Sub};

use super::objective::Derivatives;

/// More rows than this leave a gradient too few bits.
pub(super) const MAX_ROWS: usize = 1 << 26;

/// The bits that one row's gradient or hessian takes at most, besides its sign.
const MAX_ROW_BITS: u32 = 30;
/// The bits that a sum may take; one below i64's, since scales are rounded to powers of two.
const SUM_BITS: u32 = 62;

/// One row's gradient and hessian in units of the tree's [`Scale`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fixed {
    gradient: i32,
    hessian: i32,
}

/// A sum over rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sum([i64; 2]);

/// The units of a tree's sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    count_bits: u32,
    /// A gradient unit and a hessian unit; powers of two.
    gradient: f64,
    hessian: f64,
}

impl Scale {
    /// The finest units at which sums over `rows` rows with these derivatives fit.
    pub(super) fn fit(rows: usize, derivatives: &[Derivatives]) -> Self {
        let largest = derivatives.iter().fold([0.0_f32; 2], |[gradient, hessian], row| {
            [gradient.max(row.gradient.abs()), hessian.max(row.hessian.abs())]
        });
        let count_bits = usize::BITS - rows.leading_zeros();
        let row_bits = (SUM_BITS - 2 * count_bits).min(MAX_ROW_BITS);
        Self {
            count_bits,
            gradient: unit(largest[0], row_bits),
            hessian: unit(largest[1], MAX_ROW_BITS),
        }
    }

    /// Rounds derivatives to units.
    pub(super) fn fix(self, derivatives: &[Derivatives], out: &mut Vec<Fixed>) {
        let per_unit = [1.0 / self.gradient, 1.0 / self.hessian];
        out.clear();
        out.extend(derivatives.iter().map(|row| Fixed {
            gradient: rounded(f64::from(row.gradient) * per_unit[0]),
            hessian: rounded(f64::from(row.hessian) * per_unit[1]),
        }));
    }

    /// One row as a sum.
    pub(super) fn sum(self, row: Fixed) -> Sum {
        Sum([(i64::from(row.gradient) << self.count_bits) + 1, i64::from(row.hessian)])
    }

    /// The rows in a sum.
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "masked below 2^28"
    )]
    pub(super) fn count(self, sum: Sum) -> usize {
        (sum.0[0] & ((1 << self.count_bits) - 1)) as usize
    }

    /// A sum's gradient in units, for comparing sums with each other.
    pub(super) fn gradient_units(self, sum: Sum) -> f64 {
        (sum.0[0] >> self.count_bits) as f64
    }

    /// A sum's hessian in units.
    pub(super) fn hessian_units(self, sum: Sum) -> f64 {
        sum.0[1] as f64
    }

    /// The hessian, unscaled, in units.
    pub(super) fn to_hessian_units(self, hessian: f64) -> f64 {
        hessian / self.hessian
    }

    /// What one unit of gradient² / hessian is worth.
    pub(super) fn gain_unit(self) -> f64 {
        self.gradient * self.gradient / self.hessian
    }

    /// The Newton step that minimises the loss of the rows in `sum`.
    pub(super) fn newton_step(self, sum: Sum, lambda: f64) -> f64 {
        let hessian = self.hessian_units(sum) * self.hessian + lambda;
        if hessian > 0.0 { -self.gradient_units(sum) * self.gradient / hessian } else { 0.0 }
    }
}

impl Add for Sum {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self([self.0[0] + other.0[0], self.0[1] + other.0[1]])
    }
}

impl AddAssign for Sum {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for Sum {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self([self.0[0] - other.0[0], self.0[1] - other.0[1]])
    }
}

/// The power of two at which `largest` becomes less than 2^bits units.
fn unit(largest: f32, bits: u32) -> f64 {
    let exponent = f64::from(largest.max(f32::MIN_POSITIVE)).log2().floor() + 1.0;
    (exponent - f64::from(bits)).exp2()
}

/// To the nearest integer, halves away from zero; without a library call, unlike `round`.
#[expect(clippy::cast_possible_truncation, reason = "units are chosen so that it fits")]
fn rounded(x: f64) -> i32 {
    (x + 0.5_f64.copysign(x)) as i32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Fixed, MAX_ROWS, Scale, Sum};
    use crate::learner::objective::Derivatives;

    /// The sum of `rows` rows that are all alike.
    fn times(sum: Sum, rows: usize) -> Sum {
        let (mut total, mut power) = (Sum::default(), sum);
        for bit in 0..usize::BITS - rows.leading_zeros() {
            if rows >> bit & 1 == 1 {
                total += power;
            }
            power += power;
        }
        total
    }

    #[test]
    fn the_largest_sums_fit() {
        for rows in [1, 2, 3, 255, 256, 1 << 17, (1 << 20) - 1, MAX_ROWS - 1, MAX_ROWS] {
            for gradient in [1.999_999_9, -1.999_999_9] {
                let row = [Derivatives { gradient, hessian: 1.999_999_9 }];
                let scale = Scale::fit(rows, &row);
                let mut fixed = Vec::<Fixed>::new();
                scale.fix(&row, &mut fixed);
                let sum = times(scale.sum(fixed[0]), rows);
                assert_eq!(scale.count(sum), rows);
                let step = scale.newton_step(sum, 0.0);
                assert!((step + f64::from(gradient.signum())).abs() < 0.01, "{rows}: {step}");
            }
        }
    }

    #[test]
    fn no_derivatives_are_no_step() {
        let rows = [Derivatives::default(); 3];
        let scale = Scale::fit(3, &rows);
        let mut fixed = Vec::new();
        scale.fix(&rows, &mut fixed);
        let sum = fixed.iter().fold(Sum::default(), |sum, &row| sum + scale.sum(row));
        assert_eq!(scale.count(sum), 3);
        assert_eq!(scale.newton_step(sum, 0.0), 0.0);
        assert!(scale.gain_unit().is_finite());
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_rows(
            rows in prop::collection::vec((-1e3_f32..1e3, 0.0_f32..50.0), 1..200),
            lambda in 0.0..10.0,
        ) {
            let rows: Vec<Derivatives> = rows
                .into_iter()
                .map(|(gradient, hessian)| Derivatives { gradient, hessian })
                .collect();
            let scale = Scale::fit(rows.len(), &rows);
            let mut fixed = Vec::new();
            scale.fix(&rows, &mut fixed);
            let sum = fixed.iter().fold(Sum::default(), |sum, &row| sum + scale.sum(row));
            prop_assert_eq!(scale.count(sum), rows.len());
            let of = |part: fn(&Derivatives) -> f32| rows.iter().map(|r| f64::from(part(r))).sum::<f64>();
            let (gradient, hessian) = (of(|r| r.gradient), of(|r| r.hessian));
            prop_assert!((scale.gradient_units(sum) * scale.gradient - gradient).abs() < 1e-3);
            prop_assert!((scale.hessian_units(sum) * scale.hessian - hessian).abs() < 1e-3);
            let (first, rest) = (scale.sum(fixed[0]), sum - scale.sum(fixed[0]));
            prop_assert_eq!(first + rest, sum);
            if hessian > 1.0 {
                let step = -gradient / (hessian + lambda);
                prop_assert!((scale.newton_step(sum, lambda) - step).abs() <= 1e-3 * (1.0 + step.abs()));
            }
        }
    }
}
