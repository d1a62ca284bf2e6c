//! A model in the store.

use tieline_types::{Bytes, Digest, Tokens};

use crate::gguf::Gguf;

/// A model that was pulled, under one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// Its name here.
    pub name: String,
    /// What its file holds.
    pub digest: Digest,
    /// How long its file is.
    pub size: Bytes,
    /// Where the bytes came from, as it may be shown: of a URL without what may be a signature or a password.
    pub source: String,
    /// What the user asked for, as it may be shown.
    pub reference: String,
    /// The terms of use: the catalogue's, or else those that the file claims.
    pub licence: Option<String>,
    /// Why its bytes are believed.
    pub trust: Trust,
    /// When it was pulled, in seconds since 1970.
    pub pulled_at_unix_s: i64,
    /// The architecture, such as `llama`.
    pub architecture: Option<String>,
    /// The quantisation, such as `Q4_K_M`.
    pub quantisation: Option<String>,
    /// How many weights it has.
    pub parameters: Option<u64>,
    /// The longest context that it was trained for.
    pub context_length: Option<Tokens>,
    /// The SHA-256 of its chat template.
    pub template_digest: Option<Digest>,
    /// It is no model but an adapter, which changes one: it cannot be run alone.
    pub is_adapter: bool,
    /// Its file is gone from the disk.
    pub missing: bool,
}

impl Model {
    /// Whether a client sent its file: there is no place to get it from again.
    pub fn is_upload(&self) -> bool {
        self.source == UPLOAD
    }
}

/// The source of models whose files clients sent.
pub(crate) const UPLOAD: &str = "upload";

/// Why a model's bytes are believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The digest was known before the pull: from the catalogue or from the user.
    Pinned,
    /// The first pull's digest is remembered.
    FirstSeen,
    /// A client sent it: it is what that client said, whatever that is.
    Uploaded,
    /// The file no longer has its digest: it is not used.
    Mismatch,
}

/// What the header says, kept so that a list opens no model.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) architecture: Option<String>,
    pub(crate) quantisation: Option<String>,
    pub(crate) parameters: u64,
    pub(crate) context_length: Option<Tokens>,
    pub(crate) template_digest: Option<Digest>,
    pub(crate) licence: Option<String>,
    pub(crate) is_adapter: bool,
}

impl From<&Gguf> for Facts {
    fn from(gguf: &Gguf) -> Self {
        Self {
            architecture: gguf.architecture().map(clean),
            quantisation: gguf.quantisation().map(str::to_owned),
            parameters: gguf.parameter_count(),
            context_length: gguf.context_length(),
            template_digest: gguf.chat_template_digest(),
            licence: gguf.licence().map(clean),
            is_adapter: gguf.is_adapter(),
        }
    }
}

/// A reference as it may be shown: what follows the `?` of a URL may be a signature, what stands before its `@` a
/// password.
pub(crate) fn shown(reference: &str) -> String {
    let is_web = |scheme: &str| matches!(scheme, "http" | "https");
    match reference.split_once("://").filter(|(scheme, _)| is_web(scheme)) {
        None => reference.to_owned(),
        Some((scheme, rest)) => {
            let rest = rest.split(['?', '#']).next().unwrap_or_default();
            let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = place.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
    }
}

/// Text of a file that will be shown on a terminal: short, and without control characters.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_url_holds_no_secret() {
        let check = |text: &str, want: &str| assert_eq!(shown(text), want);
        check("https://a.example/m.gguf?sig=1/2#x", "https://a.example/m.gguf");
        check("https://me:pw@a.example:99/d@1/m.gguf", "https://a.example:99/d@1/m.gguf");
        check("http://localhost?sig=1", "http://localhost");
        check("file:/a?b/https://c?d", "file:/a?b/https://c?d");
        check("hf:o/r@main:m.gguf", "hf:o/r@main:m.gguf");
        check("pypi:a==1:x.part0 + pypi:b==1:x.part1", "pypi:a==1:x.part0 + pypi:b==1:x.part1");
    }
}
