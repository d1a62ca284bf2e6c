//! Answers a conversation that does not fit its context: the middle becomes a summary that the same model
//! writes.
//!
//! It asks the runner three kinds of things: how long a prompt is, a summary (once), and the answer. What
//! goes is decided by [`select`], which asks nobody. A conversation that fits is passed on as it is.

mod select;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use tieline_types::{
    BackendError, Compacted, ErrorKind, Event, EventStream, FinishReason, Finished, Message,
    Overflow, Prompt, Request, Role, Sampling, Started, Timing, Tokens, ToolChoice, Usage,
};
use tokio::time::Instant;

use crate::client::Client;
use select::{Cuts, Search};

/// A summary takes this share of the context, and no more than [`MOST_SUMMARY`] tokens.
const SHARE: u32 = 8;
const MOST_SUMMARY: u32 = 1024;

/// Answers `request`, whose prompt is a conversation, with a context of so many tokens.
///
/// # Errors
/// The prompt is no conversation.
pub(crate) fn run(
    client: Client,
    request: Request,
    context: Tokens,
) -> Result<EventStream, BackendError> {
    if !matches!(request.prompt, Prompt::Chat(_)) {
        let text = "overflow is compact and the prompt is no conversation: expected messages";
        return Err(BackendError::new(ErrorKind::InvalidRequest, text)
            .with_hint("drop_oldest leaves out the beginning of a text"));
    }
    let preparing = Box::pin(async move { Compaction { client, context }.answer(request).await });
    Ok(Box::pin(Answer::Preparing(preparing)))
}

/// The answer as it comes.
enum Answer {
    Preparing(Pin<Box<dyn Future<Output = Result<Prepared, BackendError>> + Send>>),
    Running(Prepared),
    Over,
}

/// An answer that is asked for, and what came before it.
struct Prepared {
    stream: EventStream,
    summary: Option<Summary>,
}

/// What was written in place of the middle, and what it took.
struct Summary {
    text: String,
    compacted: Compacted,
    dropped: Tokens,
    usage: Usage,
    timing: Timing,
}

impl Stream for Answer {
    type Item = Result<Event, BackendError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match &mut *self {
                Self::Preparing(prepared) => match ready!(prepared.as_mut().poll(context)) {
                    Ok(prepared) => *self = Self::Running(prepared),
                    Err(error) => {
                        *self = Self::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                },
                Self::Running(Prepared { stream, summary }) => {
                    let event = ready!(stream.as_mut().poll_next(context));
                    let told = event.map(|event| Ok(tell(event?, summary.as_ref())));
                    return Poll::Ready(told);
                }
                Self::Over => return Poll::Ready(None),
            }
        }
    }
}

/// The event with what the summary adds to it.
fn tell(event: Event, summary: Option<&Summary>) -> Event {
    let Some(summary) = summary else { return event };
    match event {
        Event::Started(started) => Event::Started(Started {
            dropped_tokens: summary.dropped,
            compacted: Some(summary.compacted),
            ..started
        }),
        Event::Finished(mut finished) => {
            finished.usage = both(finished.usage, summary.usage);
            finished.timing.queue += summary.timing.queue;
            finished.timing.prefill += summary.timing.prefill;
            finished.timing.decode += summary.timing.decode;
            Event::Finished(finished)
        }
        event => event,
    }
}

fn both(a: Usage, b: Usage) -> Usage {
    let sum = |a: Tokens, b: Tokens| Tokens(a.0.saturating_add(b.0));
    Usage {
        prompt_tokens: sum(a.prompt_tokens, b.prompt_tokens),
        cached_tokens: sum(a.cached_tokens, b.cached_tokens),
        cache_write_tokens: sum(a.cache_write_tokens, b.cache_write_tokens),
        completion_tokens: sum(a.completion_tokens, b.completion_tokens),
        reasoning_tokens: sum(a.reasoning_tokens, b.reasoning_tokens),
        drafted_tokens: sum(a.drafted_tokens, b.drafted_tokens),
        accepted_tokens: sum(a.accepted_tokens, b.accepted_tokens),
        model_drafted_tokens: sum(a.model_drafted_tokens, b.model_drafted_tokens),
        model_accepted_tokens: sum(a.model_accepted_tokens, b.model_accepted_tokens),
    }
}

struct Compaction {
    client: Client,
    context: Tokens,
}

impl Compaction {
    /// Asks for the answer, and for a summary first where one is needed.
    async fn answer(self, request: Request) -> Result<Prepared, BackendError> {
        let arrived = Instant::now();
        let request = Request { overflow: Overflow::Error, ..request };
        let Prompt::Chat(messages) = request.prompt.clone() else {
            return Ok(Prepared { stream: self.client.generate(request).await?, summary: None });
        };
        let whole = self.client.count(request.clone()).await?;
        if whole < self.context {
            return Ok(Prepared { stream: self.client.generate(request).await?, summary: None });
        }
        let cuts = Cuts::of(&messages);
        let (cut, kept) = self.cut(&request, &messages, &cuts).await?;
        let dropped = Tokens(whole.0.saturating_sub(kept.0));
        let summary = self.summarise(&request, &cuts.gone(&messages, cut), dropped).await?;
        let messages = cuts.with_summary(&messages, cut, &summary.text);
        let deadline = request.deadline.map(|deadline| deadline.saturating_sub(arrived.elapsed()));
        let request = Request { prompt: Prompt::Chat(messages), deadline, ..request };
        Ok(Prepared { stream: self.client.generate(request).await?, summary: Some(summary) })
    }

