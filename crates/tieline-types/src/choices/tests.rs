//! Answers from a script, polled by hand.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;

use async_trait::async_trait;
use proptest::prelude::*;

use super::*;
use crate::{FinishReason, Finished, Prompt, Timing, TokenLogprob, Zone};

/// A step of a script: `None` is a wait.
type Step = Option<Result<Event, BackendError>>;

/// Answers the first request with the first script, and so on; a script that is `None` is a refusal.
#[derive(Debug)]
struct Scripted {
    scripts: Mutex<VecDeque<Option<Vec<Step>>>>,
    asked: Mutex<Vec<Request>>,
    open: Arc<AtomicUsize>,
}

impl Scripted {
    fn new(scripts: impl IntoIterator<Item = Option<Vec<Step>>>) -> Self {
        Self {
            scripts: Mutex::new(scripts.into_iter().collect()),
            asked: Mutex::default(),
            open: Arc::default(),
        }
    }
}

struct Script {
    steps: VecDeque<Step>,
    open: Arc<AtomicUsize>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Stream for Script {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.steps.pop_front() {
            Some(None) => Poll::Pending,
            Some(event) => Poll::Ready(event),
            None => Poll::Ready(None),
        }
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn zone(&self) -> Zone {
        Zone::Host
    }

    async fn run(&self, request: Request) -> Result<EventStream, BackendError> {
        self.asked.lock().unwrap().push(request);
        let script = self.scripts.lock().unwrap().pop_front().unwrap();
        let steps = script.ok_or_else(|| BackendError::new(ErrorKind::Busy, "full"))?;
        self.open.fetch_add(1, Ordering::Relaxed);
        Ok(Box::pin(Script { steps: steps.into(), open: Arc::clone(&self.open) }))
    }
}

fn says(text: &str, logprobs: &[f32]) -> Step {
    let entry = |&logprob: &f32| TokenLogprob {
        token: 1,
        bytes: Vec::new(),
        logprob,
        alternatives: Vec::new(),
    };
    let logprobs = logprobs.iter().map(entry).collect();
    Some(Ok(Event::Piece(Piece { text: text.into(), logprobs })))
}

fn ends(usage: Usage) -> Step {
    Some(Ok(Event::Finished(Box::new(Finished {
        reason: FinishReason::EndOfTurn,
        usage,
        timing: Timing::default(),
        seed: 0,
        peak_memory: None,
        receipt: None,
    }))))
}

fn done() -> Step {
    ends(Usage::default())
}

fn fails() -> Step {
    Some(Err(BackendError::new(ErrorKind::Crashed, "died")))
}

fn request() -> Request {
    let mut request = Request::new(Prompt::Text("hi".into()));
    request.sampling.seed = Some(7);
    request
}

fn started(
    backend: &Scripted,
    request: Request,
    plan: ChoicePlan,
) -> Result<Choices, BackendError> {
    let mut future = std::pin::pin!(choices(backend, request, plan));
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("the script accepts at once"),
    }
}

fn all(n: u32) -> ChoicePlan {
    ChoicePlan { n, best_of: None }
}

fn best(n: u32, of: u32) -> ChoicePlan {
    ChoicePlan { n, best_of: Some(of) }
}

/// Every step in a word: the answer's number and its text, `.` for an end and `!` for an error.
fn told(choices: &mut Choices) -> Vec<String> {
    let mut told = Vec::new();
    let mut waits = 0;
    loop {
        match Pin::new(&mut *choices).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => {
                waits += 1;
                assert!(waits < 1000, "nothing comes any more");
            }
            Poll::Ready(None) => return told,
            Poll::Ready(Some(ChoiceEvent { index, event })) => told.push(match event {
                Ok(Event::Piece(piece)) => format!("{index}{}", piece.text.expose()),
                Ok(Event::Finished(_)) => format!("{index}."),
                Ok(other) => panic!("{other:?}"),
                Err(_) => format!("{index}!"),
            }),
        }
    }
}

#[track_caller]
fn check(scripts: Vec<Option<Vec<Step>>>, plan: ChoicePlan, want: &[&str]) {
    let backend = Scripted::new(scripts);
    let mut choices = started(&backend, request(), plan).unwrap();
    assert_eq!(told(&mut choices), want);
    assert_eq!(backend.open.load(Ordering::Relaxed), 0, "an answer was left open");
}

