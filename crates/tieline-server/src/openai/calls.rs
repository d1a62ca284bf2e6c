//! Answers of which the first call alone is wanted.

use futures_util::StreamExt;
use futures_util::stream;
use tieline_types::{
    ChoiceEvent, Event, FinishReason, Finished, Started, Timing, Tokens, ToolCallStep, Usage,
};

use crate::open::Steps;

/// What a caller is told of an answer that was ended early.
const CUT: &str =
    "the answer was ended after its first call: its figures count what was heard of it";

/// One answer on its way.
#[derive(Default)]
struct Heard {
    started: Started,
    /// Pieces so far: about as many as tokens.
    pieces: u32,
    called: bool,
    over: bool,
}

/// Each of `count` answers up to the end of its first call. Where the model ends there by itself, its own end
/// is given; a single answer that goes on is cancelled.
pub(crate) fn first_call(steps: Steps, count: u32) -> Steps {
    let heard: Vec<Heard> = (0..count.max(1)).map(|_| Heard::default()).collect();
    let cut = stream::unfold(Some((steps, heard)), |state| async move {
        let (mut steps, mut heard) = state?;
        loop {
            let step = steps.next().await?;
            let at = usize::try_from(step.index).unwrap_or(usize::MAX);
            let Some(answer) = heard.get_mut(at) else { continue };
            let events = answer.hear(step);
            if !events.is_empty() {
                let more = heard.iter().any(|answer| !answer.over);
                return Some((stream::iter(events), more.then_some((steps, heard))));
            }
        }
    });
    Box::pin(cut.flatten())
}

impl Heard {
    fn hear(&mut self, ChoiceEvent { index, event }: ChoiceEvent) -> Vec<ChoiceEvent> {
        if self.over {
            return Vec::new();
        }
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.over = true;
                return vec![ChoiceEvent { index, event: Err(error) }];
            }
        };
        if self.called && goes_on(&event) {
            self.over = true;
            let end = [Event::Warning(CUT.to_owned()), Event::Finished(Box::new(self.end()))];
            return end.map(|event| ChoiceEvent { index, event: Ok(event) }).into();
        }
        self.note(&event);
        vec![ChoiceEvent { index, event: Ok(event) }]
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::Started(started) => self.started = started.clone(),
            Event::Piece(_) | Event::Reasoning(_) => self.pieces += 1,
            Event::ToolCall(ToolCallStep::End { .. }) => self.called = true,
            Event::ToolCall(_) => self.pieces += 1,
            Event::Finished(_) => self.over = true,
            _ => {}
        }
    }

    fn end(&self) -> Finished {
        Finished {
            reason: FinishReason::ToolCalls,
            usage: Usage {
                prompt_tokens: self.started.prompt_tokens,
                cached_tokens: self.started.cached_tokens,
                completion_tokens: Tokens(self.pieces),
                ..Usage::default()
            },
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        }
    }
}

/// Whether the model says more. Blanks between calls are nothing.
fn goes_on(event: &Event) -> bool {
    match event {
        Event::Piece(piece) | Event::Reasoning(piece) => !piece.text.expose().trim().is_empty(),
        Event::ToolCall(_) => true,
        _ => false,
    }
}
