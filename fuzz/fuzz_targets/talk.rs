//! No text makes an answer's parser panic, and how it is cut changes nothing.
//!
//! The first byte chooses the format, the second the length of the pieces.
//! Run with `cargo +nightly fuzz run talk`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tieline_decode::talk::{Format, Said, Talk};
use tieline_types::{Tool, ToolCallStep, ToolChoice};

const FORMATS: [Format; 10] = [
    Format::Hermes,
    Format::QwenCoder,
    Format::Llama3,
    Format::Mistral,
    Format::Gemma,
    Format::DeepSeek,
    Format::Granite,
    Format::Harmony,
    Format::Generic,
    Format::Plain,
];

#[derive(Default, PartialEq)]
struct Heard {
    text: String,
    reasoning: String,
    calls: String,
    warnings: usize,
}

fn hear(format: Format, pieces: &[&str]) -> Heard {
    let tools = ["f", "weather"].map(|name| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: r#"{"properties":{"a":{"type":"integer"}}}"#.to_owned(),
    });
    let mut talk = Talk::new(format, &tools, &ToolChoice::Auto, false, "x");
    let mut said: Vec<Said> = pieces.iter().flat_map(|piece| talk.push(piece)).collect();
    said.extend(talk.finish());
    let mut heard = Heard::default();
    let mut arguments = String::new();
    for said in said {
        match said {
            Said::Text(text) => heard.text.push_str(&text),
            Said::Reasoning(text) => heard.reasoning.push_str(&text),
            Said::Call(ToolCallStep::Begin { id, .. }) => {
                heard.calls.push_str(&id);
                arguments.clear();
            }
            Said::Call(ToolCallStep::Arguments { text, .. }) => {
                heard.calls.push_str(text.expose());
                arguments.push_str(text.expose());
            }
            Said::Call(ToolCallStep::End { .. }) => {
                assert!(arguments.starts_with('{') && arguments.ends_with('}'));
            }
            Said::Warning(_) => heard.warnings += 1,
            _ => {}
        }
    }
    heard
}

fuzz_target!(|bytes: &[u8]| {
    let [format, length, text @ ..] = bytes else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = FORMATS[usize::from(*format) % FORMATS.len()];
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.char_indices().map(|(at, _)| at).nth(usize::from(*length).max(1));
        let (piece, after) = rest.split_at(end.unwrap_or(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    let whole = hear(format, &[text]);
    assert!(whole == hear(format, &pieces));
    if format == Format::Plain {
        assert!(whole.text == text);
    }
});
