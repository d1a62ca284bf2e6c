//! A route: what it is, whose dialect it speaks and who may use it.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use tieline_store::keys::Scope;

use crate::app::App;
pub(crate) use crate::dialect::{Dialect, Guard};

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

    /// Says that it answers with this media type too, always or where the caller asks for a stream.
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
