//! What leaves, and by which rule.

use tieline_types::Request;

/// A request that may leave. Made by this crate alone.
#[derive(Debug)]
pub struct Outbound {
    request: Request,
}

impl Outbound {
    pub(crate) fn new(request: Request) -> Self {
        Self { request }
    }

    /// What may be read and sent.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// What may be read and sent, given away.
    pub fn into_request(self) -> Request {
        self.request
    }
}

/// The account of a request that left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// The policy's rule that let it leave.
    pub rule: String,
}
