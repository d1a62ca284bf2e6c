//! The rules of each state, over letters and digits without what parts them.

use super::super::checks::{
    is_day, is_uniform, luhn, modulo_11_10, number, value, verhoeff, weighted,
};
use super::super::cue::State;
use super::{Rule, rule};

/// All rules. Forms without a word are ones that hardly anything else has.
pub(super) const ALL: &[Rule] = &[
    rule("ddd-dd-dddd", None, ssn),
    rule("ddd~dd~dddd", Some(State::Ssn), ssn),
    rule("AAddddddA", None, nino),
    rule("AA dd dd dd A", None, nino),
    rule("AAdd dd dd A", None, nino),
    rule("ddd~ddd~dddd", Some(State::Nhs), nhs),
    rule("d~dd~dd~dX~ddd~ddd~dd", None, nir),
    rule("d~dd~dd~dX~ddd~ddd", Some(State::Nir), nir_without_key),
    rule("dd ddd ddd ddd", None, steuer_id),
    rule("dd~ddd~ddd~ddd", Some(State::SteuerId), steuer_id),
    rule("ddddddddA", None, dni),
    rule("dddddddd-A", None, dni),
    rule("dddddddd A", Some(State::Dni), dni),
    rule("dd.ddd.ddd-A", None, dni),
    rule("dd.ddd.dddA", None, dni),
    rule("AdddddddA", None, nie),
    rule("A-ddddddd-A", None, nie),
    rule("AdddddddX", Some(State::Dni), nie),
    rule("AAAAAAXXAXXAXXXA", None, codice_fiscale),
    rule("ddddddddd", Some(State::Bsn), bsn),
    rule("dddd.dd.ddd", Some(State::Bsn), bsn),
    rule("ddd~ddd~ddd", Some(State::Bsn), bsn),
    rule("dd.dd.dd-ddd.dd", None, belgian),
    rule("dd~dd~dd~ddd~dd", Some(State::Belgian), belgian),
    rule("ddddddddddd", Some(State::Pesel), pesel),
    rule("ddd.ddd.ddd-dd", None, cpf),
    rule("ddd~ddd~ddd~dd", Some(State::Cpf), cpf),
    rule("dd.ddd.ddd/dddd-dd", None, cnpj),
    rule("dd~ddd~ddd~dddd~dd", Some(State::Cnpj), cnpj),
    rule("dddd~dddd~dddd", Some(State::Aadhaar), aadhaar),
    rule("AAAAAddddA", Some(State::Pan), pan),
    rule("dddddd-dddd", None, personnummer),
    rule("dddddddd-dddd", None, personnummer),
    rule("dddddd+dddd", None, personnummer),
    rule("dddddddddd", Some(State::Personnummer), personnummer),
    rule("dddddddddddd", Some(State::Personnummer), personnummer),
    rule("ddddddddddd", Some(State::Turkish), turkish),
    rule("ddd~ddd~ddd", Some(State::Nif), nif),
    rule("ddd~ddd~ddd", Some(State::Sin), sin),
    rule("756.dddd.dddd.dd", None, swiss),
    rule("dddddd-dddX", None, finnish),
    rule("ddddddAdddX", None, finnish),
    rule("dddddddddddddddddX", None, chinese),
    rule("dddd~dddd~dddd", Some(State::MyNumber), my_number),
    rule("ddd-ddd-ddd dd", None, snils),
    rule("dddddddddddd", Some(State::Inn), inn),
    rule("ddd~ddd~ddd~dd", Some(State::Inn), snils),
    rule("dddddd~dddd", Some(State::Danish), danish),
    rule("dddddd~ddddd", Some(State::Danish), norwegian),
];

/// United States: areas, groups and serials that were never given.
fn ssn(code: &[u8]) -> bool {
    let area = number(&code[..3]);
    let sample = matches!(code, b"078051120" | b"219099999" | b"123456789");
    !matches!(area, 0 | 666 | 900..)
        && number(&code[3..5]) != 0
        && number(&code[5..]) != 0
        && !sample
}

/// United Kingdom: prefixes that are given, suffix A to D.
fn nino(code: &[u8]) -> bool {
    let barred = matches!(&code[..2], b"BG" | b"GB" | b"NK" | b"KN" | b"TN" | b"NT" | b"ZZ");
    let first = !matches!(code[0], b'D' | b'F' | b'I' | b'Q' | b'U' | b'V');
    let second = !matches!(code[1], b'D' | b'F' | b'I' | b'Q' | b'U' | b'V' | b'O');
    !barred && first && second && matches!(code[8], b'A'..=b'D')
}

