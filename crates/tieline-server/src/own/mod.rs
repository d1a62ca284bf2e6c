//! Tieline's own API.

mod decisions;
mod events;
mod ledger;
pub(crate) mod models;
mod profiles;
mod pull;

use axum::http::Method;
use axum::routing::{delete, get, post};

use self::pull::PullRequest;
use crate::openapi::answers::own as answers;
use crate::routes::{Dialect, Guard, Route};

/// The routes of this API.
pub(crate) fn routes() -> Vec<Route> {
    let read = (Dialect::Own, Guard::Read);
    let manage = (Dialect::Own, Guard::Manage);
    vec![
        Route::new((Method::GET, "/tieline/v1/models"), read, get(models::list))
            .about("The models.")
            .gives(answers::MODELS),
        Route::new((Method::GET, "/tieline/v1/models/{name}"), read, get(models::one))
            .about("One model.")
            .gives(answers::MODEL),
        Route::new((Method::DELETE, "/tieline/v1/models/{name}"), manage, delete(models::remove))
            .about("Removes a model.")
            .gives(answers::REMOVED),
        Route::new((Method::POST, "/tieline/v1/models/{name}/load"), manage, post(models::load))
            .about("Brings a model to memory.")
            .gives(answers::LOADED),
        Route::new(
            (Method::POST, "/tieline/v1/models/{name}/unload"),
            manage,
            post(models::unload),
        )
        .about("Has a model leave memory.")
        .gives(answers::UNLOADED),
        Route::new((Method::GET, "/tieline/v1/status"), read, get(models::status))
            .about("What is in memory, and what was left alone.")
            .gives(answers::STATUS),
        Route::new((Method::GET, "/tieline/v1/profiles"), read, get(profiles::list))
            .about("What is known of everybody who could answer.")
            .gives(answers::PROFILES),
        Route::new((Method::POST, "/tieline/v1/pull"), manage, post(pull::pull))
            .about("Gets a model.")
            .body::<PullRequest>()
            .events(answers::PULL_EVENT),
        Route::new((Method::GET, "/tieline/v1/decisions"), read, get(decisions::list))
            .about("What happened to requests, the latest first.")
            .query::<decisions::Page>()
            .gives(answers::DECISIONS),
        Route::new((Method::GET, "/tieline/v1/decisions/{id}"), read, get(decisions::one))
            .about("What happened to one request.")
            .gives(answers::DECISION),
        Route::new((Method::GET, "/tieline/v1/ledger"), read, get(ledger::list))
            .about("What requests cost.")
            .query::<ledger::Page>()
            .gives(answers::LEDGER),
        Route::new((Method::GET, "/tieline/v1/events"), read, get(events::events))
            .about("What happens, as it happens, without end.")
            .events(answers::EVENT),
    ]
}
