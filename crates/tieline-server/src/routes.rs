//! All routes: what they are, whose dialect they speak and who may use them.

use axum::http::Method;
use axum::routing::MethodRouter;
use tieline_store::keys::Scope;

use crate::app::App;
use crate::{anthropic, health, ollama, openai, own};

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

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) guard: Guard,
    pub(crate) handler: MethodRouter<App>,
}

impl Route {
    pub(crate) fn new(
        (method, path): (Method, &'static str),
        (dialect, guard): (Dialect, Guard),
        handler: MethodRouter<App>,
    ) -> Self {
        Self { method, path, dialect, guard, handler }
    }

    /// What a key must be allowed to do here: one of these.
    pub(crate) fn scopes(&self) -> &'static [Scope] {
        let vectors = ["embed", "rerank"].iter().any(|word| self.path.contains(word));
        match self.guard {
            Guard::Open => &Scope::ALL,
            // Whoever may use a model may see which there are.
            Guard::Read => &Scope::ALL,
            Guard::Infer if vectors => &[Scope::Infer, Scope::Embed],
            Guard::Infer => &[Scope::Infer],
            Guard::Manage => &[Scope::WriteModels],
        }
    }
}

/// The table.
pub(crate) fn table() -> Vec<Route> {
    let dialects = [openai::routes(), anthropic::routes(), ollama::routes()];
    dialects.into_iter().chain([own::routes(), health::routes()]).flatten().collect()
}
