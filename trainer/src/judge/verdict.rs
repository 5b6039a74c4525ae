//! The verdict: promote, hold or reject, with every number it was made from.

use chrono::NaiveDate;
use serde::Serialize;

use super::compare::{Comparison, compare};
use super::measures::Measures;
use crate::pipeline::{Judge, WhenIncomparable};

/// What is in production, as far as a candidate can be held against it.
#[derive(Debug, Clone)]
pub enum Production {
    /// There is no registry that could tell.
    Unknown,
    /// Nothing is.
    Empty,
    /// A version that gives no answers to the test rows.
    Incomparable {
        /// Which version, and why it cannot be compared, for people.
        reason: String,
    },
    /// A version that answered the test rows.
    Comparable {
        /// What it is called in reports.
        name: String,
        /// Its answers.
        predictions: Vec<f32>,
    },
}

/// What is to happen with a candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It goes into production.
    Promote,
    /// The data cannot tell: it is registered, and what serves goes on.
    Hold,
    /// It is worse.
    Reject,
}

impl Verdict {
    /// The verdict as a word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Hold => "hold",
            Self::Reject => "reject",
        }
    }
}

/// A forecast that the candidate was held against.
#[derive(Debug, Clone, Serialize)]
pub struct Rival {
    /// The baseline's name, or the production version.
    pub name: String,
    /// Its own errors, on the rows for which it has a forecast.
    pub measures: Measures,
    /// The candidate's mean absolute error on the same rows.
    pub candidate_mae: f64,
    /// The candidate's loss minus its.
    pub comparison: Comparison,
}

impl Rival {
    /// Why the candidate cannot be held against it, if so: a forecast or a loss that is no
    /// finite number says nothing, though a metric may have put a number in its place.
    fn incomparable(&self) -> Option<String> {
        let Comparison { difference, lower, upper, days, .. } = self.comparison;
        let finite = difference.is_finite() && lower.is_finite() && upper.is_finite();
        if self.measures.rows == 0 {
            return Some("it has no forecast for any row".to_owned());
        }
        if !finite || !self.measures.mae.is_finite() {
            return Some("a forecast or its loss is no finite number".to_owned());
        }
        if !self.comparison.has_enough_days() {
            return Some(format!("{days} days are too few to judge by"));
        }
        None
    }
}

/// A verdict and what it was made from.
#[derive(Debug, Clone, Serialize)]
pub struct Judgement {
    /// What is to happen.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: String,
    /// The candidate's errors.
    pub measures: Measures,
    /// Forecasts that cost nothing.
    pub baselines: Vec<Rival>,
    /// The version in production, when there is one that can be compared.
    pub champion: Option<Rival>,
}

/// Judges a candidate's `predictions` of the test rows. What is no finite number, be it in
/// the predictions or in a rival's, never speaks for the candidate. A NaN in a baseline is a
/// row for which it has no forecast; the two are compared on the others.
pub fn judge(
    rules: &Judge,
    predictions: &[f32],
    labels: &[f32],
    days: &[NaiveDate],
    baselines: Vec<(String, Vec<f32>)>,
    production: Production,
) -> Judgement {
    let measures = Measures::of(predictions, labels);
    let rival = |name: String, theirs: &[f32], rows: &[usize]| {
        let (ours, theirs, labels) = (at(predictions, rows), at(theirs, rows), at(labels, rows));
        let (pair, days) = ((ours.as_slice(), theirs.as_slice()), at(days, rows));
        let comparison = compare(rules.metric, pair, &labels, &days, rules.alpha, rules.block_days);
        let candidate_mae = Measures::of(&ours, &labels).mae;
        Rival { name, measures: Measures::of(&theirs, &labels), candidate_mae, comparison }
    };
    let baselines: Vec<Rival> = baselines
        .into_iter()
        .map(|(name, theirs)| {
            let known = |&row: &usize| !theirs[row].is_nan();
            rival(name, &theirs, &(0..labels.len()).filter(known).collect::<Vec<_>>())
        })
        .collect();
    let (champion, (verdict, reason)) = match production {
        Production::Unknown => {
            (None, without_rival(&baselines, "no registry tells what is in production"))
        }
        Production::Empty => (None, without_rival(&baselines, "nothing is in production")),
        Production::Incomparable { reason } => {
            (None, beside_incomparable(rules, &baselines, &reason))
        }
        Production::Comparable { name, predictions } => {
            let loss = rules.metric.evaluate(&predictions, labels);
            let champion = rival(name, &predictions, &(0..labels.len()).collect::<Vec<_>>());
            let outcome = against_champion(rules, &champion, loss);
            (Some(champion), outcome)
        }
    };
    let bar = if champion.is_some() { Bar::NoWorse } else { Bar::ClearlyBetter };
    let (verdict, reason) = fault(rules, &measures, &baselines, bar).unwrap_or((verdict, reason));
    Judgement { verdict, reason, measures, baselines, champion }
}

