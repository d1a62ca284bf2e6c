//! What each token of a model adds to the text, as a tree that a grammar can walk.
//!
//! Built once per model, shared by all answers. Knows no grammar.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie};

use super::RuleError;

/// The most tokens of a vocabulary: the tree keeps 24 bits for a token's id, one value means none.
const MAX_TOKENS: usize = 1 << 22;
/// The most bytes of all tokens together: the tree counts its nodes in 22 bits.
const MAX_TEXT_BYTES: usize = (1 << 22) - 1024;
/// The longest token, in bytes: the tree counts the way back to its root in 10 bits. Longer ones are
/// never allowed under a rule; models have them for runs of spaces, which shorter ones can spell.
const MAX_TOKEN_BYTES: usize = 1000;
/// A byte that no UTF-8 text holds; the tree keeps it to mark special tokens.
const MARK: u8 = TokTrie::SPECIAL_TOKEN_MARKER;

/// What a token adds to the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenBytes {
    /// These bytes, perhaps a part of a character.
    Text(Vec<u8>),
    /// Nothing: it steers, as `<|im_end|>` does. The name is what a prompt calls it.
    Control(String),
    /// Nothing: the model never means it.
    Unused,
}

/// A model's tokens. A clone shares them.
#[derive(Clone)]
pub struct Vocabulary {
    shared: Arc<Shared>,
}

struct Shared {
    env: TokEnv,
    ends: Vec<u32>,
    controls: HashMap<String, u32>,
}

impl fmt::Debug for Vocabulary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vocabulary").field("tokens", &self.len()).finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// Builds the tree; a token's place in `tokens` is its id. `ends` are the tokens that end an
    /// answer, the model's own first.
    ///
    /// # Errors
    /// `Invalid` if `ends` is empty or names no token; `TooLarge` if there are too many tokens.
    pub fn new(tokens: Vec<TokenBytes>, ends: &[u32]) -> Result<Self, RuleError> {
        const WHAT: &str = "vocabulary";
        let count = u32::try_from(tokens.len()).ok().filter(|_| tokens.len() <= MAX_TOKENS);
        let too_large = |why: &str| RuleError::TooLarge { what: WHAT, why: why.to_owned() };
        let count = count.ok_or_else(|| too_large("more than four million tokens"))?;
        let invalid = |why: String| RuleError::Invalid { what: WHAT, why };
        let first = *ends.first().ok_or_else(|| invalid("no token ends an answer".to_owned()))?;
        if let Some(beyond) = ends.iter().find(|end| **end >= count) {
            return Err(invalid(format!("token {beyond} ends an answer, but there are {count}")));
        }
        let mut controls = HashMap::new();
        let words: Vec<_> = (0..count)
            .zip(tokens)
            .map(|(id, token)| word(id, token, ends, &mut controls))
            .collect();
        if words.iter().map(Vec::len).sum::<usize>() > MAX_TEXT_BYTES {
            return Err(too_large("more than four million bytes"));
        }
        let trie = TokTrie::from(&TokRxInfo::new(count, first), &words).with_eos_tokens(ends);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        Ok(Self { shared: Arc::new(Shared { env, ends: ends.to_vec(), controls }) })
    }

    /// One token per byte, and one that ends: spells any text.
    pub(super) fn of_bytes() -> Result<Self, RuleError> {
        let mut tokens: Vec<_> = (0..=u8::MAX).map(|byte| TokenBytes::Text(vec![byte])).collect();
        tokens.push(TokenBytes::Control("end".to_owned()));
        Self::new(tokens, &[256])
    }

    /// How many tokens there are, used or not.
    pub fn len(&self) -> usize {
        self.trie().vocab_size()
    }

    /// Whether there are none; never, for one that was built.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this token ends an answer.
    pub fn ends(&self, token: u32) -> bool {
        self.shared.ends.contains(&token)
    }

    /// The control token of this name.
    pub fn control(&self, name: &str) -> Option<u32> {
        self.shared.controls.get(name).copied()
    }

    /// The first control token named in `text`: where its name begins, the name, its id. Of names that
    /// begin at the same place the longest counts.
    pub(super) fn find_control<'text>(&self, text: &'text str) -> Option<(usize, &'text str, u32)> {
        let found = self.shared.controls.iter().filter_map(|(name, id)| {
            let at = text.find(name.as_str())?;
            Some((at, &text[at..at + name.len()], *id))
        });
        found.min_by_key(|(at, name, _)| (*at, usize::MAX - name.len()))
    }

    /// Tokens that spell these bytes, the longest first at each place: not always the model's own choice.
    pub(super) fn spell(&self, bytes: &[u8]) -> Vec<u32> {
        self.trie().greedy_tokenize(bytes)
    }

    pub(super) fn env(&self) -> &TokEnv {
        &self.shared.env
    }

    fn trie(&self) -> &TokTrie {
        self.shared.env.tok_trie()
    }
}

/// A token's bytes in the tree. What has none is never allowed there, so a rule lets control tokens
/// through by their id alone. Some models end with a token that also has a text: as an end it adds none.
fn word(id: u32, token: TokenBytes, ends: &[u32], names: &mut HashMap<String, u32>) -> Vec<u8> {
    match token {
        _ if ends.contains(&id) => Vec::new(),
        TokenBytes::Text(bytes) if bytes.len() > MAX_TOKEN_BYTES => Vec::new(),
        TokenBytes::Text(bytes) if bytes.contains(&MARK) => Vec::new(),
        TokenBytes::Text(bytes) => bytes,
        TokenBytes::Control(name) => {
            if !name.is_empty() {
                names.entry(name).or_insert(id);
            }
            Vec::new()
        }
        TokenBytes::Unused => Vec::new(),
    }
}
