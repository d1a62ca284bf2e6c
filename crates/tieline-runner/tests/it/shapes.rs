//! Models of every shape load and answer.

use testkit::Shape;
use tieline_types::wire::{Reply, Work};
use tieline_types::{Asker, LoadParams, Message, Pooling, Prompt, Request, Role, Sampling, Tokens};

use crate::peer::{Answer, Peer, Random};

/// A runner with a model of this shape and a context of 512 tokens.
pub(crate) fn shaped(shape: Shape) -> Peer {
    shaped_with(shape, LoadParams { context: Some(Tokens(512)), ..LoadParams::default() })
}

pub(crate) fn shaped_with(shape: Shape, params: LoadParams) -> Peer {
    let mut peer = Peer::start(&testkit::shape(shape));
    peer.load(params).unwrap_or_else(|failure| panic!("{}: {failure:?}", shape.name()));
    peer
}

/// `count` words of a shape's vocabulary, others for another `seed`.
pub(crate) fn words(shape: Shape, seed: u32, count: u32) -> Vec<u32> {
    let words = shape.words();
    let mut random = Random(u64::from(seed) + 1);
    (0..count).map(|_| words.start + random.below(words.end - words.start)).collect()
}

/// The tokens of an answer whose request asked for log-probabilities.
pub(crate) fn tokens(answer: &Answer) -> Vec<u32> {
    answer.logprobs.iter().map(|logprob| logprob.token).collect()
}

/// A greedy answer of so many tokens, each told.
pub(crate) fn told(prompt: Vec<u32>, answer: u32) -> Request {
    Request { logprobs: Some(0), ..crate::peer::going_on(prompt, answer) }
}

/// How far the log-probabilities of two answers lie apart; infinite where the tokens are others.
///
/// Floats that are added in another order differ in their last bits, and batches are cut by the clock.
pub(crate) fn distance(one: &Answer, other: &Answer) -> f32 {
    if tokens(one) != tokens(other) {
        return f32::INFINITY;
    }
    let pairs = one.logprobs.iter().zip(&other.logprobs);
    pairs.map(|(one, other)| (one.logprob - other.logprob).abs()).fold(0.0, f32::max)
}

/// Below this lies what rounding changes (0.001 was seen), above it what another prompt does (0.04 and more).
pub(crate) const NEAR: f32 = 5e-3;

/// The same without the cache.
pub(crate) fn fresh(request: Request) -> Request {
    Request { cache: false, ..request }
}

#[test]
fn every_generator_answers_twice_alike() {
    for shape in Shape::GENERATORS {
        let mut peer = shaped(shape);
        let prompt = words(shape, 1, 100);
        let first = peer.generate(fresh(told(prompt.clone(), 24)));
        first.is_whole(24);
        let again = peer.generate(fresh(told(prompt.clone(), 24)));
        assert!(distance(&first, &again) < NEAR, "{}", shape.name());
        // Words, and not one of them again and again: such answers can be told apart.
        let words = shape.words();
        assert!(tokens(&first).iter().all(|token| words.contains(token)), "{}", shape.name());
        let mut different = tokens(&first);
        different.sort_unstable();
        different.dedup();
        assert!(different.len() >= 8, "{}: {:?}", shape.name(), tokens(&first));
        // And they hang on what stands far back in the prompt.
        let mut other = prompt;
        other[20] += 1;
        let other = peer.generate(fresh(told(other, 24)));
        assert!(distance(&first, &other) > NEAR, "{}", shape.name());
    }
}

#[test]
fn every_generator_reads_any_text_in_its_template() {
    let text = "Zwölf Boxkämpfer, 漢字, 🙂 \u{0} \u{7f} \t\r\n <|im_end|> {{ }} kalo";
    for shape in Shape::GENERATORS {
        let mut peer = shaped(shape);
        let work = Work::Tokenize { text: text.into(), add_special: false, parse_special: false };
        let Reply::Tokens(tokens) = peer.ask(work) else { panic!("no tokens") };
        let work = Work::Detokenize { tokens, special: true };
        let Reply::Text(again) = peer.ask(work) else { panic!("no text") };
        assert_eq!(again.expose().trim_start(), text, "{}", shape.name());
        let mut request = Request::new(Prompt::Chat(vec![Message::new(Role::User, text)]));
        request.sampling = Sampling::greedy();
        request.max_tokens = Some(Tokens(8));
        let answer = peer.generate(request);
        answer.is_whole(8);
        assert!(!answer.text.contains('\u{fffd}'), "{}: {:?}", shape.name(), answer.text);
        assert!(answer.text.len() >= 8, "{}: {:?}", shape.name(), answer.text);
    }
}

#[test]
fn every_encoder_encodes() {
    for shape in [Shape::Bert, Shape::Reranker] {
        let params = LoadParams { embeddings: Some(Pooling::Model), ..LoadParams::default() };
        let mut peer = shaped_with(shape, params);
        let texts = ["kalo bade", "mi"];
        let reply = match shape {
            Shape::Bert => {
                let texts = texts.map(Into::into).to_vec();
                peer.ask(Work::Embed { texts, normalise: true, asker: Asker::default() })
            }
            _ => {
                let texts = texts.map(Into::into).to_vec();
                peer.ask(Work::Rank { query: "kalo?".into(), texts, asker: Asker::default() })
            }
        };
        match (shape, reply) {
            (Shape::Bert, Reply::Embeddings { vectors, .. }) => assert_eq!(vectors[0].len(), 64),
            (Shape::Reranker, Reply::Scores { scores, .. }) => assert_ne!(scores[0], scores[1]),
            (_, other) => panic!("{}: {other:?}", shape.name()),
        }
    }
}
