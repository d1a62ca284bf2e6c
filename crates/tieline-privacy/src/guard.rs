//! Decides what of a request may leave, and refuses where it cannot tell.

use std::convert::Infallible;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use tieline_types::{
    BackendError, ErrorKind, Origin, PictureSource, Private, Prompt, Request, Retry, Texts,
};
use zeroize::Zeroizing;

use crate::detect::Detectors;
use crate::guarded::{Release, Treatment};
use crate::known::Known;
use crate::outbound::{Egress, Outbound};
use crate::redact::{Eyes, Find, Looked, Redaction, look, redact};
use crate::surfaces::{Surface, walk};
use crate::vault::{Pseudonyms, RootKey, Session, Vault, VaultFull, VaultLimits, Vaults, lock};

/// Tells whether the time for a request is over.
pub type Expired = Box<dyn Fn() -> bool + Send>;
/// Begins to measure the time of a request.
pub type Stopwatch = Arc<dyn Fn() -> Expired + Send + Sync>;

/// How much is looked through and kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuardLimits {
    /// The most bytes of text in a request that is redacted.
    pub bytes: usize,
    /// What is kept of sessions.
    pub vaults: VaultLimits,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { bytes: 16 << 20, vaults: VaultLimits::default() }
    }
}

/// Why a request does not leave. Tells where, and nothing of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The prompt is tokens.
    #[error("a prompt of tokens cannot be redacted")]
    Tokens,
    /// There are pictures.
    #[error("a picture cannot be looked through or redacted")]
    Picture,
    /// A tool's name holds what must not leave.
    #[error("{0} holds what must not leave, and names of tools cannot be replaced")]
    ToolName(Surface),
    /// There is too much text.
    #[error("there is more text than is looked through")]
    TooLarge,
    /// It took too long.
    #[error("the time for the redaction is over")]
    Expired,
    /// The session has no room for more pseudonyms.
    #[error(transparent)]
    VaultFull(#[from] VaultFull),
    /// Something was found again in what was to leave.
    #[error("something was still found in the redacted text")]
    LeftOver,
    /// The detectors or the redaction failed.
    #[error("the redaction failed")]
    Defect,
}

impl From<Refusal> for BackendError {
    fn from(refusal: Refusal) -> Self {
        // A model of this machine may still answer it.
        let error = Self::new(ErrorKind::Denied, format!("the request does not leave: {refusal}"))
            .of(Origin::Here, Retry::Elsewhere)
            .with_source(refusal);
        match refusal {
            Refusal::Tokens => error.with_hint("send the prompt as text"),
            Refusal::ToolName(_) => error.with_hint("rename the tool"),
            Refusal::Picture => error.with_hint("a rule that lets it leave as it is would"),
            Refusal::TooLarge => error.with_hint("send less text, or ask a model of this machine"),
            Refusal::VaultFull(_) => error.with_hint("begin a new session"),
            Refusal::Expired | Refusal::LeftOver | Refusal::Defect => {
                error.with_hint("ask a model of this machine")
            }
        }
    }
}

/// What all remotes share: the detectors, and the sessions' pseudonyms.
pub struct Guard {
    find: Box<Find>,
    vaults: Vaults,
    limits: GuardLimits,
    stopwatch: Stopwatch,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// A request that may leave, its account and what its answer is restored with.
pub(crate) struct Prepared {
    pub(crate) outbound: Outbound,
    pub(crate) egress: Egress,
    /// `None`: no pseudonym left, so that none can come back.
    pub(crate) vault: Option<Vault>,
}

impl Guard {
    /// A guard without a limit of time. `root` is random, and of this process alone.
    pub fn new(detectors: Arc<Detectors>, root: RootKey, limits: GuardLimits) -> Self {
        Self::finding(Box::new(move |text| detectors.find(text)), root, limits)
    }

    pub(crate) fn finding(find: Box<Find>, root: RootKey, limits: GuardLimits) -> Self {
        let stopwatch: Stopwatch = Arc::new(|| Box::new(|| false));
        Self { find, vaults: Vaults::new(root, limits.vaults), limits, stopwatch }
    }

    /// The same with a limit of time for each request. It is looked at before and after each text.
    #[must_use]
    pub fn with_stopwatch(self, stopwatch: Stopwatch) -> Self {
        Self { stopwatch, ..self }
    }

