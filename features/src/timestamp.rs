//! Moments and days. A moment is microseconds since 1970 in UTC, a day is days since then.

use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use serde::{Deserialize, Serialize};

/// Microseconds of a day.
pub(crate) const MICROS_PER_DAY: i64 = 86_400_000_000;

/// A moment: microseconds since 1970-01-01 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The start of a day.
    pub fn from_date(date: NaiveDate) -> Self {
        Self(i64::from(days_of(date)) * MICROS_PER_DAY)
    }

    /// The day that this moment falls on.
    pub fn date(self) -> NaiveDate {
        let days = self.0.div_euclid(MICROS_PER_DAY);
        i32::try_from(days).ok().and_then(date_of).unwrap_or(if days < 0 {
            NaiveDate::MIN
        } else {
            NaiveDate::MAX
        })
    }

    /// The last moment of the day `date`.
    pub fn end_of(date: NaiveDate) -> Self {
        Self(Self::from_date(date).0 + MICROS_PER_DAY - 1)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let micros = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(micros(after)),
            Err(before) => Self(-micros(before.duration())),
        }
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.rem_euclid(MICROS_PER_DAY) == 0 {
            return self.date().fmt(f);
        }
        match DateTime::from_timestamp_micros(self.0) {
            Some(time) => write!(f, "{}Z", time.naive_utc().format("%Y-%m-%dT%H:%M:%S%.f")),
            None => write!(f, "{} µs", self.0),
        }
    }
}

/// Days since 1970-01-01.
pub(crate) fn days_of(date: NaiveDate) -> i32 {
    date.to_epoch_days()
}

/// The day `days` after 1970-01-01, none outside the calendar.
pub(crate) fn date_of(days: i32) -> Option<NaiveDate> {
    NaiveDate::from_epoch_days(days)
}

/// Reads `YYYY-MM-DD` as days since 1970-01-01.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes[range].iter().try_fold(0u32, |number, byte| {
            byte.is_ascii_digit().then(|| number * 10 + u32::from(byte - b'0'))
        })
    };
    if bytes.len() != 10 || bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    let year = i32::try_from(digits(0..4)?).ok()?;
    NaiveDate::from_ymd_opt(year, digits(5..7)?, digits(8..10)?).map(days_of)
}

/// Reads RFC 3339, or the same without an offset (UTC) and with a space for the `T`, or a
/// plain day, as microseconds since 1970-01-01 in UTC.
pub(crate) fn parse_timestamp(text: &str) -> Option<i64> {
    if let Some(days) = parse_date(text) {
        return Some(i64::from(days) * MICROS_PER_DAY);
    }
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f"]
        .iter()
        .find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())
        .map(|time| time.and_utc().timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::{MICROS_PER_DAY, Timestamp, parse_date, parse_timestamp};

    #[test]
    fn days_are_read_strictly() {
        assert_eq!(parse_date("1970-01-02"), Some(1));
        assert_eq!(parse_date("2024-02-29"), Some(19_782));
        for bad in
            ["2023-02-29", "2025-1-5", "2025/01/15", "", "20250115", "2025-01-15 ", "yesterday"]
        {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }

    #[test]
    fn moments_are_read_in_utc() {
        let check = |text: &str, micros| assert_eq!(parse_timestamp(text), micros, "{text}");
        check("1970-01-01T00:00:01Z", Some(1_000_000));
        check("1970-01-01T01:00:01+01:00", Some(1_000_000));
        check("1970-01-01 00:00:01.5", Some(1_500_000));
        check("1970-01-03", Some(2 * MICROS_PER_DAY));
        check("noon", None);
    }

    #[test]
    fn a_moment_shows_its_day() {
        assert_eq!(Timestamp(-1).date().to_string(), "1969-12-31");
        assert_eq!(Timestamp(MICROS_PER_DAY).to_string(), "1970-01-02");
        assert_eq!(Timestamp(1_500_000).to_string(), "1970-01-01T00:00:01.500Z");
    }
}
