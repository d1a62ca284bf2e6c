//! Text as a bag of hashed features: words, pairs of words, and runs of four characters within words.
//!
//! Words carry meaning, runs of characters survive a typo. Hashing needs no vocabulary (Weinberger et al. 2009).

/// Features that a text can have.
pub(super) const BUCKETS: usize = 1 << 16;
/// Characters of a text that are looked at: the head tells the task, and time stays bounded.
const MOST_CHARS: usize = 1024;

/// The text's distinct features, sorted.
pub(super) fn features(text: &str) -> Vec<u16> {
    let mut found = Vec::with_capacity(512);
    let mut word = Word::default();
    let mut before = 0;
    for character in text.chars().take(MOST_CHARS) {
        if character.is_alphanumeric() {
            word.push(lower(character), &mut found);
        } else {
            word.end(&mut before, &mut found);
            if !character.is_whitespace() && !matches!(character, '.' | ',' | '!') {
                found.push(bucket(0x51, u64::from(u32::from(character))));
            }
        }
    }
    word.end(&mut before, &mut found);
    found.sort_unstable();
    found.dedup();
    found
}

/// One character for one, so that no text grows.
fn lower(character: char) -> char {
    if character.is_ascii() {
        return character.to_ascii_lowercase();
    }
    let mut lower = character.to_lowercase();
    match (lower.next(), lower.next()) {
        (Some(one), None) => one,
        _ => character,
    }
}

#[derive(Default)]
struct Word {
    hash: u64,
    window: [u64; 4],
    chars: usize,
}

impl Word {
    fn push(&mut self, character: char, found: &mut Vec<u16>) {
        let code = u64::from(u32::from(character));
        self.hash = mixed(self.hash, code + 1);
        self.window.rotate_left(1);
        self.window[3] = code;
        self.chars += 1;
        if self.chars >= 4 {
            found.push(bucket(0x34, self.window.iter().fold(0, |hash, code| mixed(hash, *code))));
        }
    }

    fn end(&mut self, before: &mut u64, found: &mut Vec<u16>) {
        if self.chars == 0 {
            return;
        }
        found.push(bucket(0x77, self.hash));
        if *before != 0 {
            found.push(bucket(0x32, mixed(*before, self.hash)));
        }
        *before = self.hash;
        *self = Self::default();
    }
}

/// Not the same with its arguments exchanged: pairs have an order.
fn mixed(hash: u64, value: u64) -> u64 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x517c_c1b7_2722_0a95)
}

/// The end of MurmurHash3, after which each bit depends on all.
fn bucket(kind: u64, hash: u64) -> u16 {
    let mut hash = hash ^ (kind << 56);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let [high, low, ..] = (hash ^ (hash >> 33)).to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_space_change_nothing() {
        assert_eq!(features("Écris  une FONCTION\n"), features("écris une fonction"));
        assert_ne!(features("a b"), features("b a"), "pairs have an order");
        assert!(features("").is_empty());
    }

    #[test]
    fn a_typo_leaves_most_features() {
        let (a, b) = (features("translate this sentence"), features("transalte this sentence"));
        let kept = b.iter().filter(|one| a.binary_search(one).is_ok()).count();
        assert!(kept * 2 > a.len(), "{kept} of {}", a.len());
    }

    #[test]
    fn buckets_are_used_evenly() {
        let used: std::collections::HashSet<u16> =
            (0..20_000_u64).map(|value| bucket(0x77, mixed(0, value))).collect();
        // 65,536 · (1 - e^(-20,000/65,536)) = 17,235 expected.
        assert!((16_900..17_600).contains(&used.len()), "{}", used.len());
    }
}
