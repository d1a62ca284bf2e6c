//! Pictures, from every dialect: who may see them, and what is said where nobody may.

use serde_json::{Value, json};

use super::http::{Said, get, post};
use super::matrix::clients::{Client, PNG, Wish};
use super::matrix::town::{Terms, Town};

/// What is said where a file's id stands for a picture.
const FILES: &str = "files are not kept here";

const REDACTED: &str = "[[rule]]\nname = \"redacted\"\nclass = \"any\"\nzone = \"cloud\"\n\
    as = \"redacted\"\n";

/// The clients that have a word for pictures.
const SEEING: [Client; 5] =
    [Client::Chat, Client::Responses, Client::Messages, Client::OllamaChat, Client::OllamaGenerate];

fn show(town: &Town, client: Client, model: &str) -> Said {
    let body = client.body(Wish::Picture, model, false).unwrap();
    post(town.address, client.path(), &body)
}

fn message(said: &Said) -> String {
    let body: Value = serde_json::from_str(&said.body).unwrap();
    let error = &body["error"];
    error["message"].as_str().or_else(|| error.as_str()).unwrap().to_owned()
}

#[test]
fn no_model_of_this_machine_sees_one() {
    let town = Town::new();
    for client in SEEING {
        let said = show(&town, client, "mock");
        assert_eq!(said.status, 400, "{client:?}: {}", said.body);
        assert!(message(&said).contains("they see no pictures"), "{}", said.body);
    }
    assert!(town.vendor.captured().is_empty());
}

#[test]
fn a_name_that_no_model_has_is_the_first_thing_said() {
    let town = Town::new();
    for client in SEEING {
        let said = show(&town, client, "canary");
        assert_eq!(said.status, 404, "{client:?}: {}", said.body);
    }
}

#[test]
fn what_is_redacted_leaves_without_one_or_not_at_all() {
    let town = Town::with(Terms { rules: REDACTED, terms: Vec::new() });
    for client in SEEING {
        let said = show(&town, client, "vllm/big");
        assert_eq!(said.status, 403, "{client:?}: {}", said.body);
        assert!(message(&said).contains("a picture cannot be looked through"), "{}", said.body);
        assert!(!said.body.contains(PNG));
    }
    assert!(town.vendor.captured().is_empty());
    // The same without the picture leaves.
    let body = Client::Chat.body(Wish::Nothing, "vllm/big", false).unwrap();
    post(town.address, Client::Chat.path(), &body).is(200);
}

#[test]
fn who_is_not_said_to_see_is_not_asked() {
    let rules = "[[rule]]\nname = \"all\"\nclass = \"any\"\nzone = \"cloud\"\nas = \"as-is\"\n\
        [backends.blind]\nprotocol = \"openai\"\nurl = \"http://127.0.0.1:9/v1\"\nzone = \"cloud\"\n\
        [backends.blind.models.m]\ncontext = 1000\n";
    let town = Town::with(Terms { rules, terms: Vec::new() });
    let said = show(&town, Client::Chat, "blind/m");
    assert_eq!(said.status, 403, "{}", said.body);
    assert!(message(&said).contains("no_vision"), "{}", said.body);
}

#[test]
fn the_bytes_of_a_picture_are_in_the_account_of_what_left() {
    let town = Town::new();
    let said = show(&town, Client::Chat, "vllm/big");
    said.is(200);
    let id = said.header("x-request-id").unwrap();
    let record = get(town.address, &format!("/tieline/v1/decisions/{id}")).is(200);
    assert!(!record.to_string().contains(PNG));
    let surfaces = record["tried"][0]["egress"]["surfaces"].as_array().unwrap();
    let picture = surfaces.iter().find(|one| one["surface"] == "messages[0].pictures[0]").unwrap();
    let part = json!({ "start": 0, "end": PNG.len(), "why": "rule" });
    assert_eq!(picture["parts"], json!([part]));
    let sent = record["tried"][0]["sent_bytes"].as_u64().unwrap();
    assert_eq!(sent, (PNG.len() + super::matrix::clients::QUESTION.len()) as u64);
}

