//! The verdict: promote, hold or reject, with every number it was made from.

use chrono::NaiveDate;
use serde::Serialize;

use super::compare::{Comparison, compare};
use super::measures::Measures;
use crate::pipeline::Judge;

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
    /// Its own errors.
    pub measures: Measures,
    /// The candidate's loss minus its.
    pub comparison: Comparison,
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

/// Judges a candidate's `predictions` of the test rows.
pub fn judge(
    rules: &Judge,
    predictions: &[f32],
    labels: &[f32],
    days: &[NaiveDate],
    baselines: Vec<(String, Vec<f32>)>,
    champion: Option<(String, Vec<f32>)>,
) -> Judgement {
    let measures = Measures::of(predictions, labels);
    let rival = |(name, theirs): (String, Vec<f32>)| Rival {
        measures: Measures::of(&theirs, labels),
        comparison: compare(
            rules.metric,
            (predictions, &theirs),
            labels,
            days,
            rules.alpha,
            rules.block_days,
        ),
        name,
    };
    let baselines: Vec<Rival> = baselines.into_iter().map(rival).collect();
    let champion_loss = champion.as_ref().map(|(_, theirs)| rules.metric.evaluate(theirs, labels));
    let champion = champion.map(rival);
    let (verdict, reason) = decide(rules, &measures, &baselines, champion.as_ref(), champion_loss);
    Judgement { verdict, reason, measures, baselines, champion }
}

fn decide(
    rules: &Judge,
    measures: &Measures,
    baselines: &[Rival],
    champion: Option<&Rival>,
    champion_loss: Option<f64>,
) -> (Verdict, String) {
    if let Some(unbeaten) = baselines.iter().find(|rival| rival.comparison.upper >= 0.0) {
        return (
            Verdict::Reject,
            format!("does not clearly beat the baseline {:?}", unbeaten.name),
        );
    }
    let bias = measures.bias / measures.mean_label;
    if rules.max_bias.is_some_and(|most| bias.abs() > most) {
        return (Verdict::Reject, format!("bias is {:.1} % of the mean label", 100.0 * bias));
    }
    let (Some(champion), Some(loss)) = (champion, champion_loss) else {
        return (Verdict::Promote, "beats every baseline, and nothing is in production".to_owned());
    };
    let margin = rules.margin * loss;
    let Comparison { difference, lower, upper, .. } = champion.comparison;
    let change =
        format!("loss changes by {:+.2} % against {}", 100.0 * difference / loss, champion.name);
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

    use super::{Verdict, judge};
    use crate::pipeline::Judge;

    /// Forecasts that are off by a steady amount, judged over 100 days.
    fn verdict(candidate: f32, baseline: f32, champion: Option<f32>, rules: &Judge) -> Verdict {
        let first = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
        let days: Vec<_> =
            (0..100).map(|day| first.checked_add_days(Days::new(day)).unwrap()).collect();
        let labels: Vec<f32> = (0..100u8).map(|day| 10.0 + f32::from(day % 7)).collect();
        let off_by = |by: f32| labels.iter().map(|label| label + by).collect::<Vec<_>>();
        let baselines = vec![("naive".to_owned(), off_by(baseline))];
        let champion = champion.map(|by| ("version 1".to_owned(), off_by(by)));
        judge(rules, &off_by(candidate), &labels, &days, baselines, champion).verdict
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
        let unbiased = Judge { max_bias: Some(0.05), ..Judge::default() };
        assert_eq!(verdict(1.0, 2.0, None, &unbiased), Verdict::Reject);
    }

    #[test]
    fn what_the_data_cannot_tell_is_held() {
        let first = NaiveDate::from_ymd_opt(2024, 1, 1).unwrap();
        let days: Vec<_> =
            (0..40).map(|day| first.checked_add_days(Days::new(day)).unwrap()).collect();
        let labels = vec![10.0f32; 40];
        let candidate: Vec<f32> =
            (0..40).map(|day| if day % 16 < 8 { 10.5 } else { 11.6 }).collect();
        let champion = ("version 1".to_owned(), vec![11.0f32; 40]);
        let baseline = ("naive".to_owned(), vec![20.0f32; 40]);
        let judgement =
            judge(&Judge::default(), &candidate, &labels, &days, vec![baseline], Some(champion));
        assert_eq!(judgement.verdict, Verdict::Hold, "{judgement:?}");
    }
}
