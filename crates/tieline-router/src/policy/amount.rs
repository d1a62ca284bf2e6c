//! Times as people write them.

use std::time::Duration;

/// A time: `500ms`, `2s`, `5m`, `1h`.
///
/// # Errors
/// What was expected, where it is none.
pub fn time(text: &str) -> Result<Duration, &'static str> {
    const WANTED: &str = "expected a time, such as \"500ms\", \"2s\", \"5m\" or \"1h\"";
    let split = text.find(|character: char| !character.is_ascii_digit()).ok_or(WANTED)?;
    let (number, unit) = text.split_at(split);
    let number: u32 = number.parse().map_err(|_| WANTED)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(WANTED),
    };
    Ok(Duration::from_millis(u64::from(number) * millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, want) in [("500ms", Some(500)), ("2s", Some(2000)), ("5m", Some(300_000))] {
            assert_eq!(time(text).ok(), want.map(Duration::from_millis));
        }
        for text in ["2", "s", "2 s", "-2s", "2d", ""] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
