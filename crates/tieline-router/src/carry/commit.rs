//! The beginning of an answer that is held back until it is decided whether to commit to it, and what can be told
//! of it by then. Pure.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tieline_types::{
    Constraint, Event, FinishReason, Piece, Private, Request, TokenLogprob, ToolCallStep,
    ToolChoice,
};

use super::validate::{self, Call, Invalid};
use crate::quality::{self, confidence::HEAD};

/// The most of an answer that is held back, in bytes of text; beyond, it is judged as it is.
const MOST_BYTES: usize = 1 << 20;

/// How much of an answer is held back before it is judged. Whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// So many tokens.
    pub tokens: u32,
    /// So long after the first token.
    pub time: Duration,
    /// All of it, whatever the others say: where its form is to be checked.
    pub whole: bool,
}

impl Hold {
    /// The tokens that calibrations are made of or two seconds, whatever comes first; the whole answer where its form
    /// can be checked only then.
    pub fn usual(request: &Request) -> Self {
        let form =
            matches!(request.constraint, Some(Constraint::JsonObject | Constraint::JsonSchema(_)))
                || matches!(request.tool_choice, ToolChoice::Required | ToolChoice::Named(_));
        Self { tokens: HEAD, time: Duration::from_secs(2), whole: form }
    }
}

/// What is known of an answer, or of its beginning. Where no log-probabilities came, those features are `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Features {
    /// Tokens so far, as far as can be told.
    pub tokens: u32,
    /// The tenth quantile of the tokens' log-probabilities: how unsure the least sure tokens are.
    pub q10: Option<f32>,
    /// Their median.
    pub q50: Option<f32>,
    /// Their mean.
    pub mean: Option<f32>,
    /// The mean distance between the likeliest and the second likeliest token, in log-probability.
    pub margin: Option<f32>,
    /// Whether the answer is whole.
    pub finished: bool,
    /// Whether it was cut by the limit of tokens, the context or a deadline.
    pub truncated: bool,
    /// The share of runs of four tokens that came before, 0 to 1.
    pub repetition: f32,
    /// What is wrong with its form, where it could be checked.
    pub invalid: Option<Invalid>,
    /// What calibrations know of its beginning; `None`: too little of it is there, or no log-probabilities came.
    pub head: Option<quality::Features>,
}

/// What is held back.
#[derive(Debug, Default)]
pub(super) struct Held {
    pub(super) events: VecDeque<Event>,
    logprobs: Vec<f32>,
    margins: Vec<f32>,
    ids: Vec<u32>,
    /// The beginning: tokens, their log-probabilities, and those of the likeliest others.
    head: Vec<(u32, f64, Option<f64>)>,
    text: String,
    calls: Vec<(u32, Call)>,
    bytes: usize,
    tokens: u32,
    end: Option<FinishReason>,
    late: bool,
}

impl Held {
    /// The time to hold it back is over.
    pub(super) fn expire(&mut self) {
        self.late = true;
    }

    /// Whether it was.
    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// Whether a part of the answer is there.
    pub(super) fn has_begun(&self) -> bool {
        self.tokens > 0
    }

    /// Whether it is to be judged now. A call of a tool is held back until its end, so that its arguments can be
    /// checked.
    pub(super) fn is_full(&self, hold: Hold) -> bool {
        let open = self.calls.iter().any(|(_, call)| !call.complete);
        let enough = !hold.whole && !open && (self.late || self.tokens >= hold.tokens);
        self.end.is_some() || self.bytes >= MOST_BYTES || enough
    }

    pub(super) fn push(&mut self, event: Event) {
        match &event {
            Event::Piece(piece) => {
                self.text.push_str(piece.text.expose());
                self.count(piece);
            }
            Event::Reasoning(piece) => self.count(piece),
            Event::ToolCall(step) => self.step(step),
            Event::Finished(finished) => self.end = Some(finished.reason.clone()),
            _ => {}
        }
        self.events.push_back(event);
    }

    fn count(&mut self, piece: &Piece) {
        self.bytes += piece.text.expose().len();
        let told = u32::try_from(piece.logprobs.len()).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(told.max(1));
        for entry in &piece.logprobs {
            self.logprobs.push(entry.logprob);
            self.ids.push(entry.token);
            self.margins.extend(margin(entry));
            if self.head.len() < HEAD as usize {
                self.head.push(seen(entry));
            }
        }
    }

