//! Gets a model of a registry that speaks the OCI distribution protocol, with what Ollama's kind of registry keeps
//! beside it: what is put before its conversations, and its terms.

use std::sync::Arc;

use reqwest::header::{ACCEPT, HeaderValue};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tieline_types::{Bytes, Digest, RegistryRef};

use super::error::MirrorError;
use super::http::{self, Question};
use super::job::{Fetched, Job};
use super::{download, now_unix_s};
use crate::overlay::Overlay;
use crate::registry::{self, Layer, MANIFEST, Manifest, OCI_MANIFEST, Part};

/// More layers are no model's.
const MOST_LAYERS: usize = 64;
/// More bytes beside the file are no prompt, template and terms.
const MOST_SAID: u64 = 1024 * 1024;
/// Who speaks in a conversation.
const ROLES: [&str; 4] = ["system", "user", "assistant", "tool"];

pub(crate) async fn fetch(
    job: &Job<'_>,
    place: &RegistryRef,
    source: &str,
) -> Result<Fetched, MirrorError> {
    let layers = manifest(job, place).await?.layers;
    let model = the_model(place, &layers)?;
    job.check_size(Some(model.size))?;
    if let Some(expected) = job.expected.filter(|expected| *expected != model.digest) {
        return Err(MirrorError::WrongDigest { expected, found: model.digest });
    }
    let said = said(job, place, &layers).await?;
    let fetched =
        Fetched { announced: Some(model.digest), said: Some(said), ..Fetched::from(source) };
    if job.layout.blob(model.digest).exists() {
        return Ok(Fetched { is_here: true, ..fetched });
    }
    // A tag may come to mean another file meanwhile: what came of the first is not gone on with.
    let origin = format!("{source}@{}", model.digest);
    // Nor is more taken than the manifest says.
    let size = Some(Bytes(model.size));
    let job = Job { size, ingest: Arc::clone(&job.ingest), ..*job };
    download::download(&job, &origin, &question(place, ("blobs", &model.digest))?).await?;
    Ok(fetched)
}

fn question(
    place: &RegistryRef,
    what: (&str, &dyn std::fmt::Display),
) -> Result<Question, MirrorError> {
    let nonsense = |problem| MirrorError::Nonsense { url: place.to_string(), problem };
    let url = registry::url(registry::scheme(place), place, what).map_err(nonsense)?;
    Ok(Question { url, headers: http::plain_headers(), token: None })
}

async fn manifest(job: &Job<'_>, place: &RegistryRef) -> Result<Manifest, MirrorError> {
    let mut question = question(place, ("manifests", &place.tag()))?;
    for kind in [MANIFEST, OCI_MANIFEST] {
        question.headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    let url = http::show(&question.url);
    let manifest: Result<Manifest, _> = serde_json::from_value(job.http.json(question).await?);
    manifest
        .map_err(|error| MirrorError::Nonsense { url, problem: format!("no manifest: {error}") })
}

/// The one file that is the model. What has adapters is another model than its file.
fn the_model<'l>(place: &RegistryRef, layers: &'l [Layer]) -> Result<&'l Layer, MirrorError> {
    let of = |part| layers.iter().filter(move |layer| layer.part() == Some(part));
    let mut models = of(Part::Model);
    let problem = match (models.next(), models.next()) {
        _ if layers.len() > MOST_LAYERS => "it has more layers than a model has",
        _ if said_bytes(layers) > MOST_SAID => "it says more than a model says",
        _ if of(Part::Adapter).next().is_some() => {
            "it has adapters, which are not taken in with a model"
        }
        (Some(model), None) => return Ok(model),
        (None, _) => "it has no model of one GGUF file",
        (Some(_), Some(_)) => "it has several files, which this version cannot join",
    };
    Err(MirrorError::Choice { repository: place.to_string(), problem: problem.to_owned() })
}

/// Bytes of the layers that are read beside the file.
fn said_bytes(layers: &[Layer]) -> u64 {
    let read = layers.iter().filter(|layer| is_said(layer)).map(|layer| layer.size);
    read.fold(0, u64::saturating_add)
}

/// Whether a layer is read. What this version does not know is left where it is.
fn is_said(layer: &Layer) -> bool {
    layer.part().is_some_and(|part| part != Part::Model)
}

