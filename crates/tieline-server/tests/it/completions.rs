//! OpenAI's plain completions.

use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, finished, piece, prompt_logprobs, started, text};
use tieline_types::wire::Work;
use tieline_types::{Constraint, ErrorKind, FinishReason, Prompt};

use crate::openai::refused;
use crate::service::Service;

const PATH: &str = "/v1/completions";

fn ask(more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "prompt": "Hi" });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn a_whole_completion_has_its_text_and_its_figures() {
    let service = Service::new(Scripted::hello());
    let said = service.post(PATH, &ask(&json!({ "best_of": null, "user": "me" }))).await;
    let body = said.is(200);
    let choice =
        json!({ "text": "Hello there.", "index": 0, "logprobs": null, "finish_reason": "stop" });
    assert_eq!(body["choices"], json!([choice]));
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["usage"]["total_tokens"], 12);
    assert_eq!(said.headers["x-tieline-ignored"], "user");
    let asked = service.models.last();
    assert_eq!(asked.max_tokens.map(|most| most.0), Some(16));
    // As the model reads it: names of special tokens are these tokens.
    assert_eq!(asked.prompt, Prompt::Tokens(vec![1]));
    let (_, work) = service.models.works().pop().unwrap();
    let want = Work::Tokenize { text: "Hi".into(), add_special: true, parse_special: true };
    assert_eq!(work, want);
    assert_eq!((asked.logprobs, asked.prompt_logprobs), (None, None));
}

#[tokio::test]
async fn each_prompt_has_its_own_answers() {
    let service = Service::new(Scripted::hello());
    for (prompt, count) in [
        (json!("one"), 1),
        (json!(["one", "two"]), 2),
        (json!([1, 2, 3]), 1),
        (json!([[1], [2], [3]]), 3),
    ] {
        for stream in [false, true] {
            let wish = json!({ "prompt": prompt, "n": 2, "stream": stream, "max_tokens": 0,
                "stream_options": { "include_usage": true } });
            let said = service.post(PATH, &ask(&wish)).await;
            assert_eq!(said.status.as_u16(), 200, "{}", said.text);
            let mut texts = vec![String::new(); count * 2];
            let bodies = if stream { said.chunks() } else { vec![said.json()] };
            for choice in bodies.iter().flat_map(|body| body["choices"].as_array().unwrap()) {
                let at = usize::try_from(choice["index"].as_u64().unwrap()).unwrap();
                texts[at].push_str(choice["text"].as_str().unwrap());
            }
            assert_eq!(texts, vec!["Hello there."; count * 2]);
            let usage = &bodies.last().unwrap()["usage"];
            assert_eq!(usage["prompt_tokens"], 9 * count);
            assert_eq!(usage["completion_tokens"], 6 * count);
        }
    }
    let asked: Vec<Prompt> =
        service.models.seen().into_iter().map(|(_, request)| request.prompt).collect();
    assert!(asked.contains(&Prompt::Tokens(vec![1, 2, 3])));
}

#[tokio::test]
async fn a_stream_ends_with_done() {
    let service = Service::new(Scripted::hello());
    let wish = json!({ "stream": true, "echo": true, "logprobs": 0 });
    let said = service.post(PATH, &ask(&wish)).await;
    let chunks = said.chunks();
    assert_eq!(chunks[0]["choices"][0]["text"], "Hi");
    assert_eq!(chunks[1]["choices"][0]["text"], "Hello");
    assert_eq!(chunks[1]["choices"][0]["logprobs"]["tokens"], json!(["Hello"]));
    assert_eq!(chunks[2]["choices"][0]["logprobs"]["text_offset"], json!([5]));
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "stop");
    assert_eq!(said.events().last().unwrap().1, "[DONE]");
}

/// The tokens that are counted for an echo are those that are asked.
#[tokio::test]
async fn a_prompt_is_read_in_one_way_whoever_reads_it() {
    let service = Service::new(Scripted::hello());
    for stream in [false, true] {
        let before = service.models.works().len();
        let wish = json!({ "prompt": ["<|fim_prefix|>a", "b"], "stream": stream, "echo": true,
            "logprobs": 0 });
        assert_eq!(service.post(PATH, &ask(&wish)).await.status, 200);
        let works = service.models.works().split_off(before);
        let read: Vec<bool> = works
            .iter()
            .filter_map(|(_, work)| match work {
                Work::Tokenize { parse_special, add_special, .. } => {
                    Some(*parse_special && *add_special)
                }
                _ => None,
            })
            .collect();
        assert_eq!(read, [true; 4], "{works:?}");
    }
}

