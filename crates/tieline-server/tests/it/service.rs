//! A service in front of scripted models, and what it says.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use testkit::scripted::Scripted;
use tieline_router::{Record, Router};
use tieline_server::{App, Config, Library};
use tieline_store::{Catalogue, Environment, Store};
use tokio::sync::mpsc;
use tower::ServiceExt;

/// A service and the models behind it.
pub(crate) struct Service {
    pub(crate) models: Scripted,
    pub(crate) app: App,
    service: axum::Router,
    records: Mutex<mpsc::Receiver<Arc<Record>>>,
    _home: tempfile::TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Service {
    pub(crate) fn new(models: Scripted) -> Self {
        Self::with(models, Config::default())
    }

    pub(crate) fn with(models: Scripted, config: Config) -> Self {
        let home = tempfile::tempdir().unwrap();
        let library = Library {
            store: Store::open(home.path()).unwrap(),
            catalogue: Arc::new(Catalogue::embedded().unwrap()),
            environment: Arc::new(Environment::new("http://127.0.0.1:9".to_owned())),
        };
        let (sink, records) = mpsc::channel(64);
        let router = Router::new(Arc::new(models.clone()), Some(sink));
        let app = App::new(router, library, config);
        let service = tieline_server::app(app.clone());
        Self { models, app, service, records: Mutex::new(records), _home: home }
    }

    /// What was recorded since this was asked last.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        let mut records = self.records.lock().unwrap();
        std::iter::from_fn(|| records.try_recv().ok()).collect()
    }

    /// Sends a request and waits for the whole answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Said {
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Said { status: head.status, headers: head.headers, text }
    }

    /// Posts JSON.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Said {
        self.post_with(path, &[], body).await
    }

    /// Posts JSON with more headers.
    pub(crate) async fn post_with(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: &Value,
    ) -> Said {
        let mut request = Request::post(path).header("content-type", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }
}

impl Said {
    /// The body, which must be JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// It has this status; gives the body.
    #[track_caller]
    pub(crate) fn is(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self.json()
    }

    /// The events of a stream: their names, where they have one, and their data.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let blocks = self.text.split("\n\n").filter(|block| !block.trim().is_empty());
        let member = |block: &str, name: &str| {
            let lines = block.lines().filter_map(|line| line.strip_prefix(name));
            lines.map(|line| line.trim_start().to_owned()).collect::<Vec<_>>().join("\n")
        };
        let events = blocks.map(|block| (member(block, "event:"), member(block, "data:")));
        events.filter(|(name, data)| !name.is_empty() || !data.is_empty()).collect()
    }

    /// The JSON of each event's data that is JSON.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        self.events().iter().filter_map(|(_, data)| serde_json::from_str(data).ok()).collect()
    }
}
