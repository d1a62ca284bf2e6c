//! Draft models: which smaller model guesses for which.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use tieline_store::{Lease, Model, Store};
use tieline_types::{BackendError, Digest, ModelFile};

use super::variants::Kind;
use super::{errors, loader};
use crate::app::App;
use crate::commands::draft;
use crate::composed;
use crate::failure::Failure;

/// Which model guesses for which, by what the file holds of the one that it guesses for. While this lives, none of them is removed.
#[derive(Debug, Default)]
pub(crate) struct Drafts(HashMap<Digest, (Model, Lease)>);

/// A model that is here and writes text by itself.
fn usable(app: &App, name: &str) -> Result<Model, Failure> {
    let model = composed::answering(app.installed(name)?)?;
    if model.missing {
        let text = format!("the file of {} is missing", model.name);
        return Err(Failure::user(text).with_hint(format!("tieline pull {name} fetches it again")));
    }
    Ok(model)
}

impl Drafts {
    /// By pairs of names: a model, and the smaller one that guesses for it.
    ///
    /// # Errors
    /// One of them is not here, is to guess for itself, or a model has two.
    pub(crate) fn new(app: &App, pairs: &[(String, String)]) -> Result<Self, Failure> {
        let mut drafts = HashMap::new();
        for (name, smaller) in pairs {
            let (model, draft) = (usable(app, name)?, usable(app, smaller)?);
            draft::check(app.output, &model, &draft)?;
            let lease = app.store.lease(&draft)?;
            match drafts.entry(model.digest) {
                Entry::Vacant(place) => drop(place.insert((draft, lease))),
                Entry::Occupied(_) => {
                    let text = format!("{} has two draft models", model.name);
                    return Err(Failure::user(text).with_hint("give --draft once for each model"));
                }
            }
        }
        Ok(Self(drafts))
    }

    /// The file of the one that guesses for a variant of a model, where one does: for what writes text.
    pub(super) fn open(
        &self,
        store: &Store,
        (digest, kind): (Digest, Kind),
    ) -> Result<Option<ModelFile>, BackendError> {
        if kind.vectors.is_some() {
            return Ok(None);
        }
        let Some((draft, _)) = self.0.get(&digest) else { return Ok(None) };
        loader::refuse_quarantined(store, draft)?;
        store.open_model(draft).map(Some).map_err(errors::file)
    }
}
