//! Several answers to one request, above any backend.
//!
//! Asks a [`Backend`] the same with one seed after another, all at once, and tells the answers apart by
//! number. A backend that shares equal prompts computes theirs once. Starts no task: whoever polls the
//! stream drives all answers, and dropping it cancels them.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::{
    Backend, BackendError, ErrorKind, Event, EventStream, InvalidParameter, Piece, Request, Tokens,
    Usage,
};

/// How many answers to make, and how many of them to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChoicePlan {
    /// Answers to give.
    pub n: u32,
    /// Answers to make, of which the `n` best are given; `None` gives all `n` as they come.
    pub best_of: Option<u32>,
}

impl ChoicePlan {
    /// The most answers to one request, as in OpenAI's API.
    pub const MOST: u32 = 128;
    /// The most tokens that all answers to one request may ask for together: a million.
    pub const MOST_TOKENS: u64 = 1 << 20;

    /// Answers to make.
    pub fn candidates(self) -> u32 {
        self.best_of.unwrap_or(self.n)
    }

    /// Checks the numbers, with the most tokens of each answer. Without such a limit the model's context is
    /// one.
    ///
    /// # Errors
    /// The first number out of its range.
    pub fn validate(self, max_tokens: Option<Tokens>) -> Result<(), InvalidParameter> {
        let most = Self::MOST;
        let wrong =
            |name, value: String, expected: String| Err(InvalidParameter { name, value, expected });
        if !(1..=most).contains(&self.n) {
            return wrong("n", self.n.to_string(), format!("a number from 1 to {most}"));
        }
        if let Some(best_of) = self.best_of.filter(|made| !(self.n..=most).contains(made)) {
            let expected = format!("a number from n, which is {}, to {most}", self.n);
            return wrong("best_of", best_of.to_string(), expected);
        }
        let each = max_tokens.map_or(0, |most| u64::from(most.0));
        let all = u64::from(self.candidates()) * each;
        if all > Self::MOST_TOKENS && self.candidates() > 1 {
            let value = format!("{each} for each of {} answers", self.candidates());
            return wrong("max_tokens", value, format!("at most {} for all", Self::MOST_TOKENS));
        }
        Ok(())
    }
}

/// A step of one of several answers.
#[derive(Debug)]
pub struct ChoiceEvent {
    /// Which answer, from 0; the best is 0 where the best were asked for.
    pub index: u32,
    /// Its step. Each answer has exactly one end: [`Event::Finished`] or an error, which is its own alone.
    pub event: Result<Event, BackendError>,
}

/// Several answers as they come. Dropping it cancels all that are not over.
///
/// With `best_of` nothing comes before all are over. Then come, whole, those with the highest mean token
/// log-probability: Σ ln p(tokenᵢ) / N over the N tokens of text, thoughts and calls, with p as in
/// [`crate::TokenLogprob`], the end-of-generation token not counted. Of equal ones the first made is the
/// better; one without tokens comes after all others, and one that failed comes last.
pub struct Choices {
    answers: Vec<Answer>,
    /// Where to look first next time, so that none waits for another.
    turn: usize,
    contest: Option<Contest>,
    /// What was chosen and waits to be taken.
    chosen: VecDeque<ChoiceEvent>,
    scores: Vec<Option<f64>>,
    usage: Usage,
}

impl fmt::Debug for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choices").field("answers", &self.answers.len()).finish_non_exhaustive()
    }
}

/// One answer on its way.
enum Answer {
    Running(EventStream),
    Refused(BackendError),
    Over,
}

/// Answers that are kept until the best are known.
struct Contest {
    n: usize,
    /// The caller asked for log-probabilities himself.
    asked: bool,
    candidates: Vec<Candidate>,
}

#[derive(Default)]
struct Candidate {
    events: Vec<Event>,
    failed: Option<BackendError>,
    sum: f64,
    tokens: u32,
}

