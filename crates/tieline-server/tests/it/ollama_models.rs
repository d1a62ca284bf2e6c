//! What Ollama's clients ask about models, and vectors.

use axum::body::Body;
use axum::http::Request;
use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_types::ErrorKind;

use crate::service::Service;

#[tokio::test]
async fn probes_find_what_they_look_for() {
    let service = Service::new(Scripted::hello());
    let said = service.get("/").await;
    assert_eq!((said.status.as_u16(), said.text.as_str()), (200, "Ollama is running"));
    for path in ["/", "/api/version", "/api/tags"] {
        let said = service.send(Request::head(path).body(Body::empty()).unwrap()).await;
        assert_eq!((said.status.as_u16(), said.text.as_str()), (200, ""));
    }
    let version = service.get("/api/version").await.is(200)["version"].clone();
    let parts: Vec<&str> = version.as_str().unwrap().split('.').collect();
    assert!(parts.len() == 3 && parts.iter().all(|part| part.parse::<u32>().is_ok()));
    assert_eq!(service.get("/api/status").await.is(200)["cloud"]["disabled"], true);
    service.post("/api/me", &json!({})).await.is(401);
    service.post("/api/signout", &json!({})).await.is(200);
    let error = service.get("/api/nothing").await.is(404);
    assert!(error["error"].is_string());
}

#[tokio::test]
async fn models_are_listed_with_all_that_clients_require() {
    let service = Service::new(Scripted::hello());
    let models = service.get("/api/tags").await.is(200)["models"].clone();
    let digest = "07".repeat(32);
    assert_eq!(
        models,
        json!([{
            "name": "mock",
            "model": "mock",
            "modified_at": "2026-09-21T14:13:20Z",
            "size": 98_362_432,
            "digest": digest,
            "details": {
                "parent_model": "", "format": "gguf", "family": "llama", "families": ["llama"],
                "parameter_size": "134.5M", "quantization_level": "Q4_1",
                "context_length": 8192, "embedding_length": 4,
            },
            "capabilities": ["completion", "tools", "insert", "thinking"],
        }])
    );
    let models = service.get("/api/ps").await.is(200)["models"].clone();
    let one = &models[0];
    assert_eq!((&one["name"], &one["digest"]), (&json!("mock"), &json!(digest)));
    assert_eq!((&one["size"], &one["size_vram"]), (&json!(207_000_000), &json!(7_000_000)));
    assert_eq!(one["context_length"], 4096);
    assert!(one["expires_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn a_model_is_shown_as_editors_read_it() {
    let service = Service::new(Scripted::hello());
    for body in [json!({ "model": "mock" }), json!({ "name": "mock:latest", "verbose": true })] {
        let shown = service.post("/api/show", &body).await.is(200);
        assert_eq!(shown["license"], "apache-2.0");
        assert!(shown["template"].as_str().unwrap().contains(".Suffix"));
        assert!(shown["modelfile"].as_str().unwrap().starts_with("FROM mock\nTEMPLATE "));
        assert_eq!(shown["model_info"]["general.architecture"], "llama");
        assert_eq!(shown["model_info"]["llama.context_length"], 8192);
        assert_eq!(shown["model_info"]["general.parameter_count"], 134_515_008);
        assert_eq!(shown["capabilities"], json!(["completion", "tools", "insert", "thinking"]));
        assert_eq!(shown["parameters"], "");
    }
    let error = service.post("/api/show", &json!({ "model": "nobody" })).await.is(404);
    assert!(error["error"].as_str().unwrap().contains("nobody"));
    service.post("/api/show", &json!({})).await.is(400);
}

#[tokio::test]
async fn vectors_are_made_one_by_one_or_many_at_once() {
    let service = Service::new(Scripted::hello());
    let post = async |body: Value| service.post("/api/embed", &body).await;
    let body = post(json!({ "model": "mock", "input": "a b" })).await.is(200);
    assert_eq!(body["embeddings"], json!([[0.5, 0.5, -0.5, 0.5]]));
    assert_eq!(body["prompt_eval_count"], 2);
    assert!(body["load_duration"].is_u64() && body["total_duration"].is_u64());
    let body = json!({ "model": "mock", "input": ["a", "b"], "dimensions": 1 });
    assert_eq!(post(body).await.is(200)["embeddings"], json!([[1.0], [1.0]]));
    let body = json!({ "model": "mock", "input": [], "keep_alive": 0 });
    assert_eq!(post(body).await.is(200)["embeddings"], json!([]));
    assert_eq!(service.models.unloaded(), ["mock"]);
    let (wanted, _) = service.models.works().pop().unwrap();
    assert!(wanted.vectors.is_some());
    post(json!({ "model": "mock", "input": vec!["x"; 2049] })).await.is(400);
    post(json!({ "model": "mock", "input": "a", "dimensions": -1 })).await.is(400);
    post(json!({ "model": "nobody", "input": "a" })).await.is(404);
    let old = json!({ "model": "mock", "prompt": "a b c" });
    let body = service.post("/api/embeddings", &old).await.is(200);
    assert_eq!(body, json!({ "embedding": [0.5, 0.5, -0.5, 0.5] }));
}

#[tokio::test]
async fn a_text_that_is_too_long_for_a_vector_is_an_error() {
    let models = Scripted::default().refusing("mock", ErrorKind::ContextExceeded, "too long");
    let service = Service::new(models);
    let body = json!({ "model": "mock", "input": "a" });
    let error = service.post("/api/embed", &body).await.is(400);
    assert_eq!(error, json!({ "error": "too long" }));
}
