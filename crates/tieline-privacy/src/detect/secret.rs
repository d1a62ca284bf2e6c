//! Values beside words such as *password* and *token*.

use super::cue::{Cue, Hit};
use super::entity::Entity;
use super::text::{Candidate, Text};

/// The longest value that is looked at, in bytes.
const LONGEST: usize = 512;

/// How a value is bound to its word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bond {
    /// `=` without blanks, as in environments and queries.
    Tight,
    /// `:`, `=`, `=>`.
    Sign,
    /// `is`, `est`, `lautet`, or a blank alone.
    Word,
}

/// Words that bind.
const WORDS: [&str; 24] = [
    "is now",
    "is still",
    "is",
    "was",
    "ist jetzt",
    "ist",
    "lautet",
    "est",
    "es",
    "è",
    "é",
    "jest",
    "to",
    "auf",
    "on",
    "är",
    "は",
    "是",
    "это",
    "heißt",
    "são",
    "it's",
    "would be",
    "now",
];

pub(super) fn find(text: &Text<'_>, out: &mut Vec<Candidate>) {
    for hit in &text.hits {
        if matches!(hit.cue, Cue::Password | Cue::Token) {
            out.extend(value(text, *hit));
        } else if hit.cue == Cue::Bearer {
            out.extend(bearer(text, *hit));
        } else if hit.cue == Cue::Login {
            out.extend(login(text, *hit));
        }
    }
}

/// The value after `Bearer` or `Basic`.
fn bearer(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let rest = text.ahead(hit.end, LONGEST).strip_prefix(b" ")?;
    let belongs = |byte: &u8| {
        byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'+' | b'/' | b'=')
    };
    let len = rest.iter().take_while(|byte| belongs(byte)).count();
    let value = text.str.get(hit.end + 1..hit.end + 1 + len)?;
    let value = value.trim_end_matches('.');
    let range = hit.end + 1..hit.end + 1 + value.len();
    (value.len() >= 12 && is_random(value)).then_some(Candidate { range, entity: Entity::Secret })
}

/// `user:password` after `-u` or `--user`; not two numbers, which are a user and a group.
fn login(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let rest = text.clip(hit.end, LONGEST);
    let value = rest.trim_start_matches([' ', '=', '"', '\'']);
    let start = hit.end + rest.len() - value.len();
    let value = value.split([' ', '"', '\'', '\n', '\t']).next()?;
    let (user, password) = value.split_once(':')?;
    let good = start > hit.end && !user.is_empty() && password.len() >= 4;
    let numbers = password.bytes().all(|byte| byte.is_ascii_digit())
        && user.bytes().all(|byte| byte.is_ascii_digit());
    (good && !numbers && !is_placeholder(password))
        .then_some(Candidate { range: start..start + value.len(), entity: Entity::Secret })
}

fn value(text: &Text<'_>, hit: Hit) -> Option<Candidate> {
    let (start, bond) = bond(text.str, hit.end)?;
    let rest = &text.str[start..];
    let quote = rest
        .chars()
        .next()
        .filter(|sign| matches!(sign, '"' | '\'' | '`' | '“' | '„' | '«' | '「'));
    let start = start + quote.map_or(0, char::len_utf8);
    let escaped = quote.is_none() && rest.starts_with("\\\"");
    let start = if escaped { start + 2 } else { start };
    let value = taken(text.clip(start, LONGEST), quote, bond == Bond::Tight);
    let value = if escaped { value.trim_end_matches('\\') } else { value };
    let is_shout = text.str[hit.start..hit.end].chars().all(|sign| !sign.is_lowercase());
    let least = if bond == Bond::Word { 20 } else { 12 };
    let good = if hit.cue == Cue::Password {
        is_password(value, quote.is_some() || escaped, bond, is_shout)
    } else {
        value.len() >= least && is_random(value)
    };
    let range = start..start + value.len();
    (good && !is_placeholder(value)).then_some(Candidate { range, entity: Entity::Secret })
}

