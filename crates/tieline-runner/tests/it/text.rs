//! Tokens, templates, embeddings, measuring.

use tieline_types::wire::{FailureKind, Reply, Work};
use tieline_types::{KvType, LoadParams, Message, Pooling, Role, Tokens};

use crate::peer::{Peer, long_text, question};

fn tokens(peer: &mut Peer, text: &str, add_special: bool, parse_special: bool) -> Vec<u32> {
    match peer.ask(Work::Tokenize { text: text.into(), add_special, parse_special }) {
        Reply::Tokens(tokens) => tokens,
        other => panic!("{other:?}"),
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn text(peer: &mut Peer, tokens: Vec<u32>, special: bool) -> String {
    match peer.ask(Work::Detokenize { tokens, special }) {
        Reply::Text(text) => text.into_inner(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn text_becomes_tokens_and_text_again() {
    let mut peer = Peer::ready();
    for original in ["Hello, world!", "  spaces  and\nlines\t", "Naïve → 😀 你好", "", "<|im_end|>"]
    {
        let tokens = tokens(&mut peer, original, false, false);
        assert_eq!(text(&mut peer, tokens, true), original);
    }
}

#[test]
fn special_tokens_are_read_only_when_asked() {
    let mut peer = Peer::ready();
    assert_eq!(tokens(&mut peer, "<|im_end|>", false, true), [2]);
    assert!(tokens(&mut peer, "<|im_end|>", false, false).len() > 1);
    assert_eq!(text(&mut peer, vec![2], true), "<|im_end|>");
    assert_eq!(text(&mut peer, vec![2], false), "");
}

#[test]
fn the_models_own_template_is_used() {
    let mut peer = Peer::ready();
    let messages = vec![Message::new(Role::User, "Hi")];
    let Reply::Text(text) = peer.ask(Work::Render { messages }) else { panic!("no text") };
    let want = "<|im_start|>system\n\
        You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
        <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text.expose(), want);
}

#[test]
fn embeddings_bring_like_texts_together() {
    let params = LoadParams { embeddings: Some(Pooling::Model), ..LoadParams::default() };
    let mut peer = Peer::start(testkit::smollm2());
    let loaded = peer.load(params).unwrap();
    let texts =
        ["The cat sits on the mat.", "A cat is sitting on a mat.", "Interest rates rose in March."];
    let texts = texts.map(Into::into).to_vec();
    let Reply::Embeddings { vectors, prompt_tokens } =
        peer.ask(Work::Embed { texts, normalise: true })
    else {
        panic!("no embeddings")
    };
    assert!(prompt_tokens.0 > 15);
    for vector in &vectors {
        assert_eq!(vector.len(), loaded.embedding_length as usize);
        assert!((dot(vector, vector) - 1.0).abs() < 1e-4);
    }
    let (like, unlike) = (dot(&vectors[0], &vectors[1]), dot(&vectors[0], &vectors[2]));
    assert!(like > unlike, "{like} {unlike}");
}

#[test]
fn embeddings_refuse_what_they_cannot_do() {
    let params = LoadParams {
        embeddings: Some(Pooling::Mean),
        context: Some(Tokens(64)),
        ..LoadParams::default()
    };
    let mut peer = Peer::ready_with(params);
    let failure = peer.failure(Work::Embed { texts: vec![long_text(65)], normalise: true });
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    let failure = peer.failure(Work::Generate(Box::new(question("Hi"))));
    assert_eq!(failure.message, "the model is loaded for embeddings");
    let failure = Peer::ready().failure(Work::Embed { texts: vec!["Hi".into()], normalise: true });
    assert_eq!(failure.message, "the model is loaded for generating text");
}

#[test]
fn measuring_measures_what_it_is_asked() {
    let mut peer = Peer::ready();
    let Reply::Measured { prefill_us, decode_us } =
        peer.ask(Work::Measure { prefill: Tokens(64), decode: Tokens(8) })
    else {
        panic!("not measured")
    };
    assert!(prefill_us > 0 && decode_us > 0);
    let failure = peer.failure(Work::Measure { prefill: Tokens(513), decode: Tokens(0) });
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
}

#[test]
fn load_parameters_take_effect() {
    let mut peer = Peer::start(testkit::smollm2());
    let params = LoadParams {
        context: Some(Tokens(1024)),
        type_k: KvType::Q8_0,
        type_v: KvType::Q8_0,
        threads: Some(1),
        threads_batch: Some(2),
        batch: Tokens(128),
        ubatch: Tokens(32),
        mmap: false,
        ..LoadParams::default()
    };
    let loaded = peer.load(params).unwrap();
    assert_eq!((loaded.context, loaded.threads, loaded.threads_batch), (Tokens(1024), 1, 2));
    let answer = peer.generate(question("What is the capital of France?"));
    assert!(answer.text.contains("Paris"), "{}", answer.text);
}
