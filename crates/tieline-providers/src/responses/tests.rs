use proptest::prelude::*;
use serde_json::json;
use tieline_types::{
    Alternative, Constraint, Effort, ErrorKind, Event, Message, Piece, Role, TokenLogprob, Tokens,
    ToolChoice,
};

use super::*;
use crate::replay;

macro_rules! transcript {
    ($name:literal) => {
        replay::check(
            &Responses,
            include_str!(concat!("../../transcripts/responses/", $name, ".sse")),
            include_str!(concat!("../../transcripts/responses/", $name, ".events")),
        )
    };
}

#[test]
fn text_is_told_in_pieces() {
    transcript!("text");
}

#[test]
fn calls_at_once_keep_their_arguments_and_counts() {
    transcript!("parallel-calls");
}

#[test]
fn a_refusal_is_filtered() {
    transcript!("refusal");
}

#[test]
fn a_cut_call_has_no_end() {
    transcript!("cut-in-a-call");
}

#[test]
fn a_filter_is_told() {
    transcript!("filtered");
}

#[test]
fn a_failure_is_an_error() {
    transcript!("failed");
}

#[test]
fn an_error_amid_the_answer_ends_it() {
    transcript!("error");
}

#[test]
fn a_broken_off_answer_is_no_answer() {
    transcript!("broken-off");
}

#[test]
fn items_at_once_are_read() {
    transcript!("other-host");
}

const MODEL: &str = "gpt-5.1";

#[test]
fn a_conversation_with_calls_is_written_whole() {
    let mut messages = replay::agent();
    messages.insert(5, Message::new(Role::System, "Be kind."));
    let mut request = replay::request(messages);
    request.tools = replay::tools();
    request.max_tokens = Some(Tokens(500));
    request.thinking = Some(true);
    let written = Responses.write(&request, MODEL, Some("sk-1")).unwrap();
    assert_eq!(written.path, "/responses");
    assert_eq!(written.headers, [("authorization", "Bearer sk-1".to_owned())]);
    let want = json!({
        "model": "gpt-5.1",
        "stream": true,
        "store": false,
        "instructions": "Be brief.",
        "input": [
            {"type": "message", "role": "user", "content": "Weather and time?"},
            {"type": "message", "role": "assistant", "content": "I look."},
            {
                "type": "function_call", "call_id": "call_1", "name": "get_weather",
                "arguments": "{\"location\":\"Zürich\"}",
            },
            {"type": "function_call", "call_id": "call_2", "name": "now", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "{\"sky\":\"rain\"}"},
            {"type": "function_call_output", "call_id": "call_2", "output": "12:00"},
            {"type": "message", "role": "system", "content": "Be kind."},
            {"type": "message", "role": "user", "content": "And in words?"},
        ],
        "tools": [
            {
                "type": "function", "name": "get_weather", "description": "The sky",
                "parameters": {
                    "type": "object",
                    "properties": {"location": {"type": "string", "minLength": 1}},
                    "required": ["location"],
                },
                "strict": false,
            },
            {
                "type": "function", "name": "now",
                "parameters": {"type": "object", "properties": {}},
                "strict": false,
            },
        ],
        "max_output_tokens": 500,
        "reasoning": {"effort": "medium", "summary": "auto"},
    });
    assert_eq!(written.body, want);
    let left_out = "left out: earlier reasoning, which the vendor takes only with its signature";
    assert_eq!(written.warnings, [left_out]);
}

#[test]
fn a_plain_question_is_short() {
    let written = replay::written(&Responses, MODEL, |_| ());
    let want = json!({
        "model": "gpt-5.1", "stream": true, "store": false,
        "input": [{"type": "message", "role": "user", "content": "Hello"}],
    });
    assert_eq!(written.body, want);
    assert!(written.warnings.is_empty());
}

#[test]
fn thinking_is_asked_for_in_the_models_way() {
    let reasoning = |model: &str, thinking: bool| {
        let written = replay::written(&Responses, model, |r| r.thinking = Some(thinking));
        (written.body["reasoning"].clone(), written.warnings.len())
    };
    assert_eq!(reasoning("gpt-5.1", false), (json!({"effort": "none"}), 0));
    assert_eq!(reasoning("gpt-5-mini", false), (json!({"effort": "minimal"}), 1));
    assert_eq!(reasoning("o3", false), (json!({"effort": "low"}), 1));
    assert_eq!(reasoning("gpt-4o", false), (json!(null), 0));
    assert_eq!(reasoning("gpt-4o", true), (json!(null), 1));
    assert_eq!(reasoning("o3", true), (json!({"effort": "medium", "summary": "auto"}), 0));
    assert_eq!(reasoning("own-model", false), (json!({"effort": "none"}), 0));
    let told = |model: &str, effort| {
        let written = replay::written(&Responses, model, |r| r.effort = Some(effort));
        (written.body["reasoning"]["effort"].clone(), written.warnings.len())
    };
    assert_eq!(told("o3", Effort::High), (json!("high"), 0));
    assert_eq!(told("o3", Effort::Max), (json!("high"), 1));
    assert_eq!(told("gpt-5-pro", Effort::Low), (json!(null), 1));
    assert_eq!(told("gpt-4o", Effort::Low), (json!(null), 1));
}