fn at<T: Copy>(values: &[T], rows: &[usize]) -> Vec<T> {
    rows.iter().map(|&row| values[row]).collect()
}

/// How a candidate must stand to the forecasts that cost nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bar {
    /// With nothing else to go by, beyond doubt.
    ClearlyBetter,
    /// Where the version in production decides, by its mean loss. What is replaced was past the
    /// higher bar once; asking for it again would keep a worse version over a better one
    /// whenever the judging days are noisy.
    NoWorse,
}

/// Why the candidate may not serve, whatever is in production.
fn fault(
    rules: &Judge,
    measures: &Measures,
    baselines: &[Rival],
    bar: Bar,
) -> Option<(Verdict, String)> {
    if !measures.mae.is_finite() {
        return Some((Verdict::Reject, "some predictions are no finite numbers".to_owned()));
    }
    for rival @ Rival { name, comparison, .. } in baselines {
        if let Some(why) = rival.incomparable() {
            let reason = format!("cannot be compared with the baseline {name:?}: {why}");
            return Some((Verdict::Hold, reason));
        }
        let reason = match bar {
            Bar::ClearlyBetter if comparison.upper >= 0.0 => "does not clearly beat",
            Bar::NoWorse if comparison.difference >= 0.0 => "is no better than",
            Bar::ClearlyBetter | Bar::NoWorse => continue,
        };
        return Some((Verdict::Reject, format!("{reason} the baseline {name:?}")));
    }
    let bias = measures.bias / measures.mean_label;
    let small = |most: f64| bias.abs() <= most;
    if rules.max_bias.is_none_or(small) {
        return None;
    }
    let reason = if bias.is_finite() {
        format!("bias is {:.1} % of the mean label", 100.0 * bias)
    } else {
        "bias is no share of the mean label, which is 0".to_owned()
    };
    Some((Verdict::Reject, reason))
}

/// The outcome for a candidate without a fault that only baselines could be held against.
fn without_rival(baselines: &[Rival], why: &str) -> (Verdict, String) {
    if baselines.is_empty() {
        return (Verdict::Hold, format!("there is no baseline to beat, and {why}"));
    }
    (Verdict::Promote, format!("beats every baseline, and {why}"))
}

fn beside_incomparable(rules: &Judge, baselines: &[Rival], why: &str) -> (Verdict, String) {
    let why = format!("it cannot be compared with what is in production: {why}");
    match rules.when_incomparable {
        WhenIncomparable::Hold => (Verdict::Hold, why),
        WhenIncomparable::Baselines => without_rival(baselines, &why),
    }
}

fn against_champion(rules: &Judge, champion: &Rival, loss: f64) -> (Verdict, String) {
    let Comparison { difference, lower, upper, .. } = champion.comparison;
    let name = &champion.name;
    if let Some(why) = champion.incomparable() {
        return (Verdict::Hold, format!("cannot be compared with {name}: {why}"));
    }
    let margin = rules.margin * loss;
    let change = if loss > 0.0 {
        format!("loss changes by {:+.2} % against {name}", 100.0 * difference / loss)
    } else {
        format!("loss is {difference} against 0 of {name}")
    };
    if upper < 0.0 {
        (Verdict::Promote, format!("better: {change}"))
    } else if upper <= margin {
        (Verdict::Promote, format!("as good within {:.1} %: {change}", 100.0 * rules.margin))
    } else if lower > margin {
        (Verdict::Reject, format!("worse: {change}"))
    } else {
        (Verdict::Hold, format!("the data cannot tell: {change}"))
    }
}

