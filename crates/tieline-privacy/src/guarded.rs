//! A remote that sees what was released, and nothing else.

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tieline_types::{Backend, BackendError, EventStream, Prompt, Request, Texts, Zone};

use crate::answer::{MASKED, NO_LOGPROBS, PSEUDONYMS, Restored};
use crate::guard::{Guard, Prepared};
use crate::outbound::Egress;
use crate::remote::Remote;
use crate::restore::Tally;
use crate::vault::Session;

/// What is done to a request before it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Treatment {
    /// It leaves as it is, but for whose it is.
    AsIs,
    /// What is found in it is replaced by pseudonyms, and put back in the answer.
    Redacted,
}

impl Treatment {
    /// The word for it in policies and decisions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AsIs => "as-is",
            Self::Redacted => "redacted",
        }
    }
}

/// Leave for a request to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What is done to it first.
    pub treatment: Treatment,
    /// The policy's rule that lets it leave.
    pub rule: String,
    /// Whose pseudonyms it uses.
    pub session: Session,
}

/// Somebody else's model behind the guard.
#[derive(Clone)]
pub struct Guarded {
    remote: Arc<dyn Remote>,
    guard: Arc<Guard>,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("remote", &self.remote.name()).finish_non_exhaustive()
    }
}

impl Guarded {
    /// Puts the guard before `remote`.
    pub fn new(remote: Arc<dyn Remote>, guard: Arc<Guard>) -> Self {
        Self { remote, guard }
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
        let account = Egress::new(&release.rule);
        Released {
            guarded: self.clone(),
            release,
            account: Arc::new(Mutex::new(account)),
            tally: Arc::default(),
        }
    }
}

/// A [`Guarded`] remote and the leave of one request. Clones share their account.
#[derive(Clone, Debug)]
pub struct Released {
    guarded: Guarded,
    release: Release,
    account: Arc<Mutex<Egress>>,
    tally: Arc<Tally>,
}

impl Released {
    /// The account of what left: none before a request ran, and of its answer as far as it came.
    pub fn egress(&self) -> Egress {
        let account = self.account.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Egress {
            restored: self.tally.restored.load(Ordering::Relaxed),
            unrestored: self.tally.unrestored.load(Ordering::Relaxed),
            withheld_calls: self.tally.withheld.load(Ordering::Relaxed),
            ..account
        }
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

    /// As the remote's; [`ErrorKind::Denied`](tieline_types::ErrorKind) where nothing left.
    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        let logprobs = request.logprobs.is_some() || request.prompt_logprobs.is_some();
        let note = match request.prompt {
            Prompt::Texts(Texts { query: Some(_), .. }) => Some(PSEUDONYMS),
            Prompt::Texts(_) => Some(MASKED),
            _ => logprobs.then_some(NO_LOGPROBS),
        };
        let Prepared { outbound, egress, vault } =
            self.guarded.guard.prepare(request, &self.release)?;
        *self.account.lock().unwrap_or_else(PoisonError::into_inner) = egress;
        let stream = self.guarded.remote.send(outbound).await?;
        Ok(match vault {
            Some(vault) => Box::pin(Restored::new(stream, vault, Arc::clone(&self.tally), note)),
            None => stream,
        })
    }
}
