//! The difference of two forecasts' losses, with an interval.
//!
//! Rows of one day share their weather, and neighbouring days are alike, so rows are no
//! independent draws: treated as such, the error bars of a real comparison came out 1.6 times
//! too narrow. Days are therefore resampled in blocks of neighbours (the circular block
//! bootstrap of Politis and Romano, 1992).
//!
//! From few blocks the bootstrap's interval comes out too narrow, as a normal interval does
//! where Student's t is due. It is therefore stretched by the ratio of the two (the narrowness
//! bias in T. Hesterberg, "What Teachers Should Know About the Bootstrap", The American
//! Statistician 69, 2015).

use chrono::NaiveDate;
use rand::RngExt;
use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::SeedableRng;
use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

use crate::learner::Metric;

/// How many times the days are resampled.
const RESAMPLES: usize = 2000;
/// With fewer blocks or days than these, nothing is said about the difference: blocks that are
/// made short until there are enough of them no longer hold the days that are alike.
const FEWEST_BLOCKS: usize = 5;
const FEWEST_DAYS: usize = 28;

/// Mean loss of one forecast minus that of another on the same rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// The difference; below zero the first is better.
    pub difference: f64,
    /// With probability alpha the true difference is below this.
    pub lower: f64,
    /// With probability alpha the true difference is above this.
    pub upper: f64,
    /// How many days were compared.
    pub days: usize,
    /// How many whole blocks of neighbouring days these are.
    pub blocks: usize,
}

impl Comparison {
    /// Whether there is enough to tell a difference from chance.
    pub const fn has_enough_days(&self) -> bool {
        self.blocks >= FEWEST_BLOCKS && self.days >= FEWEST_DAYS
    }
}

/// Loss sums of one day.
#[derive(Debug, Clone, Copy, Default)]
struct Day {
    difference: f64,
    rows: f64,
}

/// Compares `first` with `second` on the same rows. `alpha` is the part left out on each side
/// of the interval, `block` how many days are resampled together.
pub fn compare(
    metric: Metric,
    (first, second): (&[f32], &[f32]),
    labels: &[f32],
    days: &[NaiveDate],
    alpha: f64,
    block: usize,
) -> Comparison {
    let days = by_day(metric, (first, second), labels, days);
    let difference = mean(days.iter());
    // The same rows give the same verdict.
    let mut random = Pcg64Mcg::seed_from_u64(0x5eed);
    let mut means: Vec<f64> =
        (0..RESAMPLES).map(|_| resampled_mean(&days, block.max(1), &mut random)).collect();
    means.sort_by(f64::total_cmp);
    let blocks = days.len() / block.max(1);
    let stretched = |mean: f64| difference + stretch(blocks, alpha) * (mean - difference);
    Comparison {
        difference,
        lower: stretched(quantile(&means, alpha)),
        upper: stretched(quantile(&means, 1.0 - alpha)),
        days: days.len(),
        blocks,
    }
}

/// How much wider Student's interval for the mean of so many blocks is than the bootstrap's.
#[expect(clippy::cast_precision_loss, reason = "blocks of days are few")]
fn stretch(blocks: usize, alpha: f64) -> f64 {
    let blocks = blocks.max(2) as f64;
    let student = StudentsT::new(0.0, 1.0, blocks - 1.0).expect("at least one degree of freedom");
    let ratio = student.inverse_cdf(1.0 - alpha) / Normal::standard().inverse_cdf(1.0 - alpha);
    ratio * (blocks / (blocks - 1.0)).sqrt()
}

fn by_day(
    metric: Metric,
    (first, second): (&[f32], &[f32]),
    labels: &[f32],
    days: &[NaiveDate],
) -> Vec<Day> {
    let mut sums = std::collections::BTreeMap::<NaiveDate, Day>::new();
    for (row, day) in days.iter().enumerate() {
        let loss =
            |predictions: &[f32]| metric.evaluate(&predictions[row..=row], &labels[row..=row]);
        let sum = sums.entry(*day).or_default();
        sum.difference += loss(first) - loss(second);
        sum.rows += 1.0;
    }
    sums.into_values().collect()
}

fn mean<'d>(days: impl Iterator<Item = &'d Day>) -> f64 {
    let mut total = Day::default();
    for day in days {
        total.difference += day.difference;
        total.rows += day.rows;
    }
    if total.rows > 0.0 { total.difference / total.rows } else { 0.0 }
}

/// The mean over as many days, drawn in blocks that wrap around the end.
fn resampled_mean(days: &[Day], block: usize, random: &mut Pcg64Mcg) -> f64 {
    if days.is_empty() {
        return 0.0;
    }
    let blocks = days.len().div_ceil(block);
    let starts: Vec<usize> = (0..blocks).map(|_| random.random_range(0..days.len())).collect();
    let drawn = starts.iter().flat_map(|start| (0..block).map(move |step| start + step));
    mean(drawn.take(days.len()).map(|at| &days[at % days.len()]))
}

