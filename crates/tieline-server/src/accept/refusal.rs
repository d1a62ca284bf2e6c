//! Tells whoever is one connection too many so, before the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use tieline_types::ErrorKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tracing::debug;

use super::Boxed;
use crate::dialect::{Dialect, likely};
use crate::doors::layers::Dialects;
use crate::error::{ApiError, Fault};

/// How many are told at once; beyond that connections are closed without a word.
const AT_ONCE: usize = 64;
/// How many are told so encrypted: each is a handshake to pay for.
const ENCRYPTED_AT_ONCE: usize = 8;
/// How long all of it may take, after the handshake; and how long that.
const PATIENCE: Duration = Duration::from_millis(500);
/// A head is read no further than that.
const HEAD: usize = 16 * 1024;

/// Places of those who are told.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    plain: Arc<Semaphore>,
    encrypted: Arc<Semaphore>,
    dialects: Dialects,
}

impl Refusals {
    /// In the dialects of these routes.
    pub(crate) fn new(dialects: Dialects) -> Self {
        let places = |most| Arc::new(Semaphore::new(most));
        Self { plain: places(AT_ONCE), encrypted: places(ENCRYPTED_AT_ONCE), dialects }
    }

    /// A place, where one is free.
    pub(crate) fn place(&self, encrypted: bool) -> Option<OwnedSemaphorePermit> {
        let places = if encrypted { &self.encrypted } else { &self.plain };
        Arc::clone(places).try_acquire_owned().ok()
    }

    /// Answers the first request with 503, but for one that looks whether the server lives or is ready: a full house is
    /// no reason to have it started anew.
    pub(crate) async fn refuse(&self, stream: Boxed, tls: Option<TlsAcceptor>, ready: bool) {
        let facts = (&self.dialects, ready);
        let Some(tls) = tls else { return refuse(stream, facts).await };
        match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => refuse(stream, facts).await,
            Ok(Err(_)) | Err(_) => debug!("no handshake"),
        }
    }
}

/// Whoever asks nothing is told nothing: an answer to no request confuses clients.
async fn refuse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    (dialects, ready): (&Dialects, bool),
) {
    let told = async {
        let mut head = Vec::with_capacity(1024);
        let mut looked = 0;
        while !head[looked..].windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD {
            // What ends it may have begun before.
            looked = head.len().saturating_sub(3);
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        let answer = answer(&head, (dialects, ready));
        // Whoever asks for the head alone reads no more.
        let only_head = head.starts_with(b"HEAD ");
        let end = answer.find("\r\n\r\n").filter(|_| only_head).map_or(answer.len(), |at| at + 4);
        stream.write_all(&answer.as_bytes()[..end]).await?;
        stream.shutdown().await?;
        // Closing with bytes unread would have the system throw away what was just sent.
        let mut rest = [0; 4096];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<_, std::io::Error>(())
    };
    if !matches!(tokio::time::timeout(PATIENCE, told).await, Ok(Ok(()))) {
        debug!("a connection too many was not told so");
    }
}

/// The answer to the request that begins with this head.
fn answer(head: &[u8], (dialects, ready): (&Dialects, bool)) -> String {
    match asked(head) {
        ("GET" | "HEAD", "/livez") => said("200 OK", "", r#"{"status":"ok"}"#),
        ("GET" | "HEAD", "/readyz") if ready => said("200 OK", "", r#"{"status":"ready"}"#),
        ("GET" | "HEAD", "/readyz") => said(UNAVAILABLE, "", r#"{"status":"stopping"}"#),
        (_, path) => refusal(dialects.get(path).copied().unwrap_or_else(|| likely(path))),
    }
}

/// The method and the path of the request that begins with this head.
fn asked(head: &[u8]) -> (&str, &str) {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|&byte| byte == b' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let text = |bytes| std::str::from_utf8(bytes).unwrap_or_default();
    (text(method), text(path))
}

const UNAVAILABLE: &str = "503 Service Unavailable";

fn refusal(dialect: Dialect) -> String {
    let text = "the server has as many connections as it takes";
    let body = ApiError::new(Fault::Backend(ErrorKind::Busy), text).body(dialect).to_string();
    said(UNAVAILABLE, "retry-after: 1\r\n", &body)
}

fn said(status: &str, fields: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{fields}connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_told_reads_its_own_dialect() {
        let dialects: Dialects =
            Arc::new([("/completion", Dialect::Llama), ("/api/chat", Dialect::Ollama)].into());
        for (line, want) in [
            ("POST /v1/messages HTTP/1.1", Dialect::Anthropic),
            ("POST /api/chat?x=1 HTTP/1.1", Dialect::Ollama),
            ("POST /completion HTTP/1.1", Dialect::Llama),
            ("POST /v1/chat/completions HTTP/1.1", Dialect::OpenAi),
            ("GET", Dialect::OpenAi),
            ("", Dialect::OpenAi),
        ] {
            let head = format!("{line}\r\nhost: x\r\n\r\n");
            let said = answer(head.as_bytes(), (&dialects, true));
            assert_eq!(said, refusal(want), "{line}");
            let (head, body) = said.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"].is_string(), want == Dialect::Ollama, "{body}");
        }
    }

    #[test]
    fn who_looks_whether_it_lives_is_told_so() {
        for (line, ready, status, body) in [
            ("GET /livez HTTP/1.1", true, 200, r#"{"status":"ok"}"#),
            ("GET /livez?x HTTP/1.1", false, 200, r#"{"status":"ok"}"#),
            ("GET /readyz HTTP/1.1", true, 200, r#"{"status":"ready"}"#),
            ("GET /readyz HTTP/1.1", false, 503, r#"{"status":"stopping"}"#),
        ] {
            let head = format!("{line}\r\nhost: x\r\n\r\n");
            let said = answer(head.as_bytes(), (&Dialects::default(), ready));
            assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{said}");
            assert!(said.ends_with(&format!("\r\n\r\n{body}")), "{said}");
        }
        for line in ["POST /livez HTTP/1.1", "GET /livez/x HTTP/1.1", "GET /metrics HTTP/1.1"] {
            let said = answer(line.as_bytes(), (&Dialects::default(), true));
            assert!(said.starts_with("HTTP/1.1 503 "), "{line}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_told_and_who_is_silent_is_not_waited_for() {
        let told = refusal(Dialect::OpenAi);
        let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(HEAD / 2));
        let asks =
            [("GET / HTTP/1.1\r\n\r\n", told.as_str()), (&long, &told), ("GET /", ""), ("", "")];
        for (asked, told) in asks {
            // In pieces that part wherever they do.
            for piece in [1024, 3] {
                let (mut caller, stream) = tokio::io::duplex(piece);
                let since = tokio::time::Instant::now();
                let mut said = String::new();
                let asks = async {
                    caller.write_all(asked.as_bytes()).await.unwrap();
                    caller.read_to_string(&mut said).await.unwrap();
                };
                let dialects = Dialects::default();
                tokio::join!(refuse(stream, (&dialects, true)), asks);
                assert_eq!((said.as_str(), since.elapsed()), (told, PATIENCE), "{asked:?}");
            }
        }
    }

    #[test]
    fn only_so_many_are_told_at_once() {
        let refusals = Refusals::new(Dialects::default());
        for (encrypted, most) in [(false, AT_ONCE), (true, ENCRYPTED_AT_ONCE)] {
            let place = || refusals.place(encrypted);
            let places: Vec<_> = std::iter::from_fn(place).collect();
            assert_eq!(places.len(), most);
            drop(places);
            assert!(place().is_some());
        }
    }
}
