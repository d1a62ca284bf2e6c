//! What happens, as it happens: requests that ended, and models that come to memory and leave it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures_util::stream;
use serde_json::{Value, json};
use tieline_router::Record;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::decisions::{may_see, told};
use crate::app::App;
use crate::caller::Caller;
use crate::heads::{Marks, stamp};
use crate::sse;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

struct Watch {
    app: App,
    caller: Caller,
    heard: Receiver<Arc<Record>>,
    tick: Interval,
    memory: Value,
}

pub(crate) async fn events(State(app): State<App>, caller: Caller) -> Response {
    let heard = app.router().records().subscribe();
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let watch =
        Watch { app: app.clone(), caller: caller.clone(), heard, tick, memory: Value::Null };
    let events = stream::unfold(watch, |mut watch| async move {
        let (name, value) = watch.next().await?;
        Some((sse::named(name, &value), watch))
    });
    stamp(sse::response(&app, events), &caller, &Marks::default(), &[])
}

impl Watch {
    async fn next(&mut self) -> Option<(&'static str, Value)> {
        loop {
            tokio::select! {
                heard = self.heard.recv() => match heard {
                    Ok(record) if may_see(&self.caller, &record) => {
                        return Some(("decision", told(&self.caller, json!(*record))));
                    }
                    Ok(_) => {}
                    Err(RecvError::Lagged(missed)) => {
                        return Some(("lagged", json!({ "missed": missed })));
                    }
                    Err(RecvError::Closed) => return None,
                },
                _ = self.tick.tick() => {
                    // Who only listens keeps no server from stopping.
                    if !self.app.is_ready() {
                        return None;
                    }
                    let memory = self.look().await?;
                    if memory != self.memory {
                        self.memory = memory.clone();
                        return Some(("memory", memory));
                    }
                }
            }
        }
    }

    /// `None` where the host tells no more: it ends.
    async fn look(&self) -> Option<Value> {
        let status = self.app.router().host().status().await.ok()?;
        let seen = status.models.iter().filter(|model| self.caller.may_ask(&model.name));
        let models: Vec<Value> = seen
            .map(
                |model| json!({ "name": model.name, "digest": model.digest, "phase": model.phase }),
            )
            .collect();
        Some(json!({ "models": models }))
    }
}
