//! What OpenAI's flavours write, and what they answer besides the common.

use serde_json::{Value, json};
use tieline_providers::openai::{FLAVOURS, OpenAi, flavour};
use tieline_providers::protocol::{Frame, Protocol, USAGE_UNKNOWN};
use tieline_types::{
    BackendError, Constraint, Effort, ErrorKind, Event, FinishReason, Finished, Message, Origin,
    Prompt, Request, Retry, Role, Sampling, Tokens, Tool, ToolCall,
};

use crate::rig::question;

fn write(name: &str, request: &Request) -> Result<(String, Value, Vec<String>), BackendError> {
    write_to(name, "m", request)
}

fn write_to(
    name: &str,
    model: &str,
    request: &Request,
) -> Result<(String, Value, Vec<String>), BackendError> {
    let written = OpenAi::new(flavour(name).unwrap()).write(request, model, Some("k"))?;
    assert_eq!(written.headers, [("authorization", "Bearer k".to_owned())]);
    Ok((written.path, written.body, written.warnings))
}

#[track_caller]
fn check(name: &str, change: impl Fn(&mut Request), member: &str, want: &Value) {
    let mut request = question();
    change(&mut request);
    let (_, body, warnings) = write(name, &request).unwrap();
    assert_eq!(&body[member], want, "{body}");
    assert_eq!(warnings, [""; 0]);
}

#[track_caller]
fn refused(name: &str, change: impl Fn(&mut Request)) {
    let mut request = question();
    change(&mut request);
    let error = write(name, &request).unwrap_err();
    let found = (error.kind, error.origin, error.retry);
    // Another vendor may have words for it.
    assert_eq!(found, (ErrorKind::Unsupported, Origin::Caller, Retry::Elsewhere), "{error}");
}

#[track_caller]
fn warned(name: &str, change: impl Fn(&mut Request), member: &str) {
    let mut request = question();
    change(&mut request);
    let (_, body, warnings) = write(name, &request).unwrap();
    assert!(body.get(member).is_none() && warnings.len() == 1, "{body} {warnings:?}");
}

#[test]
fn a_plain_question_has_no_member_that_nobody_asked_for() {
    let (path, body, warnings) = write("openai", &question()).unwrap();
    assert_eq!((path.as_str(), warnings.len()), ("/chat/completions", 0));
    let want = json!({
        "model": "m",
        "messages": [{"role": "user", "content": "CANARY-of-the-prompt"}],
        "stream": true,
        "stream_options": {"include_usage": true},
        "temperature": 0.8,
        "top_p": 0.95
    });
    assert_eq!(body, want);
}

/// Whoever chooses what is our default gets it, and whoever chooses nothing gets the same everywhere.
#[test]
fn temperature_and_top_p_are_always_sent() {
    for flavour in FLAVOURS {
        check(flavour.name, |_| {}, "temperature", &json!(0.8));
        check(flavour.name, |_| {}, "top_p", &json!(0.95));
        let chosen = |request: &mut Request| {
            (request.sampling.temperature, request.sampling.top_p) = (1.0, 0.9);
        };
        check(flavour.name, chosen, "temperature", &json!(1.0));
        check(flavour.name, chosen, "top_p", &json!(0.9));
    }
}

/// What is sent for "think" and for "do not think", and whether the caller is warned.
#[track_caller]
fn effort(name: &str, model: &str, want: [(Option<&str>, bool); 2]) {
    let found = [true, false].map(|thinks| {
        let request = Request { thinking: Some(thinks), ..question() };
        let (_, body, warnings) = write_to(name, model, &request).unwrap();
        (body["reasoning_effort"].as_str().map(str::to_owned), !warnings.is_empty())
    });
    let want = want.map(|(word, warned)| (word.map(str::to_owned), warned));
    assert_eq!(found, want, "{name}/{model}");
}

