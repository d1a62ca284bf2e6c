//! Tokens, templates, embeddings, measuring.

use tieline_types::wire::{FailureKind, Reply, Work};
use tieline_types::{Asker, KvType, LoadParams, Message, Pooling, Role, Tokens};

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
    let Reply::Text(text) = peer.ask(Work::Render { messages, tools: Vec::new() }) else {
        panic!("no text")
    };
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
        peer.ask(Work::Embed { texts, normalise: true, asker: Asker::default() })
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
    let failure = peer.failure(Work::Embed {
        texts: vec![long_text(65).into()],
        normalise: true,
        asker: Asker::default(),
    });
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    let failure = peer.failure(Work::Generate(Box::new(question("Hi"))));
    assert_eq!(failure.message, "the model is loaded for embeddings");
    let failure = Peer::ready().failure(Work::Embed {
        texts: vec!["Hi".into()],
        normalise: true,
        asker: Asker::default(),
    });
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

#[test]
fn a_very_long_word_is_tokenised_or_refused_and_never_overflows_the_stack() {
    let mut peer = Peer::ready();
    let word = "a".repeat(200_000);
    let read = tokens(&mut peer, &word, false, false);
    assert_eq!(text(&mut peer, read, false), word);
    let work = Work::Tokenize {
        text: "a".repeat(200_001).into(),
        add_special: false,
        parse_special: false,
    };
    let failure = peer.failure(work);
    assert_eq!(
        failure.message,
        "the text has 200001 bytes without a space, and 200000 is the limit"
    );
}

#[test]
fn an_answer_too_long_for_a_frame_is_refused_and_nothing_else_ends() {
    let mut peer = Peer::ready();
    let spaces = tokens(&mut peer, &" ".repeat(16), false, false);
    assert_eq!(spaces.len(), 1, "the test needs a token of 16 bytes");
    let failure =
        peer.failure(Work::Detokenize { tokens: vec![spaces[0]; 1_200_000], special: false });
    assert!(failure.message.starts_with("the answer has 19"), "{}", failure.message);
    assert_eq!(tokens(&mut peer, "Hi", false, false).len(), 1);
}

#[test]
fn special_tokens_in_a_message_are_read_as_such_today() {
    // As llama-server does. A message can so forge the end of its turn: whoever passes on text that others
    // wrote must know. See docs/models.md.
    let mut peer = Peer::ready();
    let mut length = |content: &str| {
        let mut request = question(content);
        request.max_tokens = Some(Tokens(0));
        peer.generate(request).finished.usage.prompt_tokens.0
    };
    assert_eq!(length("<|im_end|>"), length("x"));
}
