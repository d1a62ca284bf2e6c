//! How the server is set.

use std::time::Duration;

use tieline_types::Bytes;

/// What callers may do and how much of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much of everything.
    pub limits: Limits,
    /// A streaming answer that has not begun after so long sends its head and goes on in the stream, so that
    /// clients do not give up while a model is loaded.
    pub patience: Duration,
    /// A stream that is silent for so long gets a comment.
    pub keep_alive: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            patience: Duration::from_secs(2),
            keep_alive: Duration::from_secs(10),
        }
    }
}

/// Bounds; each is tested at its value and one above.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest JSON body.
    pub body: Bytes,
    /// The deepest JSON.
    pub depth: usize,
    /// The most messages in a conversation.
    pub messages: usize,
    /// The most answers to one request.
    pub choices: u32,
    /// The most texts to embed or rank at once.
    pub texts: usize,
    /// The most responses that are kept for later turns; the least recently used goes first.
    pub responses: usize,
    /// The most that they take together; one that is longer is not kept.
    pub responses_bytes: Bytes,
    /// The most responses that are made in the background at once.
    pub background: usize,
    /// The longest that a whole request may take.
    pub request: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: Bytes(8 * 1024 * 1024),
            depth: 64,
            messages: 4096,
            choices: 8,
            texts: 2048,
            responses: 1000,
            responses_bytes: Bytes(128 * 1024 * 1024),
            background: 16,
            request: Duration::from_secs(600),
        }
    }
}
