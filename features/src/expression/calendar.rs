//! Calendar arithmetic on days and moments. Weeks are ISO's, `dow` counts from Sunday as 0.

use chrono::{Datelike, Months, NaiveDate};

use crate::timestamp::{MICROS_PER_DAY, date_of, days_of};

/// A calendar unit: what EXTRACT reads, date_trunc cuts to, intervals count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    DayOfWeek,
    IsoDayOfWeek,
    DayOfYear,
    Hour,
    Minute,
    Second,
    Epoch,
}

const UNITS: [(Unit, &str); 12] = [
    (Unit::Year, "year"),
    (Unit::Quarter, "quarter"),
    (Unit::Month, "month"),
    (Unit::Week, "week"),
    (Unit::Day, "day"),
    (Unit::DayOfWeek, "dow"),
    (Unit::IsoDayOfWeek, "isodow"),
    (Unit::DayOfYear, "doy"),
    (Unit::Hour, "hour"),
    (Unit::Minute, "minute"),
    (Unit::Second, "second"),
    (Unit::Epoch, "epoch"),
];

impl Unit {
    /// The unit of this name, in any case, singular or plural.
    pub(super) fn parse(name: &str) -> Result<Self, String> {
        let lower = name.to_lowercase();
        let singular = lower.strip_suffix('s').unwrap_or(&lower);
        let found = UNITS.iter().find(|(_, known)| *known == lower || *known == singular);
        found.map(|(unit, _)| *unit).ok_or_else(|| {
            let names: Vec<_> = UNITS.iter().map(|(_, known)| *known).collect();
            format!("calendar unit {name} is unknown, known are: {}", names.join(", "))
        })
    }

    /// Whether a day has the unit to cut to or to add.
    pub(super) const fn is_of_days(self) -> bool {
        matches!(self, Self::Year | Self::Quarter | Self::Month | Self::Week | Self::Day)
    }

    /// Whether a moment has the unit to cut to or to add.
    pub(super) const fn is_span(self) -> bool {
        self.is_of_days() || matches!(self, Self::Hour | Self::Minute | Self::Second)
    }
}

impl std::fmt::Display for Unit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = UNITS.iter().find(|(unit, _)| unit == self).map_or("", |(_, name)| name);
        f.write_str(name)
    }
}

/// A span of calendar time, as SQL's INTERVAL: months, days and microseconds apart, since
/// neither a month nor a day is a fixed number of the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) months: i32,
    pub(crate) days: i32,
    pub(crate) micros: i64,
}

impl Interval {
    /// `count` times `unit`, none when that is out of range or no span.
    pub(super) fn new(count: i32, unit: Unit) -> Option<Self> {
        let none = Self { months: 0, days: 0, micros: 0 };
        let micros = |each: i64| Some(Self { micros: i64::from(count) * each, ..none });
        match unit {
            Unit::Year => Some(Self { months: count.checked_mul(12)?, ..none }),
            Unit::Quarter => Some(Self { months: count.checked_mul(3)?, ..none }),
            Unit::Month => Some(Self { months: count, ..none }),
            Unit::Week => Some(Self { days: count.checked_mul(7)?, ..none }),
            Unit::Day => Some(Self { days: count, ..none }),
            Unit::Hour => micros(3_600_000_000),
            Unit::Minute => micros(60_000_000),
            Unit::Second => micros(1_000_000),
            Unit::DayOfWeek | Unit::IsoDayOfWeek | Unit::DayOfYear | Unit::Epoch => None,
        }
    }

    pub(super) const fn negated(self) -> Self {
        Self {
            months: self.months.saturating_neg(),
            days: self.days.saturating_neg(),
            micros: self.micros.saturating_neg(),
        }
    }

    /// The day this much after `days`, none outside the calendar. Only for whole days.
    pub(super) fn add_to_date(self, days: i32) -> Option<i32> {
        let moved = add_months(date_of(days)?, self.months)?;
        days_of(moved).checked_add(self.days).filter(|days| date_of(*days).is_some())
    }

    /// The moment this much after `micros`, none outside the calendar.
    pub(super) fn add_to_timestamp(self, micros: i64) -> Option<i64> {
        let days = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?;
        let moved = i64::from(self.add_to_date(days)?) * MICROS_PER_DAY;
        moved.checked_add(micros.rem_euclid(MICROS_PER_DAY))?.checked_add(self.micros)
    }
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} months {} days {} micros", self.months, self.days, self.micros)
    }
}

fn add_months(date: NaiveDate, months: i32) -> Option<NaiveDate> {
    let count = Months::new(months.unsigned_abs());
    if months < 0 { date.checked_sub_months(count) } else { date.checked_add_months(count) }
}

/// What EXTRACT reads off a moment. Whole but for `second` and `epoch`.
pub(super) fn extract(unit: Unit, micros: i64) -> Option<f64> {
    let days = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?;
    let date = date_of(days)?;
    let of_day = micros.rem_euclid(MICROS_PER_DAY);
    let weekday = date.weekday();
    Some(match unit {
        Unit::Year => f64::from(date.year()),
        Unit::Quarter => f64::from(date.month0() / 3 + 1),
        Unit::Month => f64::from(date.month()),
        Unit::Week => f64::from(date.iso_week().week()),
        Unit::Day => f64::from(date.day()),
        Unit::DayOfWeek => f64::from(weekday.num_days_from_sunday()),
        Unit::IsoDayOfWeek => f64::from(weekday.number_from_monday()),
        Unit::DayOfYear => f64::from(date.ordinal()),
        Unit::Hour => (of_day / 3_600_000_000) as f64,
        Unit::Minute => (of_day / 60_000_000 % 60) as f64,
        Unit::Second => (of_day % 60_000_000) as f64 / 1e6,
        Unit::Epoch => micros as f64 / 1e6,
    })
}

/// The start of the `unit` that the day lies in; for units of days only.
pub(super) fn truncate_date(unit: Unit, days: i32) -> Option<i32> {
    let date = date_of(days)?;
    let start = match unit {
        Unit::Year => NaiveDate::from_ymd_opt(date.year(), 1, 1)?,
        Unit::Quarter => NaiveDate::from_ymd_opt(date.year(), date.month0() / 3 * 3 + 1, 1)?,
        Unit::Month => date.with_day(1)?,
        Unit::Week => return days.checked_sub(days_from_monday(date)),
        _ => date,
    };
    Some(days_of(start))
}

fn days_from_monday(date: NaiveDate) -> i32 {
    i32::try_from(date.weekday().num_days_from_monday()).unwrap_or(0)
}

/// The start of the `unit` that the moment lies in.
pub(super) fn truncate_timestamp(unit: Unit, micros: i64) -> Option<i64> {
    let step = match unit {
        Unit::Hour => 3_600_000_000,
        Unit::Minute => 60_000_000,
        Unit::Second => 1_000_000,
        _ => {
            let days = i32::try_from(micros.div_euclid(MICROS_PER_DAY)).ok()?;
            return Some(i64::from(truncate_date(unit, days)?) * MICROS_PER_DAY);
        }
    };
    Some(micros - micros.rem_euclid(step))
}
