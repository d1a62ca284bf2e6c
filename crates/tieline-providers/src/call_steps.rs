//! The calls of one answer, told one after the other however the vendor mixes them.

use serde::de::IgnoredAny;
use tieline_types::{BackendError, ErrorKind, Event, ToolCallStep};

/// The most calls in an answer.
const MAX_CALLS: usize = 256;
/// The most bytes of arguments in an answer.
const MAX_BYTES: usize = 8 << 20;

/// Calls as they come. Each is known by a key of the vendor's: a block's or an item's number.
///
/// Who reads the events need not keep several calls open: a call begins when the one before it has ended, and what
/// comes of it earlier waits here.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    calls: Vec<Call>,
    /// The call that is being told.
    at: usize,
    bytes: usize,
}

struct Call {
    key: u64,
    id: String,
    name: String,
    arguments: String,
    /// Bytes of the arguments that were told.
    told: usize,
    begun: bool,
    closed: bool,
}

// Arguments are text of the answer, so only their length is shown.
impl std::fmt::Debug for Call {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Call")
            .field("key", &self.key)
            .field("bytes", &self.arguments.len())
            .finish_non_exhaustive()
    }
}

fn fault(what: &str) -> BackendError {
    BackendError::new(ErrorKind::Upstream, format!("the vendor's calls make no sense: {what}"))
}

impl Calls {
    /// Whether there was any.
    pub(crate) fn any(&self) -> bool {
        !self.calls.is_empty()
    }

    /// How many there were.
    pub(crate) fn count(&self) -> usize {
        self.calls.len()
    }

    /// Whether a call of this key is under way or done.
    pub(crate) fn has(&self, key: u64) -> bool {
        self.calls.iter().any(|call| call.key == key)
    }

    /// Whether the call is open and nothing of its arguments has come.
    pub(crate) fn is_bare(&self, key: u64) -> bool {
        let bare = |call: &Call| !call.closed && call.arguments.is_empty();
        self.calls.iter().any(|call| call.key == key && bare(call))
    }

    /// Whether the call's arguments may go on.
    pub(crate) fn is_open(&self, key: u64) -> bool {
        self.calls.iter().any(|call| call.key == key && !call.closed)
    }

    /// A call begins.
    pub(crate) fn begin(
        &mut self,
        key: u64,
        (id, name): (String, String),
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        if self.has(key) {
            return Err(fault("one begins twice"));
        }
        if id.is_empty() || name.is_empty() {
            return Err(fault("one has no id or no name"));
        }
        if self.calls.len() >= MAX_CALLS {
            return Err(fault("there are more than 256"));
        }
        let arguments = String::new();
        self.calls.push(Call { key, id, name, arguments, told: 0, begun: false, closed: false });
        self.tell(events);
        Ok(())
    }

    /// More of a call's arguments.
    pub(crate) fn add(
        &mut self,
        key: u64,
        text: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        self.weigh(text.len())?;
        let call = self.open(key)?;
        call.arguments.push_str(text);
        self.tell(events);
        Ok(())
    }

    /// Counts bytes that are kept for the calls.
    pub(crate) fn weigh(&mut self, bytes: usize) -> Result<(), BackendError> {
        self.bytes = self.bytes.saturating_add(bytes);
        match self.bytes > MAX_BYTES {
            true => Err(fault("their arguments are longer than 8 MiB")),
            false => Ok(()),
        }
    }

    /// The whole of a call's arguments, of which a part may have come before.
    pub(crate) fn whole(
        &mut self,
        key: u64,
        text: &str,
        events: &mut Vec<Event>,
    ) -> Result<(), BackendError> {
        let call = self.open(key)?;
        match text.strip_prefix(call.arguments.as_str()) {
            Some(rest) => self.add(key, rest, events),
            None => Err(fault("the arguments at the end are not those that came before")),
        }
    }

    /// A call's arguments are complete. Closing again does nothing.
    pub(crate) fn close(&mut self, key: u64, events: &mut Vec<Event>) {
        if let Some(call) = self.calls.iter_mut().find(|call| call.key == key) {
            call.closed = true;
        }
        self.tell(events);
    }

    /// The answer is over, so all calls are.
    pub(crate) fn close_all(&mut self, events: &mut Vec<Event>) {
        self.calls.iter_mut().for_each(|call| call.closed = true);
        self.tell(events);
    }

