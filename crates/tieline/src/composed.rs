//! A base with adapters, by its name: `base+adapter@0.5`.

use std::fs::File;

use sha2::{Digest as _, Sha256};
use tieline_store::gguf::Misfit;
use tieline_store::{Catalogue, DbError, Gguf, Model, Store, VerifyError};
use tieline_types::{
    Adapter, AdapterFile, Adapters, AdaptersError, BackendError, Bytes, Composed, Digest,
    ErrorKind, Hint, ModelRef, ParseModelRefError, Scale,
};

use crate::names;

/// What a name means: a model, and the adapters that change it.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub(crate) base: Model,
    pub(crate) adapters: Vec<(Model, Scale)>,
}

/// Why a name means nothing that can answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComposeError {
    /// The store has no such model.
    #[error("{text}")]
    Missing { text: String, hint: String },
    /// It is no name.
    #[error(transparent)]
    NoName(#[from] ParseModelRefError),
    /// An adapter stands where a model should.
    #[error("{0} is an adapter: it changes a model, and answers nothing alone")]
    Alone(String),
    /// A model stands where an adapter should.
    #[error("{0} is no adapter but a model")]
    NoAdapter(String),
    /// They do not go together.
    #[error("the adapter {adapter} does not fit {base}: {misfit}")]
    Misfit { adapter: String, base: String, misfit: Misfit },
    /// The same one twice, or too many.
    #[error(transparent)]
    Set(#[from] AdaptersError),
    /// A header cannot be read.
    #[error("cannot read the header of {name}: {why}")]
    Header { name: String, why: String },
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] VerifyError),
    /// The list of models cannot be read.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for ComposeError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { hint, .. } => Some(hint.clone()),
            Self::Alone(name) => Some(format!("ask for MODEL+{name}, by the name of its model")),
            Self::NoAdapter(_) => {
                Some("before the first + stands a model, after it its adapters".to_owned())
            }
            Self::Misfit { .. } => {
                Some("an adapter works with the model that it was trained for".to_owned())
            }
            Self::NoName(_) => Some("MODEL+ADAPTER, or MODEL+ADAPTER@0.5".to_owned()),
            Self::Set(_) | Self::Header { .. } => None,
            Self::File(error) => error.hint(),
            Self::Db(error) => error.hint(),
        }
    }
}

impl ComposeError {
    /// The kind, as callers of a backend know it.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } => ErrorKind::NotFound,
            Self::NoName(_)
            | Self::Alone(_)
            | Self::NoAdapter(_)
            | Self::Misfit { .. }
            | Self::Set(_) => ErrorKind::InvalidRequest,
            Self::Header { .. } => ErrorKind::BadModel,
            Self::File(_) | Self::Db(_) => ErrorKind::Internal,
        }
    }
}

impl From<ComposeError> for BackendError {
    fn from(error: ComposeError) -> Self {
        let same = Self::new(error.kind(), error.to_string());
        match error.hint() {
            Some(hint) => same.with_hint(hint),
            None => same,
        }
    }
}

impl Found {
    /// The name of it all: that of the base, where nothing changes it.
    pub(crate) fn name(&self) -> String {
        let mut name = self.base.name.clone();
        for (adapter, scale) in &self.adapters {
            name += &format!("+{}", adapter.name);
            if *scale != Scale::FULL {
                name += &format!("@{scale}");
            }
        }
        name
    }

    /// Names the content: the base's, and how much of which adapter changes it. What is known of the base is not
    /// known of it.
    pub(crate) fn digest(&self) -> Digest {
        if self.adapters.is_empty() {
            return self.base.digest;
        }
        let mut hash = Sha256::new_with_prefix(self.base.digest.0);
        let mut parts: Vec<_> = self
            .adapters
            .iter()
            .map(|(one, scale)| (one.digest, scale.get().to_le_bytes()))
            .collect();
        parts.sort_unstable();
        for (digest, scale) in parts {
            hash.update(digest.0);
            hash.update(scale);
        }
        Digest(hash.finalize().into())
    }