#[test]
fn each_model_is_told_to_think_in_a_word_that_it_takes() {
    let medium = (Some("medium"), false);
    effort("openai", "o3", [medium, (Some("low"), true)]);
    effort("openai", "o4-mini-2025-04-16", [medium, (Some("low"), true)]);
    effort("openai", "ft:o4-mini-2025-04-16:org::a1", [medium, (Some("low"), true)]);
    effort("openai", "gpt-5", [medium, (Some("minimal"), true)]);
    effort("openai", "gpt-5-mini", [medium, (Some("minimal"), true)]);
    effort("openai", "gpt-5-codex", [medium, (Some("low"), true)]);
    effort("openai", "gpt-5.1", [medium, (Some("none"), false)]);
    effort("openai", "m", [medium, (Some("none"), false)]);
    // They think as they like.
    effort("openai", "gpt-5.2-chat-latest", [(None, false), (None, true)]);
    effort("openai", "gpt-5-pro", [(None, false), (None, true)]);
    let cannot = [(None, true), (None, false)];
    effort("openai", "gpt-4.1", cannot);
    effort("openai", "ft:gpt-4o-2024-08-06:org::a1", cannot);
    effort("openai", "chatgpt-4o-latest", cannot);
    effort("openai", "gpt-5-chat-latest", cannot);
    effort("groq", "openai/gpt-oss-120b", [medium, (Some("low"), true)]);
    effort("groq", "qwen/qwen3-32b", [(Some("default"), false), (Some("none"), false)]);
    effort("groq", "llama-3.3-70b-versatile", cannot);
    effort("groq", "meta-llama/llama-4-scout-17b-16e-instruct", cannot);
    // It may think, and takes no word for it.
    effort("groq", "deepseek-r1-distill-llama-70b", [(None, true), (None, true)]);
}

#[test]
fn how_much_to_think_is_said_in_the_vendors_words() {
    let to_think = |effort| move |request: &mut Request| request.effort = Some(effort);
    let high = to_think(Effort::High);
    check("openai", high, "reasoning_effort", &json!("high"));
    check("openrouter", high, "reasoning", &json!({"effort": "high"}));
    let within = to_think(Effort::Within(Tokens(2000)));
    check("openrouter", within, "reasoning", &json!({"max_tokens": 2000}));
    let kwargs = |effort: &str| json!({"enable_thinking": true, "reasoning_effort": effort});
    check("vllm", high, "chat_template_kwargs", &kwargs("high"));
    check("tieline", to_think(Effort::Max), "chat_template_kwargs", &kwargs("max"));
    // Where there is no word for it, the nearest is said, and that it was.
    warned("vllm", to_think(Effort::Max), "high is what could be said");
    warned("openai", within, "medium is what could be said");
    warned("deepseek", high, "how much to think");
    warned("together", high, "how much to think");
    // As much as it likes is what all do.
    check("openai", to_think(Effort::Own), "reasoning_effort", &Value::Null);
    // Who is not to think is not told how much.
    let off = |request: &mut Request| {
        (request.thinking, request.effort) = (Some(false), Some(Effort::High));
    };
    check("vllm", off, "chat_template_kwargs", &json!({"enable_thinking": false}));
    check("openrouter", off, "reasoning", &json!({"enabled": false}));
}

#[test]
fn a_thinking_model_of_openai_takes_no_stops_and_tells_no_probabilities() {
    let refused = |model: &str, change: fn(&mut Request)| {
        let mut request = question();
        change(&mut request);
        write_to("openai", model, &request).is_err()
    };
    let stop: fn(&mut Request) = |request| request.stop = vec!["x".to_owned()];
    let scores: fn(&mut Request) = |request| request.logprobs = Some(1);
    let quiet: fn(&mut Request) = |request| {
        (request.thinking, request.logprobs) = (Some(false), Some(1));
    };
    for model in ["o3", "gpt-5-mini", "gpt-5.4-pro"] {
        assert!(refused(model, stop) && refused(model, scores) && refused(model, quiet), "{model}");
    }
    assert!(!refused("gpt-5.1", stop) && refused("gpt-5.1", scores) && !refused("gpt-5.1", quiet));
    assert!(!refused("gpt-4.1", stop) && !refused("gpt-4.1", scores));
}