/// Asks `backend` for several answers to `request`, with seeds that follow each other from the request's;
/// without one, each answer has a random seed of its own.
///
/// # Errors
/// The plan is out of its range, or all answers were refused: the first refusal. One that is refused alone is
/// reported as that answer's end.
pub async fn choices(
    backend: &dyn Backend,
    request: Request,
    plan: ChoicePlan,
) -> Result<Choices, BackendError> {
    let invalid =
        |error: InvalidParameter| BackendError::new(ErrorKind::InvalidRequest, error.to_string());
    plan.validate(request.max_tokens).map_err(invalid)?;
    let asked = request.logprobs.is_some();
    let contest = plan.best_of.map(|_| Contest {
        n: usize::try_from(plan.n).unwrap_or(usize::MAX),
        asked,
        candidates: (0..plan.candidates()).map(|_| Candidate::default()).collect(),
    });
    let logprobs = request.logprobs.or(contest.is_some().then_some(0));
    let requests = (0..plan.candidates()).map(|number| {
        let mut one = Request { logprobs, ..request.clone() };
        one.sampling.seed = one.sampling.seed.map(|seed| seed_of(seed, number));
        one
    });
    let answers = start(backend, requests).await?;
    Ok(Choices {
        answers,
        turn: 0,
        contest,
        chosen: VecDeque::new(),
        scores: Vec::new(),
        usage: Usage::default(),
    })
}

/// The seed so many places after `seed`; after the highest one comes 0.
fn seed_of(seed: u32, number: u32) -> u32 {
    // The highest number means "any" to llama.cpp.
    let seeds = u64::from(u32::MAX);
    u32::try_from((u64::from(seed) + u64::from(number)) % seeds).unwrap_or(0)
}

type Accepted<'b> = Pin<Box<dyn Future<Output = Result<EventStream, BackendError>> + Send + 'b>>;

