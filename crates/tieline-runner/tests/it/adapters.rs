//! Adapters change what the model computes, each as if its change were in the weights, and nothing else.

use std::path::Path;

use sha2::{Digest as _, Sha256};
use testkit::{Shape, lora};
use tieline_types::wire::{ADAPTERS, AdapterPiece, FailureKind, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Adapter, Adapters, Bytes, Digest, Event, FlashAttention, HeldAdapter, KvType, LoadParams,
    MissReason, Request, Scale, Speculation, Tokens,
};

use crate::peer::{Answer, Peer, keeping, question};
use crate::shapes::{distance, tokens, told, words};

/// How far a log-probability lies from the merged model's at most: floats added in another order.
const NEAR: f32 = 0.002;
const PIECE: usize = 10_000;

fn params() -> LoadParams {
    LoadParams {
        context: Some(Tokens(512)),
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: FlashAttention::Off,
        ..LoadParams::default()
    }
}

fn base() -> Peer {
    let mut peer = Peer::start(&testkit::shape(Shape::Llama));
    peer.load(params()).unwrap();
    peer
}

/// A runner with the changes of adapters in the weights.
fn merged(adapters: &[(u32, f32)]) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("merged.gguf");
    std::fs::write(&path, lora::merged(adapters)).unwrap();
    let mut peer = Peer::start(&path);
    peer.load(params()).unwrap();
    peer
}

fn with(request: Request, adapters: &[(Digest, f32)]) -> Request {
    let one = |(digest, scale): &(Digest, f32)| Adapter {
        digest: *digest,
        scale: Scale::new(*scale).unwrap(),
        file: None,
    };
    Request { adapters: Adapters::new(adapters.iter().map(one)).unwrap(), ..request }
}

fn prompt(seed: u32) -> Request {
    told(words(Shape::Llama, seed, 30), 24)
}

#[track_caller]
fn same(got: &Answer, want: &Answer) {
    let apart = distance(got, want);
    assert!(apart < NEAR, "{apart} apart");
}

#[track_caller]
fn bring(peer: &mut Peer, seed: u32) -> Digest {
    peer.bring(&lora::adapter(seed), PIECE).unwrap()
}

#[test]
fn an_adapter_is_its_change_of_the_weights() {
    let mut peer = base();
    let plain = peer.generate(prompt(1));
    let (one, two) = (bring(&mut peer, 1), bring(&mut peer, 2));
    let sets: [&[(u32, f32)]; 6] = [
        &[(1, 1.0)],
        &[(1, 0.5)],
        &[(1, -0.5)],
        &[(2, 1.0)],
        &[(1, 0.5), (2, 0.75)],
        &[(1, 0.0), (2, 0.25)],
    ];
    for set in sets {
        let used: Vec<(Digest, f32)> =
            set.iter().map(|(seed, scale)| (if *seed == 1 { one } else { two }, *scale)).collect();
        let got = peer.generate(with(prompt(1), &used));
        same(&got, &merged(set).generate(prompt(1)));
        assert_ne!(tokens(&got), tokens(&plain), "{set:?} changes nothing");
        // The base is what it was before.
        same(&peer.generate(prompt(1)), &plain);
    }
}

#[test]
fn a_scale_of_zero_is_the_base() {
    let mut peer = base();
    let one = bring(&mut peer, 1);
    let plain = peer.generate(prompt(1));
    let nothing = peer.generate(with(prompt(1), &[(one, 0.0)]));
    assert_eq!(tokens(&nothing), tokens(&plain));
    // It may use what was computed for the base.
    assert!(nothing.cached() > 0);
}

#[test]
fn side_by_side_each_is_as_if_alone() {
    let mut peer = base();
    let (one, two) = (bring(&mut peer, 1), bring(&mut peer, 2));
    let sets: [&[(Digest, f32)]; 5] =
        [&[], &[(one, 1.0)], &[(two, 1.0)], &[(one, 0.5)], &[(one, 0.5), (two, 0.5)]];
    let requests: Vec<Request> = (0..10)
        .map(|at| {
            let request = Request { cache: false, ..told(words(Shape::Llama, at, 40), 40) };
            with(request, sets[usize::try_from(at).unwrap() % sets.len()])
        })
        .collect();
    let alone: Vec<Answer> =
        requests.iter().map(|request| peer.generate(request.clone())).collect();
    let together = peer.together(requests);
    alone.iter().zip(&together).for_each(|(alone, together)| same(together, alone));
}

