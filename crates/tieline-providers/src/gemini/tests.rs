use proptest::prelude::*;
use serde_json::json;
use tieline_types::{Constraint, Effort, ErrorKind, Message, Role, Tokens, ToolChoice};

use super::*;
use crate::replay;

macro_rules! transcript {
    ($name:literal) => {
        replay::check(
            &Gemini::default(),
            include_str!(concat!("../../transcripts/gemini/", $name, ".sse")),
            include_str!(concat!("../../transcripts/gemini/", $name, ".events")),
        )
    };
}

#[test]
fn text_is_told_in_pieces() {
    transcript!("text");
}

#[test]
fn calls_get_ids_and_thoughts_count() {
    transcript!("parallel-calls");
}

#[test]
fn numbers_keep_their_digits_and_ids_stay() {
    transcript!("exact-numbers");
}

#[test]
fn a_blocked_prompt_is_filtered() {
    transcript!("prompt-blocked");
}

#[test]
fn an_unsafe_answer_is_filtered() {
    transcript!("safety");
}

#[test]
fn a_malformed_call_is_a_warning() {
    transcript!("malformed-call");
}

#[test]
fn a_limit_is_told() {
    transcript!("max-tokens");
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
fn a_strange_part_is_a_warning() {
    transcript!("strange-part");
}

const MODEL: &str = "gemini-2.5-flash";

fn gemini() -> Gemini {
    Gemini::default()
}

#[test]
fn a_conversation_with_calls_is_written_whole() {
    let mut request = replay::request(replay::agent());
    request.tools = replay::tools();
    request.max_tokens = Some(Tokens(500));
    request.stop = vec!["END".to_owned()];
    let written = gemini().write(&request, MODEL, Some("key-1")).unwrap();
    assert_eq!(written.path, "/models/gemini-2.5-flash:streamGenerateContent?alt=sse");
    assert_eq!(written.headers, [("x-goog-api-key", "key-1".to_owned())]);
    let want = json!({
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Weather and time?"}]},
            {"role": "model", "parts": [
                {"text": "I look."},
                {"functionCall": {"name": "get_weather", "args": {"location": "Zürich"}, "id": "call_1"}},
                {"functionCall": {"name": "now", "args": {}, "id": "call_2"}},
            ]},
            {"role": "user", "parts": [
                {"functionResponse": {
                    "name": "get_weather", "response": {"output": "{\"sky\":\"rain\"}"}, "id": "call_1",
                }},
                {"functionResponse": {"name": "now", "response": {"output": "12:00"}, "id": "call_2"}},
                {"text": "And in words?"},
            ]},
        ],
        "tools": [{"functionDeclarations": [
            {"name": "get_weather", "description": "The sky", "parametersJsonSchema": {
                "type": "object",
                "properties": {"location": {"type": "string"}},
                "required": ["location"],
            }},
            {"name": "now"},
        ]}],
        "generationConfig": {"maxOutputTokens": 500, "stopSequences": ["END"]},
    });
    assert_eq!(written.body, want);
    let said = [
        "left out: earlier reasoning, which the vendor takes only with its signature",
        "the vendor does not enforce in the tool \"get_weather\": minLength",
    ];
    assert_eq!(written.warnings, said);
}

#[test]
fn ids_made_here_stay_here_and_signatures_are_skipped_where_wanted() {
    let mut messages = replay::agent();
    for (at, call) in messages[2].tool_calls.iter_mut().enumerate() {
        call.id = format!("gemini-x-{at}");
    }
    messages[4].tool_call_id = Some("gemini-x-0".to_owned());
    let written = gemini().write(&replay::request(messages), "gemini-3-pro-preview", None).unwrap();
    let want = json!([
        {"text": "I look."},
        {
            "functionCall": {"name": "get_weather", "args": {"location": "Zürich"}},
            "thoughtSignature": "skip_thought_signature_validator",
        },
        {"functionCall": {"name": "now", "args": {}}},
    ]);
    assert_eq!(written.body["contents"][1]["parts"], want);
    let result = &written.body["contents"][2]["parts"][1]["functionResponse"];
    assert_eq!(result, &json!({"name": "now", "response": {"output": "12:00"}}));
    assert!(written.warnings.iter().any(|warning| warning.ends_with("signatures are not kept")));
}

