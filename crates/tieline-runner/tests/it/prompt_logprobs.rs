//! How likely the model held a prompt's own tokens to be.

use testkit::Shape;
use tieline_types::wire::{FailureKind, Reply, Work};
use tieline_types::{
    Class, Event, LoadParams, Message, Miss, MissReason, Overflow, Pooling, Prompt, Request, Role,
    TokenLogprob, Tokens,
};

use crate::floats::TIE;
use crate::peer::{Answer, Peer, going_on, long_text, question, some_tokens};
use crate::rigid::loaded;
use crate::shapes::{NEAR, shaped, shaped_with, tokens, told, words};

/// The same, with its prompt scored and so many alternatives.
fn scored(top: u8, request: Request) -> Request {
    Request { prompt_logprobs: Some(top), ..request }
}

/// The prompt alone is computed and scored.
fn score(prompt: Vec<u32>) -> Request {
    scored(0, going_on(prompt, 0))
}

/// One entry for each token of the prompt but the first, in order.
#[track_caller]
fn is_of(answer: &Answer, prompt: &[u32]) {
    let got: Vec<u32> = answer.scores.iter().map(|entry| entry.token).collect();
    assert_eq!(got, prompt[1..], "other tokens than the prompt's");
}

/// The widest distance between two rows of entries.
#[track_caller]
fn apart(one: &[TokenLogprob], other: &[TokenLogprob]) -> f32 {
    assert!(!one.is_empty(), "nothing to compare");
    assert_eq!(one.len(), other.len());
    let pairs = one.iter().zip(other);
    let apart = pairs.map(|(one, other)| {
        assert_eq!(one.token, other.token);
        (one.logprob - other.logprob).abs()
    });
    apart.fold(0.0, f32::max)
}

fn mean(scores: &[TokenLogprob]) -> f64 {
    let sum: f64 = scores.iter().map(|entry| f64::from(entry.logprob)).sum();
    sum / f64::from(u32::try_from(scores.len()).unwrap())
}

fn is_empty(answer: &Answer) {
    answer.is_whole(0);
    assert!(answer.text.is_empty() && answer.logprobs.is_empty());
}

fn off(answer: &Answer) -> bool {
    let miss = answer.started.as_ref().unwrap().miss;
    miss == Some(Miss { position: Tokens(0), reason: MissReason::Off })
}

#[test]
fn what_was_said_is_as_likely_when_it_is_read() {
    let mut peer = Peer::exact();
    for seed in 1..4 {
        let prompt = some_tokens(seed, 30 + 40 * seed);
        let said = peer.generate(Request { logprobs: Some(3), ..going_on(prompt.clone(), 40) });
        let all = [&prompt[..], &tokens(&said)].concat();
        let read = peer.generate(scored(3, going_on(all.clone(), 0)));
        is_empty(&read);
        is_of(&read, &all);
        // All of it was computed, though nearly all was known.
        assert_eq!(read.cached(), 0);
        assert!(off(&read));
        let answer = &read.scores[prompt.len() - 1..];
        assert!(apart(answer, &said.logprobs) < TIE);
        for (read, said) in answer.iter().zip(&said.logprobs) {
            assert_eq!(read.bytes, said.bytes);
            assert_eq!(read.alternatives.len(), 3);
            let (read, said) = (&read.alternatives[0], &said.alternatives[0]);
            assert!(read.token == said.token || (read.logprob - said.logprob).abs() < TIE);
        }
    }
}

#[test]
fn neighbours_change_no_score() {
    let mut peer = Peer::exact();
    let prompts: Vec<Vec<u32>> = (0..3).map(|n| some_tokens(n, 150 + 60 * n)).collect();
    let want: Vec<Answer> = prompts.iter().map(|p| peer.generate(score(p.clone()))).collect();
    let talk = |text| Request { logprobs: Some(1), ..question(text) };
    let texts = ["What is the capital of France?", "Why is the sky blue?", "Describe a tree."];
    let plain: Vec<Answer> = texts.map(|text| peer.generate(talk(text))).into();
    let mut ids: Vec<_> = texts.map(|text| peer.begin(talk(text))).into();
    // They speak when the prompts come.
    peer.until(ids[0], |event| matches!(event, Event::Piece(_)));
    ids.remove(0);
    ids.extend(prompts.iter().map(|prompt| peer.begin(score(prompt.clone()))));
    let mut scores = vec![Vec::new(); 3];
    let mut ended = 0;
    while ended < 6 {
        match peer.event() {
            (id, Event::PromptLogprobs(entries)) => {
                let at = ids.iter().position(|of| *of == id).expect("of one that asked for it");
                scores[at.checked_sub(2).expect("of one that asked for it")].extend(entries);
            }
            (_, Event::Finished(_)) => ended += 1,
            _ => {}
        }
    }
    for ((got, want), prompt) in scores.iter().zip(&want).zip(&prompts) {
        is_of(want, prompt);
        assert!(apart(got, &want.scores) < TIE, "{}", apart(got, &want.scores));
        let apart = mean(got) - mean(&want.scores);
        assert!(apart.abs() < f64::from(TIE) / 10.0, "{apart}");
    }
    // And those who speak say what they said alone.
    let requests: Vec<Request> =
        texts.map(talk).into_iter().chain([score(some_tokens(9, 400))]).collect();
    let answers = peer.together(requests);
    for (answer, want) in answers.iter().zip(&plain) {
        assert!(answer.scores.is_empty());
        answer.is_equal(want, TIE);
    }
    assert_eq!(answers[3].scores.len(), 399);
}