#[test]
fn nothing_is_computed_without_an_adapter_that_was_asked_for() {
    let mut peer = base();
    let one = bring(&mut peer, 1);
    let id = peer.begin(with(told(words(Shape::Llama, 3, 20), 300), &[(one, 1.0)]));
    peer.until(id, |event| matches!(event, Event::Piece(_)));
    // An engine that does not keep count: it is gone while somebody computes with it.
    peer.send(&ToRunner::DropAdapter(one));
    let failure = loop {
        match peer.frame().unwrap() {
            FromRunner::Reply(which, Reply::Failed(failure)) if which == id => break failure,
            FromRunner::Reply(_, Reply::Event(Event::Finished(end))) => panic!("{end:?}"),
            _ => {}
        }
    };
    assert_eq!(failure.kind, FailureKind::Internal);
    assert!(failure.message.contains(&one.to_string()), "{failure:?}");
    // Others are served.
    assert!(!tokens(&peer.generate(prompt(1))).is_empty());
}

#[test]
fn an_adapter_arrives_while_the_model_answers() {
    let mut peer = base();
    let request = told(words(Shape::Llama, 3, 20), 300);
    let plain = peer.generate(Request { cache: false, ..request.clone() });
    let id = peer.begin(Request { cache: false, ..request });
    peer.until(id, |event| matches!(event, Event::Piece(_)));
    let file = lora::adapter(1);
    let digest = Digest(Sha256::digest(&file).into());
    let bytes = Bytes(file.len() as u64);
    peer.send(&ToRunner::BeginAdapter(HeldAdapter { digest, bytes }));
    for bytes in file.chunks(PIECE) {
        peer.send(&ToRunner::AdapterPiece(AdapterPiece { digest, bytes: bytes.to_vec() }));
    }
    let (mut arrived, mut pieces) = (false, 0);
    let mut finished = None;
    while !arrived || finished.is_none() {
        match peer.frame().unwrap() {
            tieline_types::wire::FromRunner::Adapter(got, result) => {
                assert_eq!((got, result), (digest, Ok(())));
                assert!(finished.is_none(), "it waited for the answer's end");
                arrived = true;
            }
            tieline_types::wire::FromRunner::Reply(_, reply) => match reply {
                tieline_types::wire::Reply::Event(Event::Finished(end)) => finished = Some(end),
                _ => pieces += 1,
            },
            other => panic!("{other:?}"),
        }
    }
    assert!(pieces > 0);
    assert_eq!(finished.unwrap().usage.completion_tokens, plain.usage().completion_tokens);
    let got = peer.generate(with(prompt(1), &[(digest, 1.0)]));
    same(&got, &merged(&[(1, 1.0)]).generate(prompt(1)));
}

#[test]
fn what_was_computed_with_others_is_never_used() {
    let mut peer = base();
    let (one, two) = (bring(&mut peer, 1), bring(&mut peer, 2));
    let sets: [&[(Digest, f32)]; 5] =
        [&[], &[(one, 1.0)], &[(one, 0.5)], &[(two, 1.0)], &[(one, 1.0), (two, 1.0)]];
    for set in sets {
        assert_eq!(peer.generate(with(prompt(1), set)).cached(), 0, "{set:?}");
    }
    for set in sets {
        let again = peer.generate(with(prompt(1), set));
        assert_eq!(again.cached(), 29, "{set:?}");
    }
    let miss = peer.generate(with(prompt(1), &[(two, 0.5)])).started.unwrap().miss.unwrap();
    assert_eq!(miss.reason, MissReason::Cold);
}

#[test]
fn nor_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let request = told(words(Shape::Llama, 5, 400), 4);
    let start = |folder: &Path| {
        let mut peer = Peer::start_with(&testkit::shape(Shape::Llama), Some(folder));
        peer.load(keeping(params())).unwrap();
        let one = bring(&mut peer, 1);
        (peer, one)
    };
    let (mut peer, one) = start(folder.path());
    let changed = peer.generate(with(request.clone(), &[(one, 1.0)]));
    assert!(peer.hang_up().success());
    let (mut peer, one) = start(folder.path());
    assert_eq!(peer.generate(request.clone()).cached(), 0);
    assert_eq!(peer.generate(with(request.clone(), &[(one, 0.5)])).cached(), 0);
    let again = peer.generate(with(request, &[(one, 1.0)]));
    assert!(again.cached() > 300, "{}", again.cached());
    same(&again, &changed);
}

