//! Responses that nobody waits for.

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::answer::{Turn, Writer};
use super::ask::Asked;
use super::{WHAT, missing, steps};
use crate::app::App;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::open;

/// Begins one; gives it as it is: queued.
pub(super) fn begin(app: &App, caller: &Caller, asked: Asked) -> Result<Value, ApiError> {
    // What this key may not ask is refused at once.
    open::route(app, caller, WHAT, asked.ask.wanted.clone())?;
    let place = app.responses().place()?;
    let cancel = CancellationToken::new();
    let queued = asked.turn.empty("queued");
    let record = asked.turn.record(queued.clone(), None).ok_or_else(missing)?;
    app.responses().begin(&asked.turn.id, record, cancel.clone())?;
    let (made_by, caller) = (app.clone(), caller.clone());
    let unfinished = Unfinished { app: app.clone(), id: asked.turn.id.clone() };
    app.responses().spawn(cancel, async move {
        make(&made_by, &caller, asked).await;
        drop((unfinished, place));
    });
    Ok(queued)
}

/// Files a response as failed whose making ended otherwise than it should.
struct Unfinished {
    app: App,
    id: String,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.app.responses().abandon(&self.id);
    }
}

async fn make(app: &App, caller: &Caller, asked: Asked) {
    let (turn, one_call) = (asked.turn, asked.one_call);
    let mut writer = Writer::new(&turn);
    let over = match open::waited(app, caller, WHAT, asked.ask).await {
        Ok(opened) => {
            let heard = listen(app, &turn, &mut writer, steps(opened.steps, one_call));
            heard.await.map(|()| writer.response(&turn))
        }
        Err(error) => Err(error),
    };
    let said = writer.is_over().then(|| writer.said());
    let response = over.unwrap_or_else(|error| writer.failed(&turn, &error));
    if let Some(record) = turn.record(response, said) {
        app.responses().finish(&turn.id, record.response, record.messages);
    }
}

/// Writes all that comes, and shows each item once it is whole.
async fn listen(
    app: &App,
    turn: &Turn,
    writer: &mut Writer,
    mut steps: open::Steps,
) -> Result<(), ApiError> {
    app.responses().progress(&turn.id, writer.response(turn));
    while let Some(step) = steps.next().await {
        let told = writer.take(step.event?);
        if told.iter().any(|(name, _)| *name == "response.output_item.done") && !writer.is_over() {
            app.responses().progress(&turn.id, writer.response(turn));
        }
    }
    Ok(())
}

/// What a deleted response is answered with.
pub(super) fn deleted(id: &str) -> Value {
    json!({ "id": id, "object": "response", "deleted": true })
}
