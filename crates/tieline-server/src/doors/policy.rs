//! Who may use a route. Pure.

use std::sync::Arc;

use tieline_store::keys::Scope;

use super::keyring::Entry;
use crate::caller::Principal;
use crate::config::LoopbackAuth;
use crate::dialect::Guard;
use crate::error::{ApiError, Fault};

/// Whom a request says it is from.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    /// Nobody. A key of another form than ours is no claim: many clients cannot be used without one.
    Nobody,
    /// This machine's user, by the local admin token.
    Admin,
    /// A key that is valid now.
    Key(Arc<Entry>),
    /// A key of our form that opens nothing.
    Refused,
}

/// What decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) guard: Guard,
    /// What a key must be allowed to do.
    pub(crate) scopes: &'a [Scope],
    /// Whether only this machine reaches the listener.
    pub(crate) loopback: bool,
    /// Whether a page asks.
    pub(crate) page: bool,
    pub(crate) policy: LoopbackAuth,
    pub(crate) known: &'a Known,
}

/// Decides who it is that may.
///
/// # Errors
/// Nobody may, or not this one.
pub(crate) fn decide(facts: Facts<'_>) -> Result<Principal, ApiError> {
    if facts.guard == Guard::Open {
        return Ok(Principal::default());
    }
    match facts.known {
        Known::Refused => Err(unauthorized("the key is unknown, revoked or has ended")),
        Known::Admin if facts.loopback => Ok(Principal::default()),
        Known::Admin => Err(unauthorized("the local admin token works on this machine only")),
        Known::Key(entry) => entry_for(entry, facts.scopes),
        Known::Nobody if !facts.loopback => Err(unauthorized("this needs a key")),
        Known::Nobody => match (facts.policy, facts.guard) {
            (LoopbackAuth::Off, _) => Ok(Principal::default()),
            (LoopbackAuth::Manage, Guard::Read | Guard::Infer) if !facts.page => {
                Ok(Principal::default())
            }
            (LoopbackAuth::Manage, Guard::Manage) => {
                Err(unauthorized("this needs the local admin token, or a key for it"))
            }
            (LoopbackAuth::Manage | LoopbackAuth::All, _) => Err(unauthorized("this needs a key")),
        },
    }
}

fn entry_for(entry: &Entry, scopes: &[Scope]) -> Result<Principal, ApiError> {
    let key = entry.key();
    if !key.scopes.iter().any(|scope| *scope == Scope::Admin || scopes.contains(scope)) {
        let words: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
        let text = format!("this key may not do this: it lacks {}", words.join(" or "));
        return Err(ApiError::new(Fault::Forbidden, text));
    }
    let guest = !key.scopes.iter().any(|s| matches!(s, Scope::Admin | Scope::WriteModels));
    Ok(Principal {
        id: key.id.clone(),
        label: Some(key.label.clone()),
        models: entry.models(),
        guest,
    })
}

fn unauthorized(text: &str) -> ApiError {
    ApiError::new(Fault::Unauthorized, text)
}