#[test]
fn guesses_and_receipts_go_with_adapters() {
    let mut peer = base();
    let one = bring(&mut peer, 1);
    let request = with(told(words(Shape::Llama, 1, 30), 100), &[(one, 1.0)]);
    let plain = Request { cache: false, speculation: Speculation::Off, ..request.clone() };
    let want = peer.generate(plain.clone());
    let guessed = peer.generate(Request { speculation: Speculation::Always, ..plain.clone() });
    assert_eq!(tokens(&guessed), tokens(&want));
    let certain = Request { deterministic: true, ..plain };
    let receipt = peer.generate(certain).finished.receipt.unwrap();
    assert_eq!(receipt.adapters, request.adapters);
    let again = peer.generate(receipt.request()).finished.receipt.unwrap();
    assert_eq!(again.logits, receipt.logits);
    let base = Request { adapters: Adapters::default(), ..receipt.request() };
    assert_ne!(peer.generate(base).finished.receipt.unwrap().logits, receipt.logits);
}

#[track_caller]
fn refused(peer: &mut Peer, file: &[u8], kind: FailureKind, want: &str) {
    let failure = peer.bring(file, PIECE).unwrap_err();
    assert!(failure.kind == kind && failure.message.contains(want), "{failure:?}");
}

#[test]
fn what_does_not_fit_is_refused_and_the_runner_lives_on() {
    let mut peer = base();
    let plain = peer.generate(prompt(1));
    let bad = FailureKind::BadModel;
    refused(&mut peer, &lora::foreign_adapter(), bad, "does not fit the model (llama");
    refused(&mut peer, &lora::narrow_adapter(), bad, "incorrect shape");
    refused(&mut peer, b"no gguf at all", bad, "does not fit");
    refused(&mut peer, &std::fs::read(testkit::shape(Shape::Llama)).unwrap(), bad, "adapter");
    let whole = lora::adapter(1);
    refused(&mut peer, &whole[..whole.len() / 2], bad, "does not fit");
    let unknown = Digest([9; 32]);
    let failure = peer.failure(Work::Generate(Box::new(with(prompt(1), &[(unknown, 1.0)]))));
    assert!(failure.message.contains("was not brought here"), "{failure:?}");
    let one = bring(&mut peer, 1);
    assert_ne!(tokens(&peer.generate(with(prompt(1), &[(one, 1.0)]))), tokens(&plain));
    same(&peer.generate(prompt(1)), &plain);
}

#[test]
fn adapters_come_and_go() {
    let mut peer = base();
    let plain = peer.generate(prompt(1));
    let count = u32::try_from(ADAPTERS).unwrap();
    let all: Vec<Digest> = (0..count).map(|seed| bring(&mut peer, seed)).collect();
    // Once more is no more.
    assert_eq!(bring(&mut peer, 0), all[0]);
    refused(&mut peer, &lora::adapter(count), FailureKind::Busy, "are held already");
    let want = peer.generate(with(prompt(1), &[(all[0], 1.0)]));
    // One that the model computed with just now.
    peer.send(&ToRunner::DropAdapter(all[0]));
    let failure = peer.failure(Work::Generate(Box::new(with(prompt(1), &[(all[0], 1.0)]))));
    assert!(failure.message.contains("was not brought here"), "{failure:?}");
    same(&peer.generate(prompt(1)), &plain);
    let again = bring(&mut peer, 0);
    same(&peer.generate(with(prompt(1), &[(again, 1.0)])), &want);
}

#[test]
fn a_real_model_says_something_else_and_the_same_without() {
    let mut peer = Peer::exact();
    let ask = || question("What is the capital of France?");
    let plain = peer.generate(ask());
    let one = peer.bring(&lora::smollm2_adapter(1), 1 << 20).unwrap();
    let changed = peer.generate(with(ask(), &[(one, 1.0)]));
    assert_ne!(changed.text, plain.text);
    let [base, other] = &peer.together([ask(), with(ask(), &[(one, 1.0)])])[..] else { panic!() };
    assert_eq!(base.text, plain.text);
    // Random weights make many ties, which fall as the shape of a step has it: that texts are equal with an adapter,
    // too, is shown with float weights above.
    assert_ne!(other.text, plain.text);
}