#[test]
fn each_vendor_has_its_own_words() {
    let limit = |request: &mut Request| request.max_tokens = Some(Tokens(9));
    check("openai", limit, "max_completion_tokens", &json!(9));
    check("vllm", limit, "max_tokens", &json!(9));
    let seed = |request: &mut Request| request.sampling.seed = Some(3);
    check("mistral", seed, "random_seed", &json!(3));
    check("mistral", seed, "stream_options", &Value::Null);
    let repeat = |request: &mut Request| request.sampling.repeat_penalty = 1.5;
    check("vllm", repeat, "repetition_penalty", &json!(1.5));
    check("llama-server", repeat, "repeat_penalty", &json!(1.5));
    let off = |request: &mut Request| request.thinking = Some(false);
    check("deepseek", off, "thinking", &json!({"type": "disabled"}));
    check("openrouter", off, "reasoning", &json!({"enabled": false}));
    check("tieline", off, "chat_template_kwargs", &json!({"enable_thinking": false}));
    check("openai", off, "reasoning_effort", &json!("none"));
    let gbnf = |request: &mut Request| request.constraint = Some(Constraint::Gbnf("root".into()));
    check("llama-server", gbnf, "grammar", &json!("root"));
    // The likeliest token is among the 7 likeliest.
    let greedy = |request: &mut Request| {
        request.sampling = Sampling { top_k: 7, ..Sampling::greedy() };
    };
    check("openai", greedy, "temperature", &json!(0.0));
}

fn named(letters: usize) -> Tool {
    Tool { name: "a".repeat(letters), description: String::new(), parameters: String::new() }
}

#[test]
fn what_would_be_another_answer_is_refused() {
    refused("openai", |request| request.sampling.logit_bias = vec![(1, 1.0)]);
    refused("openai", |request| request.deterministic = true);
    refused("openai", |request| request.ignore_eog = true);
    refused("openai", |request| request.prompt_logprobs = Some(1));
    refused("openai", |request| request.tools = vec![named(65)]);
    let taken = Request { tools: vec![named(64)], ..question() };
    assert!(write("openai", &taken).is_ok());
    refused("groq", |request| request.logprobs = Some(1));
    refused("openai", |request| request.constraint = Some(Constraint::Regex("a".into())));
    refused("tieline", |request| request.constraint = Some(Constraint::Lark("a".into())));
    refused("openai", |request| request.stop = vec!["a".to_owned(); 5]);
    refused("openai", |request| request.prompt = Prompt::Tokens(vec![1]));
    refused("groq", |request| request.prompt = Prompt::Text("a".into()));
    let gap = |request: &mut Request| {
        request.prompt = Prompt::Infill { prefix: "a".into(), suffix: "b".into() };
    };
    refused("openai", gap);
    let mut request = question();
    gap(&mut request);
    let (path, body, _) = write("tieline", &request).unwrap();
    assert_eq!((path.as_str(), &body["suffix"]), ("/completions", &json!("b")));
}

#[test]
fn what_is_harmless_is_named() {
    warned("openai", |request| request.sampling.top_k = 5, "top_k");
    warned("groq", |request| request.sampling.min_p = 0.2, "min_p");
    warned("deepseek", |request| request.sampling.seed = Some(1), "seed");
    warned("mistral", |request| request.thinking = Some(true), "thinking");
    warned("openai", |request| request.cache = false, "cache");
}

#[test]
fn a_thinking_model_of_openai_takes_no_temperature() {
    let protocol = OpenAi::new(flavour("openai").unwrap());
    let written = protocol.write(&question(), "gpt-5-mini", None).unwrap();
    assert!(written.body.get("temperature").is_none() && written.warnings.is_empty());
    let mut request = question();
    request.sampling = Sampling::greedy();
    for model in ["o3", "ft:o4-mini:org::a1", "gpt-5.2-chat-latest", "gpt-6"] {
        let written = protocol.write(&request, model, None).unwrap();
        let sent = written.body.get("temperature").is_some();
        assert_eq!((sent, written.warnings.len()), (false, 1), "{model}");
    }
    for model in ["gpt-4.1", "gpt-5-chat-latest"] {
        assert_eq!(protocol.write(&request, model, None).unwrap().body["temperature"], 0.0);
    }
}

