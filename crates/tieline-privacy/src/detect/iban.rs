//! International bank account numbers (ISO 13616): the state's length and remainder 1 by 97.

use super::checks::modulo_97;
use super::entity::Entity;
use super::text::{Candidate, Text};

/// The states of the registry with the lengths of their numbers.
const LENGTHS: &str = "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24\
    FI18FK18FO18FR27GB22GE22GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21\
    LY25MC27MD24ME22MK19MN20MR27MT31MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24\
    SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24XK20YE30";

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    out.extend(text.numbers.iter().filter_map(|number| at(text, number.start)));
}

/// An IBAN whose first digits begin at `digits`.
fn at(text: &Text<'_>, digits: usize) -> Option<Candidate> {
    let start = digits.checked_sub(2)?;
    let state = &text.bytes()[start..digits];
    if !state.iter().all(u8::is_ascii_alphabetic) || !text.begins(start) {
        return None;
    }
    let len = length(state)?;
    let mut signs = Vec::with_capacity(len);
    let mut end = start;
    let mut gap = 0;
    for (place, byte) in text.ahead(start, 2 * len).iter().enumerate() {
        if byte.is_ascii_alphanumeric() {
            signs.push(byte.to_ascii_uppercase());
            gap = 0;
        } else if matches!(byte, b' ' | b'-' | b'.') && gap == 0 {
            gap += 1;
        } else {
            break;
        }
        if signs.len() == len {
            end = start + place + 1;
            break;
        }
    }
    let good = end > start && text.ends(end) && is_iban(&signs);
    good.then_some(Candidate { range: start..end, entity: Entity::Iban })
}

fn length(state: &[u8]) -> Option<usize> {
    let mut states = LENGTHS.as_bytes().chunks(4);
    let entry = states.find(|entry| entry[..2].eq_ignore_ascii_case(state))?;
    std::str::from_utf8(&entry[2..]).ok()?.parse().ok()
}

fn is_iban(signs: &[u8]) -> bool {
    let (front, account) = signs.split_at(4);
    front[2..].iter().all(u8::is_ascii_digit)
        && modulo_97(account.iter().chain(front).copied()) == 1
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::Iban;

    #[test]
    fn accounts() {
        for iban in
            ["DE89 3704 0044 0532 0130 00", "GB29NWBK60161331926819", "nl91 abna 0417 1643 00"]
        {
            check(&format!("IBAN: {iban} (Bank)"), &[(Iban, iban)]);
        }
        check("DE88 3704 0044 0532 0130 00x", &[]);
    }

    #[test]
    fn the_registry_is_whole() {
        assert!(super::LENGTHS.len().is_multiple_of(4) && super::LENGTHS.len() > 4 * 75);
    }
}
