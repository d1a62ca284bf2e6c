//! `/api/embed` and the older `/api/embeddings`

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tieline_router::Routed;
use tieline_types::wire::{self, Reply, Work};
use tieline_types::{
    Asker, BackendError, ErrorKind, Keep, Overflow, Pooling, Private, Served, Texts, Tokens,
    Vectors, Wanted, texts,
};

use super::asked::Asked;
use super::keep_alive::KeepAlive;
use super::manner::overflow;
use super::options::Options;
use super::time::nanos;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::{Marks, stamp};
use crate::json::Json;
use crate::open;
use crate::openapi::forms;
use crate::routes::Dialect;
use crate::vectors::{self, Ask, Made};

const WHAT: (Dialect, &str) = (Dialect::Ollama, "embeddings");

/// Members of both routes.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaEmbedder")]
pub(crate) struct WireModel {
    model: String,
    #[serde(default)]
    #[schemars(with = "Option<forms::Options>")]
    options: Option<Map<String, Value>>,
    #[serde(default)]
    #[schemars(with = "Option<forms::KeepAlive>")]
    keep_alive: Option<Value>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaEmbedRequest")]
pub(crate) struct EmbedRequest {
    #[serde(default)]
    input: Option<Input>,
    #[serde(default)]
    truncate: Option<bool>,
    #[serde(default)]
    #[schemars(range(min = 0))]
    dimensions: Option<i64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaEmbeddingsRequest")]
pub(crate) struct OldRequest {
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    prompt: Option<Private>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaTexts")]
enum Input {
    One(#[schemars(with = "String")] Private),
    Many(#[schemars(with = "Vec<String>")] Vec<Private>),
}

/// A model that makes vectors, and how its answer is headed.
struct Maker {
    name: String,
    since: Instant,
    routed: Routed,
    served: std::sync::Arc<Served>,
    ignored: Vec<String>,
    asker: Asker,
}

pub(crate) async fn embed(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<EmbedRequest, WireModel>,
) -> Result<Response, ApiError> {
    let texts = match value.input {
        None => Vec::new(),
        Some(Input::One(text)) => vec![text],
        Some(Input::Many(texts)) => texts,
    };
    let most = app.config().limits.texts;
    if texts.len() > most {
        let text = format!("input has {} texts: expected at most {most}", texts.len());
        return Err(ApiError::invalid("input", text));
    }
    let length = dimensions(value.dimensions)?;
    if app.router().switch().knows(&shared.model) {
        let since = Instant::now();
        let overflow = overflow(value.truncate);
        let ask = (texts, length, (true, overflow));
        let made = elsewhere(&app, &caller, &shared.model, ask).await?;
        let vectors: Vec<_> =
            made.vectors.into_iter().map(|vector| shorten(vector, length)).collect();
        let body = json!({
            "model": shared.model,
            "embeddings": vectors,
            "total_duration": nanos(since.elapsed()),
            "load_duration": 0,
            "prompt_eval_count": made.prompt_tokens,
        });
        return Ok(answer(&caller, body, &made.marks, &shared, ignored));
    }
    let maker = Maker::ready(&app, &caller, shared, ignored).await?;
    let load = maker.since.elapsed();
    let made = maker.vectors(&app, texts, (true, overflow(value.truncate))).await?;
    let vectors: Vec<Vec<f32>> =
        made.vectors.into_iter().map(|vector| shorten(vector, length)).collect();
    let body = json!({
        "model": maker.name,
        "embeddings": vectors,
        "total_duration": nanos(maker.since.elapsed()),
        "load_duration": nanos(load),
        "prompt_eval_count": made.prompt_tokens,
    });
    Ok(maker.end(&caller, body))
}

pub(crate) async fn embeddings(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<OldRequest, WireModel>,
) -> Result<Response, ApiError> {
    let text = value.prompt.filter(|text| !text.expose().is_empty());
    if app.router().switch().knows(&shared.model) {
        let ask = (text.into_iter().collect(), None, (false, Overflow::Error));
        let mut made = elsewhere(&app, &caller, &shared.model, ask).await?;
        let body = json!({ "embedding": made.vectors.pop().unwrap_or_default() });
        return Ok(answer(&caller, body, &made.marks, &shared, ignored));
    }
    let maker = Maker::ready(&app, &caller, shared, ignored).await?;
    let texts = text.into_iter().collect();
    let mut made = maker.vectors(&app, texts, (false, Overflow::Error)).await?;
    let body = json!({ "embedding": made.vectors.pop().unwrap_or_default() });
    Ok(maker.end(&caller, body))
}

/// Vectors of whom the policy chooses. No text has none, and nobody is asked.
async fn elsewhere(
    app: &App,
    caller: &Caller,
    model: &str,
    (texts, length, (normalise, overflow)): (Vec<Private>, Option<usize>, (bool, Overflow)),
) -> Result<Made, ApiError> {
    if texts.is_empty() {
        let (vectors, marks) = (Vec::new(), Marks::default());
        return Ok(Made { vectors, scores: Vec::new(), prompt_tokens: Tokens(0), marks });
    }
    let dimensions = length.and_then(|length| u32::try_from(length).ok());
    let wanted = Wanted::named(model);
    let texts = Texts { dimensions, normalise, ..Texts::new(texts) };
    vectors::make(app, caller, WHAT, Ask { wanted, texts, overflow }).await
}

/// What somebody else made, with what was asked of a model of this machine alone named.
fn answer(
    caller: &Caller,
    mut body: Value,
    marks: &Marks,
    asked: &WireModel,
    mut ignored: Vec<String>,
) -> Response {
    let local = [(asked.options.is_some(), "options"), (asked.keep_alive.is_some(), "keep_alive")];
    ignored.extend(local.iter().filter(|(there, _)| *there).map(|(_, name)| (*name).to_owned()));
    if !marks.warnings.is_empty() {
        body["tieline"] = json!({ "warnings": marks.warnings });
    }
    stamp(axum::Json(body).into_response(), caller, marks, &ignored)
}

impl Maker {
    async fn ready(
        app: &App,
        caller: &Caller,
        model: WireModel,
        mut ignored: Vec<String>,
    ) -> Result<Self, ApiError> {
        let since = Instant::now();
        let asked = Asked::find(app, caller, &model.model)?;
        let options = Options::read(asked.parameters, &model.options.unwrap_or_default())?;
        ignored.extend(options.ignored);
        let guest = caller.principal.guest;
        let keep_alive = KeepAlive::of_caller(model.keep_alive.as_ref(), guest, &mut ignored)?;
        let wanted = Wanted {
            context: options.context,
            keep: keep_alive.keep(),
            vectors: Some(Pooling::Model),
            ..Wanted::named(asked.base)
        };
        let asker = open::asker(app, caller)?;
        let mut routed = open::route(app, caller, WHAT, wanted)?;
        let served = routed.ready().await?;
        Ok(Self { name: model.model, since, routed, served, ignored, asker })
    }

    /// One vector for each text. No text only loads the model, or has it leave.
    async fn vectors(
        &self,
        app: &App,
        texts: Vec<Private>,
        (normalise, overflow): (bool, Overflow),
    ) -> Result<Vectors, ApiError> {
        if texts.is_empty() {
            let wanted = self.routed.wanted();
            if wanted.keep == Some(Keep::For(Duration::ZERO)) {
                app.router().host().unload(&wanted.name).await?;
            }
            return Ok(Vectors { vectors: Vec::new(), prompt_tokens: Tokens(0) });
        }
        let whole = texts.iter().cloned().map(wire::Input::Text).collect();
        match self.work(whole, normalise).await {
            Err(error)
                if error.kind == ErrorKind::ContextExceeded && overflow == Overflow::DropOldest =>
            {
                Ok(self.work(self.cut(app, texts).await?, normalise).await?)
            }
            made => Ok(made?),
        }
    }

    async fn work(
        &self,
        texts: Vec<wire::Input>,
        normalise: bool,
    ) -> Result<Vectors, BackendError> {
        let asker = self.asker.clone();
        match self.routed.work(Work::Embed { texts, normalise, asker }).await? {
            Reply::Embeddings { vectors, prompt_tokens } => Ok(Vectors { vectors, prompt_tokens }),
            _ => Err(BackendError::new(ErrorKind::Internal, "the model sent no vectors")),
        }
    }

    /// The beginning of each text, as much as the model can read.
    async fn cut(&self, app: &App, texts: Vec<Private>) -> Result<Vec<wire::Input>, BackendError> {
        let most = usize::try_from(self.served.loaded.context.0).unwrap_or(usize::MAX);
        let (host, wanted) = (app.router().host(), self.routed.wanted());
        let mut inputs = Vec::new();
        for text in texts {
            let mut tokens = host.tokenize(wanted, text, (true, false)).await?;
            tokens.truncate(most);
            inputs.push(wire::Input::Tokens(tokens));
        }
        Ok(inputs)
    }

    fn end(self, caller: &Caller, body: Value) -> Response {
        let response = axum::Json(body).into_response();
        stamp(response, caller, &Marks::here(&self.served), &self.ignored)
    }
}

fn dimensions(number: Option<i64>) -> Result<Option<usize>, ApiError> {
    match number {
        None | Some(0) => Ok(None),
        Some(number) => usize::try_from(number).map(Some).map_err(|_| {
            ApiError::invalid("dimensions", format!("dimensions is {number}: expected 0 or more"))
        }),
    }
}

/// The beginning of a vector, at length 1 again.
fn shorten(mut vector: Vec<f32>, length: Option<usize>) -> Vec<f32> {
    let Some(length) = length.filter(|length| *length < vector.len()) else { return vector };
    vector.truncate(length);
    texts::normalise(&mut vector);
    vector
}
