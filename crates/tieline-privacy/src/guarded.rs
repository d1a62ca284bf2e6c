//! A remote that sees what was released, and nothing else.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tieline_types::{Backend, BackendError, EventStream, Request, Zone};

use crate::outbound::{Egress, Outbound};
use crate::remote::Remote;

/// What is done to a request before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// It leaves as it is.
    AsItIs,
}

/// Leave for a request to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What is done to it first.
    pub treatment: Treatment,
    /// The policy's rule that lets it leave.
    pub rule: String,
}

/// Somebody else's model behind the guard.
#[derive(Clone)]
pub struct Guarded {
    remote: Arc<dyn Remote>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("remote", &self.remote.name()).finish_non_exhaustive()
    }
}

impl Guarded {
    /// Puts the guard before `remote`.
    pub fn new(remote: Arc<dyn Remote>) -> Self {
        Self { remote }
    }

    /// The backend's name.
    pub fn name(&self) -> &str {
        self.remote.name()
    }

    /// How far a request travels.
    pub fn zone(&self) -> Zone {
        self.remote.zone()
    }

    /// The same for requests that leave so.
    pub fn released(&self, release: Release) -> Released {
        Released { guarded: self.clone(), release }
    }
}

/// A [`Guarded`] remote and the leave of one request.
#[derive(Clone, Debug)]
pub struct Released {
    guarded: Guarded,
    release: Release,
}

impl Released {
    /// The account of what left.
    pub fn egress(&self) -> Egress {
        Egress { rule: self.release.rule.clone() }
    }
}

#[async_trait]
impl Backend for Released {
    fn name(&self) -> &str {
        self.guarded.name()
    }

    fn zone(&self) -> Zone {
        self.guarded.zone()
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        match self.release.treatment {
            Treatment::AsItIs => self.guarded.remote.send(Outbound::new(request)).await,
        }
    }
}
