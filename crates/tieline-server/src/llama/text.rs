//! Text to tokens and back: `/tokenize`, `/detokenize`, `/apply-template`

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_router::Routed;
use tieline_types::wire::{Reply, Work};
use tieline_types::{BackendError, ErrorKind, Private, Prompt, Request, Wanted};

use super::choose::choose;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::heads::{Marks, stamp};
use crate::json::Json;
use crate::open;
use crate::openai::message::{WireMessage, messages};
use crate::openai::tools::{WireTool, tools};
use crate::routes::Dialect;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LlamaTokenize")]
pub(crate) struct Tokenize {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    content: Option<Private>,
    /// vLLM's name for `content`, which counts where both are given.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    prompt: Option<Private>,
    /// Add the tokens of a beginning and an end that the model's file asks for.
    #[serde(default)]
    add_special: Option<bool>,
    /// vLLM's name for `add_special`, which counts where both are given.
    #[serde(default)]
    add_special_tokens: Option<bool>,
    /// Read the names of special tokens as these tokens.
    #[serde(default = "yes")]
    parse_special: bool,
    /// Tell each token's text.
    #[serde(default)]
    with_pieces: bool,
}

fn yes() -> bool {
    true
}

pub(crate) async fn tokenize(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<Tokenize>,
) -> Result<Response, ApiError> {
    let most = app.config().limits.texts;
    let missing = || ApiError::invalid("content", "content is missing");
    let content = value.content.or(value.prompt).ok_or_else(missing)?;
    let prompt = Prompt::Text(content.clone());
    let (routed, with_pieces) =
        (route(&app, &caller, "tokenize", (value.model, prompt)).await?, value.with_pieces);
    let work = Work::Tokenize {
        text: content,
        add_special: value.add_special.or(value.add_special_tokens).unwrap_or(false),
        parse_special: value.parse_special,
    };
    let tokens = if with_pieces {
        pieces(&routed, tokens(routed.prepare(work).await?)?, most).await?
    } else {
        json!(tokens(routed.work(work).await?)?)
    };
    Ok(answer(&caller, &json!({ "tokens": tokens }), &ignored))
}

/// Each token with its text, which is asked for one by one: they may make no text together.
async fn pieces(routed: &Routed, tokens: Vec<u32>, most: usize) -> Result<Value, ApiError> {
    if tokens.len() > most {
        let text =
            format!("the text has {} tokens: with_pieces tells at most {most}", tokens.len());
        return Err(ApiError::invalid("with_pieces", text));
    }
    let work = |&token: &u32| Work::Detokenize { tokens: vec![token], special: true };
    let texts = routed.works(tokens.iter().map(work).collect()).await?;
    let pairs = tokens
        .into_iter()
        .zip(texts)
        .map(|(token, reply)| Ok(json!({ "id": token, "piece": text(reply)?.expose() })));
    Ok(json!(pairs.collect::<Result<Vec<_>, ApiError>>()?))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LlamaDetokenize")]
pub(crate) struct Detokenize {
    #[serde(default)]
    model: Option<String>,
    tokens: Vec<u32>,
}

pub(crate) async fn detokenize(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<Detokenize>,
) -> Result<Response, ApiError> {
    let prompt = Prompt::Tokens(value.tokens.clone());
    let routed = route(&app, &caller, "detokenize", (value.model, prompt)).await?;
    let work = Work::Detokenize { tokens: value.tokens, special: true };
    let text = text(routed.work(work).await?)?;
    Ok(answer(&caller, &json!({ "content": text.expose(), "prompt": text.expose() }), &ignored))
}

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "LlamaApplyTemplate")]
pub(crate) struct ApplyTemplate {
    #[serde(default)]
    model: Option<String>,
    messages: Vec<WireMessage>,
    #[serde(default)]
    tools: Option<Vec<WireTool>>,
}

pub(crate) async fn apply_template(
    State(app): State<App>,
    caller: Caller,
    Json { value, ignored, .. }: Json<ApplyTemplate>,
) -> Result<Response, ApiError> {
    let (wanted, made) = choose(&app, &caller, value.model).await?;
    let said = messages(value.messages, app.config().limits.messages)?;
    let (messages, tools) = (made.before(said), tools(value.tools.unwrap_or_default())?);
    let prompt = Prompt::Chat(messages.clone());
    let routed = here(&app, &caller, "template", (wanted, prompt)).await?;
    let prompt = text(routed.work(Work::Render { messages, tools }).await?)?;
    Ok(answer(&caller, &json!({ "prompt": prompt.expose() }), &ignored))
}

pub(super) async fn route(
    app: &App,
    caller: &Caller,
    operation: &'static str,
    (model, prompt): (Option<String>, Prompt),
) -> Result<Routed, ApiError> {
    let (wanted, _) = choose(app, caller, model).await?;
    here(app, caller, operation, (wanted, prompt)).await
}

/// The model of this machine that would be asked this first.
async fn here(
    app: &App,
    caller: &Caller,
    operation: &'static str,
    (wanted, prompt): (Wanted, Prompt),
) -> Result<Routed, ApiError> {
    let request = Request::new(prompt);
    let decided =
        open::decide(app, caller, (Dialect::Llama, operation), (wanted, &request)).await?;
    Ok(decided.only_here()?)
}

pub(super) fn answer(caller: &Caller, body: &Value, ignored: &[String]) -> Response {
    stamp(axum::Json(body).into_response(), caller, &Marks::default(), ignored)
}

/// The tokens of a reply.
pub(crate) fn tokens(reply: Reply) -> Result<Vec<u32>, BackendError> {
    match reply {
        Reply::Tokens(tokens) => Ok(tokens),
        _ => Err(unexpected()),
    }
}

pub(super) fn text(reply: Reply) -> Result<Private, BackendError> {
    match reply {
        Reply::Text(text) => Ok(text),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the runner answered something else")
}