    /// Forgets what the pseudonyms of a session stand for. Answers under way still know.
    pub fn forget(&self, session: Session) {
        self.vaults.forget(session);
    }

    /// Makes a request ready to leave.
    ///
    /// # Errors
    /// It must not, or it is not certain that it may. Panics of the detectors are such errors.
    pub(crate) fn prepare(&self, request: Request, release: &Release) -> Result<Prepared, Refusal> {
        match release.treatment {
            Treatment::AsIs => Ok(as_it_is(request, release)),
            Treatment::Redacted => {
                let redacted = || self.redacted(request, release);
                catch_unwind(AssertUnwindSafe(redacted)).unwrap_or(Err(Refusal::Defect))
            }
        }
    }

    fn redacted(&self, mut request: Request, release: &Release) -> Result<Prepared, Refusal> {
        if has_tokens(&request.prompt) {
            return Err(Refusal::Tokens);
        }
        if request.pictures().next().is_some() {
            return Err(Refusal::Picture);
        }
        let expired = (self.stopwatch)();
        let in_time = || if expired() { Err(Refusal::Expired) } else { Ok(()) };
        let vault = match request.prompt {
            // Who a query asks after is told from others by a name that no other call knows.
            Prompt::Texts(Texts { query: Some(_), .. }) => self.vaults.alone(release.session),
            Prompt::Texts(_) => Arc::new(Mutex::new(Pseudonyms::masks())),
            _ => self.vaults.of(release.session),
        };
        let seen = self.seen(&mut request, &vault, &in_time)?;
        let redactions = self.redactions(&mut request, (&vault, &seen), &in_time)?;
        let mut egress = Egress::new(&release.rule);
        let mut redactions = redactions.into_iter();
        walk::<Refusal>(&mut request, &mut |surface, _| {
            let redaction = redactions.next().ok_or(Refusal::Defect)?;
            egress.add(surface, redaction.text.len(), &redaction.placed);
            Ok(redaction.text)
        })?;
        in_time()?;
        let vault = egress.has_pseudonyms().then_some(vault);
        if vault.is_some() {
            // Their entries would tell of pseudonyms, and are left out of the answer.
            request.logprobs = None;
            request.prompt_logprobs = None;
        }
        Ok(Prepared { outbound: Outbound::new(request), egress, vault })
    }

    /// Looks through all texts before any is replaced, so that a value which is found in one is known in all.
    fn seen(
        &self,
        request: &mut Request,
        vault: &Vault,
        in_time: InTime<'_>,
    ) -> Result<Vec<Seen>, Refusal> {
        let mut seen = Vec::new();
        let mut looked_at: usize = 0;
        walk::<Refusal>(request, &mut |surface, text| {
            looked_at = looked_at.saturating_add(text.len());
            if looked_at > self.limits.bytes {
                return Err(Refusal::TooLarge);
            }
            in_time()?;
            let looked = surface.format().map(|format| look(&*self.find, &text, format));
            let looked = looked.transpose()?;
            let values = looked.as_ref().map(|looked| looked.values(&text)).unwrap_or_default();
            let mut vault = lock(vault);
            for (entity, value) in &values {
                vault.pseudonym(*entity, value)?;
            }
            let own = vault.masks.then(|| {
                let value = |(entity, value)| (entity, Arc::new(Zeroizing::new(value)));
                Known::new(values.into_iter().map(value))
            });
            seen.push(Seen { looked, own });
            Ok(text)
        })?;
        Ok(seen)
    }

    /// All texts as they may leave.
    fn redactions(
        &self,
        request: &mut Request,
        (vault, seen): (&Vault, &[Seen]),
        in_time: InTime<'_>,
    ) -> Result<Vec<Redaction>, Refusal> {
        for _ in 0..MAX_ROUNDS {
            let known = lock(vault).known();
            let redactions = self.round(request, (vault, seen, &known), in_time)?;
            // What was found only beside a pseudonym, or for another request, may stand in a text before.
            let since = lock(vault).known();
            if Arc::ptr_eq(&since, &known) || are_without(&redactions, seen, &since)? {
                return Ok(redactions);
            }
        }
        Err(Refusal::LeftOver)
    }

