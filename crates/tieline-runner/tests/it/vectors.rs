//! Embeddings and scores of encoders: a real one against figures that were computed without llama.cpp, and
//! tiny ones for the rules.

use testkit::Shape;
use tieline_types::wire::{FailureKind, Reply, Work};
use tieline_types::{Asker, LoadParams, Pooling, Tokens};

use crate::peer::Peer;
use crate::shapes::shaped_with;

/// As in `scripts/embedding_reference.py`, whose figures these are.
const SENTENCES: [&str; 6] = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "The girl is carrying a baby.",
    "Interest rates were raised by the central bank.",
    "The central bank increased its interest rate.",
    "Café naïve résumé!",
];
const TOKENS: u32 = 8 + 11 + 9 + 11 + 10 + 6;
/// Cosines of each with those before it. sentence-transformers' documentation has the first of them too.
const COSINES: [&[f32]; 6] = [
    &[],
    &[0.7553],
    &[-0.105, -0.061],
    &[-0.048, -0.0208, -0.027],
    &[-0.0311, -0.004, -0.0356, 0.9257],
    &[-0.0149, 0.0049, -0.042, 0.0162, 0.0283],
];
/// How each vector begins.
const BEGINNINGS: [[f32; 4]; 6] = [
    [0.03324, 0.00441, -0.00628, 0.04838],
    [0.05252, 0.05524, -0.01119, -0.00575],
    [-0.03631, -0.03565, -0.02722, 0.03832],
    [0.05094, -0.04371, -0.06513, -0.0181],
    [0.05417, -0.03613, -0.06672, -0.02214],
    [-0.03746, 0.00147, 0.01993, 0.04703],
];
/// llama.cpp computes with 32-bit floats, and takes GELU from a table of 16-bit ones.
const CLOSE: f32 = 2e-3;

fn encoder(pooling: Pooling) -> LoadParams {
    LoadParams { embeddings: Some(pooling), ..LoadParams::default() }
}

fn minilm(pooling: Pooling) -> Peer {
    let mut peer = Peer::start(testkit::minilm());
    peer.load(encoder(pooling)).unwrap();
    peer
}

fn texts<T: for<'a> From<&'a str>>(texts: &[&str]) -> Vec<T> {
    texts.iter().map(|text| T::from(text)).collect()
}

fn embed(peer: &mut Peer, all: &[&str], normalise: bool) -> (Vec<Vec<f32>>, Tokens) {
    match peer.ask(Work::Embed { texts: texts(all), normalise, asker: Asker::default() }) {
        Reply::Embeddings { vectors, prompt_tokens } => (vectors, prompt_tokens),
        other => panic!("no embeddings: {other:?}"),
    }
}

fn rank(peer: &mut Peer, query: &str, all: &[&str]) -> (Vec<f32>, Tokens) {
    match peer.ask(Work::Rank { query: query.into(), texts: texts(all), asker: Asker::default() }) {
        Reply::Scores { scores, prompt_tokens } => (scores, prompt_tokens),
        other => panic!("no scores: {other:?}"),
    }
}

