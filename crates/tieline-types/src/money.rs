//! Money, and what an answer costs.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Usage;

/// Millionths of a US dollar. An integer: sums of money are exact.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MicroUsd(pub i64);

impl MicroUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let all = self.0.unsigned_abs();
        let fraction = format!("{:06}", all % 1_000_000);
        // Two decimals at least, as money is written; more where there is more.
        let kept = fraction.trim_end_matches('0').len().max(2);
        write!(f, "{sign}${}.{}", all / 1_000_000, &fraction[..kept])
    }
}

/// A text that is no money that can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotMoney {
    /// It is no decimal number of zero or more.
    #[error("expected dollars, such as 2.50 or \"0.000001\"")]
    Form,
    /// It has more than six decimals.
    #[error("money counts in millionths of a dollar: six decimals at most")]
    TooFine,
    /// It is more than can be counted.
    #[error("so much money is not counted")]
    TooMuch,
}

impl FromStr for MicroUsd {
    type Err = NotMoney;

    /// Dollars from decimal digits, exactly: `0.1` is 100,000 millionths. No float is ever made of it.
    fn from_str(text: &str) -> Result<Self, NotMoney> {
        let bare = text.strip_prefix('$').unwrap_or(text);
        let (whole, fraction) = bare.split_once('.').unwrap_or((bare, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(NotMoney::Form);
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 6 {
            return Err(NotMoney::TooFine);
        }
        let whole: i64 = whole.parse().map_err(|_| NotMoney::TooMuch)?;
        let fraction: i64 = format!("{fraction:0<6}").parse().map_err(|_| NotMoney::Form)?;
        let micros = whole.checked_mul(1_000_000).and_then(|micros| micros.checked_add(fraction));
        micros.map(Self).ok_or(NotMoney::TooMuch)
    }
}

impl Add for MicroUsd {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for MicroUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for MicroUsd {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

/// What a vendor asks for, each for a million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Tokens read that were not cached.
    pub input: MicroUsd,
    /// Tokens read from the vendor's cache.
    pub cached_input: MicroUsd,
    /// Tokens read and written to the vendor's cache.
    pub cache_write: MicroUsd,
    /// Tokens written, those of thoughts among them.
    pub output: MicroUsd,
    /// For each request, whatever its length.
    pub request: MicroUsd,
}

impl Price {
    /// What an answer costs: `(fresh·input + cached·cached_input + written·cache_write + completion·output)
    /// ÷ 10⁶`, rounded half up once, and the price of the request. Fresh are the prompt's tokens that were
    /// neither read from the vendor's cache nor written to it.
    pub fn cost(&self, usage: &Usage) -> MicroUsd {
        let prompt = i128::from(usage.prompt_tokens.0);
        let cached = i128::from(usage.cached_tokens.0).min(prompt);
        let written = i128::from(usage.cache_write_tokens.0).min(prompt - cached);
        let of = |tokens: i128, price: MicroUsd| tokens * i128::from(price.0);
        let sum = of(prompt - cached - written, self.input)
            + of(cached, self.cached_input)
            + of(written, self.cache_write)
            + of(i128::from(usage.completion_tokens.0), self.output);
        let rounded = (sum + 500_000).div_euclid(1_000_000);
        MicroUsd(i64::try_from(rounded).unwrap_or(i64::MAX)) + self.request
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tokens;

    const PRICE: Price = Price {
        input: MicroUsd(3_000_000),
        cached_input: MicroUsd(300_000),
        cache_write: MicroUsd(3_750_000),
        output: MicroUsd(15_000_000),
        request: MicroUsd::ZERO,
    };

    fn usage(prompt: u32, cached: u32, written: u32, completion: u32) -> Usage {
        Usage {
            prompt_tokens: Tokens(prompt),
            cached_tokens: Tokens(cached),
            cache_write_tokens: Tokens(written),
            completion_tokens: Tokens(completion),
            ..Usage::default()
        }
    }

    #[track_caller]
    fn check(usage: Usage, want: i64) {
        assert_eq!(PRICE.cost(&usage), MicroUsd(want));
    }

    #[test]
    fn each_kind_of_token_has_its_price_and_none_is_paid_twice() {
        check(usage(1000, 0, 0, 100), 4500);
        check(usage(1000, 1000, 0, 0), 300);
        check(usage(1000, 400, 600, 0), 120 + 2250);
        // A vendor that claims more cached tokens than there were.
        check(usage(1000, 5000, 5000, 0), 300);
    }

    #[test]
    fn rounded_once_and_half_up() {
        check(usage(0, 0, 0, 0), 0);
        // 0.3 + 0.3 would be 0 each; 1.5 is 2.
        check(usage(1, 1, 0, 0), 0);
        check(usage(5, 5, 0, 0), 2);
    }

    #[test]
    fn money_is_written_as_people_write_it() {
        for (micros, want) in [
            (0, "$0.00"),
            (1, "$0.000001"),
            (1_500_000, "$1.50"),
            (-2_340_000, "-$2.34"),
            (i64::MIN, "-$9223372036854.775808"),
        ] {
            assert_eq!(MicroUsd(micros).to_string(), want);
        }
    }

    #[test]
    fn money_is_read_exactly_or_not_at_all() {
        let read = |text: &str, want: i64| assert_eq!(text.parse(), Ok(MicroUsd(want)), "{text}");
        read("0", 0);
        read("0.1", 100_000);
        read("2.50", 2_500_000);
        read("$12", 12_000_000);
        read("0.000001", 1);
        read("1.0000000", 1_000_000);
        read("9007199254.740993", 9_007_199_254_740_993);
        read("9223372036854.775807", i64::MAX);
        for (text, want) in [
            ("", NotMoney::Form),
            (".", NotMoney::Form),
            ("1.", NotMoney::Form),
            (".5", NotMoney::Form),
            ("-1", NotMoney::Form),
            ("+1", NotMoney::Form),
            ("1e3", NotMoney::Form),
            ("1,5", NotMoney::Form),
            (" 1", NotMoney::Form),
            ("0.0000001", NotMoney::TooFine),
            ("9223372036855", NotMoney::TooMuch),
        ] {
            assert_eq!(text.parse::<MicroUsd>(), Err(want), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(micros in 0..i64::MAX) {
            let written = MicroUsd(micros).to_string();
            proptest::prop_assert_eq!(written.parse(), Ok(MicroUsd(micros)));
        }
    }
}
