//! Calls that come in parts, in all the ways that vendors cut them, told one after the other: who reads the events
//! need not keep several calls open.

use serde_json::Value;
use tieline_types::{BackendError, Event, ToolCallStep};

use crate::errors::upstream;
use crate::local;

/// The calls of one answer.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: Vec<Call>,
    /// The call that is being told.
    at: usize,
}

#[derive(Debug, Default)]
struct Call {
    /// The vendor's number, where it gave one.
    number: Option<u64>,
    id: String,
    named: bool,
    sent: String,
    held: Option<Held>,
    /// What is to be told of it, once those before it are told.
    waits: Vec<Event>,
    over: bool,
}

/// Parts that may be parts, or the whole so far each time. Which, the next part tells, or the end.
#[derive(Debug)]
struct Held {
    parts: String,
    whole: String,
}

impl Calls {
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// A part of a call.
    pub(super) fn part(
        &mut self,
        wire: &Value,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        let function = &wire["function"];
        let name = function["name"].as_str().filter(|name| !name.is_empty());
        let id = wire["id"].as_str().filter(|id| !id.is_empty());
        let at = self.find(wire["index"].as_u64(), id, name.is_some());
        let index = u32::try_from(at).unwrap_or(u32::MAX);
        if at == self.calls.len() {
            let number = wire["index"].as_u64();
            let id = id.map_or_else(local::made_up_id, str::to_owned);
            self.calls.push(Call { number, id, ..Call::default() });
        }
        let Some(call) = self.calls.get_mut(at) else { return Ok(()) };
        if let (false, Some(name)) = (call.named, name) {
            call.named = true;
            let (id, name) = (call.id.clone(), name.to_owned());
            call.waits.push(Event::ToolCall(ToolCallStep::Begin { index, id, name }));
        }
        let text = match &function["arguments"] {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::String(_) | Value::Null => {
                self.tell(events);
                return Ok(());
            }
            // Some hosts give the object itself.
            whole => whole.to_string(),
        };
        if !call.named {
            return Err(upstream("the vendor sent arguments of a call without a name"));
        }
        if call.over {
            // The next one has begun. Blanks and the whole again change nothing.
            return match text.trim().is_empty() || text == call.sent {
                true => Ok(()),
                false => Err(upstream("the vendor went on with a call that was whole")),
            };
        }
        call.arguments(&text, index);
        self.tell(events);
        Ok(())
    }

    /// Tells of the first call that is not over. It is over where its arguments are whole and the next has begun.
    fn tell(&mut self, events: &mut Vec<Event>) {
        while let Some(call) = self.calls.get_mut(self.at) {
            events.append(&mut call.waits);
            let whole = call.held.is_none() && is_object(&call.sent);
            let index = u32::try_from(self.at).unwrap_or(u32::MAX);
            let next = self.calls.get(self.at + 1).is_some_and(|next| next.named);
            let Some(call) = self.calls.get_mut(self.at).filter(|call| call.over || next && whole)
            else {
                return;
            };
            if !std::mem::replace(&mut call.over, true) {
                events.push(Event::ToolCall(ToolCallStep::End { index }));
            }
            self.at += 1;
        }
    }

    /// Which call a part belongs to: by the number, or the id, or it is the last one's.
    fn find(&self, number: Option<u64>, id: Option<&str>, named: bool) -> usize {
        let new = self.calls.len();
        let by_id = id.and_then(|id| self.calls.iter().rposition(|call| call.id == id));
        let by_number = number
            .and_then(|number| self.calls.iter().rposition(|call| call.number == Some(number)));
        match (number, id) {
            // Some give all their calls the same number: a new id with a name is a new call.
            (_, Some(_)) if named => by_id.unwrap_or(match by_number {
                Some(at) if !self.calls.get(at).is_some_and(|call| call.named) => at,
                Some(_) | None => new,
            }),
            (Some(_), _) => by_number.unwrap_or(new),
            (None, Some(_)) => by_id.unwrap_or(new.saturating_sub(1)),
            (None, None) if named => new,
            (None, None) => new.saturating_sub(1),
        }
    }

    /// The answer ended. `cut`: in the midst of it.
    pub(super) fn end(&mut self, cut: bool, events: &mut Vec<Event>) -> Result<(), BackendError> {
        for (at, call) in self.calls.iter_mut().enumerate().skip(self.at) {
            let index = u32::try_from(at).unwrap_or(u32::MAX);
            call.settle(index);
            if !call.named {
                return Err(upstream("the vendor sent a call without a name"));
            }
            if call.sent.trim().is_empty() && !cut {
                call.send("{}", index);
            }
            call.over = true;
            if is_object(&call.sent) {
                call.waits.push(Event::ToolCall(ToolCallStep::End { index }));
            } else if cut {
                let text = format!("call {index} was cut: its arguments are not whole");
                call.waits.push(Event::Warning(text));
            } else {
                return Err(upstream(
                    "the vendor sent arguments of a call that are no JSON object",
                ));
            }
        }
        self.tell(events);
        Ok(())
    }
}

impl Call {
    fn arguments(&mut self, text: &str, index: u32) {
        match self.held.take() {
            Some(mut held) if text.starts_with(&held.whole) => {
                held.parts.push_str(text);
                text.clone_into(&mut held.whole);
                self.held = Some(held);
            }
            Some(held) => {
                self.send(&held.parts, index);
                self.send(text, index);
            }
            // An object that begins with all that came so far: the whole again, or an odd nested one.
            None if self.sent.starts_with('{') && text.starts_with(&self.sent) => {
                self.held = Some(Held { parts: text.to_owned(), whole: text.to_owned() });
            }
            None => self.send(text, index),
        }
    }

    fn settle(&mut self, index: u32) {
        let Some(held) = self.held.take() else { return };
        let parts = is_object(&format!("{}{}", self.sent, held.parts));
        let whole = held.whole.get(self.sent.len()..).unwrap_or_default().to_owned();
        self.send(if parts { &held.parts } else { &whole }, index);
    }

    fn send(&mut self, text: &str, index: u32) {
        if !text.is_empty() {
            self.sent.push_str(text);
            let text = text.into();
            self.waits.push(Event::ToolCall(ToolCallStep::Arguments { index, text }));
        }
    }
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<String, Value>>(text).is_ok()
}

#[cfg(test)]
mod tests;