    fn round(
        &self,
        request: &mut Request,
        (vault, seen, known): (&Vault, &[Seen], &Known),
        in_time: InTime<'_>,
    ) -> Result<Vec<Redaction>, Refusal> {
        let mut redactions = Vec::with_capacity(seen.len());
        walk::<Refusal>(request, &mut |surface, text| {
            in_time()?;
            let Seen { looked, own } = seen.get(redactions.len()).ok_or(Refusal::Defect)?;
            let eyes = Eyes { find: &*self.find, known: own.as_ref().unwrap_or(known) };
            redactions.push(match looked {
                Some(looked) => redact(&eyes, vault, &text, looked)?,
                None if eyes.is_clean(&text)? => Redaction::of_name(&text),
                None => return Err(Refusal::ToolName(surface)),
            });
            Ok(text)
        })?;
        Ok(redactions)
    }
}

/// What is known of one text before any is replaced.
struct Seen {
    /// `None`: it is a name that must stay what it is.
    looked: Option<Looked>,
    /// The values of this text, where those of others must not matter.
    own: Option<Known>,
}

type InTime<'i> = &'i dyn Fn() -> Result<(), Refusal>;

/// How often all is looked through again, since more is known than before.
const MAX_ROUNDS: usize = 3;

/// Whether no text shows a value, and no name is one.
fn are_without(redactions: &[Redaction], seen: &[Seen], known: &Known) -> Result<bool, Refusal> {
    for (redaction, seen) in redactions.iter().zip(seen) {
        let shows = match seen.looked {
            Some(_) => redaction.shows_any(known)?,
            None => known.has(&redaction.text),
        };
        if shows {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a part of it is no text that anybody could look through.
fn has_tokens(prompt: &Prompt) -> bool {
    match prompt {
        Prompt::Tokens(_) | Prompt::Rendered(_) => true,
        Prompt::Texts(texts) => texts.has_tokens(),
        Prompt::Chat(_) | Prompt::Text(_) | Prompt::Infill { .. } => false,
    }
}

fn as_it_is(mut request: Request, release: &Release) -> Prepared {
    let mut egress = Egress::new(&release.rule);
    let tokens = match &request.prompt {
        Prompt::Tokens(tokens) | Prompt::Rendered(tokens) => tokens.len(),
        Prompt::Texts(texts) => texts.tokens(),
        Prompt::Chat(_) | Prompt::Text(_) | Prompt::Infill { .. } => 0,
    };
    egress.tokens = u64::try_from(tokens).unwrap_or(u64::MAX);
    let Ok(()) = walk::<Infallible>(&mut request, &mut |surface, text| {
        egress.add(surface, text.len(), &[]);
        Ok(text)
    });
    add_pictures(&request, &mut egress);
    Prepared { outbound: Outbound::new(request), egress, vault: None }
}

/// Counts the pictures' bytes that leave with a request, as base64. Links are text, which is counted as such.
fn add_pictures(request: &Request, egress: &mut Egress) {
    let Prompt::Chat(messages) = &request.prompt else { return };
    for (at, message) in messages.iter().enumerate() {
        for (number, picture) in message.pictures.iter().enumerate() {
            if let PictureSource::Bytes { .. } = picture.source {
                egress.add(Surface::Picture(at, number), picture.bytes(), &[]);
            }
        }
    }
}

/// What would leave, without its leaving.
#[derive(Debug)]
pub struct Preview {
    /// The text of each surface as it would leave; those without text are left out.
    pub surfaces: Vec<(Surface, Private)>,
    /// The account that it would have.
    pub egress: Egress,
}

/// Shows what would leave of a request. The pseudonyms are those that the session really uses.
///
/// # Errors
/// The request would not leave.
pub fn would_leave(
    request: &Request,
    release: &Release,
    guard: &Guard,
) -> Result<Preview, BackendError> {
    let Prepared { outbound, egress, .. } = guard.prepare(request.clone(), release)?;
    let mut surfaces = Vec::new();
    let mut request = outbound.into_request();
    let Ok(()) = walk::<Infallible>(&mut request, &mut |surface, text| {
        if !text.is_empty() {
            surfaces.push((surface, Private::new(text)));
        }
        Ok(String::new())
    });
    Ok(Preview { surfaces, egress })
}

#[cfg(test)]
mod tests;
