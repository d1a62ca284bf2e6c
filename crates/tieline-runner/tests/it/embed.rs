//! Embeddings, several at a time.

use std::collections::HashMap;
use std::time::Duration;

use tieline_types::wire::{FailureKind, FromRunner, Input, Reply, ToRunner, Work};
use tieline_types::{Asker, LoadParams, Owner, Pooling, Private, RequestId, Tokens};

use crate::peer::{Peer, Random, long_text};

fn peer(pooling: Pooling) -> Peer {
    let mut peer = Peer::start(testkit::smollm2_f16());
    let params = LoadParams {
        embeddings: Some(pooling),
        context: Some(Tokens(256)),
        ..LoadParams::default()
    };
    peer.load(params).unwrap();
    peer
}

/// Texts of 1 to 40 words.
fn texts(count: usize) -> Vec<Private> {
    let words = ["cat", "rates", "river", "seven", "quickly", "the", "blue", "of", "engine", "why"];
    let mut random = Random(3);
    let mut text = || {
        let length = 1 + random.below(40);
        let mut word = || words[usize::try_from(random.below(10)).unwrap()];
        let words: Vec<&str> = (0..length).map(|_| word()).collect();
        words.join(" ").into()
    };
    (0..count).map(|_| text()).collect()
}

fn embed(peer: &mut Peer, texts: Vec<Private>) -> (Vec<Vec<f32>>, Tokens) {
    let texts = texts.into_iter().map(Into::into).collect();
    match peer.ask(Work::Embed { texts, normalise: true, asker: Asker::default() }) {
        Reply::Embeddings { vectors, prompt_tokens } => (vectors, prompt_tokens),
        other => panic!("no embeddings: {other:?}"),
    }
}

#[test]
fn many_at_once_are_as_one_by_one() {
    for pooling in [Pooling::Mean, Pooling::Last] {
        let mut peer = peer(pooling);
        let (together, tokens) = embed(&mut peer, texts(40));
        assert_eq!(together.len(), 40);
        let mut sum = 0;
        for (at, (text, vector)) in texts(40).into_iter().zip(&together).enumerate() {
            let (alone, tokens) = embed(&mut peer, vec![text]);
            sum += tokens.0;
            let cosine: f32 = alone[0].iter().zip(vector).map(|(a, b)| a * b).sum();
            assert!((1.0 - cosine).abs() < 1e-3, "text {at}: {cosine}");
        }
        assert_eq!(tokens, Tokens(sum));
    }
}

#[test]
fn tokens_are_as_their_text() {
    let mut peer = peer(Pooling::Mean);
    let mut tokens = |text: &Private| {
        let work = Work::Tokenize { text: text.clone(), add_special: true, parse_special: false };
        let Reply::Tokens(tokens) = peer.ask(work) else { panic!("no tokens") };
        tokens
    };
    let texts = texts(6);
    let tokens: Vec<Vec<u32>> = texts.iter().map(&mut tokens).collect();
    let sum: usize = tokens.iter().map(Vec::len).sum();
    let (want, _) = embed(&mut peer, texts.clone());
    // And texts and tokens may stand beside each other.
    let mixed = tokens.iter().zip(&texts).enumerate().map(|(at, (tokens, text))| match at % 2 {
        0 => Input::Tokens(tokens.clone()),
        _ => text.clone().into(),
    });
    let inputs = [tokens.iter().cloned().map(Input::Tokens).collect(), mixed.collect::<Vec<_>>()];
    for texts in inputs {
        let reply = peer.ask(Work::Embed { texts, normalise: true, asker: Asker::default() });
        let Reply::Embeddings { vectors, prompt_tokens } = reply else { panic!("no embeddings") };
        assert_eq!(vectors, want);
        assert_eq!(usize::try_from(prompt_tokens.0), Ok(sum));
    }
}

#[test]
fn tokens_that_are_none_are_refused() {
    let mut peer = peer(Pooling::Mean);
    let mut refused =
        |texts| peer.failure(Work::Embed { texts, normalise: true, asker: Asker::default() });
    for unknown in [49_152, u32::MAX] {
        let failure = refused(vec!["good".into(), Input::Tokens(vec![1000, unknown])]);
        assert_eq!(failure.kind, FailureKind::InvalidRequest);
        let want = format!("token {unknown} is not in the vocabulary of 49152");
        assert_eq!(failure.message, want);
    }
    let failure = refused(vec![Input::Tokens(Vec::new())]);
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
    assert_eq!(failure.message, "text 0 is empty");
    let failure = refused(vec!["good".into(), Input::Tokens(vec![1000; 257])]);
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    assert_eq!(embed(&mut peer, texts(2)).0.len(), 2);
}

