//! `tieline serve`

use std::future::{Future, pending};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tieline_engine::EngineConfig;
use tieline_providers::{Collector, Transport};
use tieline_router::Router;
use tieline_server::{Config, Doors, Ledger, Library, Listener, Renewal, ServeError, otlp};
use tieline_store::budget::{Till, TillThread};
use tieline_store::keys;
use tieline_types::Keep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::app::App;
use crate::args::{Limits, LoopbackAuth, Serve};
use crate::env;
use crate::failure::{Failure, with_causes};
use crate::serving::{self, Drafts, Settings};
use crate::switching::{self, HangUp, Place, Watch, Workshop};

/// Where it listens unless told otherwise.
const USUAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 11435);
/// Where Ollama listens.
const OLLAMA: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 11434);
/// How long the last rows of the ledger may take.
const LEDGER: Duration = Duration::from_secs(5);
/// How often certificates are looked at.
const RENEWAL: Duration = Duration::from_secs(1);

pub(super) fn serve(app: &App, args: &Serve) -> Result<(), Failure> {
    crate::log::start(args.log, app.output);
    let renewal = match (&args.tls_cert, &args.tls_key) {
        (Some(chain), Some(key)) => Some(Renewal::begin(chain, key)?),
        _ => None,
    };
    let tls = renewal.as_ref().map(Renewal::tls).cloned();
    let sockets = addresses(args).into_iter().map(bind).collect::<Result<Vec<_>, _>>()?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let urls: Vec<String> = sockets
        .iter()
        .map(|socket| socket.local_addr().map(|address| format!("{scheme}://{address}")))
        .collect::<io::Result<_>>()?;
    let config = config(app, args)?;
    app.block_on(async {
        // Before anybody is let in: whoever is answered may end it at once.
        let signals = Signals::new()?;
        let listen = |socket| {
            let listener = Listener::tcp(socket)?;
            Ok(match &tls {
                Some(tls) => listener.with_tls(tls.clone()),
                None => listener,
            })
        };
        let listeners = sockets.into_iter().map(listen).collect::<io::Result<Vec<_>>>()?;
        tokio::select! {
            result = run(app, args, config, (listeners, urls, signals)) => result,
            () = renew(renewal) => Ok(()),
        }
    })
}

/// Puts the parts together, serves, and takes them apart in order.
async fn run(
    app: &App,
    args: &Serve,
    config: Config,
    (listeners, urls, mut signals): (Vec<Listener>, Vec<String>, Signals),
) -> Result<(), Failure> {
    let mut settings = Settings::new(&args.load, args.prompt_cache);
    settings.drafts = Arc::new(Drafts::new(app, &args.draft)?);
    if let Some(time) = args.keep_alive {
        settings.keep = Keep::For(time);
    }
    let (engine, has_runner) = engine(app)?;
    let inspected = has_runner.then(|| engine.clone());
    let (host, models) = serving::start(app, settings, engine);
    let (till, writer) = till(app)?;
    let (sink, ledger) = Ledger::booking(&app.store, Some(till.intents().clone()))?;
    let server = tieline_server::App::new(Router::new(host, Some(sink)), library(app), config);
    server.watch_lost(ledger.lost());
    server.runner_found(has_runner);
    let workshop = Workshop::new(app, Some((till, app.store.clone())))?;
    let watch = Watch::begin(Place::of(app), workshop, &server)?;
    let mut exporting = spans(app, &server, only_address(&urls))?.map(Box::pin);
    let shutdown = CancellationToken::new();
    let serving = tieline_server::serve(listeners, server.clone(), shutdown.clone());
    let result = tokio::select! {
        // First, so that nobody is told of an address at which nothing is served.
        biased;
        result = serving => result.map_err(refusal),
        result = told(app, &urls, &shutdown, &mut signals) => result,
        () = watch.follow(server.clone()) => Ok(()),
        () = inspect(inspected, &server) => Ok(()),
        () = over(exporting.as_mut()) => Ok(()),
    };
    let closing = async {
        server.close().await;
        let (store, learned) = (app.store.clone(), server.clone());
        in_time(app, "what was learned of candidates could not be kept in time", move || {
            switching::keep(&store, &learned);
        })
        .await;
        drop(server);
        // What is left of the spans; a collector that is away keeps nobody here.
        if let Some(exporting) = exporting {
            let _ = tokio::time::timeout(LEDGER, exporting).await;
        }
        models.shutdown().await;
        // Rows that were not written are missing then.
        in_time(app, "the ledger's last rows could not be written in time", || ledger.finish())
            .await;
        // What was reserved and not settled in time is settled at the next start, at its full amount.
        let late = "some of the money that was reserved could not be settled in time";
        in_time(app, late, || writer.finish()).await;
    };
    tokio::select! {
        () = closing => result,
        Ok(()) = signals.next() => Err(Failure::interrupted("ended before all was put in order")),
    }
}