/// Asks all at once, and waits until each is accepted or refused.
async fn start(
    backend: &dyn Backend,
    requests: impl Iterator<Item = Request>,
) -> Result<Vec<Answer>, BackendError> {
    let mut asked: Vec<Option<Accepted<'_>>> =
        requests.map(|request| Some(backend.run(request))).collect();
    let mut answers: Vec<Answer> = asked.iter().map(|_| Answer::Over).collect();
    poll_fn(|context| {
        let mut waits = false;
        for (asked, answer) in asked.iter_mut().zip(&mut answers) {
            let Some(accepted) = asked else { continue };
            match accepted.as_mut().poll(context) {
                Poll::Pending => waits = true,
                Poll::Ready(result) => {
                    *answer = result.map_or_else(Answer::Refused, Answer::Running);
                    *asked = None;
                }
            }
        }
        if waits { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    if answers.iter().any(|answer| matches!(answer, Answer::Running(_))) {
        return Ok(answers);
    }
    let refusal = answers.into_iter().find_map(|answer| match answer {
        Answer::Refused(error) => Some(error),
        Answer::Running(_) | Answer::Over => None,
    });
    Err(refusal.unwrap_or_else(no_end))
}

impl Choices {
    /// What all answers used, as far as they are over, those too that were not given. The prompt counts
    /// once, and as cached what was cached for the answer that had to compute most of it.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// The mean token log-probability of an answer, where the best were asked for, once it is given.
    pub fn score(&self, index: u32) -> Option<f64> {
        self.scores.get(usize::try_from(index).ok()?).copied().flatten()
    }

    /// The next step of any answer that has one.
    fn poll_any(&mut self, context: &mut Context<'_>) -> Poll<Option<ChoiceEvent>> {
        let count = self.answers.len();
        let mut all_over = true;
        for offset in 0..count {
            let at = (self.turn + offset) % count;
            let event = match std::mem::replace(&mut self.answers[at], Answer::Over) {
                Answer::Over => continue,
                Answer::Refused(error) => Err(error),
                Answer::Running(mut stream) => match stream.as_mut().poll_next(context) {
                    Poll::Pending => {
                        self.answers[at] = Answer::Running(stream);
                        all_over = false;
                        continue;
                    }
                    Poll::Ready(event) => {
                        let event = event.unwrap_or_else(|| Err(no_end()));
                        if !is_end(&event) {
                            self.answers[at] = Answer::Running(stream);
                        }
                        event
                    }
                },
            };
            self.turn = at + 1;
            if let Ok(Event::Finished(finished)) = &event {
                add(&mut self.usage, finished.usage);
            }
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            return Poll::Ready(Some(ChoiceEvent { index, event }));
        }
        if all_over { Poll::Ready(None) } else { Poll::Pending }
    }
}

impl Stream for Choices {
    type Item = ChoiceEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ChoiceEvent>> {
        while self.contest.is_some() {
            match self.poll_any(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(step)) => {
                    if let Some(contest) = &mut self.contest {
                        contest.take(step);
                    }
                }
                Poll::Ready(None) => {
                    if let Some(contest) = self.contest.take() {
                        (self.scores, self.chosen) = contest.decide();
                    }
                }
            }
        }
        match self.chosen.pop_front() {
            Some(step) => Poll::Ready(Some(step)),
            None => self.poll_any(context),
        }
    }
}

impl Contest {
    fn take(&mut self, ChoiceEvent { index, event }: ChoiceEvent) {
        let at = usize::try_from(index).unwrap_or(usize::MAX);
        let Some(candidate) = self.candidates.get_mut(at) else { return };
        match event {
            Ok(event) => candidate.take(event, self.asked),
            Err(error) => candidate.failed = Some(error),
        }
    }

    /// The scores of the best, and all their steps, best first.
    fn decide(self) -> (Vec<Option<f64>>, VecDeque<ChoiceEvent>) {
        let mut candidates = self.candidates;
        // Stable: of equal ones the first stays first.
        candidates.sort_by(|a, b| {
            let failed = a.failed.is_some().cmp(&b.failed.is_some());
            let score = |candidate: &Candidate| candidate.score().unwrap_or(f64::NEG_INFINITY);
            failed.then(score(b).total_cmp(&score(a)))
        });
        candidates.truncate(self.n);
        let scores = candidates.iter().map(Candidate::score).collect();
        let steps = (0..).zip(candidates).flat_map(|(index, candidate)| {
            let Candidate { events, failed, .. } = candidate;
            let end = failed.map(|error| ChoiceEvent { index, event: Err(error) });
            events.into_iter().map(move |event| ChoiceEvent { index, event: Ok(event) }).chain(end)
        });
        (scores, steps.collect())
    }
}

impl Candidate {
    fn take(&mut self, mut event: Event, asked: bool) {
        if let Event::Piece(piece) | Event::Reasoning(piece) = &mut event {
            for entry in &piece.logprobs {
                self.sum += f64::from(entry.logprob);
                self.tokens += 1;
            }
            if !asked {
                piece.logprobs.clear();
                if *piece == Piece::default() {
                    // It came for its entries alone.
                    return;
                }
            }
        }
        self.events.push(event);
    }

    /// `None`: there is nothing to tell it by.
    fn score(&self) -> Option<f64> {
        let score = self.sum / f64::from(self.tokens);
        (self.failed.is_none() && !score.is_nan()).then_some(score)
    }
}

fn is_end(event: &Result<Event, BackendError>) -> bool {
    matches!(event, Err(_) | Ok(Event::Finished(_)))
}

fn no_end() -> BackendError {
    BackendError::new(ErrorKind::Internal, "the answer ended without an end")
}

fn add(all: &mut Usage, one: Usage) {
    // Nothing is added yet.
    let first = *all == Usage::default();
    all.prompt_tokens = all.prompt_tokens.max(one.prompt_tokens);
    all.cached_tokens =
        if first { one.cached_tokens } else { all.cached_tokens.min(one.cached_tokens) };
    for (sum, more) in [
        (&mut all.completion_tokens, one.completion_tokens),
        (&mut all.reasoning_tokens, one.reasoning_tokens),
        (&mut all.drafted_tokens, one.drafted_tokens),
        (&mut all.accepted_tokens, one.accepted_tokens),
        (&mut all.model_drafted_tokens, one.model_drafted_tokens),
        (&mut all.model_accepted_tokens, one.model_accepted_tokens),
    ] {
        sum.0 = sum.0.saturating_add(more.0);
    }
}

#[cfg(test)]
mod tests;
