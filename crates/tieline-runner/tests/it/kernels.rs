//! Our matrix kernels on real weights, beside ggml's.

use std::collections::HashMap;

use tieline_types::{LoadParams, Request, Tokens};

use crate::peer::{Peer, going_on, some_tokens};

/// The likeliest tokens that are compared.
const LIKELIEST: u8 = Request::MAX_LOGPROBS;

/// Prompts longer and shorter than the kernels' tiles.
fn prompts() -> Vec<Request> {
    let lengths = [4, 5, 6, 7, 12, 13, 29, 64, 65, 150, 200, 201];
    let mut prompts = Vec::new();
    for (seed, length) in (0..).zip(lengths) {
        let logprobs = Some(LIKELIEST);
        prompts.push(Request { logprobs, cache: false, ..going_on(some_tokens(seed, length), 1) });
    }
    prompts
}

/// The logarithms of the likeliest first tokens' probabilities, prompt by prompt.
fn likeliest(peer: &mut Peer) -> Vec<HashMap<u32, f64>> {
    let first = |request| {
        let answer = peer.generate(request);
        let alternatives = &answer.logprobs[0].alternatives;
        alternatives.iter().map(|one| (one.token, f64::from(one.logprob))).collect()
    };
    prompts().into_iter().map(first).collect()
}

/// The mean Kullback-Leibler divergence of `other` from `reference` in nats, over the tokens that
/// `reference` finds likeliest; one that `other` does not list counts as its least likely.
fn divergence(reference: &[HashMap<u32, f64>], other: &[HashMap<u32, f64>]) -> f64 {
    let one = |(reference, other): (&HashMap<u32, f64>, &HashMap<u32, f64>)| {
        let least = other.values().copied().fold(0.0, f64::min);
        reference
            .iter()
            .map(|(token, log)| log.exp() * (log - other.get(token).unwrap_or(&least)))
            .sum::<f64>()
    };
    let all: f64 = reference.iter().zip(other).map(one).sum();
    let count = u32::try_from(reference.len()).unwrap();
    all / f64::from(count)
}

fn quantised(own_kernels: bool) -> (Peer, Vec<String>) {
    let mut peer = Peer::start(testkit::smollm2());
    let context = Some(Tokens(512));
    let loaded = peer.load(LoadParams { context, own_kernels, ..LoadParams::default() }).unwrap();
    (peer, loaded.kernels)
}

/// Both round activations to 8 bits, each its own way: neither is nearer to float weights by more than chance.
#[test]
fn they_are_as_near_to_float_weights_as_ggmls_own() {
    let (mut own, names) = quantised(true);
    if !names.iter().any(|name| name.starts_with("TIELINE-")) {
        eprintln!("skipped: this processor has none of the instructions that the kernels are for");
        return;
    }
    assert!(!names.iter().any(|name| name.starts_with("TIELINE-OFF")), "{names:?}");
    let reference = likeliest(&mut Peer::exact());
    let ours = likeliest(&mut own);
    let ggmls = likeliest(&mut quantised(false).0);
    assert_ne!(ours, ggmls, "the kernels were not used");
    let (ours, ggmls) = (divergence(&reference, &ours), divergence(&reference, &ggmls));
    println!("nats from float weights: ours {ours:.5}, ggml's {ggmls:.5}");
    assert!(ours < 3.0 * ggmls && ours < 0.05, "ours {ours}, ggml's {ggmls}");
}

#[test]
fn they_are_left_out_where_asked() {
    let (_, names) = quantised(false);
    assert!(!names.iter().any(|name| name.starts_with("TIELINE-")), "{names:?}");
}