#[test]
fn answers_come_side_by_side() {
    let scripts = vec![
        Some(vec![says("a", &[]), None, None, says("b", &[]), done()]),
        Some(vec![None, says("c", &[]), done()]),
    ];
    check(scripts, all(2), &["0a", "1c", "1.", "0b", "0."]);
}

#[test]
fn a_failure_is_one_answers_alone() {
    let scripts = vec![
        Some(vec![says("a", &[]), fails(), says("never", &[])]),
        None,
        Some(vec![says("b", &[])]),
        Some(vec![says("c", &[]), done(), says("never", &[])]),
    ];
    check(scripts, all(4), &["0a", "1!", "2b", "3c", "0!", "2!", "3."]);
}

#[test]
fn if_all_are_refused_the_request_is() {
    let backend = Scripted::new([None, None]);
    assert_eq!(started(&backend, request(), all(2)).unwrap_err().kind, ErrorKind::Busy);
}

#[test]
fn dropping_the_stream_cancels_all() {
    let backend = Scripted::new((0..3).map(|_| Some(vec![says("a", &[]), None])));
    let choices = started(&backend, request(), all(3)).unwrap();
    assert_eq!(backend.open.load(Ordering::Relaxed), 3);
    drop(choices);
    assert_eq!(backend.open.load(Ordering::Relaxed), 0);
}

#[test]
fn seeds_follow_each_other() {
    let asked = |seed: Option<u32>| {
        let backend = Scripted::new((0..3).map(|_| Some(vec![done()])));
        let mut request = request();
        request.sampling.seed = seed;
        started(&backend, request, all(3)).unwrap();
        let asked = backend.asked.into_inner().unwrap();
        asked.iter().map(|request| request.sampling.seed).collect::<Vec<_>>()
    };
    assert_eq!(asked(Some(7)), [Some(7), Some(8), Some(9)]);
    // The highest number is no seed.
    assert_eq!(asked(Some(u32::MAX - 2)), [Some(u32::MAX - 2), Some(u32::MAX - 1), Some(0)]);
    assert_eq!(asked(None), [None; 3]);
}

#[test]
fn the_best_are_given_best_first() {
    let scripts = || {
        vec![
            Some(vec![says("a", &[-1.0, -3.0]), done()]),
            Some(vec![says("b", &[-0.5]), None, says("", &[-0.5]), done()]),
            Some(vec![says("c", &[-1.0]), done()]),
            Some(vec![says("d", &[-0.1]), fails()]),
            Some(vec![done()]),
        ]
    };
    check(scripts(), best(1, 5), &["0b", "0."]);
    // Neither an empty answer nor one that failed is better than any other.
    check(scripts(), best(5, 5), &["0b", "0.", "1c", "1.", "2a", "2.", "3.", "4d", "4!"]);
}

#[test]
fn of_equals_the_first_is_the_better() {
    let scripts = ["a", "b", "c"].map(|text| Some(vec![says(text, &[-1.0]), done()]));
    check(scripts.into(), best(2, 3), &["0a", "0.", "1b", "1."]);
}

#[test]
fn scores_are_means_and_losers_count_in_usage() {
    let usage = |cached, completion| Usage {
        prompt_tokens: Tokens(10),
        cached_tokens: Tokens(cached),
        completion_tokens: Tokens(completion),
        ..Usage::default()
    };
    let backend = Scripted::new([
        Some(vec![says("a", &[-1.0, -2.0]), ends(usage(0, 3))]),
        Some(vec![says("b", &[-4.0]), ends(usage(9, 2))]),
    ]);
    let mut choices = started(&backend, request(), best(1, 2)).unwrap();
    assert_eq!(told(&mut choices), ["0a", "0."]);
    assert_eq!((choices.score(0), choices.score(1)), (Some(-1.5), None));
    assert_eq!(choices.usage(), usage(0, 5));
}

#[test]
fn log_probabilities_come_only_to_who_asked() {
    let entries = |asked: Option<u8>| {
        let backend =
            Scripted::new([Some(vec![says("a", &[-1.0]), says("", &[-1.0]), done()]), None]);
        let request = Request { logprobs: asked, ..request() };
        let mut choices = started(&backend, request, best(1, 2)).unwrap();
        let wanted = backend.asked.lock().unwrap()[0].logprobs;
        let mut pieces = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(step)) = Pin::new(&mut choices).poll_next(&mut context) {
            if let Ok(Event::Piece(piece)) = step.event {
                pieces.push(piece.logprobs.len());
            }
        }
        (wanted, pieces)
    };
    assert_eq!(entries(None), (Some(0), vec![0]));
    assert_eq!(entries(Some(3)), (Some(3), vec![1, 1]));
    // Where nothing is to be chosen, nothing is asked for.
    let backend = Scripted::new([Some(vec![done()])]);
    started(&backend, request(), all(1)).unwrap();
    assert_eq!(backend.asked.lock().unwrap()[0].logprobs, None);
}

