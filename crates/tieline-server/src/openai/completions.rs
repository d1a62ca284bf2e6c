//! `/v1/completions`: text to go on from, not a conversation.

mod stream;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self as streams, StreamExt, TryStreamExt};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tieline_types::wire::Input;
use tieline_types::{
    BackendError, ChoicePlan, Class, ErrorKind, FinishReason, Overflow, Private, Prompt, Request,
    Tokens, Usage, Wanted,
};

use super::answer::{self, Timings, reason, sum};
use super::chat::{StreamOptions, count};
use super::format::{ResponseFormat, Rules};
use super::legacy::{self, Echo, Lists};
use super::sampling::{OneOrMany, WireSampling, max_tokens, overflow};
use super::stream::Head;
use super::texts::Texts;
use crate::app::App;
use crate::caller::Caller;
use crate::collect::{Collected, collect};
use crate::config::Limits;
use crate::error::ApiError;
use crate::heads::{Marks, stamp};
use crate::json::Json;
use crate::llama::choose::meant;
use crate::made::Made;
use crate::open::{self, Ask, Opened, Reading};
use crate::openapi::forms;
use crate::routes::Dialect;
use crate::sse;

const WHAT: (Dialect, &str) = (Dialect::OpenAi, "completion");

/// Prompts of one call that are worked on at once.
const AT_ONCE: usize = 8;

#[derive(Debug, Deserialize, JsonSchema)]
pub(crate) struct CompletionRequest {
    #[serde(default)]
    model: Option<String>,
    prompt: Texts,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    suffix: Option<Private>,
    #[serde(default)]
    #[schemars(range(min = -1, max = 4_294_967_295_i64))]
    max_tokens: Option<i64>,
    #[serde(default)]
    stop: Option<OneOrMany>,
    #[serde(default)]
    #[schemars(range(min = 1, max = 8))]
    n: Option<u32>,
    #[serde(default)]
    #[schemars(range(min = 1, max = 8))]
    best_of: Option<u32>,
    #[serde(default)]
    stream: Option<bool>,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    #[serde(default)]
    echo: Option<bool>,
    #[serde(default)]
    #[schemars(range(max = 20))]
    logprobs: Option<u8>,
    #[serde(default)]
    response_format: Option<ResponseFormat>,
    #[serde(default)]
    #[schemars(with = "Option<Map<String, Value>>")]
    json_schema: Option<Value>,
    #[serde(default)]
    grammar: Option<String>,
    #[serde(default)]
    regex: Option<String>,
    #[serde(default)]
    lark: Option<String>,
    #[serde(default)]
    service_tier: Option<String>,
    #[serde(default)]
    cache_prompt: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Overflow>")]
    overflow: Option<String>,
}

/// How the answers are to be written.
#[derive(Clone, Copy, Debug)]
struct Manner {
    stream: bool,
    include_usage: bool,
    /// Answers to each prompt.
    count: u32,
    plan: Option<ChoicePlan>,
    echo: bool,
    logprobs: bool,
}

/// All that one call asks.
struct Asked {
    manner: Manner,
    wanted: Wanted,
    inputs: Vec<Input>,
    requests: Vec<Request>,
}

pub(crate) async fn completions(
    State(app): State<App>,
    caller: Caller,
    Json { mut value, mut shared, ignored }: Json<CompletionRequest, WireSampling>,
) -> Result<Response, ApiError> {
    let name = meant(&app, &caller, value.model.take()).await?;
    let made = Made::find(&app, &caller, &name)?;
    shared.usual = Some(made.sampling());
    value.max_tokens = value.max_tokens.or(made.max_tokens().map(|most| i64::from(most.0)));
    value.stop = value.stop.or_else(|| Some(OneOrMany::Many(made.stop())));
    let wanted = made.wanted(&Wanted::named(&name));
    let asked = value.asked(wanted, shared, &app.config().limits)?;
    let head = Head { id: format!("cmpl-{}", caller.request_id), ..Head::new("", &name) };
    let echoes = echoes(&app, &caller, &asked).await?;
    if asked.manner.stream {
        let manner = asked.manner;
        let (marks, steps) = stream::begin(&app, &caller, asked).await?;
        let events = stream::chunks(head, steps, manner, echoes);
        return Ok(stamp(sse::response(&app, events), &caller, &marks, &ignored));
    }
    let most = app.config().limits.request;
    let manner = asked.manner;
    let (marks, answers) = tokio::time::timeout(most, whole(&app, &caller, asked))
        .await
        .map_err(|_| BackendError::new(ErrorKind::Timeout, "the prompts took too long"))??;
    let body = axum::Json(completion(&head, manner, &answers, &echoes)).into_response();
    Ok(stamp(body, &caller, &marks, &ignored))
}

