//! llama-server's own API.

use serde_json::{Value, json};
use testkit::scripted::{Scripted, Step, finished, piece, started, text};
use tieline_types::wire::{Input, Work};
use tieline_types::{Constraint, ErrorKind, FinishReason, Overflow, Pooling, Prompt};

use crate::service::Service;

#[tokio::test]
async fn health_names_no_model() {
    let service = Service::new(Scripted::default().with("secret-project", text(&["x"])));
    for path in ["/health", "/v1/health"] {
        let said = service.get(path).await;
        let body = said.is(200);
        assert_eq!((&body["status"], &body["ready"]), (&json!("ok"), &json!(true)));
        assert_eq!(body["jail"], "none");
        assert_eq!(body["version"], env!("CARGO_PKG_VERSION"));
        assert!(!said.text.contains("secret"));
    }
    let empty = Service::new(Scripted::default());
    let jails = async || {
        let (health, ready) =
            (empty.get("/health").await.is(200), empty.get("/readyz").await.is(200));
        assert_eq!(health["ready"], false);
        (health["jail"].clone(), ready["jail"].clone())
    };
    assert_eq!(jails().await, (Value::Null, Value::Null));
    // Known before a model is loaded; the worst of those in memory counts more.
    for service in [&empty, &service] {
        service.app.jail_inspected(tieline_types::JailLevel::Sealed);
    }
    assert_eq!(jails().await, (json!("sealed"), json!("sealed")));
    assert_eq!(service.get("/health").await.is(200)["jail"], "none");
}

#[tokio::test]
async fn both_spellings_of_a_member_are_read() {
    let service = Service::new(Scripted::hello());
    for (body, text, special) in [
        (json!({ "content": "a b", "prompt": "c" }), "a b", false),
        (json!({ "prompt": "c", "add_special_tokens": true }), "c", true),
        (json!({ "content": "a", "add_special": false, "add_special_tokens": true }), "a", false),
    ] {
        service.post("/tokenize", &body).await.is(200);
        let (_, work) = service.models.works().pop().unwrap();
        let Work::Tokenize { text: read, add_special, .. } = work else { panic!("{work:?}") };
        assert_eq!((read.expose(), add_special), (text, special), "{body}");
    }
    let error = service.post("/tokenize", &json!({})).await.is(400);
    assert!(error["error"]["message"].as_str().unwrap().contains("content"), "{error}");
    let both = json!({ "prompt": "x", "repeat_penalty": 1.5, "repetition_penalty": 1.25 });
    service.post("/completion", &both).await.is(200);
    assert_eq!(service.models.last().sampling.repeat_penalty, 1.5);
}

#[tokio::test]
async fn properties_are_those_of_the_model_that_is_meant() {
    let service = Service::new(Scripted::hello());
    let body = service.get("/props").await.is(200);
    assert_eq!(body["default_generation_settings"]["n_ctx"], 4096);
    assert_eq!(body["default_generation_settings"]["params"]["top_k"], 40);
    assert_eq!((&body["total_slots"], &body["is_sleeping"]), (&json!(8), &json!(false)));
    assert_eq!(body["model_path"], "mock");
    assert!(body["chat_template"].as_str().unwrap().contains("message.content"));
    let error = service.get("/props?model=nobody").await.is(404);
    assert_eq!(error["error"]["code"], 404);

    let two = Service::new(Scripted::hello().with("other", text(&["x"])));
    assert_eq!(two.get("/props?model=other").await.is(200)["model_alias"], "other");
    let error = two.get("/props").await.is(400);
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("mock, other"), "{message}");
}

#[tokio::test]
async fn slots_are_the_places_of_models_in_memory() {
    let service = Service::new(Scripted::hello());
    let slots = service.get("/slots").await.is(200);
    let slots = slots.as_array().unwrap();
    assert_eq!(slots.len(), 8);
    assert_eq!((&slots[7]["id"], &slots[7]["n_ctx"]), (&json!(7), &json!(4096)));
    assert!(slots.iter().all(|slot| slot["is_processing"] == false));
    service.get("/slots?fail_on_no_slot=1").await.is(200);
    assert_eq!(service.get("/slots?model=nobody").await.is(200), json!([]));
}

