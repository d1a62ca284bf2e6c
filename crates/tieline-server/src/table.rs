//! The table of all routes. Documents are made from it, and doors are set by it.

use crate::routes::Route;
use crate::{anthropic, health, llama, lmstudio, ollama, openai, openapi, own};

/// The table.
pub(crate) fn table() -> Vec<Route> {
    let theirs = [
        openai::routes(),
        anthropic::routes(),
        ollama::routes(),
        llama::routes(),
        lmstudio::routes(),
    ];
    let ours = [own::routes(), health::routes(), openapi::routes()];
    theirs.into_iter().chain(ours).flatten().collect()
}