    fn step(&mut self, step: &ToolCallStep) {
        self.tokens = self.tokens.saturating_add(1);
        match step {
            ToolCallStep::Begin { index, name, .. } => {
                let arguments = String::new().into();
                let call = Call { name: name.clone(), arguments, complete: false };
                self.calls.push((*index, call));
            }
            ToolCallStep::Arguments { index, text } => {
                self.bytes += text.expose().len();
                if let Some((_, call)) = self.calls.iter_mut().find(|(at, _)| at == index) {
                    let so_far = std::mem::take(&mut call.arguments).into_inner();
                    call.arguments = (so_far + text.expose()).into();
                }
            }
            ToolCallStep::End { index } => {
                if let Some((_, call)) = self.calls.iter_mut().find(|(at, _)| at == index) {
                    call.complete = true;
                }
            }
        }
    }

    /// Whether its end was heard.
    pub(super) fn is_whole(&self) -> bool {
        self.end.is_some()
    }

    /// What it says; `None`: it calls tools, and says nothing.
    pub(super) fn said(&self) -> Option<Private> {
        let silent = self.text.trim().is_empty() && !self.calls.is_empty();
        (!silent).then(|| Private::new(self.text.clone()))
    }

    /// What is known of it by now.
    pub(super) fn features(&self, request: &Request) -> Features {
        let mut sorted = self.logprobs.clone();
        sorted.sort_by(f32::total_cmp);
        let calls: Vec<_> = self.calls.iter().map(|(_, call)| call.clone()).collect();
        let truncated = matches!(
            self.end,
            Some(FinishReason::MaxTokens | FinishReason::ContextFull | FinishReason::Deadline)
        );
        let form = match self.end {
            Some(_) => validate::answer(request, &self.text, &calls),
            None => validate::tool_calls(request, &calls),
        };
        Features {
            tokens: self.tokens,
            q10: quantile(&sorted, 0.1),
            q50: quantile(&sorted, 0.5),
            mean: mean(&self.logprobs),
            margin: mean(&self.margins),
            finished: self.end.is_some(),
            truncated,
            repetition: repetition(&self.ids),
            invalid: form.err(),
            head: self.head(truncated),
        }
    }

    fn head(&self, truncated: bool) -> Option<quality::Features> {
        let is_whole = self.end.is_some() || self.head.len() >= HEAD as usize;
        // One token more than the head, and it was not the head that was cut.
        let truncated = truncated && self.ids.len() <= HEAD as usize;
        is_whole.then(|| quality::Features::head(&self.head, truncated)).flatten()
    }
}

/// What a calibration knows of a token: itself, its log-probability, and that of the likeliest other.
pub fn seen(token: &TokenLogprob) -> (u32, f64, Option<f64>) {
    let other = token.alternatives.iter().find(|other| other.token != token.token);
    (token.token, f64::from(token.logprob), other.map(|other| f64::from(other.logprob)))
}

/// The distance of the two likeliest tokens; `None` where two are not told.
fn margin(entry: &TokenLogprob) -> Option<f32> {
    let [first, second, ..] = entry.alternatives.as_slice() else { return None };
    let margin = first.logprob - second.logprob;
    margin.is_finite().then_some(margin)
}

fn mean(values: &[f32]) -> Option<f32> {
    let count = u16::try_from(values.len().min(usize::from(u16::MAX))).ok()?;
    let values = &values[..usize::from(count)];
    (count > 0).then(|| values.iter().sum::<f32>() / f32::from(count))
}

/// The quantile of sorted values, between neighbours by their distance.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a place in a slice: from 0 to its length"
)]
fn quantile(sorted: &[f32], share: f64) -> Option<f32> {
    let last = u32::try_from(sorted.len().checked_sub(1)?).ok()?;
    let place = share * f64::from(last);
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    let weight = (place - place.floor()) as f32;
    Some(sorted[below] + (sorted[above] - sorted[below]) * weight)
}

/// The share of runs of four tokens that came before.
fn repetition(ids: &[u32]) -> f32 {
    const MOST: usize = 4096;
    let ids = &ids[..ids.len().min(MOST)];
    let runs = u16::try_from(ids.windows(4).count()).unwrap_or(u16::MAX);
    let mut seen = HashSet::new();
    let again = ids.windows(4).filter(|run| !seen.insert(*run)).count();
    let again = u16::try_from(again).unwrap_or(u16::MAX);
    if runs == 0 { 0.0 } else { f32::from(again) / f32::from(runs) }
}

/// What the caller asked to see of log-probabilities, where more were asked of the backend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown(pub(super) Option<u8>);

