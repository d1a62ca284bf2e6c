//! The model that is asked for: one of this machine, or an overlay of one.

use serde_json::{Map, Value};
use tieline_store::{DbError, Overlay};
use tieline_types::{BackendError, ErrorKind, Message, ModelRef, Private, Role};

use super::message::{WireMessage, messages};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;

/// A model by its name, and what its overlay adds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// Who answers.
    pub(crate) base: String,
    pub(crate) system: Option<Private>,
    pub(crate) parameters: Map<String, Value>,
    pub(crate) messages: Vec<Message>,
}

impl Asked {
    pub(crate) fn find(app: &App, caller: &Caller, name: &str) -> Result<Self, ApiError> {
        // A policy's name is the policy's, whatever was made under it: the database is not asked.
        if app.router().switch().knows(name) {
            return Ok(Self { base: name.to_owned(), ..Self::default() });
        }
        match app.library().store.overlay(&bare(name)).map_err(failed)? {
            // Not the router's refusal: that would tell which model it is made of.
            Some(overlay) if !caller.may_ask(bare_base(&overlay)) => Err(not_here(name)),
            Some(overlay) => Self::of(overlay, app.config().limits.messages),
            None => Ok(Self { base: name.to_owned(), ..Self::default() }),
        }
    }

    /// The conversation after what the model's overlay puts before it. A system message of the caller's own stands
    /// in the place of the overlay's.
    pub(crate) fn before(&mut self, said: Vec<Message>) -> Vec<Message> {
        let mut said = said.into_iter().peekable();
        let own = said.next_if(|message| message.role == Role::System);
        let kept = self.system.take().map(|text| Message::new(Role::System, text.into_inner()));
        let before = std::mem::take(&mut self.messages);
        own.or(kept).into_iter().chain(before).chain(said).collect()
    }

    pub(crate) fn of(overlay: Overlay, most: usize) -> Result<Self, ApiError> {
        let broken = |_| {
            let text = format!("what is kept of model {:?} cannot be read", overlay.name);
            BackendError::new(ErrorKind::Internal, text)
        };
        let said: Vec<WireMessage> =
            serde_json::from_str(overlay.messages.expose()).map_err(broken)?;
        Ok(Self {
            parameters: serde_json::from_str(&overlay.parameters).map_err(broken)?,
            messages: messages(said, most)?,
            base: overlay.base,
            system: overlay.system,
        })
    }
}

/// An overlay's name as the store has it: `:latest` says nothing, and case neither.
pub(crate) fn bare(name: &str) -> String {
    name.strip_suffix(":latest").unwrap_or(name).to_ascii_lowercase()
}

pub(crate) fn bare_base(overlay: &Overlay) -> &str {
    overlay.base.strip_suffix(":latest").unwrap_or(&overlay.base)
}

/// Whoever changes a model must be allowed to ask it, or the one that it is made of.
pub(crate) fn permit(app: &App, caller: &Caller, name: &str) -> Result<(), ApiError> {
    let name = bare(name);
    let overlay = app.library().store.overlay(&name).map_err(failed)?;
    match caller.may_ask(overlay.as_ref().map_or(&name, bare_base)) {
        true => Ok(()),
        false => Err(not_here(&name)),
    }
}

/// Whoever gives a name to something new must be allowed to ask what has that name already. The policy's names are
/// given by nobody else.
pub(crate) fn permit_name(app: &App, caller: &Caller, name: &str) -> Result<(), ApiError> {
    if app.router().switch().knows(name) {
        return Err(ApiError::invalid("model", "the name is one of the policy's: choose another"));
    }
    let store = &app.library().store;
    let is_made = store.overlay(name).map_err(failed)?.is_some();
    let is_here = || store.find(&ModelRef::Name(name.to_owned())).map(|found| found.is_some());
    match is_made || is_here().map_err(failed)? {
        true => permit(app, caller, name),
        false => Ok(()),
    }
}

/// Whoever may ask for some models only pulls no others, under whatever name: what the reference means is one of them.
/// What nobody here knows the meaning of is to get one of their names.
pub(crate) fn permit_pull(
    app: &App,
    caller: &Caller,
    reference: &ModelRef,
    name: Option<&str>,
) -> Result<(), ApiError> {
    if let Some(name) = name {
        permit_name(app, caller, &bare(name))?;
    }
    if caller.principal.models.is_none() {
        return Ok(());
    }
    let library = app.library();
    let entry = match reference {
        ModelRef::Name(name) => library.catalogue.get(name),
        ModelRef::Digest(digest) => library.catalogue.by_digest(*digest),
        _ => None,
    };
    let found = library.store.find(reference).map_err(failed)?.map(|model| model.digest);
    let digest = found.or(entry.map(|entry| entry.digest));
    let mut here = library.store.list().map_err(failed)?;
    here.retain(|model| Some(model.digest) == digest);
    let may = match (here.as_slice(), entry, reference) {
        ([], Some(entry), _) => caller.may_ask(&entry.name),
        ([], None, ModelRef::Name(name)) => caller.may_ask(name),
        ([], None, _) => name.is_some_and(|name| caller.may_ask(&bare(name))),
        (known, ..) => known.iter().any(|model| caller.may_ask(&model.name)),
    };
    may.then_some(()).ok_or_else(|| not_here(&reference.to_string()))
}

fn not_here(name: &str) -> ApiError {
    BackendError::new(ErrorKind::NotFound, format!("no model {name:?} is here")).into()
}

/// The store's list could not be read.
pub(crate) fn failed(error: DbError) -> ApiError {
    BackendError::new(ErrorKind::Internal, "the list of models cannot be read")
        .with_source(error)
        .into()
}
