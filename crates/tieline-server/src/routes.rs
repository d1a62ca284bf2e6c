//! All routes: what they are, whose dialect they speak and who may use them.

use axum::http::Method;
use axum::routing::MethodRouter;

use crate::app::App;
use crate::{llama, lmstudio, openai};

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
}

/// The table.
pub(crate) fn table() -> Vec<Route> {
    let mut table = openai::routes();
    table.extend(llama::routes());
    table.extend(lmstudio::routes());
    table
}