#[test]
fn sampling_is_sent_where_it_was_chosen_and_is_taken() {
    let sampled = |model, change: fn(&mut Request)| {
        let written = replay::written(&Responses, model, change);
        let of = |name| written.body.get(name).cloned().unwrap_or_default();
        (json!([of("temperature"), of("top_p")]), written.warnings)
    };
    let both: fn(&mut Request) = |request| {
        request.sampling.temperature = 2.5;
        request.sampling.top_p = 0.9;
    };
    let (values, warnings) = sampled("gpt-4.1", both);
    assert_eq!(values, json!([2.0, 0.9]));
    assert_eq!(warnings, ["temperature was lowered to 2, the vendor's highest"]);
    let (values, warnings) = sampled("gpt-5", both);
    assert_eq!(values, json!([null, null]));
    assert_eq!(warnings, ["left out: temperature and top_p, which this model does not take"]);
    let (values, _) = sampled("gpt-5.1", |request| {
        request.sampling.temperature = 0.0;
        request.thinking = Some(false);
    });
    assert_eq!(values, json!([0.0, null]));
    let (_, warnings) = sampled("gpt-4.1", |request| {
        request.sampling.top_k = 1;
        request.sampling.seed = Some(1);
        request.cache = false;
    });
    let said = [
        "left out: the vendor has no top_k",
        "left out: the vendor has no seed, so the answer is not repeatable",
        "the vendor's own caching cannot be switched off",
    ];
    assert_eq!(warnings, said);
}

#[test]
fn json_is_asked_for_and_what_is_not_enforced_is_said() {
    let format = |constraint: Constraint, word: &str| {
        let written = replay::written(&Responses, MODEL, |request| {
            *request = replay::request(vec![Message::new(Role::User, word)]);
            request.constraint = Some(constraint);
        });
        (written.body["text"]["format"].clone(), written.warnings)
    };
    let (any, _) = format(Constraint::JsonObject, "Some Json");
    assert_eq!(any, json!({"type": "json_object"}));
    let strict = json!({
        "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false,
    });
    let (whole, warnings) = format(Constraint::JsonSchema(strict.to_string()), "x");
    let want = json!({"type": "json_schema", "name": "answer", "schema": strict, "strict": true});
    assert_eq!((whole, warnings), (want, vec![]));
    let (loose, warnings) = format(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned()), "x");
    assert_eq!(loose["strict"], json!(false));
    let said = "the vendor follows the JSON schema but does not enforce it: \
                an object without \"additionalProperties\": false";
    assert_eq!(warnings, [said]);
}

#[test]
fn caching_is_switched_off_where_it_can_be() {
    let written = replay::written(&Responses, "gpt-5.6", |request| request.cache = false);
    assert_eq!(written.body["prompt_cache_options"], json!({"mode": "explicit"}));
    assert!(written.warnings.is_empty());
}

#[test]
fn log_probabilities_are_asked_for_and_told() {
    let written = replay::written(&Responses, "gpt-4.1", |request| request.logprobs = Some(1));
    assert_eq!(written.body["include"], json!(["message.output_text.logprobs"]));
    assert_eq!(written.body["top_logprobs"], json!(1));
    let refused = replay::refused(&Responses, "o3", |request| request.logprobs = Some(1));
    assert_eq!(refused, "openai-responses cannot be asked for log-probabilities");
    let frame = json!({
        "type": "response.output_text.delta", "output_index": 0, "delta": "Zü", "logprobs": [{
            "token": "Z\u{fc}", "logprob": -0.5, "bytes": [90, 195, 188],
            "top_logprobs": [{"token": "B", "logprob": -1.5}],
        }],
    });
    let (events, _) =
        replay::read(Responses.reader(&replay::question()), &[(String::new(), frame.to_string())]);
    let token = crate::protocol::UNKNOWN_TOKEN;
    let other = Alternative { token, bytes: b"B".to_vec(), logprob: -1.5 };
    let entry = TokenLogprob {
        token,
        bytes: "Zü".as_bytes().to_vec(),
        logprob: -0.5,
        alternatives: vec![other],
    };
    assert!(events == [Event::Piece(Piece { text: "Zü".into(), logprobs: vec![entry] })]);
}

#[test]
fn choices_are_written() {
    let with = |choice: ToolChoice| {
        replay::written(&Responses, MODEL, |request| {
            request.tools = replay::tools();
            request.tool_choice = choice;
        })
        .body["tool_choice"]
            .clone()
    };
    assert_eq!(with(ToolChoice::Auto), json!(null));
    assert_eq!(with(ToolChoice::None), json!("none"));
    assert_eq!(with(ToolChoice::Required), json!("required"));
    assert_eq!(with(ToolChoice::Named("now".into())), json!({"type": "function", "name": "now"}));
}