fn dot(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[test]
fn a_real_model_says_what_its_weights_say() {
    let (vectors, tokens) = embed(&mut minilm(Pooling::Model), &SENTENCES, true);
    assert_eq!(tokens, Tokens(TOKENS), "cut into words as its own tokeniser does");
    for (at, vector) in vectors.iter().enumerate() {
        assert_eq!(vector.len(), 384);
        assert!((dot(vector, vector) - 1.0).abs() < 1e-5, "{at} has no length of 1");
        for (column, (got, want)) in vector.iter().zip(BEGINNINGS[at]).enumerate() {
            assert!((got - want).abs() < CLOSE, "{at}, {column}: {got}, not {want}");
        }
        for (before, want) in COSINES[at].iter().enumerate() {
            let got = dot(vector, &vectors[before]);
            assert!((got - want).abs() < CLOSE, "{at} and {before}: {got}, not {want}");
        }
    }
}

#[test]
fn many_texts_are_as_one_by_one_whatever_their_order() {
    let mut peer = minilm(Pooling::Model);
    let many: Vec<&str> = SENTENCES.iter().copied().cycle().take(40).collect();
    let (together, tokens) = embed(&mut peer, &many, true);
    assert_eq!(together.len(), 40);
    let mut sum = 0;
    for (at, text) in many.iter().enumerate() {
        let (alone, tokens) = embed(&mut peer, &[text], true);
        sum += tokens.0;
        let cosine = dot(&alone[0], &together[at]);
        assert!((1.0 - cosine).abs() < 1e-5, "text {at}: {cosine}");
    }
    assert_eq!(tokens, Tokens(sum));
}

#[test]
fn the_file_says_how_vectors_are_pooled_and_the_caller_may_say_otherwise() {
    let one = |pooling| embed(&mut minilm(pooling), &SENTENCES[..1], true).0.remove(0);
    let (model, mean) = (one(Pooling::Model), one(Pooling::Mean));
    assert_eq!(model, mean);
    for other in [Pooling::Cls, Pooling::Last] {
        let cosine = dot(&model, &one(other));
        assert!(cosine < 0.99, "{other:?}: {cosine}");
    }
}

#[test]
fn a_vector_has_its_own_length_where_nobody_asks_otherwise() {
    let mut peer = minilm(Pooling::Model);
    let raw = embed(&mut peer, &SENTENCES[..1], false).0.remove(0);
    let unit = embed(&mut peer, &SENTENCES[..1], true).0.remove(0);
    let length = dot(&raw, &raw).sqrt();
    assert!(length > 1.5, "{length}");
    assert!((dot(&raw, &unit) / length - 1.0).abs() < 1e-5);
}

#[test]
fn a_text_longer_than_its_table_of_positions_is_refused() {
    let mut peer = minilm(Pooling::Model);
    let text = |words: usize| texts(&[&"word ".repeat(words)]);
    let failure =
        peer.failure(Work::Embed { texts: text(511), normalise: true, asker: Asker::default() });
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    assert_eq!(failure.message, "text 0 has 513 tokens and 512 is the limit");
    let reply =
        peer.ask(Work::Embed { texts: text(510), normalise: true, asker: Asker::default() });
    assert!(matches!(reply, Reply::Embeddings { .. }));
    let long = LoadParams { context: Some(Tokens(513)), ..encoder(Pooling::Model) };
    let failure = Peer::start(testkit::minilm()).load(long).unwrap_err();
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
}

#[test]
fn a_reranker_scores_each_text_by_itself() {
    let mut peer = shaped_with(Shape::Reranker, encoder(Pooling::Model));
    let all = ["kalo bade", "mi", "kalo bade rusote", "", "tino kela"];
    let (scores, tokens) = rank(&mut peer, "ka be?", &all);
    assert_eq!(scores.len(), all.len());
    let mut sum = 0;
    for (text, score) in all.iter().zip(&scores) {
        let (alone, tokens) = rank(&mut peer, "ka be?", &[text]);
        sum += tokens.0;
        assert!((alone[0] - score).abs() < 1e-5, "{text}: {} and {score}", alone[0]);
    }
    assert_eq!(tokens, Tokens(sum));
    let (others, _) = rank(&mut peer, "mi lo", &all);
    assert!(scores.iter().zip(&others).all(|(one, other)| (one - other).abs() > 1e-4));
    assert_eq!(rank(&mut peer, "ka", &[]), (Vec::new(), Tokens(0)));
}

#[test]
fn a_pair_is_marked_as_its_vocabulary_says() {
    let mut peer = shaped_with(Shape::Reranker, encoder(Pooling::Model));
    let mut count = |text: &str| {
        let work = Work::Tokenize { text: text.into(), add_special: false, parse_special: false };
        match peer.ask(work) {
            Reply::Tokens(tokens) => u32::try_from(tokens.len()).unwrap(),
            other => panic!("no tokens: {other:?}"),
        }
    };
    let (query, text) = (count("ka be?"), count("kalo bade"));
    // [CLS] query [SEP] text [SEP], as the tokenisers of such models write it.
    let (_, tokens) = rank(&mut peer, "ka be?", &["kalo bade"]);
    assert_eq!(tokens, Tokens(query + text + 3));
}

#[test]
fn a_reranker_gives_no_vectors_and_generates_nothing() {
    let mut peer = shaped_with(Shape::Reranker, encoder(Pooling::Model));
    let failure = peer.failure(Work::Embed {
        texts: texts(&["mi"]),
        normalise: true,
        asker: Asker::default(),
    });
    assert_eq!(failure.kind, FailureKind::Unsupported);
    assert_eq!(failure.message, "this model ranks texts and gives no vectors");
    for shape in [Shape::Bert, Shape::Reranker] {
        let mut peer = Peer::start(&testkit::shape(shape));
        let failure = peer.load(LoadParams::default()).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unsupported, "{}: {failure:?}", shape.name());
    }
}

#[test]
fn generators_of_every_shape_embed_too() {
    for shape in Shape::GENERATORS {
        let mut peer = shaped_with(shape, encoder(Pooling::Last));
        let all = ["kalo bade mitu", "ro", "sane kalo bade tiro"];
        let (together, _) = embed(&mut peer, &all, true);
        for (text, vector) in all.iter().zip(&together) {
            let (alone, _) = embed(&mut peer, &[text], true);
            let cosine = dot(&alone[0], vector);
            assert!((1.0 - cosine).abs() < 1e-4, "{}: {cosine}", shape.name());
        }
        assert!(dot(&together[0], &together[1]) < 0.99, "{}", shape.name());
    }
}
