//! Values of every kind of personal text that are found nowhere else.

/// A value that must not be seen by others.
#[derive(Clone, Debug)]
pub struct Canary {
    /// What it is, in the detectors' word.
    pub kind: &'static str,
    /// The sentence that it stands in.
    pub sentence: String,
    /// What nobody else may see of it.
    pub secret: String,
}

/// The detectors' words for all kinds.
pub const KINDS: [&str; 19] = [
    "email",
    "phone",
    "card",
    "iban",
    "national_id",
    "ip_address",
    "mac_address",
    "coordinates",
    "postal_address",
    "birth_date",
    "credential_url",
    "private_key",
    "jwt",
    "api_key",
    "secret",
    "connection_string",
    "term",
    "path",
    "git_identity",
];

/// So many canaries, all kinds in turn.
pub fn canaries(count: usize) -> Vec<Canary> {
    let kinds = KINDS.iter().cycle();
    kinds.take(count).enumerate().map(|(at, kind)| canary(kind, 1000 + at)).collect()
}

/// Those of them that are words of the user's dictionary.
pub fn terms(canaries: &[Canary]) -> Vec<String> {
    let terms = canaries.iter().filter(|canary| canary.kind == "term");
    terms.map(|canary| canary.secret.clone()).collect()
}

fn canary(kind: &'static str, number: usize) -> Canary {
    let (before, secret, after) = parts(kind, number);
    Canary { kind, sentence: format!("{before}{secret}{after}"), secret }
}

/// A value, and what stands before and after it. `number` has four digits.
fn parts(kind: &str, number: usize) -> (&'static str, String, &'static str) {
    match kind {
        "email" => ("write to ", format!("anna{number}@post{number}.org"), " soon"),
        "phone" => ("call ", format!("+49 30 9018 {number}"), " today"),
        "card" => ("card ", luhn(&format!("41111111111{number}")), ", exp 12/29"),
        "iban" => ("IBAN: ", iban(number), " (bank)"),
        "national_id" => ("SSN: ", format!("536-22-{number}"), ","),
        "ip_address" => ("from ", format!("10.77.{}.{}", number / 100, number % 100 + 1), " today"),
        "mac_address" => {
            ("mac ", format!("00:1a:2b:3c:{}:{}", number / 100, 10 + number % 90), " up")
        }
        "coordinates" => ("at ", format!("52.{number}° N, 13.{number}° E"), " now"),
        "postal_address" => ("at ", format!("Hauptstraße {number}, 10115 Berlin"), " now"),
        "birth_date" => {
            ("born on ", format!("March {}, {}", number % 28 + 1, 900 + number), " in Rome")
        }
        "credential_url" => ("get ", format!("https://bob:pa55w{number}rd@host.org/x"), " now"),
        "private_key" => {
            ("-----BEGIN PRIVATE KEY-----\n", key(number), "\n-----END PRIVATE KEY-----")
        }
        "jwt" => ("token ", jwt(number), ","),
        "api_key" => (
            "key ",
            format!("sk-ant-api03-Qx7Lw9{number}Zr4Tb8Vn2Mk6Hj3Pd5Gs1Fy0Uc{number}-AA"),
            ".",
        ),
        "secret" => ("password: ", format!("Tr0ub4dor&{number}x"), ", ok"),
        "connection_string" => {
            ("dsn: ", format!("postgres://app:s3cr3t{number}@db.host.org/app"), " ok")
        }
        "term" => ("about ", format!("Zebulon{number}"), " then"),
        "path" => ("open /home/", format!("canary{number}"), "/src/x.rs"),
        "git_identity" => ("Author: ", format!("Jane Roe <jane{number}@roe.org>"), "\nDate:"),
        other => crate::fail(&format!("no canary of {other:?}")),
    }
}

fn key(number: usize) -> String {
    format!("MIIEvQIBADANBgkqhkiG9w0BAQEFAASC{number}\nBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj{number}")
}

fn jwt(number: usize) -> String {
    // {"alg":"HS256","typ":"JWT"}
    let header = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
    format!(
        "{header}.eyJzdWIiOiIxMjM0NTY3ODkwIn{number}.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0T{number}"
    )
}

fn luhn(digits: &str) -> String {
    let sum: u32 = (0_u32..)
        .zip(digits.bytes().rev())
        .map(|(at, digit)| {
            let digit = u32::from(digit - b'0') * (2 - at % 2);
            digit / 10 + digit % 10
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn iban(number: usize) -> String {
    let account = format!("37040044053201{number}");
    // DE00 in figures stands after the account.
    let rest = format!("{account}131400")
        .bytes()
        .fold(0, |rest, digit| (rest * 10 + u64::from(digit - b'0')) % 97);
    format!("DE{:02}{account}", 98 - rest)
}

/// JSON as Python writes it: all that is not ASCII escaped.
pub fn ascii(json: &str) -> String {
    json.chars().fold(String::new(), |mut out, unit| {
        match unit.is_ascii() {
            true => out.push(unit),
            false => out.push_str(&format!("\\u{:04x}", u32::from(unit))),
        }
        out
    })
}