#[cfg(test)]
mod tests {
    use chrono::{Days, NaiveDate};

    use super::{Judgement, Production, Verdict, judge};
    use crate::pipeline::{Judge, WhenIncomparable};

    fn days(count: u64) -> Vec<NaiveDate> {
        let first = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
        (0..count).map(|day| first.checked_add_days(Days::new(day)).unwrap()).collect()
    }

    fn labels() -> Vec<f32> {
        (0..100u8).map(|day| 10.0 + f32::from(day % 7)).collect()
    }

    fn off_by(by: f32) -> Vec<f32> {
        labels().iter().map(|label| label + by).collect()
    }

    fn version(predictions: Vec<f32>) -> Production {
        Production::Comparable { name: "version 1".to_owned(), predictions }
    }

    fn incomparable() -> Production {
        Production::Incomparable { reason: "version 1 knows other features".to_owned() }
    }

    /// Forecasts judged over 100 days.
    fn judged(
        rules: &Judge,
        candidate: &[f32],
        baseline: Option<Vec<f32>>,
        production: Production,
    ) -> Judgement {
        let baselines = baseline.map(|forecast| ("naive".to_owned(), forecast));
        let baselines = baselines.into_iter().collect();
        judge(rules, candidate, &labels(), &days(100), baselines, production)
    }

    /// The same for forecasts that are off by a steady amount.
    fn verdict(candidate: f32, baseline: f32, champion: Option<f32>, rules: &Judge) -> Verdict {
        let production = champion.map_or(Production::Empty, |by| version(off_by(by)));
        judged(rules, &off_by(candidate), Some(off_by(baseline)), production).verdict
    }

    #[test]
    fn verdicts() {
        let rules = Judge::default();
        assert_eq!(verdict(1.0, 2.0, None, &rules), Verdict::Promote);
        assert_eq!(verdict(2.0, 1.0, None, &rules), Verdict::Reject);
        assert_eq!(verdict(2.0, 2.0, None, &rules), Verdict::Reject, "no better than the baseline");
        assert_eq!(verdict(1.0, 2.0, Some(1.2), &rules), Verdict::Promote);
        assert_eq!(verdict(1.0, 2.0, Some(1.0), &rules), Verdict::Promote, "as good");
        assert_eq!(verdict(1.2, 2.0, Some(1.0), &rules), Verdict::Reject);
        assert_eq!(verdict(2.0, 1.0, Some(3.0), &rules), Verdict::Reject, "baselines come first");
        let unbiased = Judge { max_bias: Some(0.05), ..Judge::default() };
        assert_eq!(verdict(1.0, 2.0, None, &unbiased), Verdict::Reject);
    }

    #[test]
    fn what_the_data_cannot_tell_is_held() {
        let labels = vec![10.0f32; 40];
        let candidate: Vec<f32> =
            (0..40).map(|day| if day % 16 < 8 { 10.5 } else { 11.6 }).collect();
        let baseline = ("naive".to_owned(), vec![20.0f32; 40]);
        let rules = Judge::default();
        let production = version(vec![11.0f32; 40]);
        let judgement = judge(&rules, &candidate, &labels, &days(40), vec![baseline], production);
        assert_eq!(judgement.verdict, Verdict::Hold, "{judgement:?}");
    }

    #[test]
    fn a_version_that_cannot_be_compared_is_not_taken_for_nothing() {
        let check = |rules: &Judge, baseline: Option<f32>, expected: Verdict| {
            let judgement = judged(rules, &off_by(1.0), baseline.map(off_by), incomparable());
            assert_eq!(judgement.verdict, expected, "{judgement:?}");
            judgement.reason
        };
        let hold = Judge::default();
        let reason = check(&hold, Some(2.0), Verdict::Hold);
        assert!(reason.contains("version 1 knows other features"), "{reason}");
        let baselines = Judge { when_incomparable: WhenIncomparable::Baselines, ..hold.clone() };
        let reason = check(&baselines, Some(2.0), Verdict::Promote);
        assert!(reason.contains("beats every baseline"), "{reason}");
        assert!(reason.contains("version 1 knows other features"), "{reason}");
        check(&baselines, Some(0.5), Verdict::Reject);
        check(&hold, Some(0.5), Verdict::Reject);
        let reason = check(&baselines, None, Verdict::Hold);
        assert!(!reason.contains("beats"), "{reason}");
    }

