//! What a runner measures of its threads at load, and what it is told of them.

use tieline_types::{LoadParams, Pace, Request, Tokens};

use crate::peer::{Peer, going_on, some_tokens};

/// Loads with one thread and what is known of it; what it measured.
fn paces_of(known: &[Pace]) -> Vec<Pace> {
    let mut peer = Peer::start(testkit::smollm2());
    let (context, threads) = (Some(Tokens(256)), Some(1));
    let params = LoadParams { context, threads, paces: known.to_vec(), ..LoadParams::default() };
    let loaded = peer.load(params).unwrap();
    let request = Request { deterministic: true, ..going_on(some_tokens(1, 9), 2) };
    let receipt = peer.generate(request).finished.receipt.unwrap();
    assert_eq!(receipt.params.paces, [], "they change no answer");
    loaded.paces
}

#[test]
fn what_is_known_is_not_measured_again() {
    assert_eq!(paces_of(&[Pace { threads: 1, token_ns: 20_000_000 }]), []);
}

#[test]
fn what_is_not_known_of_as_many_threads_is_measured() {
    for known in [&[][..], &[Pace { threads: 9, token_ns: 20_000_000 }]] {
        let measured = paces_of(known);
        let [Pace { threads: 1, token_ns }] = measured[..] else { unreachable!("{measured:?}") };
        assert!((1_000..60_000_000_000).contains(&token_ns), "{token_ns}");
    }
}
