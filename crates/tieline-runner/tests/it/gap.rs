//! A gap in a text, with a model that has tokens for it: the small model's file, and three of its control
//! tokens named so. What it answers is of no use; what it reads is told by the receipt.

use std::io::Write;

use tieline_types::wire::{FailureKind, Reply, Work};
use tieline_types::{LoadParams, Overflow, Prompt, Request, Sampling, Tokens};

use crate::peer::{Peer, long_text};

/// Control tokens of the small model that its template does not use.
const MARKS: [u32; 3] = [3, 4, 5];

/// The small model with these keys more in its header.
fn model() -> tempfile::NamedTempFile {
    let source = std::fs::read(testkit::smollm2()).unwrap();
    let mut keys = Vec::new();
    let name = |keys: &mut Vec<u8>, name: &str| {
        keys.extend(u64::try_from(name.len()).unwrap().to_le_bytes());
        keys.extend(name.as_bytes());
    };
    for (part, token) in ["pre", "suf", "mid"].into_iter().zip(MARKS) {
        name(&mut keys, &format!("tokenizer.ggml.fim_{part}_token_id"));
        // Type 4 is u32, type 8 text.
        keys.extend(4_u32.to_le_bytes());
        keys.extend(token.to_le_bytes());
    }
    name(&mut keys, "test.filling");
    keys.extend(8_u32.to_le_bytes());
    // What follows the header must stay aligned to 32 bytes.
    let filling = 32 - (keys.len() + 8) % 32;
    name(&mut keys, &"x".repeat(filling));
    let count = u64::from_le_bytes(source[16..24].try_into().unwrap()) + 4;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for part in [&source[..16], &count.to_le_bytes(), &keys, &source[24..]] {
        file.write_all(part).unwrap();
    }
    file
}

fn request(prefix: &str, suffix: &str) -> Request {
    let prompt = Prompt::Infill { prefix: prefix.into(), suffix: suffix.into() };
    Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(4)),
        ignore_eog: true,
        deterministic: true,
        ..Request::new(prompt)
    }
}

fn tokens(peer: &mut Peer, text: &str) -> Vec<u32> {
    let work = Work::Tokenize { text: text.into(), add_special: false, parse_special: false };
    let Reply::Tokens(tokens) = peer.ask(work) else { panic!("no tokens") };
    tokens
}

fn read(peer: &mut Peer, request: Request) -> Vec<u32> {
    peer.generate(request).finished.receipt.unwrap().prompt
}

#[test]
fn a_model_with_such_tokens_fills_a_gap() {
    let file = model();
    let mut peer = Peer::start(file.path());
    peer.load(LoadParams { context: Some(Tokens(256)), ..LoadParams::default() }).unwrap();
    // The texts' own marks are text: nobody forges the gap's end.
    let (prefix, suffix) = ("fn add(a: i32) {\n    <|im_end|>", "\n}\n");
    let (before, after) = (tokens(&mut peer, prefix), tokens(&mut peer, suffix));
    let want = [&MARKS[..1], &before, &MARKS[1..2], &after, &MARKS[2..]].concat();
    assert_eq!(read(&mut peer, request(prefix, suffix)), want);
    assert_eq!(read(&mut peer, request("", "")), MARKS);
    let answer = peer.generate(request(prefix, suffix));
    answer.is_whole(4);
    assert_eq!(answer.started.unwrap().dropped_tokens, Tokens(0));
}

#[test]
fn what_is_farthest_from_a_gap_goes() {
    let file = model();
    let mut peer = Peer::start(file.path());
    peer.load(LoadParams { context: Some(Tokens(256)), ..LoadParams::default() }).unwrap();
    let text = long_text(300).into_inner();
    let failure = peer.failure(Work::Generate(Box::new(request(&text, &text))));
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    let answer = peer.generate(Request { overflow: Overflow::DropOldest, ..request(&text, &text) });
    // 4 of 256 for the answer and 3 marks: a quarter of 249 for what stands after.
    assert_eq!(answer.usage().prompt_tokens, Tokens(252));
    assert_eq!(answer.started.unwrap().dropped_tokens, Tokens(600 - 249));
    let prompt = answer.finished.receipt.unwrap().prompt;
    assert_eq!(prompt.iter().position(|&token| token == MARKS[1]), Some(1 + 249 - 62));
    assert_eq!((prompt[0], prompt[251]), (MARKS[0], MARKS[2]));
}
