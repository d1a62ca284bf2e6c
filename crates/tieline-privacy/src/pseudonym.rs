//! The form of a pseudonym: written, and read again in whatever a model makes of it.
//!
//! A pseudonym is `TLX_<KIND>_<8 digits><2 check digits>`: nothing but ASCII letters, digits and `_`, so that JSON,
//! HTML, Markdown, URLs, shells and regular expressions leave it alone. The digits are ten figures and nineteen
//! consonants; neither T nor L is among them and no kind contains TLX. Therefore no text before a pseudonym can
//! swallow its beginning, and its fixed length ends it whatever follows.
//!
//! Reading ignores case, the underscores themselves, hyphens, Markdown's emphasis and backslashes, characters
//! without width, and line breaks with the indentation after them.

use crate::detect::Entity;

/// What every pseudonym begins with.
const MAGIC: &str = "TLX";
const DIGITS: &[u8; 29] = b"0123456789BCDFGHJKMNPQRSVWXYZ";
const ID_DIGITS: usize = 8;
const CHECK_DIGITS: usize = 2;
/// The longest that is read as one pseudonym, in bytes, with all that was put into it.
pub const MAX_SPREAD: usize = 256;
/// The most characters that are ignored between two that count.
const MAX_GAP: usize = 32;
/// Fewer digits after a kind are no pseudonym, where nothing separates them from it.
const MIN_UNSEPARATED: usize = 4;

/// What a pseudonym stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Something that was found.
    Found(Entity),
    /// A text that looks like a pseudonym and was there before.
    Lookalike,
}

impl Kind {
    fn all() -> impl Iterator<Item = Self> {
        Entity::ALL.into_iter().map(Self::Found).chain([Self::Lookalike])
    }

    /// The word for it. No word begins another.
    pub(crate) fn tag(self) -> &'static str {
        match self {
            Self::Lookalike => "TEXT",
            Self::Found(entity) => match entity {
                Entity::Email => "EMAIL",
                Entity::Phone => "PHONE",
                Entity::Card => "CARD",
                Entity::Iban => "IBAN",
                Entity::NationalId => "NATIONALID",
                Entity::IpAddress => "IP",
                Entity::MacAddress => "MAC",
                Entity::Coordinates => "GEO",
                Entity::PostalAddress => "ADDRESS",
                Entity::BirthDate => "BIRTHDATE",
                Entity::CredentialUrl => "URL",
                Entity::PrivateKey => "PRIVATEKEY",
                Entity::Jwt => "JWT",
                Entity::ApiKey => "APIKEY",
                Entity::Secret => "SECRET",
                Entity::ConnectionString => "CONNECTION",
                Entity::Term => "TERM",
                Entity::Path => "PATH",
                Entity::GitIdentity => "GIT",
            },
        }
    }
}

/// A pseudonym's eight digits as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Id(u64);

impl Id {
    /// Any number, brought into the range.
    pub(crate) fn from_number(number: u64) -> Self {
        Self(number % 29_u64.pow(8))
    }

    fn digits(self) -> [u8; ID_DIGITS] {
        let mut rest = self.0;
        let mut digits = [0; ID_DIGITS];
        for digit in digits.iter_mut().rev() {
            *digit = u8::try_from(rest % 29).unwrap_or(0);
            rest /= 29;
        }
        digits
    }
}

/// The pseudonym as it is written.
pub(crate) fn write(kind: Kind, id: Id) -> String {
    let digits = id.digits();
    let mut text = format!("{MAGIC}_{}_", kind.tag());
    for digit in digits.into_iter().chain(check(kind, digits)) {
        text.push(char::from(DIGITS[usize::from(digit)]));
    }
    text
}

/// Two sums over a prime field, with weights that differ at each place: one wrong digit and two that were
/// exchanged are always noticed.
fn check(kind: Kind, digits: [u8; ID_DIGITS]) -> [u8; CHECK_DIGITS] {
    let tag: u32 = (1..).zip(kind.tag().bytes()).map(|(at, byte)| at * u32::from(byte)).sum();
    let weighed = |power: u32| -> u32 {
        (1_u32..).zip(digits).map(|(at, digit)| at.pow(power) * u32::from(digit)).sum()
    };
    [weighed(1) + tag, weighed(2) + 3 * tag].map(|sum| u8::try_from(sum % 29).unwrap_or(0))
}

/// What begins at the begin of a text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Scan {
    /// A pseudonym whose check is right, in so many bytes.
    Pseudonym { bytes: usize, kind: Kind, id: Id },
    /// So many bytes that look like one and are none.
    Lookalike { bytes: usize },
    /// Perhaps one; the text ends too early to tell.
    Partial,
    /// Something else.
    Other,
}

/// Whether a pseudonym can begin with this byte: with a letter, or with an escape of one.
pub(crate) fn may_begin(byte: u8) -> bool {
    matches!(byte, b'T' | b't' | b'\\')
}