#[test]
fn a_long_prompt_comes_in_pieces_whole_and_in_order() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(2048)),
        ubatch: Tokens(512),
        ..LoadParams::default()
    });
    let prompt = some_tokens(5, 1500);
    let id = peer.begin(scored(20, going_on(prompt.clone(), 3)));
    let (mut events, mut scores, mut text) = (0, Vec::new(), false);
    loop {
        match peer.reply(id) {
            Reply::Event(Event::PromptLogprobs(entries)) => {
                assert!(!text, "the answer began before");
                events += 1;
                scores.extend(entries);
            }
            Reply::Event(Event::Piece(_)) => text = true,
            Reply::Event(Event::Finished(finished)) => {
                assert_eq!(finished.usage.completion_tokens, Tokens(3));
                assert_eq!(finished.usage.prompt_tokens, Tokens(1500));
                break;
            }
            Reply::Event(_) => {}
            other => panic!("no answer: {other:?}"),
        }
    }
    // 64 rows of logits a step.
    assert!(events >= 1499 / 64, "{events}");
    let got: Vec<u32> = scores.iter().map(|entry| entry.token).collect();
    assert_eq!(got, prompt[1..]);
    for entry in &scores {
        assert_eq!(entry.alternatives.len(), 20);
        assert!(entry.alternatives.is_sorted_by(|a, b| a.logprob >= b.logprob));
        assert!(entry.logprob <= entry.alternatives[0].logprob && entry.logprob < 0.0);
        let same = entry.alternatives.iter().find(|other| other.token == entry.token);
        assert!(same.is_none_or(|same| same.logprob.to_bits() == entry.logprob.to_bits()));
    }
    let bytes: Vec<u8> = scores.iter().flat_map(|entry| entry.bytes.clone()).collect();
    let work = Work::Detokenize { tokens: prompt[1..].to_vec(), special: true };
    let Reply::Text(text) = peer.ask(work) else { panic!("no text") };
    assert_eq!(String::from_utf8_lossy(&bytes), text.expose());
}

#[test]
fn no_tokens_are_an_answer() {
    let mut peer = Peer::ready();
    for prompt in [some_tokens(6, 100), vec![1000]] {
        let length = u32::try_from(prompt.len()).unwrap();
        // It computes the prompt, for whoever comes next.
        let silent = peer.generate(going_on(prompt.clone(), 0));
        is_empty(&silent);
        assert!(silent.scores.is_empty());
        assert_eq!((silent.cached(), silent.usage().prompt_tokens), (0, Tokens(length)));
        let read = peer.generate(score(prompt.clone()));
        is_empty(&read);
        is_of(&read, &prompt);
        assert_eq!(read.cached(), 0);
        let next = peer.generate(going_on(prompt, 4));
        next.is_whole(4);
        assert_eq!(next.cached(), length - 1);
        assert!(next.scores.is_empty());
    }
    let many = (0..12).map(|n| score(some_tokens(n, 50)));
    for (answer, n) in peer.together(many).iter().zip(0..) {
        is_empty(answer);
        is_of(answer, &some_tokens(n, 50));
    }
}

#[test]
fn a_scored_prompt_is_kept_unless_its_request_says_otherwise() {
    let mut peer = Peer::ready();
    let first = some_tokens(7, 120);
    peer.generate(score(first.clone()));
    assert_eq!(peer.generate(going_on(first, 2)).cached(), 119);
    let second = some_tokens(8, 120);
    let answer = peer.generate(Request { cache: false, ..score(second.clone()) });
    is_of(&answer, &second);
    assert_eq!(peer.generate(going_on(second, 2)).cached(), 0);
}

