//! Content codings: bodies that come compressed, and answers to those who ask for them so.

mod compress;
mod inflate;

use http::HeaderMap;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};

use crate::error::GatewayError;

pub(super) use compress::compress;
pub(super) use inflate::inflate;

/// The codings that are understood, as `Accept-Encoding` lists them.
pub(super) const CODINGS: &str = "gzip, deflate";
/// How many bytes are put through a coding at a time. The core's other connections have their turn
/// between two slices; one takes some hundred microseconds.
const SLICE: usize = 64 << 10;

/// A way to compress a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    /// Deflate in zlib's frame, as HTTP means it (RFC 9110, 8.4.1.2).
    Deflate,
}

impl Coding {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Gzip, Self::Deflate].into_iter().find(|it| text.eq_ignore_ascii_case(it.as_str()))
    }
}

/// How a request's body is compressed. Several codings upon each other are not undone.
pub(super) fn of_request(headers: &HeaderMap) -> Result<Option<Coding>, GatewayError> {
    let mut values = headers.get_all(CONTENT_ENCODING).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().map(str::trim).filter(|_| values.next().is_none());
    match text {
        Some(text) if text.is_empty() || text.eq_ignore_ascii_case("identity") => Ok(None),
        text => text.and_then(Coding::parse).map(Some).ok_or_else(|| {
            GatewayError::UnsupportedEncoding(format!(
                "content encoding {value:?} is not understood; send the body as it is, or by one of {CODINGS}"
            ))
        }),
    }
}

/// The coding that a request asks its answer in: of those known, the one with the highest weight,
/// and the first of several. A star names none.
pub(super) fn asked(headers: &HeaderMap) -> Option<Coding> {
    let mut best = (None, 0);
    for value in headers.get_all(ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or_default().split(',') {
            let (name, parameters) = item.split_once(';').unwrap_or((item, ""));
            let name = name.trim();
            let coding = Coding::parse(name);
            if coding.is_none() && !name.eq_ignore_ascii_case("identity") {
                continue;
            }
            let weight = weight(parameters).unwrap_or(0);
            if weight > best.1 {
                best = (coding, weight);
            }
        }
    }
    best.0
}

/// The weight in thousandths: all of it when none is given, None when it is no weight.
fn weight(parameters: &str) -> Option<u16> {
    let text = parameters.trim();
    if text.is_empty() {
        return Some(1000);
    }
    let weight: f32 = text.strip_prefix("q=").or(text.strip_prefix("Q="))?.trim().parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is in range")]
    (0.0..=1.0).contains(&weight).then(|| (weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderName, HeaderValue};

    use super::{Coding, asked, of_request};

    fn headers(name: HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| HeaderValue::from_str(value).unwrap());
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn what_a_body_is_compressed_by() {
        for (values, coding) in [
            (&[][..], None),
            (&[""], None),
            (&["identity"], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&["GZip"], Some(Coding::Gzip)),
            (&["deflate"], Some(Coding::Deflate)),
        ] {
            assert_eq!(of_request(&headers(CONTENT_ENCODING, values)).unwrap(), coding);
        }
        for values in
            [&["br"][..], &["zstd"], &["gzip, gzip"], &["gzip", "gzip"], &["identity", "br"]]
        {
            let error = of_request(&headers(CONTENT_ENCODING, values)).unwrap_err();
            assert!(error.to_string().contains("one of gzip, deflate"), "{error}");
        }
    }

    #[test]
    fn the_heaviest_coding_wins_and_the_first_of_equals() {
        for (values, coding) in [
            (&[][..], None),
            (&["gzip"], Some(Coding::Gzip)),
            (&["gzip, deflate, br, zstd"], Some(Coding::Gzip)),
            (&["deflate, gzip"], Some(Coding::Deflate)),
            (&["deflate;q=0.5, gzip;q=0.9"], Some(Coding::Gzip)),
            (&["deflate; q=0.5", "gzip ;q=0.4"], Some(Coding::Deflate)),
            (&["identity, gzip"], None),
            (&["identity;q=0.2, GZIP;Q=0.3"], Some(Coding::Gzip)),
            (&["gzip;q=0"], None),
            (&["gzip;q=0, deflate;q=0.001"], Some(Coding::Deflate)),
            (&["*"], None),
            (&["br, *;q=0.1"], None),
            (&["gzip;q=2, deflate;q=NaN, gzip;x=1"], None),
            (&["\u{80}gzip"], None),
        ] {
            assert_eq!(asked(&headers(ACCEPT_ENCODING, values)), coding, "{values:?}");
        }
    }
}
