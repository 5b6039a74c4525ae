//! The forms that metrics are told in: Prometheus' text, and OpenMetrics for those who accept it.

use http::HeaderMap;
use http::header::ACCEPT;

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The version of OpenMetrics that is written.
const VERSION: &str = "1.0.0";
/// What the samples of a counter end with.
const TOTAL: &str = "_total";

/// A form of the exposition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposition {
    Text,
    OpenMetrics,
}

impl Exposition {
    /// The form that whoever sent `headers` likes best. It is OpenMetrics only where that is named.
    pub(crate) fn accepted(headers: &HeaderMap) -> Self {
        let (mut text, mut open) = (0f32, 0f32);
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        for range in values.flat_map(|value| value.split(',')) {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_ours) = (1f32, true);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                let (key, value) = (key.trim(), value.trim().trim_matches('"'));
                if key.eq_ignore_ascii_case("q") {
                    quality = value.parse().unwrap_or(0.0);
                } else if key.eq_ignore_ascii_case("version") {
                    is_ours = value == VERSION;
                }
            }
            match &*media {
                "application/openmetrics-text" if is_ours => open = quality.max(open),
                "text/plain" => text = quality.max(text),
                _ => {}
            }
        }
        if open > 0.0 && open >= text { Self::OpenMetrics } else { Self::Text }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Text => TEXT,
            Self::OpenMetrics => OPEN_METRICS,
        }
    }

    /// Prometheus' text in this form.
    pub(crate) fn of(self, text: String) -> String {
        match self {
            Self::Text => text,
            Self::OpenMetrics => open_metrics(&text),
        }
    }
}

/// The same series in OpenMetrics: by the same names, so that nothing changes for whoever has
/// asked for the other form so far.
fn open_metrics(text: &str) -> String {
    let mut open = String::with_capacity(text.len() + 64);
    let mut help = None;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(named) = line.strip_prefix("# HELP ") {
            // It stands before the type, which says what the family is called.
            help = named.split_once(' ');
        } else if let Some((name, kind)) =
            line.strip_prefix("# TYPE ").and_then(|named| named.split_once(' '))
        {
            let (family, kind) = family(name, kind);
            open.extend(["# TYPE ", family, " ", kind, "\n"]);
            if let Some((_, help)) = help.take().filter(|(named, _)| *named == name) {
                open.extend(["# HELP ", family, " ", &help.replace('"', "\\\""), "\n"]);
            }
        } else {
            open.extend([line, "\n"]);
        }
    }
    open.push_str("# EOF\n");
    open
}

/// The name and the type of a family. A counter's is called without the ending of its samples;
/// samples without that ending, as Triton calls its own, can be of an unknown type only.
fn family<'t>(name: &'t str, kind: &'t str) -> (&'t str, &'t str) {
    match (kind, name.strip_suffix(TOTAL)) {
        ("counter", Some(family)) => (family, kind),
        ("counter", None) => (name, "unknown"),
        _ => (name, kind),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header::ACCEPT};

    use super::{Exposition, open_metrics};

    #[test]
    fn open_metrics_is_for_those_who_name_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for accepted in [
            "application/openmetrics-text",
            "Application/OpenMetrics-Text; Version=\"1.0.0\"; charset=utf-8",
            "application/openmetrics-text; version=1.0.0, text/plain",
            "text/plain;q=0.5, application/openmetrics-text;q=0.9",
            prometheus,
        ] {
            assert_eq!(of(&[accepted]), Exposition::OpenMetrics, "{accepted}");
        }
        for accepted in [
            "",
            "*/*",
            "application/*",
            "text/plain",
            "application/json",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=often",
            "application/openmetrics-text; version=0.0.1",
            "application/openmetrics-text;q=0.1, text/plain;q=0.2",
        ] {
            assert_eq!(of(&[accepted]), Exposition::Text, "{accepted}");
        }
        assert_eq!(of(&["text/plain;q=0.2", prometheus]), Exposition::OpenMetrics);
        assert_eq!(of(&[]), Exposition::Text);
    }

    fn of(accepted: &[&str]) -> Exposition {
        let mut headers = HeaderMap::new();
        for accepted in accepted {
            headers.append(ACCEPT, HeaderValue::from_str(accepted).unwrap());
        }
        Exposition::accepted(&headers)
    }

    #[test]
    fn families_are_named_and_typed_as_open_metrics_has_them() {
        let text = "# HELP a_total Told \"so\".\n# TYPE a_total counter\na_total{x=\"#\"} 1\n\n\
                    # TYPE b counter\nb 2\n\n# TYPE c_total gauge\nc_total 3\n\n\
                    # HELP d Times\n# TYPE d histogram\nd_bucket{le=\"+Inf\"} 1\nd_sum 1\nd_count 1\n\n";
        let open = "# TYPE a counter\n# HELP a Told \\\"so\\\".\na_total{x=\"#\"} 1\n\
                    # TYPE b unknown\nb 2\n# TYPE c_total gauge\nc_total 3\n\
                    # TYPE d histogram\n# HELP d Times\nd_bucket{le=\"+Inf\"} 1\nd_sum 1\nd_count 1\n\
                    # EOF\n";
        assert_eq!(open_metrics(text), open);
        assert_eq!(open_metrics(""), "# EOF\n");
    }
}