/// Does what is left to be done, unless it takes too long: a disk that hangs keeps nobody here.
async fn in_time<T: Send + 'static>(
    app: &App,
    late: &str,
    work: impl FnOnce() -> T + Send + 'static,
) {
    let done = tokio::task::spawn_blocking(work);
    if tokio::time::timeout(LEDGER, done).await.is_err() {
        app.output.warn(late);
    }
}

/// Where models lie and come from.
fn library(app: &App) -> Library {
    Library {
        store: app.store.clone(),
        catalogue: Arc::new(app.catalogue.clone()),
        environment: Arc::new(app.environment().clone()),
    }
}

/// How runners are started, and whether there is one now. Without one a server is of use where its policy has others
/// answer; one that the user named has to be there.
fn engine(app: &App) -> Result<(EngineConfig, bool), Failure> {
    let failure = match app.engine() {
        Ok(engine) => return Ok((engine, true)),
        Err(failure) => failure,
    };
    if app.named_runner() || Place::of(app).policy()?.backends.is_empty() {
        return Err(failure);
    }
    warn!(why = failure.message, "models of this machine do not answer: there is no runner");
    Ok((app.engine_without_runner()?, false))
}

/// Has a runner that loads nothing say how well it is shut in, for those who ask before a model is loaded. Never ends.
async fn inspect(engine: Option<EngineConfig>, server: &tieline_server::App) {
    if let Some(engine) = engine {
        match tieline_engine::inspect_with(&engine).await {
            Ok(inspected) => server.jail_inspected(inspected.jail.level()),
            Err(error) => warn!(why = %with_causes(&error), "nobody knows how runners are shut in"),
        }
    }
    pending().await
}

/// Follows the certificates' files, looked at every second and at once on SIGHUP. Never ends.
async fn renew(renewal: Option<Renewal>) {
    let Some(mut renewal) = renewal else { return pending().await };
    let mut hang_up = HangUp::new();
    loop {
        let told = tokio::select! {
            () = tokio::time::sleep(RENEWAL) => false,
            () = hang_up.next() => true,
        };
        // Files may be slow: nobody else waits for them.
        let looked = tokio::task::spawn_blocking(move || (renewal.look(told), renewal));
        let Ok((looked, again)) = looked.await else { return pending().await };
        renewal = again;
        match looked {
            Ok(true) => info!("certificates are read again"),
            Ok(false) => {}
            Err(error) => warn!(why = %with_causes(&error), "the certificates stay as they were"),
        }
    }
}

/// Sends a span for each request to the collector that the environment names. `None`: it names none, and nobody is
/// woken by each request to do nothing.
fn spans(
    app: &App,
    server: &tieline_server::App,
    address: Option<SocketAddr>,
) -> Result<Option<impl Future<Output = ()> + use<>>, Failure> {
    let url = std::env::var(env::OTLP).unwrap_or_default();
    if url.is_empty() || app.offline {
        return Ok(None);
    }
    let collector = Collector::new(&url, &Transport::new());
    let collector = collector.map_err(|error| Failure::user(format!("{}: {error}", env::OTLP)))?;
    let records = server.router().records().subscribe();
    Ok(Some(async move { otlp::export(records, address, |body| collector.send(body)).await }))
}

/// The address that every request comes to. `None`: there are several, or it is any of the machine's.
fn only_address(urls: &[String]) -> Option<SocketAddr> {
    let [url] = urls else { return None };
    let address: SocketAddr = url.split_once("://")?.1.parse().ok()?;
    (!address.ip().is_unspecified()).then_some(address)
}

/// Waits until it is over; without it, for ever.
async fn over<F: Future<Output = ()>>(work: Option<&mut Pin<Box<F>>>) {
    match work {
        Some(work) => work.await,
        None => pending().await,
    }
}

/// Where money is reserved, once what dead processes left is settled.
fn till(app: &App) -> Result<(Till, TillThread), Failure> {
    let budgets = app.store.budgets().map_err(|error| Failure::ours(with_causes(&error)))?;
    let recovered = budgets.recover(now_unix_s());
    let recovered = recovered.map_err(|error| Failure::ours(with_causes(&error)))?;
    if !recovered.ids.is_empty() {
        let (count, amount) = (recovered.ids.len(), recovered.amount);
        app.output.warn(&format!(
            "{count} requests of a server that died may have cost {amount}: counted as spent"
        ));
    }
    if recovered.unsettled > 0 {
        let (count, cost) = (recovered.unsettled, recovered.unsettled_cost);
        app.output.warn(&format!(
            "{count} attempts of a server that died are in the ledger as unsettled, at most {cost}"
        ));
    }
    if recovered.damaged > 0 {
        let files: Vec<_> =
            recovered.set_aside.iter().map(|path| path.display().to_string()).collect();
        let (count, files) = (recovered.damaged, files.join(", "));
        app.output.warn(&format!(
            "{count} notes of a server that died cannot be read: they are kept in {files}"
        ));
    }
    let clock = Arc::new(now_unix_s);
    Till::start(budgets, clock)
        .map_err(|error| Failure::ours(format!("cannot start the till's thread: {error}")))
}

