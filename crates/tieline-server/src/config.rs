//! How the server is set.

use std::time::Duration;

use tieline_store::keys::Secret;
use tieline_types::Bytes;

/// What callers may do and how much of it.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much of everything.
    pub limits: Limits,
    /// Who may come in.
    pub doors: Doors,
    /// How long connections may do nothing, and how many there may be.
    pub connections: Connections,
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
            doors: Doors::default(),
            connections: Connections::default(),
            patience: Duration::from_secs(2),
            keep_alive: Duration::from_secs(10),
        }
    }
}

/// Bounds; each is tested at its value and one above.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The longest JSON body, without the pictures in it where a route takes some. Whoever sets it to another value
    /// means all of a body, pictures too.
    pub body: Bytes,
    /// The longest JSON body with the pictures in it, on routes that take some, where `body` is as it is by default.
    pub pictured: Bytes,
    /// The longest model that is uploaded, and the most that all take which wait for a name.
    pub upload: Bytes,
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
    /// The most of them that are made for one key.
    pub background_per_key: usize,
    /// The longest that a whole request may take.
    pub request: Duration,
    /// The most header fields.
    pub headers: usize,
    /// The longest header fields, all together.
    pub head_bytes: usize,
    /// The most requests of one key that models answer at once.
    pub concurrent_per_key: usize,
    /// The most requests that models answer or have waiting at once.
    pub concurrent: usize,
}

/// The longest JSON body where nobody says otherwise.
const BODY: Bytes = Bytes(8 * 1024 * 1024);

impl Limits {
    /// How long a body may be that holds pictures.
    pub(crate) fn with_pictures(&self) -> Bytes {
        if self.body == BODY { self.pictured } else { self.body }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: BODY,
            pictured: Bytes(32 * 1024 * 1024),
            upload: Bytes(64 * 1024 * 1024 * 1024),
            depth: 64,
            messages: 4096,
            choices: 8,
            texts: 2048,
            responses: 1000,
            responses_bytes: Bytes(128 * 1024 * 1024),
            background: 16,
            background_per_key: 8,
            request: Duration::from_secs(600),
            headers: 64,
            head_bytes: 16 * 1024,
            concurrent_per_key: 16,
            concurrent: 256,
        }
    }
}

/// What is asked without a key on listeners that only this machine reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoopbackAuth {
    /// Everything.
    Off,
    /// Models answer, unless a page asks; to change what is here needs the local admin token or a key.
    #[default]
    Manage,
    /// Nothing.
    All,
}

/// Who may come in.
#[derive(Clone, Debug, Default)]
pub struct Doors {
    /// Names of this server beside those of the loopback addresses: `name` or `name:port`.
    pub hosts: Vec<String>,
    /// Pages of other sites that may ask, by their exact origins: `https://app.example`.
    pub origins: Vec<String>,
    /// What needs no key on this machine.
    pub loopback_auth: LoopbackAuth,
    /// The local admin token.
    pub admin_token: Option<Secret>,
    /// Listen for other machines without encryption.
    pub insecure_plaintext: bool,
}

/// How long connections may do nothing, and how many there may be.
#[derive(Clone, Debug)]
pub struct Connections {
    /// The most at once.
    pub most: usize,
    /// The most from one address of another machine.
    pub most_per_address: usize,
    /// How long a head may take; a connection that is idle between requests is closed after so long too.
    pub head: Duration,
    /// A connection that takes nothing of what is sent is closed after so long.
    pub stall: Duration,
    /// How long requests may go on when the server stops.
    pub drain: Duration,
    /// How long they have after that to send their error.
    pub farewell: Duration,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            most: 512,
            most_per_address: 64,
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            drain: Duration::from_secs(30),
            farewell: Duration::from_secs(2),
        }
    }
}