#[test]
fn what_is_told_of_the_prompt_is_no_part_of_the_score() {
    let told = |logprob| {
        let Some(Ok(Event::Piece(piece))) = says("", &[logprob]) else { panic!("no piece") };
        Some(Ok(Event::PromptLogprobs(piece.logprobs)))
    };
    let backend = Scripted::new([
        Some(vec![told(-1.0), says("a", &[-2.0]), done()]),
        Some(vec![told(-9.0), told(-9.0), says("b", &[-1.0]), done()]),
    ]);
    let request = Request { prompt_logprobs: Some(0), ..request() };
    let mut choices = started(&backend, request, best(1, 2)).unwrap();
    let mut events = Vec::new();
    let mut context = Context::from_waker(Waker::noop());
    while let Poll::Ready(Some(step)) = Pin::new(&mut choices).poll_next(&mut context) {
        events.push(step.event.unwrap());
    }
    // The better answer is given with all that was told of its prompt.
    assert_eq!(choices.score(0), Some(-1.0));
    let prompts = events.iter().filter(|event| matches!(event, Event::PromptLogprobs(_)));
    assert_eq!(prompts.count(), 2);
    assert!(backend.asked.lock().unwrap().iter().all(|asked| asked.prompt_logprobs == Some(0)));
}

#[test]
fn a_plan_is_bounded() {
    let check = |plan: ChoicePlan, tokens: Option<u32>, want: &str| {
        let error = plan.validate(tokens.map(Tokens)).map_err(|error| error.to_string());
        assert_eq!(error.err().unwrap_or_default(), want);
    };
    check(all(0), None, "n is 0: expected a number from 1 to 128");
    check(all(129), None, "n is 129: expected a number from 1 to 128");
    check(best(3, 2), None, "best_of is 2: expected a number from n, which is 3, to 128");
    check(best(1, 129), None, "best_of is 129: expected a number from n, which is 1, to 128");
    let much = "max_tokens is 8193 for each of 128 answers: expected at most 1048576 for all";
    check(all(128), Some(8193), much);
    check(best(1, 128), Some(8193), much);
    check(all(128), Some(8192), "");
    check(all(1), Some(u32::MAX), "");
    let refused = started(&Scripted::new([]), request(), all(0)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidRequest);
}

/// What an answer does, by a number: waits, says something, ends, fails or just stops.
fn step(number: u8) -> Step {
    match number % 8 {
        0 | 1 => None,
        2 => done(),
        3 => fails(),
        4 => says("", &[-0.5]),
        n => says("x", &[-f32::from(n)]),
    }
}

proptest! {
    #[test]
    fn each_answer_ends_exactly_once(
        scripts in prop::collection::vec(
            prop::option::weighted(0.9, prop::collection::vec(any::<u8>(), 0..12)), 1..9),
        kept in 1u32..9,
        contest: bool,
    ) {
        let count = u32::try_from(scripts.len()).unwrap();
        let plan = if contest { best(kept.min(count), count) } else { all(count) };
        let accepted = scripts.iter().any(Option::is_some);
        let scripts = scripts.into_iter().map(|script| {
            script.map(|numbers| numbers.into_iter().map(step).collect())
        });
        let backend = Scripted::new(scripts);
        let Ok(mut choices) = started(&backend, request(), plan) else {
            prop_assert!(!accepted);
            return Ok(());
        };
        let told = told(&mut choices);
        let mut ends: Vec<&String> =
            told.iter().filter(|step| step.ends_with(['.', '!'])).collect();
        prop_assert_eq!(ends.len(), usize::try_from(plan.n).unwrap());
        ends.sort_unstable();
        ends.dedup_by_key(|end| &end[..1]);
        prop_assert_eq!(ends.len(), usize::try_from(plan.n).unwrap());
        prop_assert_eq!(backend.open.load(Ordering::Relaxed), 0);
    }
}
