//! What clients of each dialect ask, in their own words.

use serde_json::{Value, json};

/// A dialect's route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Chat,
    Completions,
    Responses,
    Messages,
    OllamaChat,
    OllamaGenerate,
    Llama,
}

/// What is asked for besides a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    Nothing,
    System,
    Tools,
    Results,
    Schema,
    Thinking,
    NoThinking,
    Stop,
    Picture,
    Link,
    ResultPicture,
}

pub(crate) const QUESTION: &str = "What do they write?";
pub(crate) const SYSTEM: &str = "You answer in one line.";
pub(crate) const STOP: &str = "END";
/// The first bytes of a PNG, which is all of it that anybody here looks at.
pub(crate) const PNG: &str = "iVBORw0KGgo=";
pub(crate) const LINK: &str = "https://example.org/a.png";

/// The schema of an answer, and of a tool's arguments.
pub(crate) fn schema() -> Value {
    json!({
        "type": "object", "properties": { "to": { "type": "string" } }, "required": ["to"],
        "additionalProperties": false
    })
}

impl Client {
    pub(crate) const ALL: [Self; 7] = [
        Self::Chat,
        Self::Completions,
        Self::Responses,
        Self::Messages,
        Self::OllamaChat,
        Self::OllamaGenerate,
        Self::Llama,
    ];

    /// The column's title.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Chat => "OpenAI chat",
            Self::Completions => "OpenAI completions",
            Self::Responses => "OpenAI Responses",
            Self::Messages => "Anthropic messages",
            Self::OllamaChat => "Ollama chat",
            Self::OllamaGenerate => "Ollama generate",
            Self::Llama => "llama-server",
        }
    }

    pub(crate) fn path(self) -> &'static str {
        match self {
            Self::Chat => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::OllamaChat => "/api/chat",
            Self::OllamaGenerate => "/api/generate",
            Self::Llama => "/completion",
        }
    }

    /// The body of a request; `None`: the dialect has no word for the wish.
    pub(crate) fn body(self, wish: Wish, model: &str, stream: bool) -> Option<Value> {
        let mut body = match self {
            Self::Chat => chat(wish)?,
            Self::Completions => completions(wish)?,
            Self::Responses => responses(wish)?,
            Self::Messages => messages(wish),
            Self::OllamaChat => ollama_chat(wish)?,
            Self::OllamaGenerate => ollama_generate(wish)?,
            Self::Llama => llama(wish)?,
        };
        body["model"] = json!(model);
        body["stream"] = json!(stream);
        if stream && matches!(self, Self::Chat | Self::Completions) {
            body["stream_options"] = json!({ "include_usage": true });
        }
        Some(body)
    }
}

fn chat(wish: Wish) -> Option<Value> {
    let user = json!({ "role": "user", "content": QUESTION });
    Some(match wish {
        Wish::Nothing => json!({ "messages": [user] }),
        Wish::System => json!({ "messages": [{ "role": "system", "content": SYSTEM }, user] }),
        Wish::Tools => json!({ "messages": [user], "tools": functions() }),
        Wish::Results => json!({ "messages": [user,
            { "role": "assistant", "content": null, "tool_calls": [
                { "id": "call00001", "type": "function",
                  "function": { "name": "mail", "arguments": "{\"to\":\"anna\"}" } },
                { "id": "call00002", "type": "function",
                  "function": { "name": "now", "arguments": "{}" } },
            ] },
            { "role": "tool", "tool_call_id": "call00002", "content": "noon" },
            { "role": "tool", "tool_call_id": "call00001", "content": "sent" },
        ], "tools": functions() }),
        Wish::Schema => json!({ "messages": [user], "response_format": { "type": "json_schema",
            "json_schema": { "name": "letter", "schema": schema(), "strict": true } } }),
        Wish::Thinking => json!({ "messages": [user], "reasoning_effort": "medium" }),
        Wish::NoThinking => json!({ "messages": [user], "reasoning_effort": "none" }),
        Wish::Stop => json!({ "messages": [user], "stop": [STOP] }),
        Wish::Picture | Wish::Link => json!({ "messages": [{ "role": "user", "content": [
            { "type": "text", "text": QUESTION },
            { "type": "image_url", "image_url": { "url": url(wish) } },
        ] }] }),
        Wish::ResultPicture => return None,
    })
}