/// What the registry keeps beside the file.
async fn said(
    job: &Job<'_>,
    place: &RegistryRef,
    layers: &[Layer],
) -> Result<Option<Overlay>, MirrorError> {
    let mut said = None;
    for layer in layers {
        let Some(part) = layer.part().filter(|part| *part != Part::Model) else { continue };
        let question = question(place, ("blobs", &layer.digest))?;
        let url = http::show(&question.url);
        let bytes = job.http.bytes(question).await?;
        let found = Digest(Sha256::digest(&bytes).into());
        let found_size = bytes.len() as u64;
        if found != layer.digest {
            return Err(MirrorError::WrongDigest { expected: layer.digest, found });
        }
        if found_size != layer.size {
            let problem = format!("it has {found_size} bytes, and should have {}", layer.size);
            return Err(MirrorError::Nonsense { url, problem });
        }
        let text = String::from_utf8(bytes).map_err(|_| "it is no text".to_owned());
        let kept = said.get_or_insert_with(nothing);
        text.and_then(|text| put(kept, part, text))
            .map_err(|problem| MirrorError::Nonsense { url, problem })?;
    }
    Ok(said)
}

/// Its name and its base are those that the model gets.
fn nothing() -> Overlay {
    Overlay {
        name: String::new(),
        base: String::new(),
        system: None,
        template: None,
        licence: None,
        parameters: "{}".to_owned(),
        messages: "[]".into(),
        changed_at_unix_s: now_unix_s(),
    }
}

fn put(said: &mut Overlay, part: Part, text: String) -> Result<(), String> {
    match part {
        Part::System => said.system = Some(text.into()),
        Part::Template => said.template = Some(text),
        Part::License => {
            let before = said.licence.take().map_or_else(String::new, |before| before + "\n\n");
            said.licence = Some(before + &text);
        }
        Part::Params => said.parameters = json(&text, Value::is_object)?,
        Part::Messages => said.messages = json(&text, is_conversation)?.into(),
        Part::Model | Part::Adapter => {}
    }
    Ok(())
}

fn json(text: &str, is_right: impl Fn(&Value) -> bool) -> Result<String, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if is_right(&value) { Ok(value.to_string()) } else { Err("it has another form".to_owned()) }
}

fn is_conversation(value: &Value) -> bool {
    let is_role = |role: &Value| role.as_str().is_some_and(|role| ROLES.contains(&role));
    let is_said = |one: &Value| is_role(&one["role"]) && one["content"].is_string();
    value.as_array().is_some_and(|all| all.iter().all(is_said))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(part: Part) -> Layer {
        Layer { media_type: part.media_type().to_owned(), digest: Digest([1; 32]), size: 1 }
    }

    #[track_caller]
    fn check(layers: &[Layer], want: Result<(), &str>) {
        let place = "localhost/x".parse().unwrap();
        match (the_model(&place, layers), want) {
            (Ok(found), Ok(())) => assert_eq!(found.part(), Some(Part::Model)),
            (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
            (found, want) => panic!("{found:?} instead of {want:?}"),
        }
    }

    #[test]
    fn one_file_is_the_model() {
        let (model, system) = (layer(Part::Model), layer(Part::System));
        check(&[system.clone(), model.clone()], Ok(()));
        check(std::slice::from_ref(&system), Err("no model"));
        check(&[model.clone(), model.clone()], Err("several files"));
        check(&[model.clone(), layer(Part::Adapter)], Err("adapters"));
        let many: Vec<Layer> = (0..64).map(|_| system.clone()).chain([model]).collect();
        check(&many, Err("more layers"));
        let long = |size| Layer { size, ..system.clone() };
        check(&[layer(Part::Model), long(MOST_SAID - 1), system.clone()], Ok(()));
        check(&[layer(Part::Model), long(MOST_SAID), system.clone()], Err("says more"));
        check(&[layer(Part::Model), long(u64::MAX), system.clone()], Err("says more"));
        // Somebody else's layers are not read, however long.
        let other = Layer { media_type: "application/x".to_owned(), ..long(u64::MAX) };
        check(&[layer(Part::Model), other], Ok(()));
    }

    #[test]
    fn what_is_said_has_its_form() {
        let refused = |part, text: &str| put(&mut nothing(), part, text.to_owned()).unwrap_err();
        assert_eq!(refused(Part::Params, "[]"), "it has another form");
        let said = |role: &str| format!("[{{\"role\":{role},\"content\":\"Hi\"}}]");
        for role in ["1", "\"function\""] {
            assert_eq!(refused(Part::Messages, &said(role)), "it has another form");
        }
        put(&mut nothing(), Part::Messages, said("\"tool\"")).unwrap();
        refused(Part::Params, "{");
        let mut said = nothing();
        put(&mut said, Part::License, "A".to_owned()).unwrap();
        put(&mut said, Part::License, "B".to_owned()).unwrap();
        assert_eq!(said.licence.as_deref(), Some("A\n\nB"));
    }
}
