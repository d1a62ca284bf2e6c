//! A request in Ollama's words.

use serde_json::{Map, Value, json};
use tieline_types::{
    BackendError, Constraint, Message, Prompt, Request, Role, Sampling, Tokens, ToolChoice,
};

use crate::body;
use crate::errors::unsupported;
use crate::local;
use crate::protocol::Written;

pub(super) fn write(
    context: Option<Tokens>,
    request: &Request,
    model: &str,
) -> Result<Written, BackendError> {
    let mut warnings = Vec::new();
    local::check(request, "ollama", &mut warnings)?;
    let messages = match &request.prompt {
        Prompt::Chat(messages) => messages,
        Prompt::Text(_) | Prompt::Infill { .. } => {
            return Err(unsupported("text without a conversation", "ollama"));
        }
        Prompt::Tokens(_) | Prompt::Rendered(_) => {
            return Err(unsupported("a prompt of tokens", "ollama"));
        }
        Prompt::Texts(_) => {
            return Err(unsupported("an answer to texts that are to become vectors", "ollama"));
        }
    };
    let named = |message: &Message| message.role != Role::Tool && message.name.is_some();
    if messages.iter().any(named) {
        warnings.push("not sent to ollama: the names of speakers".to_owned());
    }
    body::warn_detail(request, &mut warnings);
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("model", model.into());
    set("messages", messages.iter().map(message).collect::<Result<_, _>>()?);
    set("stream", (!request.whole).into());
    // Otherwise the oldest turns are dropped, and a full context is shifted, without a word.
    set("truncate", false.into());
    set("shift", false.into());
    if let Some(tools) = tools(request)? {
        set("tools", tools);
    }
    if let Some(think) = think(request, &mut warnings) {
        set("think", think);
    }
    match &request.constraint {
        None => {}
        Some(Constraint::JsonObject) => {
            set("format", "json".into());
        }
        Some(Constraint::JsonSchema(schema)) => {
            set("format", local::parsed(schema, "the members of the answer's JSON Schema")?);
        }
        Some(rule @ (Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_))) => {
            return Err(unsupported(&format!("an answer by a {}", rule.as_str()), "ollama"));
        }
    }
    if let Some(most) = request.logprobs {
        set("logprobs", true.into());
        set("top_logprobs", most.into());
    }
    set("options", options(context, request));
    let path = "/api/chat".to_owned();
    let body = Value::Object(body);
    Ok(Written { path, headers: Vec::new(), body, whole: request.whole, warnings })
}

/// Whether the model thinks, or how much.
fn think(request: &Request, warnings: &mut Vec<String>) -> Option<Value> {
    let thinks = request.thinks()?;
    let level = body::effort(request, LEVELS, warnings);
    Some(level.map_or_else(|| thinks.into(), Value::from))
}

fn message(message: &Message) -> Result<Value, BackendError> {
    let mut wire = json!({"role": message.role.as_str(), "content": message.content.expose()});
    if !message.pictures.is_empty() {
        let bytes = message.pictures.iter().map(|picture| Ok(body::inline(picture, "ollama")?.1));
        wire["images"] = bytes.collect::<Result<Value, BackendError>>()?;
    }
    match message.role {
        Role::Assistant => {
            if let Some(thoughts) = &message.reasoning {
                wire["thinking"] = thoughts.expose().into();
            }
            if !message.tool_calls.is_empty() {
                let calls = message.tool_calls.iter().map(|call| {
                    let arguments = call.arguments.expose();
                    let arguments = local::parsed(arguments, "the arguments of an earlier call")?;
                    let function = json!({"name": call.name, "arguments": arguments});
                    Ok(json!({"id": call.id, "function": function}))
                });
                wire["tool_calls"] = calls.collect::<Result<_, BackendError>>()?;
            }
        }
        Role::Tool => {
            if let Some(id) = &message.tool_call_id {
                wire["tool_call_id"] = id.as_str().into();
            }
            if let Some(name) = &message.name {
                wire["tool_name"] = name.as_str().into();
            }
        }
        _ => {}
    }
    Ok(wire)
}

/// How much a model can be told to think, from the least up.
const LEVELS: &[&str] = &["low", "medium", "high", "max"];

/// It knows no choice of tools: none of them is said by sending none, and the rest cannot be said.
fn tools(request: &Request) -> Result<Option<Value>, BackendError> {
    match &request.tool_choice {
        _ if request.tools.is_empty() => return Ok(None),
        ToolChoice::Auto => {}
        ToolChoice::None => return Ok(None),
        ToolChoice::Required | ToolChoice::Named(_) => {
            return Err(unsupported("a call that must be made", "ollama"));
        }
    }
    let tools = request.tools.iter().map(|tool| {
        Ok(json!({"type": "function", "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": local::parameters(tool)?
        }}))
    });
    tools.collect::<Result<Value, BackendError>>().map(Some)
}

/// The sampling goes as a whole: its defaults are others than ours, and each of ours has a word.
fn options(context: Option<Tokens>, request: &Request) -> Value {
    let sampling: &Sampling = &request.sampling;
    let mut options = json!({
        "temperature": local::number(sampling.temperature),
        "top_k": sampling.top_k,
        "top_p": local::number(sampling.top_p),
        "min_p": local::number(sampling.min_p),
        "repeat_penalty": local::number(sampling.repeat_penalty),
        "presence_penalty": local::number(sampling.presence_penalty),
        "frequency_penalty": local::number(sampling.frequency_penalty),
        "repeat_last_n": sampling.penalty_window.0
    });
    if let Some(context) = context {
        options["num_ctx"] = context.0.into();
    }
    if let Some(most) = request.max_tokens {
        options["num_predict"] = most.0.into();
    }
    if let Some(seed) = sampling.seed {
        options["seed"] = seed.into();
    }
    if !request.stop.is_empty() {
        options["stop"] = request.stop.as_slice().into();
    }
    options
}
