use proptest::prelude::*;
use serde_json::json;
use tieline_types::{Constraint, Effort, ErrorKind, Message, Role, Tokens, ToolChoice};

use super::*;
use crate::replay;

macro_rules! transcript {
    ($name:literal) => {
        replay::check(
            &Anthropic,
            include_str!(concat!("../../transcripts/anthropic/", $name, ".sse")),
            include_str!(concat!("../../transcripts/anthropic/", $name, ".events")),
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
fn thoughts_are_apart_and_unknown_kinds_are_nothing() {
    transcript!("thinking");
}

#[test]
fn a_stop_text_is_named() {
    transcript!("stop-text");
}

#[test]
fn a_cut_call_has_no_end() {
    transcript!("cut-in-a-call");
}

#[test]
fn a_refusal_is_filtered() {
    transcript!("refusal");
}

#[test]
fn a_full_context_is_told() {
    transcript!("context-full");
}

#[test]
fn a_pause_is_a_warning() {
    transcript!("pause");
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
fn arguments_at_once_and_blocks_at_once_are_sorted_out() {
    transcript!("other-host");
}

const MODEL: &str = "claude-sonnet-4-5";

#[test]
fn a_conversation_with_calls_is_written_whole() {
    let mut request = replay::request(replay::agent());
    request.tools = replay::tools();
    let written = Anthropic.write(&request, MODEL, Some("sk-1")).unwrap();
    assert_eq!(written.path, "/messages");
    let headers = [("anthropic-version", "2023-06-01"), ("x-api-key", "sk-1")];
    assert_eq!(written.headers, headers.map(|(name, value)| (name, value.to_owned())));
    let mark = json!({"type": "ephemeral"});
    let want = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "stream": true,
        "system": [{"type": "text", "text": "Be brief.", "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "Weather and time?", "cache_control": mark},
            ]},
            {"role": "assistant", "content": [
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"location": "Zürich"}},
                {"type": "tool_use", "id": "call_2", "name": "now", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "{\"sky\":\"rain\"}"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "12:00"},
                {"type": "text", "text": "And in words?", "cache_control": mark},
            ]},
        ],
        "tools": [
            {"name": "get_weather", "description": "The sky", "input_schema": {
                "type": "object",
                "properties": {"location": {"type": "string", "minLength": 1}},
                "required": ["location"],
            }},
            {"name": "now", "input_schema": {"type": "object", "properties": {}}, "cache_control": mark},
        ],
    });
    assert_eq!(written.body, want);
    let left_out = "left out: earlier reasoning, which the vendor takes only with its signature";
    assert_eq!(written.warnings, [left_out]);
}

#[test]
fn a_plain_question_is_short() {
    let written = replay::written(&Anthropic, MODEL, |_| ());
    let want = json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 32_000,
        "stream": true,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}],
    });
    assert_eq!(written.body, want);
    assert!(written.warnings.is_empty());
}

#[test]
fn without_cache_there_are_no_marks() {
    let mut request = replay::request(replay::agent());
    request.tools = replay::tools();
    request.cache = false;
    let written = Anthropic.write(&request, MODEL, None).unwrap();
    assert!(!written.body.to_string().contains("cache_control"));
    assert_eq!(written.headers.len(), 1);
}

#[track_caller]
fn thinking(
    model: &str,
    change: impl FnOnce(&mut Request),
    want: &serde_json::Value,
    warnings: &[&str],
) {
    let written = replay::written(&Anthropic, model, |request| {
        request.thinking = Some(true);
        change(request);
    });
    assert_eq!(written.body.get("thinking").unwrap_or(&serde_json::Value::Null), want);
    assert_eq!(written.warnings, warnings);
}

#[test]
fn thinking_is_asked_for_in_the_models_way() {
    let limit = |tokens| move |request: &mut Request| request.max_tokens = Some(Tokens(tokens));
    thinking(MODEL, limit(8_000), &json!({"type": "enabled", "budget_tokens": 4_000}), &[]);
    thinking(MODEL, limit(1_500), &json!({"type": "enabled", "budget_tokens": 1_024}), &[]);
    thinking(MODEL, |_| (), &json!({"type": "enabled", "budget_tokens": 16_000}), &[]);
    let few = "the model was not asked to think: the vendor wants more than 1,024 tokens for it and the answer";
    thinking(MODEL, limit(1_024), &json!(null), &[few]);
    thinking("claude-opus-4-6", limit(100), &json!({"type": "adaptive"}), &[]);
    thinking("claude-opus-4-7", |_| (), &json!({"type": "adaptive", "display": "summarized"}), &[]);
    thinking(
        "claude-3-5-haiku-latest",
        |_| (),
        &json!(null),
        &["the model was not asked to think: it cannot"],
    );
    let forced = |request: &mut Request| {
        request.tools = replay::tools();
        request.tool_choice = ToolChoice::Required;
    };
    let said =
        "the model was not asked to think: the vendor does not let it when a call is required";
    thinking(MODEL, forced, &json!(null), &[said]);
    thinking(
        "claude-sonnet-5",
        |request| request.thinking = Some(false),
        &json!({"type": "disabled"}),
        &[],
    );
    thinking(MODEL, |request| request.thinking = Some(false), &json!(null), &[]);
}

