//! What Ollama's clients change: pulled, made, copied and removed models.

use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_store::gguf::write::Draft;
use tieline_store::keys::{NewKey, Scope};
use tieline_types::{Prompt, Role};

use crate::service::Service;

/// A model's file, and the reference to it.
fn file() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small.gguf");
    std::fs::write(&path, Draft::sample(128_000).bytes()).unwrap();
    let reference = format!("file:{}", path.display());
    (folder, reference)
}

/// The digest of no file here.
const NOWHERE: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

fn statuses(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["status"].as_str()).collect()
}

#[tokio::test]
async fn a_pull_tells_its_steps() {
    let service = Service::new(Scripted::hello());
    let (_folder, reference) = file();
    let said = service.post("/api/pull", &json!({ "model": reference })).await;
    assert_eq!(said.headers["content-type"], "application/x-ndjson");
    let lines = said.lines();
    let statuses = statuses(&lines);
    assert_eq!(statuses[0], "pulling manifest");
    assert!(statuses.contains(&"verifying sha256 digest"));
    assert_eq!(statuses[statuses.len() - 2..], ["writing manifest", "success"]);
    let bytes = lines.iter().find(|line| line.get("digest").is_some()).unwrap();
    let short = &bytes["digest"].as_str().unwrap()[7..19];
    assert_eq!(bytes["status"], format!("pulling {short}"));
    assert!(bytes["total"].as_u64().unwrap() > 128_000);
    assert_eq!(bytes["completed"], bytes["total"]);
    assert_eq!(service.store().list().unwrap()[0].name, "small");
    let body = json!({ "name": "small", "stream": false });
    assert_eq!(service.post("/api/pull", &body).await.is(200), json!({ "status": "success" }));
}

#[tokio::test]
async fn a_pull_that_fails_says_why() {
    let service = Service::new(Scripted::hello());
    let lines = service.post("/api/pull", &json!({ "model": "smolm2" })).await.lines();
    let error = lines.last().unwrap()["error"].as_str().unwrap();
    assert!(error.contains("smolm2") && error.contains("did you mean"), "{error}");
    let body = json!({ "model": "smolm2", "stream": false });
    assert!(service.post("/api/pull", &body).await.is(404)["error"].is_string());
    service.post("/api/pull", &json!({ "model": "a$b" })).await.is(400);
    service.post("/api/pull", &json!({})).await.is(400);
}

#[tokio::test]
async fn a_made_model_says_its_own_first() {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "model": "Mario:latest", "from": "mock", "system": "You are Mario.", "license": ["A", "B"],
        "template": "{{ .Prompt }}",
        "parameters": { "temperature": 0.25, "num_ctx": 8192, "stop": ["a", "b"] },
        "messages": [{ "role": "user", "content": "Hi?" }, { "role": "assistant", "content": "Mamma mia" }],
    });
    let lines = service.post("/api/create", &body).await.lines();
    assert_eq!(statuses(&lines).last(), Some(&"success"));

    let ask = json!({ "model": "mario", "stream": false,
        "messages": [{ "role": "user", "content": "Go" }], "options": { "stop": "c" } });
    assert_eq!(service.post("/api/chat", &ask).await.is(200)["model"], "mario");
    let (wanted, asked) = service.models.seen().pop().unwrap();
    assert_eq!((wanted.name.as_str(), wanted.context.map(|c| c.0)), ("mock", Some(8192)));
    assert_eq!((asked.sampling.temperature, asked.stop), (0.25, vec!["c".to_owned()]));
    let Prompt::Chat(messages) = asked.prompt else { panic!("no chat") };
    let texts: Vec<&str> = messages.iter().map(|message| message.content.expose()).collect();
    assert_eq!(texts, ["You are Mario.", "Hi?", "Mamma mia", "Go"]);

    let own = json!({ "model": "mario", "system": "Be Luigi.", "prompt": "Go" });
    service.post("/api/generate", &own).await;
    let Prompt::Chat(messages) = service.models.last().prompt else { panic!("no chat") };
    assert_eq!((messages.len(), messages[0].role), (4, Role::System));
    assert_eq!(messages[0].content.expose(), "Be Luigi.");

    let shown = service.post("/api/show", &json!({ "model": "mario" })).await.is(200);
    assert_eq!((&shown["license"], &shown["system"]), (&json!("A\n\nB"), &json!("You are Mario.")));
    assert_eq!(shown["details"]["parent_model"], "mock");
    let parameters = shown["parameters"].as_str().unwrap();
    let has = |name: &str, value: &str| {
        parameters.lines().any(|line| line.split_whitespace().eq([name, value]))
    };
    assert!(has("num_ctx", "8192") && has("stop", "\"a\"") && has("stop", "\"b\""), "{parameters}");
    let file = shown["modelfile"].as_str().unwrap();
    assert!(file.starts_with("FROM mock\nTEMPLATE \"\"\"{{ .Prompt }}\"\"\"\n"), "{file}");
    assert!(file.contains("PARAMETER temperature") && file.contains("MESSAGE assistant"));
    let models = service.get("/api/tags").await.is(200)["models"].clone();
    assert_eq!(models[1]["name"], "mario");
}

