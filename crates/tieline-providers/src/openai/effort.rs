//! How much a model is told to think by `reasoning_effort`, as its name says what it takes.
//!
//! A vendor refuses the request where a model is told in a word that it does not take.

use tieline_types::Effort;

use super::flavour::Flavour;
use crate::responses::model::{Model, Told};

/// What most models take that take more than on and off.
pub(super) const STEPS: &[&str] = &["low", "medium", "high"];

/// What is said to a model that is to think, and how much, or not to. `words`: the flavour's own, for on and off.
/// `None`: the vendor has no word for this model.
pub(super) fn of(
    flavour: &Flavour,
    model: &str,
    (thinks, effort): (bool, Option<Effort>),
    words: (&'static str, &'static str),
) -> Option<Told> {
    match flavour.name {
        "openai" => Some(Model::of(model).told(thinks, effort)),
        "groq" => groq(model, (thinks, effort), words),
        _ => Some(switched(thinks, effort, words)),
    }
}

/// Groq serves models of many makers, and each of them has words of its own, or none.
fn groq(
    model: &str,
    (thinks, effort): (bool, Option<Effort>),
    words: (&'static str, &'static str),
) -> Option<Told> {
    let name = model.rsplit('/').next().unwrap_or(model);
    match thinks {
        true if name.starts_with("gpt-oss") => Some(Told::to_think(effort, STEPS)),
        false if name.starts_with("gpt-oss") => Some(Told::Least("low")),
        _ if name.starts_with("qwen3") => Some(switched(thinks, effort, words)),
        _ if name.starts_with("llama") => Some(Told::Cannot),
        _ => None,
    }
}

/// On or off is all that can be said.
fn switched(thinks: bool, effort: Option<Effort>, (on, off): (&'static str, &'static str)) -> Told {
    match (thinks, effort) {
        (false, _) => Told::Word(off),
        (true, None | Some(Effort::Own)) => Told::Word(on),
        (true, Some(_)) => Told::Nearest(on),
    }
}