/// Where the value begins after a word that ends at `end`, and what binds it.
fn bond(text: &str, end: usize) -> Option<(usize, Bond)> {
    let rest = &text[end..];
    let closed = rest.trim_start_matches(['"', '\'', '`', ']', ')', '\\', '*']);
    let closed = if rest.len() - closed.len() > 4 { rest } else { closed };
    let blank = skip_blanks(closed)?;
    // `Add("X-Api-Key", "…")`
    if let Some(value) = closed.strip_prefix(", ").filter(|_| closed.len() < rest.len()) {
        let quoted = value.starts_with(['"', '\'']);
        return quoted.then_some((text.len() - value.len(), Bond::Sign));
    }
    for sign in [":=", "=>", "==", "->", "=", ":", "?="] {
        let Some(value) = blank.strip_prefix(sign) else { continue };
        let after = skip_blanks(value.trim_start_matches("**"))?;
        let tight = sign == "=" && blank.len() == rest.len() && after.len() == value.len();
        return Some((text.len() - after.len(), if tight { Bond::Tight } else { Bond::Sign }));
    }
    if blank.len() == closed.len() && !blank.starts_with(['は', '是']) {
        return None;
    }
    // `password for the wiki is …`, `Passwort fürs WLAN: …`
    let reach = blank.char_indices().nth(40).map_or(blank.len(), |(place, _)| place);
    let clause = blank[..reach].split(['\n', '.', ',', ';', '"']).next()?;
    let colon = clause.find(": ").map(|place| (place + 2, Bond::Sign));
    let bound = after_word(clause).map(|place| (place, Bond::Word)).into_iter();
    let (place, bond) =
        bound.chain(colon).min_by_key(|(place, _)| *place).unwrap_or((0, Bond::Word));
    let after = skip_blanks(&blank[place..])?;
    let after = after.strip_prefix(": ").unwrap_or(after);
    Some((text.len() - after.len(), bond))
}

/// Where the value begins after the first of the words that stands in `clause`.
fn after_word(clause: &str) -> Option<usize> {
    let blanks = clause.bytes().enumerate().filter(|(_, byte)| *byte == b' ');
    let starts = std::iter::once(0).chain(blanks.map(|(place, _)| place + 1));
    let after = |start: usize| {
        WORDS.iter().filter_map(move |word| {
            let rest = clause[start..].strip_prefix(word)?;
            let is_dense = start == 0 && matches!(*word, "は" | "是");
            (is_dense || rest.starts_with([' ', ':'])).then_some(start + word.len())
        })
    };
    starts.flat_map(after).min()
}

/// Without up to 8 blanks at the front; `None` where there are more.
fn skip_blanks(text: &str) -> Option<&str> {
    let rest = text.trim_start_matches([' ', '\t', '\u{a0}']);
    (text.len() - rest.len() <= 8).then_some(rest)
}

/// The value at the front of `rest`: to the closing quote, or to what ends a word.
fn taken(rest: &str, quote: Option<char>, is_query: bool) -> &str {
    let close = match quote {
        Some('“' | '„') => Some(['”', '“']),
        Some('«') => Some(['»', '»']),
        Some('「') => Some(['」', '」']),
        quote => quote.map(|quote| [quote, quote]),
    };
    let ends = |sign: char| match close {
        Some(close) => close.contains(&sign) || sign == '\n',
        None => {
            sign.is_whitespace()
                || matches!(sign, '"' | '\'' | '`' | ',' | ';' | '<' | '>' | '|' | '。')
                || sign == '&' && is_query
        }
    };
    // Japanese goes on without a blank: `パスワードはX7です`.
    let is_latin = quote.is_none() && rest.starts_with(|sign: char| sign.is_ascii());
    let goes_on = |sign: char| is_latin && matches!(sign, '\u{3040}'..='\u{30ff}');
    let len = rest.char_indices().find(|(_, sign)| ends(*sign) || goes_on(*sign));
    let value = &rest[..len.map_or(rest.len(), |(place, _)| place)];
    match quote {
        Some(_) => value,
        None => value.trim_end_matches(['.', ')', ']', '}', ',', ':', '*']),
    }
}

