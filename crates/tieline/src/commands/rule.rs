//! From the flags to the rule that an answer's text must keep to.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use tieline_types::Constraint;

use crate::args::Answer;
use crate::failure::Failure;

/// The rule that the user gave; flags exclude each other.
///
/// # Errors
/// A file cannot be read or is too long, or a schema is no JSON.
pub(super) fn constraint(args: &Answer) -> Result<Option<Constraint>, Failure> {
    let rule = if let Some(schema) = &args.json_schema {
        Some(Constraint::JsonSchema(schema_text(schema)?))
    } else if let Some(regex) = &args.regex {
        Some(Constraint::Regex(regex.clone()))
    } else if let Some(path) = &args.grammar {
        let text = read(path, "grammar")?;
        let is_gbnf = path.extension().is_some_and(|end| end.eq_ignore_ascii_case("gbnf"));
        Some(if is_gbnf { Constraint::Gbnf(text) } else { Constraint::Lark(text) })
    } else {
        None
    };
    match rule {
        Some(rule) if rule.source().trim().is_empty() => {
            Err(Failure::user(format!("the {} is empty", rule.as_str())))
        }
        rule => Ok(rule),
    }
}

/// A schema is an object; anything else names a file.
fn schema_text(given: &str) -> Result<String, Failure> {
    let inline = given.trim_start().starts_with('{');
    let text = if inline { given.to_owned() } else { read(Path::new(given), "JSON schema")? };
    let from = if inline { String::new() } else { format!(" in {given}") };
    match serde_json::from_str::<serde_json::Value>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::user(format!("the JSON schema{from} is no JSON: {error}"))),
    }
}

fn read(path: &Path, what: &str) -> Result<String, Failure> {
    let unreadable = |why: String| {
        let failure =
            Failure::user(format!("cannot read the {what} from {}: {why}", path.display()));
        match what {
            "JSON schema" => failure.with_hint("a schema on the command line begins with {"),
            _ => failure,
        }
    };
    let file = File::open(path).map_err(|error| unreadable(error.to_string()))?;
    let mut text = String::new();
    // One more than allowed, so that a request's own check refuses what is too long.
    let most = Constraint::MAX_BYTES as u64 + 1;
    file.take(most).read_to_string(&mut text).map_err(|error| unreadable(error.to_string()))?;
    if text.len() > Constraint::MAX_BYTES {
        return Err(unreadable(format!("it is longer than {} bytes", Constraint::MAX_BYTES)));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        Answer {
            json_schema: None,
            regex: None,
            grammar: None,
            think: false,
            no_think: false,
            effort: None,
            overflow: crate::args::Overflow::Error,
            speculation: crate::args::Speculation::Auto,
            draft: None,
        }
    }

    #[test]
    fn each_flag_gives_its_rule() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(constraint(&answer()).unwrap(), None);
        let schema = r#"{"type":"object"}"#;
        let want = Some(Constraint::JsonSchema(schema.to_owned()));
        let given = |text: String| constraint(&Answer { json_schema: Some(text), ..answer() });
        assert_eq!(given(schema.to_owned()).unwrap(), want);
        assert_eq!(given(file("a.json", schema).display().to_string()).unwrap(), want);
        let regex = constraint(&Answer { regex: Some("[0-9]+".to_owned()), ..answer() });
        assert_eq!(regex.unwrap(), Some(Constraint::Regex("[0-9]+".to_owned())));
        let grammar = |path| constraint(&Answer { grammar: Some(path), ..answer() }).unwrap();
        let gbnf = grammar(file("a.GBNF", "root ::= \"a\""));
        assert_eq!(gbnf, Some(Constraint::Gbnf("root ::= \"a\"".to_owned())));
        let lark = grammar(file("a.lark", "start: \"a\""));
        assert_eq!(lark, Some(Constraint::Lark("start: \"a\"".to_owned())));
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.lark");
        std::fs::write(&path, "a".repeat(Constraint::MAX_BYTES + 1)).unwrap();
        let failure = constraint(&Answer { grammar: Some(path), ..answer() }).unwrap_err();
        assert!(failure.message.ends_with("it is longer than 65536 bytes"), "{}", failure.message);
    }
}