    /// The cut that leaves out least and makes room, and the length of what stays.
    async fn cut(
        &self,
        request: &Request,
        messages: &[Message],
        cuts: &Cuts,
    ) -> Result<(usize, Tokens), BackendError> {
        let room = room(request.max_tokens, self.context);
        let mut search = Search::over(cuts.len());
        let mut shortest = None;
        let mut found = None;
        while let Some(number) = search.next() {
            let messages = cuts.with_summary(messages, cuts.at(number), "");
            let request = Request { prompt: Prompt::Chat(messages), ..request.clone() };
            let length = self.client.count(request).await?;
            let fits = length <= room;
            search.tell(fits);
            if fits {
                found = Some((cuts.at(number), length));
            } else {
                shortest = Some(length);
            }
        }
        found.ok_or_else(|| {
            let what = shortest.map_or("there is nothing to leave out".to_owned(), |shortest| {
                format!(
                    "what must stay has {shortest}, and there is room for {room} beside the summary"
                )
            });
            let text =
                format!("the conversation does not fit a context of {}: {what}", self.context);
            BackendError::new(ErrorKind::ContextExceeded, text).with_hint(
                "shorten the newest message or the instructions, or ask for a longer context",
            )
        })
    }

    /// Has the model write a summary of what goes.
    async fn summarise(
        &self,
        request: &Request,
        gone: &[&Message],
        dropped: Tokens,
    ) -> Result<Summary, BackendError> {
        let most = summary_tokens(self.context);
        let ask = Request {
            prompt: Prompt::Chat(question(gone, most)),
            sampling: Sampling::greedy(),
            max_tokens: Some(most),
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            ignore_eog: false,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            thinking: Some(false),
            constraint: None,
            ..request.clone()
        };
        let length = self.client.count(ask.clone()).await?;
        if length.0.saturating_add(most.0) > self.context.0 {
            let text = format!(
                "cannot summarise what does not fit: with the question it has {length}, and the context \
                 holds {}, {most} of them for the summary",
                self.context
            );
            return Err(BackendError::new(ErrorKind::ContextExceeded, text).with_hint(
                "ask for a longer context, or leave the oldest turns out (drop_oldest)",
            ));
        }
        let (text, finished) = listen(self.client.generate(ask).await?).await?;
        let text = text.trim().to_owned();
        if finished.reason == FinishReason::Deadline {
            let text = "the deadline passed while a summary was written";
            return Err(BackendError::new(ErrorKind::Timeout, text));
        }
        if text.is_empty() {
            let text = "cannot summarise what does not fit: the model wrote no summary";
            return Err(BackendError::new(ErrorKind::ContextExceeded, text)
                .with_hint("leave the oldest turns out (drop_oldest), or use another model"));
        }
        let compacted = Compacted {
            messages: u32::try_from(gone.len()).unwrap_or(u32::MAX),
            read_tokens: finished.usage.prompt_tokens,
            written_tokens: finished.usage.completion_tokens,
            cut: finished.reason == FinishReason::MaxTokens,
        };
        let Finished { usage, timing, .. } = finished;
        Ok(Summary { text, compacted, dropped, usage, timing })
    }
}

fn summary_tokens(context: Tokens) -> Tokens {
    Tokens((context.0 / SHARE).clamp(1, MOST_SUMMARY))
}

/// Tokens that the prompt may have without its summary's: as in the runner, the answer gets what it asks
/// for, at most half the context.
fn room(max_tokens: Option<Tokens>, context: Tokens) -> Tokens {
    let answer = max_tokens.map_or(context.0 / 4, |most| most.0).clamp(1, (context.0 / 2).max(1));
    Tokens(context.0.saturating_sub(answer).saturating_sub(summary_tokens(context).0))
}

/// What is asked of the model for a summary.
fn question(gone: &[&Message], most: Tokens) -> Vec<Message> {
    let said: Vec<String> = gone.iter().map(|message| transcript(message)).collect();
    let said = said.join("\n");
    // English takes about four tokens for three words; some are left for the end.
    let words = (most.0 / 2).max(1);
    let text = format!(
        "Summarise the conversation between the lines below for somebody who goes on with it. Keep names, \
         numbers, decisions, results of tools and open questions. Write at most {words} words in the \
         conversation's language, and nothing but the summary.\n---\n{said}\n---"
    );
    vec![
        Message::new(Role::System, "You summarise conversations faithfully and briefly."),
        Message::new(Role::User, text),
    ]
}

/// A message as the summary's writer reads it.
fn transcript(message: &Message) -> String {
    let who = match message.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Result of a tool",
        _ => "Instructions",
    };
    let mut text = format!("{who}: {}", message.content.expose());
    for call in &message.tool_calls {
        text += &format!("\nAssistant called {}: {}", call.name, call.arguments.expose());
    }
    text
}

/// The text of an answer and its end.
async fn listen(mut stream: EventStream) -> Result<(String, Finished), BackendError> {
    let mut text = String::new();
    loop {
        match poll_fn(|context| stream.as_mut().poll_next(context)).await {
            Some(Ok(Event::Piece(piece))) => text.push_str(piece.text.expose()),
            Some(Ok(Event::Finished(finished))) => return Ok((text, *finished)),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                let (kind, origin, retry) = (error.kind, error.origin, error.retry);
                let text = "cannot summarise what does not fit the context";
                let mut wrapped = BackendError::new(kind, text).with_source(error);
                (wrapped.origin, wrapped.retry) = (origin, retry);
                return Err(wrapped);
            }
            None => {
                let text = "the summary ended without an end";
                return Err(BackendError::new(ErrorKind::Internal, text));
            }
        }
    }
}