    /// What the adapters' files take.
    pub(crate) fn adapter_bytes(&self) -> Bytes {
        let sum = |sum: u64, (model, _): &(Model, Scale)| sum.saturating_add(model.size.0);
        Bytes(self.adapters.iter().fold(0, sum))
    }

    /// Compares the adapters with the base. Reads the headers of their files.
    ///
    /// # Errors
    /// One does not fit, or a file cannot be read.
    pub(crate) fn check(&self, store: &Store) -> Result<(), ComposeError> {
        if self.adapters.is_empty() {
            return Ok(());
        }
        let base = header(store, &self.base)?;
        for (adapter, _) in &self.adapters {
            let misfit = |misfit| ComposeError::Misfit {
                adapter: adapter.name.clone(),
                base: self.base.name.clone(),
                misfit,
            };
            header(store, adapter)?.fits(&base).map_err(misfit)?;
        }
        Ok(())
    }

    /// The adapters for a request, with their verified files.
    ///
    /// # Errors
    /// A file cannot be used, or they cannot be applied together.
    pub(crate) fn set(&self, store: &Store) -> Result<Adapters, ComposeError> {
        let one = |(model, scale): &(Model, Scale)| {
            let file = store.open_model(model)?;
            let file = AdapterFile { path: file.path, bytes: model.size };
            Ok(Adapter { digest: model.digest, scale: *scale, file: Some(file) })
        };
        let all: Vec<Adapter> =
            self.adapters.iter().map(one).collect::<Result<_, ComposeError>>()?;
        Ok(Adapters::new(all)?)
    }
}

/// What a name means. Asks the database.
///
/// # Errors
/// A part of it is not here, or is something else than its place says.
pub(crate) fn find(
    store: &Store,
    catalogue: &Catalogue,
    text: &str,
) -> Result<Found, ComposeError> {
    let Some(composed) = Composed::parse(text)? else {
        let reference: Option<ModelRef> = text.parse().ok();
        return Ok(Found {
            base: model(store, catalogue, reference.as_ref(), text)?,
            adapters: Vec::new(),
        });
    };
    let named = |reference: &ModelRef| {
        let text = reference.to_string();
        named(store, catalogue, Some(reference), &text)
    };
    let adapters = composed.adapters.iter().map(|(reference, scale)| {
        let adapter = named(reference)?;
        match adapter.is_adapter {
            true => Ok((adapter, *scale)),
            false => Err(ComposeError::NoAdapter(adapter.name)),
        }
    });
    let text = composed.base.to_string();
    let base = model(store, catalogue, Some(&composed.base), &text)?;
    Ok(Found { base, adapters: adapters.collect::<Result<_, _>>()? })
}

/// A model that answers.
fn model(
    store: &Store,
    catalogue: &Catalogue,
    reference: Option<&ModelRef>,
    text: &str,
) -> Result<Model, ComposeError> {
    answering(named(store, catalogue, reference, text)?)
}

/// Refuses an adapter where a model is wanted.
///
/// # Errors
/// It is an adapter.
pub(crate) fn answering(model: Model) -> Result<Model, ComposeError> {
    match model.is_adapter {
        true => Err(ComposeError::Alone(model.name)),
        false => Ok(model),
    }
}

fn named(
    store: &Store,
    catalogue: &Catalogue,
    reference: Option<&ModelRef>,
    text: &str,
) -> Result<Model, ComposeError> {
    let found = reference.map(|reference| names::find(store, catalogue, reference));
    found.transpose()?.flatten().filter(|model| !model.missing).ok_or_else(|| {
        let (text, hint) = names::missing(store, catalogue, text);
        ComposeError::Missing { text, hint }
    })
}

fn header(store: &Store, model: &Model) -> Result<Gguf, ComposeError> {
    let path = store.open_model(model)?.path;
    let unreadable = |why: String| ComposeError::Header { name: model.name.clone(), why };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    Gguf::read(file).map_err(|error| unreadable(error.to_string()))
}
