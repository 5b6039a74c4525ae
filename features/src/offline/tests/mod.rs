//! The offline half: against DataFusion's own results, against a naive join, against the
//! online half, and on broken sources.

mod engine;
mod frames;
mod same_bits;
mod sources;

use std::time::Duration;

use super::FrameRequest;

/// All examples of a label source; request fields are the columns of their names.
fn request(
    service: &str,
    (label_source, label): (&str, &str),
    request_fields: &[&str],
    horizon_days: u64,
) -> FrameRequest {
    let as_is = |name: &&str| ((*name).to_owned(), (*name).to_owned());
    FrameRequest {
        service: service.into(),
        label_source: label_source.into(),
        label: label.into(),
        request_fields: request_fields.iter().map(as_is).collect(),
        filter: None,
        horizon: Duration::from_secs(86_400 * horizon_days),
        from: None,
        until: None,
        known_until: None,
    }
}

fn day(text: &str) -> chrono::NaiveDate {
    text.parse().unwrap()
}
