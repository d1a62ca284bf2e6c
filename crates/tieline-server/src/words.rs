//! Words that callers choose from.

use tieline_types::Overflow;

use crate::error::ApiError;

/// What becomes of a prompt that does not fit.
pub(crate) const OVERFLOWS: [(&str, Overflow); 3] = [
    ("error", Overflow::Error),
    ("drop_oldest", Overflow::DropOldest),
    ("compact", Overflow::Compact),
];

/// What a word means, where one is said.
///
/// # Errors
/// It is none of them; what it is instead is not repeated.
pub(crate) fn one_of<T: Copy>(
    word: Option<&[u8]>,
    name: &str,
    words: &[(&str, T)],
) -> Result<Option<T>, ApiError> {
    let Some(said) = word else { return Ok(None) };
    let known = words.iter().find(|(word, _)| word.as_bytes() == said);
    known.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let (last, others) = known.split_last().unwrap_or((&"none", &[]));
        let text = format!("{name} is another word: expected {} or {last}", others.join(", "));
        ApiError::invalid(name, text)
    })
}
