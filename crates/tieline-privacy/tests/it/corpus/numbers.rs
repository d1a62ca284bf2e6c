//! Numbers with check digits, made from the states' own rules and not by the detectors' code.

use super::random::Random;

fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|sign| sign.to_digit(10)).collect()
}

fn weigh(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

/// `body` with the digit of Luhn.
pub(crate) fn luhn(body: &str) -> String {
    let sum: u32 = digits(body)
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| if place % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { *digit })
        .sum();
    format!("{body}{}", (10 - sum % 10) % 10)
}

/// An IBAN of this state and account.
pub(crate) fn iban(state: &str, account: &str) -> String {
    let mut rest = 0;
    for sign in account.chars().chain(state.chars()).chain("00".chars()) {
        let value = sign.to_digit(36).unwrap_or(0);
        rest = (rest * if value > 9 { 100 } else { 10 } + value) % 97;
    }
    format!("{state}{:02}{account}", 98 - rest)
}

/// In groups of these sizes, parted so.
pub(crate) fn grouped(text: &str, sizes: &[usize], between: &str) -> String {
    let mut signs = text.chars();
    let mut groups = Vec::new();
    for size in sizes.iter().cycle() {
        let group: String = signs.by_ref().take(*size).collect();
        if group.is_empty() {
            break;
        }
        groups.push(group);
    }
    groups.join(between)
}

/// A day of a month, as two pairs of digits: month and day.
fn day(random: &mut Random) -> (String, String) {
    (format!("{:02}", random.within(1, 12)), format!("{:02}", random.within(1, 28)))
}

/// A national number in the language's land, as people write it.
pub(crate) fn national(random: &mut Random, language: &str) -> String {
    match language {
        "de" => grouped(&steuer_id(random), &[2, 3, 3, 3], random.word("| ")),
        "fr" => nir(random),
        "es" => dni(random),
        "it" => codice_fiscale(random),
        "nl" => bsn(random),
        "pl" => pesel(random),
        "pt" => cpf(random),
        "sv" => personnummer(random),
        "tr" => turkish(random),
        "ru" => inn(random),
        "ja" => my_number(random),
        _ => match random.below(3) {
            0 => random.fill("4&#-&#-###&"),
            1 => random.fill("AB ## ## ## C"),
            _ => nhs(random),
        },
    }
}

/// Repeats until the rule is met.
fn until<T>(mut make: impl FnMut() -> Option<T>) -> T {
    loop {
        if let Some(made) = make() {
            return made;
        }
    }
}

fn nhs(random: &mut Random) -> String {
    until(|| {
        let body = random.fill("&########");
        let check = 11 - weigh(&digits(&body), &[10, 9, 8, 7, 6, 5, 4, 3, 2]) % 11;
        (check != 10).then(|| grouped(&format!("{body}{}", check % 11), &[3, 3, 4], " "))
    })
}

/// Ten different digits but one twice; then ISO 7064, MOD 11,10.
fn steuer_id(random: &mut Random) -> String {
    let body = until(|| {
        let body = random.fill("&#########");
        let twice =
            (b'0'..=b'9').filter(|digit| body.bytes().filter(|other| other == digit).count() == 2);
        let most =
            (b'0'..=b'9').map(|digit| body.bytes().filter(|other| *other == digit).count()).max();
        (twice.count() == 1 && most == Some(2)).then_some(body)
    });
    let mut product = 10;
    for digit in digits(&body) {
        let sum = (digit + product) % 10;
        product = if sum == 0 { 20 } else { 2 * sum } % 11;
    }
    format!("{body}{}", (11 - product) % 10)
}

fn nir(random: &mut Random) -> String {
    let (month, _) = day(random);
    let body =
        format!("{}{}{month}{}", 1 + random.below(2), random.fill("##"), random.fill("&#######"));
    let key = 97 - body.parse::<u64>().unwrap_or(0) % 97;
    let whole = format!("{body}{key:02}");
    if random.below(2) == 0 { whole } else { grouped(&whole, &[1, 2, 2, 2, 3, 3, 2], " ") }
}