    #[test]
    fn nothing_to_be_held_against_is_held() {
        let judgement = judged(&Judge::default(), &off_by(1.0), None, Production::Empty);
        assert_eq!(judgement.verdict, Verdict::Hold, "{judgement:?}");
        assert!(!judgement.reason.contains("beats"), "{}", judgement.reason);
    }

    #[test]
    fn what_is_no_number_never_promotes() {
        let rules = Judge::default();
        let with = |value: f32| {
            let mut forecast = off_by(1.0);
            forecast[17] = value;
            forecast
        };
        for odd in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let good = || Some(off_by(2.0));
            for production in [Production::Empty, version(off_by(3.0)), incomparable()] {
                let judgement = judged(&rules, &with(odd), good(), production);
                assert_eq!(judgement.verdict, Verdict::Reject, "{odd}: {judgement:?}");
            }
            if odd.is_infinite() {
                let baseline = judged(&rules, &off_by(1.0), Some(with(odd)), Production::Empty);
                assert_eq!(baseline.verdict, Verdict::Hold, "{odd}: {baseline:?}");
            }
            let champion = judged(&rules, &off_by(1.0), good(), version(with(odd)));
            assert_eq!(champion.verdict, Verdict::Hold, "{odd}: {champion:?}");
        }
    }

    #[test]
    fn few_days_decide_nothing() {
        let rules = Judge::default();
        let check = |count: usize, production: Production, expected: Verdict| {
            let (ours, theirs) = (vec![1.0f32; count], vec![2.0f32; count]);
            let baselines = vec![("naive".to_owned(), theirs)];
            let (labels, days) = (vec![0.5f32; count], days(count as u64));
            let judgement = judge(&rules, &ours, &labels, &days, baselines, production);
            assert_eq!(judgement.verdict, expected, "{count} days: {judgement:?}");
        };
        check(34, Production::Empty, Verdict::Hold);
        check(34, version(vec![2.0; 34]), Verdict::Hold);
        check(35, Production::Empty, Verdict::Promote);
        check(35, version(vec![2.0; 35]), Verdict::Promote);
    }

    #[test]
    fn rows_without_a_baseline_say_nothing_about_it() {
        let rules = Judge::default();
        let gaps = |every: usize, by: f32| {
            let mut forecast = off_by(by);
            forecast.iter_mut().step_by(every).for_each(|value| *value = f32::NAN);
            Some(forecast)
        };
        let better = judged(&rules, &off_by(1.0), gaps(3, 0.5), Production::Empty);
        assert_eq!(better.verdict, Verdict::Reject, "gaps do not count for the candidate");
        assert_eq!((better.measures.rows, better.baselines[0].measures.rows), (100, 66));
        assert_eq!(better.baselines[0].candidate_mae, 1.0);
        let worse = judged(&rules, &off_by(1.0), gaps(3, 2.0), Production::Empty);
        assert_eq!(worse.verdict, Verdict::Promote, "{worse:?}");
        let nothing = judged(&rules, &off_by(1.0), gaps(1, 2.0), Production::Empty);
        assert_eq!(nothing.verdict, Verdict::Hold, "{nothing:?}");
        assert!(nothing.reason.contains("no forecast for any row"), "{}", nothing.reason);
    }

    #[test]
    fn a_bias_without_a_mean_label_is_too_large() {
        let rules = Judge { max_bias: Some(0.5), ..Judge::default() };
        for (candidate, baseline) in [(0.0, 2.0), (1.0, 2.0)] {
            let (candidate, baseline) = (vec![candidate; 40], vec![baseline; 40]);
            let baselines = vec![("naive".to_owned(), baseline)];
            let labels = vec![0.0; 40];
            let judgement =
                judge(&rules, &candidate, &labels, &days(40), baselines, Production::Empty);
            assert_eq!(judgement.verdict, Verdict::Reject, "{judgement:?}");
        }
    }
}
