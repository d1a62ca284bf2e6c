//! The prompts that a canary replays.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tieline_lab::CanaryPrompt;
use tieline_types::Digest;

use crate::failure::Failure;

/// Written for this purpose: prose, facts, lists, code, JSON, other languages, and long ones.
const BUILT_IN: &str = include_str!("prompts.jsonl");
/// The longest file read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most prompts in one.
const MOST: usize = 500;

/// What the built-in prompts are called where a file is named otherwise.
const BUILT_IN_NAME: &str = "built-in";

/// Prompts, and where they are from.
pub(super) struct Prompts {
    pub(super) all: Vec<CanaryPrompt>,
    /// The file's path, or `built-in`.
    pub(super) source: String,
    /// SHA-256 of its bytes.
    pub(super) digest: Digest,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: String,
    name: Option<String>,
    #[serde(default = "yes")]
    chat: bool,
}

fn yes() -> bool {
    true
}

/// The prompts in the user's file, or the built-in ones.
pub(super) fn prompts(path: Option<&Path>) -> Result<Prompts, Failure> {
    let Some(path) = path else {
        let all =
            parse(BUILT_IN).map_err(|why| Failure::ours(format!("the built-in prompts: {why}")))?;
        return Ok(Prompts { all, source: BUILT_IN_NAME.to_owned(), digest: hash(BUILT_IN) });
    };
    let found = read(path).and_then(|text| Ok((parse(&text)?, hash(&text))));
    let (all, digest) = found.map_err(|why| {
        Failure::user(format!("cannot read prompts from {}: {why}", path.display()))
            .with_hint(r#"each line is like {"name": "sums", "text": "What is 17 + 4?"}"#)
    })?;
    // Whoever asks again may stand in another folder.
    let source = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    Ok(Prompts { all, source: source.display().to_string(), digest })
}

/// What prompts of this source hash to now; `None` where they cannot be read.
pub(super) fn digest_of(source: &str) -> Option<Digest> {
    if source == BUILT_IN_NAME {
        return Some(hash(BUILT_IN));
    }
    read(Path::new(source)).ok().map(|text| hash(&text))
}

fn hash(text: &str) -> Digest {
    Digest(Sha256::digest(text).into())
}

fn read(path: &Path) -> Result<String, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| error.to_string())?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    Ok(text)
}

fn parse(text: &str) -> Result<Vec<CanaryPrompt>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let prompts = lines.map(|(at, line)| {
        let Line { text, name, chat } =
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))?;
        if text.trim().is_empty() {
            return Err(format!("line {}: its text is empty", at + 1));
        }
        Ok(CanaryPrompt { name: name.unwrap_or_else(|| format!("line {}", at + 1)), text, chat })
    });
    let prompts: Vec<CanaryPrompt> = prompts.collect::<Result<_, String>>()?;
    match prompts.len() {
        0 => Err("there are none in it".to_owned()),
        count if count > MOST => Err(format!("{count} are more than {MOST}")),
        _ => Ok(prompts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_prompts_vary() {
        let prompts = prompts(None).unwrap().all;
        assert_eq!(prompts.len(), 12);
        assert!(prompts.iter().any(|prompt| !prompt.chat) && prompts.iter().any(|p| p.chat));
        let mut names: Vec<&str> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 12);
        assert!(prompts.iter().filter(|prompt| prompt.text.len() > 1500).count() >= 2);
    }

    #[test]
    fn prompts_are_known_again_by_their_bytes() {
        let built_in = prompts(None).unwrap();
        assert_eq!(digest_of(&built_in.source), Some(built_in.digest));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.jsonl");
        std::fs::write(&path, "{\"text\": \"a\"}").unwrap();
        let own = prompts(Some(&path)).unwrap();
        assert_eq!(digest_of(&own.source), Some(own.digest));
        std::fs::write(&path, "{\"text\": \"b\"}").unwrap();
        assert!(digest_of(&own.source).is_some_and(|digest| digest != own.digest));
        std::fs::remove_file(&path).unwrap();
        assert_eq!(digest_of(&own.source), None);
    }

    #[test]
    fn a_line_that_is_no_prompt_is_named() {
        let check = |text: &str, want: &str| {
            let why = parse(text).unwrap_err();
            assert!(why.contains(want), "{why}");
        };
        check("", "there are none");
        check("{\"text\": \"a\"}\n\n{\"text\": 1}", "line 3");
        check("{\"text\": \" \"}", "line 1: its text is empty");
        check("{\"text\": \"a\", \"chta\": false}", "chta");
        check(&"{\"text\": \"a\"}\n".repeat(501), "501 are more than 500");
        let found = parse("{\"text\": \"a\", \"chat\": false}").unwrap();
        assert_eq!((found[0].name.as_str(), found[0].chat), ("line 1", false));
    }
}
