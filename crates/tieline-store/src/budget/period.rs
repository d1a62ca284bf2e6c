//! How long a limit is for. Days and months are those of UTC: a limit must not move with a laptop.

use jiff::{Timestamp, tz::TimeZone};

/// How long a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Period {
    /// A day of UTC.
    Day,
    /// A month of UTC.
    Month,
    /// For ever.
    Total,
}

impl Period {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Day, Self::Month, Self::Total];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    pub(super) fn phrase(self) -> &'static str {
        match self {
            Self::Day => "a day",
            Self::Month => "a month",
            Self::Total => "in all",
        }
    }

    /// The period's name at a time: `2026-11-28`, `2026-11`, `total`. A time that no calendar has is of the first one.
    pub fn name(self, at_unix_s: i64) -> String {
        let format = match self {
            Self::Day => "%Y-%m-%d",
            Self::Month => "%Y-%m",
            Self::Total => return "total".to_owned(),
        };
        let at = Timestamp::from_second(at_unix_s).unwrap_or_default();
        at.to_zoned(TimeZone::UTC).strftime(format).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_ends_at_midnight_of_utc() {
        let check = |at, day: &str, month: &str| {
            assert_eq!(Period::Day.name(at), day);
            assert_eq!(Period::Month.name(at), month);
            assert_eq!(Period::Total.name(at), "total");
        };
        check(0, "1970-01-01", "1970-01");
        check(951_782_399, "2000-02-28", "2000-02");
        check(951_782_400, "2000-02-29", "2000-02");
        check(1_796_083_199, "2026-11-30", "2026-11");
        check(1_796_083_200, "2026-12-01", "2026-12");
        check(i64::MAX, "1970-01-01", "1970-01");
    }
}