/// Reads the pseudonym at the begin of `text`. After `whole` nothing more comes.
pub(crate) fn scan(text: &str, whole: bool) -> Scan {
    // Nobody looks farther, so that it does not matter how much of the text is there already.
    let whole = whole || text.len() >= MAX_SPREAD;
    let text = &text[..text.floor_char_boundary(MAX_SPREAD)];
    match read(&mut Reader { text, at: 0, gap: false }) {
        Err(Stop::More) | Ok(Read { cut: true, .. }) if !whole => Scan::Partial,
        Err(Stop::More | Stop::Other) => Scan::Other,
        Ok(read) => read.scan,
    }
}

struct Read {
    scan: Scan,
    /// The text ended before the pseudonym did.
    cut: bool,
}

enum Stop {
    More,
    Other,
}

fn read(reader: &mut Reader<'_>) -> Result<Read, Stop> {
    // Nothing is ignored before the first.
    let (first, _) = unit(reader.text).ok_or(Stop::More)?;
    if !first.is_ascii_alphabetic() {
        return Err(Stop::Other);
    }
    for wanted in MAGIC.bytes() {
        if reader.next()? != wanted {
            return Err(Stop::Other);
        }
    }
    let kind = read_kind(reader)?;
    let mut digits = [0; ID_DIGITS + CHECK_DIGITS];
    let mut separated = false;
    let mut end = reader.at;
    for (count, place) in digits.iter_mut().enumerate() {
        let next = reader.next();
        if count == 0 {
            separated = reader.gap;
        }
        let digit = match next {
            Ok(byte) => DIGITS.iter().position(|digit| *digit == byte),
            Err(Stop::More) if count == 0 => return Err(Stop::More),
            Err(Stop::More | Stop::Other) => None,
        };
        let Some(digit) = digit else {
            let cut = matches!(next, Err(Stop::More));
            let least = if separated { 1 } else { MIN_UNSEPARATED };
            return match (count >= least, cut) {
                (true, _) => Ok(Read { scan: Scan::Lookalike { bytes: end }, cut }),
                (false, true) => Err(Stop::More),
                (false, false) => Err(Stop::Other),
            };
        };
        *place = u8::try_from(digit).unwrap_or(0);
        end = reader.at;
    }
    Ok(Read { scan: checked(kind, digits, end), cut: false })
}

fn checked(kind: Kind, all: [u8; ID_DIGITS + CHECK_DIGITS], bytes: usize) -> Scan {
    let mut digits = [0; ID_DIGITS];
    digits.copy_from_slice(&all[..ID_DIGITS]);
    if check(kind, digits) != all[ID_DIGITS..] {
        return Scan::Lookalike { bytes };
    }
    let id = Id(digits.iter().fold(0, |number, digit| number * 29 + u64::from(*digit)));
    Scan::Pseudonym { bytes, kind, id }
}

fn read_kind(reader: &mut Reader<'_>) -> Result<Kind, Stop> {
    let mut possible: Vec<Kind> = Kind::all().collect();
    for at in 0.. {
        let byte = reader.next()?;
        possible.retain(|kind| kind.tag().as_bytes().get(at) == Some(&byte));
        match possible.iter().find(|kind| kind.tag().len() == at + 1) {
            Some(kind) => return Ok(*kind),
            None if possible.is_empty() => return Err(Stop::Other),
            None => {}
        }
    }
    Err(Stop::Other)
}

/// Goes from one letter or figure to the next over what is ignored.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    /// Something was ignored before the last one.
    gap: bool,
}

impl Reader<'_> {
    /// The next letter, upper case, or figure.
    fn next(&mut self) -> Result<u8, Stop> {
        self.gap = false;
        let mut after_break = false;
        for _ in 0..MAX_GAP {
            let (unit, bytes) = unit(&self.text[self.at..]).ok_or(Stop::More)?;
            if let Ok(byte) = u8::try_from(unit)
                && byte.is_ascii_alphanumeric()
            {
                self.at += bytes;
                return Ok(byte.to_ascii_uppercase());
            }
            match unit {
                '\n' | '\r' => after_break = true,
                ' ' | '\t' | '>' if after_break => {}
                _ if is_ignored(unit) => {}
                _ => return Err(Stop::Other),
            }
            self.at += bytes;
            self.gap = true;
        }
        Err(Stop::Other)
    }
}

fn is_ignored(unit: char) -> bool {
    matches!(
        unit,
        '_' | '-' | '*' | '~' | '`' | '\\'
        // Soft hyphen, characters without width, hyphens.
        | '\u{ad}' | '\u{200b}'
            ..='\u{200d}' | '\u{2010}' | '\u{2011}' | '\u{2060}' | '\u{feff}'
    )
}

/// The first character and its bytes, escapes of JSON strings read. `None`: the text ends within it.
fn unit(text: &str) -> Option<(char, usize)> {
    let first = text.chars().next()?;
    if first != '\\' {
        return Some((first, first.len_utf8()));
    }
    match text.as_bytes().get(1)? {
        b'n' | b'r' | b't' => Some(('\n', 2)),
        b'u' => {
            let hex = text.as_bytes()[2..].iter().take(4).take_while(|b| b.is_ascii_hexdigit());
            match hex.count() {
                4 => {
                    let code = u32::from_str_radix(&text[2..6], 16).ok()?;
                    Some((char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 6))
                }
                count if count + 2 == text.len() => None,
                _ => Some(('\\', 1)),
            }
        }
        _ => Some(('\\', 1)),
    }
}

#[cfg(test)]
mod tests;
