//! Carries connections: from listeners through the service to the end.
//!
//! Our own loop and not axum's: a head must come within a time, a slow reader is given up, and there is an end to
//! how many connections there are. When the server stops: no new connections, not ready, what is on its way may
//! finish for some time, then it ends with its dialect's error, then connections are cut.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tieline_store::DbError;
use tieline_types::Hint;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::accept::{Admissions, Boxed, Eager, Listener, Patient, Refusals};
use crate::app::App;
use crate::config::Connections;
use crate::doors::Peer;
use crate::service;
use crate::table::table;

/// How often changed keys are looked for.
const KEYS: Duration = Duration::from_secs(1);
/// How long to wait when the system has no more files for connections.
const BREATH: Duration = Duration::from_millis(50);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// Other machines reach a listener, and there is no key.
    #[error("other machines could reach this server, and it has no key")]
    NoKeys,
    /// Other machines reach a listener in plain text.
    #[error("other machines could reach this server, and it would not encrypt")]
    Plaintext,
    /// The keys cannot be read.
    #[error(transparent)]
    Keys(#[from] DbError),
}

impl Hint for ServeError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::NoKeys => "make a key first, or listen on 127.0.0.1",
            Self::Plaintext => {
                "give a certificate and its key, or say that plain text is meant, or listen on 127.0.0.1"
            }
            Self::Keys(error) => return error.hint(),
        };
        Some(text.to_owned())
    }
}

/// What all connections share.
#[derive(Clone)]
struct Shared {
    app: App,
    service: TowerToHyperService<axum::Router>,
    admissions: Admissions,
    refusals: Refusals,
    tasks: TaskTracker,
    /// No new request.
    shutdown: CancellationToken,
    /// No connection.
    cut: CancellationToken,
}

/// Serves until `shutdown`, then ends what is on its way.
///
/// # Errors
/// A listener would let other machines in without a key or, unless that is meant, without encryption; or the keys
/// cannot be read.
pub async fn serve(
    listeners: Vec<Listener>,
    app: App,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    app.refresh_keys()?;
    for listener in listeners.iter().filter(|listener| !listener.loopback) {
        if !app.keyring().has_keys() {
            return Err(ServeError::NoKeys);
        }
        if listener.tls.is_none() && !app.config().doors.insecure_plaintext {
            return Err(ServeError::Plaintext);
        }
    }
    let tasks = TaskTracker::new();
    let shared = Shared {
        service: TowerToHyperService::new(service::app(app.clone())),
        app: app.clone(),
        admissions: Admissions::default(),
        refusals: Refusals::new(service::dialects(&table())),
        tasks: tasks.clone(),
        shutdown: shutdown.clone(),
        cut: CancellationToken::new(),
    };
    let accepting = TaskTracker::new();
    for listener in listeners {
        accepting.spawn(listen(Arc::new(listener), shared.clone()));
    }
    accepting.spawn(watch_keys(app.clone(), shutdown.clone()));
    accepting.close();
    shutdown.cancelled().await;
    // The listeners close before anything else: whoever comes now is told so by the system.
    accepting.wait().await;
    app.leave();
    tasks.close();
    drain(&app, &tasks, &shared.cut).await;
    Ok(())
}

async fn drain(app: &App, tasks: &TaskTracker, cut: &CancellationToken) {
    let Connections { drain, farewell, .. } = app.config().connections;
    if tokio::time::timeout(drain, tasks.wait()).await.is_ok() {
        return;
    }
    app.stop().cancel();
    if tokio::time::timeout(farewell, tasks.wait()).await.is_ok() {
        return;
    }
    warn!(connections = tasks.len(), "connections are cut");
    cut.cancel();
    tasks.wait().await;
}

async fn watch_keys(app: App, shutdown: CancellationToken) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(KEYS) => {}
        }
        let app = app.clone();
        // SQLite waits for a disk.
        let refreshed = tokio::task::spawn_blocking(move || app.refresh_keys()).await;
        if !matches!(refreshed, Ok(Ok(()))) {
            warn!("the keys could not be read again");
        }
    }
}

async fn listen(listener: Arc<Listener>, shared: Shared) {
    loop {
        let accepted = tokio::select! {
            () = shared.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                let peer = listener.peer(address);
                let tls = listener.tls.as_ref().map(|tls| TlsAcceptor::from(tls.current()));
                admit(&shared, stream, peer, tls);
            }
            // Who hung up already is no reason to wait; too many open files are.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                warn!(kind = %error.kind(), "a connection was not accepted");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

fn admit(shared: &Shared, stream: Boxed, peer: Peer, tls: Option<TlsAcceptor>) {
    let Connections { most, most_per_address, .. } = shared.app.config().connections;
    let Some(admission) = shared.admissions.admit(peer.address, (most, most_per_address)) else {
        shared.app.metrics().refused();
        if let Some(place) = shared.refusals.place(tls.is_some()) {
            let (refusals, ready) = (shared.refusals.clone(), shared.app.is_ready());
            shared.tasks.spawn(async move {
                refusals.refuse(stream, tls, ready).await;
                drop(place);
            });
        }
        return;
    };
    let connection = connection(shared.clone(), stream, peer, tls);
    shared.tasks.spawn(Eager::new(async move {
        connection.await;
        drop(admission);
    }));
}

async fn connection(shared: Shared, stream: Boxed, peer: Peer, tls: Option<TlsAcceptor>) {
    let counted = Connected::new(&shared.app);
    let Connections { head, stall, .. } = shared.app.config().connections;
    let stream = Patient::new(stream, stall);
    let cut = shared.cut.clone();
    let carried = async {
        match tls {
            None => carry(&shared, stream, peer).await,
            Some(tls) => match tokio::time::timeout(head, tls.accept(stream)).await {
                Ok(Ok(stream)) => carry(&shared, stream, peer).await,
                Ok(Err(_)) | Err(_) => debug!("no handshake"),
            },
        }
    };
    tokio::select! {
        () = Box::pin(carried) => {}
        () = cut.cancelled() => {}
    }
    drop(counted);
}

/// Requests and their answers, one after the other. A caller who leaves, or who closes its sending half, is no
/// longer waited for: the request's work is dropped with this future.
async fn carry<T>(shared: &Shared, stream: T, peer: Peer)
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let service = shared.service.clone();
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        answer(service.clone(), request)
    });
    let config = shared.app.config();
    let mut builder = http1::Builder::new();
    // The doors count exactly and refuse in the caller's dialect; beyond twice that hyper refuses by itself.
    let connection = builder
        .timer(TokioTimer::new())
        .header_read_timeout(config.connections.head)
        .max_headers(config.limits.headers.saturating_mul(2))
        .max_buf_size(config.limits.head_bytes.saturating_mul(2).max(8192))
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shared.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if ended.is_err() {
        debug!("a connection broke off");
    }
}

async fn answer(
    service: TowerToHyperService<axum::Router>,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    service.call(request).await
}

/// An open connection in the metrics.
struct Connected(App);

impl Connected {
    fn new(app: &App) -> Self {
        app.metrics().connected();
        Self(app.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.metrics().disconnected();
    }
}
