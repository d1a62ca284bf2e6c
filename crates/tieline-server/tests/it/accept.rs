//! Connections over loopback.

use std::net::SocketAddr;
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::json;
use testkit::scripted::{Scripted, Step, piece, started};
use tieline_server::{Config, Listener, ServeError, Tls, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::service::Service;

/// Long enough for anything here on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    service: Service,
    address: SocketAddr,
    shutdown: CancellationToken,
    running: JoinSet<Result<(), ServeError>>,
}

fn bound() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn start(models: Scripted, config: Config) -> Server {
    let service = Service::with(models, config);
    let (listener, address) = bound();
    let listeners = vec![Listener::tcp(listener).unwrap()];
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(serve(listeners, service.app.clone(), shutdown.clone()));
    Server { service, address, shutdown, running }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    fn request(&self, stream: bool) -> String {
        let body = json!({
            "model": "mock", "messages": [{ "role": "user", "content": "Hi" }], "stream": stream });
        let (body, address) = (body.to_string(), self.address);
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    async fn stopped(mut self) -> Service {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.running.join_next()).await.unwrap();
        ended.unwrap().unwrap().unwrap();
        self.service
    }
}

/// All until the other end closes.
async fn rest(connection: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, connection.read_to_end(&mut bytes)).await.unwrap();
    // A connection that is cut may end with an error.
    let _ = read;
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn read_until(connection: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let mut buffer = [0; 1024];
    while !text.contains(end) {
        let read = tokio::time::timeout(PATIENCE, connection.read(&mut buffer)).await.unwrap();
        let count = read.unwrap();
        assert_ne!(count, 0, "{text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    text
}

/// Waits until it is so; whoever makes it so is not ours to be told by.
async fn until(mut is: impl FnMut() -> bool) {
    let waits = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waits).await.unwrap();
}

fn hanging() -> Scripted {
    Scripted::default().with("mock", vec![started(), piece("Hel"), Step::Hang])
}

#[tokio::test]
async fn a_request_is_answered_and_the_server_stops() {
    let server = start(Scripted::hello(), Config::default());
    let mut connection = server.connect().await;
    connection.write_all(server.request(false).as_bytes()).await.unwrap();
    let said = read_until(&mut connection, "Hello there.").await;
    assert!(said.starts_with("HTTP/1.1 200 OK"), "{said}");
    // An idle connection keeps no server from stopping.
    server.stopped().await;
    assert_eq!(rest(&mut connection).await.matches("HTTP/1.1").count(), 0);
}

#[tokio::test]
async fn a_caller_who_leaves_ends_the_work() {
    for stream in [true, false] {
        let server = start(hanging(), Config::default());
        let mut connection = server.connect().await;
        connection.write_all(server.request(stream).as_bytes()).await.unwrap();
        if stream {
            read_until(&mut connection, "Hel").await;
        }
        until(|| !server.service.models.seen().is_empty()).await;
        assert_eq!(server.service.models.dropped(), 0);
        drop(connection);
        until(|| server.service.models.dropped() == 1).await;
        server.stopped().await;
    }
}

#[tokio::test]
async fn a_head_that_does_not_come_ends_the_connection() {
    let mut config = Config::default();
    config.connections.head = Duration::from_millis(50);
    let server = start(Scripted::hello(), config);
    let mut slow = server.connect().await;
    slow.write_all(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut silent = server.connect().await;
    assert!(!rest(&mut slow).await.contains("200"));
    assert_eq!(rest(&mut silent).await, "");
    server.stopped().await;
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let server = start(Scripted::hello(), Config::default());
    let mut connection = server.connect().await;
    let head = format!("GET /livez HTTP/1.1\r\nx: {}", "x".repeat(64 * 1024));
    let _ = connection.write_all(head.as_bytes()).await;
    assert!(!rest(&mut connection).await.contains("200"));
    server.stopped().await;
}

#[tokio::test]
async fn a_slow_reader_is_given_up() {
    let much = vec![piece(&"x".repeat(1 << 20)); 64];
    let steps = [vec![started()], much, vec![Step::Hang]].concat();
    let mut config = Config::default();
    config.connections.stall = Duration::from_millis(100);
    let server = start(Scripted::default().with("mock", steps), config);
    let mut connection = server.connect().await;
    connection.write_all(server.request(true).as_bytes()).await.unwrap();
    // Nothing is read: the system's buffers fill, and then nothing moves.
    until(|| server.service.models.dropped() == 1).await;
    drop(connection);
    server.stopped().await;
}

#[tokio::test]
async fn connections_are_counted() {
    let mut config = Config::default();
    // Those of this machine are counted together alone.
    (config.connections.most, config.connections.most_per_address) = (2, 1);
    let server = start(Scripted::hello(), config);
    let ask = format!("GET /livez HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = server.connect().await;
        connection.write_all(ask.as_bytes()).await.unwrap();
        read_until(&mut connection, "ok").await;
        open.push(connection);
    }
    let models = ask.replace("/livez", "/v1/models");
    for (ask, error) in [
        (models.clone(), r#"{"error":{"message":""#),
        (ask.replace("/livez", "/v1/messages"), r#""type":"overloaded_error""#),
        (ask.replace("/livez", "/api/tags"), r#"{"error":"the server has"#),
        (ask.replace("/livez", "/props"), r#"{"error":{"code":503,"#),
    ] {
        let mut refused = server.connect().await;
        refused.write_all(ask.as_bytes()).await.unwrap();
        let said = rest(&mut refused).await;
        assert!(said.starts_with("HTTP/1.1 503 "), "{said}");
        assert!(said.contains("\r\nretry-after: 1\r\n") && said.contains(error), "{said}");
    }
    // Who asks nothing is told nothing.
    assert_eq!(rest(&mut server.connect().await).await, "");
    drop(open);
    let again = async {
        loop {
            let mut connection = server.connect().await;
            connection.write_all(models.as_bytes()).await.unwrap();
            if read_until(&mut connection, "\r\n\r\n").await.starts_with("HTTP/1.1 200 ") {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, again).await.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn stopping_ends_streams_with_their_error() {
    for stream in [true, false] {
        let mut config = Config::default();
        config.connections.drain = Duration::from_millis(50);
        let server = start(hanging(), config);
        let mut connection = server.connect().await;
        connection.write_all(server.request(stream).as_bytes()).await.unwrap();
        until(|| !server.service.models.seen().is_empty()).await;
        let address = server.address;
        let service = server.stopped().await;
        let said = rest(&mut connection).await;
        assert!(said.contains("the server is stopping"), "{said}");
        assert!(!said.contains("[DONE]"));
        assert_eq!(said.starts_with("HTTP/1.1 503"), !stream, "{said}");
        assert_eq!(service.models.dropped(), 1);
        assert_eq!(service.get("/readyz").await.status.as_u16(), 503);
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn what_is_on_its_way_may_finish() {
    let wait = Step::Wait(Duration::from_millis(100));
    let steps = [vec![wait], testkit::scripted::text(&["late"])].concat();
    let server = start(Scripted::default().with("mock", steps), Config::default());
    let mut connection = server.connect().await;
    connection.write_all(server.request(false).as_bytes()).await.unwrap();
    until(|| !server.service.models.seen().is_empty()).await;
    server.stopped().await;
    assert!(rest(&mut connection).await.contains("late"));
}

#[tokio::test]
async fn other_machines_need_a_key_and_encryption() {
    let service = Service::new(Scripted::hello());
    let serves = async |plaintext: bool| {
        let mut config = Config::default();
        config.doors.insecure_plaintext = plaintext;
        let app = service.app_with(config);
        let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let shutdown = CancellationToken::new();
        shutdown.cancel();
        serve(vec![Listener::tcp(listener).unwrap()], app, shutdown).await
    };
    assert!(matches!(serves(true).await, Err(ServeError::NoKeys)));
    let scopes = vec![tieline_store::keys::Scope::Infer];
    let new = tieline_store::keys::NewKey { scopes, ..Default::default() };
    service.store.create_key(&new, 1).unwrap();
    assert!(matches!(serves(false).await, Err(ServeError::Plaintext)));
    serves(true).await.unwrap();
}

fn made() -> (rcgen::Certificate, Tls) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let (chain, key) = (cert.pem(), signing_key.serialize_pem());
    assert!(Tls::from_pem(b"", key.as_bytes()).is_err());
    assert!(Tls::from_pem(chain.as_bytes(), b"no key").is_err());
    let tls = Tls::from_pem(chain.as_bytes(), key.as_bytes()).unwrap();
    (cert, tls)
}

/// What is answered to whoever trusts this certificate alone.
async fn encrypted(address: SocketAddr, cert: &rcgen::Certificate) -> std::io::Result<String> {
    encrypted_at(address, cert, "/livez").await
}

async fn encrypted_at(
    address: SocketAddr,
    cert: &rcgen::Certificate,
    path: &str,
) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(cert.der().clone()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(client));
    let stream = TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut stream = connector.connect(name, stream).await?;
    let port = address.port();
    let ask = format!("GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut said = String::new();
    let _ = stream.read_to_string(&mut said).await;
    Ok(said)
}

#[tokio::test]
async fn connections_are_encrypted_where_there_is_a_certificate() {
    let ((old, tls), (new, renewed)) = (made(), made());
    let service = Service::new(Scripted::hello());
    let (listener, address) = bound();
    let listener = Listener::tcp(listener).unwrap().with_tls(tls.clone());
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(serve(vec![listener], service.app.clone(), shutdown.clone()));
    let said = encrypted(address, &old).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(encrypted(address, &new).await.is_err());
    // Whoever comes after it was renewed is shown the new one.
    tls.replace(&renewed);
    let said = encrypted(address, &new).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    assert!(encrypted(address, &old).await.is_err());
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn one_connection_too_many_is_told_so_encrypted() {
    let (cert, tls) = made();
    let mut config = Config::default();
    config.connections.most = 0;
    let service = Service::with(Scripted::hello(), config);
    let (listener, address) = bound();
    let listener = Listener::tcp(listener).unwrap().with_tls(tls);
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    running.spawn(serve(vec![listener], service.app.clone(), shutdown.clone()));
    let said = encrypted(address, &cert).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200 "), "it lives: {said}");
    let said = encrypted_at(address, &cert, "/v1/models").await.unwrap();
    assert!(said.starts_with("HTTP/1.1 503 ") && said.contains("\r\nretry-after: 1"), "{said}");
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_full_house_lives_and_is_ready() {
    let mut config = Config::default();
    config.connections.most = 1;
    let server = start(Scripted::hello(), config);
    let mut inside = server.connect().await;
    let ask = format!("GET /livez HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    inside.write_all(ask.as_bytes()).await.unwrap();
    read_until(&mut inside, "ok").await;
    for (path, want) in [
        ("/livez", "HTTP/1.1 200 OK"),
        ("/readyz", "HTTP/1.1 200 OK"),
        ("/v1/models", "HTTP/1.1 503 Service Unavailable"),
    ] {
        let mut outside = server.connect().await;
        let ask = format!("GET {path} HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
        outside.write_all(ask.as_bytes()).await.unwrap();
        let said = rest(&mut outside).await;
        assert!(said.starts_with(want), "{path}: {said}");
    }
    let mut outside = server.connect().await;
    let ask = format!("HEAD /livez HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    outside.write_all(ask.as_bytes()).await.unwrap();
    let said = rest(&mut outside).await;
    assert!(said.starts_with("HTTP/1.1 200 OK") && said.ends_with("\r\n\r\n"), "{said}");
    drop(inside);
    server.stopped().await;
}

#[tokio::test]
async fn a_socket_in_the_file_system_serves_too() {
    let service = Service::new(Scripted::hello());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let shutdown = CancellationToken::new();
    let mut running = JoinSet::new();
    let listener = Listener::unix(listener).unwrap();
    running.spawn(serve(vec![listener], service.app.clone(), shutdown.clone()));
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    let ask = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    shutdown.cancel();
    running.join_next().await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn who_listens_to_events_keeps_no_server_from_stopping() {
    let server = start(Scripted::hello(), Config::default());
    let mut listening = server.connect().await;
    let ask = format!("GET /tieline/v1/events HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
    listening.write_all(ask.as_bytes()).await.unwrap();
    listening.read_u8().await.unwrap();
    server.stopped().await;
}

/// The next pull goes on from there: no server waits for one.
#[tokio::test]
async fn a_pull_ends_with_its_error_when_the_server_stops() {
    // It is connected to, and never answers.
    let (_silent, source) = bound();
    let reference = format!("http://{source}/small.gguf");
    for (path, body, begun, end) in [
        ("/api/pull", json!({ "model": reference }), "pulling manifest", "\"error\""),
        ("/tieline/v1/pull", json!({ "reference": reference }), "event: progress", "event: error"),
    ] {
        let server = start(Scripted::hello(), Config::default());
        let mut connection = server.connect().await;
        let (body, token) = (body.to_string(), server.service.token.expose());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            server.address,
            body.len()
        );
        connection.write_all(request.as_bytes()).await.unwrap();
        read_until(&mut connection, begun).await;
        // Sooner than what is on its way is waited for.
        server.stopped().await;
        let said = rest(&mut connection).await;
        assert!(said.contains(end) && said.contains("the server is stopping"), "{path}: {said}");
    }
}
