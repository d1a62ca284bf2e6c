//! What a registry is given of a model: its files, and the manifest that ties them together. Pure.

use std::path::PathBuf;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tieline_types::{Digest, ModelFile, Private};

use crate::model::Model;
use crate::overlay::Overlay;
use crate::registry::{CONFIG, Layer, MANIFEST, Manifest, Part};

/// One file of a model.
#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) digest: Digest,
    /// How long it is, in bytes.
    pub(super) size: u64,
    pub(super) source: Source,
    media_type: &'static str,
}

/// Where the bytes of a file are.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// In the store.
    File(PathBuf),
    /// Here: it may be a conversation.
    Text(Private),
}

/// All files of a model.
#[derive(Clone, Debug)]
pub(super) struct Content {
    config: Blob,
    /// What is put before the model.
    said: Vec<Blob>,
    file: Blob,
}

impl Content {
    /// The files of this model with what is put before it.
    pub(super) fn of(model: &Model, file: ModelFile, overlay: Option<&Overlay>) -> Self {
        let file = Blob {
            digest: model.digest,
            size: model.size.0,
            source: Source::File(file.path),
            media_type: Part::Model.media_type(),
        };
        let said = overlay.map(said).unwrap_or_default();
        let digests = std::iter::once(&file).chain(&said).map(|layer| layer.digest);
        let config = Blob::text(CONFIG, config(model, &digests.collect::<Vec<_>>()));
        Self { config, said, file }
    }

    /// The files in the order in which they are sent: the long one last, so that a registry that refuses does so at
    /// once.
    pub(super) fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.config).chain(&self.said).chain([&self.file])
    }

    /// What the registry reads as the model.
    pub(super) fn manifest(&self) -> String {
        let layers = std::iter::once(&self.file).chain(&self.said).map(Blob::layer).collect();
        let (media_type, config) = (MANIFEST.to_owned(), self.config.layer());
        json!(Manifest { schema_version: 2, media_type, config, layers }).to_string()
    }
}

impl Blob {
    fn text(media_type: &'static str, text: impl Into<Private>) -> Self {
        let text = text.into();
        let bytes = text.expose().as_bytes();
        let (digest, size) = (Digest(Sha256::digest(bytes).into()), bytes.len() as u64);
        Self { digest, size, source: Source::Text(text), media_type }
    }

    fn layer(&self) -> Layer {
        let media_type = self.media_type.to_owned();
        Layer { media_type, digest: self.digest, size: self.size }
    }
}

/// What is put before a model, each where Ollama looks for it.
fn said(overlay: &Overlay) -> Vec<Blob> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let system = overlay.system.as_ref().map_or("", Private::expose);
    let all = [
        (Part::Template, text(&overlay.template)),
        (Part::System, system.to_owned()),
        (Part::Params, overlay.parameters.clone()),
        (Part::Messages, overlay.messages.expose().to_owned()),
        (Part::License, text(&overlay.licence)),
    ];
    let is_said = |text: &str| !matches!(text, "" | "{}" | "[]");
    let said = all.into_iter().filter(|(_, text)| is_said(text));
    said.map(|(part, text)| Blob::text(part.media_type(), text)).collect()
}

/// Of which family the model is, in the words of Ollama.
fn config(model: &Model, layers: &[Digest]) -> String {
    let family = model.architecture.as_deref().unwrap_or_default();
    json!({
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": model.parameters.map(size_word).unwrap_or_default(),
        "file_type": model.quantisation.as_deref().unwrap_or_default(),
        "architecture": "amd64",
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": layers },
    })
    .to_string()
}

/// A count of weights as people write it: `134.5M`.
fn size_word(parameters: u64) -> String {
    let (unit, word) = match parameters {
        0..1_000_000 => (1_000, "K"),
        1_000_000..1_000_000_000 => (1_000_000, "M"),
        _ => (1_000_000_000, "B"),
    };
    let tenths = parameters.saturating_mul(10) / unit;
    format!("{}.{}{word}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use tieline_types::Bytes;

    use super::*;
    use crate::model::Trust;

    fn model() -> Model {
        Model {
            name: "m".to_owned(),
            digest: Digest([7; 32]),
            size: Bytes(9),
            source: "file:/x".to_owned(),
            reference: "file:/x".to_owned(),
            licence: None,
            trust: Trust::FirstSeen,
            pulled_at_unix_s: 0,
            architecture: Some("llama".to_owned()),
            quantisation: Some("Q4_K_M".to_owned()),
            parameters: Some(134_515_008),
            context_length: None,
            template_digest: None,
            is_adapter: false,
            missing: false,
        }
    }

    fn content(overlay: Option<&Overlay>) -> (Content, Manifest) {
        let file = ModelFile { digest: Digest([7; 32]), path: "/x".into() };
        let content = Content::of(&model(), file, overlay);
        let manifest = serde_json::from_str(&content.manifest()).unwrap();
        (content, manifest)
    }

    #[test]
    fn a_plain_model_is_its_file() {
        let (content, manifest) = content(None);
        assert_eq!((manifest.schema_version, manifest.media_type.as_str()), (2, MANIFEST));
        assert_eq!(manifest.config.media_type, CONFIG);
        assert_eq!(manifest.layers.len(), 1);
        assert_eq!((manifest.layers[0].digest, manifest.layers[0].size), (Digest([7; 32]), 9));
        let Source::Text(config) = &content.config.source else { panic!("no text") };
        let config: serde_json::Value = serde_json::from_str(config.expose()).unwrap();
        assert_eq!(
            (&config["model_family"], &config["file_type"]),
            (&json!("llama"), &json!("Q4_K_M"))
        );
        assert_eq!(config["model_type"], "134.5M");
    }

    #[test]
    fn what_is_said_goes_along_and_the_file_is_sent_last() {
        let overlay = Overlay {
            name: "pirate".to_owned(),
            base: "m".to_owned(),
            system: Some("Arr.".into()),
            template: None,
            licence: Some("MIT".to_owned()),
            parameters: r#"{"seed":1}"#.to_owned(),
            messages: "[]".into(),
            changed_at_unix_s: 0,
        };
        let (content, manifest) = content(Some(&overlay));
        let parts: Vec<_> = manifest.layers.iter().map(|layer| layer.part().unwrap()).collect();
        assert_eq!(parts, [Part::Model, Part::System, Part::Params, Part::License]);
        assert!(matches!(content.blobs().last().unwrap().source, Source::File(_)));
        assert!(!format!("{content:?}").contains("Arr."));
    }

    #[test]
    fn counts_are_written_as_people_do() {
        for (count, want) in [(0, "0.0K"), (999_999, "999.9K"), (8_030_261_248, "8.0B")] {
            assert_eq!(size_word(count), want);
        }
    }
}
