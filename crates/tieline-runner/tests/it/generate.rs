//! Generating text.

use tieline_types::wire::{FailureKind, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Event, FinishReason, LoadParams, Prompt, Request, Sampling, Speculation, Tokens,
};

use crate::peer::{Peer, going_on, long_text, question, some_tokens};

/// What SmolLM2-135M-Instruct Q4_1 answers, token for token, on every build so far.
const FRANCE: &str = "The capital of France is Paris.";

#[test]
fn greedy_text_is_the_same_each_time() {
    let mut peer = Peer::ready();
    let first = peer.generate(question("What is the capital of France?"));
    assert_eq!(first.text, FRANCE);
    assert_eq!(first.finished.reason, FinishReason::EndOfTurn);
    assert_eq!(first.finished.usage.cached_tokens, Tokens(0));
    let again = peer.generate(question("What is the capital of France?"));
    assert_eq!(again.text, FRANCE);
    // All but the last token of the prompt is still there.
    assert_eq!(again.finished.usage.cached_tokens.0, first.finished.usage.prompt_tokens.0 - 1);
    drop(peer);
    assert_eq!(Peer::ready().generate(question("What is the capital of France?")).text, FRANCE);
}

#[test]
fn usage_and_timing_add_up() {
    let answer = Peer::ready().generate(question("What is the capital of France?"));
    let finished = answer.finished;
    // 7 words, the full stop, and the end of turn.
    assert_eq!(finished.usage.completion_tokens, Tokens(8));
    assert!(finished.timing.prefill.as_nanos() > 0 && finished.timing.decode.as_nanos() > 0);
    assert!(finished.prefill_tps().unwrap() > 0.0 && finished.decode_tps().unwrap() > 0.0);
    assert!(finished.peak_memory.unwrap().0 > 90_000_000);
}

/// Beside weights, KV cache and compute buffers: the program, the vocabulary, and of the rows of logits the used ones.
#[cfg(target_os = "linux")]
#[test]
fn it_takes_little_beside_the_model() {
    let mut peer = Peer::start(testkit::smollm2());
    // Each thread has a scratch of its own.
    let two = Some(2);
    let params = LoadParams { threads: two, threads_batch: two, ..LoadParams::default() };
    let loaded = peer.load(params).unwrap();
    // Long enough to use all of the compute buffers.
    peer.generate(going_on(some_tokens(1, 600), 4));
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.child.id())).unwrap();
    let held = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let held: u64 = held.trim().trim_end_matches(" kB").parse().unwrap();
    let buffers = loaded.memory.sum(tieline_types::BufferUse::total);
    let rest = (held * 1024).saturating_sub(buffers.0);
    // 20.1 MB were seen, and 24.6 MB where the rows of all sequences stay.
    assert!(rest < 23_500_000, "{rest} bytes beside {buffers:?}");
}

#[test]
fn the_token_limit_holds() {
    let mut peer = Peer::ready();
    for limit in [0, 1, 5] {
        let answer =
            peer.generate(Request { max_tokens: Some(Tokens(limit)), ..question("Count to ten.") });
        assert_eq!(answer.finished.reason, FinishReason::MaxTokens);
        assert_eq!(answer.finished.usage.completion_tokens, Tokens(limit));
    }
}

#[test]
fn a_stop_text_ends_the_answer_before_it() {
    let stop = vec!["France is".to_owned(), "never".to_owned()];
    let answer =
        Peer::ready().generate(Request { stop, ..question("What is the capital of France?") });
    assert_eq!(answer.text, "The capital of ");
    assert_eq!(answer.finished.reason, FinishReason::StopText("France is".to_owned()));
}

#[test]
fn a_seed_makes_sampling_repeatable() {
    let mut peer = Peer::ready();
    let mut ask = |seed| {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        // What a seed promises holds for steps of the same shape. A cached prompt is computed in others, and
        // how much is guessed ahead follows the time that steps took; both round otherwise.
        let request = Request {
            sampling,
            cache: false,
            speculation: Speculation::Off,
            ..question("Tell me a story.")
        };
        let answer = peer.generate(request);
        (answer.text, answer.finished.seed)
    };
    let (text, seed) = ask(Some(7));
    assert_eq!(seed, 7);
    assert_eq!(ask(Some(7)).0, text);
    assert_ne!(ask(Some(8)).0, text);
    // An unseeded answer names its seed, which repeats it.
    let (text, seed) = ask(None);
    assert_eq!(ask(Some(seed)).0, text);
}

