//! What the jail costs: the same work by a runner that is shut in and by one that is not.

use tieline_types::wire::{Reply, Work};
use tieline_types::{JailLevel, LoadParams, Tokens};

use crate::peer::Peer;

/// Times in microseconds, of each round.
#[derive(Debug, Default)]
struct Times {
    prefill_us: Vec<u64>,
    decode_us: Vec<u64>,
}

impl Times {
    fn note(&mut self, reply: &Reply) {
        let Reply::Measured { prefill_us, decode_us } = reply else { panic!("{reply:?}") };
        assert!(*prefill_us > 0 && *decode_us > 0);
        self.prefill_us.push(*prefill_us);
        self.decode_us.push(*decode_us);
    }
}

/// The speed of the sealed one as a share of the free one's, in thousandths: the median over the rounds, and
/// the 95 % interval of the median by the ranks of a binomial distribution, `null` where there are too few.
fn ratio(sealed: &[u64], free: &[u64]) -> String {
    let mut ratios: Vec<u64> =
        sealed.iter().zip(free).map(|(sealed, free)| free * 1000 / sealed).collect();
    ratios.sort_unstable();
    let count = ratios.len();
    let interval = lowest_rank(count).map_or("null".to_owned(), |rank| {
        format!("[{},{}]", ratios[rank], ratios[count - 1 - rank])
    });
    format!(r#"{{"median":{},"interval":{interval}}}"#, ratios[count / 2])
}

/// How many of so many values lie below the interval of their median, and as many above it.
fn lowest_rank(count: usize) -> Option<usize> {
    let (mut below, mut term) = (0.0, 0.5_f64.powi(i32::try_from(count).unwrap()));
    for rank in 0..count {
        below += term;
        if below > 0.025 {
            return rank.checked_sub(1);
        }
        #[expect(clippy::cast_precision_loss, reason = "few rounds")]
        let step = (count - rank) as f64 / (rank + 1) as f64;
        term *= step;
    }
    None
}

#[test]
fn the_interval_is_that_of_a_sign_test() {
    let ranks = [5, 6, 8, 9, 12, 17, 20].map(lowest_rank);
    assert_eq!(ranks, [None, Some(0), Some(0), Some(1), Some(2), Some(4), Some(5)]);
    assert_eq!(ratio(&[100, 200, 100], &[100, 100, 90]), r#"{"median":900,"interval":null}"#);
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
    let mut times = [(); 2].map(|()| Times::default());
    // By turns, so that both see the same machine, and each first as often as the other.
    for round in 0..rounds {
        for turn in [round % 2, 1 - round % 2] {
            let at = usize::try_from(turn).unwrap();
            let work = Work::Measure { prefill: Tokens(prefill), decode: Tokens(decode) };
            times[at].note(&runners[at].ask(work));
        }
    }
    let [sealed, free] = times;
    let best = |times: &[u64]| times.iter().copied().min().unwrap();
    println!(
        r#"PROOF {{"prover":"seal","rounds":{rounds},"prefill_tokens":{prefill},"decode_tokens":{decode},"sealed_prefill_us":{},"free_prefill_us":{},"sealed_decode_us":{},"free_decode_us":{},"prefill_thousandths":{},"decode_thousandths":{}}}"#,
        best(&sealed.prefill_us),
        best(&free.prefill_us),
        best(&sealed.decode_us),
        best(&free.decode_us),
        ratio(&sealed.prefill_us, &free.prefill_us),
        ratio(&sealed.decode_us, &free.decode_us)
    );
}