#[test]
fn how_much_to_think_is_a_word_or_a_number_of_tokens() {
    let told = |model: &str, effort| {
        let written = replay::written(&Anthropic, model, |request| {
            (request.effort, request.max_tokens) = (Some(effort), Some(Tokens(10_000)));
        });
        let word = written.body["output_config"]["effort"].clone();
        (written.body["thinking"].clone(), word, written.warnings.len())
    };
    let budget = |tokens: u32| json!({"type": "enabled", "budget_tokens": tokens});
    assert_eq!(told(MODEL, Effort::Within(Tokens(5_000))), (budget(5_000), json!(null), 0));
    assert_eq!(told(MODEL, Effort::Within(Tokens(31_999))), (budget(5_000), json!(null), 0));
    assert_eq!(told(MODEL, Effort::Within(Tokens(9_999))).0, budget(9_999));
    assert_eq!(told(MODEL, Effort::Low).0, budget(1_024));
    assert_eq!(told(MODEL, Effort::Medium), (budget(5_000), json!(null), 0));
    assert_eq!(told(MODEL, Effort::Own), (json!(null), json!(null), 0));
    let adaptive = json!({"type": "adaptive"});
    assert_eq!(told("claude-opus-4-6", Effort::Own), (adaptive.clone(), json!(null), 0));
    assert_eq!(told("claude-opus-4-6", Effort::Max), (adaptive.clone(), json!("max"), 0));
    assert_eq!(told("claude-sonnet-4-6", Effort::Max), (adaptive.clone(), json!("high"), 1));
    assert_eq!(told("claude-sonnet-4-6", Effort::Within(Tokens(2_000))).1, json!("medium"));
    assert_eq!(told("claude-opus-4-7", Effort::XHigh).1, json!("xhigh"));
}

#[test]
fn newer_models_are_told_not_to_think_in_their_own_way() {
    let written = replay::written(&Anthropic, "claude-opus-5-5", |r| r.thinking = Some(false));
    assert_eq!(written.body.get("thinking"), None);
    assert_eq!(written.body["output_config"], json!({"effort": "low"}));
    assert_eq!(written.warnings, ["the model thinks a little: it cannot be told not to"]);
    let written = replay::written(&Anthropic, "claude-sonnet-5-5", |r| r.thinking = Some(false));
    assert_eq!(written.body["thinking"], json!({"type": "between_tools"}));
    let refused = replay::refused(&Anthropic, "claude-sonnet-5-5", |r| {
        r.tools = replay::tools();
        r.tool_choice = ToolChoice::Required;
    });
    assert_eq!(refused, "anthropic cannot be asked for a required call, with this model");
}

#[test]
fn amid_a_tool_loop_a_budgeted_model_does_not_think() {
    let mut request = replay::request(replay::agent()[..5].to_vec());
    request.tools = replay::tools();
    request.thinking = Some(true);
    let written = Anthropic.write(&request, MODEL, None).unwrap();
    assert_eq!(written.body.get("thinking"), None);
    let why = "the vendor wants the thoughts before the calls back, with their signature";
    assert!(written.warnings.iter().any(|warning| warning.ends_with(why)));
    let written = Anthropic.write(&request, "claude-opus-4-6", None).unwrap();
    assert_eq!(written.body["thinking"], json!({"type": "adaptive"}));
}

#[test]
fn sampling_is_sent_where_it_was_chosen_and_is_taken() {
    let sampled = |model, change: fn(&mut Request)| {
        let written = replay::written(&Anthropic, model, change);
        let of = |name| written.body.get(name).cloned().unwrap_or_default();
        (json!([of("temperature"), of("top_p"), of("top_k")]), written.warnings)
    };
    let (values, warnings) = sampled(MODEL, |request| {
        request.sampling.temperature = 1.4;
        request.sampling.top_k = 7;
        request.sampling.seed = Some(1);
        request.sampling.min_p = 0.2;
        request.sampling.presence_penalty = 0.5;
    });
    assert_eq!(values, json!([1.0, null, 7]));
    let said = [
        "left out: the vendor has no min_p",
        "left out: the vendor has no presence_penalty and frequency_penalty",
        "left out: the vendor has no seed, so the answer is not repeatable",
        "temperature was lowered to 1, the vendor's highest",
    ];
    assert_eq!(warnings, said);
    let (values, warnings) = sampled(MODEL, |request| {
        request.sampling.temperature = 0.7;
        request.sampling.top_p = 0.9;
    });
    assert_eq!(values, json!([0.7, null, null]));
    assert_eq!(warnings, ["left out: top_p, which the vendor takes only alone"]);
    assert_eq!(sampled(MODEL, |request| request.sampling.top_p = 0.9).0, json!([null, 0.9, null]));
    let (values, warnings) =
        sampled("claude-opus-4-7", |request| request.sampling.temperature = 0.0);
    assert_eq!(values, json!([null, null, null]));
    assert_eq!(warnings, ["left out: the vendor takes no sampling values with this model"]);
}

