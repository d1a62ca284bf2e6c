//! Which model a name means.

use tieline_store::{Catalogue, DbError, Model, Store};
use tieline_types::ModelRef;

/// What other programs write where no tag is meant.
const LATEST: &str = ":latest";

/// A model of the store, also by another name that the catalogue has for it, and with `:latest` or without.
pub(crate) fn find(
    store: &Store,
    catalogue: &Catalogue,
    reference: &ModelRef,
) -> Result<Option<Model>, DbError> {
    let ModelRef::Name(name) = reference else { return store.find(reference) };
    let twin = match name.strip_suffix(LATEST) {
        Some(bare) => bare.to_owned(),
        None => format!("{name}{LATEST}"),
    };
    for name in [name, &twin] {
        let known = catalogue.get(name).map(|entry| &entry.name);
        for name in [Some(name), known].into_iter().flatten() {
            if let Some(model) = store.find(&ModelRef::Name(name.clone()))? {
                return Ok(Some(model));
            }
        }
    }
    Ok(None)
}

/// What to say of a model that is not here, and what the user can do.
pub(crate) fn missing(store: &Store, catalogue: &Catalogue, text: &str) -> (String, String) {
    let names = match text.parse() {
        Ok(ModelRef::Name(name)) => store.suggestions(&name, catalogue),
        _ => Vec::new(),
    };
    let hint = match names.first() {
        Some(name) if name == text => format!("tieline pull {name}"),
        Some(name) => format!("did you mean {name}?"),
        None => "tieline list shows the models here; tieline pull fetches one".to_owned(),
    };
    (format!("no model {text:?} is here"), hint)
}
