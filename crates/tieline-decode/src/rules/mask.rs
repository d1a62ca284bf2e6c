//! A set of tokens.

use llguidance::toktrie::SimpleVob;

/// Tokens per word of the set.
const BITS: usize = 32;

/// The tokens that a rule allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    words: Vec<u32>,
}

impl Mask {
    /// Takes the engine's set of a vocabulary of `tokens`.
    pub(super) fn new(set: &SimpleVob, tokens: usize) -> Self {
        let mut words = set.as_slice().to_vec();
        words.truncate(tokens.div_ceil(BITS));
        // The engine keeps a bit for "no token" after the last.
        if let Some(last) = words.get_mut(tokens / BITS) {
            *last &= (1 << (tokens % BITS)) - 1;
        }
        Self { words }
    }

    /// Whether this token is allowed.
    pub fn allows(&self, token: u32) -> bool {
        let place = usize::try_from(token).unwrap_or(usize::MAX);
        self.words.get(place / BITS).is_some_and(|word| word >> (place % BITS) & 1 == 1)
    }

    /// How many tokens are allowed.
    pub fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// The allowed tokens, in order.
    pub fn tokens(&self) -> impl Iterator<Item = u32> + '_ {
        (0_u32..).step_by(BITS).zip(&self.words).flat_map(|(first, word)| {
            (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        })
    }

    /// Sets the logits of all other tokens to minus infinity, also those beyond the vocabulary.
    pub fn apply(&self, logits: &mut [f32]) {
        let known = logits.len().min(self.words.len() * BITS);
        let (known, beyond) = logits.split_at_mut(known);
        beyond.fill(f32::NEG_INFINITY);
        for (word, logits) in self.words.iter().zip(known.chunks_mut(BITS)) {
            match *word {
                u32::MAX => {}
                0 => logits.fill(f32::NEG_INFINITY),
                word => {
                    for (bit, logit) in logits.iter_mut().enumerate() {
                        *logit = if word >> bit & 1 == 1 { *logit } else { f32::NEG_INFINITY };
                    }
                }
            }
        }
    }
}
