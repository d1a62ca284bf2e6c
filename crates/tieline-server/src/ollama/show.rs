//! `/api/show`

use std::fmt::Write as _;

use axum::Json as Answer;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tieline_store::Overlay;
use tieline_types::{BackendError, ErrorKind, ModelDetails};

use super::asked::{bare, failed};
use super::models::{capabilities, details, other};
use super::time;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Json;

/// Some editors let a model fill gaps only where its template has this word of Go's templates.
const FILLS_GAPS: &str = "{# fills gaps: .Suffix #}";

/// A model by its name; old clients call it `name`.
#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaName", extend("anyOf" = [{ "required": ["model"] }, { "required": ["name"] }]))]
pub(crate) struct Name {
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

impl Name {
    pub(crate) fn get(self) -> Result<String, ApiError> {
        Self::of(self.model, self.name)
    }

    pub(crate) fn of(model: Option<String>, name: Option<String>) -> Result<String, ApiError> {
        let filled = |name: Option<String>| name.filter(|name| !name.is_empty());
        filled(model).or(filled(name)).ok_or_else(|| ApiError::invalid("model", "model is missing"))
    }
}

pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    Json { value, .. }: Json<Name>,
) -> Result<Answer<Value>, ApiError> {
    let name = value.get()?;
    let overlay = app.library().store.overlay(&bare(&name)).map_err(failed)?;
    let base = overlay.as_ref().map_or(name.as_str(), |overlay| overlay.base.as_str());
    let base = base.strip_suffix(":latest").unwrap_or(base);
    if !caller.may_ask(base) {
        let text = format!("no model {name:?} is here");
        return Err(BackendError::new(ErrorKind::NotFound, text).into());
    }
    let others = app.router().switch().others();
    if let Some(named) = others.iter().find(|other| overlay.is_none() && other.name == base) {
        let mut shown = other(named);
        let context = &shown["details"]["context_length"];
        // Editors look for the context under a family's name.
        shown["model_info"] =
            json!({ "general.architecture": "remote", "remote.context_length": context });
        return Ok(Answer(shown));
    }
    let model = app.router().host().describe(base).await?;
    Ok(Answer(described(&model, overlay.as_ref())?))
}

fn described(model: &ModelDetails, overlay: Option<&Overlay>) -> Result<Value, ApiError> {
    let card = &model.card;
    let said = overlay.map(Said::of).transpose()?.unwrap_or_default();
    let licence = overlay.and_then(|overlay| overlay.licence.clone()).or(card.licence.clone());
    let parent = overlay.filter(|one| one.base != one.name).map_or("", |one| one.base.as_str());
    let changed = overlay.map_or(card.created_at_unix_s, |overlay| overlay.changed_at_unix_s);
    let template = template(model);
    let mut value = json!({
        "license": licence,
        "modelfile": modelfile(model, overlay, &said)?,
        "parameters": said.parameters("")?,
        "template": template,
        "details": details(card, parent),
        "model_info": info(model),
        "capabilities": capabilities(card.abilities),
        "modified_at": time::at(changed),
    });
    if let Some(system) = overlay.and_then(|overlay| overlay.system.as_ref()) {
        value["system"] = json!(system.expose());
    }
    if !said.messages.is_empty() {
        value["messages"] = json!(said.messages);
    }
    Ok(value)
}

/// What an overlay says, read.
#[derive(Debug, Default)]
struct Said {
    parameters: Map<String, Value>,
    messages: Vec<Value>,
}

impl Said {
    fn of(overlay: &Overlay) -> Result<Self, ApiError> {
        let broken = |_| {
            let text = format!("what is kept of model {:?} cannot be read", overlay.name);
            BackendError::new(ErrorKind::Internal, text)
        };
        Ok(Self {
            parameters: serde_json::from_str(&overlay.parameters).map_err(broken)?,
            messages: serde_json::from_str(overlay.messages.expose()).map_err(broken)?,
        })
    }

    /// One name and value a line; a list has a line for each of its values.
    fn parameters(&self, before: &str) -> Result<String, ApiError> {
        let mut text = String::new();
        for (name, value) in &self.parameters {
            let all = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in all {
                writeln!(text, "{before}{name:<30} {value}").map_err(unwritten)?;
            }
        }
        Ok(text.trim_end().to_owned())
    }
}

fn unwritten(_: std::fmt::Error) -> ApiError {
    BackendError::new(ErrorKind::Internal, "a text cannot be written").into()
}

fn template(model: &ModelDetails) -> String {
    let mut text = model.template.clone().unwrap_or_default();
    if model.card.abilities.insert {
        text.push_str(FILLS_GAPS);
    }
    text
}

/// How the model would be made again.
fn modelfile(
    model: &ModelDetails,
    overlay: Option<&Overlay>,
    said: &Said,
) -> Result<String, ApiError> {
    let mut text = format!("FROM {}\n", overlay.map_or(&model.card.name, |overlay| &overlay.base));
    let given = overlay.and_then(|overlay| overlay.template.as_ref());
    let template = given.cloned().unwrap_or_else(|| template(model));
    writeln!(text, "TEMPLATE \"\"\"{template}\"\"\"").map_err(unwritten)?;
    if let Some(system) = overlay.and_then(|overlay| overlay.system.as_ref()) {
        writeln!(text, "SYSTEM \"\"\"{}\"\"\"", system.expose()).map_err(unwritten)?;
    }
    let parameters = said.parameters("PARAMETER ")?;
    if !parameters.is_empty() {
        writeln!(text, "{parameters}").map_err(unwritten)?;
    }
    for message in &said.messages {
        let word = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
        writeln!(text, "MESSAGE {} \"\"\"{}\"\"\"", word("role"), word("content"))
            .map_err(unwritten)?;
    }
    Ok(text)
}

/// What the file says, with the count of its weights, which few files write themselves.
fn info(model: &ModelDetails) -> Map<String, Value> {
    let entries = model.metadata.iter().map(|(key, value)| {
        // The host writes JSON; what is none would be a text.
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        (key.clone(), value)
    });
    let mut info: Map<String, Value> = entries.collect();
    if let Some(parameters) = model.card.parameters {
        info.entry("general.parameter_count").or_insert(json!(parameters));
    }
    if let (Some(architecture), Some(context)) =
        (&model.card.architecture, model.card.context_length)
    {
        info.entry(format!("{architecture}.context_length")).or_insert(json!(context));
    }
    info
}