#[test]
fn a_schema_is_strict_where_it_can_be() {
    let schema = |text: &str| {
        let mut request = question();
        request.constraint = Some(Constraint::JsonSchema(text.to_owned()));
        request
    };
    let open = schema(r#"{"type":"object","properties":{"a":{"type":"object"}}}"#);
    let strict = "/response_format/json_schema/strict";
    let (_, body, warnings) = write("openai", &open).unwrap();
    assert_eq!((body.pointer(strict), warnings.len()), (Some(&json!(false)), 1));
    let (_, body, warnings) = write("vllm", &open).unwrap();
    assert_eq!((body.pointer(strict), warnings.len()), (Some(&json!(true)), 0));
    let closed = schema(r#"{"type":"object","properties":{},"additionalProperties":false}"#);
    let (_, body, _) = write("openai", &closed).unwrap();
    assert_eq!(body.pointer(strict), Some(&json!(true)));
}

#[test]
fn a_conversation_keeps_its_calls_and_gives_back_thoughts_where_they_are_wanted() {
    let call = ToolCall { id: "toolu_01".into(), name: "f".into(), arguments: "{}".into() };
    let assistant = Message {
        reasoning: Some("hm".into()),
        tool_calls: vec![call],
        ..Message::new(Role::Assistant, "")
    };
    let result = Message { tool_call_id: Some("toolu_01".into()), ..Message::new(Role::Tool, "7") };
    let request = Request::new(Prompt::Chat(vec![assistant, result]));
    let (_, body, _) = write("deepseek", &request).unwrap();
    let function = json!({"name": "f", "arguments": "{}"});
    let want = json!([
        {
            "role": "assistant", "content": null, "reasoning_content": "hm",
            "tool_calls": [{"id": "toolu_01", "type": "function", "function": function}]
        },
        {"role": "tool", "content": "7", "tool_call_id": "toolu_01"}
    ]);
    assert_eq!(body["messages"], want);
    // Mistral's ids have nine letters; both places get the same one.
    let (_, body, warnings) = write("mistral", &request).unwrap();
    let id = body["messages"][1]["tool_call_id"].as_str().unwrap();
    assert_eq!((id.len(), &body["messages"][0]["tool_calls"][0]["id"]), (9, &json!(id)));
    assert_eq!(warnings.len(), 1);
}

fn read(frames: &[&str]) -> Result<(String, String, Finished), BackendError> {
    let mut reader = OpenAi::new(flavour("openai").unwrap()).reader(&question());
    let mut events = Vec::new();
    for data in frames {
        reader.read(Frame { event: "", data }, &mut events)?;
    }
    if !events.iter().any(|event| matches!(event, Event::Finished(_))) {
        reader.end(&mut events)?;
    }
    let (mut text, mut besides, mut finished) = (String::new(), String::new(), None);
    for event in events {
        match event {
            Event::Piece(piece) => text.push_str(piece.text.expose()),
            Event::Reasoning(piece) => besides.push_str(piece.text.expose()),
            Event::Warning(warning) => besides.push_str(&warning),
            Event::Finished(end) => finished = Some(*end),
            other => panic!("{other:?}"),
        }
    }
    Ok((text, besides, finished.unwrap()))
}

const STOP: &str = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#;

#[test]
fn usage_is_found_in_all_its_places() {
    let usage = |frame: &str| {
        let (_, besides, finished) = read(&[frame, STOP, "[DONE]"]).unwrap();
        assert_eq!(besides, "");
        let usage = finished.usage;
        (usage.prompt_tokens.0, usage.cached_tokens.0, usage.completion_tokens.0)
    };
    let deepseek = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_cache_hit_tokens":4,"prompt_cache_miss_tokens":5}}"#;
    assert_eq!(usage(deepseek), (9, 4, 2));
    let groq = r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":9,"completion_tokens":2}}}"#;
    assert_eq!(usage(groq), (9, 0, 2));
    // More from the cache than there was.
    let odd = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"prompt_tokens_details":{"cached_tokens":50}}}"#;
    assert_eq!(usage(odd), (9, 9, 2));
    // xAI tells thoughts beside the answer, and both in the total; OpenAI tells them as a part of it.
    let thought = |total: u32| {
        let frame = json!({"choices": [], "usage": {
            "prompt_tokens": 32, "completion_tokens": 9, "total_tokens": total,
            "completion_tokens_details": {"reasoning_tokens": 94}
        }});
        let finished = read(&[&frame.to_string(), STOP]).unwrap().2;
        (finished.usage.completion_tokens.0, finished.usage.reasoning_tokens.0)
    };
    assert_eq!(thought(135), (103, 94));
    assert_eq!(thought(32 + 9), (9, 9));
    let whole = r#"{"choices":[],"usage":{"prompt_tokens":32,"completion_tokens":103,"total_tokens":135,"completion_tokens_details":{"reasoning_tokens":94}}}"#;
    assert_eq!(usage(whole), (32, 0, 103));
    // In each chunk: the last one counts.
    let early = r#"{"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":9,"completion_tokens":1}}"#;
    let late = r#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5}}"#;
    let (_, _, finished) = read(&[early, STOP, late]).unwrap();
    assert_eq!(finished.usage.completion_tokens, Tokens(5));
    assert_eq!(read(&[STOP]).unwrap().1, USAGE_UNKNOWN);
}

