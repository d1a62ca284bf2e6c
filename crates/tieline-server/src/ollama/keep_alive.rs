//! How long a model stays: a number of seconds, or a duration as Go writes it.

use std::time::Duration;

use serde_json::Value;
use tieline_types::Keep;

use crate::error::ApiError;

/// What becomes of the model after the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum KeepAlive {
    /// As the server is set.
    #[default]
    Usual,
    /// It leaves at once.
    Unload,
    /// It stays so long.
    For(Duration),
    /// It stays.
    Forever,
}

impl KeepAlive {
    fn read(value: Option<&Value>) -> Result<Self, ApiError> {
        let seconds = match value {
            None | Some(Value::Null) => return Ok(Self::Usual),
            Some(Value::Number(number)) => number.as_f64(),
            Some(Value::String(text)) if text.is_empty() => return Ok(Self::Usual),
            Some(Value::String(text)) => seconds(text),
            Some(_) => None,
        };
        let bad = || {
            let text =
                "keep_alive is no duration: expected seconds, or such as \"5m\" or \"1h30m\"";
            ApiError::invalid("keep_alive", text)
        };
        Ok(Self::of(seconds.ok_or_else(bad)?))
    }

    /// What this caller may have: a guest's wish is ignored, and named among what was, since the model's time
    /// in memory is everybody's.
    pub(crate) fn of_caller(
        value: Option<&Value>,
        guest: bool,
        ignored: &mut Vec<String>,
    ) -> Result<Self, ApiError> {
        let wish = Self::read(value)?;
        if guest && wish != Self::Usual {
            ignored.push("keep_alive".to_owned());
            return Ok(Self::Usual);
        }
        Ok(wish)
    }

    fn of(seconds: f64) -> Self {
        match Duration::try_from_secs_f64(seconds) {
            Ok(Duration::ZERO) => Self::Unload,
            Ok(time) => Self::For(time),
            // Below zero, or more than a clock can count.
            Err(_) => Self::Forever,
        }
    }

    /// What the host is told. A model that is to leave does so when all that it answers is answered, also where the
    /// caller is gone before.
    pub(crate) fn keep(self) -> Option<Keep> {
        match self {
            Self::Usual => None,
            Self::Unload => Some(Keep::For(Duration::ZERO)),
            Self::For(time) => Some(Keep::For(time)),
            Self::Forever => Some(Keep::Forever),
        }
    }
}

/// The seconds of a Go duration: a sign, then numbers with units. A bare number is seconds.
fn seconds(text: &str) -> Option<f64> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'-' => (-1.0, &text[1..]),
        b'+' => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if !rest.is_empty() && is_number(rest) {
        return rest.parse().ok().map(|number: f64| sign * number);
    }
    let (mut rest, mut sum) = (rest, 0.0);
    loop {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, next) = split(after, |c| !c.is_ascii_digit() && c != '.');
        sum += number.parse::<f64>().ok()? * scale(unit)?;
        if next.is_empty() {
            return Some(sign * sum);
        }
        rest = next;
    }
}

fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

fn scale(unit: &str) -> Option<f64> {
    match unit {
        "ns" => Some(1e-9),
        "us" | "µs" | "μs" => Some(1e-6),
        "ms" => Some(1e-3),
        "s" => Some(1.0),
        "m" => Some(60.0),
        "h" => Some(3600.0),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(value: &Value, want: KeepAlive) {
        assert_eq!(KeepAlive::read(Some(value)).unwrap(), want, "{value}");
    }

    #[test]
    fn numbers_are_seconds_and_texts_are_go_durations() {
        let seconds = |seconds: u64| KeepAlive::For(Duration::from_secs(seconds));
        check(&json!(null), KeepAlive::Usual);
        check(&json!(""), KeepAlive::Usual);
        check(&json!(0), KeepAlive::Unload);
        check(&json!("0"), KeepAlive::Unload);
        check(&json!("0s"), KeepAlive::Unload);
        check(&json!(-1), KeepAlive::Forever);
        check(&json!("-1"), KeepAlive::Forever);
        check(&json!("-1m"), KeepAlive::Forever);
        check(&json!(1e300), KeepAlive::Forever);
        check(&json!(1800), seconds(1800));
        check(&json!("30"), seconds(30));
        check(&json!("5m"), seconds(300));
        check(&json!("1h30m"), seconds(5400));
        check(&json!("1h0m10s"), seconds(3610));
        check(&json!("1.5h"), seconds(5400));
        check(&json!("+2s"), seconds(2));
        check(&json!("1500ms"), KeepAlive::For(Duration::from_millis(1500)));
        check(&json!("3µs"), KeepAlive::For(Duration::from_micros(3)));
    }

    #[test]
    fn a_guest_moves_no_model() {
        let mut ignored = Vec::new();
        for value in [json!(0), json!(-1), json!("24h")] {
            let keep = KeepAlive::of_caller(Some(&value), true, &mut ignored);
            assert_eq!(keep.unwrap(), KeepAlive::Usual);
        }
        assert_eq!(ignored, ["keep_alive"; 3]);
        assert_eq!(KeepAlive::of_caller(None, true, &mut ignored).unwrap(), KeepAlive::Usual);
        let keep = KeepAlive::of_caller(Some(&json!(0)), false, &mut ignored);
        assert_eq!((keep.unwrap(), ignored.len()), (KeepAlive::Unload, 3));
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in ["m", "5", "5 m", "5x", "1h-3m", "--1s", "1..2s", ".", "-", "s5", "nan", "infs"]
        {
            let read = KeepAlive::read(Some(&json!(bad)));
            assert_eq!(read.is_ok(), bad == "5", "{bad}");
        }
        assert!(KeepAlive::read(Some(&json!([]))).is_err());
        assert!(KeepAlive::read(Some(&json!(true))).is_err());
    }
}
