//! A service in front of scripted models, and what it says.

use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use testkit::scripted::Scripted;
use tieline_router::{Filed, Record, Router};
use tieline_server::{App, Config, Library, Peer};
use tieline_store::keys::{Secret, admin_token};
use tieline_store::{Catalogue, Environment, Store};
use tokio::sync::mpsc;
use tower::ServiceExt;

use crate::conform;

/// A service and the models behind it.
pub(crate) struct Service {
    pub(crate) models: Scripted,
    pub(crate) app: App,
    pub(crate) store: Store,
    pub(crate) token: Secret,
    service: axum::Router,
    records: Mutex<mpsc::Receiver<Filed>>,
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

    pub(crate) fn with(models: Scripted, mut config: Config) -> Self {
        let home = tempfile::tempdir().unwrap();
        let token = admin_token(home.path()).unwrap();
        config.doors.admin_token.get_or_insert(token);
        let (sink, records) = mpsc::channel(64);
        let router = Router::new(Arc::new(models.clone()), Some(sink));
        let store = Store::open(home.path()).unwrap();
        let of = Self::of(App::new(router, library(store), config), models, home);
        Self { records: Mutex::new(records), ..of }
    }

    /// What was recorded since this was asked last.
    pub(crate) fn records(&self) -> Vec<Arc<Record>> {
        let mut records = self.records.lock().unwrap();
        std::iter::from_fn(|| records.try_recv().ok()).map(|filed| filed.record).collect()
    }

    /// An app that was put together elsewhere, in this home.
    pub(crate) fn of(app: App, models: Scripted, home: tempfile::TempDir) -> Self {
        let (store, token) = (Store::open(home.path()).unwrap(), admin_token(home.path()).unwrap());
        let service = tieline_server::app(app.clone());
        let records = Mutex::new(mpsc::channel(1).1);
        Self { models, app, service, store, token, records, _home: home }
    }

    /// Another app in the same home.
    pub(crate) fn app_with(&self, config: Config) -> App {
        let router = Router::new(Arc::new(self.models.clone()), None);
        App::new(router, library(self.store.clone()), config)
    }

    /// Sends a request as this machine's user and waits for the whole answer.
    pub(crate) async fn send(&self, request: Request<Body>) -> Said {
        self.send_as_is(self.mine(request)).await
    }

    /// A request as this machine's user sends it.
    fn mine(&self, mut request: Request<Body>) -> Request<Body> {
        let bearer = format!("Bearer {}", self.token.expose()).parse().unwrap();
        request.headers_mut().entry("authorization").or_insert(bearer);
        request.headers_mut().entry("host").or_insert("localhost:11434".parse().unwrap());
        request.extensions_mut().insert(Peer::local(11434));
        request
    }

    /// Sends a request as it is and waits for the whole answer.
    pub(crate) async fn send_as_is(&self, request: Request<Body>) -> Said {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = self.service.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let said = Said { status: head.status, headers: head.headers, text };
        conform::check(&method, &path, &said);
        said
    }

    /// How a request is answered; the body is not read: it may be a stream without end.
    pub(crate) async fn status(&self, request: Request<Body>) -> StatusCode {
        self.service.clone().oneshot(self.mine(request)).await.unwrap().status()
    }

    /// Begins an answer that may have no end.
    pub(crate) async fn open(&self, path: &str) -> Body {
        let request = Request::get(path).body(Body::empty()).unwrap();
        self.service.clone().oneshot(self.mine(request)).await.unwrap().into_body()
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

    /// The models on disk.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Sends JSON to be deleted.
    pub(crate) async fn delete(&self, path: &str, body: &Value) -> Said {
        let request = Request::delete(path).header("content-type", "application/json");
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Said {
        self.get_with(path, &[]).await
    }

    /// Gets with more headers.
    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Said {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(Body::empty()).unwrap()).await
    }
}

/// What is on disk, and nowhere to look for more.
pub(crate) fn library(store: Store) -> Library {
    Library {
        store,
        catalogue: Arc::new(Catalogue::embedded().unwrap()),
        environment: Arc::new(Environment::new("http://127.0.0.1:9".to_owned())),
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

    /// The values of a stream of lines.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The JSON of each event's data that is JSON.
    pub(crate) fn chunks(&self) -> Vec<Value> {
        self.events().iter().filter_map(|(_, data)| serde_json::from_str(data).ok()).collect()
    }
}