/// National Health Service: modulo 11.
fn nhs(code: &[u8]) -> bool {
    let rest = 11 - weighted(&code[..9], &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    rest % 11 == value(code[9]) && rest != 10 && !is_uniform(code)
}

/// France: sex, month, department, and the key of 97.
fn nir(code: &[u8]) -> bool {
    let body = nir_value(&code[..13]);
    nir_without_key(&code[..13]) && body.is_some_and(|body| 97 - body % 97 == number(&code[13..]))
}

fn nir_without_key(code: &[u8]) -> bool {
    let month = number(&code[3..5]);
    let is_month = matches!(month, 1..=12 | 20..=42 | 50..=99);
    matches!(code[0], b'1'..=b'4' | b'7' | b'8') && is_month && nir_value(code).is_some()
}

/// The number, with Corsica's letters as the key counts them.
fn nir_value(code: &[u8]) -> Option<u64> {
    let mut digits = [0; 13];
    digits.copy_from_slice(code.get(..13)?);
    let less = match (digits[5], digits[6]) {
        (_, b'0'..=b'9') => 0,
        (b'2', b'A') => 1_000_000,
        (b'2', b'B') => 2_000_000,
        _ => return None,
    };
    if less > 0 {
        digits[6] = b'0';
    }
    number(&digits).checked_sub(less)
}

/// Germany: MOD 11,10; among the first ten digits one stands twice or thrice, and only one.
fn steuer_id(code: &[u8]) -> bool {
    let mut counts = [0_u8; 10];
    for digit in &code[..10] {
        counts[usize::from(digit - b'0')] += 1;
    }
    let repeated = counts.iter().filter(|count| **count > 1).count();
    let good = repeated == 1 && counts.iter().all(|count| *count <= 3);
    code[0] != b'0' && good && modulo_11_10(code)
}

/// Spain: the letter that stands for the remainder by 23.
fn dni(code: &[u8]) -> bool {
    let rest = number(&code[..8]) % 23;
    usize::try_from(rest).is_ok_and(|rest| b"TRWAGMYFPDXBNJZSQVHLCKE"[rest] == code[8])
}

/// Spain's number for foreigners: X, Y and Z count as 0, 1 and 2.
fn nie(code: &[u8]) -> bool {
    let Some(first) = b"XYZ".iter().position(|letter| *letter == code[0]) else { return false };
    let mut digits = [0; 9];
    digits.copy_from_slice(&code[..9]);
    digits[0] = b"012"[first];
    digits[8].is_ascii_uppercase() && dni(&digits)
}

/// Italy: letters of the name, date, place, and the check letter; places of digits may hold their substitutes.
fn codice_fiscale(code: &[u8]) -> bool {
    const ODD: [u32; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let digit_like =
        |place: usize| code[place].is_ascii_digit() || b"LMNPQRSTUV".contains(&code[place]);
    let places = [6, 7, 9, 10, 12, 13, 14].into_iter().all(digit_like);
    let worth = |sign: u8| if sign.is_ascii_digit() { sign - b'0' } else { sign - b'A' };
    let sum: u32 = code[..15]
        .iter()
        .enumerate()
        .map(|(place, sign)| match place % 2 {
            0 => ODD[usize::from(worth(*sign))],
            _ => u32::from(worth(*sign)),
        })
        .sum();
    let month = b"ABCDEHLMPRST".contains(&code[8]);
    places && month && sum % 26 == u32::from(worth(code[15])) && code[15].is_ascii_uppercase()
}

/// Netherlands: the test of eleven.
fn bsn(code: &[u8]) -> bool {
    let sum = weighted(&code[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    sum % 11 == value(code[8]) && number(code) > 0 && !is_uniform(code)
}

/// Belgium: 97 less the remainder, with a 2 before those born since 2000.
fn belgian(code: &[u8]) -> bool {
    let body = number(&code[..9]);
    let key = number(&code[9..]);
    let month = number(&code[2..4]);
    matches!(month % 20, 0..=12)
        && [body, body + 2_000_000_000].iter().any(|body| 97 - body % 97 == key)
}

/// Poland: a date whose month holds the century, and weights.
fn pesel(code: &[u8]) -> bool {
    let sum = weighted(&code[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    is_day(number(&code[2..4]) % 20, number(&code[4..6])) && (10 - sum % 10) % 10 == value(code[10])
}

/// One of Brazil's check digits.
fn brazilian(digits: &[u8], weights: &[u32]) -> u32 {
    let rest = weighted(digits, weights) % 11;
    if rest < 2 { 0 } else { 11 - rest }
}

/// Brazil, persons.
fn cpf(code: &[u8]) -> bool {
    const WEIGHTS: [u32; 10] = [11, 10, 9, 8, 7, 6, 5, 4, 3, 2];
    !is_uniform(code)
        && brazilian(&code[..9], &WEIGHTS[1..]) == value(code[9])
        && brazilian(&code[..10], &WEIGHTS) == value(code[10])
}

/// Brazil, firms.
fn cnpj(code: &[u8]) -> bool {
    const WEIGHTS: [u32; 13] = [6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2];
    !is_uniform(code)
        && brazilian(&code[..12], &WEIGHTS[1..]) == value(code[12])
        && brazilian(&code[..13], &WEIGHTS) == value(code[13])
}

/// India: Verhoeff; begins with neither 0 nor 1.
fn aadhaar(code: &[u8]) -> bool {
    code[0] >= b'2' && verhoeff(code) && !is_uniform(code)
}

/// India's tax number: the fourth letter tells the kind of holder.
fn pan(code: &[u8]) -> bool {
    b"ABCFGHLJPT".contains(&code[3])
}

/// Sweden: a date (days of coordination numbers are 60 more) and Luhn.
fn personnummer(code: &[u8]) -> bool {
    let short = &code[code.len() - 10..];
    let century = code.len() == 10 || matches!(&code[..2], b"18" | b"19" | b"20");
    let day = number(&short[4..6]);
    let day = if day > 60 { day - 60 } else { day };
    century && is_day(number(&short[2..4]), day) && luhn(short)
}

/// Turkey: two check digits.
fn turkish(code: &[u8]) -> bool {
    let odd = weighted(&code[..9], &[1, 0, 1, 0, 1, 0, 1, 0, 1]);
    let even = weighted(&code[..8], &[0, 1, 0, 1, 0, 1, 0, 1]);
    let tenth = (7 * odd + 9 * even) % 10;
    let last = (odd + even + value(code[9])) % 10;
    code[0] != b'0' && tenth == value(code[9]) && last == value(code[10])
}

/// Portugal: modulo 11.
fn nif(code: &[u8]) -> bool {
    let rest = weighted(&code[..8], &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
    let check = if rest < 2 { 0 } else { 11 - rest };
    check == value(code[8]) && !matches!(code[0], b'0' | b'4')
}

/// Canada: Luhn.
fn sin(code: &[u8]) -> bool {
    luhn(code) && code[0] != b'8' && !is_uniform(code)
}

/// Switzerland: the check digit of EAN-13.
fn swiss(code: &[u8]) -> bool {
    let sum = weighted(&code[..12], &[1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3]);
    (10 - sum % 10) % 10 == value(code[12])
}

/// Finland: a date, a century's sign, and the sign of the remainder by 31.
fn finnish(code: &[u8]) -> bool {
    let serial = &code[code.len() - 4..];
    let century = code.len() == 10 || b"ABCDEFYXWVU".contains(&code[6]);
    let rest = number(&code[..6]) * 1000 + number(&serial[..3]);
    let check =
        usize::try_from(rest % 31).ok().map(|rest| b"0123456789ABCDEFHJKLMNPRSTUVWXY"[rest]);
    let digits = serial[..3].iter().all(u8::is_ascii_digit);
    century && digits && is_day(number(&code[2..4]), number(&code[..2])) && check == Some(serial[3])
}

/// China: a date and ISO 7064, MOD 11-2.
fn chinese(code: &[u8]) -> bool {
    let sum = weighted(&code[..17], &[7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]);
    let year = number(&code[6..10]);
    let check = b"10X98765432"[usize::try_from(sum % 11).unwrap_or(0)];
    (1900..2100).contains(&year)
        && is_day(number(&code[10..12]), number(&code[12..14]))
        && check == code[17]
}

/// Japan: modulo 11.
fn my_number(code: &[u8]) -> bool {
    let rest = weighted(&code[..11], &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    (if rest < 2 { 0 } else { 11 - rest }) == value(code[11])
}

/// Russia's insurance number.
fn snils(code: &[u8]) -> bool {
    let sum = weighted(&code[..9], &[9, 8, 7, 6, 5, 4, 3, 2, 1]) % 101 % 100;
    u64::from(sum) == number(&code[9..]) && number(&code[..9]) > 1_001_998
}

/// Russia's tax number of persons.
fn inn(code: &[u8]) -> bool {
    let tenth = weighted(&code[..10], &[7, 2, 4, 10, 3, 5, 9, 4, 6, 8]) % 11 % 10;
    let last = weighted(&code[..11], &[3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8]) % 11 % 10;
    tenth == value(code[10]) && last == value(code[11])
}

/// Denmark: a date; the check digit is not kept since 2007.
fn danish(code: &[u8]) -> bool {
    is_day(number(&code[2..4]), number(&code[..2]))
}

/// Norway: a date and two check digits.
fn norwegian(code: &[u8]) -> bool {
    let first = weighted(&code[..10], &[3, 7, 6, 1, 8, 9, 4, 5, 2, 1]) % 11;
    let second = weighted(code, &[5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1]) % 11;
    first == 0 && second == 0 && is_day(number(&code[2..4]), number(&code[..2]))
}
