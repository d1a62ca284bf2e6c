//! The service: the table of routes made into something that answers.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use axum::extract::Request;
use axum::middleware;
use axum::response::Response;
use tieline_router::Router;
use tieline_store::{Catalogue, DbError, Environment, Store};
use tokio_util::sync::CancellationToken;

use crate::caller::RequestId;
use crate::config::Config;
use crate::doors::held::Places;
use crate::doors::keyring::Keyring;
use crate::doors::layers::{Dialects, guarded, outer};
use crate::error::{ApiError, Fault, dress, render};
use crate::metrics::{Lost, Metrics};
use crate::openai::responses::Responses;
use crate::routes::{self, Dialect, Route};

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    router: Router,
    library: Library,
    config: Config,
    keyring: Keyring,
    places: Places,
    metrics: Arc<Metrics>,
    lost: Lost,
    dialects: Dialects,
    ready: AtomicBool,
    stop: CancellationToken,
    responses: Responses,
}

/// Where models come from and lie, for routes that change what is here.
#[derive(Clone, Debug)]
pub struct Library {
    /// The models on disk.
    pub store: Store,
    /// Names and where they come from.
    pub catalogue: Arc<Catalogue>,
    /// Where to look.
    pub environment: Arc<Environment>,
}

impl App {
    /// Puts the parts together. Keys are known once they are [refreshed](Self::refresh_keys).
    pub fn new(router: Router, library: Library, config: Config) -> Self {
        let metrics = Arc::new(Metrics::default());
        let heard = Arc::clone(&metrics);
        router.records().listen(move |record| heard.record(record));
        let dialects: HashMap<_, _> =
            routes::table().iter().map(|route| (route.path, route.dialect)).collect();
        let responses = Responses::new(&config.limits);
        Self(Arc::new(Parts {
            router,
            library,
            keyring: Keyring::new(config.doors.admin_token.as_ref()),
            config,
            places: Places::default(),
            metrics,
            lost: Lost::default(),
            dialects: Arc::new(dialects),
            ready: AtomicBool::new(true),
            stop: CancellationToken::new(),
            responses,
        }))
    }

    /// Reads the keys again where they may have changed. A server does it every second.
    ///
    /// # Errors
    /// The database cannot be read; the keys stay as they were.
    pub fn refresh_keys(&self) -> Result<(), DbError> {
        self.0.keyring.refresh(&self.0.library.store)
    }

    /// Shows in the metrics what the ledger lost.
    pub fn watch_lost(&self, counter: Arc<AtomicU64>) {
        self.0.lost.watch(counter);
    }

    pub(crate) fn keyring(&self) -> &Keyring {
        &self.0.keyring
    }

    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn lost(&self) -> &Lost {
        &self.0.lost
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    /// Cancelled when answers on their way have to end.
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// The dialect of a route's path, or what the caller of a path in no table most likely reads.
    pub(crate) fn dialect_of(&self, path: &str) -> Dialect {
        self.0.dialects.get(path).copied().unwrap_or_else(|| dialect_of(path))
    }

    /// Ends what is made in the background, and waits for it.
    pub async fn close(&self) {
        self.0.responses.close().await;
    }

    pub(crate) fn responses(&self) -> &Responses {
        &self.0.responses
    }

    pub(crate) fn router(&self) -> &Router {
        &self.0.router
    }

    pub(crate) fn library(&self) -> &Library {
        &self.0.library
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }
}

/// The service of this app.
pub fn app(app: App) -> axum::Router {
    service(routes::table(), app)
}

/// The service of these routes. The door around everything is the outermost: nothing is answered before it, not
/// even that there is no such route.
pub(crate) fn service(routes: Vec<Route>, app: App) -> axum::Router {
    let mut service = axum::Router::new();
    for route in routes {
        let (dialect, what, guard) = (route.dialect, (route.guard, route.scopes()), app.clone());
        let dressed =
            middleware::from_fn(move |request: Request, next| dress(dialect, request, next));
        let guarded = middleware::from_fn(move |request: Request, next| {
            guarded(guard.clone(), what, request, next)
        });
        service = service.route(route.path, route.handler.route_layer(guarded).layer(dressed));
    }
    let around = app.clone();
    let outer =
        middleware::from_fn(move |request: Request, next| outer(around.clone(), request, next));
    service.fallback(no_route).method_not_allowed_fallback(no_method).layer(outer).with_state(app)
}

async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("nothing is at {} {path}", request.method());
    render(
        &ApiError::new(Fault::NoRoute, text),
        dialect_of(path),
        &RequestId::of(request.extensions()),
    )
}

async fn no_method(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("{path} does not take {}", request.method());
    render(
        &ApiError::new(Fault::NoMethod, text),
        dialect_of(path),
        &RequestId::of(request.extensions()),
    )
}

/// The dialect of a path that is in no table: what its caller most likely reads.
fn dialect_of(path: &str) -> Dialect {
    match path {
        _ if path.starts_with("/api/v0/") => Dialect::LmStudio,
        _ if path.starts_with("/api/") => Dialect::Ollama,
        _ if path.starts_with("/v1/messages") => Dialect::Anthropic,
        _ => Dialect::OpenAi,
    }
}
