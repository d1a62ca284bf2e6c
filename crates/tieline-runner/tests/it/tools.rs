//! Calls that a model makes of its own accord.

use std::io::Write as _;

use tempfile::NamedTempFile;
use tieline_types::wire::{Reply, Work};
use tieline_types::{Event, LoadParams, Request, Sampling, Tokens, Tool, ToolCallStep, ToolChoice};

use crate::peer::{Peer, question};

/// SmolLM2 as if it had learned to call tools as Hermes models do: a token of its vocabulary and words of its template are
/// replaced by others as long.
fn hermes() -> NamedTempFile {
    let mut model = std::fs::read(testkit::smollm2()).unwrap();
    for (old, new) in [
        ("<repo_name>", "<tool_call>"),
        ("named SmolLM, trained by Hugging Face", "which writes <tool_call> where it asks"),
    ] {
        let new = &new.as_bytes()[..old.len()];
        let at = model.windows(old.len()).position(|window| window == old.as_bytes()).unwrap();
        model[at..at + old.len()].copy_from_slice(new);
    }
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&model).unwrap();
    file
}

/// Asks with a tool, and with the wish to call; the arguments of each call, and the text.
fn asked(peer: &mut Peer, parameters: &str) -> (Vec<String>, String) {
    let text = "<tool_call>".into();
    let work = Work::Tokenize { text, add_special: false, parse_special: true };
    let Reply::Tokens(tokens) = peer.ask(work) else { panic!("no tokens") };
    let [call] = tokens[..] else { panic!("more than one token: {tokens:?}") };
    let name = "look".to_owned();
    let tool = Tool { name, description: String::new(), parameters: parameters.to_owned() };
    let request = Request {
        tools: vec![tool],
        tool_choice: ToolChoice::Auto,
        max_tokens: Some(Tokens(160)),
        sampling: Sampling { logit_bias: vec![(call, 30.0)], ..Sampling::greedy() },
        ..question("Look.")
    };
    let id = peer.order(Work::Generate(Box::new(request)));
    let (mut calls, mut said) = (Vec::new(), String::new());
    loop {
        match peer.reply(id) {
            Reply::Event(Event::ToolCall(ToolCallStep::Begin { .. })) => calls.push(String::new()),
            Reply::Event(Event::ToolCall(ToolCallStep::Arguments { text, .. })) => {
                calls.last_mut().unwrap().push_str(text.expose());
            }
            Reply::Event(Event::Piece(piece)) => said += piece.text.expose(),
            Reply::Event(Event::Finished(_)) => return (calls, said),
            Reply::Event(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn a_call_of_the_models_own_accord_keeps_to_its_tools_schema() {
    let model = hermes();
    let mut peer = Peer::start(model.path());
    let context = Some(Tokens(512));
    peer.load(LoadParams { context, threads: Some(1), ..LoadParams::default() }).unwrap();
    let schema = r#"{"type":"object","properties":{"where":{"enum":["over there"]}},"required":["where"],"additionalProperties":false}"#;
    let (calls, _) = asked(&mut peer, schema);
    // The wish does not end, so another call follows each, up to where the answer is cut.
    let (last, whole) = calls.split_last().unwrap();
    assert!(whole.len() > 1, "{calls:?}");
    for call in whole {
        let call: serde_json::Value = serde_json::from_str(call).unwrap();
        assert_eq!(call, serde_json::json!({ "where": "over there" }));
    }
    assert!(r#"{"where": "over there"}"#.starts_with(last.as_str()), "{last}");
    // A schema that no rule can be made of is the model's own affair.
    let (calls, said) = asked(&mut peer, r#"{"$ref":"http://elsewhere"}"#);
    assert!(calls.iter().all(|call| !call.contains("over there")), "{calls:?} {said}");
}
