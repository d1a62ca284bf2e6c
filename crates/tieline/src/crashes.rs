//! What crashes mean across processes: they are written down, and too many keep a model from being started.

use std::time::Duration;

use tieline_engine::{Death, DeathListener};
use tieline_store::{DbError, Model, Quarantine, Store};

use crate::failure::Failure;

/// Deaths older than this do not count.
const WINDOW: Duration = Duration::from_secs(60);

/// Refuses a model that is quarantined.
pub(crate) fn refuse_quarantined(store: &Store, model: &Model) -> Result<(), Failure> {
    match quarantined(store, model)? {
        None => Ok(()),
        Some((text, hint)) => Err(Failure::user(text).with_hint(hint)),
    }
}

/// Why a model is not started, and what to do, where it is quarantined.
pub(crate) fn quarantined(
    store: &Store,
    model: &Model,
) -> Result<Option<(String, String)>, DbError> {
    let quarantine = store.quarantine_of(model.digest)?;
    Ok(quarantine.map(|quarantine| {
        let text = format!("{} is quarantined: {}", model.name, quarantine.reason);
        (text, hint(model))
    }))
}

/// What lets a model be started again that is quarantined.
pub(crate) fn hint(model: &Model) -> String {
    format!("tieline quarantine lift {} lets it be started again", model.name)
}

/// How long ago runners of this model died, within the last minute.
pub(crate) fn recent(store: &Store, model: &Model) -> Vec<Duration> {
    let now = jiff::Timestamp::now().as_millisecond();
    let since = now.saturating_sub(i64::try_from(WINDOW.as_millis()).unwrap_or(i64::MAX));
    // Crashes that cannot be read are not counted; the model is started all the same.
    let deaths = store.deaths_since(model.digest, since).unwrap_or_default();
    let ago = |at: i64| u64::try_from(now.saturating_sub(at)).map(Duration::from_millis);
    deaths.into_iter().filter_map(|at| ago(at).ok()).collect()
}

/// Writes deaths down.
pub(crate) fn listener(store: &Store) -> DeathListener {
    let store = store.clone();
    DeathListener::new(move |death| note(&store, death))
}

fn note(store: &Store, death: &Death) {
    let now = jiff::Timestamp::now();
    // A failure costs the memory of a crash; the caller gets its error all the same.
    let _ = store.record_death(death.digest, &death.how, now.as_millisecond());
    if let Some(reason) = &death.quarantined {
        let (digest, reason) = (death.digest, reason.clone());
        let _ = store.quarantine(&Quarantine { digest, reason, since_unix_s: now.as_second() });
    }
}
