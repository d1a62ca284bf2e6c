//! Reads an amount of money exactly: never through a floating-point number.

use tieline_types::MicroUsd;

/// Text that is no amount of money.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no amount of dollars: expected digits, at most six of them after a point, such as 2.50"
)]
pub struct NoAmount {
    /// The text.
    pub text: String,
}

/// Reads dollars, such as `2.50`, exactly.
///
/// # Errors
/// It is below zero, has more than six decimals, or is no such number.
pub fn parse_usd(text: &str) -> Result<MicroUsd, NoAmount> {
    exact(text).map(MicroUsd).ok_or_else(|| NoAmount { text: text.chars().take(40).collect() })
}

fn exact(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
        return None;
    }
    let micros: i64 = format!("{fraction:0<6}").parse().ok()?;
    whole.parse::<i64>().ok()?.checked_mul(1_000_000)?.checked_add(micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dollars_are_read_to_the_micro_dollar() {
        let check =
            |text: &str, want: i64| assert_eq!(parse_usd(text), Ok(MicroUsd(want)), "{text}");
        check("0", 0);
        check("2.50", 2_500_000);
        check("0.0375", 37_500);
        check("0.000001", 1);
        check("15", 15_000_000);
        check("9223372036854.775807", i64::MAX);
        for text in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000001", " 1", "9223372036855"]
        {
            assert!(parse_usd(text).is_err(), "{text}");
        }
    }
}