impl CompletionRequest {
    /// In our words, of this model.
    fn asked(
        self,
        wanted: Wanted,
        sampling: WireSampling,
        limits: &Limits,
    ) -> Result<Asked, ApiError> {
        let manner = self.manner(limits)?;
        let inputs = self.prompt.inputs("prompt", limits.texts)?;
        let suffix = self.suffix.filter(|suffix| !suffix.expose().is_empty());
        if manner.echo && suffix.is_some() {
            return Err(ApiError::invalid("echo", "echo and suffix exclude each other"));
        }
        let prompts = inputs.iter().map(|input| prompt(input, suffix.as_ref()));
        let prompts = prompts.collect::<Result<Vec<_>, _>>()?;
        let rules = Rules {
            response_format: self.response_format,
            json_schema: self.json_schema,
            grammar: self.grammar,
            regex: self.regex,
            lark: self.lark,
        };
        let overflow = overflow(self.overflow.as_deref())?;
        if manner.echo && overflow != Overflow::Error {
            let text = "echo needs the whole prompt: overflow must be error";
            return Err(ApiError::invalid("overflow", text));
        }
        let batch = self.service_tier.as_deref() == Some("flex");
        let common = Request {
            sampling: sampling.sampling()?,
            max_tokens: max_tokens(self.max_tokens.or(Some(16)))?,
            stop: self.stop.map(OneOrMany::into_vec).unwrap_or_default(),
            logprobs: self.logprobs,
            prompt_logprobs: self.logprobs.filter(|_| manner.echo),
            constraint: rules.constraint()?,
            overflow,
            class: if batch { Class::Batch } else { Class::Interactive },
            cache: self.cache_prompt.unwrap_or(true),
            ..Request::new(Prompt::Text(Private::default()))
        };
        common.validate()?;
        if let Some(plan) = manner.plan {
            plan.validate(common.max_tokens)?;
        }
        let requests = prompts.into_iter().map(|prompt| Request { prompt, ..common.clone() });
        Ok(Asked { manner, wanted, inputs, requests: requests.collect() })
    }

    fn manner(&self, limits: &Limits) -> Result<Manner, ApiError> {
        let n = count(self.n, limits)?;
        let (best_of, most) = (self.best_of.unwrap_or(n), limits.choices);
        if !(n..=most).contains(&best_of) {
            let text = format!("best_of is {best_of}: expected a number from n, {n}, to {most}");
            return Err(ApiError::invalid("best_of", text));
        }
        let plan = ChoicePlan { n, best_of: (best_of > n).then_some(best_of) };
        Ok(Manner {
            stream: self.stream.unwrap_or(false),
            include_usage: self.stream_options.unwrap_or_default().include_usage,
            count: n,
            plan: (best_of > 1).then_some(plan),
            echo: self.echo.unwrap_or(false),
            logprobs: self.logprobs.is_some(),
        })
    }
}

fn prompt(input: &Input, suffix: Option<&Private>) -> Result<Prompt, ApiError> {
    match (input, suffix) {
        (Input::Text(text), None) => Ok(Prompt::Text(text.clone())),
        (Input::Tokens(tokens), None) => Ok(Prompt::Tokens(tokens.clone())),
        (Input::Text(prefix), Some(suffix)) => {
            Ok(Prompt::Infill { prefix: prefix.clone(), suffix: suffix.clone() })
        }
        (Input::Tokens(_), Some(_)) => {
            Err(ApiError::unsupported("suffix", "suffix needs a prompt of text, not of tokens"))
        }
    }
}

