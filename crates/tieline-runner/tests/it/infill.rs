//! A gap to fill in.

use testkit::Shape;
use tieline_types::wire::{FailureKind, Reply, Work};
use tieline_types::{Overflow, Prompt, Request, Tokens};

use crate::peer::Peer;
use crate::shapes::{NEAR, distance, shaped, told};

fn gap(prefix: &str, suffix: &str) -> Request {
    let prompt = Prompt::Infill { prefix: prefix.into(), suffix: suffix.into() };
    Request { prompt, ..told(Vec::new(), 8) }
}

/// The tokens of a text, with special tokens read as such if `special`.
fn tokens_of(peer: &mut Peer, text: &str, special: bool) -> Vec<u32> {
    let work = Work::Tokenize { text: text.into(), add_special: false, parse_special: special };
    match peer.ask(work) {
        Reply::Tokens(tokens) => tokens,
        other => panic!("no tokens: {other:?}"),
    }
}

#[test]
fn a_gap_is_asked_for_in_the_models_own_tokens() {
    let mut peer = shaped(Shape::Infill);
    let mut prompt = tokens_of(&mut peer, "<s><|fim_prefix|>", true);
    prompt.extend(tokens_of(&mut peer, "kalo ba", false));
    prompt.extend(tokens_of(&mut peer, "<|fim_suffix|>", true));
    prompt.extend(tokens_of(&mut peer, " mitu", false));
    prompt.extend(tokens_of(&mut peer, "<|fim_middle|>", true));
    let answer = peer.generate(gap("kalo ba", " mitu"));
    answer.is_whole(8);
    assert_eq!(answer.usage().prompt_tokens, Tokens(u32::try_from(prompt.len()).unwrap()));
    let same = peer.generate(told(prompt, 8));
    assert!(distance(&answer, &same) < NEAR);
}

#[test]
fn what_stands_after_the_gap_matters_and_either_side_may_be_empty() {
    let mut peer = shaped(Shape::Infill);
    let answer = peer.generate(gap("kalo ba", " mitu"));
    let other = peer.generate(gap("kalo ba", " rosa"));
    assert!(distance(&answer, &other) > NEAR);
    for (prefix, suffix) in [("kalo", ""), ("", "kalo"), ("", "")] {
        peer.generate(gap(prefix, suffix)).is_whole(8);
    }
}

#[test]
fn a_text_that_spells_a_mark_marks_nothing() {
    let mut peer = shaped(Shape::Infill);
    let plain = tokens_of(&mut peer, "<|fim_middle|>", false).len();
    assert!(plain > 1);
    let empty = peer.generate(gap("", "")).usage().prompt_tokens.0;
    let answer = peer.generate(gap("<|fim_middle|>", ""));
    assert_eq!(answer.usage().prompt_tokens.0, empty + u32::try_from(plain).unwrap());
}

#[test]
fn a_gap_is_cut_only_where_asked() {
    let mut peer = shaped(Shape::Infill);
    let long = gap(&"kalo ".repeat(600), "mi");
    let failure = peer.failure(Work::Generate(Box::new(long.clone())));
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    let answer = peer.generate(Request { overflow: Overflow::DropOldest, ..long });
    assert!(answer.started.unwrap().dropped_tokens > Tokens(0));
}

#[test]
fn others_say_that_they_cannot() {
    for shape in Shape::GENERATORS.into_iter().filter(|shape| *shape != Shape::Infill) {
        let failure = shaped(shape).failure(Work::Generate(Box::new(gap("a", "b"))));
        assert_eq!(failure.kind, FailureKind::Unsupported, "{}", shape.name());
    }
}
