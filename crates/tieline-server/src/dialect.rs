//! The APIs that clients speak, and who may use a route: words that every room of the server knows.

use axum::http::HeaderMap;

/// An API that clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Dialect {
    /// OpenAI's.
    OpenAi,
    /// Anthropic's.
    Anthropic,
    /// Ollama's.
    Ollama,
    /// llama-server's own.
    Llama,
    /// LM Studio's.
    LmStudio,
    /// Tieline's own.
    Own,
}

impl Dialect {
    /// All of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::OpenAi, Self::Anthropic, Self::Ollama, Self::Llama, Self::LmStudio, Self::Own];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Ollama => "ollama",
            Self::Llama => "llama",
            Self::LmStudio => "lmstudio",
            Self::Own => "tieline",
        }
    }
}

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Guard {
    /// Anybody: it tells nothing of models or people.
    Open,
    /// Whoever may see which models are here.
    Read,
    /// Whoever may have a model work.
    Infer,
    /// Whoever may change what is here: the local admin token, or a key for it.
    Manage,
}

impl Guard {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Read => "read",
            Self::Infer => "infer",
            Self::Manage => "manage",
        }
    }
}

/// Whether a request speaks Anthropic's API: its clients name a version. OpenAI's and Anthropic's lists of models lie
/// at the same path.
pub(crate) fn is_anthropic(headers: &HeaderMap) -> bool {
    headers.contains_key("anthropic-version")
}

/// The dialect of a path that is in no table: what its caller most likely reads.
pub(crate) fn likely(path: &str) -> Dialect {
    match path {
        _ if path.starts_with("/api/v0/") => Dialect::LmStudio,
        _ if path.starts_with("/api/") => Dialect::Ollama,
        _ if path.starts_with("/v1/messages") => Dialect::Anthropic,
        _ if is_llamas(path) => Dialect::Llama,
        _ => Dialect::OpenAi,
    }
}

/// Whether a path begins as one of llama-server's own, also one that is not here.
fn is_llamas(path: &str) -> bool {
    let first = path.strip_prefix('/').and_then(|path| path.split('/').next());
    matches!(
        first,
        Some(
            "apply-template"
                | "completion"
                | "completions"
                | "detokenize"
                | "embedding"
                | "embeddings"
                | "health"
                | "infill"
                | "lora-adapters"
                | "models"
                | "props"
                | "slots"
                | "tokenize"
        )
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_no_table_is_told_in_the_words_of_its_likely_caller() {
        for (path, want) in [
            ("/api/v0/models/x", Dialect::LmStudio),
            ("/api/nothing", Dialect::Ollama),
            ("/v1/messages/batches", Dialect::Anthropic),
            ("/lora-adapters", Dialect::Llama),
            ("/slots/0", Dialect::Llama),
            ("/slotsmachine", Dialect::OpenAi),
            ("/v1/completions/x", Dialect::OpenAi),
            ("/", Dialect::OpenAi),
        ] {
            assert_eq!(likely(path), want, "{path}");
        }
    }
}
