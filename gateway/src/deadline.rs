//! How long a caller waits at most, as its headers say. Rows whose time is over are not run, and a
//! request that could not be answered in time is refused at once.

use std::time::Duration;

use http::HeaderMap;

use crate::error::{GatewayError, clip};

/// Whole milliseconds, over HTTP and gRPC.
pub(crate) const TIMEOUT: &str = "x-request-timeout-ms";
/// The same as proxies of Envoy's kind say it, for what is left when they pass a request on.
const ENVOY: &str = "x-envoy-expected-rq-timeout-ms";
/// gRPC's own: digits and a unit.
const GRPC: &str = "grpc-timeout";

/// The time that a request has, if its headers bound it. Our own header is refused when it is no
/// number; a proxy's is passed over then, since its caller has not written it.
pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Option<Duration>, GatewayError> {
    let own = match headers.get(TIMEOUT) {
        None => None,
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            let limit = milliseconds(text).filter(|limit| !limit.is_zero());
            Some(limit.ok_or_else(|| {
                let text = clip(text);
                GatewayError::Invalid(format!(
                    "header {TIMEOUT} {text:?} is no whole number of milliseconds from 1 on"
                ))
            })?)
        }
    };
    let proxy = headers.get(ENVOY).and_then(|value| milliseconds(value.to_str().ok()?));
    // 0 is its word for no bound.
    let proxy = proxy.filter(|limit| !limit.is_zero());
    Ok(own.into_iter().chain(proxy).min())
}

/// The same of a call over gRPC, whose own header counts, too. What cannot be understood of that
/// is passed over.
pub(crate) fn of_call(headers: &HeaderMap) -> Result<Option<Duration>, GatewayError> {
    let limits = of_headers(headers)?.into_iter().chain(of_grpc(headers));
    Ok(limits.min())
}

/// What gRPC's own header says, if it can be understood.
pub(crate) fn of_grpc(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount = whole(digits).filter(|_| digits.len() <= 8)?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

fn milliseconds(text: &str) -> Option<Duration> {
    whole(text).map(Duration::from_millis)
}

/// Digits and nothing else: a sign would pass as part of a number otherwise.
fn whole(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{ENVOY, GRPC, TIMEOUT, of_call, of_grpc, of_headers};

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |&(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn grpcs_own_limits_are_digits_and_a_unit() {
        let limit = |text: &'static str| of_grpc(&headers(&[(GRPC, text)]));
        for (text, limit_ns) in [
            ("5n", 5),
            ("7u", 7_000),
            ("100m", 100_000_000),
            ("3S", 3_000_000_000),
            ("2M", 120_000_000_000),
            ("1H", 3_600_000_000_000),
            ("0m", 0),
        ] {
            assert_eq!(limit(text), Some(Duration::from_nanos(limit_ns)), "{text}");
        }
        assert!(limit("99999999H").is_some());
        for text in ["", "5", "m", "123456789m", "-1m", "+1m", "1 m", "1.5S", "1s"] {
            assert_eq!(limit(text), None, "{text}");
        }
        assert_eq!(of_grpc(&HeaderMap::new()), None);
    }

    #[test]
    fn the_shortest_limit_counts() {
        let own = |all: &[_]| of_headers(&headers(all)).unwrap();
        let call = |all: &[_]| of_call(&headers(all)).unwrap();
        let ms = |ms| Some(Duration::from_millis(ms));
        assert_eq!(own(&[]), None);
        assert_eq!(own(&[(TIMEOUT, "250")]), ms(250));
        assert_eq!(own(&[(TIMEOUT, "250"), (ENVOY, "100")]), ms(100));
        assert_eq!(own(&[(ENVOY, "0")]), None);
        assert_eq!(own(&[(ENVOY, "soon")]), None);
        assert_eq!(own(&[(GRPC, "5m")]), None, "it is gRPC's");
        assert_eq!(call(&[(GRPC, "5m"), (TIMEOUT, "250")]), ms(5));
        assert_eq!(call(&[(GRPC, "5S"), (TIMEOUT, "250")]), ms(250));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "0", "-1", "+1", "1.5", "1s", "99999999999999999999999"] {
            let error = of_headers(&headers(&[(TIMEOUT, text)])).unwrap_err().to_string();
            assert!(error.contains(TIMEOUT) && error.contains("milliseconds"), "{error}");
        }
    }
}