#[tokio::test]
async fn what_is_not_read_of_a_made_model_is_named() {
    let service = Service::new(Scripted::hello());
    let body = json!({
        "model": "made", "from": "mock", "renderer": "x", "requires": "0.14.0",
        "parameters": { "mirostat": 2, "num_keep": 4, "temperature": 0.5 },
    });
    let said = service.post("/api/create", &body).await;
    let ignored = said.headers["x-tieline-ignored"].to_str().unwrap();
    let mut ignored: Vec<&str> = ignored.split(", ").collect();
    ignored.sort_unstable();
    let want = ["parameters.mirostat", "parameters.num_keep", "renderer", "requires"];
    assert_eq!(ignored, want);
    let body = json!({ "model": "plain", "from": "mock", "parameters": { "seed": 1 } });
    let said = service.post("/api/create", &body).await;
    assert!(!said.headers.contains_key("x-tieline-ignored"));
}

#[tokio::test]
async fn a_model_made_of_a_made_one_is_its_bases() {
    let service = Service::new(Scripted::hello());
    let make = async |body: Value| service.post("/api/create", &body).await;
    make(json!({ "model": "one", "from": "mock", "system": "S", "parameters": { "seed": 1, "top_k": 2 } }))
        .await
        .lines();
    let body =
        json!({ "model": "two", "from": "one", "parameters": { "seed": 3 }, "stream": false });
    assert_eq!(make(body).await.is(200)["status"], "success");
    let shown = service.post("/api/show", &json!({ "model": "two" })).await.is(200);
    assert_eq!(
        (&shown["details"]["parent_model"], &shown["system"]),
        (&json!("mock"), &json!("S"))
    );
    service.post("/api/generate", &json!({ "model": "two", "prompt": "x" })).await;
    let sampling = service.models.last().sampling;
    assert_eq!((sampling.seed, sampling.top_k), (Some(3), 2));
}

#[tokio::test]
async fn what_cannot_be_made_is_refused() {
    let service = Service::new(Scripted::hello());
    let make = async |more: Value| {
        let mut body = json!({ "model": "x", "from": "mock" });
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        service.post("/api/create", &body).await
    };
    for more in [
        json!({ "from": "" }),
        json!({ "model": "" }),
        json!({ "model": "../x" }),
        json!({ "files": { "a.gguf": "sha256:00" } }),
        json!({ "from": "", "files": { "a.gguf": "sha256:00" } }),
        json!({ "from": "", "files": { "a.gguf": 5 } }),
        json!({ "from": "", "files": { "a.gguf": NOWHERE } }),
        json!({ "from": "", "files": { "a.gguf": NOWHERE, "b.gguf": NOWHERE } }),
        json!({ "from": "", "files": { "a.gguf": NOWHERE }, "adapters": { "law": "" } }),
        json!({ "quantize": "q4_K_M" }),
        json!({ "parameters": { "temperature": "hot" } }),
        json!({ "parameters": { "temperature": 99 } }),
        json!({ "parameters": { "stop": [""] } }),
        json!({ "messages": [{ "role": "user", "content": "", "images": ["iVBORw0KGgo="] }] }),
        json!({ "messages": [{ "role": "CANARY" }] }),
    ] {
        let said = make(more.clone()).await;
        assert!(said.is(400)["error"].is_string(), "{more}");
        assert!(!said.text.contains("CANARY"));
    }
    make(json!({ "from": "nobody" })).await.is(404);
    // Nor of an adapter that is not here, by name or by digest.
    make(json!({ "adapters": { "gone": "" } })).await.is(404);
    make(json!({ "adapters": { "a.gguf": "sha256:00" } })).await.is(404);
    assert!(service.store().overlays().unwrap().is_empty());
}

