//! Serves models that say what they are told to, for tests with clients that others wrote.
//!
//! `scripted [--port N]` listens on loopback; 0, as without the word, is any free port. Beside the service's own
//! routes there are `/test/dropped`: how many answers were dropped before their end; and `/test/model`: a small model's file.

use std::error::Error;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::routing::get;
use testkit::scripted::{Scripted, Step, call, finished, piece, started, text, thought};
use tieline_router::Router;
use tieline_server::{App, Config, Doors, Library, LoopbackAuth, Peer};
use tieline_store::{Catalogue, Environment, Store};
use tieline_types::{ErrorKind, FinishReason};
use tokio::net::TcpListener;

/// So long is the answer of `slow`: half a minute.
const SLOW_WORDS: usize = 600;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let library = Library {
        store: Store::open(home.path())?,
        catalogue: Arc::new(Catalogue::embedded()?),
        // Nothing is pulled from here.
        environment: Arc::new(Environment::new("http://127.0.0.1:9".to_owned())),
    };
    let models = models();
    let router = Router::new(Arc::new(models.clone()), None);
    let doors = Doors { loopback_auth: LoopbackAuth::Off, ..Doors::default() };
    let service =
        tieline_server::app(App::new(router, library, Config { doors, ..Config::default() }));
    let dropped = get(async move || models.dropped().to_string());
    let listener = TcpListener::bind(("127.0.0.1", port()?)).await?;
    let peer = Peer::local(listener.local_addr()?.port());
    let file = get(async || testkit::tiny());
    let service = service.route("/test/dropped", dropped).route("/test/model", file);
    let service = service.layer(Extension(peer));
    let mut out = io::stdout();
    writeln!(out, "listening on http://{}", listener.local_addr()?)?;
    out.flush()?;
    Ok(axum::serve(listener, service).await?)
}

fn port() -> Result<u16, Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => Ok(0),
        ["--port", port] => Ok(port.parse()?),
        _ => Err("usage: scripted [--port N]".into()),
    }
}

fn models() -> Scripted {
    Scripted::hello()
        // What clients make of a file has this name.
        .with("made", text(&["Hello", " there", "."]))
        .with("thinker", thinker())
        .with("caller", caller())
        .calling("agent", agent())
        .with("json", text(&["{\"city\":", "\"Paris\",", "\"population\":", "2100000}"]))
        .with("slow", slow())
        .with("breaks", breaks())
        .with("embedder", text(&["I only embed."]))
        .refusing("refuses", ErrorKind::InvalidRequest, "this model refuses every request")
        .refusing("full", ErrorKind::Busy, "the queue is full")
        .refusing(
            "long",
            ErrorKind::ContextExceeded,
            "the prompt has 9000 tokens, the context 4096",
        )
}

fn thinker() -> Vec<Step> {
    let mut steps = vec![started(), thought("Let me"), thought(" think.")];
    steps.extend(["For", "ty", "-two."].map(piece));
    steps.push(finished(FinishReason::EndOfTurn, 8));
    steps
}

fn caller() -> Vec<Step> {
    let mut steps = vec![started()];
    steps.extend(call(0, "call_1", "get_weather", ["{\"city\":", "\"Paris\"}"]));
    steps.push(finished(FinishReason::ToolCalls, 12));
    steps
}

/// Reads a file by a shell, as agents have one.
fn agent() -> Vec<Step> {
    let mut steps = vec![started()];
    steps.extend(call(0, "call_1", "Bash", ["{\"command\":", "\"cat note.txt\"}"]));
    steps.push(finished(FinishReason::ToolCalls, 12));
    steps
}

fn slow() -> Vec<Step> {
    let word = || [piece("word "), Step::Wait(Duration::from_millis(50))];
    let mut steps = vec![started()];
    steps.extend((0..SLOW_WORDS).flat_map(|_| word()));
    steps.push(finished(FinishReason::EndOfTurn, 600));
    steps
}

fn breaks() -> Vec<Step> {
    let end = Step::Fail(ErrorKind::Crashed, "the engine ended while it answered");
    vec![started(), piece("This goes"), piece(" well until"), end]
}