fn url(wish: Wish) -> String {
    if wish == Wish::Link { LINK.to_owned() } else { format!("data:image/png;base64,{PNG}") }
}

fn functions() -> Value {
    json!([
        { "type": "function", "function": {
            "name": "mail", "description": "Sends a mail.", "parameters": schema() } },
        { "type": "function", "function": {
            "name": "now", "description": "Tells the time.",
            "parameters": { "type": "object", "properties": {} } } },
    ])
}

fn completions(wish: Wish) -> Option<Value> {
    match wish {
        Wish::Nothing => Some(json!({ "prompt": QUESTION })),
        Wish::Stop => Some(json!({ "prompt": QUESTION, "stop": [STOP] })),
        Wish::Schema => Some(json!({ "prompt": QUESTION, "json_schema": schema() })),
        _ => None,
    }
}

fn responses(wish: Wish) -> Option<Value> {
    let tools = || {
        let all = functions();
        let flat = all.as_array().unwrap().iter().map(|tool| {
            let mut flat = tool["function"].clone();
            flat["type"] = json!("function");
            flat
        });
        flat.collect::<Value>()
    };
    Some(match wish {
        Wish::Nothing => json!({ "input": QUESTION }),
        Wish::System => json!({ "input": QUESTION, "instructions": SYSTEM }),
        Wish::Tools => json!({ "input": QUESTION, "tools": tools() }),
        Wish::Results => json!({ "input": [
            { "type": "message", "role": "user", "content": QUESTION },
            { "type": "function_call", "call_id": "call00001", "name": "mail",
              "arguments": "{\"to\":\"anna\"}" },
            { "type": "function_call", "call_id": "call00002", "name": "now", "arguments": "{}" },
            { "type": "function_call_output", "call_id": "call00002", "output": "noon" },
            { "type": "function_call_output", "call_id": "call00001", "output": "sent" },
        ], "tools": tools() }),
        Wish::Schema => json!({ "input": QUESTION, "text": { "format": {
            "type": "json_schema", "name": "letter", "schema": schema(), "strict": true } } }),
        Wish::Thinking => json!({ "input": QUESTION, "reasoning": { "effort": "medium" } }),
        Wish::NoThinking => json!({ "input": QUESTION, "reasoning": { "effort": "none" } }),
        Wish::Stop => return None,
        Wish::Picture | Wish::Link => json!({ "input": [{ "role": "user", "content": [
            { "type": "input_text", "text": QUESTION },
            { "type": "input_image", "image_url": url(wish) },
        ] }] }),
        Wish::ResultPicture => json!({ "input": [
            { "type": "message", "role": "user", "content": QUESTION },
            { "type": "function_call", "call_id": "call00001", "name": "mail",
              "arguments": "{\"to\":\"anna\"}" },
            { "type": "function_call_output", "call_id": "call00001", "output": [
                { "type": "input_text", "text": "seen" },
                { "type": "input_image", "image_url": url(wish) } ] },
        ], "tools": tools() }),
    })
}

