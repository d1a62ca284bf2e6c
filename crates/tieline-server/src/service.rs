//! The service: the table of routes made into something that answers, with its doors.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware;
use axum::response::Response;

use crate::app::App;
use crate::caller::RequestId;
use crate::dialect::likely;
use crate::doors::layers::{Dialects, guarded, outer};
use crate::error::{ApiError, Fault, dress, render};
use crate::routes::Route;
use crate::table::table;

/// The service of this app.
pub fn app(app: App) -> axum::Router {
    service(table(), app)
}

/// The dialects of these routes by their paths.
pub(crate) fn dialects(routes: &[Route]) -> Dialects {
    Arc::new(routes.iter().map(|route| (route.path, route.dialect)).collect())
}

/// The service of these routes. The door around everything is the outermost: nothing is answered before it, not
/// even that there is no such route.
pub(crate) fn service(routes: Vec<Route>, app: App) -> axum::Router {
    let dialects = dialects(&routes);
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
    let around = (app.clone(), dialects);
    let outer =
        middleware::from_fn(move |request: Request, next| outer(around.clone(), request, next));
    service.fallback(no_route).method_not_allowed_fallback(no_method).layer(outer).with_state(app)
}

async fn no_route(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("nothing is at {} {path}", request.method());
    render(&ApiError::new(Fault::NoRoute, text), likely(path), &RequestId::of(request.extensions()))
}

async fn no_method(request: Request) -> Response {
    let path = request.uri().path();
    let text = format!("{path} does not take {}", request.method());
    render(
        &ApiError::new(Fault::NoMethod, text),
        likely(path),
        &RequestId::of(request.extensions()),
    )
}