impl Shown {
    /// The event as the caller asked for it; `None` where nothing is left of it.
    pub(super) fn strip(self, mut event: Event) -> Option<Event> {
        if let Event::Piece(piece) | Event::Reasoning(piece) = &mut event {
            match self.0 {
                Some(most) => {
                    for entry in &mut piece.logprobs {
                        entry.alternatives.truncate(usize::from(most));
                    }
                }
                None if piece.logprobs.is_empty() => {}
                None => {
                    piece.logprobs.clear();
                    if piece.text.expose().is_empty() {
                        return None;
                    }
                }
            }
        }
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::Alternative;

    use super::*;

    #[track_caller]
    fn check(values: &[f32], share: f64, want: Option<f32>) {
        assert_eq!(quantile(values, share), want);
    }

    #[test]
    fn quantiles_lie_between_their_neighbours() {
        check(&[], 0.5, None);
        check(&[-1.0], 0.1, Some(-1.0));
        check(&[-3.0, -1.0], 0.5, Some(-2.0));
        check(&[-4.0, -3.0, -2.0, -1.0, 0.0], 0.5, Some(-2.0));
        assert_eq!(mean(&[-1.0, -3.0]), Some(-2.0));
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn what_was_said_before_is_counted() {
        assert_eq!(repetition(&[1, 2, 3]), 0.0);
        assert_eq!(repetition(&[1, 2, 3, 4, 5, 6, 7]), 0.0);
        // Of the five runs of 1 1 1 1 1 1 1 1, four came before.
        assert_eq!(repetition(&[1; 8]), 0.8);
    }

    fn entry(logprobs: &[f32]) -> Event {
        let alternative = |&logprob: &f32| Alternative { token: 1, bytes: Vec::new(), logprob };
        let alternatives: Vec<_> = logprobs.iter().map(alternative).collect();
        let entry =
            TokenLogprob { token: 1, bytes: Vec::new(), logprob: logprobs[0], alternatives };
        Event::Piece(Piece { text: "a".into(), logprobs: vec![entry] })
    }

    #[test]
    fn features_are_those_of_the_tokens_so_far() {
        let request = Request::new(tieline_types::Prompt::Text("p".into()));
        let mut held = Held::default();
        held.push(entry(&[-0.5, -1.5]));
        held.push(entry(&[-1.5, -4.5]));
        let features = held.features(&request);
        assert_eq!((features.tokens, features.finished), (2, false));
        assert_eq!((features.q50, features.mean), (Some(-1.0), Some(-1.0)));
        assert_eq!((features.margin, features.invalid), (Some(2.0), None));
    }

    #[test]
    fn calibrations_see_the_head_of_an_answer_and_never_less() {
        use testkit::scripted::{Step, finished};
        let request = Request::new(tieline_types::Prompt::Text("p".into()));
        let head = |tokens: u32, cut: bool| {
            let mut held = Held::default();
            (0..tokens).for_each(|_| held.push(entry(&[-0.5, -1.5])));
            if cut && let Step::Say(end) = finished(FinishReason::MaxTokens, tokens) {
                held.push(end);
            }
            held.features(&request).head
        };
        assert_eq!(head(HEAD - 1, false), None);
        assert_eq!(head(HEAD + 9, false).unwrap().tokens, HEAD);
        let cut = head(5, true).unwrap();
        assert_eq!((cut.tokens, cut.truncated), (5, true));
        assert!(!head(HEAD + 1, true).unwrap().truncated, "its head is whole");
    }

    #[test]
    fn a_call_is_held_back_until_its_end() {
        let hold = Hold { tokens: 2, time: Duration::from_secs(1), whole: false };
        let mut held = Held::default();
        let begin = ToolCallStep::Begin { index: 0, id: "a".to_owned(), name: "f".to_owned() };
        held.push(Event::ToolCall(begin));
        held.push(Event::ToolCall(ToolCallStep::Arguments { index: 0, text: "{".into() }));
        held.expire();
        assert!(!held.is_full(hold));
        held.push(Event::ToolCall(ToolCallStep::End { index: 0 }));
        assert!(held.is_full(hold));
        assert!(!held.is_full(Hold { whole: true, ..hold }));
    }

    #[test]
    fn the_caller_sees_what_he_asked_for() {
        let count = |event: Option<Event>| match event {
            Some(Event::Piece(piece)) => piece.logprobs.first().map(|one| one.alternatives.len()),
            _ => None,
        };
        assert_eq!(count(Shown(None).strip(entry(&[-1.0, -2.0]))), None);
        assert_eq!(count(Shown(Some(0)).strip(entry(&[-1.0, -2.0]))), Some(0));
        assert_eq!(count(Shown(Some(1)).strip(entry(&[-1.0, -2.0]))), Some(1));
        let silent = Event::Piece(Piece::default());
        assert_eq!(Shown(None).strip(silent.clone()), Some(silent));
    }
}
