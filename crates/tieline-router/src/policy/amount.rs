//! Amounts as people write them: dollars and times.

use std::time::Duration;

use tieline_types::MicroUsd;

/// Dollars from decimal digits, exactly: `0.1` is 100,000 millionths. No float is ever made of it.
pub(super) fn dollars(text: &str) -> Result<MicroUsd, &'static str> {
    const WANTED: &str = "expected dollars, such as 2.50 or \"0.000001\"";
    let bare = text.strip_prefix('$').unwrap_or(text);
    let (whole, fraction) = bare.split_once('.').unwrap_or((bare, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) || bare.ends_with('.') {
        return Err(WANTED);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 6 {
        return Err("money counts in millionths of a dollar: six decimals at most");
    }
    let whole: i64 = whole.parse().map_err(|_| "so much money is not counted")?;
    let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| WANTED)?;
    whole
        .checked_mul(1_000_000)
        .and_then(|micros| micros.checked_add(fraction))
        .map(MicroUsd)
        .ok_or("so much money is not counted")
}

/// A time: `500ms`, `2s`, `5m`, `1h`.
pub(super) fn time(text: &str) -> Result<Duration, &'static str> {
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
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: Option<i64>) {
        assert_eq!(dollars(text).ok(), want.map(MicroUsd), "{text}");
    }

    #[test]
    fn money_is_exact() {
        check("0.1", Some(100_000));
        check("0.30", Some(300_000));
        check("$12", Some(12_000_000));
        check("0.000001", Some(1));
        check("1.0000000", Some(1_000_000));
        check("9007199254.740993", Some(9_007_199_254_740_993));
        check("0.0000001", None);
        check("1e3", None);
        check("-1", None);
        check("", None);
        check("1.", None);
        check(".5", None);
        check("99999999999999", None);
    }

    #[test]
    fn times_have_units() {
        for (text, want) in [("500ms", Some(500)), ("2s", Some(2000)), ("5m", Some(300_000))] {
            assert_eq!(time(text).ok(), want.map(Duration::from_millis));
        }
        for text in ["2", "s", "2 s", "-2s", "2d", ""] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_money_says_is_what_is_read(micros in 0..i64::MAX) {
            prop_assert_eq!(dollars(&MicroUsd(micros).to_string()), Ok(MicroUsd(micros)));
        }
    }
}
