//! Which trace of its caller's a request belongs to: W3C Trace Context, level 1.

use http::HeaderMap;

/// The header, and the metadata, that names the trace and the caller's span in it.
const TRACEPARENT: &str = "traceparent";
/// What tracing systems have added to that; it is passed on as it is.
const TRACESTATE: &str = "tracestate";
/// The longest state that is passed on, in bytes: as much as every system must.
const MOST_STATE: usize = 512;
/// Version, trace, span and flags, and the dashes between them.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;
/// The flag of a caller who traces the request itself.
const SAMPLED: u8 = 1;

/// A caller's trace and span. Neither is zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    /// Whether the caller traces the request.
    pub(crate) sampled: bool,
    /// Empty when there is none.
    pub(crate) state: String,
}

impl Context {
    /// The context that `headers` name. One that is malformed is none at all.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
        let (trace, span, flags) = parse(parent.as_bytes())?;
        Some(Self { trace, span, sampled: flags & SAMPLED != 0, state: state(headers) })
    }
}

/// The trace, the span and the flags of a `traceparent`. Versions to come may add more behind
/// them.
fn parse(text: &[u8]) -> Option<(u128, u64, u8)> {
    let (known, more) = text.split_at_checked(LENGTH)?;
    let fields: Vec<&[u8]> = known.split(|&byte| byte == b'-').collect();
    let [version, trace, span, flags] = *fields.as_slice() else { return None };
    if (version.len(), trace.len(), span.len()) != (2, 32, 16) {
        return None;
    }
    let version = number(version)?;
    let is_whole = match version {
        0xff => false,
        0 => more.is_empty(),
        _ => more.is_empty() || more.starts_with(b"-"),
    };
    let (trace, span) = (number(trace)?, u64::try_from(number(span)?).ok()?);
    let flags = u8::try_from(number(flags)?).ok()?;
    (is_whole && trace != 0 && span != 0).then_some((trace, span, flags))
}

/// A number in lower-case hexadecimal digits, at most 32.
fn number(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// The state, over all headers that hold a part of it.
fn state(headers: &HeaderMap) -> String {
    let parts = headers.get_all(TRACESTATE).iter();
    let parts: Vec<&str> = parts.filter_map(|part| part.to_str().ok()).collect();
    let state = parts.join(",");
    if state.len() > MOST_STATE { String::new() } else { state }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::{Context, LENGTH, parse};

    const KNOWN: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_caller_s_trace_is_read() {
        let (trace, span) = (0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331);
        assert_eq!(parse(KNOWN.as_bytes()), Some((trace, span, 1)));
        for (text, flags) in [
            (KNOWN.replace("-01", "-00"), 0),
            (KNOWN.replace("-01", "-ff"), 0xff),
            (KNOWN.replacen("00", "01", 1), 1),
            (KNOWN.replacen("00", "cc", 1) + "-what-may-come", 1),
        ] {
            assert_eq!(parse(text.as_bytes()), Some((trace, span, flags)), "{text}");
        }
    }

    #[test]
    fn what_is_malformed_is_no_trace() {
        let zeros = |digits: usize| "0".repeat(digits);
        for text in [
            String::new(),
            "00".to_owned(),
            KNOWN.to_uppercase(),
            KNOWN.replacen("00", "ff", 1),
            KNOWN.replace('-', "_"),
            KNOWN.replace("b7", "+7"),
            KNOWN.replace("0af7", "0af"),
            KNOWN.replace("-01", "-1"),
            KNOWN.replace("-01", ""),
            format!("{KNOWN}-"),
            format!("{KNOWN}0"),
            format!(" {KNOWN}"),
            KNOWN.replacen("00", "01", 1) + "0",
            format!("00-{}-b7ad6b7169203331-01", zeros(32)),
            format!("00-0af7651916cd43dd8448eb211c80319c-{}-01", zeros(16)),
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn headers_hold_one_trace_and_any_number_of_states() {
        let headers = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            headers
        };
        let one = Context::of(&headers(&[("traceparent", KNOWN)])).unwrap();
        assert_eq!((one.sampled, &*one.state), (true, ""));
        let more =
            headers(&[("traceparent", KNOWN), ("tracestate", "a=1"), ("tracestate", "b=2, c=3")]);
        assert_eq!(Context::of(&more).unwrap().state, "a=1,b=2, c=3");
        assert_eq!(Context::of(&headers(&[("traceparent", KNOWN), ("traceparent", KNOWN)])), None);
        assert_eq!(Context::of(&headers(&[("tracestate", "a=1")])), None);
        let mut long = headers(&[("traceparent", KNOWN)]);
        long.insert("tracestate", HeaderValue::from_str(&"a".repeat(513)).unwrap());
        assert_eq!(Context::of(&long).unwrap().state, "");
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_and_nothing_panics(
            trace in 1u128.., span in 1u64.., flags: u8, junk in prop::collection::vec(any::<u8>(), 0..80),
        ) {
            let text = format!("00-{trace:032x}-{span:016x}-{flags:02x}");
            prop_assert_eq!(text.len(), LENGTH);
            prop_assert_eq!(parse(text.as_bytes()), Some((trace, span, flags)));
            let _may_be_anything = parse(&junk);
            let _may_be_anything = parse(&[b"01-", &junk[..]].concat());
        }
    }
}