/// The value below which a part `share` of the sorted values lies.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index among two thousand"
    )]
    let at = (share * (sorted.len().saturating_sub(1)) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use chrono::{Days, NaiveDate};
    use proptest::prelude::*;

    use super::*;

    fn days(count: u64) -> Vec<NaiveDate> {
        let first = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
        (0..count).map(|day| first.checked_add_days(Days::new(day)).unwrap()).collect()
    }

    #[test]
    fn a_forecast_is_as_good_as_itself() {
        let predictions = [1.0, 2.0, 3.0];
        let same = compare(
            Metric::AbsoluteError,
            (&predictions, &predictions),
            &[2.0; 3],
            &days(3),
            0.05,
            2,
        );
        assert_eq!((same.difference, same.lower, same.upper), (0.0, 0.0, 0.0));
    }

    #[test]
    fn a_steady_advantage_is_seen_and_noise_is_not() {
        let labels = [10.0; 60];
        let steady = [11.0; 60];
        let worse = [12.0; 60];
        let seen = compare(Metric::AbsoluteError, (&steady, &worse), &labels, &days(60), 0.05, 7);
        assert!(seen.upper < 0.0, "{seen:?}");
        let swinging: Vec<f32> =
            (0..60).map(|day| if day % 20 < 10 { 10.0 } else { 12.1 }).collect();
        let noise =
            compare(Metric::AbsoluteError, (&swinging, &steady), &labels, &days(60), 0.05, 7);
        assert!(noise.lower < 0.0 && noise.upper > 0.0, "{noise:?}");
    }

    /// A forecast that is neither better nor worse is called better about as often as alpha says,
    /// though there are only seven weeks and neighbouring days are alike.
    #[test]
    fn chance_is_seldom_taken_for_an_advantage() {
        const RUNS: u32 = 400;
        let mut random = Pcg64Mcg::seed_from_u64(7);
        let mut noise = || (0..12).map(|_| random.random_range(0.0..1.0f32)).sum::<f32>() - 6.0;
        let mut better = 0;
        for _ in 0..RUNS {
            let mut today = 0.0;
            let drift: Vec<f32> = (0..49)
                .map(|_| {
                    today = 0.4 * today + noise();
                    100.0 + today
                })
                .collect();
            let none = ([100.0f32; 49], [0.0f32; 49]);
            let seen =
                compare(Metric::AbsoluteError, (&drift, &none.0), &none.1, &days(49), 0.05, 7);
            better += u32::from(seen.upper < 0.0);
        }
        let share = f64::from(better) / f64::from(RUNS);
        assert!((0.02..0.09).contains(&share), "{share}");
    }

    #[test]
    fn few_days_are_not_enough() {
        let [one, other] = [[1.0f32; 34], [2.0f32; 34]];
        let seen = compare(Metric::AbsoluteError, (&one, &other), &[0.0; 34], &days(34), 0.05, 7);
        assert!(!seen.has_enough_days(), "{seen:?}");
        let seen = compare(Metric::AbsoluteError, (&one, &other), &[0.0; 34], &days(34), 0.05, 6);
        assert!(seen.has_enough_days(), "{seen:?}");
        let [one, other] = [[1.0f32; 27], [2.0f32; 27]];
        let seen = compare(Metric::AbsoluteError, (&one, &other), &[0.0; 27], &days(27), 0.05, 1);
        assert!(!seen.has_enough_days(), "{seen:?}");
        let [one, other] = [[1.0f32; 35], [2.0f32; 35]];
        let seen = compare(Metric::AbsoluteError, (&one, &other), &[0.0; 35], &days(35), 0.05, 7);
        assert!(seen.has_enough_days(), "{seen:?}");
    }

    proptest! {
        #[test]
        fn swapping_the_forecasts_turns_the_interval_around(
            first in prop::collection::vec(0f32..9.0, 30), second in prop::collection::vec(0f32..9.0, 30),
        ) {
            let labels = [4.0; 30];
            let one = compare(Metric::SquaredError, (&first, &second), &labels, &days(30), 0.1, 5);
            let other = compare(Metric::SquaredError, (&second, &first), &labels, &days(30), 0.1, 5);
            prop_assert!((one.difference + other.difference).abs() < 1e-9);
            prop_assert!((one.lower + other.upper).abs() < 1e-2 * (1.0 + one.lower.abs()));
            prop_assert!(one.lower <= one.difference + 1e-9 || one.days < 3);
        }
    }
}