/// What lm-evaluation-harness asks, and how it reads the answer.
#[tokio::test]
async fn an_echo_holds_the_prompts_own_likelihoods() {
    let scored = |end: Vec<Step>| {
        let entries = [prompt_logprobs(&[("w2 ", -1.0)]), prompt_logprobs(&[("w3 ", -2.5)])];
        [started()].into_iter().chain(entries).chain(end).collect::<Vec<_>>()
    };
    let models = Scripted::default()
        .with("mock", scored(vec![piece("!"), finished(FinishReason::MaxTokens, 1)]))
        .with("ends", scored(vec![finished(FinishReason::EndOfTurn, 1)]));
    let service = Service::new(models);
    // A model that ends at once tells nothing of its last token: it still has its place.
    for (model, last) in [("mock", "!"), ("ends", "")] {
        for prompt in [json!([1, 2, 3]), json!("w1 w2 w3 ")] {
            let wish = json!({ "model": model, "prompt": prompt, "max_tokens": 1, "logprobs": 1,
                "echo": true, "temperature": 0, "seed": 1234 });
            let body = service.post(PATH, &ask(&wish)).await.is(200);
            let choice = &body["choices"][0];
            assert_eq!(choice["text"], format!("w1 w2 w3 {last}"));
            let lists = &choice["logprobs"];
            assert_eq!(lists["tokens"], json!(["w1 ", "w2 ", "w3 ", last]));
            let own = lists["token_logprobs"].as_array().unwrap();
            assert_eq!(own[..3], [Value::Null, json!(-1.0), json!(-2.5)]);
            assert_eq!(lists["top_logprobs"][2], json!({ "w3 ": -2.5 }));
            assert_eq!(lists["text_offset"], json!([0, 3, 6, 9]));
            assert_eq!(service.models.last().prompt_logprobs, Some(1));
        }
    }
}

#[tokio::test]
async fn gaps_are_filled_and_rules_are_kept() {
    let service = Service::new(Scripted::hello());
    let wish = json!({ "prompt": "fn a() {", "suffix": "}", "best_of": 3, "stop": ["\n"],
        "json_schema": { "type": "object" } });
    service.post(PATH, &ask(&wish)).await.is(200);
    let asked = service.models.last();
    let want = Prompt::Infill { prefix: "fn a() {".into(), suffix: "}".into() };
    assert_eq!(asked.prompt, want);
    assert_eq!(asked.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())));
    assert_eq!(service.models.seen().len(), 3);
}

#[tokio::test]
async fn bad_wishes_are_refused() {
    let service = Service::new(Scripted::hello());
    let post = async |more: Value| service.post(PATH, &ask(&more)).await.is(400);
    refused(&post(json!({ "prompt": [] })).await, "invalid_request", Some("prompt"));
    refused(&post(json!({ "prompt": {} })).await, "invalid_json", None);
    refused(&post(json!({ "logprobs": 21 })).await, "invalid_request", Some("logprobs"));
    refused(&post(json!({ "n": 2, "best_of": 1 })).await, "invalid_request", Some("best_of"));
    refused(&post(json!({ "best_of": 9 })).await, "invalid_request", Some("best_of"));
    let tokens = json!({ "prompt": [1], "suffix": "x" });
    refused(&post(tokens).await, "unsupported", Some("suffix"));
    let both = json!({ "echo": true, "suffix": "x" });
    refused(&post(both).await, "invalid_request", Some("echo"));
    let cut = json!({ "echo": true, "overflow": "drop_oldest" });
    refused(&post(cut).await, "invalid_request", Some("overflow"));
    let many = json!({ "prompt": vec!["x"; 2049] });
    refused(&post(many).await, "invalid_request", Some("prompt"));
    service.post(PATH, &ask(&json!({ "prompt": vec!["x"; 2048] }))).await.is(200);
    service.post(PATH, &ask(&json!({ "best_of": 8, "logprobs": 20 }))).await.is(200);
}

#[tokio::test]
async fn broken_streams_end_with_their_error() {
    let models = Scripted::default()
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .with("breaks", vec![started(), piece("Hel"), Step::Fail(ErrorKind::Crashed, "it died")])
        .with("mock", text(&["a"]));
    let service = Service::new(models);
    for stream in [false, true] {
        let post = async |model: &str| {
            let wish = json!({ "model": model, "prompt": ["a", "b"], "stream": stream });
            service.post(PATH, &ask(&wish)).await
        };
        refused(&post("full").await.is(503), "overloaded", None);
        let several = json!({ "model": "full", "n": 2, "stream": stream });
        refused(&service.post(PATH, &ask(&several)).await.is(503), "overloaded", None);
        let breaks = post("breaks").await;
        if stream {
            refused(breaks.chunks().last().unwrap(), "engine_crashed", None);
            assert!(!breaks.text.contains("[DONE]"));
        } else {
            refused(&breaks.is(503), "engine_crashed", None);
        }
    }
}
