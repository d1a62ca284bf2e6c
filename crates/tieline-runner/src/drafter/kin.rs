//! Whether two models mean the same by the same tokens.
//!
//! The rules are llama.cpp's (`common_speculative_are_compatible` in `common/speculative.cpp`): the first five
//! tokens may be named otherwise, and one vocabulary may end a little later than the other, since files are padded
//! differently. What only one of them knows is never guessed.

use std::ffi::CStr;

use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{Digest, LoadParams};

use crate::llama::Model;
use crate::session::failure_with;

/// How many more tokens one vocabulary may have.
const PADDING: u32 = 128;
/// Tokens below this are not compared.
const FIRST: i32 = 5;
/// Characters shown of a token or a name that a file gives.
const SHOWN: usize = 40;

/// Refuses a draft model that cannot guess for `target`: another vocabulary, or states that cannot be taken back.
pub(crate) fn refuse_stranger(
    target: &Model,
    draft: &Model,
    params: &LoadParams,
) -> Result<(), Failure> {
    let of_draft = || described(draft, params.draft);
    let of_target = || described(target, params.model);
    for (model, name) in [(target, &of_target as &dyn Fn() -> String), (draft, &of_draft)] {
        if model.is_recurrent() {
            let message = format!(
                "no draft model can be used: the state of {} cannot be taken back token by token",
                name()
            );
            let hint = "leave out the draft model";
            return Err(failure_with(FailureKind::Unsupported, message, hint));
        }
    }
    let Some(what) = difference(target, draft) else { return Ok(()) };
    let message = format!(
        "the draft model, {}, has another vocabulary than the model, {}: {what}",
        of_draft(),
        of_target()
    );
    let hint = "take a smaller model of the same family, or leave out the draft model";
    Err(failure_with(FailureKind::InvalidRequest, message, hint))
}

/// A model by all the names it has.
fn described(model: &Model, digest: Option<Digest>) -> String {
    let name = model.name().map(|name| format!("{} ", quoted(&name)));
    let digest = digest.map(|digest| format!(", {}", digest.short()));
    format!("{}({}{})", name.unwrap_or_default(), model.description(), digest.unwrap_or_default())
}

/// Text of a file, short and without control characters.
fn quoted(text: &str) -> String {
    let short: String = text.chars().take(SHOWN).collect();
    format!("{short:?}")
}

/// What differs first between two vocabularies, in words; the draft model's side comes first.
fn difference(target: &Model, draft: &Model) -> Option<String> {
    let differs = |what: &str, draft: String, target: String| {
        (draft != target).then(|| format!("{what} {draft} there and {target} here"))
    };
    let marks = |adds: bool, token: Option<i32>, what: &str| match (adds, token) {
        (false, _) => format!("not begun or ended with {what}"),
        (true, Some(token)) => format!("marked with {what} {token}"),
        (true, None) => format!("marked with an unknown {what}"),
    };
    let bos = |model: &Model| marks(model.adds_bos(), model.bos(), "BOS");
    let eos = |model: &Model| marks(model.adds_eos(), model.eos(), "EOS");
    differs("its tokeniser is", kind(draft), kind(target))
        .or_else(|| differs("a text is", bos(draft), bos(target)))
        .or_else(|| differs("a text is", eos(draft), eos(target)))
        .or_else(|| {
            let (ours, others) = (target.vocabulary(), draft.vocabulary());
            let padded = ours.abs_diff(others) <= PADDING;
            (!padded).then(|| format!("it has {others} tokens there and {ours} here"))
        })
        .or_else(|| {
            let shared = target.vocabulary().min(draft.vocabulary());
            let token = (FIRST..shared).find(|&token| draft.entry(token) != target.entry(token))?;
            let what = format!("token {token} is");
            differs(&what, shown(draft.entry(token)), shown(target.entry(token)))
        })
}

fn shown(entry: Option<&CStr>) -> String {
    entry.map_or_else(|| "none".to_owned(), |text| quoted(&text.to_string_lossy()))
}

/// The names that llama.cpp's `llama_vocab_type` has.
fn kind(model: &Model) -> String {
    match model.vocabulary_kind() {
        0 => "none".to_owned(),
        1 => "SPM".to_owned(),
        2 => "BPE".to_owned(),
        3 => "WPM".to_owned(),
        4 => "UGM".to_owned(),
        5 => "RWKV".to_owned(),
        other => format!("of kind {other}"),
    }
}