#[tokio::test]
async fn models_are_copied_and_removed() {
    let service = Service::new(Scripted::hello());
    let (_folder, reference) = file();
    service.post("/api/pull", &json!({ "model": reference })).await.lines();
    let copy = async |from: &str, to: &str| {
        service.post("/api/copy", &json!({ "source": from, "destination": to })).await
    };
    assert_eq!(copy("small", "second:latest").await.status.as_u16(), 200);
    copy("nobody", "x").await.is(404);
    copy("small", "../x").await.is(400);
    service.post("/api/create", &json!({ "model": "made", "from": "mock" })).await.lines();
    copy("small", "made").await.is(400);
    assert_eq!(copy("made", "made2").await.status.as_u16(), 200);
    copy("small", "made2").await.is(400);
    copy("made", "made2").await.is(400);
    let remove = async |name: &str| service.delete("/api/delete", &json!({ "model": name })).await;
    for name in ["small:latest", "second", "made", "made2"] {
        assert_eq!(remove(name).await.status.as_u16(), 200, "{name}");
        remove(name).await.is(404);
    }
    assert!(service.store().list().unwrap().is_empty());
}

#[tokio::test]
async fn a_key_of_some_models_changes_no_others() {
    let service = Service::new(Scripted::hello().with("own", testkit::scripted::text(&["x"])));
    let made = json!({ "model": "pirate", "from": "mock", "system": "Arr.", "stream": false });
    service.post("/api/create", &made).await.is(200);
    let (_folder, reference) = file();
    service.post("/api/pull", &json!({ "model": reference, "stream": false })).await.is(200);
    let new = NewKey {
        scopes: vec![Scope::Infer, Scope::WriteModels],
        models: Some(vec!["own".to_owned(), "free".to_owned()]),
        ..NewKey::default()
    };
    let (secret, _) = service.store.create_key(&new, 1).unwrap();
    service.app.refresh_keys().unwrap();
    let bearer = format!("Bearer {}", secret.expose());
    let key = [("authorization", bearer.as_str())];
    let copy = json!({ "source": "small", "destination": "free" });
    service.post_with("/api/copy", &key, &copy).await.is(404);
    for from in ["mock", "pirate"] {
        let body = json!({ "model": "free", "from": from });
        service.post_with("/api/create", &key, &body).await.is(404);
    }
    for name in ["small", "pirate"] {
        let request = axum::http::Request::delete("/api/delete")
            .header("content-type", "application/json")
            .header("authorization", &bearer)
            .body(json!({ "model": name }).to_string().into())
            .unwrap();
        service.send(request).await.is(404);
    }
    // A file's path is this machine's user's.
    service.post_with("/api/pull", &key, &json!({ "model": reference })).await.is(400);
    // What a model is made of is not told.
    let said = json!({ "model": "pirate", "messages": [{ "role": "user", "content": "Hi" }] });
    let said = service.post_with("/api/chat", &key, &said).await;
    assert!(said.is(404)["error"].as_str().unwrap().contains("pirate"));
    assert!(!said.text.contains("mock"), "{}", said.text);
    let own = json!({ "model": "free", "from": "own", "stream": false });
    service.post_with("/api/create", &key, &own).await.is(200);
    // Nor does it give their names another meaning.
    for name in ["pirate", "small"] {
        let taken = json!({ "model": name, "from": "own", "stream": false });
        service.post_with("/api/create", &key, &taken).await.is(404);
        let copy = json!({ "source": "free", "destination": name });
        service.post_with("/api/copy", &key, &copy).await.is(404);
    }
    assert_eq!(service.store().overlay("pirate").unwrap().unwrap().base, "mock");
}
