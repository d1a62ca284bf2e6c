//! Times as Ollama writes them.

use std::time::Duration;

use jiff::Timestamp;

/// The latest time that nanoseconds in 64 bits reach: some clients count so. Stands for "never".
const NEVER: &str = "2262-04-11T23:47:16Z";

pub(crate) fn now() -> String {
    Timestamp::now().to_string()
}

/// A time in seconds since 1970.
pub(crate) fn at(unix_s: i64) -> String {
    Timestamp::from_second(unix_s).unwrap_or_default().to_string()
}

/// So long from now.
pub(crate) fn after(wait: Option<Duration>) -> String {
    let end = wait.and_then(|wait| Timestamp::now().checked_add(wait).ok());
    end.map(|end| end.to_string())
        .filter(|end| end.as_str() < NEVER)
        .unwrap_or_else(|| NEVER.to_owned())
}

/// Whole nanoseconds.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(at(1_790_000_000), "2026-09-21T14:13:20Z");
        assert_eq!(at(i64::MAX), "1970-01-01T00:00:00Z");
        assert!(now().ends_with('Z') && after(Some(Duration::from_secs(5))).ends_with('Z'));
    }

    #[test]
    fn what_is_very_far_is_never() {
        assert_eq!(after(None), NEVER);
        assert_eq!(after(Some(Duration::MAX)), NEVER);
        assert_eq!(after(Some(Duration::from_secs(10_000_000_000))), NEVER);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }
}
