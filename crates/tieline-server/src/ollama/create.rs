//! `/api/create`: a model that is another with something before it, or one of an uploaded file.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use tieline_store::{NameError, Overlay};
use tieline_types::{BackendError, Digest, ErrorKind, Hint, Private, Prompt, Request};

use super::asked::{bare, failed, permit, permit_name};
use super::message::{WireMessage, messages};
use super::options::Options;
use super::progress::{give, status};
use super::pull::Manner;
use super::show::Name;
use super::{adapters, blobs, files};
use crate::app::App;
use crate::caller::Caller;
use crate::error::{ApiError, Fault};
use crate::heads::{Marks, stamp};
use crate::json::Json;
use crate::openapi::forms;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaCreateRequest", extend("anyOf" = [{ "required": ["model"] }, { "required": ["name"] }]))]
pub(crate) struct CreateRequest {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    system: Option<Private>,
    #[serde(default)]
    template: Option<String>,
    #[serde(default)]
    #[schemars(with = "Option<forms::Options>")]
    parameters: Option<Map<String, Value>>,
    #[serde(default)]
    #[schemars(with = "Option<Vec<WireMessage>>")]
    messages: Option<Vec<Value>>,
    #[serde(default)]
    license: Option<Licence>,
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    files: Option<Map<String, Value>>,
    #[serde(default)]
    #[schemars(with = "Option<BTreeMap<String, String>>")]
    adapters: Option<Map<String, Value>>,
    #[serde(default)]
    #[schemars(skip)]
    quantize: Option<String>,
}

/// One text or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "OllamaLicence")]
enum Licence {
    One(String),
    Many(Vec<String>),
}

pub(crate) async fn create(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, mut ignored }: Json<CreateRequest, Manner>,
) -> Result<Response, ApiError> {
    value.refuse()?;
    permit_name(&app, &caller, &value.made()?)?;
    ignored.extend(Options::made(value.parameters.as_ref().unwrap_or(&Map::new()))?.ignored);
    let response = match value.file()? {
        None => {
            let overlay = value.overlay(&app, &caller).await?;
            app.library().store.keep_overlay(&overlay).map_err(unnamed)?;
            let steps = ["reading model metadata", "writing manifest", "success"];
            give(stream::iter(steps.map(|step| Ok(status(step)))), shared.streams()).await?
        }
        Some(digest) => {
            let overlay = value.own_overlay(app.config().limits.messages)?;
            give(files::lines(&app, &caller, digest, overlay)?, shared.streams()).await?
        }
    };
    Ok(stamp(response, &caller, &Marks::default(), &ignored))
}

impl CreateRequest {
    /// What makes new bytes is not done here.
    fn refuse(&self) -> Result<(), ApiError> {
        if is_filled(self.files.as_ref()) && is_filled(self.adapters.as_ref()) {
            let text = "adapters go with a model that is here: make one of the files first, and name it in from";
            return Err(ApiError::unsupported("adapters", text));
        }
        if self.quantize.as_ref().is_some_and(|word| !word.is_empty()) {
            let text =
                "quantize is not supported: pull the model in the quantisation that you want";
            return Err(ApiError::unsupported("quantize", text));
        }
        Ok(())
    }

    /// The name that it is given.
    fn made(&self) -> Result<String, ApiError> {
        Ok(bare(&Name::of(self.model.clone(), self.name.clone())?))
    }

    /// The uploaded file that the model is made of, where it is made of one.
    fn file(&self) -> Result<Option<Digest>, ApiError> {
        if !is_filled(self.files.as_ref()) {
            return Ok(None);
        }
        if self.from.as_ref().is_some_and(|from| !from.is_empty()) {
            return Err(ApiError::invalid(
                "files",
                "files and from are given: expected one of them",
            ));
        }
        let mut files = self.files.iter().flatten().map(|(_, digest)| digest);
        match (files.next(), files.next()) {
            (Some(Value::String(digest)), None) => blobs::read(digest).map(Some),
            (Some(_), None) => {
                let text = "a file is no digest: expected \"NAME.gguf\": \"sha256:…\"";
                Err(ApiError::invalid("files", text))
            }
            _ => {
                let text = "files has several: a model here is one GGUF file";
                Err(ApiError::unsupported("files", text))
            }
        }
    }