#[test]
fn choices_stops_and_limits_are_written() {
    let with = |choice: ToolChoice| {
        replay::written(&Anthropic, MODEL, |request| {
            request.tools = replay::tools();
            request.tool_choice = choice;
        })
        .body["tool_choice"]
            .clone()
    };
    assert_eq!(with(ToolChoice::Auto), json!(null));
    assert_eq!(with(ToolChoice::None), json!({"type": "none"}));
    assert_eq!(with(ToolChoice::Required), json!({"type": "any"}));
    assert_eq!(with(ToolChoice::Named("now".into())), json!({"type": "tool", "name": "now"}));
    let written = replay::written(&Anthropic, "claude-3-haiku-20240307", |request| {
        request.stop = vec!["END".to_owned()];
    });
    assert_eq!(written.body["stop_sequences"], json!(["END"]));
    assert_eq!(written.body["max_tokens"], json!(4_096));
}

#[test]
fn a_schema_is_closed_and_sent() {
    let schema = r#"{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}"#;
    let written = replay::written(&Anthropic, MODEL, |request| {
        request.constraint = Some(Constraint::JsonSchema(schema.to_owned()));
    });
    let want = json!({"format": {"type": "json_schema", "schema": {
        "type": "object",
        "properties": {"a": {"type": "integer"}},
        "required": ["a"],
        "additionalProperties": false,
    }}});
    assert_eq!(written.body["output_config"], want);
    assert!(written.warnings.is_empty());
}

#[test]
fn what_has_no_word_is_refused() {
    let check = |want: &str, model: &str, change: fn(&mut Request)| {
        assert_eq!(replay::refused(&Anthropic, model, change), want);
    };
    let no = |what: &str| format!("anthropic cannot be asked for {what}");
    check(&no("a JSON object"), MODEL, |r| r.constraint = Some(Constraint::JsonObject));
    check(&no("a JSON schema, with this model"), "claude-opus-4-1", |r| {
        r.constraint = Some(Constraint::JsonSchema("{}".to_owned()));
    });
    check(&no("a grammar or regular expression"), MODEL, |r| {
        r.constraint = Some(Constraint::Regex("a".to_owned()));
    });
    check(&no("log-probabilities"), MODEL, |r| r.logprobs = Some(0));
    check(&no("biases of our token numbers"), MODEL, |r| r.sampling.logit_bias = vec![(1, 1.0)]);
    check(&no("an answer that can be made again with a receipt"), MODEL, |r| {
        r.deterministic = true
    });
    check(&no("a text to go on from"), MODEL, |r| {
        r.prompt = tieline_types::Prompt::Text("Once".into());
    });
    check(&no("a stop text of white space alone"), MODEL, |r| r.stop = vec!["\n".to_owned()]);
    check(&no("a tool named \"a.b\""), MODEL, |r| {
        r.tools = replay::tools();
        r.tools[0].name = "a.b".to_owned();
    });
    check(&no("a conversation that the assistant begins"), MODEL, |r| {
        *r = replay::request(vec![Message::new(Role::Assistant, "Hi")]);
    });
    check(&no("calls in a conversation without the tools"), MODEL, |r| {
        *r = replay::request(replay::agent());
    });
    check(&no("a conversation that the assistant ends"), MODEL, |r| {
        *r = replay::request(vec![
            Message::new(Role::User, "x"),
            Message::new(Role::Assistant, "y"),
        ]);
    });
}

#[test]
fn texts_of_nothing_are_left_out() {
    let mut messages = replay::agent();
    messages[2].content = "\n".into();
    messages[3].content = "".into();
    let mut request = replay::request(messages);
    request.tools = replay::tools();
    let body = Anthropic.write(&request, MODEL, None).unwrap().body;
    assert_eq!(body["messages"][1]["content"][0]["type"], "tool_use");
    let want = json!({"type": "tool_result", "tool_use_id": "call_2"});
    assert_eq!(body["messages"][2]["content"][1], want);
}