#[test]
fn the_tokens_are_those_that_the_model_reads() {
    let mut peer = Peer::ready();
    let tokenize = |peer: &mut Peer, text, add_special, parse_special| {
        let work = Work::Tokenize { text, add_special, parse_special };
        let Reply::Tokens(tokens) = peer.ask(work) else { panic!("no tokens") };
        tokens
    };
    // A text, with what the model's file puts before it.
    let text = tokenize(&mut peer, "The cat sat on the mat.".into(), true, false);
    let request = Request::new(Prompt::Text("The cat sat on the mat.".into()));
    let mute = |request| scored(0, Request { max_tokens: Some(Tokens(0)), ..request });
    is_of(&peer.generate(mute(request)), &text);
    // A conversation, with the template's tokens.
    let messages = vec![Message::new(Role::User, "Name a colour.")];
    let Reply::Text(rendered) =
        peer.ask(Work::Render { messages: messages.clone(), tools: vec![] })
    else {
        panic!("no text")
    };
    let chat = tokenize(&mut peer, rendered, false, true);
    let answer = peer.generate(mute(Request::new(Prompt::Chat(messages))));
    is_of(&answer, &chat);
    is_of(&peer.generate(mute(Request::new(Prompt::Rendered(chat.clone())))), &chat);
    // What is left of a prompt that does not fit.
    let long = some_tokens(10, 600);
    let cut = peer.generate(Request { overflow: Overflow::DropOldest, ..score(long.clone()) });
    let dropped = cut.started.as_ref().unwrap().dropped_tokens.0;
    assert!(dropped > 88, "{dropped}");
    is_of(&cut, &long[usize::try_from(dropped).unwrap()..]);
}

#[test]
fn models_of_every_shape_score() {
    for shape in Shape::GENERATORS {
        let mut peer = shaped_with(shape, loaded(512, 1024));
        let prompt = words(shape, 3, 150);
        let said = peer.generate(told(prompt.clone(), 24));
        let all = [&prompt[..], &tokens(&said)].concat();
        for _ in 0..2 {
            let read = peer.generate(score(all.clone()));
            is_of(&read, &all);
            let apart = apart(&read.scores[149..], &said.logprobs);
            assert!(apart < NEAR, "{}: {apart}", shape.name());
        }
        // Copies of what cannot be cut were taken of the scored prompt too.
        assert!(peer.generate(going_on(all, 2)).cached() > 0, "{}", shape.name());
    }
}

#[test]
fn who_is_sent_back_tells_nothing_twice() {
    let params = || LoadParams {
        context: Some(Tokens(512)),
        kv_tokens: Some(Tokens(512)),
        parallel: 2,
        ..LoadParams::default()
    };
    let mut peer = Peer::ready_with(params());
    // Two that begin together and do not fit together to their end.
    let prompts = [some_tokens(1, 200), some_tokens(2, 200)];
    let requests = prompts.clone().map(|prompt| scored(1, going_on(prompt, 150)));
    for (answer, prompt) in peer.together(requests).iter().zip(&prompts) {
        answer.is_whole(150);
        is_of(answer, prompt);
    }
    // One that gives its place away while its prompt is read.
    let mut peer = Peer::ready_with(LoadParams { parallel: 1, ..params() });
    let prompt = some_tokens(3, 500);
    let batch = peer.begin(Request { class: Class::Batch, ..score(prompt.clone()) });
    let mut scores = Vec::new();
    while scores.is_empty() {
        if let (_, Event::PromptLogprobs(entries)) = peer.event() {
            scores = entries;
        }
    }
    let other = peer.begin(going_on(some_tokens(4, 40), 4));
    let mut ended = Vec::new();
    while ended.len() < 2 {
        match peer.event() {
            (id, Event::PromptLogprobs(entries)) => {
                assert_eq!(id, batch);
                scores.extend(entries);
            }
            (id, Event::Finished(_)) => ended.push(id),
            _ => {}
        }
    }
    assert_eq!(ended, [other, batch], "the test needs one that is sent back");
    let got: Vec<u32> = scores.iter().map(|entry| entry.token).collect();
    assert_eq!(got, prompt[1..]);
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let mut peer = Peer::ready();
    let mut refused = |request: Request| peer.failure(Work::Generate(Box::new(request)));
    let failure = refused(Request { deterministic: true, ..score(vec![1000, 1001]) });
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(failure.message, "prompt_logprobs are not told of a deterministic request");
    let gap = Prompt::Infill { prefix: "fn".into(), suffix: "}".into() };
    let failure = refused(scored(0, Request::new(gap.clone())));
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(failure.message, "prompt_logprobs are not told of a gap to fill in");
    let failure = refused(scored(21, going_on(vec![1000, 1001], 0)));
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    assert_eq!(failure.message, "prompt_logprobs is 21: expected at most 20");
    let failure = refused(scored(0, Request::new(Prompt::Text(long_text(600)))));
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    // One that has tokens for a gap refuses it as well.
    let work = Work::Generate(Box::new(scored(0, Request::new(gap))));
    assert_eq!(shaped(Shape::Infill).failure(work).kind, FailureKind::Unsupported);
    let mut embedder = Peer::start(testkit::smollm2());
    let embeddings = Some(Pooling::Mean);
    embedder.load(LoadParams { embeddings, ..LoadParams::default() }).unwrap();
    let failure = embedder.failure(Work::Generate(Box::new(score(vec![1000, 1001]))));
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(failure.message, "the model is loaded for embeddings");
}