#[test]
fn no_texts_have_no_vectors() {
    assert_eq!(embed(&mut peer(Pooling::Mean), Vec::new()), (Vec::new(), Tokens(0)));
}

#[test]
fn a_bad_text_among_good_ones_is_named_and_the_next_work_is_done() {
    let mut peer = peer(Pooling::Mean);
    let texts = vec!["good".into(), long_text(257).into(), "good".into()];
    let failure = peer.failure(Work::Embed { texts, normalise: true, asker: Asker::default() });
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    assert_eq!(failure.message, "text 1 has 257 tokens and 256 is the limit");
    let failure = peer.failure(Work::Embed {
        texts: vec!["".into()],
        normalise: true,
        asker: Asker::default(),
    });
    assert_eq!(failure.message, "text 0 is empty");
    assert_eq!(embed(&mut peer, vec!["good".into(), long_text(256)]).0.len(), 2);
}

#[test]
fn a_model_that_ranks_nothing_says_so() {
    let rank = || Work::Rank {
        query: "What?".into(),
        texts: vec!["That.".into()],
        asker: Asker::default(),
    };
    let failure = peer(Pooling::Mean).failure(rank());
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(failure.message, "this model gives vectors and ranks no texts");
    let failure = Peer::ready().failure(rank());
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(failure.message, "the model is loaded for generating text");
}

#[test]
fn cancelled_embeddings_end() {
    let mut peer = peer(Pooling::Mean);
    let many = vec![long_text(250).into(); 200];
    let id = peer.order(Work::Embed { texts: many, normalise: true, asker: Asker::default() });
    peer.send(&ToRunner::Cancel(id));
    let Reply::Failed(failure) = peer.reply(id) else { panic!("not cancelled") };
    assert_eq!(failure.kind, FailureKind::Busy);
    assert_eq!(embed(&mut peer, texts(3)).0.len(), 3);
}

/// An order of so many texts.
fn asking(texts: Vec<Input>, owner: &str, deadline: Option<Duration>) -> Work {
    let owner = Owner(owner.to_owned());
    Work::Embed { texts, normalise: true, asker: Asker { owner, deadline, ..Asker::default() } }
}

