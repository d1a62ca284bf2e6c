//! Tells whoever is one connection too many so, before the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::debug;

/// How many are told at once; beyond that connections are closed without a word.
const AT_ONCE: usize = 64;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_millis(500);
/// A head is read no further than that.
const HEAD: usize = 16 * 1024;

const ANSWER: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n",
    "content-length: 125\r\nretry-after: 1\r\nconnection: close\r\n\r\n",
    r#"{"error":{"message":"the server has as many connections as it takes","#,
    r#""type":"server_error","param":null,"code":"overloaded"}}"#,
);

/// Places of those who are told.
#[derive(Clone, Debug)]
pub(crate) struct Refusals(Arc<Semaphore>);

impl Default for Refusals {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Refusals {
    /// A place, where one is free.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().ok()
    }
}

/// Answers the first request with 503. Whoever asks nothing is told nothing: an answer to no request confuses clients.
pub(crate) async fn refuse(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let told = async {
        let mut head = Vec::with_capacity(1024);
        while !head.windows(4).any(|four| four == b"\r\n\r\n") && head.len() < HEAD {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        stream.write_all(ANSWER.as_bytes()).await?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_as_long_as_it_says() {
        let (head, body) = ANSWER.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["error"]["code"], "overloaded");
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_is_told_and_who_is_silent_is_not_waited_for() {
        for (asked, told) in [("GET / HTTP/1.1\r\n\r\n", ANSWER), ("GET /", ""), ("", "")] {
            let (mut caller, stream) = tokio::io::duplex(1024);
            caller.write_all(asked.as_bytes()).await.unwrap();
            let since = tokio::time::Instant::now();
            let mut said = String::new();
            tokio::join!(refuse(stream), async { caller.read_to_string(&mut said).await.unwrap() });
            assert_eq!((said.as_str(), since.elapsed()), (told, PATIENCE), "{asked:?}");
        }
    }

    #[test]
    fn only_so_many_are_told_at_once() {
        let refusals = Refusals::default();
        let places: Vec<_> = std::iter::from_fn(|| refusals.place()).collect();
        assert_eq!(places.len(), AT_ONCE);
        drop(places);
        assert!(refusals.place().is_some());
    }
}