#[test]
fn ids_of_other_vendors_fit() {
    let mut messages = replay::agent();
    messages[2].tool_calls[0].id = "fn:1.x".to_owned();
    messages[4].tool_call_id = Some("fn:1.x".to_owned());
    let mut request = replay::request(messages);
    request.tools = replay::tools();
    let body = Anthropic.write(&request, MODEL, None).unwrap().body;
    assert_eq!(body["messages"][1]["content"][1]["id"], "fn_3a_1_2e_x");
    assert_eq!(body["messages"][2]["content"][0]["tool_use_id"], "fn_3a_1_2e_x");
}

#[track_caller]
fn malformed(data: &str) {
    let frames = [(String::new(), data.to_owned())];
    let (_, error) = replay::read(Anthropic.reader(&replay::question()), &frames);
    let error = error.unwrap();
    assert_eq!(error.kind, ErrorKind::Upstream, "{data}");
    assert!(!format!("{error} {error:?}").contains("CANARY"));
}

#[test]
fn malformed_frames_are_the_vendors_fault() {
    malformed("<html>CANARY</html>");
    malformed("{}");
    malformed("[1]");
    malformed(r#"{"type":"content_block_start","index":0}"#);
    malformed(r#"{"type":"content_block_start","index":-1,"content_block":{"type":"text"}}"#);
    malformed(
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","name":"x"}}"#,
    );
    malformed(r#"{"type":"content_block_delta","index":0,"delta":{"text":"CANARY"}}"#);
    malformed(r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":"CANARY"}}"#);
    malformed(r#"{"type":"error","error":{"type":"CANARY CANARY","message":"CANARY"}}"#);
    malformed(r#"{"type":"message_start"}"#);
}

#[test]
fn an_errors_code_is_a_code() {
    let body =
        json!({"type": "error", "error": {"type": "invalid_request_error", "message": "CANARY"}});
    assert_eq!(Anthropic.error_code(&body).as_deref(), Some("invalid_request_error"));
    assert_eq!(Anthropic.error_code(&json!({"error": {"type": "a b"}})), None);
    assert_eq!(Anthropic.error_code(&json!([])), None);
}

#[test]
fn counts_that_were_not_told_are_not_nothing() {
    let frames = [
        "",
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#,
        r#"{"type":"message_stop"}"#,
    ];
    let frames = frames.map(|data| (String::new(), data.to_owned()));
    let (events, error) = replay::read(Anthropic.reader(&replay::question()), &frames);
    assert!(error.is_none());
    let lines: Vec<_> = events.iter().map(replay::line).collect();
    let said = format!("warn {}", crate::protocol::USAGE_UNKNOWN);
    assert_eq!(lines[lines.len() - 2], said);
}

proptest! {
    #[test]
    fn any_conversation_is_written_or_refused(request in replay::any_request()) {
        for model in [MODEL, "claude-opus-4-7", "other"] {
            if let Ok(written) = Anthropic.write(&request, model, None) {
                prop_assert!(written.body.to_string().matches("cache_control").count() <= 4);
            }
        }
    }

    #[test]
    fn arguments_are_the_same_however_they_are_cut(
        value in "\\PC{0,24}",
        cuts in prop::collection::vec(any::<usize>(), 0..8),
    ) {
        let text = json!({"value": value, "n": [1, 2.5]}).to_string();
        let start = json!({"type": "content_block_start", "index": 3,
            "content_block": {"type": "tool_use", "id": "i", "name": "n", "input": {}}});
        let mut frames = vec![start];
        frames.extend(replay::pieces(&text, &cuts).into_iter().map(|part| {
            json!({"type": "content_block_delta", "index": 3,
                "delta": {"type": "input_json_delta", "partial_json": part}})
        }));
        frames.push(json!({"type": "content_block_stop", "index": 3}));
        frames.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}}));
        frames.push(json!({"type": "message_stop"}));
        let frames: Vec<_> = frames.iter().map(|one| (String::new(), one.to_string())).collect();
        let (events, error) = replay::read(Anthropic.reader(&replay::question()), &frames);
        prop_assert!(error.is_none());
        prop_assert_eq!(replay::arguments(&events), [text]);
    }

    #[test]
    fn any_frame_is_read_or_refused(data in "\\PC{0,40}", at in 0usize..11, cut in any::<usize>()) {
        let _ = replay::read(Anthropic.reader(&replay::question()), &[(String::new(), data)]);
        // A transcript whose frame is cut somewhere.
        let mut frames = replay::frames(include_str!("../../transcripts/anthropic/parallel-calls.sse"));
        if let Some((_, data)) = frames.get_mut(at) {
            let length = data.chars().count();
            *data = data.chars().take(cut % (length + 1)).collect();
        }
        let (_, error) = replay::read(Anthropic.reader(&replay::question()), &frames);
        prop_assert!(error.is_none_or(|error| error.kind == ErrorKind::Upstream));
    }
}
