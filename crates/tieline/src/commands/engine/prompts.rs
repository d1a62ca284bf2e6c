//! The prompts that a canary replays.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use tieline_lab::CanaryPrompt;

use crate::failure::Failure;

/// Written for this purpose: prose, facts, lists, code, JSON, other languages, and long ones.
const BUILT_IN: &str = include_str!("prompts.jsonl");
/// The longest file read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// The most prompts in one.
const MOST: usize = 500;

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
pub(super) fn prompts(path: Option<&Path>) -> Result<Vec<CanaryPrompt>, Failure> {
    let Some(path) = path else {
        return parse(BUILT_IN)
            .map_err(|why| Failure::ours(format!("the built-in prompts: {why}")));
    };
    read(path).and_then(|text| parse(&text)).map_err(|why| {
        Failure::user(format!("cannot read prompts from {}: {why}", path.display()))
            .with_hint(r#"each line is like {"name": "sums", "text": "What is 17 + 4?"}"#)
    })
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
        let prompts = prompts(None).unwrap();
        assert_eq!(prompts.len(), 12);
        assert!(prompts.iter().any(|prompt| !prompt.chat) && prompts.iter().any(|p| p.chat));
        let mut names: Vec<&str> = prompts.iter().map(|prompt| prompt.name.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 12);
        assert!(prompts.iter().filter(|prompt| prompt.text.len() > 1500).count() >= 2);
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
