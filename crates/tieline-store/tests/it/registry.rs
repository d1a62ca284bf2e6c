//! A registry that speaks the OCI distribution protocol, in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::server::{Asked, Reply, Server};
use crate::world::digest;

/// What a registry keeps.
#[derive(Default)]
struct Kept {
    blobs: BTreeMap<String, Vec<u8>>,
    /// By the path of the repository and the tag.
    manifests: BTreeMap<(String, String), Vec<u8>>,
}

/// Runs until dropped.
pub(crate) struct Registry {
    pub(crate) server: Server,
    kept: Arc<Mutex<Kept>>,
}

impl Registry {
    pub(crate) fn start() -> Self {
        Self::with(|_| None)
    }

    /// One that answers some requests by itself.
    pub(crate) fn with(first: impl Fn(&Asked) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let own = Arc::clone(&kept);
        let server = Server::start(move |asked| {
            first(asked).unwrap_or_else(|| answer(&mut own.lock().unwrap(), asked))
        });
        Self { server, kept }
    }

    /// Where a model of this name is.
    pub(crate) fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.server.url("").trim_start_matches("http://"))
    }

    /// The manifest of a tag.
    pub(crate) fn manifest(&self, repository: &str, tag: &str) -> Option<Value> {
        let kept = self.kept.lock().unwrap();
        let text = kept.manifests.get(&(repository.to_owned(), tag.to_owned()))?;
        Some(serde_json::from_slice(text).unwrap())
    }

    /// A file, by its digest.
    pub(crate) fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        self.kept.lock().unwrap().blobs.get(digest).cloned()
    }

    /// Puts a file there; gives its layer of a manifest.
    pub(crate) fn keep(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest(bytes).to_string();
        self.kept.lock().unwrap().blobs.insert(digest.clone(), bytes.to_owned());
        serde_json::json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Gives a tag a meaning.
    pub(crate) fn tag(&self, repository: &str, tag: &str, layers: &[Value]) {
        let config = self.keep("application/vnd.docker.container.image.v1+json", b"{}");
        let manifest =
            serde_json::json!({ "schemaVersion": 2, "config": config, "layers": layers });
        let key = (repository.to_owned(), tag.to_owned());
        self.kept.lock().unwrap().manifests.insert(key, manifest.to_string().into());
    }

    /// The methods and paths that were asked for.
    pub(crate) fn asked(&self) -> Vec<(String, String)> {
        self.server.asked().into_iter().map(|asked| (asked.method, asked.path)).collect()
    }
}

fn answer(kept: &mut Kept, asked: &Asked) -> Reply {
    let path = asked.path.strip_prefix("/v2/").unwrap();
    if let Some((repository, tag)) = path.split_once("/manifests/") {
        return manifest(kept, (repository, tag), asked);
    }
    let (repository, rest) = path.split_once("/blobs/").unwrap();
    match (asked.method.as_str(), rest) {
        ("POST", "uploads/") => {
            let to = format!("/v2/{repository}/blobs/uploads/1?state=a%2Bb");
            Reply::new(202, "").header("location", to)
        }
        ("PUT", rest) => upload(kept, rest, &asked.body),
        (method, digest) => match kept.blobs.get(digest) {
            None => error(404, "blob unknown to registry"),
            // Nothing follows a head.
            Some(_) if method == "HEAD" => Reply::new(200, ""),
            Some(bytes) => Reply::new(200, bytes.clone()),
        },
    }
}

fn upload(kept: &mut Kept, rest: &str, body: &[u8]) -> Reply {
    let wanted = rest.strip_prefix("uploads/1?state=a%2Bb&digest=sha256%3A").unwrap();
    let found = digest(body);
    if found.hex() != wanted {
        return error(400, "provided digest did not match uploaded content");
    }
    kept.blobs.insert(found.to_string(), body.to_owned());
    Reply::new(201, "")
}

fn manifest(kept: &mut Kept, (repository, tag): (&str, &str), asked: &Asked) -> Reply {
    let key = (repository.to_owned(), tag.to_owned());
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    if asked.method == "GET" {
        return match kept.manifests.get(&key) {
            Some(text) => Reply::new(200, text.clone()).header("content-type", media_type),
            None => error(404, "manifest unknown"),
        };
    }
    assert_eq!(asked.headers["content-type"], media_type);
    let value: Value = serde_json::from_slice(&asked.body).unwrap();
    let layers = value["layers"].as_array().unwrap().iter();
    for layer in layers.chain([&value["config"]]) {
        let blob = kept.blobs.get(layer["digest"].as_str().unwrap());
        if blob.is_none_or(|blob| layer["size"] != blob.len()) {
            return error(400, "blob unknown to registry");
        }
    }
    kept.manifests.insert(key, asked.body.clone());
    Reply::new(201, "")
}

pub(crate) fn error(status: u16, message: &str) -> Reply {
    let error = serde_json::json!({ "errors": [{ "code": "X", "message": message }] });
    Reply::new(status, error.to_string())
}
