//! What the server itself costs: all of it, in front of a model that answers at once.
//!
//! Own accept loop, key check, a row in the ledger, a decision's record and metrics, as `tieline serve` has them;
//! only the model is scripted: `mock` says one word, `chunks` says twenty in pieces. Prints its address and a key;
//! `bench/serve/run.sh` puts load on it. Ends with Ctrl-C.

use std::error::Error;
use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::Arc;

use testkit::scripted::{Scripted, text};
use tieline_router::Router;
use tieline_server::{App, Config, Doors, Ledger, Library, Limits, Listener, LoopbackAuth};
use tieline_store::keys::{NewKey, Scope};
use tieline_store::{Catalogue, Environment, Store};
use tokio_util::sync::CancellationToken;

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let home = tempfile::tempdir()?;
    let store = Store::open(home.path())?;
    let new = NewKey { label: "load".to_owned(), scopes: vec![Scope::Infer], ..NewKey::default() };
    let (secret, _) = store.create_key(&new, 0)?;
    let (sink, ledger) = Ledger::start(&store)?;
    let models = Scripted::default()
        .forgetful()
        .with("mock", text(&["Hello"]))
        .with("chunks", text(&["word "; 20]));
    let library = Library {
        store,
        catalogue: Arc::new(Catalogue::embedded()?),
        // Nothing is pulled from here.
        environment: Arc::new(Environment::new("http://127.0.0.1:9".to_owned())),
    };
    let doors = Doors { loopback_auth: LoopbackAuth::All, ..Doors::default() };
    let limits = Limits { concurrent_per_key: 256, ..Limits::default() };
    let router = Router::new(Arc::new(models), Some(sink));
    let app = App::new(router, library, Config { doors, limits, ..Config::default() });
    app.watch_lost(ledger.lost());
    let socket = TcpListener::bind("127.0.0.1:0")?;
    let mut out = io::stdout();
    writeln!(out, "http://{} {}", socket.local_addr()?, secret.expose())?;
    out.flush()?;
    let shutdown = CancellationToken::new();
    let serving = tieline_server::serve(vec![Listener::tcp(socket)?], app, shutdown.clone());
    tokio::select! {
        result = serving => result?,
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    Ok(())
}
