//! The service: the table of routes made into something that answers.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use tieline_router::Router;
use tieline_store::{Catalogue, Environment, Store};

use crate::config::Config;
use crate::error::{ApiError, Fault, dress, render};
use crate::openai::responses::Responses;
use crate::routes::{self, Dialect};

/// What handlers work with. Cheap to clone.
#[derive(Clone, Debug)]
pub struct App(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    router: Router,
    library: Library,
    config: Config,
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
    /// Puts the parts together.
    pub fn new(router: Router, library: Library, config: Config) -> Self {
        let responses = Responses::new(&config.limits);
        Self(Arc::new(Parts { router, library, config, responses }))
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
    let mut service = axum::Router::new();
    for route in routes::table() {
        let dialect = route.dialect;
        let dressed =
            middleware::from_fn(move |request: Request, next| dress(dialect, request, next));
        service = service.route(route.path, route.handler.layer(dressed));
    }
    service.fallback(no_route).method_not_allowed_fallback(no_method).with_state(app)
}

async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("nothing is at {} {path}", request.method());
    render(&ApiError::new(Fault::NoRoute, text), dialect_of(path))
}

async fn no_method(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("{path} does not take {}", request.method());
    render(&ApiError::new(Fault::NoMethod, text), dialect_of(path)).into_response()
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
