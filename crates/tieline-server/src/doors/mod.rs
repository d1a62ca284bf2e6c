//! What stands before every route: who is called by which name, from which page, and who calls.
//!
//! The checks are pure and apart from the layers that apply them: [`host`], [`origin`], [`shown`], [`policy`].
//! A request that did not come through a listener has no [`Peer`] and is refused.

pub(crate) mod held;
pub(crate) mod host;
pub(crate) mod keyring;
pub(crate) mod layers;
pub(crate) mod origin;
pub(crate) mod policy;
pub(crate) mod rate;
pub(crate) mod shown;

use std::net::IpAddr;

/// How a request came here: a listener says so, never the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Whence; `None`: through a socket in the file system.
    pub address: Option<IpAddr>,
    /// The port that was called.
    pub port: u16,
    /// Whether only this machine reaches the listener.
    pub loopback: bool,
    /// Whether it is encrypted.
    pub tls: bool,
}

impl Peer {
    /// Somebody on this machine who called this port.
    pub fn local(port: u16) -> Self {
        Self { address: Some(IpAddr::from([127, 0, 0, 1])), port, loopback: true, tls: false }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }

    /// The port that a URL of this scheme need not name.
    pub(crate) fn usual_port(&self) -> u16 {
        if self.tls { 443 } else { 80 }
    }
}

#[cfg(test)]
mod tests;
