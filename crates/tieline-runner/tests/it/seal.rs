//! What the jail costs: the same work by a runner that is shut in and by one that is not.

use tieline_types::wire::{Reply, Work};
use tieline_types::{JailLevel, LoadParams, Tokens};

use crate::peer::Peer;

/// Times in microseconds, the best of several rounds: what others do on the machine only adds.
#[derive(Debug)]
struct Best {
    prefill_us: u64,
    decode_us: u64,
}

impl Best {
    fn note(&mut self, reply: &Reply) {
        let Reply::Measured { prefill_us, decode_us } = reply else { panic!("{reply:?}") };
        assert!(*prefill_us > 0 && *decode_us > 0);
        self.prefill_us = self.prefill_us.min(*prefill_us);
        self.decode_us = self.decode_us.min(*decode_us);
    }
}

fn ready(arguments: &[&str]) -> Peer {
    let mut peer = Peer::start_by(
        |command| {
            command.args(arguments);
        },
        testkit::smollm2(),
        None,
    );
    let params = LoadParams { context: Some(Tokens(512)), ..LoadParams::default() };
    let jail = peer.load(params).unwrap().jail;
    assert_eq!(jail.level() >= JailLevel::Sealed, arguments.is_empty(), "{jail:?}");
    peer
}

/// The ratio is published, not asserted: it is a matter of the machine, and of who else uses it.
#[test]
fn the_jail_is_measured_against_none() {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok());
    let rounds = asked("TIELINE_SEAL_ROUNDS").unwrap_or(1);
    let (prefill, decode) = if rounds > 1 { (256, 64) } else { (16, 4) };
    let mut runners = [ready(&[]), ready(&["jail=no"])];
    let mut best = [(); 2].map(|()| Best { prefill_us: u64::MAX, decode_us: u64::MAX });
    // By turns, so that both see the same machine.
    for _ in 0..rounds {
        for (runner, best) in runners.iter_mut().zip(&mut best) {
            let work = Work::Measure { prefill: Tokens(prefill), decode: Tokens(decode) };
            best.note(&runner.ask(work));
        }
    }
    let [sealed, free] = best;
    println!(
        r#"PROOF {{"prover":"seal","rounds":{rounds},"prefill_tokens":{prefill},"decode_tokens":{decode},"sealed_prefill_us":{},"free_prefill_us":{},"sealed_decode_us":{},"free_decode_us":{}}}"#,
        sealed.prefill_us, free.prefill_us, sealed.decode_us, free.decode_us
    );
}
