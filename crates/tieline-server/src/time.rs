//! Points in time, as dialects write them.

use jiff::Timestamp;

/// Seconds since 1970 as RFC 3339 in UTC. What lies outside the calendar is 1970.
pub(crate) fn rfc3339(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_utc_with_a_z() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(1_790_000_000), "2026-09-21T14:13:20Z");
        assert_eq!(rfc3339(i64::MAX), "1970-01-01T00:00:00Z");
    }
}
