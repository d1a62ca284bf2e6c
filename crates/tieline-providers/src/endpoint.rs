//! Where a vendor is, and how it knows us.

use std::fmt;
use std::time::Duration;

use tieline_types::Zone;

/// A key. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a key.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The key itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<secret>")
    }
}

/// A model of a vendor or another host.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The backend's name in logs and decisions: `vendor/model`.
    pub name: String,
    /// How far a request travels.
    pub zone: Zone,
    /// The URL that the protocol's paths are added to, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The key, where there is one.
    pub key: Option<Secret>,
    /// The model, as the vendor names it.
    pub model: String,
    /// Headers that are sent besides.
    pub headers: Vec<(String, Secret)>,
    /// How long a connection may take to be made.
    pub connect: Duration,
}