#[test]
fn each_sampling_parameter_does_something() {
    let mut peer = Peer::ready();
    let hot = Sampling {
        temperature: 2.0,
        seed: Some(1),
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..Sampling::default()
    };
    // Nothing cached and nothing guessed: the shape of a batch decides between tokens that are nearly as likely.
    let mut ask = |sampling: Sampling| {
        let plain = Request { cache: false, ..question("Tell me a story.") };
        peer.generate(Request { sampling, speculation: Speculation::Off, ..plain }).text
    };
    let wild = ask(hot.clone());
    let greedy = ask(Sampling::greedy());
    // Keeping a single candidate is greedy, whatever the temperature.
    assert_eq!(ask(Sampling { top_k: 1, ..hot.clone() }), greedy);
    assert_eq!(ask(Sampling { top_p: 0.0, ..hot.clone() }), greedy);
    assert_eq!(ask(Sampling { min_p: 1.0, ..hot.clone() }), greedy);
    assert_ne!(wild, greedy);
    for changed in [
        Sampling { repeat_penalty: 1.8, ..Sampling::greedy() },
        Sampling { presence_penalty: 2.0, ..Sampling::greedy() },
        Sampling { frequency_penalty: 2.0, ..Sampling::greedy() },
    ] {
        assert_ne!(ask(changed.clone()), greedy, "{changed:?}");
    }
}

#[test]
fn logprobs_name_the_chosen_token_first() {
    let mut peer = Peer::ready();
    let answer =
        peer.generate(Request { logprobs: Some(3), ..question("What is the capital of France?") });
    // The end of turn is no text and has no entry.
    assert_eq!(answer.logprobs.len(), 7);
    let bytes: Vec<u8> = answer.logprobs.iter().flat_map(|entry| entry.bytes.clone()).collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), FRANCE);
    for entry in &answer.logprobs {
        assert_eq!(entry.alternatives.len(), 3);
        assert_eq!(entry.alternatives[0].token, entry.token);
        assert!(entry.alternatives.is_sorted_by(|a, b| a.logprob >= b.logprob));
        assert!(
            entry.logprob <= 0.0 && entry.alternatives.iter().all(|a| a.logprob <= entry.logprob)
        );
    }
}

#[test]
fn the_context_is_never_cut_in_silence() {
    let mut peer =
        Peer::ready_with(LoadParams { context: Some(Tokens(250)), ..LoadParams::default() });
    let too_long = Request::new(Prompt::Text(long_text(300)));
    let failure = peer.failure(Work::Generate(Box::new(too_long)));
    assert_eq!(failure.kind, FailureKind::ContextExceeded);
    assert_eq!(
        failure.message,
        "the prompt has 300 tokens and the context holds 250, one of them for the answer"
    );
    let mut long = Request::new(Prompt::Text(long_text(244)));
    long.ignore_eog = true;
    let answer = peer.generate(long);
    assert_eq!(answer.finished.reason, FinishReason::ContextFull);
    // Six more fit, and the last one chosen needs no place.
    assert_eq!(answer.finished.usage.completion_tokens, Tokens(7));
}

#[test]
fn an_answer_that_goes_on_past_its_end_does_not_say_it() {
    let mut peer = Peer::ready();
    let mut request = question("What is the capital of France?");
    request.max_tokens = Some(Tokens(120));
    request.ignore_eog = true;
    let answer = peer.generate(request);
    assert!(answer.text.starts_with(FRANCE), "{}", answer.text);
    assert_eq!(answer.finished.reason, FinishReason::MaxTokens);
    // What comes after an end is another turn, by whom it is: that was said before.
    assert!(
        !answer.text.contains("\nuser\n") && !answer.text.contains("system\n"),
        "{}",
        answer.text
    );
}

