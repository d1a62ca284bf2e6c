//! Prompts that do not fit, and prompts that this model cannot read.

use tieline_types::wire::{Failure, FailureKind, Reply, Work};
use tieline_types::{
    FinishReason, LoadParams, Message, Overflow, Prompt, Request, Role, Sampling, Tokens, ToolCall,
};

use crate::peer::{Peer, long_text};

fn peer() -> Peer {
    Peer::ready_with(LoadParams { context: Some(Tokens(256)), ..LoadParams::default() })
}

fn request(prompt: Prompt, overflow: Overflow) -> Request {
    Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(32)),
        ignore_eog: true,
        overflow,
        ..Request::new(prompt)
    }
}

fn refused(peer: &mut Peer, request: Request) -> Failure {
    peer.failure(Work::Generate(Box::new(request)))
}

fn turn(role: Role, words: usize) -> Message {
    Message::new(role, long_text(words))
}

/// The system's message and four turns of the user with three answers between.
fn conversation() -> Vec<Message> {
    let mut messages = vec![Message::new(Role::System, "Be brief.")];
    for words in [90, 80, 50] {
        messages.extend([turn(Role::User, words), turn(Role::Assistant, 20)]);
    }
    messages.push(turn(Role::User, 10));
    messages
}

/// Tokens of a conversation.
fn length(peer: &mut Peer, messages: Vec<Message>) -> u32 {
    let Reply::Text(text) = peer.ask(Work::Render { messages, tools: Vec::new() }) else {
        panic!("no text")
    };
    let work = Work::Tokenize { text, add_special: false, parse_special: true };
    let Reply::Tokens(tokens) = peer.ask(work) else { panic!("no tokens") };
    u32::try_from(tokens.len()).unwrap()
}

#[test]
fn the_oldest_turns_go_and_the_system_stays() {
    let mut peer = peer();
    let all = conversation();
    let whole = length(&mut peer, all.clone());
    // Room for the answer is 32 of 256: as many of the latest turns as fit into the rest.
    let from = |turn: usize| [&all[..1], &all[turn..]].concat();
    let kept = [3, 5, 7].map(|turn| length(&mut peer, from(turn)));
    let want = kept.into_iter().find(|&tokens| tokens <= 224).unwrap();
    assert!(
        whole >= 256 && want > kept[2],
        "{whole} {kept:?}: the test needs another conversation"
    );
    let answer = peer.generate(request(Prompt::Chat(all.clone()), Overflow::DropOldest));
    answer.is_whole(32);
    assert_eq!(answer.usage().prompt_tokens, Tokens(want));
    assert_eq!(answer.started.as_ref().unwrap().dropped_tokens, Tokens(whole - want));
    // It is what the caller gets who leaves them out himself.
    let turn = if want == kept[0] { 3 } else { 5 };
    let same = peer.generate(request(Prompt::Chat(from(turn)), Overflow::Error));
    assert_eq!(same.cached(), want - 1);
    assert_eq!(same.started.as_ref().unwrap().dropped_tokens, Tokens(0));
    let failure = refused(&mut peer, request(Prompt::Chat(all), Overflow::Error));
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
}

#[test]
fn a_prompt_is_counted_whether_it_fits_or_not() {
    let mut peer = peer();
    for turns in [1, 8] {
        let messages = conversation()[..turns].to_vec();
        let want = length(&mut peer, messages.clone());
        let request = request(Prompt::Chat(messages), Overflow::Compact);
        assert_eq!(peer.ask(Work::Count(Box::new(request.clone()))), Reply::Count(Tokens(want)));
        // The engine has a summary written; here nothing is cut.
        if turns == 8 {
            let failure = refused(&mut peer, request);
            assert_eq!(failure.kind, FailureKind::ContextExceeded);
        }
    }
}

#[test]
fn the_last_turn_never_goes() {
    let mut peer = peer();
    let messages = vec![turn(Role::User, 20), turn(Role::Assistant, 20), turn(Role::User, 300)];
    let shortest = length(&mut peer, messages[2..].to_vec());
    let failure = refused(&mut peer, request(Prompt::Chat(messages), Overflow::DropOldest));
    is_too_long(&failure, shortest);
}

#[test]
fn a_turn_that_is_the_only_one_is_told_with_its_length() {
    let mut peer = peer();
    let system = Message::new(Role::System, "Be brief.");
    for messages in [vec![turn(Role::User, 300)], vec![system, turn(Role::User, 300)]] {
        let whole = length(&mut peer, messages.clone());
        let failure = refused(&mut peer, request(Prompt::Chat(messages), Overflow::DropOldest));
        is_too_long(&failure, whole);
    }
}

/// Instructions, a question, and four calls with their results.
fn agents_turn() -> Vec<Message> {
    let mut all = vec![Message::new(Role::System, "Be brief."), turn(Role::User, 20)];
    for id in ["a", "b", "c", "d"] {
        let (name, arguments) = ("look".to_owned(), "{}".into());
        let call = ToolCall { id: id.to_owned(), name, arguments };
        all.push(Message { tool_calls: vec![call], ..turn(Role::Assistant, 10) });
        all.push(Message { tool_call_id: Some(id.to_owned()), ..turn(Role::Tool, 50) });
    }
    all
}

