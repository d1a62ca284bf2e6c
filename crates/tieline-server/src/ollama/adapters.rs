//! Models that are made of a base and adapters.

use serde_json::{Map, Value};
use tieline_types::{Digest, ModelRef};

use super::asked::failed;
use super::{blobs, files};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::made;

/// The name of a base with adapters, each by its digest, or by its name where no digest is said. One that this caller
/// sent is given a name first, which it keeps where all of them go together.
///
/// # Errors
/// One is not here, or they do not fit the base.
pub(super) async fn adapted(
    app: &App,
    caller: &Caller,
    (base, adapters): (String, &Map<String, Value>),
) -> Result<String, ApiError> {
    let mut named = Vec::new();
    let result = composed(app, caller, (base, adapters), &mut named).await;
    if result.is_err() {
        // A name for what is no adapter of this base says nothing to anybody.
        for name in named {
            let _ = made::remove(app, ModelRef::Name(name)).await;
        }
    }
    result
}

/// The same; the names that it gave are in `named`, whatever comes of it.
async fn composed(
    app: &App,
    caller: &Caller,
    (mut whole, adapters): (String, &Map<String, Value>),
    named: &mut Vec<String>,
) -> Result<String, ApiError> {
    for (name, digest) in adapters {
        let bare = name.strip_suffix(":latest").unwrap_or(name);
        let said = digest.as_str().filter(|digest| !digest.is_empty());
        let Some(digest) = said.and_then(|said| blobs::read(said).ok()) else {
            whole = format!("{whole}+{}", said.unwrap_or(bare));
            continue;
        };
        named.extend(take_in(app, caller, digest).await?);
        whole = format!("{whole}+{digest}");
    }
    Ok(app.router().host().describe(&whole).await?.card.name)
}

/// The new name of what this caller sent; `None` where nothing waits for one, or it has that name already.
async fn take_in(app: &App, caller: &Caller, digest: Digest) -> Result<Option<String>, ApiError> {
    let (library, who) = (app.library(), caller.principal.id.as_str());
    let waits = library.store.has_upload(who, digest);
    if !waits || blobs::is_a_models(&library.store, caller, digest)? {
        return Ok(None);
    }
    let name = format!("adapter-{}", digest.short());
    let known = library.store.find(&ModelRef::Name(name.clone())).map_err(failed)?;
    files::name(library, (who, digest), (&name, None)).await?;
    Ok(known.is_none().then_some(name))
}