    fn open(&mut self, key: u64) -> Result<&mut Call, BackendError> {
        let call = self.calls.iter_mut().find(|call| call.key == key && !call.closed);
        call.ok_or_else(|| fault("arguments belong to none that is open"))
    }

    fn tell(&mut self, events: &mut Vec<Event>) {
        while let Some(call) = self.calls.get_mut(self.at) {
            let index = u32::try_from(self.at).unwrap_or(u32::MAX);
            call.tell(index, events);
            if !call.closed {
                return;
            }
            call.end(index, events);
            self.at += 1;
        }
    }
}

impl Call {
    fn tell(&mut self, index: u32, events: &mut Vec<Event>) {
        if !self.begun {
            self.begun = true;
            let (id, name) = (self.id.clone(), self.name.clone());
            events.push(Event::ToolCall(ToolCallStep::Begin { index, id, name }));
        }
        let rest = self.arguments.get(self.told..).unwrap_or_default();
        if !rest.is_empty() {
            let text = rest.into();
            events.push(Event::ToolCall(ToolCallStep::Arguments { index, text }));
            self.told = self.arguments.len();
        }
    }

    /// A call without arguments is one of an empty object: some vendors send nothing for it.
    fn end(&mut self, index: u32, events: &mut Vec<Event>) {
        if self.arguments.trim().is_empty() {
            let text = "{}".into();
            events.push(Event::ToolCall(ToolCallStep::Arguments { index, text }));
        } else if !is_object(&self.arguments) {
            let said = format!("the arguments of call {index} are no JSON object: they were cut");
            events.push(Event::Warning(said));
            return;
        }
        events.push(Event::ToolCall(ToolCallStep::End { index }));
    }
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> (String, String) {
        (format!("id-{name}"), name.to_owned())
    }

    #[track_caller]
    fn check(events: &[Event], want: &[&str]) {
        let told: Vec<String> = events.iter().map(crate::replay::line).collect();
        assert_eq!(told, want);
    }

    #[test]
    fn calls_that_overlap_are_told_in_turn() {
        let (mut calls, mut events) = (Calls::default(), Vec::new());
        calls.begin(7, named("a"), &mut events).unwrap();
        calls.begin(3, named("b"), &mut events).unwrap();
        calls.add(3, "{\"b\"", &mut events).unwrap();
        calls.add(7, "{}", &mut events).unwrap();
        calls.add(3, ":1}", &mut events).unwrap();
        calls.close(3, &mut events);
        check(&events, &["call 0 begin id-a a", "call 0 add \"{}\""]);
        events.clear();
        calls.close(7, &mut events);
        let want =
            ["call 0 end", "call 1 begin id-b b", "call 1 add \"{\\\"b\\\":1}\"", "call 1 end"];
        check(&events, &want);
        calls.close(7, &mut events);
        calls.close_all(&mut events);
        assert_eq!(events.len(), 4);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let (mut calls, mut events) = (Calls::default(), Vec::new());
        assert!(calls.add(0, "{", &mut events).is_err());
        assert!(calls.begin(0, (String::new(), "a".to_owned()), &mut events).is_err());
        calls.begin(0, named("a"), &mut events).unwrap();
        assert!(calls.begin(0, named("a"), &mut events).is_err());
        calls.close(0, &mut events);
        assert!(calls.add(0, "{", &mut events).is_err());
    }

    #[test]
    fn arguments_that_are_no_object_have_no_end() {
        for text in ["[]", "1", "{\"a\":", "{} {}", "null"] {
            let (mut calls, mut events) = (Calls::default(), Vec::new());
            calls.begin(0, named("a"), &mut events).unwrap();
            calls.add(0, text, &mut events).unwrap();
            calls.close_all(&mut events);
            assert!(matches!(events.last(), Some(Event::Warning(_))), "{text}");
        }
    }

    #[test]
    fn there_is_an_end_to_what_is_kept() {
        let (mut calls, mut events) = (Calls::default(), Vec::new());
        for key in 0..256 {
            calls.begin(key, named("a"), &mut events).unwrap();
        }
        assert!(calls.begin(256, named("a"), &mut events).is_err());
        let part = "x".repeat(1 << 20);
        let whole: Result<Vec<()>, _> =
            (0..9).map(|_| calls.add(200, &part, &mut events)).collect();
        assert_eq!(whole.unwrap_err().kind, ErrorKind::Upstream);
        assert!(!format!("{calls:?}").contains('x'));
    }
}
