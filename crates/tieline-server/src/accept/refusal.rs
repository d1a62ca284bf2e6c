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

    /// Answers the first request with 503.
    pub(crate) async fn refuse(&self, stream: Boxed, tls: Option<TlsAcceptor>) {
        let Some(tls) = tls else { return refuse(stream, &self.dialects).await };
        match tokio::time::timeout(PATIENCE, tls.accept(stream)).await {
            Ok(Ok(stream)) => refuse(stream, &self.dialects).await,
            Ok(Err(_)) | Err(_) => debug!("no handshake"),
        }
    }
}

/// Whoever asks nothing is told nothing: an answer to no request confuses clients.
async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin, dialects: &Dialects) {
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
        stream.write_all(answer(dialect(&head, dialects)).as_bytes()).await?;
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

/// Whose words the caller of this head reads.
fn dialect(head: &[u8], dialects: &Dialects) -> Dialect {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    let target = line.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
    let path = target.split(|&byte| byte == b'?').next().unwrap_or_default();
    let path = std::str::from_utf8(path).unwrap_or_default();
    dialects.get(path).copied().unwrap_or_else(|| likely(path))
}

fn answer(dialect: Dialect) -> String {
    let text = "the server has as many connections as it takes";
    let body = ApiError::new(Fault::Backend(ErrorKind::Busy), text).body(dialect).to_string();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
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
            assert_eq!(dialect(head.as_bytes(), &dialects), want, "{line}");
            let said = answer(want);
            let (head, body) = said.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"].is_string(), want == Dialect::Ollama, "{body}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_told_and_who_is_silent_is_not_waited_for() {
        let told = answer(Dialect::OpenAi);
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
                tokio::join!(refuse(stream, &dialects), asks);
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