#[test]
fn each_picture_stays_at_its_place() {
    let town = Town::new();
    let text = |text: &str| json!({ "type": "text", "text": text });
    let source = json!({ "type": "base64", "media_type": "image/png", "data": PNG });
    let image = json!({ "type": "image", "source": source });
    let content = [text("One:"), image.clone(), text("two:"), image];
    let body = json!({ "model": "vllm/big", "max_tokens": 9,
        "messages": [{ "role": "user", "content": content }] });
    post(town.address, Client::Messages.path(), &body).is(200);
    let got = town.got(0)[0].json();
    let parts = got["messages"][0]["content"].as_array().unwrap();
    let told = parts.iter().map(|part| part["text"].as_str().unwrap_or("*"));
    assert_eq!(told.collect::<Vec<_>>(), ["One:", "*", "\ntwo:", "*"]);
}

#[test]
fn enough_is_reserved_for_a_picture() {
    let town = Town::new();
    let most = |wish| {
        let body = Client::Chat.body(wish, "vllm/big", false).unwrap();
        let said = post(town.address, Client::Chat.path(), &body);
        let id = said.header("x-request-id").unwrap();
        let record = get(town.address, &format!("/tieline/v1/decisions/{id}")).is(200);
        record["asked"]["prompt_tokens_most"].as_u64().unwrap()
    };
    let (text, picture) = (most(Wish::Nothing), most(Wish::Picture));
    assert_eq!(picture - text, 48_169);
}

fn chat(url: &str) -> Value {
    let part = json!({ "type": "image_url", "image_url": { "url": url } });
    json!({ "model": "vllm/big", "messages": [{ "role": "user", "content": [part] }] })
}

fn block(source: &Value) -> Value {
    let block = json!({ "type": "image", "source": source });
    json!({ "model": "vllm/big", "max_tokens": 9,
        "messages": [{ "role": "user", "content": [block] }] })
}

fn item(part: &Value) -> Value {
    json!({ "model": "vllm/big", "input": [{ "role": "user", "content": [part] }] })
}

/// Bodies of pictures that are none, each in the words of a dialect, and what is said of them.
#[test]
fn what_is_no_picture_is_refused_in_the_dialects_words() {
    let town = Town::new();
    let many = vec![PNG; 101];
    let cases = [
        (Client::Chat, chat("data:image/png;base64,%%"), "no base64"),
        (Client::Chat, chat("data:image/tiff;base64,AAAA"), "expected a PNG"),
        (Client::Chat, chat("http://example.org/a.png"), "expected data: or https:"),
        (Client::Chat, chat("file:///etc/passwd"), "expected data: or https:"),
        (
            Client::Messages,
            block(&json!({ "type": "base64", "media_type": "image/png", "data": "%" })),
            "no base64",
        ),
        (Client::Messages, block(&json!({ "type": "file", "file_id": "f" })), FILES),
        (
            Client::Messages,
            block(&json!({ "type": "url", "url": "http://a.b/c" })),
            "expected data: or https:",
        ),
        (Client::Responses, item(&json!({ "type": "input_image", "file_id": "f" })), FILES),
        (
            Client::Responses,
            item(&json!({ "type": "input_image", "image_url": "x" })),
            "expected data: or https:",
        ),
        (
            Client::OllamaChat,
            json!({ "model": "vllm/big", "messages": [
            { "role": "user", "content": "x", "images": ["aGk="] }] }),
            "expected a PNG",
        ),
        (
            Client::OllamaGenerate,
            json!({ "model": "vllm/big", "prompt": "x", "images": many }),
            "at most 100",
        ),
        (
            Client::Chat,
            json!({ "model": "vllm/big", "messages": [{ "role": "system", "content": [
            { "type": "image_url", "image_url": "https://a.b/c.png" }] }] }),
            "user's message alone",
        ),
    ];
    for (client, body, want) in cases {
        let said = post(town.address, client.path(), &body);
        assert_eq!(said.status, 400, "{client:?} {body}: {}", said.body);
        assert!(message(&said).contains(want), "{want}: {}", said.body);
    }
    assert!(town.vendor.captured().is_empty());
}
