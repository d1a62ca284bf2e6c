//! What the whole chain of carrying costs beside the bare backend: for each request, and for each event of its
//! answer. `cargo run --release -p tieline-router --example carry_overhead`

#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tieline_router::carry::{
    Attempts, Candidate, Cascade, Features, Gate, Hedge, Hold, Limits, Verdict, Watch, breaker,
};
use tieline_types::{
    Backend, BackendError, Event, EventStream, FinishReason, Finished, Piece, Prompt, Request,
    Started, Timing, Usage, Zone,
};

const ROUNDS: u32 = 7;

/// Answers at once, so many pieces.
#[derive(Debug)]
struct Bare {
    pieces: u32,
}

#[async_trait]
impl Backend for Bare {
    fn name(&self) -> &str {
        "bare"
    }

    fn zone(&self) -> Zone {
        Zone::Host
    }

    async fn run(&self, _: Request) -> Result<EventStream, BackendError> {
        let pieces = self.pieces;
        let finished = Finished {
            reason: FinishReason::EndOfTurn,
            usage: Usage::default(),
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        };
        let event = move |number| {
            Ok(match number {
                0 => Event::Started(Started::default()),
                number if number > pieces => Event::Finished(Box::new(finished.clone())),
                _ => Event::Piece(Piece { text: "word ".into(), logprobs: Vec::new() }),
            })
        };
        Ok(Box::pin(stream::iter(0..=pieces + 1).map(event)))
    }
}

fn watch() -> Watch {
    Watch::new(1, Arc::new(|attempt| drop(std::hint::black_box(attempt))))
}

fn candidate(pieces: u32) -> Candidate {
    let text = |text: &str| text.to_owned();
    let key = breaker::Key { host: text("host"), model: text("model"), key: text("key"), turn: 0 };
    Candidate { breaker: Some(key), ..Candidate::new(Arc::new(Bare { pieces })) }
}

fn attempts(pieces: u32) -> Attempts {
    Attempts::new(vec![candidate(pieces), candidate(pieces)], Limits::default(), watch())
}

/// The backends that are compared.
fn ways(pieces: u32) -> [(&'static str, Arc<dyn Backend>); 4] {
    let hedge = Hedge {
        after: Duration::from_secs(1),
        second: candidate(pieces),
        may_pay: Arc::new(|| Box::pin(async { true })),
        told: Arc::new(|_| ()),
    };
    let gate: Gate = Arc::new(|_: &Features| Verdict::Keep);
    let hold = Hold { tokens: 32, time: Duration::from_secs(1), whole: false };
    let cascade = Cascade::new(candidate(pieces), &attempts(pieces), Some(hold), gate);
    [
        ("bare", Arc::new(Bare { pieces })),
        ("attempts", Arc::new(attempts(pieces))),
        ("attempts, hedged", Arc::new(attempts(pieces).hedged(hedge))),
        ("cascade", Arc::new(cascade)),
    ]
}

/// The time of one request, in nanoseconds, as the mean of many.
async fn time(backend: &dyn Backend, requests: u32) -> Result<f64, BackendError> {
    let request = Request::new(Prompt::Text("hello".into()));
    let start = Instant::now();
    for _ in 0..requests {
        let mut stream = backend.run(request.clone()).await?;
        while let Some(event) = stream.next().await {
            std::hint::black_box(event?);
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e9 / f64::from(requests))
}

/// The median of some rounds.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The median time of a request for each way; the ways take turns, so that all see the same machine.
async fn table(pieces: u32, requests: u32) -> Result<Vec<(&'static str, f64)>, BackendError> {
    let ways = ways(pieces);
    let mut times = vec![Vec::new(); ways.len()];
    for _ in 0..ROUNDS {
        for ((_, backend), times) in ways.iter().zip(&mut times) {
            times.push(time(&**backend, requests).await?);
        }
    }
    let names = ways.iter().map(|(name, _)| *name);
    Ok(names.zip(times.into_iter().map(median)).collect())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BackendError> {
    let short = table(1, 50_000).await?;
    let long = table(1001, 500).await?;
    println!("{:<18} {:>14} {:>14}", "", "ns per request", "ns per event");
    for ((name, short), (_, long)) in short.iter().zip(&long) {
        println!("{name:<18} {short:>14.0} {:>14.1}", (long - short) / 1000.0);
    }
    Ok(())
}
