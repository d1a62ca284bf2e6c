//! `/api/push`

use axum::extract::State;
use axum::response::Response;
use futures_core::Stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tieline_store::{PushError, PushEvent, PushOptions};
use tieline_types::{ErrorKind, Hint, ModelRef, RegistryRef};
use tokio::sync::mpsc;

use super::asked::{bare, failed, permit};
use super::progress::{self, Progressing, WAITING, give, status};
use super::pull::{Manner, reference};
use super::show::Name;
use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::json::Json;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaPushRequest", extend("anyOf" = [{ "required": ["model"] }, { "required": ["name"] }]))]
pub(crate) struct PushRequest {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    name: Option<String>,
    /// The model here, where it is called otherwise than in the registry.
    #[serde(default)]
    source: Option<String>,
}

/// A model here, and where it is to go.
struct Wish {
    model: ModelRef,
    place: RegistryRef,
    insecure: bool,
}

pub(crate) async fn push(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, .. }: Json<PushRequest, Manner>,
) -> Result<Response, ApiError> {
    let place = place(&Name::of(value.model, value.name)?)?;
    let source = value.source.filter(|name| !name.is_empty());
    let names = source.as_ref().map_or_else(|| called(&place), |name| vec![bare(name)]);
    let model = here(&app, &caller, &names)?;
    let wish = Wish { model: reference(&model)?, place, insecure: shared.is_insecure() };
    give(lines(&app, wish), shared.streams()).await
}

/// Where it is to go. There is no registry that is meant where none is named: Ollama's own wants a signature by an
/// account of theirs.
fn place(text: &str) -> Result<RegistryRef, ApiError> {
    let told = |error: tieline_types::ParseModelRefError| {
        let text = format!("{error}; there is no registry that is meant where none is named");
        ApiError::invalid("model", text)
    };
    text.parse().map_err(told)
}

/// What a model here is called that is to go there: the same, with its tag, or without one that says nothing.
fn called(place: &RegistryRef) -> Vec<String> {
    let name = place.name().to_ascii_lowercase();
    let tagged = format!("{name}:{}", place.tag().to_ascii_lowercase());
    if place.is_latest() { vec![name, tagged] } else { vec![tagged] }
}

/// The first of these names that a model here has. What this caller may not ask for is not told from what is not here.
fn here(app: &App, caller: &Caller, names: &[String]) -> Result<String, ApiError> {
    let store = &app.library().store;
    for name in names {
        let is_made = store.overlay(name).map_err(failed)?.is_some();
        let is_here = is_made || store.find(&reference(name)?).map_err(failed)?.is_some();
        if is_here && permit(app, caller, name).is_ok() {
            return Ok(name.clone());
        }
    }
    let name = names.first().map_or("", String::as_str);
    let text = format!("no model {name:?} is here (source names one that is called otherwise)");
    Err(ApiError::new(Fault::Backend(ErrorKind::NotFound), text))
}

/// Pushes, and tells how it goes; dropped, or when the server leaves, it stops.
fn lines(
    app: &App,
    wish: Wish,
) -> impl Stream<Item = Result<Value, ApiError>> + Send + 'static + use<> {
    let (sender, steps) = mpsc::channel(WAITING);
    let library = app.library().clone();
    let work = async move {
        // A reader that is slow sees fewer steps; the last ones do not come this way.
        let tell = |event| drop(line(event).map(|line| sender.try_send(line)));
        let environment = &library.environment;
        let options = PushOptions { environment, insecure: wish.insecure, tell: &tell };
        let pushed = library.store.push(&wish.model, &wish.place, options).await;
        pushed.map_err(|error| told(&error))
    };
    let (first, ends) = ("retrieving manifest", &["success"]);
    let progressing = Progressing { first, work: Box::pin(work), steps, ends };
    progress::lines(progressing, app.leaving().clone())
}

fn line(event: PushEvent) -> Option<Value> {
    match event {
        PushEvent::Blob { digest, done, total } => {
            let mut line = status(format!("pushing {}", digest.short()));
            line["digest"] = json!(digest);
            line["total"] = json!(total);
            line["completed"] = json!(done);
            Some(line)
        }
        PushEvent::Manifest => Some(status("pushing manifest")),
        // What remains says nothing to these clients.
        _ => None,
    }
}

/// A push's failure, as a caller may see it.
fn told(error: &PushError) -> ApiError {
    let kind = match error {
        PushError::NotFound { .. } => ErrorKind::NotFound,
        PushError::Adapter { .. } | PushError::Adapted { .. } => ErrorKind::Unsupported,
        PushError::Refused { .. }
        | PushError::Connect { .. }
        | PushError::Denied { .. }
        | PushError::Status { .. }
        | PushError::Stalled { .. }
        | PushError::Broke { .. }
        | PushError::Nonsense { .. } => ErrorKind::Upstream,
        PushError::Offline { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    let text = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    ApiError::new(Fault::Backend(kind), text)
}