fn now_unix_s() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Says where it listens and waits for signals: the first ends it in order, the second at once.
async fn told(
    app: &App,
    urls: &[String],
    shutdown: &CancellationToken,
    signals: &mut Signals,
) -> Result<(), Failure> {
    if app.output.is_json() {
        app.output.line(&json!({ "listening": urls }).to_string())?;
    }
    urls.iter().for_each(|url| app.output.talk(&format!("listening on {url}")));
    signals.next().await?;
    app.output.talk("ending what is being answered; again ends at once");
    shutdown.cancel();
    signals.next().await?;
    Err(Failure::interrupted("ended before all was answered"))
}

/// Ctrl-C, or what a service manager sends.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    /// Listens from now on.
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = signal(SignalKind::interrupt())?;
        Ok(Self { interrupt, terminate: signal(SignalKind::terminate())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) -> io::Result<()> {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        Ok(())
    }

    #[cfg(not(unix))]
    #[expect(clippy::unnecessary_wraps, reason = "where there are signals, listening may fail")]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) -> io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}

fn addresses(args: &Serve) -> Vec<SocketAddr> {
    let mut addresses = args.listen.clone();
    if addresses.is_empty() {
        addresses.push(USUAL);
    }
    if args.ollama {
        addresses.push(OLLAMA);
    }
    addresses
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        let failure = Failure::user(format!("cannot listen on {address}: {error}"));
        match error.kind() {
            io::ErrorKind::AddrInUse => {
                failure.with_hint("another program listens there; --listen takes another address")
            }
            _ => failure,
        }
    })
}

fn config(app: &App, args: &Serve) -> Result<Config, Failure> {
    let loopback_auth = match args.loopback_auth {
        LoopbackAuth::Off => tieline_server::LoopbackAuth::Off,
        LoopbackAuth::Manage => tieline_server::LoopbackAuth::Manage,
        LoopbackAuth::All => tieline_server::LoopbackAuth::All,
    };
    let doors = Doors {
        hosts: args.host.clone(),
        origins: args.origin.clone(),
        loopback_auth,
        admin_token: Some(keys::admin_token(&app.home)?),
        insecure_plaintext: args.insecure_plaintext,
    };
    let mut config = Config { doors, ..Config::default() };
    if let Some(most) = args.uploads {
        config.limits.upload = most;
    }
    limit(&mut config, &args.limits);
    Ok(config)
}

/// Sets the limits that were given.
fn limit(config: &mut Config, args: &Limits) {
    let set = |limit: &mut usize, given: Option<NonZeroUsize>| {
        *limit = given.map_or(*limit, NonZeroUsize::get);
    };
    set(&mut config.connections.most, args.max_connections);
    set(&mut config.connections.most_per_address, args.max_connections_per_address);
    set(&mut config.limits.concurrent, args.max_requests);
    set(&mut config.limits.concurrent_per_key, args.max_requests_per_key);
    if let Some(most) = args.max_body {
        (config.limits.body, config.limits.pictured) = (most, most);
    }
    config.limits.request = args.max_time.unwrap_or(config.limits.request);
}

/// A refusal to serve, with the flags that would mend it.
fn refusal(error: ServeError) -> Failure {
    let hint = match &error {
        ServeError::NoKeys => "`tieline key create NAME` makes one; or listen on 127.0.0.1",
        ServeError::Plaintext => {
            "give --tls-cert and --tls-key; or say --insecure-plaintext where something else encrypts"
        }
        _ => return error.into(),
    };
    Failure::user(error.to_string()).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Args, Command};

    fn config(flags: &[&str]) -> Result<Config, clap::Error> {
        let args = Args::try_parse_from(["tieline", "serve"].iter().chain(flags))?;
        let Command::Serve(serve) = args.command else { panic!("{:?}", args.command) };
        let mut config = Config::default();
        limit(&mut config, &serve.limits);
        Ok(config)
    }

    #[test]
    fn limits_are_what_the_flags_say_and_the_usual_ones_else() {
        let set = config(&[
            "--max-connections=2048",
            "--max-connections-per-address=1024",
            "--max-requests=7",
            "--max-requests-per-key=6",
            "--max-body=32MiB",
            "--max-time=2h",
        ]);
        let Config { connections, limits, .. } = set.unwrap();
        assert_eq!((connections.most, connections.most_per_address), (2048, 1024));
        assert_eq!((limits.concurrent, limits.concurrent_per_key), (7, 6));
        assert_eq!((limits.body.0, limits.request), (32 << 20, Duration::from_secs(7200)));
        let (usual, none) = (Config::default(), config(&[]).unwrap());
        assert_eq!(format!("{:?}", none.limits), format!("{:?}", usual.limits));
        assert_eq!(format!("{:?}", none.connections), format!("{:?}", usual.connections));
        for nothing in ["--max-connections=0", "--max-requests=0", "--max-time=0"] {
            assert!(config(&[nothing]).is_err(), "{nothing}");
        }
    }
}
