//! A small HTTP server that can lie.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What was asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The first byte of the range asked for.
    pub(crate) fn range(&self) -> Option<u64> {
        self.headers.get("range")?.strip_prefix("bytes=")?.split('-').next()?.parse().ok()
    }
}

/// What is answered.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Another length than the body's; `Some(None)` declares none.
    pub(crate) declared: Option<Option<u64>>,
    /// Send so many bytes, then wait.
    pub(crate) pace: Option<(usize, Duration)>,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: vec![], body: body.into(), declared: None, pace: None }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn pace(mut self, bytes: usize, pause_ms: u64) -> Self {
        self.pace = Some((bytes, Duration::from_millis(pause_ms)));
        self
    }

    /// Sends only the first bytes of what it declares.
    pub(crate) fn cut(mut self, sent: usize) -> Self {
        self.declared = Some(Some(self.body.len() as u64));
        self.body.truncate(sent);
        self
    }

    pub(crate) fn redirect(to: &str) -> Self {
        Self::new(302, "").header("location", to)
    }
}

/// A file as an honest server sends it.
pub(crate) fn file(asked: &Asked, body: &[u8], etag: &str) -> Reply {
    let same = asked.headers.get("if-range").is_none_or(|known| known == etag);
    match asked.range() {
        Some(first) if same && first >= body.len() as u64 => {
            Reply::new(416, "").header("content-range", format!("bytes */{}", body.len()))
        }
        Some(first) if same => {
            let range = format!("bytes {first}-{}/{}", body.len() - 1, body.len());
            let rest = &body[usize::try_from(first).unwrap()..];
            Reply::new(206, rest).header("content-range", range).header("etag", etag)
        }
        _ => Reply::new(200, body).header("etag", etag),
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// Runs until dropped.
pub(crate) struct Server {
    port: u16,
    scheme: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    handler: Box<Handler>,
    asked: Mutex<Vec<Asked>>,
    /// Bytes of bodies handed to the network.
    sent: AtomicU64,
    stop: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(handler, None)
    }

    pub(crate) fn start_with(
        handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            asked: Mutex::default(),
            sent: AtomicU64::default(),
            stop: AtomicBool::default(),
            tls,
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if accepting.stop.load(Ordering::Relaxed) {
                    return;
                }
                let shared = Arc::clone(&accepting);
                // A client that goes away ends its connection, not the test.
                std::thread::spawn(move || drop(connection(&shared, stream)));
            }
        });
        Self { port, scheme, shared }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}{path}", self.scheme, self.port)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().unwrap().clone()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread up.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn connection(shared: &Shared, stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.set_nodelay(true)?;
    match &shared.tls {
        None => answer(shared, stream),
        Some(config) => {
            let connection = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
            answer(shared, rustls::StreamOwned::new(connection, stream))
        }
    }
}

fn answer(shared: &Shared, mut stream: impl Read + Write) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && head.len() < 16_384 {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap(), first.next().unwrap());
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    let headers: BTreeMap<String, String> = headers.collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let asked = Asked { method, path, headers, body };
    shared.asked.lock().unwrap().push(asked.clone());
    send(shared, &mut stream, &(shared.handler)(&asked))
}

fn send(shared: &Shared, stream: &mut impl Write, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    if let Some(length) = reply.declared.unwrap_or(Some(reply.body.len() as u64)) {
        head += &format!("content-length: {length}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    let (size, pause) = reply.pace.unwrap_or((65_536, Duration::ZERO));
    for piece in reply.body.chunks(size) {
        stream.write_all(piece)?;
        stream.flush()?;
        shared.sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
        std::thread::sleep(pause);
    }
    stream.flush()
}
