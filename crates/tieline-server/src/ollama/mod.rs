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
mod progress;
mod pull;
mod push;
mod show;
mod stream;
mod time;

use axum::http::Method;
use axum::routing::{delete, get, head, post};

use self::chat::ChatRequest;
use self::create::CreateRequest;
use self::embed::{EmbedRequest, OldRequest, WireModel};
use self::generate::GenerateRequest;
use self::manage::CopyRequest;
use self::manner::WireManner;
use self::push::PushRequest;
use self::show::Name;
use crate::openapi::answers::ollama as answers;
use crate::routes::{Dialect, Guard, Route};

/// A file, by its digest.
const BLOB: &str = "/api/blobs/{digest}";

/// The routes of this dialect.
pub(crate) fn routes() -> Vec<Route> {
    [telling(), answering(), managing()].into_iter().flatten().collect()
}

/// Those that tell what is here.
fn telling() -> Vec<Route> {
    let open = (Dialect::Ollama, Guard::Open);
    let read = (Dialect::Ollama, Guard::Read);
    vec![
        Route::new((Method::GET, "/"), open, get(account::banner))
            .about("What probes look for.")
            .text("text/plain"),
        Route::new((Method::GET, "/api/version"), open, get(account::version))
            .about("The version of Ollama whose API this is.")
            .gives(answers::VERSION),
        Route::new((Method::GET, "/api/status"), open, get(account::status))
            .about("That no cloud answers.")
            .gives(answers::CLOUD),
        Route::new((Method::POST, "/api/me"), open, post(account::me))
            .about("Refused: nobody is signed in."),
        Route::new((Method::POST, "/api/signout"), open, post(account::signout))
            .about("Does nothing: nobody is signed in.")
            .gives(answers::NOTHING),
        Route::new((Method::GET, "/api/tags"), read, get(models::tags))
            .about("The models.")
            .gives(answers::TAGS),
        Route::new((Method::GET, "/api/ps"), read, get(models::ps))
            .about("The models in memory.")
            .gives(answers::PS),
        Route::new((Method::POST, "/api/show"), read, post(show::show))
            .about("One model.")
            .body::<Name>()
            .gives(answers::SHOW),
    ]
}

/// Those that have a model work.
fn answering() -> Vec<Route> {
    let infer = (Dialect::Ollama, Guard::Infer);
    vec![
        Route::new((Method::POST, "/api/generate"), infer, post(generate::generate))
            .about("Goes on from a prompt. Without one the model comes to memory, or leaves it.")
            .body::<GenerateRequest>()
            .body::<WireManner>()
            .gives(answers::GENERATE)
            .lines(answers::GENERATE_LINE),
        Route::new((Method::POST, "/api/chat"), infer, post(chat::chat))
            .about("Answers a conversation. Without one the model comes to memory, or leaves it.")
            .body::<ChatRequest>()
            .body::<WireManner>()
            .gives(answers::CHAT)
            .lines(answers::CHAT_LINE),
        Route::new((Method::POST, "/api/embed"), infer, post(embed::embed))
            .about("Vectors of texts.")
            .body::<EmbedRequest>()
            .body::<WireModel>()
            .gives(answers::EMBED),
        Route::new((Method::POST, "/api/embeddings"), infer, post(embed::embeddings))
            .about("The vector of a text, as it was computed.")
            .body::<OldRequest>()
            .body::<WireModel>()
            .gives(answers::EMBEDDING),
    ]
}

/// Those that change what is here.
fn managing() -> Vec<Route> {
    let manage = (Dialect::Ollama, Guard::Manage);
    vec![
        Route::new((Method::POST, "/api/pull"), manage, post(pull::pull))
            .about("Gets a model.")
            .body::<Name>()
            .body::<pull::Manner>()
            .gives(answers::PROGRESS)
            .lines(answers::PROGRESS_LINE),
        Route::new((Method::POST, "/api/push"), manage, post(push::push))
            .about("Sends a model to a registry.")
            .body::<PushRequest>()
            .body::<pull::Manner>()
            .gives(answers::PROGRESS)
            .lines(answers::PROGRESS_LINE),
        Route::new((Method::POST, "/api/create"), manage, post(create::create))
            .about("Makes a model of another, or of an uploaded file.")
            .body::<CreateRequest>()
            .body::<pull::Manner>()
            .gives(answers::PROGRESS)
            .lines(answers::PROGRESS_LINE),
        Route::new((Method::HEAD, BLOB), manage, head(blobs::head))
            .about("Whether a file is here.")
            .bare(&[200]),
        Route::new((Method::POST, BLOB), manage, post(blobs::post))
            .about("Takes a file in: 201; 200 where it is here already.")
            .takes_file()
            .bare(&[200, 201]),
        Route::new((Method::POST, "/api/copy"), manage, post(manage::copy))
            .about("Gives a model another name too.")
            .body::<CopyRequest>()
            .bare(&[200]),
        Route::new((Method::DELETE, "/api/delete"), manage, delete(manage::delete))
            .about("Removes a model.")
            .body::<Name>()
            .bare(&[200]),
    ]
}
