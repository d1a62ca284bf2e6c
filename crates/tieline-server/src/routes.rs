//! A route: what it is, whose dialect it speaks and who may use it.

use axum::http::Method;
use axum::routing::MethodRouter;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;
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
    /// The forms of its JSON body: a body fits all of them. None: it reads no JSON.
    pub(crate) bodies: Vec<Describe>,
    /// It takes a file and no JSON.
    pub(crate) takes_file: bool,
    /// The form of its query.
    pub(crate) query: Option<Describe>,
    /// How it answers where all is well.
    pub(crate) answers: Answers,
}

/// Describes a form.
pub(crate) type Describe = fn(&mut SchemaGenerator) -> Schema;

/// What a JSON answer is called, and its form as [`shape`](crate::openapi::shape) reads it.
pub(crate) type Form = (&'static str, fn() -> Value);

/// How a route answers where all is well. Nothing: it refuses whatever it is asked.
#[derive(Default)]
pub(crate) struct Answers {
    /// A JSON body of this form.
    pub(crate) json: Option<Form>,
    /// This media type, always or where the caller asks for a stream; and the form of each JSON event or line of it.
    pub(crate) streams: Option<(&'static str, Option<Form>)>,
    /// A head alone, of each of these statuses.
    pub(crate) bare: &'static [u16],
    /// A JSON body of another status, which is no error's.
    pub(crate) other: Option<(u16, Form)>,
}

impl Route {
    pub(crate) fn new(
        (method, path): (Method, &'static str),
        (dialect, guard): (Dialect, Guard),
        handler: MethodRouter<App>,
    ) -> Self {
        let (about, bodies, query, answers) = (None, Vec::new(), None, Answers::default());
        let takes_file = false;
        Self { method, path, dialect, guard, handler, about, bodies, takes_file, query, answers }
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

    /// Says that its body is a file's bytes.
    #[must_use]
    pub(crate) fn takes_file(self) -> Self {
        Self { takes_file: true, ..self }
    }

    /// Says what its query looks like.
    #[must_use]
    pub(crate) fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(|generator| T::json_schema(generator)), ..self }
    }

    /// Says what its JSON answer looks like.
    #[must_use]
    pub(crate) fn gives(mut self, form: Form) -> Self {
        self.answers.json = Some(form);
        self
    }

    /// Says that it answers with events of this form, always or where the caller asks for a stream.
    #[must_use]
    pub(crate) fn events(mut self, form: Form) -> Self {
        self.answers.streams = Some(("text/event-stream", Some(form)));
        self
    }

    /// Says that it answers with lines of JSON of this form, always or where the caller asks for a stream.
    #[must_use]
    pub(crate) fn lines(mut self, form: Form) -> Self {
        self.answers.streams = Some(("application/x-ndjson", Some(form)));
        self
    }

    /// Says that it answers with a text of this media type.
    #[must_use]
    pub(crate) fn text(mut self, media: &'static str) -> Self {
        self.answers.streams = Some((media, None));
        self
    }

    /// Says that its answer is a head alone, of one of these statuses.
    #[must_use]
    pub(crate) fn bare(mut self, statuses: &'static [u16]) -> Self {
        self.answers.bare = statuses;
        self
    }

    /// Says that it has an answer of another status, which is no error's.
    #[must_use]
    pub(crate) fn or_gives(mut self, status: u16, form: Form) -> Self {
        self.answers.other = Some((status, form));
        self
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
