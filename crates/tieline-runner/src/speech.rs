//! From chosen tokens to what the caller sees: whole characters, no stop text, thinking and calls apart
//! from text, and text that keeps to its rule.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};

use sha2::{Digest as _, Sha256};
use tieline_decode::rules::{Check, Rule, RuleError};
use tieline_decode::talk::{Format, Said, Scope, Talk, opens_thinking};
use tieline_types::wire::{Failure, FailureKind};
use tieline_types::{Event, FinishReason, Piece, Request, RequestId, TokenLogprob, ToolChoice};

use crate::grammar::Ruled;
use crate::llama::Model;
use crate::session::{failure, failure_with};
use crate::stop::{Step, StopMatcher};
use crate::utf8::Utf8Stream;

/// The speech of one answer.
pub(crate) struct Speech {
    utf8: Utf8Stream,
    talk: Talk,
    stops: StopMatcher,
    /// Special tokens that the parser must see, by their text; all others are hidden.
    markers: HashMap<i32, &'static str>,
    guide: Option<Guide>,
}

/// The rule of an answer, and where it stands.
struct Guide {
    rule: Rule,
    check: Option<Check>,
    scope: Scope,
    /// The answer's text so far.
    text: String,
}

/// What a token became.
pub(crate) struct Spoken {
    pub(crate) events: Vec<Event>,
    /// The stop text that came.
    pub(crate) stop: Option<String>,
}

impl std::fmt::Debug for Speech {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Speech").field("talk", &self.talk).finish_non_exhaustive()
    }
}

impl Speech {
    /// The speech of an answer to a prompt whose rendered text is `rendered`, if it is a conversation. Its calls' ids are
    /// made of `id_seed`.
    pub(crate) fn new(
        model: &Model,
        id_seed: &str,
        request: &Request,
        (format, rendered): (Format, &str),
        ruled: Option<Ruled>,
    ) -> Self {
        let open = opens_thinking(rendered);
        let talk = Talk::new(format, &request.tools, &request.tool_choice, open, id_seed);
        let markers = format.markers().iter().filter_map(|&marker| {
            let tokens = model.tokenize(marker, false, true)?;
            <[i32; 1]>::try_from(tokens).ok().map(|[token]| (token, marker))
        });
        let may_call = request.constraint.is_some()
            && !request.tools.is_empty()
            && request.tool_choice == ToolChoice::Auto;
        let guide = ruled.map(|Ruled { rule, check }| Guide {
            rule,
            check,
            scope: Scope::new(format, request.thinking != Some(false), may_call),
            text: String::new(),
        });
        Self {
            utf8: Utf8Stream::default(),
            talk,
            stops: StopMatcher::new(request.stop.clone()),
            markers: markers.collect(),
            guide,
        }
    }

    pub(crate) fn is_thinking(&self) -> bool {
        self.talk.in_reasoning()
    }

    /// How many of some guesses the rule allows.
    pub(crate) fn allowed(&mut self, draft: &[i32]) -> usize {
        match &mut self.guide {
            Some(guide) if guide.scope.holds(&self.talk) => {
                let draft: Vec<u32> = draft.iter().map(|token| token.cast_unsigned()).collect();
                guide.rule.valid_prefix(&draft)
            }
            _ => draft.len(),
        }
    }