/// Orders many long texts, and waits until they are computed.
fn occupy(peer: &mut Peer) -> RequestId {
    let many = vec![long_text(250).into(); 400];
    let id = peer.order(asking(many, "many", None));
    loop {
        peer.send(&ToRunner::Ping(0));
        match peer.frame() {
            Some(FromRunner::Pong { working: true, .. }) => return id,
            Some(FromRunner::Pong { .. }) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn nobody_waits_for_hundreds_of_texts_of_another_order() {
    let mut peer = peer(Pooling::Mean);
    let many = occupy(&mut peer);
    // Of another owner, and two of the same.
    let few: Vec<RequestId> = ["one", "many", "many"]
        .map(|owner| peer.order(asking(vec!["good".into()], owner, None)))
        .to_vec();
    let mut ended = Vec::new();
    while ended.len() < few.len() {
        match peer.frame() {
            Some(FromRunner::Reply(id, Reply::Embeddings { vectors, .. })) => {
                assert_eq!(vectors.len(), 1);
                ended.push(id);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    ended.sort_unstable();
    assert_eq!(ended, few, "before the many");
    peer.send(&ToRunner::Cancel(many));
    let Reply::Failed(failure) = peer.reply(many) else { panic!("not cancelled") };
    assert_eq!(failure.kind, FailureKind::Busy);
}

#[test]
fn what_is_cancelled_or_late_while_it_waits_is_never_read() {
    let mut peer = peer(Pooling::Mean);
    let many = occupy(&mut peer);
    // Were they read, they would be refused as empty.
    let left = peer.order(asking(vec!["".into()], "one", None));
    peer.send(&ToRunner::Cancel(left));
    let late = peer.order(asking(vec!["".into()], "other", Some(Duration::ZERO)));
    let mut failures = HashMap::new();
    while failures.len() < 2 {
        match peer.frame() {
            Some(FromRunner::Reply(id, Reply::Failed(failure))) => failures.insert(id, failure),
            other => panic!("unexpected: {other:?}"),
        };
    }
    assert_eq!(failures[&left].kind, FailureKind::Busy, "{failures:?}");
    assert_eq!(failures[&late].kind, FailureKind::Timeout, "{failures:?}");
    peer.send(&ToRunner::Cancel(many));
    assert!(matches!(peer.reply(many), Reply::Failed(_)));
}

/// Two share every batch, so none of them can be broken off; one leaves, and the other is served on.
#[test]
fn who_leaves_beside_others_is_computed_no_further() {
    let mut peer = peer(Pooling::Mean);
    let many = || vec![long_text(20).into(); 8000];
    let [stays, leaves] = ["one", "other"].map(|owner| peer.order(asking(many(), owner, None)));
    // Once this is answered, both are at work.
    let few = peer.order(asking(vec!["good".into()], "third", None));
    assert!(matches!(peer.reply(few), Reply::Embeddings { .. }));
    peer.send(&ToRunner::Cancel(leaves));
    let reply = peer.reply(leaves);
    assert!(matches!(&reply, Reply::Failed(why) if why.kind == FailureKind::Busy), "not cancelled");
    let few = peer.order(asking(vec!["good".into()], "third", None));
    assert!(matches!(peer.reply(few), Reply::Embeddings { .. }));
    peer.send(&ToRunner::Cancel(stays));
    assert!(matches!(peer.reply(stays), Reply::Failed(_)));
}

#[test]
fn texts_of_many_orders_are_as_one_by_one() {
    let mut peer = peer(Pooling::Mean);
    let orders: Vec<Vec<Private>> = [1, 7, 1, 3, 20, 2].map(texts).to_vec();
    let ids: Vec<RequestId> = orders
        .iter()
        .zip(["a", "b", "a", "c", "c", "b"])
        .map(|(texts, owner)| {
            peer.order(asking(texts.iter().cloned().map(Into::into).collect(), owner, None))
        })
        .collect();
    let mut made = HashMap::new();
    while made.len() < ids.len() {
        match peer.frame() {
            Some(FromRunner::Reply(id, Reply::Embeddings { vectors, prompt_tokens })) => {
                assert!(made.insert(id, (vectors, prompt_tokens)).is_none(), "answered twice");
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    let (want, _) = embed(&mut peer, texts(20));
    for (id, order) in ids.iter().zip(&orders) {
        let (vectors, tokens) = &made[id];
        assert_eq!(vectors.len(), order.len());
        let (_, alone) = embed(&mut peer, order.clone());
        assert_eq!(*tokens, alone);
        for (at, vector) in vectors.iter().enumerate() {
            let cosine: f32 = want[at].iter().zip(vector).map(|(a, b)| a * b).sum();
            assert!((1.0 - cosine).abs() < 1e-3, "{id:?}, text {at}: {cosine}");
        }
    }
}

/// Asks for two things, and says which of them ended first.
fn first(peer: &mut Peer, long: Work, short: Work) -> &'static str {
    let (long, short) = (peer.order(long), peer.order(short));
    let mut ended = Vec::new();
    while ended.len() < 2 {
        match peer.frame() {
            Some(FromRunner::Reply(id, _)) => ended.push(id),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(ended.contains(&long) && ended.contains(&short));
    if ended[0] == long { "long" } else { "short" }
}

/// It takes seconds, and is far more than there is room for, which is known only then.
fn megabytes() -> String {
    "word ".repeat(3_000_000)
}

#[test]
fn nobody_waits_while_megabytes_are_tokenised() {
    let mut peer = peer(Pooling::Mean);
    let embed = |text: String| asking(vec![Private::from(text).into()], "one", None);
    let good = || asking(vec!["good".into()], "other", None);
    assert_eq!(first(&mut peer, embed(megabytes()), good()), "short");
    let failure = peer.failure(embed(megabytes()));
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    assert!(failure.message.starts_with("text 0 has 3000001 tokens"), "{}", failure.message);
    let (add_special, parse_special) = (false, false);
    let text = || "word ".repeat(1_000_000).into();
    let tokenize = Work::Tokenize { text: text(), add_special, parse_special };
    assert_eq!(first(&mut peer, tokenize, good()), "short");
}