    /// What is to be kept. What is made of an overlay is made of its base, and begins with what it says.
    async fn overlay(self, app: &App, caller: &Caller) -> Result<Overlay, ApiError> {
        let from = self.from.clone().filter(|from| !from.is_empty());
        let from = from.ok_or_else(|| ApiError::invalid("from", "from is missing"))?;
        permit(app, caller, &from)?;
        let below = app.library().store.overlay(&bare(&from)).map_err(failed)?;
        let base = below.as_ref().map_or(from.as_str(), |overlay| overlay.base.as_str());
        let base = base.strip_suffix(":latest").unwrap_or(base);
        // A base that is not here is told now and not at the first question. It is kept by its own name, however it was
        // spelled.
        let base = app.router().host().describe(base).await?.card.name;
        let base = match self.adapters.as_ref().filter(|all| !all.is_empty()) {
            Some(adapters) => adapters::adapted(app, caller, (base, adapters)).await?,
            None => base,
        };
        let name = self.made()?;
        self.kept((name, base), below.as_ref(), app.config().limits.messages)
    }

    /// What is kept of a model that is made of a file: it is put before that model itself.
    fn own_overlay(self, most: usize) -> Result<Overlay, ApiError> {
        let name = self.made()?;
        self.kept((name.clone(), name), None, most)
    }

    fn kept(
        self,
        (name, base): (String, String),
        below: Option<&Overlay>,
        most: usize,
    ) -> Result<Overlay, ApiError> {
        let (mut parameters, mut said) = match below {
            Some(overlay) => read(overlay)?,
            None => (Map::new(), Vec::new()),
        };
        parameters.extend(self.parameters.unwrap_or_default());
        said.extend(self.messages.unwrap_or_default());
        check(&parameters, &said, most)?;
        let licence = self.license.map(|licence| match licence {
            Licence::One(text) => text,
            Licence::Many(texts) => texts.join("\n\n"),
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Overlay {
            name,
            base,
            system: self.system.or_else(|| below.and_then(|one| one.system.clone())),
            template: self.template.or_else(|| below.and_then(|one| one.template.clone())),
            licence: licence.or_else(|| below.and_then(|one| one.licence.clone())),
            parameters: Value::Object(parameters).to_string(),
            messages: Value::Array(said).to_string().into(),
            changed_at_unix_s: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
        })
    }
}

fn is_filled(map: Option<&Map<String, Value>>) -> bool {
    map.is_some_and(|map| !map.is_empty())
}

/// What is kept is valid: a question to it does not fail for what somebody else said long ago.
fn check(parameters: &Map<String, Value>, said: &[Value], most: usize) -> Result<(), ApiError> {
    let options = Options::read(parameters.clone(), &Map::new())?;
    let asked = Request {
        stop: options.stop,
        sampling: options.sampling,
        ..Request::new(Prompt::Text("".into()))
    };
    asked.validate()?;
    let bad = |_| ApiError::invalid("messages", "messages are no list of messages");
    let wire: Vec<WireMessage> =
        serde_json::from_str(&Value::from(said.to_vec()).to_string()).map_err(bad)?;
    let said = messages(wire, most)?;
    match said.iter().any(|message| !message.pictures.is_empty()) {
        true => Err(ApiError::unsupported("messages", "pictures are not kept with a model")),
        false => Ok(()),
    }
}

fn read(overlay: &Overlay) -> Result<(Map<String, Value>, Vec<Value>), ApiError> {
    let broken = |_| {
        let text = format!("what is kept of model {:?} cannot be read", overlay.name);
        BackendError::new(ErrorKind::Internal, text)
    };
    let parameters = serde_json::from_str(&overlay.parameters).map_err(broken)?;
    let said = serde_json::from_str(overlay.messages.expose()).map_err(broken)?;
    Ok((parameters, said))
}

/// Why a name was not given, as a caller may see it.
pub(crate) fn unnamed(error: NameError) -> ApiError {
    let kind = match &error {
        NameError::NotFound { .. } => ErrorKind::NotFound,
        NameError::Invalid { .. } | NameError::Taken { .. } => ErrorKind::InvalidRequest,
        _ => {
            return BackendError::new(ErrorKind::Internal, "the name cannot be kept")
                .with_source(error)
                .into();
        }
    };
    let text = match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    };
    ApiError::new(Fault::Backend(kind), text)
}