#[test]
fn parts_of_mistral_and_refusals_of_openai_are_read() {
    let parts = r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"hm"}]},{"type":"text","text":"yes"}]}}]}"#;
    let (text, besides, _) = read(&[parts, STOP]).unwrap();
    assert!(text == "yes" && besides.starts_with("hm"));
    let refusal = r#"{"choices":[{"delta":{"refusal":"I will not"}}]}"#;
    let (text, _, finished) = read(&[refusal, STOP]).unwrap();
    assert_eq!((text.as_str(), finished.reason), ("I will not", FinishReason::Filtered));
}

#[test]
fn what_is_no_answer_is_the_vendors_fault() {
    let no_end = r#"{"choices":[{"delta":{"content":"a"}}]}"#;
    let error = r#"{"error":{"code":502}}"#;
    for frames in [&[no_end][..], &[no_end, "[DONE]"], &["7"], &["{"], &[error]] {
        assert_eq!(read(frames).unwrap_err().kind, ErrorKind::Upstream, "{frames:?}");
    }
    let (_, besides, finished) =
        read(&[r#"{"choices":[{"delta":{},"finish_reason":"odd"}]}"#]).unwrap();
    assert!(besides.contains("unknown") && finished.reason == FinishReason::EndOfTurn);
}

/// Events of an answer in one piece to a request, as words.
fn read_whole(body: &Value, logprobs: Option<u8>) -> Result<Vec<String>, BackendError> {
    let request = Request { logprobs, ..question() };
    let mut reader = OpenAi::new(flavour("openai").unwrap()).reader(&request);
    let mut events = Vec::new();
    reader.whole(&body.to_string(), &mut events)?;
    let word = |event: Event| match event {
        Event::Piece(piece) => format!("{} {}", piece.text.expose(), piece.logprobs.len()),
        Event::Reasoning(piece) => format!("({})", piece.text.expose()),
        Event::Warning(_) => "!".to_owned(),
        Event::Finished(end) => format!("{:?}", end.reason),
        other => panic!("{other:?}"),
    };
    Ok(events.into_iter().map(word).collect())
}

#[test]
fn what_comes_in_one_piece_has_the_same_members() {
    let token =
        json!({"token": "yes", "logprob": -0.5, "bytes": [121, 101, 115], "top_logprobs": []});
    let answer = |message: Value| {
        let logprobs = json!({"content": [token], "refusal": null});
        json!({"choices": [
            {"index": 1, "message": {"content": "another"}, "finish_reason": "length"},
            {"message": message, "logprobs": logprobs, "finish_reason": "stop"},
        ]})
    };
    let plain = answer(json!({"content": "yes"}));
    assert_eq!(read_whole(&plain, None).unwrap(), ["yes 0", "!", "EndOfTurn"]);
    // What was not asked for is not read.
    assert_eq!(read_whole(&plain, Some(0)).unwrap(), ["yes 1", "!", "EndOfTurn"]);
    let parts = json!({"content": [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "yes"}
    ]});
    assert_eq!(read_whole(&answer(parts), None).unwrap(), ["(hm)", "yes 0", "!", "EndOfTurn"]);
    let refusal = answer(json!({"content": null, "refusal": "I will not"}));
    assert_eq!(read_whole(&refusal, None).unwrap(), ["I will not 0", "!", "Filtered"]);
    let no_end = json!({"choices": [{"message": {"content": "yes"}, "finish_reason": null}]});
    for none in
        [no_end, json!([]), json!({}), json!({"choices": {}}), json!({"error": {"code": 502}})]
    {
        assert_eq!(read_whole(&none, None).unwrap_err().kind, ErrorKind::Upstream, "{none}");
    }
}
