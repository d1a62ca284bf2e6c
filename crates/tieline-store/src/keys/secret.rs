//! The text of a key.

use std::fmt;

use sha2::{Digest as _, Sha256};
use tieline_types::Digest;

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const RANDOM: usize = 32;
/// So many digits hold 32 bits.
const CHECK: usize = 6;

/// A key's text. `Debug` shows none of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<a key>")
    }
}

impl Secret {
    pub(super) fn random(kind: &str) -> Result<Self, getrandom::Error> {
        Ok(Self::of(kind, &random_digits(RANDOM)?))
    }

    fn of(kind: &str, random: &str) -> Self {
        let text = format!("tl_{kind}_{random}");
        let check = check_digits(&text);
        Self(format!("{text}_{check}"))
    }

    /// The secret of this text, where it is whole.
    pub fn parse(text: &str) -> Option<Self> {
        looks_like_ours(text).then(|| Self(text.to_owned()))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// What is kept of it.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(&self.0).into())
    }
}

/// Whether a text has the form of our keys, its check digits too: what was cut off or mistyped is known without
/// looking anything up, and scanners for leaked keys can find ours.
pub fn looks_like_ours(text: &str) -> bool {
    let Some((body, check)) = text.rsplit_once('_') else { return false };
    let Some((kind, random)) = body.strip_prefix("tl_").and_then(|rest| rest.split_once('_'))
    else {
        return false;
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    !kind.is_empty()
        && kind.len() <= 16
        && digits(kind)
        && random.len() == RANDOM
        && digits(random)
        && check == check_digits(body)
}

/// Random base62 digits, each as likely as any other.
pub(super) fn random_digits(count: usize) -> Result<String, getrandom::Error> {
    // 248 is the largest multiple of 62 in a byte: what is above would make some digits likelier.
    const EVEN: u8 = 248;
    let mut text = String::with_capacity(count);
    let mut bytes = [0; 64];
    while text.len() < count {
        getrandom::fill(&mut bytes)?;
        let digits = bytes.iter().filter(|byte| **byte < EVEN);
        let digits = digits.map(|byte| char::from(DIGITS[usize::from(byte % 62)]));
        text.extend(digits.take(count - text.len()));
    }
    Ok(text)
}

fn check_digits(text: &str) -> String {
    let mut rest = crc32(text.as_bytes());
    let mut digits = [b'0'; CHECK];
    for digit in digits.iter_mut().rev() {
        let at = usize::try_from(rest % 62).unwrap_or_default();
        *digit = DIGITS[at];
        rest /= 62;
    }
    digits.iter().map(|digit| char::from(*digit)).collect()
}

/// The usual CRC-32 (of zip and Ethernet).
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_check_is_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_secret_has_its_form_and_any_change_breaks_it() {
        let secret = Secret::random("user").unwrap();
        let text = secret.expose();
        assert_eq!(text.len(), "tl_user_".len() + 32 + 1 + 6);
        assert!(looks_like_ours(text));
        for at in 3..text.len() {
            let mut changed = text.to_owned().into_bytes();
            changed[at] = if changed[at] == b'a' { b'b' } else { b'a' };
            assert!(!looks_like_ours(std::str::from_utf8(&changed).unwrap()), "{at}");
        }
        assert!(!looks_like_ours(&text[..text.len() - 1]));
        assert_eq!(format!("{secret:?}"), "<a key>");
    }

    #[test]
    fn what_is_no_key_of_ours_is_told_apart() {
        for text in ["", "ollama", "sk-1234", "tl_", "tl__", "tl_user_x_y", "tl_üser_a_b"] {
            assert!(!looks_like_ours(text), "{text}");
        }
        assert_ne!(random_digits(32).unwrap(), random_digits(32).unwrap());
    }
}