/// Whether people would take it for a password.
fn is_password(value: &str, quoted: bool, bond: Bond, is_shout: bool) -> bool {
    let count = value.chars().count();
    if !(4..=128).contains(&count) || value.contains(' ') && (!quoted || count > 40) {
        return false;
    }
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let letters = value.chars().filter(|sign| sign.is_alphabetic()).count();
    let others = count - digits - letters;
    let is_code = !quoted && value.contains(['(', '[', '{']) && others <= 3 && digits == 0;
    let is_name =
        digits == 0 && value.chars().all(|sign| sign.is_alphanumeric() || "._-:/?".contains(sign));
    match bond {
        _ if is_code => false,
        Bond::Word => {
            digits > 0 && letters > 0 && count >= 6 || quoted && count >= 6 && !is_plain(value)
        }
        Bond::Tight => !is_name || quoted || is_shout,
        Bond::Sign if quoted => !value.contains(' ') || digits > 0,
        Bond::Sign => !is_name && (letters > 0 || count >= 4) && !(digits == 0 && others < 2),
    }
}

/// Whether it is words and nothing else.
fn is_plain(value: &str) -> bool {
    value.chars().all(|sign| sign.is_lowercase() || sign == ' ')
}

/// Whether it looks drawn at random: letters and digits, and many different signs for its length.
pub(super) fn is_random(value: &str) -> bool {
    let bytes = value.as_bytes();
    let belongs = |byte: &u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'(' | b')' | b'{' | b'}' | b'[' | b']')
    };
    let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
    let letters = bytes.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    let is_hex = bytes.iter().all(u8::is_ascii_hexdigit);
    let least = if is_hex { 2.8 } else { 3.0 };
    bytes.iter().all(belongs) && digits > 0 && letters > 0 && entropy(bytes) >= least
}

/// Shannon's entropy of the bytes' frequencies, in bits for each byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let len: f64 = counts.iter().copied().map(f64::from).sum();
    let shares = counts.iter().filter(|count| **count > 0).map(|count| f64::from(*count) / len);
    shares.map(|share| -share * share.log2()).sum()
}

/// Whether it stands for a value rather than being one.
pub(super) fn is_placeholder(value: &str) -> bool {
    const WORDS: [&str; 27] = [
        "your",
        "xxx",
        "***",
        "...",
        "null",
        "none",
        "undefined",
        "true",
        "false",
        "redacted",
        "changeme",
        "os.environ",
        "process.env",
        "env.",
        "getenv",
        "example",
        "placeholder",
        "•••",
        "string",
        "optional",
        "required",
        "hidden",
        "masked",
        "self.",
        "this.",
        "secrets.",
        "vault",
    ];
    let lower = value.to_lowercase();
    let hides = value.contains("***")
        || value.contains("…")
        || value.contains("${")
        || value.contains("{{");
    hides
        || value.starts_with(['<', '$', '{', '%', '[', '@'])
        || WORDS.iter().any(|word| lower.starts_with(word))
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;
    use super::Entity::Secret;

    #[test]
    fn passwords() {
        check("password: Tr0ub4dor&3, ok", &[(Secret, "Tr0ub4dor&3")]);
        check("DB_PASSWORD=correcthorse\n", &[(Secret, "correcthorse")]);
        check("\"password\": \"hunter\"", &[(Secret, "hunter")]);
        check("Das Passwort lautet Sommer2024!", &[(Secret, "Sommer2024!")]);
        check("mot de passe du wifi : Soleil#77", &[(Secret, "Soleil#77")]);
    }

    #[test]
    fn code_and_talk_are_none() {
        check("password = request.form.get(\"x\"), f(password=password)", &[]);
        check("let token: String = x; password: please reset it", &[]);
        check("the password is wrong; token = <your token>; PASSWORD=${PASS}", &[]);
    }

    #[test]
    fn logins() {
        check("curl -u admin:s3cret https://x.example", &[(Secret, "admin:s3cret")]);
        check("docker run -u 1000:1000 x; sort -u a; curl --user bob:$PASS x", &[]);
    }

    #[test]
    fn random_values() {
        check("api_key = \"9f8A7c6D5e4B3a2F1x\"", &[(Secret, "9f8A7c6D5e4B3a2F1x")]);
        check("Authorization: Bearer a8Kd93mZq0PlwX7c", &[(Secret, "a8Kd93mZq0PlwX7c")]);
        check("token count: 1234567890123", &[]);
    }
}