#[test]
fn a_plain_question_is_short() {
    let written = replay::written(&gemini(), MODEL, |_| ());
    assert_eq!(written.body, json!({"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}));
    assert!(written.warnings.is_empty());
}

#[test]
fn a_models_name_is_no_way_out_of_the_path() {
    let path = |model: &str| gemini().write(&replay::question(), model, None).map(|w| w.path);
    assert_eq!(path("tunedModels/x-1").unwrap(), "/tunedModels/x-1:streamGenerateContent?alt=sse");
    for model in ["", "a/../b", "a//b", "x?key=1", "x#", "a b", "ä", "x:countTokens", "%2e"] {
        let error = path(model).unwrap_err();
        assert_eq!(error.kind, ErrorKind::InvalidRequest, "{model}");
    }
}

#[track_caller]
fn config(
    model: &str,
    change: impl FnOnce(&mut Request),
    want: &serde_json::Value,
    warnings: &[&str],
) {
    let written = replay::written(&gemini(), model, change);
    assert_eq!(&written.body["generationConfig"], want);
    assert_eq!(written.warnings, warnings);
}

#[test]
fn sampling_is_sent_where_it_was_chosen() {
    let all = |request: &mut Request| {
        request.sampling.temperature = 2.5;
        request.sampling.top_p = 0.9;
        request.sampling.top_k = 7;
        request.sampling.seed = Some(3);
        request.sampling.presence_penalty = 0.5;
        request.sampling.frequency_penalty = -0.1;
    };
    let want = &json!({
        "temperature": 2.0, "topP": 0.9, "presencePenalty": 0.5, "frequencyPenalty": -0.1,
        "topK": 7, "seed": 3,
    });
    config(MODEL, all, want, &["temperature was lowered to 2, the vendor's highest"]);
    let greedy = |request: &mut Request| request.sampling.temperature = 0.0;
    config(MODEL, greedy, &json!({"temperature": 0.0}), &[]);
    let left_out = |request: &mut Request| {
        request.sampling.top_k = 0;
        request.sampling.seed = Some(3_000_000_000);
        request.sampling.repeat_penalty = 1.1;
        request.cache = false;
    };
    let said = [
        "left out: the vendor has no repeat_penalty",
        "the vendor's own caching cannot be switched off",
        "left out: the vendor cannot keep all tokens (top_k 0)",
        "left out: a seed above 2147483647, so the answer is not repeatable",
    ];
    config(MODEL, left_out, &json!(null), &said);
}

#[test]
fn thinking_is_asked_for_in_the_models_way() {
    let think = |request: &mut Request| request.thinking = Some(true);
    let quiet = |request: &mut Request| request.thinking = Some(false);
    let little = "the model thinks a little: it cannot be told not to";
    config(MODEL, think, &json!({"thinkingConfig": {"includeThoughts": true}}), &[]);
    config(MODEL, quiet, &json!({"thinkingConfig": {"thinkingBudget": 0}}), &[]);
    config("gemini-2.5-pro", quiet, &json!({"thinkingConfig": {"thinkingBudget": 128}}), &[little]);
    config(
        "gemini-3-flash",
        quiet,
        &json!({"thinkingConfig": {"thinkingLevel": "low"}}),
        &[little],
    );
    let told = |model, effort, want: &serde_json::Value, warnings: &[&str]| {
        let mut said = json!({"includeThoughts": true});
        said.as_object_mut().unwrap().extend(want.as_object().unwrap().clone());
        let change = |request: &mut Request| request.effort = Some(effort);
        config(model, change, &json!({"thinkingConfig": said}), warnings);
    };
    told(MODEL, Effort::Low, &json!({"thinkingBudget": 1024}), &[]);
    told(MODEL, Effort::Max, &json!({"thinkingBudget": 24_576}), &[]);
    told("gemini-2.5-pro", Effort::Within(Tokens(5)), &json!({"thinkingBudget": 128}), &[]);
    told("gemini-3-flash", Effort::Minimal, &json!({"thinkingLevel": "minimal"}), &[]);
    let nearest = ["to think for medium was asked, and low is what could be said"];
    told("gemini-3-pro-preview", Effort::Medium, &json!({"thinkingLevel": "low"}), &nearest);
    config("gemini-2.0-flash", quiet, &json!(null), &[]);
    config(
        "gemini-2.0-flash",
        think,
        &json!(null),
        &["the model was not asked to think: it cannot"],
    );
}

#[test]
fn json_is_asked_for() {
    let any = |request: &mut Request| request.constraint = Some(Constraint::JsonObject);
    let want = &json!({
        "responseMimeType": "application/json", "responseJsonSchema": {"type": "object"},
    });
    config(MODEL, any, want, &[]);
    let schema = |request: &mut Request| {
        let text = r#"{"$schema":"x","type":"object","properties":{"a":{"const":1},"b":{"type":"string","pattern":"x"}}}"#;
        request.constraint = Some(Constraint::JsonSchema(text.to_owned()));
    };
    let want = &json!({"responseMimeType": "application/json", "responseJsonSchema": {
        "type": "object", "properties": {"a": {"enum": [1]}, "b": {"type": "string"}},
    }});
    config(MODEL, schema, want, &["the vendor does not enforce in the JSON schema: pattern"]);
}

#[test]
fn choices_are_written() {
    let with = |choice: ToolChoice| {
        replay::written(&gemini(), MODEL, |request| {
            request.tools = replay::tools();
            request.tool_choice = choice;
        })
        .body["toolConfig"]
            .clone()
    };
    assert_eq!(with(ToolChoice::Auto), json!(null));
    assert_eq!(with(ToolChoice::None), json!({"functionCallingConfig": {"mode": "NONE"}}));
    assert_eq!(with(ToolChoice::Required), json!({"functionCallingConfig": {"mode": "ANY"}}));
    let want = json!({"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["now"]}});
    assert_eq!(with(ToolChoice::Named("now".into())), want);
}

#[test]
fn what_has_no_word_is_refused() {
    let check = |want: &str, change: fn(&mut Request)| {
        assert_eq!(
            replay::refused(&gemini(), MODEL, change),
            format!("gemini cannot be asked for {want}")
        );
    };
    check("more than 5 stop texts", |r| r.stop = vec!["x".to_owned(); 6]);
    check("tools and JSON at once, with this model", |r| {
        r.tools = replay::tools();
        r.constraint = Some(Constraint::JsonObject);
    });
    check("a tool named \"1st\"", |r| {
        r.tools = replay::tools();
        r.tools[0].name = "1st".to_owned();
    });
    check("a tool whose name is longer than 64 characters", |r| {
        r.tools = replay::tools();
        r.tools[0].name = "a".repeat(65);
    });
    check("log-probabilities of the prompt", |r| r.prompt_logprobs = Some(0));
    check("a grammar or regular expression", |r| {
        r.constraint = Some(Constraint::Gbnf("root ::= \"a\"".to_owned()));
    });
}

#[test]
fn instructions_from_later_are_moved_and_said_so() {
    let mut messages = replay::agent();
    messages.truncate(2);
    messages.push(Message::new(Role::System, "Be kind."));
    messages.push(Message::new(Role::User, "Well?"));
    let written = gemini().write(&replay::request(messages), MODEL, None).unwrap();
    assert_eq!(written.body["systemInstruction"]["parts"][0]["text"], "Be brief.\n\nBe kind.");
    let said = "instructions from later in the conversation were moved to its beginning";
    assert_eq!(written.warnings, [said]);
    assert_eq!(written.body["contents"].as_array().unwrap().len(), 1);
}

#[test]
fn answers_without_an_id_have_calls_with_different_ones() {
    let gemini = gemini();
    let data = r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"now"}}]},"finishReason":"STOP"}]}"#;
    let frames = [(String::new(), data.to_owned())];
    let told = || format!("{:?}", replay::read(gemini.reader(&replay::question()), &frames).0);
    let (first, second) = (told(), told());
    assert!(first.contains("gemini-0-0") && second.contains("gemini-1-0"));
}

