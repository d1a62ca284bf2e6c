//! A hub that speaks Hugging Face's language.

use serde_json::json;
use tieline_types::Hint;

use crate::server::{Asked, Reply, Server, file};
use crate::world::{World, digest, model};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

struct Hub {
    hub: Server,
    store: Server,
    body: Vec<u8>,
}

/// A hub that sends whoever asks for a file on to another host, as the real one does.
fn hub(etag: Option<String>) -> Hub {
    let body = model(200_000);
    let served = body.clone();
    let store = Server::start(move |asked| file(asked, &served, "\"1\""));
    let files = store.url("/signed?key=secret");
    let listing = json!({
        "sha": COMMIT,
        "siblings": [
            { "rfilename": "README.md" },
            { "rfilename": "sub/m.Q4_K_M.gguf" },
            { "rfilename": "m.Q8_0.gguf" },
        ],
    });
    let hub = Server::start(move |asked: &Asked| {
        let is_known = asked.headers.get("authorization").map(String::as_str) == Some("Bearer t0k");
        if !is_known {
            return Reply::new(401, "");
        }
        match asked.path.as_str() {
            "/api/models/o/r/revision/main" => Reply::new(200, listing.to_string()),
            path if path.starts_with("/o/r/resolve/") => {
                let reply = Reply::redirect(&files).header("x-repo-commit", COMMIT);
                match &etag {
                    Some(etag) => reply.header("x-linked-etag", format!("\"{etag}\"")),
                    None => reply,
                }
            }
            _ => Reply::new(404, ""),
        }
    });
    Hub { hub, store, body }
}

fn world(hub: &Server) -> World {
    let mut world = World::new();
    world.environment.hugging_face.endpoint = hub.url("");
    world.environment.hugging_face.token = Some("t0k".to_owned());
    world
}

#[test]
fn a_quantisation_is_chosen_and_its_commit_recorded() {
    let Hub { hub, store, body } = hub(Some(digest(&model(200_000)).hex()));
    let world = world(&hub);
    let pulled = world.pull("hf:o/r:Q4_K_M").unwrap();
    assert_eq!(pulled.model.digest, digest(&body));
    assert_eq!(pulled.model.source, format!("hf:o/r@{COMMIT}:sub/m.Q4_K_M.gguf"));
    assert_eq!(pulled.model.reference, "hf:o/r:Q4_K_M");
    let path = format!("/o/r/resolve/{COMMIT}/sub/m.Q4_K_M.gguf");
    assert_eq!(hub.asked()[1].path, path);
    // The token went to the hub and to nobody else.
    assert!(store.asked().iter().all(|asked| !asked.headers.contains_key("authorization")));
    assert!(!store.asked().is_empty());
    // The hub says what the file is, so the second pull transfers one byte.
    let before = store.sent();
    assert!(world.pull("hf:o/r:Q4_K_M").unwrap().already_here);
    assert!(store.sent() <= before + body.len() as u64);
    assert_eq!(store.asked().last().unwrap().headers["range"], "bytes=0-0");
}

#[test]
fn a_named_file_needs_no_list() {
    let Hub { hub, body, store: _store } = hub(None);
    let world = world(&hub);
    let pulled = world.pull("hf:o/r@main:m.Q8_0.gguf").unwrap();
    assert_eq!(pulled.model.digest, digest(&body));
    assert_eq!(pulled.model.source, format!("hf:o/r@{COMMIT}:m.Q8_0.gguf"));
    assert!(hub.asked().iter().all(|asked| asked.path == "/o/r/resolve/main/m.Q8_0.gguf"));
}

#[test]
fn an_unclear_choice_lists_the_files() {
    let Hub { hub, store: _store, .. } = hub(None);
    let error = world(&hub).refused("hf:o/r");
    assert!(error.ends_with("name one of its files: sub/m.Q4_K_M.gguf, m.Q8_0.gguf"), "{error}");
    let error = world(&hub).refused("hf:o/r:Q2_K");
    assert!(error.contains("no file has \"Q2_K\""), "{error}");
    let error = world(&hub).refused("hf:o/other:Q2_K");
    assert!(error.ends_with("answered 404"), "{error}");
}

#[test]
fn a_digest_that_the_hub_contradicts_stops_the_download() {
    let Hub { hub, store: _store, .. } = hub(Some(digest(b"other").hex()));
    let mut world = world(&hub);
    // The hub lies about its own file.
    let error = world.refused("hf:o/r:Q8_0");
    assert!(error.contains(&format!("expected {}", digest(b"other"))), "{error}");
    world.expected = Some(digest(&model(200_000)));
    let error = world.refused("hf:o/r:Q8_0");
    assert!(error.contains(&format!("found {}", digest(b"other"))), "{error}");
}

#[test]
fn without_token_the_hint_says_so() {
    let Hub { hub, store: _store, .. } = hub(None);
    let mut world = world(&hub);
    world.environment.hugging_face.token = None;
    let error = world.pull("hf:o/r:Q8_0").unwrap_err();
    assert!(error.to_string().ends_with("answered 401"), "{error}");
    assert!(error.hint().unwrap().contains("access token"));
}