fn messages(wish: Wish) -> Value {
    let user = json!({ "role": "user", "content": QUESTION });
    let tools = || {
        let all = functions();
        let flat = all.as_array().unwrap().iter().map(|tool| {
            json!({ "name": tool["function"]["name"], "description": tool["function"]["description"],
                "input_schema": tool["function"]["parameters"] })
        });
        flat.collect::<Value>()
    };
    let mut body = match wish {
        Wish::Nothing | Wish::NoThinking => json!({ "messages": [user] }),
        Wish::System => json!({ "messages": [user], "system": SYSTEM }),
        Wish::Tools => json!({ "messages": [user], "tools": tools() }),
        Wish::Results => json!({ "messages": [user,
            { "role": "assistant", "content": [
                { "type": "tool_use", "id": "call00001", "name": "mail", "input": { "to": "anna" } },
                { "type": "tool_use", "id": "call00002", "name": "now", "input": {} },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "call00002", "content": "noon" },
                { "type": "tool_result", "tool_use_id": "call00001", "content": "sent" },
            ] },
        ], "tools": tools() }),
        Wish::Schema => json!({ "messages": [user],
            "output_config": { "format": { "type": "json_schema", "schema": schema() } } }),
        Wish::Thinking => json!({ "messages": [user] }),
        Wish::Stop => json!({ "messages": [user], "stop_sequences": [STOP] }),
        Wish::Picture | Wish::Link => json!({ "messages": [{ "role": "user", "content": [
            { "type": "text", "text": QUESTION }, image(wish) ] }] }),
        Wish::ResultPicture => json!({ "messages": [user,
            { "role": "assistant", "content": [
                { "type": "tool_use", "id": "call00001", "name": "mail", "input": { "to": "anna" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "call00001", "content": [
                    { "type": "text", "text": "seen" }, image(wish) ] },
            ] },
        ], "tools": tools() }),
    };
    // Whoever says nothing wants no thoughts; these clients leave that to the model.
    body["thinking"] = match wish {
        Wish::Thinking => json!({ "type": "enabled", "budget_tokens": 1024 }),
        Wish::NoThinking => json!({ "type": "disabled" }),
        _ => json!({ "type": "adaptive" }),
    };
    body["max_tokens"] = json!(4000);
    body
}

fn image(wish: Wish) -> Value {
    let source = match wish {
        Wish::Link => json!({ "type": "url", "url": LINK }),
        _ => json!({ "type": "base64", "media_type": "image/png", "data": PNG }),
    };
    json!({ "type": "image", "source": source })
}

fn ollama_chat(wish: Wish) -> Option<Value> {
    let user = json!({ "role": "user", "content": QUESTION });
    Some(match wish {
        Wish::Nothing => json!({ "messages": [user] }),
        Wish::System => json!({ "messages": [{ "role": "system", "content": SYSTEM }, user] }),
        Wish::Tools => json!({ "messages": [user], "tools": functions() }),
        Wish::Results => json!({ "messages": [user,
            { "role": "assistant", "content": "", "tool_calls": [
                { "function": { "name": "mail", "arguments": { "to": "anna" } } },
                { "function": { "name": "now", "arguments": {} } },
            ] },
            { "role": "tool", "tool_name": "now", "content": "noon" },
            { "role": "tool", "tool_name": "mail", "content": "sent" },
        ], "tools": functions() }),
        Wish::Schema => json!({ "messages": [user], "format": schema() }),
        Wish::Thinking => json!({ "messages": [user], "think": true }),
        Wish::NoThinking => json!({ "messages": [user], "think": false }),
        Wish::Stop => json!({ "messages": [user], "options": { "stop": [STOP] } }),
        Wish::Picture => json!({ "messages": [
            { "role": "user", "content": QUESTION, "images": [PNG] } ] }),
        Wish::Link | Wish::ResultPicture => return None,
    })
}

fn ollama_generate(wish: Wish) -> Option<Value> {
    let mut body = json!({ "prompt": QUESTION });
    match wish {
        Wish::Nothing => {}
        Wish::System => body["system"] = json!(SYSTEM),
        Wish::Schema => body["format"] = schema(),
        Wish::Thinking => body["think"] = json!(true),
        Wish::NoThinking => body["think"] = json!(false),
        Wish::Stop => body["options"] = json!({ "stop": [STOP] }),
        Wish::Picture => body["images"] = json!([PNG]),
        Wish::Tools | Wish::Results | Wish::Link | Wish::ResultPicture => return None,
    }
    Some(body)
}

fn llama(wish: Wish) -> Option<Value> {
    let mut body = json!({ "prompt": QUESTION });
    match wish {
        Wish::Nothing => {}
        Wish::Stop => body["stop"] = json!([STOP]),
        Wish::Schema => body["json_schema"] = schema(),
        _ => return None,
    }
    Some(body)
}
