//! Models that are made of others, in every dialect: who answers for them, and what they say where a caller says
//! nothing.

use tieline_store::{Overlay, RemoveError, Removed, Store};
use tieline_types::{
    BackendError, ErrorKind, Hint, Message, ModelCard, ModelRef, Private, Prompt, Sampling, Tokens,
    Wanted,
};

use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::ollama::asked::{Asked, bare_base, failed};
use crate::ollama::options::Options;
use crate::open::Ask;

/// What is put before a model, where who asks says nothing.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Instructions above its conversations.
    pub system: Option<Private>,
    /// Messages at the beginning of its conversations.
    pub messages: Vec<Message>,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// The context to load it with.
    pub context: Option<Tokens>,
    /// The most tokens of an answer.
    pub max_tokens: Option<Tokens>,
    /// What ends an answer.
    pub stop: Vec<String>,
}

/// What is kept of a made model is not what it was made with.
#[derive(Debug, thiserror::Error)]
#[error("what is kept of model {name:?} cannot be read: {why}")]
pub struct Unreadable {
    /// The model.
    pub name: String,
    /// What is wrong.
    pub why: String,
}

/// Reads what was put before a model, for whoever answers without a server. `usual` is how tokens are chosen where it
/// says nothing.
///
/// # Errors
/// It is not what a model is made with.
pub fn before(overlay: &Overlay, usual: Sampling) -> Result<Before, Unreadable> {
    let unreadable =
        |error: ApiError| Unreadable { name: overlay.name.clone(), why: error.message };
    let mut asked = Asked::of(overlay.clone(), usize::MAX).map_err(unreadable)?;
    let parameters = std::mem::take(&mut asked.parameters);
    let Options { sampling, context, max_tokens, stop, .. } =
        Options::over(usual, parameters).map_err(unreadable)?;
    let Asked { system, messages, .. } = asked;
    Ok(Before { system, messages, sampling, context, max_tokens, stop })
}

/// A model by its name, and what was made of it.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    asked: Asked,
    options: Options,
}

impl Made {
    /// The model of this name; one that is no made one has nothing to say.
    ///
    /// # Errors
    /// The caller may not ask its base, or what is kept of it cannot be read.
    pub(crate) fn find(app: &App, caller: &Caller, name: &str) -> Result<Self, ApiError> {
        let mut asked = Asked::find(app, caller, name)?;
        let parameters = std::mem::take(&mut asked.parameters);
        Ok(Self { options: Options::over(Sampling::default(), parameters)?, asked })
    }

    /// How tokens are chosen where the caller says nothing.
    pub(crate) fn sampling(&self) -> Sampling {
        self.options.sampling.clone()
    }

    /// The most tokens of an answer where the caller says nothing.
    pub(crate) fn max_tokens(&self) -> Option<Tokens> {
        self.options.max_tokens
    }

    /// What ends an answer where the caller says nothing.
    pub(crate) fn stop(&self) -> Vec<String> {
        self.options.stop.clone()
    }

    /// The model that answers, with the context that was asked for when it was made.
    pub(crate) fn wanted(&self, wanted: &Wanted) -> Wanted {
        let context = wanted.context.or(self.options.context);
        Wanted { name: self.asked.base.clone(), context, ..wanted.clone() }
    }

    /// The conversation after what it says first.
    pub(crate) fn before(mut self, said: Vec<Message>) -> Vec<Message> {
        self.asked.before(said)
    }

    /// Puts what it says before what is asked, and has its base answer.
    pub(crate) fn apply(mut self, ask: &mut Ask) {
        ask.wanted = self.wanted(&ask.wanted);
        let request = &mut ask.request;
        request.max_tokens = request.max_tokens.or(self.options.max_tokens);
        if request.stop.is_empty() {
            request.stop = std::mem::take(&mut self.options.stop);
        }
        if let Prompt::Chat(said) = &mut request.prompt {
            *said = self.asked.before(std::mem::take(said));
        }
    }
}

/// Removes a made model, or a model with its file; a made one has none, and gives `None`. One of its model's own name
/// goes with the model. Deleting gigabytes takes a disk its time.
///
/// # Errors
/// There is no such model, or it is in use.
pub(crate) async fn remove(app: &App, reference: ModelRef) -> Result<Option<Removed>, ApiError> {
    let store = app.library().store.clone();
    let task = tokio::task::spawn_blocking(move || match is_unmade(&store, &reference)? {
        true => Ok(None),
        false => store.remove(&reference).map(Some).map_err(|error| unremoved(&error)),
    });
    let stopped = |_| BackendError::new(ErrorKind::Internal, "the removal stopped before its end");
    task.await.map_err(stopped)?
}

fn is_unmade(store: &Store, reference: &ModelRef) -> Result<bool, ApiError> {
    let ModelRef::Name(name) = reference else { return Ok(false) };
    let made = store.overlay(name).map_err(failed)?.is_some_and(|overlay| overlay.base != *name);
    Ok(made && store.remove_overlay(name).map_err(failed)?)
}

fn unremoved(error: &RemoveError) -> ApiError {
    let kind = match error {
        RemoveError::NotFound { .. } => ErrorKind::NotFound,
        RemoveError::InUse { .. } => ErrorKind::Busy,
        _ => ErrorKind::Internal,
    };
    let told = BackendError::new(kind, error.to_string());
    match error.hint() {
        Some(hint) => told.with_hint(hint).into(),
        None => told.into(),
    }
}

/// The models that this caller may ask, with the made ones: each is its base under a name of its own.
///
/// # Errors
/// The list of made models cannot be read.
pub(crate) fn cards(
    app: &App,
    caller: &Caller,
    models: Vec<ModelCard>,
) -> Result<Vec<ModelCard>, ApiError> {
    let overlays = app.library().store.overlays().map_err(failed)?;
    let switch = app.router().switch();
    let own_name = |one: &&Overlay| one.base != one.name && !switch.knows(&one.name);
    let made = overlays.iter().filter(own_name).filter_map(|overlay| {
        // One with adapters is shown by what it is made of.
        let (base, _) = overlay.base.split_once('+').unwrap_or((&overlay.base, ""));
        let base = models.iter().find(|card| card.name == base)?;
        let (name, created_at_unix_s) = (overlay.name.clone(), overlay.changed_at_unix_s);
        let card = ModelCard { name, created_at_unix_s, ..base.clone() };
        caller.may_ask(bare_base(overlay)).then_some(card)
    });
    let made: Vec<ModelCard> = made.collect();
    let own = models.into_iter().filter(|card| caller.may_ask(&card.name));
    Ok(own.chain(made).collect())
}
