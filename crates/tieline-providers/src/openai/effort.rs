//! How much a model is told to think by `reasoning_effort`, as its name says what it takes.
//!
//! A vendor refuses the request where a model is told in a word that it does not take.

use super::flavour::Flavour;
use crate::responses::model::{Effort, Model};

/// What is said to a model that is to think, or not to. `words`: the flavour's own, for on and off.
/// `None`: the vendor has no word for this model.
pub(super) fn of(
    flavour: &Flavour,
    model: &str,
    (thinks, words): (bool, (&'static str, &'static str)),
) -> Option<Effort> {
    match flavour.name {
        "openai" => Some(Model::of(model).effort(thinks)),
        "groq" => groq(model, (thinks, words)),
        _ => Some(Effort::Word(if thinks { words.0 } else { words.1 })),
    }
}

/// Groq serves models of many makers, and each of them has words of its own, or none.
fn groq(model: &str, (thinks, (on, off)): (bool, (&'static str, &'static str))) -> Option<Effort> {
    let name = model.rsplit('/').next().unwrap_or(model);
    match thinks {
        true if name.starts_with("gpt-oss") => Some(Effort::Word("medium")),
        false if name.starts_with("gpt-oss") => Some(Effort::Least("low")),
        true if name.starts_with("qwen3") => Some(Effort::Word(on)),
        false if name.starts_with("qwen3") => Some(Effort::Word(off)),
        _ if name.starts_with("llama") => Some(Effort::Cannot),
        _ => None,
    }
}