/// What each answer begins with; nothing where no echo is asked for.
async fn echoes(app: &App, caller: &Caller, asked: &Asked) -> Result<Vec<Echo>, ApiError> {
    if !asked.manner.echo {
        return Ok(Vec::new());
    }
    let routed = open::route(app, caller, WHAT, asked.wanted.clone())?;
    let mut echoes = Vec::new();
    for input in &asked.inputs {
        echoes.push(legacy::echo(app, routed.wanted(), input, asked.manner.logprobs).await?);
    }
    Ok(echoes)
}

type Answered = (Marks, Vec<Vec<Collected>>);

/// All answers, those to one prompt together.
async fn whole(app: &App, caller: &Caller, asked: Asked) -> Result<Answered, ApiError> {
    let manner = asked.manner;
    let wanted = asked.wanted;
    let answers = asked.requests.into_iter().map(|request| {
        let (app, caller, wanted) = (app.clone(), caller.clone(), wanted.clone());
        async move {
            let ask = Ask { wanted, request, plan: manner.plan };
            let Opened { marks, steps } =
                open::whole_of(&app, &caller, WHAT, ask, Reading::Special).await?;
            Ok::<_, ApiError>((marks, collect(steps, manner.count).await?))
        }
    });
    let answers: Vec<_> = streams::iter(answers).buffered(AT_ONCE).try_collect().await?;
    let (mut marks, answers): (Vec<_>, _) = answers.into_iter().unzip();
    Ok((marks.pop().unwrap_or_default(), answers))
}

fn completion(head: &Head, manner: Manner, answers: &[Vec<Collected>], echoes: &[Echo]) -> Value {
    let timings = answers.first().and_then(|all| all.first()?.finished.as_deref());
    let timings = timings.map(Timings::of);
    let usages =
        answers.iter().map(|all| sum(all.iter().filter_map(|one| one.finished.as_deref())));
    let usage = answer::usage(&usages.fold(Usage::default(), add));
    let warnings: Vec<String> =
        answers.iter().flatten().flat_map(|answer| answer.warnings.iter().cloned()).collect();
    let mut choices = Vec::new();
    for (at, all) in answers.iter().enumerate() {
        for answer in all {
            choices.push(choice(choices.len(), answer, echoes.get(at), manner));
        }
    }
    let mut body = json!({
        "id": head.id,
        "object": "text_completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": usage,
        "timings": timings,
    });
    if !warnings.is_empty() {
        body["warnings"] = json!(warnings);
    }
    body
}

fn choice(index: usize, answer: &Collected, echo: Option<&Echo>, manner: Manner) -> Value {
    let mut lists = Lists::default();
    let mut text = String::new();
    if let Some(echo) = echo {
        text.push_str(echo.text.expose());
        lists.prompt(echo, &answer.prompt_logprobs);
    }
    let before = lists.len();
    text.push_str(&answer.text);
    lists.extend(&answer.logprobs);
    let finished = answer.finished.as_deref();
    if echo.is_some()
        && finished.is_some_and(|end| ended_unheard(&end.reason, end.usage, lists.len() - before))
    {
        lists.end();
    }
    json!({
        "text": text,
        "index": index,
        "logprobs": manner.logprobs.then_some(lists),
        "finish_reason": finished.map(|finished| reason(&finished.reason)),
    })
}

/// Whether the model's last token is one that ended the answer and of which nothing else was told.
fn ended_unheard(reason: &FinishReason, usage: Usage, heard: usize) -> bool {
    *reason == FinishReason::EndOfTurn
        && usize::try_from(usage.completion_tokens.0).is_ok_and(|made| made > heard)
}

/// What was used for several prompts.
fn add(all: Usage, one: Usage) -> Usage {
    let plus = |a: Tokens, b: Tokens| Tokens(a.0.saturating_add(b.0));
    Usage {
        prompt_tokens: plus(all.prompt_tokens, one.prompt_tokens),
        cached_tokens: plus(all.cached_tokens, one.cached_tokens),
        cache_write_tokens: plus(all.cache_write_tokens, one.cache_write_tokens),
        completion_tokens: plus(all.completion_tokens, one.completion_tokens),
        reasoning_tokens: plus(all.reasoning_tokens, one.reasoning_tokens),
        drafted_tokens: plus(all.drafted_tokens, one.drafted_tokens),
        accepted_tokens: plus(all.accepted_tokens, one.accepted_tokens),
        ..all
    }
}
