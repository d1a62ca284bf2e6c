//! A remote that records what it gets and says what it is told to.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tieline_privacy::Detectors;
use tieline_privacy::{
    Guard, GuardLimits, Guarded, Outbound, Release, Remote, RootKey, Session, Treatment,
};
use tieline_types::{
    Backend, BackendError, Event, EventStream, FinishReason, Finished, Piece, Prompt, Request,
    Started, Timing, ToolCallStep, Usage, Zone,
};

/// Cuts a text into pieces.
type Cut = Box<dyn Fn(&str) -> Vec<String> + Send + Sync>;

/// Says the messages of the request, then calls the tool as the request's calls did.
pub(crate) struct Mirror {
    /// All that it got, as JSON.
    pub(crate) got: Mutex<Vec<String>>,
    cut: Cut,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mirror")
    }
}

impl Mirror {
    pub(crate) fn new(cut: impl Fn(&str) -> Vec<String> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { got: Mutex::default(), cut: Box::new(cut) })
    }

    fn pieces(&self, text: &str) -> Vec<Piece> {
        let piece = |text: String| Piece { text: text.into(), logprobs: Vec::new() };
        (self.cut)(text).into_iter().map(piece).collect()
    }

    fn say(&self, request: &Request) -> Vec<Event> {
        let mut events = vec![Event::Started(Started::default())];
        let Prompt::Chat(messages) = &request.prompt else {
            panic!("a conversation");
        };
        for message in messages {
            if let Some(reasoning) = &message.reasoning {
                events.extend(self.pieces(reasoning.expose()).into_iter().map(Event::Reasoning));
            }
            events.extend(self.pieces(message.content.expose()).into_iter().map(Event::Piece));
        }
        let calls = messages.iter().flat_map(|message| &message.tool_calls);
        for (index, call) in (0..).zip(calls) {
            let (id, name) = (call.id.clone(), call.name.clone());
            events.push(Event::ToolCall(ToolCallStep::Begin { index, id, name }));
            for text in (self.cut)(call.arguments.expose()) {
                let text = text.into();
                events.push(Event::ToolCall(ToolCallStep::Arguments { index, text }));
            }
            events.push(Event::ToolCall(ToolCallStep::End { index }));
        }
        events.push(Event::Finished(Box::new(Finished {
            reason: FinishReason::ToolCalls,
            usage: Usage::default(),
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        })));
        events
    }
}

#[async_trait]
impl Remote for Mirror {
    fn name(&self) -> &str {
        "mirror/model"
    }

    fn zone(&self) -> Zone {
        Zone::Cloud
    }

    async fn send(&self, outbound: Outbound) -> Result<EventStream, BackendError> {
        let got = serde_json::to_string(outbound.request()).unwrap();
        self.got.lock().unwrap().push(got);
        Ok(Box::pin(stream::iter(self.say(outbound.request())).map(Ok)))
    }
}

pub(crate) fn guard(detectors: Detectors) -> Arc<Guard> {
    Arc::new(Guard::new(Arc::new(detectors), RootKey::new([7; 32]), GuardLimits::default()))
}

pub(crate) fn release(treatment: Treatment) -> Release {
    Release { treatment, rule: "test".to_owned(), session: Session::named("session") }
}

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) text: String,
    pub(crate) thoughts: String,
    pub(crate) arguments: String,
    pub(crate) ends: usize,
    pub(crate) egress: tieline_privacy::Egress,
}

/// Asks through the guard.
pub(crate) async fn ask(
    mirror: &Arc<Mirror>,
    guard: &Arc<Guard>,
    treatment: Treatment,
    request: Request,
) -> Result<Answer, BackendError> {
    let remote: Arc<dyn Remote> = Arc::<Mirror>::clone(mirror);
    let released = Guarded::new(remote, Arc::clone(guard)).released(release(treatment));
    let mut stream = released.run(request).await?;
    let mut answer = Answer::default();
    while let Some(event) = stream.next().await {
        match event? {
            Event::Piece(piece) => answer.text += piece.text.expose(),
            Event::Reasoning(piece) => answer.thoughts += piece.text.expose(),
            Event::ToolCall(ToolCallStep::Arguments { text, .. }) => {
                answer.arguments += text.expose()
            }
            Event::Finished(_) => answer.ends += 1,
            _ => {}
        }
    }
    answer.egress = released.egress();
    Ok(answer)
}