#[tokio::test]
async fn slots_are_not_acted_on_by_hand() {
    let service = Service::new(Scripted::hello());
    for (path, body) in [
        ("/slots/0?action=save", json!({ "filename": "a.bin" })),
        ("/slots/0?action=restore", json!({ "filename": "../a.bin" })),
        ("/slots/9999?action=erase", json!({})),
        ("/slots/x", json!([])),
    ] {
        let error = service.post(path, &body).await.is(501)["error"].clone();
        assert_eq!((&error["code"], &error["type"]), (&json!(501), &json!("not_supported_error")));
        assert!(error["message"].as_str().unwrap().contains("kept in memory and on disk"));
    }
    let error = service.get("/slots/0").await.is(405)["error"].clone();
    assert_eq!((&error["code"], &error["type"]), (&json!(405), &json!("invalid_request_error")));
    assert!(service.models.works().is_empty() && service.models.seen().is_empty());
}

#[tokio::test]
async fn slots_that_are_all_taken_can_be_an_error() {
    let service = Service::new(Scripted::hello().busy("mock", 8));
    let slots = service.get("/slots").await.is(200);
    assert!(slots.as_array().unwrap().iter().all(|slot| slot["is_processing"] == true));
    let said = service.get("/slots?fail_on_no_slot=1").await;
    assert_eq!(said.is(503)["error"]["code"], 503);
    service.get("/slots?fail_on_no_slot=0").await.is(200);
    let nearly = Service::new(Scripted::hello().busy("mock", 7));
    nearly.get("/slots?fail_on_no_slot=1").await.is(200);
}

#[tokio::test]
async fn models_say_whether_they_are_in_memory() {
    let body = Service::new(Scripted::hello()).get("/models").await.is(200);
    assert_eq!(body["data"][0]["id"], "mock");
    assert_eq!(body["data"][0]["status"]["value"], "loaded");
    assert_eq!(body["data"][0]["meta"]["n_ctx_train"], 8192);
}

#[tokio::test]
async fn text_becomes_tokens_and_text_again() {
    let service = Service::new(Scripted::hello());
    let body = service.post("/tokenize", &json!({ "content": "one two three" })).await.is(200);
    assert_eq!(body, json!({ "tokens": [1, 2, 3] }));
    let Work::Tokenize { add_special, parse_special, .. } = service.models.works()[0].1 else {
        panic!("other work")
    };
    assert_eq!((add_special, parse_special), (false, true));

    let body = json!({ "content": "a b", "add_special": true, "parse_special": false, "with_pieces": true });
    let body = service.post("/tokenize", &body).await.is(200);
    let pieces = json!([{ "id": 1, "piece": "w1 " }, { "id": 2, "piece": "w2 " }]);
    assert_eq!(body["tokens"], pieces);

    let body = service.post("/detokenize", &json!({ "tokens": [7, 8] })).await.is(200);
    assert_eq!(body, json!({ "content": "w7 w8 ", "prompt": "w7 w8 " }));
    let messages =
        json!([{ "role": "system", "content": "Be." }, { "role": "user", "content": "Hi" }]);
    let body = service.post("/apply-template", &json!({ "messages": messages })).await.is(200);
    assert_eq!(body, json!({ "prompt": "Be.\nHi" }));
    // One call each, however many pieces it took.
    assert_eq!(service.records().len(), 4);
}

#[tokio::test]
async fn a_call_that_names_no_model_among_several_lists_them() {
    let service = Service::new(Scripted::hello().with("other", text(&["x"])));
    for (path, body) in [
        ("/tokenize", json!({ "content": "x" })),
        ("/completion", json!({ "prompt": "x" })),
        ("/infill", json!({ "input_prefix": "x", "input_suffix": "" })),
        ("/embedding", json!({ "content": "x" })),
    ] {
        let error = service.post(path, &body).await.is(400);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains("mock, other"), "{path}: {message}");
        let mut named = body.clone();
        named["model"] = json!("other");
        service.post(path, &named).await.is(200);
        named["model"] = json!("nobody");
        service.post(path, &named).await.is(404);
    }
}

