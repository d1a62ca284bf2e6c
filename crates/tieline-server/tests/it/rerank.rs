//! Reranking.

use serde_json::{Value, json};
use testkit::scripted::Scripted;
use tieline_types::Pooling;
use tieline_types::wire::Work;

use crate::openai::refused;
use crate::service::Service;

fn ask(documents: &Value, more: &Value) -> Value {
    let mut body = json!({ "model": "mock", "query": "what", "documents": documents });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[tokio::test]
async fn the_best_comes_first_on_every_path() {
    let service = Service::new(Scripted::hello());
    let documents = json!(["first", { "text": "second one" }, "third"]);
    for path in ["/v1/rerank", "/rerank", "/v1/reranking", "/reranking"] {
        let body = service.post(path, &ask(&documents, &json!({}))).await.is(200);
        let order: Vec<Value> =
            body["results"].as_array().unwrap().iter().map(|one| one["index"].clone()).collect();
        assert_eq!(order, [2, 1, 0]);
        assert_eq!(body["results"][0], json!({ "index": 2, "relevance_score": 2.0 }));
        assert_eq!(body["usage"], json!({ "prompt_tokens": 4, "total_tokens": 4 }));
    }
    let (wanted, work) = service.models.works().pop().unwrap();
    assert_eq!(wanted.vectors, Some(Pooling::Model));
    let texts = ["first", "second one", "third"].map(Into::into).to_vec();
    let Work::Rank { query, texts: asked, .. } = work else { panic!("{work:?}") };
    assert_eq!((query, asked), ("what".into(), texts));
    let wish = json!({ "top_n": 1, "return_documents": true });
    let body = service.post("/v1/rerank", &ask(&documents, &wish)).await.is(200);
    assert_eq!(
        body["results"],
        json!([{ "index": 2, "relevance_score": 2.0, "document": { "text": "third" } }])
    );
}

#[tokio::test]
async fn bad_wishes_are_refused() {
    let service = Service::new(Scripted::hello());
    let post = async |documents: Value, more: Value| {
        service.post("/v1/rerank", &ask(&documents, &more)).await
    };
    post(json!(vec!["x"; 2048]), json!({})).await.is(200);
    let many = post(json!(vec!["x"; 2049]), json!({})).await.is(400);
    refused(&many, "invalid_request", Some("documents"));
    let none = post(json!([]), json!({})).await.is(400);
    refused(&none, "invalid_request", Some("documents"));
    let zero = post(json!(["x"]), json!({ "top_n": 0 })).await.is(400);
    refused(&zero, "invalid_request", Some("top_n"));
    refused(&post(json!([1]), json!({})).await.is(400), "invalid_json", None);
    let nobody = json!({ "model": "nobody", "query": "x", "documents": ["x"] });
    refused(&service.post("/v1/rerank", &nobody).await.is(404), "model_not_found", None);
}