#[test]
fn bad_parameters_are_refused_by_name() {
    let mut peer = Peer::ready();
    let mut request = question("Hi");
    request.sampling.top_p = 2.0;
    let failure = peer.failure(Work::Generate(Box::new(request)));
    assert_eq!(failure.message, "top_p is 2: expected a number from 0 to 1");
    let unknown = Request::new(Prompt::Tokens(vec![1, 99_999]));
    let failure = peer.failure(Work::Generate(Box::new(unknown)));
    assert_eq!(failure.message, "token 99999 is not in the vocabulary of 49152");
    assert_eq!(failure.kind, FailureKind::InvalidRequest);
}

#[test]
fn cancelling_stops_a_generation_within_two_tokens() {
    let mut peer = Peer::ready();
    let mut request = question("Tell me a long story.");
    request.max_tokens = None;
    request.ignore_eog = true;
    let id = peer.order(Work::Generate(Box::new(request)));
    assert!(matches!(peer.reply(id), Reply::Event(Event::Started(_))));
    for _ in 0..5 {
        assert!(matches!(peer.reply(id), Reply::Event(Event::Piece(_))));
    }
    peer.send(&ToRunner::Cancel(id));
    // The pong says that the cancellation was read; the pieces before it were on their way. The end may come
    // before it or after it.
    peer.send(&ToRunner::Ping(1));
    let (mut seen, mut finished, mut ponged) = (5, None, false);
    while finished.is_none() || !ponged {
        match peer.frame().expect("the runner went away") {
            FromRunner::Pong { number: 1, .. } => ponged = true,
            FromRunner::Reply(_, Reply::Event(Event::Finished(end))) => finished = Some(*end),
            _ if !ponged => seen += 1,
            _ => {}
        }
    }
    let finished = finished.unwrap();
    assert_eq!(finished.reason, FinishReason::Cancelled);
    let after = finished.usage.completion_tokens.0 - seen;
    assert!(after <= 2, "{after} tokens after the cancellation");
    // And the runner goes on as if nothing happened.
    assert_eq!(peer.generate(question("What is the capital of France?")).text, FRANCE);
}

#[test]
fn cancelling_stops_a_prefill() {
    let mut peer =
        Peer::ready_with(LoadParams { context: Some(Tokens(8192)), ..LoadParams::default() });
    let id = peer.order(Work::Generate(Box::new(Request::new(Prompt::Text(long_text(8000))))));
    assert!(matches!(peer.reply(id), Reply::Event(Event::Started(_))));
    peer.send(&ToRunner::Cancel(id));
    let answer = peer.rest(id);
    assert_eq!(answer.finished.reason, FinishReason::Cancelled);
    assert_eq!(answer.finished.usage.completion_tokens, Tokens(0));
    assert_eq!(peer.generate(question("What is the capital of France?")).text, FRANCE);
}

#[test]
fn work_cancelled_while_it_waits_never_starts() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(512)),
        parallel: 1,
        ..LoadParams::default()
    });
    let mut long = question("Tell me a long story.");
    long.ignore_eog = true;
    let first = peer.order(Work::Generate(Box::new(long.clone())));
    let second = peer.order(Work::Generate(Box::new(long)));
    peer.send(&ToRunner::Cancel(second));
    let (mut ends, mut started) = (Vec::new(), Vec::new());
    while ends.len() < 2 {
        match peer.frame().expect("the runner went away") {
            FromRunner::Reply(id, Reply::Event(Event::Started(_))) => started.push(id),
            FromRunner::Reply(id, Reply::Event(Event::Finished(end))) => ends.push((id, *end)),
            _ => {}
        }
    }
    assert_eq!(started, [first]);
    let end = |id| &ends.iter().find(|(of, _)| *of == id).unwrap().1;
    assert_eq!(end(first).usage.completion_tokens, Tokens(48));
    assert_eq!(end(second).reason, FinishReason::Cancelled);
    assert_eq!(end(second).usage.completion_tokens, Tokens(0));
}
