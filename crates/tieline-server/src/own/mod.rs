//! Tieline's own API.

mod decisions;
mod events;
mod ledger;
pub(crate) mod models;
mod profiles;
mod pull;

use axum::http::Method;
use axum::routing::{delete, get, post};

use crate::routes::{Dialect, Guard, Route};

/// The routes of this API.
pub(crate) fn routes() -> Vec<Route> {
    let read = (Dialect::Own, Guard::Read);
    let manage = (Dialect::Own, Guard::Manage);
    vec![
        Route::new((Method::GET, "/tieline/v1/models"), read, get(models::list)),
        Route::new((Method::GET, "/tieline/v1/models/{name}"), read, get(models::one)),
        Route::new((Method::DELETE, "/tieline/v1/models/{name}"), manage, delete(models::remove)),
        Route::new((Method::POST, "/tieline/v1/models/{name}/load"), manage, post(models::load)),
        Route::new(
            (Method::POST, "/tieline/v1/models/{name}/unload"),
            manage,
            post(models::unload),
        ),
        Route::new((Method::GET, "/tieline/v1/status"), read, get(models::status)),
        Route::new((Method::GET, "/tieline/v1/profiles"), read, get(profiles::list)),
        Route::new((Method::POST, "/tieline/v1/pull"), manage, post(pull::pull)),
        Route::new((Method::GET, "/tieline/v1/decisions"), read, get(decisions::list)),
        Route::new((Method::GET, "/tieline/v1/decisions/{id}"), read, get(decisions::one)),
        Route::new((Method::GET, "/tieline/v1/ledger"), read, get(ledger::list)),
        Route::new((Method::GET, "/tieline/v1/events"), read, get(events::events))
            .streams("text/event-stream"),
    ]
}