#[test]
fn what_has_no_word_is_refused() {
    let check = |want: &str, change: fn(&mut Request)| {
        let want = format!("openai-responses cannot be asked for {want}");
        assert_eq!(replay::refused(&Responses, MODEL, change), want);
    };
    check("stop texts", |r| r.stop = vec!["x".to_owned()]);
    check("an answer of fewer than 16 tokens", |r| r.max_tokens = Some(Tokens(15)));
    check("any JSON object, unless the prompt has the word JSON", |r| {
        r.constraint = Some(Constraint::JsonObject);
    });
    check("a call with an id of more than 64 bytes", |r| {
        let mut messages = replay::agent();
        messages[2].tool_calls[1].id = "x".repeat(65);
        *r = replay::request(messages);
    });
    check("going on past the end of an answer", |r| r.ignore_eog = true);
    check("a gap to fill", |r| {
        r.prompt = tieline_types::Prompt::Infill { prefix: "a".into(), suffix: "b".into() };
    });
}

#[test]
fn malformed_frames_are_the_vendors_fault() {
    for data in [
        "<html>CANARY</html>",
        "{}",
        r#"{"type":"response.output_text.delta","delta":"CANARY"}"#,
        r#"{"type":"response.output_text.delta","output_index":0,"delta":{"CANARY":1}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"CANARY"}"#,
        r#"{"type":"response.output_item.added","output_index":0}"#,
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call"}}"#,
        r#"{"type":"response.completed"}"#,
        r#"{"type":"error","error":{"type":"server_error","message":"CANARY"}}"#,
        "[DONE]",
    ] {
        let (_, error) = replay::read(
            Responses.reader(&replay::question()),
            &[(String::new(), data.to_owned())],
        );
        let error = error.unwrap();
        assert_eq!(error.kind, ErrorKind::Upstream, "{data}");
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }
}

#[test]
fn arguments_that_contradict_themselves_are_refused() {
    let frames = [
        r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"c","name":"n"}}"#,
        r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\"a\":1"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":0,"arguments":"{\"b\":1}"}"#,
    ];
    let frames = frames.map(|data| (String::new(), data.to_owned()));
    let error = replay::read(Responses.reader(&replay::question()), &frames).1.unwrap();
    let want =
        "the vendor's calls make no sense: the arguments at the end are not those that came before";
    assert_eq!(error.to_string(), want);
}

#[test]
fn an_errors_code_is_a_code() {
    let code = |body| Responses.error_code(&body);
    let full = json!({"error": {"message": "CANARY", "type": "invalid_request_error", "code": "context_length_exceeded"}});
    assert_eq!(code(full).as_deref(), Some("context_length_exceeded"));
    let bare = json!({"error": {"message": "CANARY", "type": "server_error", "code": null}});
    assert_eq!(code(bare).as_deref(), Some("server_error"));
    assert_eq!(code(json!({"detail": "CANARY"})), None);
}

#[test]
fn counts_that_were_not_told_are_not_nothing() {
    let frames = ["", r#"{"type":"response.completed","response":{}}"#];
    let frames = frames.map(|data| (String::new(), data.to_owned()));
    let (events, error) = replay::read(Responses.reader(&replay::question()), &frames);
    assert!(error.is_none());
    let lines: Vec<_> = events.iter().map(replay::line).collect();
    let said = format!("warn {}", crate::protocol::USAGE_UNKNOWN);
    assert_eq!(lines[lines.len() - 2], said);
}

proptest! {
    #[test]
    fn any_conversation_is_written_or_refused(request in replay::any_request()) {
        for model in [MODEL, "o3", "other"] {
            let _ = Responses.write(&request, model, None);
        }
    }

    #[test]
    fn arguments_are_the_same_however_they_are_cut(
        value in "\\PC{0,24}",
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let text = json!({"value": value, "n": [1, 2.5]}).to_string();
        let item = json!({"type": "function_call", "call_id": "c", "name": "n", "arguments": ""});
        let mut frames = vec![json!({"type": "response.output_item.added", "output_index": 1, "item": item})];
        frames.extend(replay::pieces(&text, &cuts).into_iter().map(|part| {
            json!({"type": "response.function_call_arguments.delta", "output_index": 1, "delta": part})
        }));
        let done = "response.function_call_arguments.done";
        frames.push(json!({"type": done, "output_index": 1, "arguments": text}));
        frames.push(json!({"type": "response.completed", "response": {}}));
        let frames: Vec<_> = frames.iter().map(|one| (String::new(), one.to_string())).collect();
        let (events, error) = replay::read(Responses.reader(&replay::question()), &frames);
        prop_assert!(error.is_none());
        prop_assert_eq!(replay::arguments(&events), [text]);
    }

    #[test]
    fn any_frame_is_read_or_refused(data in "\\PC{0,40}", at in 0usize..24, cut in any::<usize>()) {
        let _ = replay::read(Responses.reader(&replay::question()), &[(String::new(), data)]);
        let mut frames = replay::frames(include_str!("../../transcripts/responses/parallel-calls.sse"));
        if let Some((_, data)) = frames.get_mut(at) {
            let length = data.chars().count();
            *data = data.chars().take(cut % (length + 1)).collect();
        }
        let (_, error) = replay::read(Responses.reader(&replay::question()), &frames);
        prop_assert!(error.is_none_or(|error| error.kind == ErrorKind::Upstream));
    }
}
