//! Patterns of names and paths.

use std::fmt;

/// A pattern: `*` is anything without a slash, `**` anything, `?` one character but a slash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Glob(String);

impl Glob {
    /// The longest pattern, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// The pattern.
    ///
    /// # Errors
    /// It is empty, or longer than [`Self::MAX_BYTES`].
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        match pattern.len() {
            0 => Err("a pattern may not be empty"),
            1..=Self::MAX_BYTES => Ok(Self(pattern.to_owned())),
            _ => Err("a pattern may have 256 bytes at most"),
        }
    }

    /// The pattern's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether all of `text` fits. Takes time in proportion to both lengths at most.
    pub fn fits(&self, text: &str) -> bool {
        fits(self.0.as_bytes(), text.as_bytes())
    }

    /// Whether it can fit one text alone.
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A row per byte of the pattern: `reached[i]` says that the pattern so far can end before the text's byte `i`.
fn fits(pattern: &[u8], text: &[u8]) -> bool {
    if !pattern.contains(&b'*') && !pattern.contains(&b'?') {
        return pattern == text;
    }
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some((&first, mut after)) = rest.split_first() {
        match first {
            b'*' => {
                let deep = after.first() == Some(&b'*');
                while after.first() == Some(&b'*') {
                    after = &after[1..];
                }
                for at in 0..text.len() {
                    reached[at + 1] |= reached[at] && (deep || text[at] != b'/');
                }
            }
            _ => step(first, text, &mut reached),
        }
        rest = after;
    }
    reached[text.len()]
}

fn step(wanted: u8, text: &[u8], reached: &mut [bool]) {
    // The bytes after a character's first one belong to it.
    let inner = |byte: u8| byte & 0xC0 == 0x80;
    for at in (0..text.len()).rev() {
        let one = if wanted == b'?' { text[at] != b'/' } else { text[at] == wanted };
        reached[at + 1] = reached[at] && one;
    }
    reached[0] = false;
    if wanted == b'?' {
        for at in 0..text.len() {
            if inner(text[at]) {
                reached[at + 1] |= reached[at];
                reached[at] = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, want: bool) {
        assert_eq!(Glob::new(pattern).unwrap().fits(text), want, "{pattern} {text}");
    }

    #[test]
    fn a_star_stays_in_its_folder() {
        check("*", "smollm2", true);
        check("*", "openai/gpt", false);
        check("openai/*", "openai/gpt", true);
        check("openai/*", "openai/a/b", false);
        check("**", "openai/a/b", true);
        check("/home/**/keys/*.pem", "/home/a/b/keys/x.pem", true);
        check("/home/**/keys/*.pem", "/home/a/b/keys/x/y.pem", false);
        check("qwen?", "qwen3", true);
        check("qwen?", "qwen", false);
        check("a?c", "aéc", true);
        check("a?c", "a/c", false);
        check("smollm2", "smollm2", true);
        check("smollm2", "smollm", false);
    }

    #[test]
    fn a_pattern_that_grows_is_no_trap() {
        check(&"*a".repeat(100), &"a".repeat(100_000), true);
        check(&format!("{}b", "*a".repeat(100)), &"a".repeat(10_000), false);
    }
}
