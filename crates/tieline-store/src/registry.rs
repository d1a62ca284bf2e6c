//! What a registry of Ollama's kind keeps: a manifest for each tag, and the layers that it names by digest.

use std::fmt::Display;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use tieline_types::{Digest, RegistryRef};

/// The media type of a manifest as Docker defined it, which is what Ollama writes.
pub(crate) const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// The media type of a manifest as OCI defined it, which reads the same.
pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The media type of what says of which family a model is.
pub(crate) const CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// What a tag means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) config: Layer,
    pub(crate) layers: Vec<Layer>,
}

/// A file by its content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Layer {
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// How long it is, in bytes.
    pub(crate) size: u64,
}

/// What a layer is to a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Its file.
    Model,
    /// An adapter of its.
    Adapter,
    /// Instructions above its conversations.
    System,
    /// A template in Go's words.
    Template,
    /// How it chooses words: a JSON object.
    Params,
    /// What stands at the beginning of its conversations: a JSON list.
    Messages,
    /// Terms of use.
    License,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::Model,
        Self::Adapter,
        Self::System,
        Self::Template,
        Self::Params,
        Self::Messages,
        Self::License,
    ];

    pub(crate) fn media_type(self) -> &'static str {
        match self {
            Self::Model => "application/vnd.ollama.image.model",
            Self::Adapter => "application/vnd.ollama.image.adapter",
            Self::System => "application/vnd.ollama.image.system",
            Self::Template => "application/vnd.ollama.image.template",
            Self::Params => "application/vnd.ollama.image.params",
            Self::Messages => "application/vnd.ollama.image.messages",
            Self::License => "application/vnd.ollama.image.license",
        }
    }
}

impl Layer {
    /// `None` for what is nothing to us, such as a projector of pictures.
    pub(crate) fn part(&self) -> Option<Part> {
        Part::ALL.into_iter().find(|part| part.media_type() == self.media_type)
    }
}

/// Where something of this repository lies: `http://host/v2/me/pirate/manifests/v1`.
pub(crate) fn url(
    scheme: &str,
    place: &RegistryRef,
    (kind, which): (&str, &dyn Display),
) -> Result<Url, String> {
    let (host, repository) = (place.host(), place.repository());
    let text = format!("{scheme}://{host}/v2/{repository}/{kind}/{which}");
    Url::parse(&text).map_err(|error| format!("{host} is no host: {error}"))
}

/// The scheme that a registry is spoken to in, where nobody asked for another: no registry of this machine has a
/// certificate, and every other needs one.
pub(crate) fn scheme(place: &RegistryRef) -> &'static str {
    if place.is_loopback() { "http" } else { "https" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_known_by_its_media_type() {
        for part in Part::ALL {
            let media_type = part.media_type().to_owned();
            let layer = Layer { media_type, digest: Digest([1; 32]), size: 1 };
            assert_eq!(layer.part(), Some(part));
        }
        let media_type = "application/vnd.ollama.image.projector".to_owned();
        assert_eq!(Layer { media_type, digest: Digest([1; 32]), size: 1 }.part(), None);
    }

    #[test]
    fn urls_are_of_the_registry() {
        let check = |place: &str, want: &str| {
            let place: RegistryRef = place.parse().unwrap();
            let url = url(scheme(&place), &place, ("manifests", &place.tag())).unwrap();
            assert_eq!(url.as_str(), want);
        };
        check("localhost:5000/me/x:v1", "http://localhost:5000/v2/me/x/manifests/v1");
        check("reg.example/me/x", "https://reg.example/v2/me/x/manifests/latest");
        check("[::1]:80/x", "http://[::1]/v2/x/manifests/latest");
    }
}