#[tokio::test]
async fn a_completion_has_llama_servers_form() {
    let service = Service::new(Scripted::hello());
    let said = service.post("/completion", &json!({ "prompt": "one two", "n_predict": 3 })).await;
    let body = said.is(200);
    assert_eq!(body["content"], "Hello there.");
    assert_eq!((&body["stop"], &body["stop_type"]), (&json!(true), &json!("eos")));
    assert_eq!((&body["tokens_predicted"], &body["tokens_evaluated"]), (&json!(3), &json!(9)));
    assert_eq!((&body["truncated"], &body["tokens_cached"]), (&json!(false), &json!(4)));
    assert_eq!(body["timings"]["predicted_n"], 3);
    assert_eq!(body["timings"]["predicted_per_token_ms"], 10.0);
    assert_eq!(body["generation_settings"]["n_predict"], 3);
    assert_eq!(body["generation_settings"]["seed"], 42);
    assert_eq!(said.headers["x-tieline-context"], "4096");
    // The text is read with the special tokens in it, as /apply-template writes them.
    assert_eq!(service.models.last().prompt, Prompt::Tokens(vec![1, 2]));
    let Work::Tokenize { add_special, parse_special, .. } = service.models.works()[0].1 else {
        panic!("other work")
    };
    assert!(add_special && parse_special);
    assert_eq!(service.records().len(), 1);
}

#[tokio::test]
async fn a_completion_is_read_whole() {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "prompt": [5, 6], "n_predict": -1, "temperature": 0, "top_k": 3, "repeat_last_n": -1,
        "stop": ["END", ""], "seed": 7, "grammar": "root ::= \"a\"", "n_probs": 2,
        "cache_prompt": false, "ignore_eos": true, "logit_bias": [[5, false], [6, 1.5]], "id_slot": 3, "samplers": ["top_k"],
        "return_progress": true,
    });
    let said = service.post("/completions", &body).await;
    let answer = said.is(200);
    assert_eq!(said.headers["x-tieline-ignored"], "id_slot, samplers, return_progress");
    assert_eq!(answer["completion_probabilities"][0]["logprob"], -0.5);
    assert_eq!(answer["completion_probabilities"][0]["token"], "Hello");
    let asked = service.models.last();
    assert_eq!(asked.prompt, Prompt::Tokens(vec![5, 6]));
    assert_eq!((asked.max_tokens, asked.logprobs), (None, Some(2)));
    assert_eq!((asked.cache, asked.ignore_eog), (false, true));
    assert_eq!(asked.stop, ["END"]);
    assert_eq!((asked.sampling.top_k, asked.sampling.seed), (3, Some(7)));
    assert_eq!(asked.sampling.logit_bias, [(5, -100.0), (6, 1.5)]);
    assert_eq!(asked.sampling.penalty_window.0, 1_000_000);
    assert_eq!(asked.constraint, Some(Constraint::Gbnf("root ::= \"a\"".to_owned())));
    assert_eq!(asked.overflow, Overflow::Error);

    let body =
        json!({ "prompt": ["one"], "json_schema": { "type": "object" }, "return_tokens": true });
    let answer = service.post("/completion", &body).await.is(200);
    assert_eq!(answer["tokens"], json!([1, 1, 1]));
    let asked = service.models.last();
    assert_eq!(asked.constraint, Some(Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned())));
    assert_eq!(asked.logprobs, Some(0));
}

