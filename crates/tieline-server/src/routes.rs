//! All routes: what they are, whose dialect they speak and who may use them.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tieline_store::keys::Scope;

use crate::app::App;
use crate::{anthropic, health, llama, lmstudio, ollama, openai, openapi, own};

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

/// One route.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) path: &'static str,
    pub(crate) dialect: Dialect,
    pub(crate) guard: Guard,
    pub(crate) handler: MethodRouter<App>,
    /// What it does, in a few words.
    pub(crate) about: Option<&'static str>,
    /// The forms of its body: a body fits all of them.
    pub(crate) bodies: Vec<Describe>,
    /// How a streamed answer is declared, where it has one.
    pub(crate) streams: Option<&'static str>,
}

/// Describes a form.
pub(crate) type Describe = fn(&mut SchemaGenerator) -> Schema;

impl Route {
    pub(crate) fn new(
        (method, path): (Method, &'static str),
        (dialect, guard): (Dialect, Guard),
        handler: MethodRouter<App>,
    ) -> Self {
        let (about, bodies, streams) = (None, Vec::new(), None);
        Self { method, path, dialect, guard, handler, about, bodies, streams }
    }

    /// Says what the route does.
    #[must_use]
    pub(crate) fn about(self, about: &'static str) -> Self {
        Self { about: Some(about), ..self }
    }

    /// Says what its body looks like; twice where members are read in two passes.
    #[must_use]
    pub(crate) fn body<T: JsonSchema>(mut self) -> Self {
        self.bodies.push(|generator| generator.subschema_for::<T>());
        self
    }

    /// Says that it answers with a stream of this media type where the caller asks for one.
    #[must_use]
    pub(crate) fn streams(self, media: &'static str) -> Self {
        Self { streams: Some(media), ..self }
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
