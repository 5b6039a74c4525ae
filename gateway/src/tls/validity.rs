//! From when to when a certificate is valid, read out of its DER: the one thing that is wanted of
//! a certificate beyond what rustls does with it.

/// Seconds since 1970, both inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// The version comes first, in a tag of its own, unless it is 1.
const VERSION: u8 = 0xa0;

impl Validity {
    /// None where `certificate` is none.
    pub(super) fn of(certificate: &[u8]) -> Option<Self> {
        let (SEQUENCE, certificate, _) = element(certificate)? else { return None };
        let (SEQUENCE, mut fields, _) = element(certificate)? else { return None };
        if fields.first() == Some(&VERSION) {
            fields = element(fields)?.2;
        }
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            fields = element(fields)?.2;
        }
        let (SEQUENCE, times, _) = element(fields)? else { return None };
        let (tag, not_before, times) = element(times)?;
        let not_before = seconds(tag, not_before)?;
        let (tag, not_after, _) = element(times)?;
        Some(Self { not_before, not_after: seconds(tag, not_after)? })
    }

    /// When this and `other` are both valid.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// The first element's tag and contents, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&length, rest) = rest.split_first()?;
    let (length, rest) = if length < 0x80 {
        (usize::from(length), rest)
    } else {
        let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
        if digits.len() > 4 {
            return None;
        }
        (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
    };
    let (contents, rest) = rest.split_at_checked(length)?;
    Some((tag, contents, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, the two forms that certificates may use.
fn seconds(tag: u8, text: &[u8]) -> Option<i64> {
    let text = text.strip_suffix(b"Z")?;
    if !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, &d| n * 10 + i64::from(d - b'0'));
    let (year, rest) = match (tag, text.len()) {
        (UTC_TIME, 12) => {
            let year = number(&text[..2]);
            (if year < 50 { 2000 + year } else { 1900 + year }, &text[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&text[..4]), &text[4..]),
        _ => return None,
    };
    let mut parts = rest.chunks_exact(2).map(number);
    let [month, day, hour, minute, second] = std::array::from_fn(|_| parts.next().unwrap_or(0));
    let days = days_since_1970(year, month, day)?;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970 on in the Gregorian calendar. Years begin in March here, so that the leap day
/// is their last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    Some(year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1 - 719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::{Validity, days_since_1970, seconds};

    fn certificate(from: (i32, u8, u8), to: (i32, u8, u8)) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_before = date_time_ymd(from.0, from.1, from.2);
        params.not_after = date_time_ymd(to.0, to.1, to.2);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn times_of_certificates_are_read() {
        // Until 2049 in one form, later in the other.
        for (from, to, seconds) in [
            ((1970, 1, 1), (2001, 9, 9), (0, 999_993_600)),
            ((2024, 2, 29), (2049, 12, 31), (1_709_164_800, 2_524_521_600)),
            ((2024, 3, 1), (2050, 1, 1), (1_709_251_200, 2_524_608_000)),
            ((1975, 1, 1), (4096, 1, 1), (157_766_400, 67_090_118_400)),
        ] {
            let validity = Validity::of(&certificate(from, to)).unwrap();
            assert_eq!((validity.not_before, validity.not_after), seconds, "{from:?} {to:?}");
        }
    }

    #[test]
    fn other_times_are_none() {
        for (tag, text) in [
            (0x17, &b"700101000000"[..]),
            (0x17, b"7001010000Z"),
            (0x18, b"20700101000000+0000"),
            (0x18, b"20701301000000Z"),
            (0x17, b"70x101000000Z"),
            (0x16, b"700101000000Z"),
        ] {
            assert_eq!(seconds(tag, text), None, "{}", String::from_utf8_lossy(text));
        }
        assert_eq!(days_since_1970(2000, 3, 1), Some(11_017));
    }

    proptest! {
        #[test]
        fn broken_certificates_are_none_or_something(cut in 0_usize..400, at in 0_usize..400, byte: u8) {
            let mut der = certificate((2024, 1, 1), (2025, 1, 1));
            let at = at % der.len();
            der[at] = byte;
            der.truncate(cut);
            let _no_panic = Validity::of(&der);
        }
    }
}