#[test]
fn an_agents_turn_loses_its_oldest_calls_with_their_results() {
    let mut peer = peer();
    let mut all = agents_turn();
    let whole = length(&mut peer, all.clone());
    let from = |at: usize| [&all[..2], &all[at..]].concat();
    let kept = [4, 6, 8].map(|at| length(&mut peer, from(at)));
    let want = kept.into_iter().find(|&tokens| tokens <= 224).unwrap();
    assert!(whole >= 256 && want > kept[2], "{whole} {kept:?}: the test needs other messages");
    let answer = peer.generate(request(Prompt::Chat(all.clone()), Overflow::DropOldest));
    answer.is_whole(32);
    assert_eq!(answer.usage().prompt_tokens, Tokens(want));
    assert_eq!(answer.started.as_ref().unwrap().dropped_tokens, Tokens(whole - want));
    // The newest result alone is too long: nothing is torn for it.
    let last = all.len() - 1;
    all[last].content = long_text(300);
    let shortest = length(&mut peer, [&all[..2], &all[last - 1..]].concat());
    let failure = refused(&mut peer, request(Prompt::Chat(all), Overflow::DropOldest));
    is_too_long(&failure, shortest);
}

#[test]
fn the_systems_messages_stay_wherever_they_are() {
    let mut peer = peer();
    let mut all = agents_turn();
    all.insert(4, Message::new(Role::System, "Be polite."));
    let whole = length(&mut peer, all.clone());
    let from = |at: usize| [&all[..2], &all[4..5], &all[at..]].concat();
    let kept = [5, 7, 9].map(|at| length(&mut peer, from(at)));
    let want = kept.into_iter().find(|&tokens| tokens <= 224).unwrap();
    assert!(whole >= 256 && want < kept[0], "{whole} {kept:?}: the test needs other messages");
    let answer = peer.generate(request(Prompt::Chat(all), Overflow::DropOldest));
    assert_eq!(answer.usage().prompt_tokens, Tokens(want));
}

#[test]
fn the_last_turn_may_take_of_the_answers_room() {
    let mut peer = peer();
    let last = vec![turn(Role::User, 160)];
    let want = length(&mut peer, last.clone());
    assert!((157..256).contains(&want), "{want}: the test needs another turn");
    let messages = [vec![turn(Role::User, 80), turn(Role::Assistant, 20)], last].concat();
    let request = Request {
        max_tokens: Some(Tokens(100)),
        ..request(Prompt::Chat(messages), Overflow::DropOldest)
    };
    let answer = peer.generate(request);
    assert_eq!(answer.usage().prompt_tokens, Tokens(want));
    assert_eq!(answer.finished.reason, FinishReason::ContextFull);
}

/// A context of 256 tokens is refused for a prompt of so many.
#[track_caller]
fn is_too_long(failure: &Failure, tokens: u32) {
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    let want = format!(
        "the prompt has {tokens} tokens and the context holds 256, one of them for the answer"
    );
    assert_eq!(failure.message, want);
    let hint = format!("shorten the prompt or ask for a context of at least {} tokens", tokens + 1);
    assert_eq!(failure.hint, Some(hint));
}

#[test]
fn the_oldest_tokens_of_a_text_go() {
    let mut peer = peer();
    for prompt in [Prompt::Text(long_text(300)), Prompt::Tokens(vec![1000; 300])] {
        let answer = peer.generate(request(prompt.clone(), Overflow::DropOldest));
        answer.is_whole(32);
        assert_eq!(answer.usage().prompt_tokens, Tokens(224));
        assert_eq!(answer.started.as_ref().unwrap().dropped_tokens, Tokens(76));
        let failure = refused(&mut peer, request(prompt, Overflow::Error));
        assert_eq!(failure.kind, FailureKind::ContextExceeded);
    }
    // Nothing goes where all fits.
    let answer = peer.generate(request(Prompt::Text(long_text(200)), Overflow::DropOldest));
    assert_eq!(answer.usage().prompt_tokens, Tokens(200));
    assert_eq!(answer.started.unwrap().dropped_tokens, Tokens(0));
}

#[test]
fn bos_stays_where_the_oldest_tokens_go() {
    let mut peer = peer();
    let tokens: Vec<u32> = [1].into_iter().chain(1000..1299).collect();
    let answer = peer.generate(request(Prompt::Tokens(tokens.clone()), Overflow::DropOldest));
    assert_eq!(answer.usage().prompt_tokens, Tokens(224));
    let same = [&[1], &tokens[300 - 223..]].concat();
    let answer = peer.generate(request(Prompt::Tokens(same), Overflow::Error));
    assert_eq!(answer.cached(), 223);
}

#[test]
fn a_gap_is_refused_by_a_model_that_knows_none() {
    let prompt = Prompt::Infill { prefix: "fn main() {".into(), suffix: "}".into() };
    for overflow in [Overflow::Error, Overflow::DropOldest] {
        let failure = refused(&mut peer(), request(prompt.clone(), overflow));
        assert_eq!(failure.kind, FailureKind::Unsupported);
        assert_eq!(failure.message, "this model has no tokens for a gap to fill in");
        assert_eq!(failure.hint.as_deref(), Some("use a model trained for infilling"));
    }
}
