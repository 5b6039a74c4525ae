//! Histograms of latencies: 1 us to 60 s, to three digits. What is longer counts as 60 s.

use std::fmt::Write as _;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// A distribution's figures. All are zero when nothing was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Latency {
    /// How many were counted.
    pub count: u64,
    /// The shortest.
    #[serde(rename = "min_us", serialize_with = "as_micros")]
    pub min: Duration,
    /// The mean.
    #[serde(rename = "mean_us", serialize_with = "as_micros")]
    pub mean: Duration,
    /// The median.
    #[serde(rename = "p50_us", serialize_with = "as_micros")]
    pub p50: Duration,
    /// What 90 % do not exceed.
    #[serde(rename = "p90_us", serialize_with = "as_micros")]
    pub p90: Duration,
    /// What 95 % do not exceed.
    #[serde(rename = "p95_us", serialize_with = "as_micros")]
    pub p95: Duration,
    /// What 99 % do not exceed.
    #[serde(rename = "p99_us", serialize_with = "as_micros")]
    pub p99: Duration,
    /// What 99.9 % do not exceed.
    #[serde(rename = "p999_us", serialize_with = "as_micros")]
    pub p999: Duration,
    /// The longest.
    #[serde(rename = "max_us", serialize_with = "as_micros")]
    pub max: Duration,
}

/// Counts of latencies.
#[derive(Debug, Clone)]
pub(crate) struct LatencyHistogram(Histogram<u64>);

impl LatencyHistogram {
    pub(crate) fn new() -> Self {
        let bounds = Histogram::new_with_bounds(1, 60_000_000, 3);
        Self(bounds.expect("the bounds are constants that are in order"))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn latency(&self) -> Latency {
        // The histogram answers with a bucket's upper end, which may lie above the maximum.
        let at = |quantile| Duration::from_micros(self.0.value_at_quantile(quantile));
        Latency {
            count: self.0.len(),
            min: Duration::from_micros(self.0.min()),
            mean: Duration::try_from_secs_f64(self.0.mean() / 1e6).unwrap_or_default(),
            p50: at(0.50),
            p90: at(0.90),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(self.0.max()),
        }
    }

    /// Latencies in milliseconds by the share of the requests that took no longer.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        // The last step is everything, which lies nowhere on an axis of decades.
        let steps = self.0.iter_quantiles(5).filter(|step| step.quantile() < 1.0);
        steps.map(|step| (step.quantile(), millis(step.value_iterated_to()))).collect()
    }

    /// The percentile distribution as HdrHistogram's own text, which its plotters read, in
    /// milliseconds. The first line says what it is.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("# sluice latency histogram, format {FORMAT}, milliseconds\n");
        let head = ("Value", "Percentile", "TotalCount", "1/(1-Percentile)");
        line(
            &mut text,
            format_args!("{:>12} {:>14} {:>10} {:>16}\n", head.0, head.1, head.2, head.3),
        );
        let mut seen = 0;
        for step in self.0.iter_quantiles(5) {
            seen += step.count_since_last_iteration();
            let (value, quantile) = (millis(step.value_iterated_to()), step.quantile_iterated_to());
            let inverse = if quantile < 1.0 {
                format!("{:.2}", 1.0 / (1.0 - quantile))
            } else {
                "inf".into()
            };
            line(
                &mut text,
                format_args!("{value:>12.3} {quantile:>14.12} {seen:>10} {inverse:>16}"),
            );
        }
        let (mean, deviation) = (self.0.mean() / 1e3, self.0.stdev() / 1e3);
        let (max, total) = (millis(self.0.max()), self.0.len());
        line(
            &mut text,
            format_args!("#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]"),
        );
        line(&mut text, format_args!("#[Max     = {max:>12.3}, Total count    = {total:>12}]"));
        text
    }
}

/// The version of the text form.
const FORMAT: u32 = 1;

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    writeln!(text, "{arguments}").expect("a string takes any text");
}

fn millis(micros: u64) -> f64 {
    micros as f64 / 1e3
}

fn as_micros<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Latency, LatencyHistogram};

    #[test]
    fn figures_are_right_to_three_digits() {
        let mut histogram = LatencyHistogram::new();
        assert_eq!(histogram.latency(), Latency::default());
        for millis in 1..=1_000 {
            histogram.record(Duration::from_millis(millis));
        }
        let latency = histogram.latency();
        for (got, millis) in [
            (latency.p50, 500),
            (latency.p90, 900),
            (latency.p99, 990),
            (latency.p999, 999),
            (latency.max, 1_000),
        ] {
            let exact = Duration::from_millis(millis);
            assert!(got.abs_diff(exact) <= exact / 1_000, "{got:?} {exact:?}");
        }
        assert!(latency.mean.abs_diff(Duration::from_micros(500_500)) < Duration::from_micros(500));
    }

    #[test]
    fn what_is_out_of_range_is_counted_at_the_end() {
        let mut histogram = LatencyHistogram::new();
        histogram.record(Duration::ZERO);
        histogram.record(Duration::from_secs(90));
        histogram.record(Duration::MAX);
        let latency = histogram.latency();
        assert_eq!((latency.count, latency.min), (3, Duration::ZERO));
        assert!(latency.max.abs_diff(Duration::from_secs(60)) < Duration::from_millis(100));
    }

    #[test]
    fn the_curve_rises_to_all_but_the_last() {
        let mut histogram = LatencyHistogram::new();
        assert!(histogram.curve().is_empty());
        (1..=1000).for_each(|millis| histogram.record(Duration::from_millis(millis)));
        let curve = histogram.curve();
        assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{curve:?}");
        assert!(
            curve.iter().all(|&(share, millis)| (millis - share * 1e3).abs() < 10.0),
            "{curve:?}"
        );
        assert!(curve.last().unwrap().0 > 0.99);
    }

    #[test]
    fn text_ends_at_everything() {
        let mut histogram = LatencyHistogram::new();
        (1..=100).for_each(|millis| histogram.record(Duration::from_millis(millis)));
        let text = histogram.to_text();
        assert!(text.starts_with("# sluice latency histogram, format 1"), "{text}");
        let last = text.lines().rfind(|line| !line.starts_with('#')).unwrap();
        let fields: Vec<&str> = last.split_whitespace().collect();
        assert_eq!(fields[1..], ["1.000000000000", "100", "inf"], "{text}");
        assert!(text.contains("Total count    =          100]"), "{text}");
    }
}
