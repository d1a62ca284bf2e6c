//! OpenAI's embeddings.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_types::wire::{Input, Work};
use tieline_types::{ErrorKind, Pooling};

use crate::openai::refused;
use crate::service::Service;

const PATH: &str = "/v1/embeddings";

fn ask(input: &Value, more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "input": input });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn every_form_of_input_is_read() {
    let service = Service::new(Scripted::hello());
    let texts = |count: usize| vec![json!([0.5, 0.5, -0.5, 0.5]); count];
    for (input, count, tokens) in [
        (json!("one two"), 1, 2),
        (json!(["one", "two three"]), 2, 3),
        (json!([5, 6, 7]), 1, 3),
        (json!([[5], [6, 7]]), 2, 3),
    ] {
        let said = service.post(PATH, &ask(&input, &json!({ "user": "me" }))).await;
        let body = said.is(200);
        let vectors: Vec<Value> =
            body["data"].as_array().unwrap().iter().map(|one| one["embedding"].clone()).collect();
        assert_eq!(vectors, texts(count));
        assert_eq!(body["data"][count - 1]["index"], count - 1);
        assert_eq!(body["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }));
        assert_eq!(said.headers["x-tieline-ignored"], "user");
    }
    let (wanted, work) = service.models.works().pop().unwrap();
    assert_eq!(wanted.vectors, Some(Pooling::Model));
    let texts = vec![Input::Tokens(vec![5]), Input::Tokens(vec![6, 7])];
    let Work::Embed { texts: asked, normalise: true, .. } = work else { panic!("{work:?}") };
    assert_eq!(asked, texts);
}

#[tokio::test]
async fn vectors_come_as_base64_and_cut_to_length_one_where_asked() {
    let service = Service::new(Scripted::hello());
    let wish = json!({ "encoding_format": "base64", "dimensions": 1 });
    let body = service.post(PATH, &ask(&json!("x"), &wish)).await.is(200);
    // 1.0 as a little-endian f32.
    assert_eq!(body["data"][0]["embedding"], "AACAPw==");
    let wish = json!({ "dimensions": 1, "normalize": false });
    let body = service.post(PATH, &ask(&json!("x"), &wish)).await.is(200);
    assert_eq!(body["data"][0]["embedding"], json!([0.5]));
    let (_, work) = service.models.works().pop().unwrap();
    assert!(matches!(work, Work::Embed { normalise: false, .. }));
    let wish = json!({ "dimensions": 4, "embd_normalize": -1 });
    service.post(PATH, &ask(&json!("x"), &wish)).await.is(200);
    let body = service.post(PATH, &ask(&json!("x"), &json!({ "dimensions": 5 }))).await.is(400);
    refused(&body, "invalid_request", Some("dimensions"));
}

#[tokio::test]
async fn how_tokens_become_a_vector_is_the_callers_to_say() {
    let service = Service::new(Scripted::hello());
    for (word, want) in [
        ("model", Pooling::Model),
        ("mean", Pooling::Mean),
        ("cls", Pooling::Cls),
        ("last", Pooling::Last),
    ] {
        service.post(PATH, &ask(&json!("x"), &json!({ "pooling": word }))).await.is(200);
        let (wanted, _) = service.models.works().pop().unwrap();
        assert_eq!(wanted.vectors, Some(want));
    }
    let other = service.post(PATH, &ask(&json!("x"), &json!({ "pooling": "rank" }))).await;
    refused(&other.is(400), "invalid_request", Some("pooling"));
}

#[tokio::test(start_paused = true)]
async fn a_load_takes_of_the_time_that_vectors_have() {
    let service = Service::new(Scripted::hello().loading("mock", Duration::from_secs(3)));
    let body = ask(&json!("x"), &json!({}));
    for (most, status) in [("5s", 200), ("2s", 504)] {
        service.post_with(PATH, &[("x-tieline-deadline", most)], &body).await.is(status);
    }
}

#[tokio::test]
async fn bad_wishes_are_refused() {
    let service = Service::new(Scripted::hello().refusing("full", ErrorKind::Busy, "full"));
    let post = async |input: Value, more: Value| service.post(PATH, &ask(&input, &more)).await;
    service.post(PATH, &ask(&json!(vec!["x"; 2048]), &json!({}))).await.is(200);
    let many = post(json!(vec!["x"; 2049]), json!({})).await.is(400);
    refused(&many, "invalid_request", Some("input"));
    let empty = post(json!([]), json!({})).await.is(400);
    refused(&empty, "invalid_request", Some("input"));
    refused(&post(json!([[]]), json!({})).await.is(400), "invalid_request", Some("input"));
    refused(&post(json!(5), json!({})).await.is(400), "invalid_json", None);
    let format = post(json!("x"), json!({ "encoding_format": "hex" })).await.is(400);
    refused(&format, "invalid_request", Some("encoding_format"));
    let norm = post(json!("x"), json!({ "embd_normalize": 1 })).await.is(400);
    refused(&norm, "unsupported", Some("embd_normalize"));
    let zero = post(json!("x"), json!({ "dimensions": 0 })).await.is(400);
    refused(&zero, "invalid_request", Some("dimensions"));
    let nobody = service.post(PATH, &json!({ "model": "nobody", "input": "x" })).await;
    refused(&nobody.is(404), "model_not_found", None);
    let full = service.post(PATH, &json!({ "model": "full", "input": "x" })).await;
    refused(&full.is(503), "overloaded", None);
}
