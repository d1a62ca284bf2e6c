//! `/api/generate`

use axum::extract::State;
use axum::response::Response;
use schemars::JsonSchema;
use serde::Deserialize;
use tieline_types::{Message, Private, Prompt, Role};

use super::answer::{Shape, answer, move_model};
use super::asked::Asked;
use super::manner::WireManner;
use super::message::pictures;
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::json::Json;
use crate::open::Reading;
use crate::openapi::forms;

#[derive(Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OllamaGenerateRequest")]
pub(crate) struct GenerateRequest {
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    prompt: Option<Private>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    suffix: Option<Private>,
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    system: Option<Private>,
    #[serde(default)]
    #[schemars(skip)]
    template: Option<String>,
    #[serde(default)]
    #[schemars(skip)]
    context: Option<Vec<i64>>,
    #[serde(default)]
    raw: Option<bool>,
    #[serde(default)]
    #[schemars(with = "Option<Vec<forms::Base64>>")]
    images: Option<Vec<String>>,
}

pub(crate) async fn generate(
    State(app): State<App>,
    caller: Caller,
    Json { value, shared, ignored }: Json<GenerateRequest, WireManner>,
) -> Result<Response, ApiError> {
    let mut manner = shared.read(&app, &caller)?;
    manner.ignored.extend(ignored);
    value.refuse()?;
    manner.ignored.extend(value.unread().map(str::to_owned));
    let Some((prompt, reading)) = value.prompt(&mut manner.asked)? else {
        return move_model((&app, &caller), Shape::Generate, manner).await;
    };
    let request = manner.request(prompt);
    answer((&app, &caller), Shape::Generate, manner, (request, reading)).await
}

impl GenerateRequest {
    /// What cannot be done here is not left out silently.
    fn refuse(&self) -> Result<(), ApiError> {
        if self.template.as_ref().is_some_and(|template| !template.is_empty()) {
            let text =
                "template is not supported: a model's own template is used, or none with raw";
            return Err(ApiError::unsupported("template", text));
        }
        if self.context.as_ref().is_some_and(|context| !context.is_empty()) {
            let text = "context is not supported: send the conversation to /api/chat, which is \
                        as fast since its prompt is cached";
            return Err(ApiError::unsupported("context", text));
        }
        Ok(())
    }

    /// Members that nobody reads beside a gap to fill: no template is there to put them into.
    fn unread(&self) -> impl Iterator<Item = &'static str> + use<> {
        let filled =
            |text: &Option<Private>| text.as_ref().is_some_and(|text| !text.expose().is_empty());
        let members = [(filled(&self.system), "system"), (self.raw == Some(true), "raw")];
        let gap = filled(&self.suffix);
        members.into_iter().filter_map(move |(there, name)| (gap && there).then_some(name))
    }

    /// What the model reads; `None` where nothing is asked.
    fn prompt(self, asked: &mut Asked) -> Result<Option<(Prompt, Reading)>, ApiError> {
        let filled = |text: Option<Private>| text.filter(|text| !text.expose().is_empty());
        let (system, suffix) = (filled(self.system), filled(self.suffix));
        let prompt = self.prompt.unwrap_or_default();
        let pictures = pictures("images", self.images)?;
        let raw = self.raw.unwrap_or(false);
        if !pictures.is_empty() && (raw || suffix.is_some()) {
            let text = "images belong to a conversation: there is none with raw or suffix";
            return Err(ApiError::unsupported("images", text));
        }
        if let Some(suffix) = suffix {
            let prompt = Prompt::Infill { prefix: prompt, suffix };
            return Ok(Some((prompt, Reading::Plain)));
        }
        if prompt.expose().is_empty() {
            return Ok(None);
        }
        if raw {
            if system.is_some() {
                let text = "system and raw exclude each other: a raw prompt is read as it is";
                return Err(ApiError::invalid("raw", text));
            }
            return Ok(Some((Prompt::Text(prompt), Reading::Special)));
        }
        let system = system.or(asked.system.take());
        let system = system.map(|text| Message::new(Role::System, text.into_inner()));
        let before = std::mem::take(&mut asked.messages);
        let last = Message { pictures, ..Message::new(Role::User, prompt.into_inner()) };
        let said = system.into_iter().chain(before).chain([last]).collect();
        Ok(Some((Prompt::Chat(said), Reading::Plain)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(body: serde_json::Value) -> Result<Option<(Prompt, Reading)>, ApiError> {
        let wire: GenerateRequest = serde_json::from_value(body).unwrap();
        wire.prompt(&mut Asked::default())
    }

    #[test]
    fn what_is_not_read_beside_a_gap_is_named() {
        let unread = |body: serde_json::Value| {
            let wire: GenerateRequest = serde_json::from_value(body).unwrap();
            wire.unread().collect::<Vec<_>>()
        };
        let all = json!({ "prompt": "x", "suffix": "y", "system": "Be brief.", "raw": true });
        assert_eq!(unread(all), ["system", "raw"]);
        assert!(unread(json!({ "suffix": "y", "system": "", "raw": false })).is_empty());
        assert!(unread(json!({ "suffix": "", "system": "s", "raw": true })).is_empty());
    }

    #[test]
    fn an_empty_suffix_is_none() {
        let pictures = json!({ "prompt": "x", "images": ["iVBORw0KGgo="], "suffix": "" });
        let (prompt, _) = read(pictures).unwrap().unwrap();
        let Prompt::Chat(messages) = prompt else { panic!("no chat") };
        assert_eq!(messages[0].pictures.len(), 1);
        let gap = json!({ "prompt": "x", "images": ["iVBORw0KGgo="], "suffix": "y" });
        assert_eq!(read(gap).unwrap_err().param.as_deref(), Some("images"));
    }
}
