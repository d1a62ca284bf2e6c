//! A response piece by piece.

use axum::response::sse::Event as Sse;
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use serde_json::{Value, json};
use tieline_types::{BackendError, ErrorKind, Event};

use super::answer::{Told, Turn, Writer};
use crate::app::App;
use crate::error::ApiError;
use crate::open::Steps;
use crate::sse::data;

struct Teller {
    app: App,
    turn: Turn,
    writer: Writer,
    sequence: u64,
    over: bool,
}

/// The events of a response, up to its one end: completed, incomplete or failed. It is stored when it is over.
pub(super) fn events(
    app: &App,
    turn: Turn,
    steps: Steps,
) -> impl Stream<Item = Sse> + Send + 'static {
    let writer = Writer::new(&turn);
    let mut teller = Teller { app: app.clone(), turn, writer, sequence: 0, over: false };
    let begun = teller.begin();
    let states = stream::unfold(Some((teller, steps)), |state| async move {
        let (mut teller, mut steps) = state?;
        let missing = || BackendError::new(ErrorKind::Internal, "the answer has no end");
        let event = steps.next().await.map_or_else(|| Err(missing()), |step| step.event);
        let events = teller.step(event);
        let next = (!teller.over).then_some((teller, steps));
        Some((events, next))
    });
    let events: BoxStream<'static, Sse> =
        stream::iter(begun).chain(states.flat_map(stream::iter)).boxed();
    events
}

impl Teller {
    fn begin(&mut self) -> Vec<Sse> {
        let response = json!({ "response": self.turn.empty("in_progress") });
        ["response.created", "response.in_progress"]
            .map(|name| self.tell((name, response.clone())))
            .into()
    }

    fn step(&mut self, event: Result<Event, BackendError>) -> Vec<Sse> {
        let told = match event {
            Ok(event) => self.writer.take(event),
            Err(error) => {
                self.over = true;
                let response = self.writer.failed(&self.turn, &ApiError::from(error));
                self.keep(&response);
                vec![("response.failed", json!({ "response": response }))]
            }
        };
        let mut events: Vec<Sse> = told.into_iter().map(|told| self.tell(told)).collect();
        if self.writer.is_over() {
            self.over = true;
            let response = self.writer.response(&self.turn);
            self.keep(&response);
            let name = match response["status"].as_str() {
                Some("incomplete") => "response.incomplete",
                _ => "response.completed",
            };
            events.push(self.tell((name, json!({ "response": response }))));
        }
        events
    }

    fn keep(&self, response: &Value) {
        let said = self.writer.is_over().then(|| self.writer.said());
        if let Some(record) = self.turn.record(response.clone(), said) {
            self.app.responses().put(&self.turn.id, record);
        }
    }

    fn tell(&mut self, (name, members): Told) -> Sse {
        let mut event = json!({ "type": name, "sequence_number": self.sequence });
        self.sequence += 1;
        if let (Value::Object(event), Value::Object(members)) = (&mut event, members) {
            event.extend(members);
        }
        data(&event).event(name)
    }
}