#[tokio::test]
async fn a_stream_ends_with_all_but_the_text() {
    let service = Service::new(Scripted::hello());
    let said = service.post("/completion", &json!({ "prompt": "x", "stream": true })).await;
    assert!(said.headers["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    let chunks = said.chunks();
    let [pieces @ .., end] = chunks.as_slice() else { panic!("no chunks") };
    let text: String = pieces.iter().filter_map(|chunk| chunk["content"].as_str()).collect();
    assert_eq!(text, "Hello there.");
    assert!(pieces.iter().all(|chunk| chunk["stop"] == false));
    assert_eq!((&end["stop"], &end["content"]), (&json!(true), &json!("")));
    assert_eq!(end["timings"]["prompt_n"], 5);
    // llama-server's own routes have no `[DONE]`.
    assert!(!said.text.contains("[DONE]"));
}

#[tokio::test]
async fn ends_have_llama_servers_words() {
    let ends = [
        (FinishReason::StopText("END".to_owned()), "word", "END"),
        (FinishReason::MaxTokens, "limit", ""),
        (FinishReason::EndOfTurn, "eos", ""),
        (FinishReason::ContextFull, "limit", ""),
    ];
    for (reason, stop_type, word) in ends {
        let full = reason == FinishReason::ContextFull;
        let steps = vec![started(), piece("a"), finished(reason, 1)];
        let service = Service::new(Scripted::default().with("mock", steps));
        let body = service.post("/completion", &json!({ "prompt": "x" })).await.is(200);
        assert_eq!((&body["stop_type"], &body["stopping_word"]), (&json!(stop_type), &json!(word)));
        assert_eq!(body["truncated"], full);
    }
}

#[tokio::test]
async fn fields_are_told_by_the_paths_that_name_them() {
    let service = Service::new(Scripted::hello());
    let fields = json!(["content", "timings/prompt_n", "nothing/here"]);
    let body = json!({ "prompt": "x", "response_fields": fields });
    let body = service.post("/completion", &body).await.is(200);
    assert_eq!(body, json!({ "content": "Hello there.", "timings/prompt_n": 5 }));
}

#[tokio::test]
async fn a_gap_has_what_stands_around_it() {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "input_extra": [{ "filename": "lib.rs", "text": "fn help() {}" }, { "text": "// more" }],
        "input_prefix": "fn main() {\n", "prompt": "    hel", "input_suffix": "\n}\n",
        "n_predict": 0, "t_max_predict_ms": 500,
    });
    let said = service.post("/infill", &body).await;
    assert_eq!(said.is(200)["content"], "Hello there.");
    assert_eq!(said.headers["x-tieline-ignored"], "t_max_predict_ms");
    let asked = service.models.last();
    let Prompt::Infill { prefix, suffix } = &asked.prompt else { panic!("no gap") };
    assert_eq!(prefix.expose(), "lib.rs\nfn help() {}\n// more\nfn main() {\n    hel");
    assert_eq!(suffix.expose(), "\n}\n");
    assert_eq!(
        (asked.overflow, asked.max_tokens.map(|most| most.0)),
        (Overflow::DropOldest, Some(0))
    );
}

#[tokio::test]
async fn vectors_are_a_list_of_lists() {
    let service = Service::new(Scripted::hello());
    let vector = json!([[0.5, 0.5, -0.5, 0.5]]);
    let body = service.post("/embedding", &json!({ "content": "a b" })).await.is(200);
    assert_eq!(body, json!([{ "index": 0, "embedding": vector }]));
    let body = json!({ "input": ["a", [1, 2]], "embd_normalize": -1 });
    let body = service.post("/embeddings", &body).await.is(200);
    assert_eq!(body[1], json!({ "index": 1, "embedding": vector }));
    let (wanted, work) = service.models.works().pop().unwrap();
    assert_eq!(wanted.vectors, Some(Pooling::Model));
    let texts = vec![Input::from("a"), Input::Tokens(vec![1, 2])];
    let Work::Embed { texts: asked, normalise: false, .. } = work else { panic!("{work:?}") };
    assert_eq!(asked, texts);
}

#[tokio::test]
async fn bad_requests_are_refused_with_words() {
    let service = Service::new(Scripted::hello());
    let cases = [
        ("/completion", json!({}), "prompt is missing"),
        ("/completion", json!({ "prompt": [1, "a"] }), "POST /tokenize"),
        ("/completion", json!({ "prompt": ["a", "b"] }), "several prompts"),
        ("/completion", json!({ "prompt": { "prompt_string": "a" } }), "pictures"),
        ("/completion", json!({ "prompt": [] }), "prompt is empty"),
        ("/completion", json!({ "prompt": "a", "n_probs": 21 }), "n_probs is 21"),
        ("/completion", json!({ "prompt": "a", "n_predict": -3 }), "max_tokens is -3"),
        ("/completion", json!({ "prompt": "a", "grammar": "g", "json_schema": {} }), "exclude"),
        ("/completion", json!({ "prompt": "a", "json_schema": 5 }), "no JSON schema"),
        ("/completion", json!({ "prompt": "a", "logit_bias": [["a", 2]] }), "POST /tokenize"),
        ("/completion", json!({ "prompt": "a", "input_prefix": "b" }), "/infill"),
        ("/infill", json!({ "input_suffix": "b" }), "input_prefix is missing"),
        ("/infill", json!({ "input_prefix": "b" }), "input_suffix is missing"),
        ("/infill", json!({ "input_prefix": "", "input_suffix": "", "prompt": [1] }), "no text"),
        ("/tokenize", json!({ "content": 5 }), "expected a string"),
        ("/detokenize", json!({ "tokens": [-1] }), "expected u32"),
        ("/embedding", json!({}), "content is missing"),
        ("/embedding", json!({ "content": [] }), "content is missing"),
        ("/embedding", json!({ "content": "a", "embd_normalize": 0 }), "embd_normalize"),
        ("/apply-template", json!({ "messages": "x" }), "expected a sequence"),
    ];
    for (path, body, want) in cases {
        let error = service.post(path, &body).await.is(400);
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(want), "{path} {body}: {message}");
        assert_eq!(error["error"]["code"], 400);
    }
}

