//! Ollama's API.

mod account;
mod adapters;
mod answer;
pub(crate) mod asked;
mod blobs;
mod chat;
mod create;
mod embed;
mod files;
mod generate;
mod keep_alive;
mod manage;
mod manner;
mod message;
mod models;
pub(crate) mod options;
mod pull;
mod show;
mod stream;
mod time;

use axum::http::Method;
use axum::routing::{delete, get, head, post};

use crate::routes::{Dialect, Guard, Route};

/// A file, by its digest.
const BLOB: &str = "/api/blobs/{digest}";

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    let open = (Dialect::Ollama, Guard::Open);
    let read = (Dialect::Ollama, Guard::Read);
    let infer = (Dialect::Ollama, Guard::Infer);
    let manage = (Dialect::Ollama, Guard::Manage);
    vec![
        Route::new((Method::GET, "/"), open, get(account::banner)).streams("text/plain"),
        Route::new((Method::GET, "/api/version"), open, get(account::version)),
        Route::new((Method::GET, "/api/status"), open, get(account::status)),
        Route::new((Method::POST, "/api/me"), open, post(account::me)),
        Route::new((Method::POST, "/api/signout"), open, post(account::signout)),
        Route::new((Method::GET, "/api/tags"), read, get(models::tags)),
        Route::new((Method::GET, "/api/ps"), read, get(models::ps)),
        Route::new((Method::POST, "/api/show"), read, post(show::show)),
        Route::new((Method::POST, "/api/generate"), infer, post(generate::generate)),
        Route::new((Method::POST, "/api/chat"), infer, post(chat::chat)),
        Route::new((Method::POST, "/api/embed"), infer, post(embed::embed)),
        Route::new((Method::POST, "/api/embeddings"), infer, post(embed::embeddings)),
        Route::new((Method::POST, "/api/pull"), manage, post(pull::pull)),
        Route::new((Method::POST, "/api/push"), manage, post(pull::push)),
        Route::new((Method::POST, "/api/create"), manage, post(create::create)),
        Route::new((Method::HEAD, BLOB), manage, head(blobs::head)),
        Route::new((Method::POST, BLOB), manage, post(blobs::post)),
        Route::new((Method::POST, "/api/copy"), manage, post(manage::copy)),
        Route::new((Method::DELETE, "/api/delete"), manage, delete(manage::delete)),
    ]
}