    /// What the rule says must come next, in its own cut into tokens.
    pub(crate) fn forced(&mut self) -> Vec<i32> {
        match &mut self.guide {
            Some(guide) if guide.scope.is_within() => {
                guide.rule.forced().into_iter().map(u32::cast_signed).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether the model's free choice decides next between the text that the rule is for and something
    /// that may stand before it.
    pub(crate) fn may_begin_elsewhere(&self) -> bool {
        self.guide.as_ref().is_some_and(|guide| guide.scope.is_open(&self.talk))
    }

    /// The model would like to say `token`: if that begins a thought or a call in the text's place, it may, and must now
    /// (`true`).
    pub(crate) fn consider(&mut self, model: &Model, token: i32) -> bool {
        let marker = self.markers.get(&token).map(|marker| (*marker).to_owned());
        let text = marker
            .unwrap_or_else(|| String::from_utf8_lossy(&model.piece(token, false)).into_owned());
        let Some(Guide { rule, scope, .. }) = &mut self.guide else { return false };
        scope.consider(&text, || rule.valid_prefix(&[token.cast_unsigned()]) > 0)
    }

    /// Forbids what the rule does not allow next. `true`: the rule holds for this token.
    pub(crate) fn restrict(&mut self, logits: &mut [f32]) -> Result<bool, Failure> {
        let Some(guide) = &mut self.guide else { return Ok(false) };
        if !guide.scope.holds(&self.talk) {
            return Ok(false);
        }
        guide.scope.enter(&mut self.talk);
        guide.rule.apply(logits).map_err(|error| broken(&error))?;
        Ok(true)
    }

    /// Whether the rule allows nothing but the end.
    pub(crate) fn is_complete(&self) -> bool {
        self.guide.as_ref().is_some_and(|guide| guide.rule.is_complete())
    }

    /// A token was chosen for which the rule holds.
    pub(crate) fn follow(&mut self, model: &Model, token: i32) -> Result<(), Failure> {
        match &mut self.guide {
            Some(guide) if !model.is_end(token) => {
                guide.rule.accept(token.cast_unsigned()).map_err(|error| broken(&error))
            }
            _ => Ok(()),
        }
    }

    /// Takes a token.
    pub(crate) fn hear(
        &mut self,
        model: &Model,
        token: i32,
        entry: Option<TokenLogprob>,
    ) -> Spoken {
        let bytes = match self.markers.get(&token) {
            Some(marker) => marker.as_bytes().to_vec(),
            None => model.piece(token, false),
        };
        let text = self.utf8.push(&bytes);
        let thought = self.is_thinking();
        let said = self.talk.push(&text);
        if let Some(guide) = &mut self.guide {
            guide.scope.follow(&self.talk);
        }
        let (mut events, stop) = self.events(said);
        if let Some(entry) = entry {
            attach(&mut events, entry, thought);
        }
        Spoken { events, stop }
    }

    /// What was said, up to a stop text.
    fn events(&mut self, said: Vec<Said>) -> (Vec<Event>, Option<String>) {
        let mut events = Vec::new();
        for said in said {
            match said {
                Said::Text(text) => match self.stops.push(&text) {
                    Step::Go(text) => self.speak(text, &mut events),
                    Step::Stop { before, stop } => {
                        self.speak(before, &mut events);
                        return (events, Some(stop));
                    }
                },
                Said::Reasoning(text) => {
                    self.release(&mut events);
                    events.push(Event::Reasoning(piece(text)));
                }
                Said::Call(step) => {
                    self.release(&mut events);
                    events.push(Event::ToolCall(step));
                }
                Said::Warning(text) => events.push(Event::Warning(text)),
                _ => {}
            }
        }
        (events, None)
    }

    /// Says what was held: no stop text goes on behind what is no text.
    fn release(&mut self, events: &mut Vec<Event>) {
        let held = self.stops.finish();
        self.speak(held, events);
    }

    fn speak(&mut self, text: String, events: &mut Vec<Event>) {
        if text.is_empty() {
            return;
        }
        if let Some(guide) = &mut self.guide {
            guide.text.push_str(&text);
        }
        events.push(Event::Piece(piece(text)));
    }

    /// What is still held when the answer ends, and whether tools were called.
    pub(crate) fn finish(&mut self, reason: &FinishReason) -> Result<(Vec<Event>, bool), Failure> {
        if matches!(reason, FinishReason::StopText(_)) {
            return Ok((self.verdict(reason)?.into_iter().collect(), self.talk.called()));
        }
        let unfinished = self.utf8.finish();
        let mut said = self.talk.push(&unfinished);
        said.extend(self.talk.finish());
        let (mut events, stop) = self.events(said);
        if stop.is_none() {
            self.release(&mut events);
        }
        events.extend(self.verdict(reason)?);
        Ok((events, self.talk.called()))
    }

    /// Whether the text kept to its rule: a failure if the model said that it is done and it did not, a
    /// warning if it was cut.
    fn verdict(&mut self, reason: &FinishReason) -> Result<Option<Event>, Failure> {
        let Some(Guide { check, text, .. }) = &mut self.guide else { return Ok(None) };
        let Some(check) = check.take() else { return Ok(None) };
        let called = self.talk.called() && text.trim().is_empty();
        if called || *reason == FinishReason::Cancelled {
            return Ok(None);
        }
        let what = check.what();
        match (check.text(text), reason) {
            (Ok(()), _) => Ok(None),
            (Err(_), FinishReason::EndOfTurn) => Err(failure_with(
                FailureKind::Internal,
                format!("the answer does not keep to the {what}"),
                "try again, or with a model that follows rules better",
            )),
            (Err(_), _) => Ok(Some(Event::Warning(format!(
                "the answer was cut, and what there is does not keep to the {what}"
            )))),
        }
    }
}

/// What the ids of an answer's calls are made of: the prompt where the answer must come out the same again, else
/// chance, as answers of other loads and other models stand in the same conversation.
pub(crate) fn id_seed(id: RequestId, request: &Request, prompt: &[i32]) -> String {
    if request.deterministic {
        let mut hash = Sha256::new();
        for token in prompt {
            hash.update(token.to_le_bytes());
        }
        let hash: [u8; 32] = hash.finalize().into();
        return format!("{hash:02x?}");
    }
    // The standard library seeds its hashers at random.
    format!("{:016x} {}", RandomState::new().hash_one(id.0), id.0)
}

/// Puts a token's entry beside the text that it became, or alone where that is still held back.
fn attach(events: &mut Vec<Event>, entry: TokenLogprob, thought: bool) {
    let first = events.iter_mut().find_map(|event| match event {
        Event::Piece(piece) | Event::Reasoning(piece) => Some(piece),
        _ => None,
    });
    match first {
        Some(piece) => piece.logprobs.push(entry),
        None => {
            let alone = Piece { logprobs: vec![entry], ..Piece::default() };
            events.push(if thought { Event::Reasoning(alone) } else { Event::Piece(alone) });
        }
    }
}

fn piece(text: String) -> Piece {
    Piece { text: text.into(), logprobs: Vec::new() }
}

/// An answer that cannot go on by its rule.
fn broken(error: &RuleError) -> Failure {
    failure(FailureKind::Internal, format!("the answer cannot keep to its rule: {error}"))
}

#[cfg(test)]
mod tests {
    use tieline_types::{Prompt, ToolCallStep};

    use super::*;

    /// What the caller sees of pieces of an answer, whose stop text is "###", and the stop text that came.
    #[track_caller]
    fn says(said: Vec<Said>, want: &[&str], want_stop: Option<&str>) {
        let mut speech = Speech {
            utf8: Utf8Stream::default(),
            talk: Talk::new(Format::Hermes, &[], &ToolChoice::Auto, false, "seed"),
            stops: StopMatcher::new(vec!["###".to_owned()]),
            markers: HashMap::new(),
            guide: None,
        };
        let (mut events, stop) = speech.events(said);
        if stop.is_none() {
            speech.release(&mut events);
        }
        let told = |event: &Event| match event {
            Event::Piece(piece) => piece.text.expose().to_owned(),
            Event::Reasoning(piece) => format!("<{}>", piece.text.expose()),
            Event::ToolCall(_) => "call".to_owned(),
            other => panic!("{other:?}"),
        };
        assert_eq!(events.iter().map(told).collect::<Vec<_>>(), want);
        assert_eq!(stop.as_deref(), want_stop);
    }

    #[test]
    fn held_text_comes_before_what_is_no_text() {
        let text = |text: &str| Said::Text(text.to_owned());
        let call = || Said::Call(ToolCallStep::End { index: 0 });
        let thought = || Said::Reasoning("hm".to_owned());
        says(vec![text("a#"), call(), text("##")], &["a", "#", "call", "##"], None);
        says(vec![text("#"), thought(), text("##b")], &["#", "<hm>", "##b"], None);
        says(vec![text("#"), text("##"), call()], &[], Some("###"));
        says(vec![text("#"), call(), text("#"), text("##")], &["#", "call"], Some("###"));
    }

    #[test]
    fn only_a_deterministic_answer_has_the_same_ids_again() {
        let mut request = Request::new(Prompt::Tokens(Vec::new()));
        let seed = |id, request: &Request, prompt: &[i32]| id_seed(RequestId(id), request, prompt);
        assert_ne!(seed(1, &request, &[1]), seed(1, &request, &[1]));
        request.deterministic = true;
        assert_eq!(seed(1, &request, &[1, 2]), seed(7, &request, &[1, 2]));
        assert_ne!(seed(1, &request, &[1, 2]), seed(1, &request, &[1, 2, 3]));
    }
}