#[test]
fn malformed_frames_are_the_vendors_fault() {
    for data in [
        "<html>CANARY</html>",
        "1",
        r#"{"candidates":{}}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":7}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"args":{"CANARY":1}}}]}}]}"#,
        r#"{"usageMetadata":{"promptTokenCount":-4}}"#,
        r#"{"error":{"code":500,"message":"CANARY","status":"INTERNAL"}}"#,
        r#"{}"#,
    ] {
        let (_, error) =
            replay::read(gemini().reader(&replay::question()), &[(String::new(), data.to_owned())]);
        let error = error.unwrap();
        assert_eq!(error.kind, ErrorKind::Upstream, "{data}");
        assert!(!format!("{error} {error:?}").contains("CANARY"));
    }
}

#[test]
fn an_errors_code_is_a_code() {
    let error = json!({"code": 400, "message": "CANARY", "status": "INVALID_ARGUMENT", "details": [
        {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"},
    ]});
    let code = |body| gemini().error_code(&body);
    assert_eq!(code(json!({"error": error})).as_deref(), Some("API_KEY_INVALID"));
    let plain = json!([{"error": {"code": 429, "message": "x", "status": "RESOURCE_EXHAUSTED"}}]);
    assert_eq!(code(plain).as_deref(), Some("RESOURCE_EXHAUSTED"));
    assert_eq!(code(json!("CANARY")), None);
}

#[test]
fn counts_that_were_not_told_are_not_nothing() {
    let frames =
        ["", r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#];
    let frames = frames.map(|data| (String::new(), data.to_owned()));
    let (events, error) = replay::read(gemini().reader(&replay::question()), &frames);
    assert!(error.is_none());
    let lines: Vec<_> = events.iter().map(replay::line).collect();
    let said = format!("warn {}", crate::protocol::USAGE_UNKNOWN);
    assert_eq!(lines[lines.len() - 2], said);
}

proptest! {
    #[test]
    fn any_conversation_is_written_or_refused(request in replay::any_request()) {
        for model in [MODEL, "gemini-3-pro", "other"] {
            let _ = gemini().write(&request, model, None);
        }
    }

    #[test]
    fn arguments_come_as_they_are(value in "\\PC{0,24}", space in "[ \n]{0,3}") {
        let text = format!("{{{space}\"value\":{space}{}{space}}}", json!(value));
        let frame = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"n","args":{text}}}}}]}},"finishReason":"STOP"}}]}}"#
        );
        let (events, error) = replay::read(gemini().reader(&replay::question()), &[(String::new(), frame)]);
        prop_assert!(error.is_none());
        prop_assert_eq!(replay::arguments(&events), [text]);
    }

    #[test]
    fn any_frame_is_read_or_refused(data in "\\PC{0,40}", at in 0usize..4, cut in any::<usize>()) {
        let _ = replay::read(gemini().reader(&replay::question()), &[(String::new(), data)]);
        let mut frames = replay::frames(include_str!("../../transcripts/gemini/parallel-calls.sse"));
        if let Some((_, data)) = frames.get_mut(at) {
            let length = data.chars().count();
            *data = data.chars().take(cut % (length + 1)).collect();
        }
        let (_, error) = replay::read(gemini().reader(&replay::question()), &frames);
        prop_assert!(error.is_none_or(|error| error.kind == ErrorKind::Upstream));
    }
}
