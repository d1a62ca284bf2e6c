//! Check digits: small pure functions over ASCII digits.

/// The value of an ASCII digit; 0 for what is none.
pub(super) fn value(digit: u8) -> u32 {
    char::from(digit).to_digit(10).unwrap_or(0)
}

/// The value of ASCII digits, for at most 18 of them.
pub(super) fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(value(*digit)))
}

/// The sum of each digit times its weight.
pub(super) fn weighted(digits: &[u8], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| value(*digit) * weight).sum()
}

/// Whether the last digit is the check digit of Luhn (ISO/IEC 7812-1).
pub(super) fn luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let values = digits.iter().rev().map(|digit| value(*digit)).enumerate();
    let sum: u32 =
        values.map(|(place, digit)| if place % 2 == 1 { doubled(digit) } else { digit }).sum();
    sum.is_multiple_of(10)
}

/// The remainder of letters and digits by 97, letters counting from 10 (ISO 7064).
pub(super) fn modulo_97(signs: impl Iterator<Item = u8>) -> u32 {
    signs.fold(0, |rest, sign| match char::from(sign).to_digit(36) {
        Some(value) if value >= 10 => (rest * 100 + value) % 97,
        value => (rest * 10 + value.unwrap_or(0)) % 97,
    })
}

/// Whether the last digit is the check digit of Verhoeff.
pub(super) fn verhoeff(digits: &[u8]) -> bool {
    let rest = digits.iter().rev().enumerate().fold(0, |rest, (place, digit)| {
        let mut turned = value(*digit);
        for _ in 0..place % 8 {
            turned = value(b"1576283094"[turned as usize % 10]);
        }
        dihedral(rest, turned)
    });
    rest == 0
}

/// The product of two elements of the dihedral group of ten.
fn dihedral(one: u32, other: u32) -> u32 {
    match (one < 5, other < 5) {
        (true, true) => (one + other) % 5,
        (true, false) => (one + other - 5) % 5 + 5,
        (false, true) => (one - 5 + 5 - other) % 5 + 5,
        (false, false) => (one + 5 - other) % 5,
    }
}

/// Whether the last digit is the check digit of ISO 7064, MOD 11,10.
pub(super) fn modulo_11_10(digits: &[u8]) -> bool {
    let Some((last, body)) = digits.split_last() else { return false };
    let product = body.iter().fold(10, |product, digit| {
        let sum = (value(*digit) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    (11 - product) % 10 == value(*last)
}

/// Whether all digits are the same.
pub(super) fn is_uniform(digits: &[u8]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

/// Whether there is such a day in some year.
pub(super) fn is_day(month: u64, day: u64) -> bool {
    let longest = match month {
        2 => 29,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (1..=longest).contains(&day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_pass_and_their_neighbours_fail() {
        assert!(luhn(b"4111111111111111") && !luhn(b"4111111111111112"));
        assert!(verhoeff(b"2363") && !verhoeff(b"2364") && verhoeff(b"123451"));
        assert!(modulo_11_10(b"86095742719") && !modulo_11_10(b"86095742718"));
        assert_eq!(modulo_97(b"370400440532013000DE89".iter().copied()), 1);
    }

    #[test]
    fn verhoeff_notices_every_single_change_and_swap() {
        let mut digits = *b"123451";
        for place in 0..digits.len() {
            for digit in b'0'..=b'9' {
                let before = std::mem::replace(&mut digits[place], digit);
                assert_eq!(verhoeff(&digits), digit == before);
                digits[place] = before;
            }
        }
        digits.swap(1, 2);
        assert!(!verhoeff(&digits));
    }

    #[test]
    fn days() {
        assert!(
            is_day(2, 29) && !is_day(2, 30) && !is_day(13, 1) && !is_day(4, 31) && !is_day(1, 0)
        );
    }
}