#[tokio::test]
async fn limits_hold_at_their_value() {
    let service = Service::new(Scripted::hello());
    let words = |count: usize| vec!["w"; count];
    let pieces = |count: usize| json!({ "content": words(count).join(" "), "with_pieces": true });
    service.post("/tokenize", &pieces(2048)).await.is(200);
    service.post("/tokenize", &pieces(2049)).await.is(400);
    service.post("/embedding", &json!({ "content": words(2048) })).await.is(200);
    service.post("/embedding", &json!({ "content": words(2049) })).await.is(400);
}

#[tokio::test]
async fn what_does_not_fit_is_told_in_numbers() {
    let fails = vec![Step::Fail(ErrorKind::ContextExceeded, "9 tokens are too many")];
    let service = Service::new(Scripted::default().with("long", fails));
    for (prompt, stream, want) in [
        (json!("one two three"), false, 3),
        (json!("one two three four"), true, 4),
        (json!([5, 6]), false, 2),
    ] {
        let body = json!({ "prompt": prompt, "stream": stream });
        let error = service.post("/completion", &body).await.is(400)["error"].clone();
        assert_eq!(error["type"], "exceed_context_size_error");
        assert_eq!((&error["n_prompt_tokens"], &error["n_ctx"]), (&json!(want), &json!(4096)));
        assert_eq!(error["message"], "9 tokens are too many");
    }
    // What fails otherwise has no such numbers.
    let models = Scripted::default().refusing("mock", ErrorKind::Busy, "the queue is full");
    let error = Service::new(models).post("/completion", &json!({ "prompt": "x" })).await.is(503);
    let error = &error["error"];
    assert_eq!((&error["type"], error.get("n_ctx")), (&json!("unavailable_error"), None));
}

#[tokio::test]
async fn a_stream_that_breaks_ends_with_an_error() {
    let models = Scripted::default()
        .with("mock", vec![started(), piece("Hel"), Step::Fail(ErrorKind::Crashed, "it died")]);
    let service = Service::new(models);
    let said = service.post("/completion", &json!({ "prompt": "x", "stream": true })).await;
    let error = said.chunks().pop().unwrap();
    assert_eq!(error["error"]["type"], "unavailable_error");
    assert_eq!(error["error"]["code"], 503);
    service.post("/completion", &json!({ "prompt": "x" })).await.is(503);
}

#[tokio::test]
async fn a_tokenizer_is_told_as_vllm_tells_it() {
    let service = Service::new(Scripted::hello());
    let info = service.get("/tokenizer_info").await.is(200);
    assert_eq!(info["eos_token"], "w2 ");
    assert_eq!(info["bos_token"], Value::Null);
    assert!(info["chat_template"].as_str().unwrap().contains("messages"));
    let ask = json!({ "prompt": "one two", "add_special_tokens": false });
    assert_eq!(service.post("/tokenize", &ask).await.is(200)["tokens"], json!([1, 2]));
    let text = service.post("/detokenize", &json!({ "tokens": [1, 2] })).await.is(200);
    assert_eq!((&text["prompt"], &text["content"]), (&json!("w1 w2 "), &json!("w1 w2 ")));
}