fn dni(random: &mut Random) -> String {
    let body = random.fill("&#######");
    let letter = |body: &str| {
        let rest = body.parse::<usize>().unwrap_or(0) % 23;
        &"TRWAGMYFPDXBNJZSQVHLCKE"[rest..=rest]
    };
    match random.below(3) {
        0 => format!("{body}{}", letter(&body)),
        1 => format!("{body}-{}", letter(&body)),
        _ => {
            let body = random.fill("#######");
            format!("Y{body}{}", letter(&format!("1{body}")))
        }
    }
}

fn codice_fiscale(random: &mut Random) -> String {
    let month = random.pick(&["A", "B", "C", "D", "E", "H", "L", "M", "P", "R", "S", "T"]);
    let body = format!(
        "{}{month}{:02}H{}",
        random.fill("RSSMRA##"),
        random.within(1, 28),
        random.fill("###")
    );
    // The ministry's table for odd places; letters count like the digits of their place in the alphabet.
    const ODD: &str = "01000507091315171921020418201103060812141610222524 23";
    let odd: Vec<u32> = ODD
        .replace(' ', "")
        .as_bytes()
        .chunks(2)
        .map(|pair| u32::from(pair[0] - 48) * 10 + u32::from(pair[1] - 48))
        .collect();
    let worth =
        |sign: char| sign.to_digit(10).unwrap_or_else(|| sign.to_digit(36).unwrap_or(10) - 10);
    let sum: u32 = body
        .chars()
        .enumerate()
        .map(|(place, sign)| if place % 2 == 0 { odd[worth(sign) as usize] } else { worth(sign) })
        .sum();
    format!("{body}{}", char::from_digit(10 + sum % 26, 36).unwrap_or('a').to_ascii_uppercase())
}

fn bsn(random: &mut Random) -> String {
    until(|| {
        let body = random.fill("&#######");
        let check = weigh(&digits(&body), &[9, 8, 7, 6, 5, 4, 3, 2]) % 11;
        (check < 10).then(|| format!("{body}{check}"))
    })
}

fn pesel(random: &mut Random) -> String {
    let (month, day) = day(random);
    let body = format!("{}{month}{day}{}", random.fill("##"), random.fill("####"));
    let sum = weigh(&digits(&body), &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    format!("{body}{}", (10 - sum % 10) % 10)
}

fn cpf(random: &mut Random) -> String {
    let mut all = digits(&random.fill("&########"));
    for first in [10, 11] {
        let weights: Vec<u32> = (2..=first).rev().collect();
        let rest = weigh(&all, &weights) * 10 % 11 % 10;
        all.push(rest);
    }
    let all: String = all.iter().map(u32::to_string).collect();
    if random.below(3) == 0 {
        return all;
    }
    format!("{}-{}", grouped(&all[..9], &[3], "."), &all[9..])
}

fn personnummer(random: &mut Random) -> String {
    let (month, day) = day(random);
    let body = format!(
        "{}{month}{day}{}",
        random.fill("[##]").trim_matches(['[', ']']),
        random.fill("###")
    );
    let whole = luhn(&body);
    let century = random.word("|19");
    format!("{century}{}-{}", &whole[..6], &whole[6..])
}

fn turkish(random: &mut Random) -> String {
    let mut all = digits(&random.fill("&########"));
    let odd: u32 = all.iter().step_by(2).sum();
    let even: u32 = all.iter().skip(1).step_by(2).sum();
    all.push((7 * odd + 100 - even) % 10);
    all.push(all.iter().sum::<u32>() % 10);
    all.iter().map(u32::to_string).collect()
}

fn inn(random: &mut Random) -> String {
    let mut all = digits(&random.fill("&#########"));
    all.push(weigh(&all, &[7, 2, 4, 10, 3, 5, 9, 4, 6, 8]) % 11 % 10);
    all.push(weigh(&all, &[3, 7, 2, 4, 10, 3, 5, 9, 4, 6, 8]) % 11 % 10);
    all.iter().map(u32::to_string).collect()
}

fn my_number(random: &mut Random) -> String {
    let body = random.fill("&##########");
    let rest = weigh(&digits(&body), &[6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2]) % 11;
    let whole = format!("{body}{}", if rest < 2 { 0 } else { 11 - rest });
    if random.below(2) == 0 { whole } else { grouped(&whole, &[4], " ") }
}
