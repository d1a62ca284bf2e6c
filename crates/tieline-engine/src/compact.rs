//! Answers a conversation that does not fit its context: the middle becomes a summary that the same model
//! writes.
//!
//! It asks the runner three kinds of things: how long a prompt is, a summary (of as many parts as its context wants), and
//! the answer. What goes is decided by [`select`], which asks nobody. A conversation that fits is passed on as it is.

mod known;
mod parts;
mod select;
mod summary;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use tieline_types::{
    BackendError, ErrorKind, Event, EventStream, Message, Overflow, Prompt, Request, Role,
    Sampling, Started, Tokens, ToolChoice,
};
use tokio::time::{Instant, timeout};

use crate::client::Client;
pub(crate) use known::Known;
use known::{Key, Written};
use parts::Parts;
use select::{Cuts, Search};
use summary::{Summary, both, late, listen, together};

/// A summary takes this share of the context, and no more than [`MOST_SUMMARY`] tokens.
const SHARE: u32 = 8;
const MOST_SUMMARY: u32 = 1024;
/// More bytes than a token has in any text worth a summary: what is longer than a context of such tokens is not even
/// counted at once, or a long conversation would be counted anew for each of its parts.
const TOKEN_BYTES: usize = 16;

/// Answers `request`, whose prompt is a conversation, with a context of so many tokens.
///
/// # Errors
/// The prompt is no conversation.
pub(crate) fn run(
    client: Client,
    known: Arc<Known>,
    request: Request,
    context: Tokens,
) -> Result<EventStream, BackendError> {
    if !matches!(request.prompt, Prompt::Chat(_)) {
        let text = "overflow is compact and the prompt is no conversation: expected messages";
        return Err(BackendError::new(ErrorKind::InvalidRequest, text)
            .with_hint("drop_oldest leaves out the beginning of a text"));
    }
    let preparing = Box::pin(async move {
        let arrived = Instant::now();
        Compaction { client, known, context, arrived }.answer(request).await
    });
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
            finished.timing = together(finished.timing, summary.timing);
            Event::Finished(finished)
        }
        event => event,
    }
}

struct Compaction {
    client: Client,
    known: Arc<Known>,
    context: Tokens,
    arrived: Instant,
}

impl Compaction {
    /// Asks for the answer, and for a summary first where one is needed.
    async fn answer(self, request: Request) -> Result<Prepared, BackendError> {
        let request = Request { overflow: Overflow::Error, ..request };
        let Prompt::Chat(messages) = request.prompt.clone() else {
            return Ok(Prepared { stream: self.client.generate(request).await?, summary: None });
        };
        let whole = self.client.count(request.clone()).await?;
        if whole < self.context {
            return Ok(Prepared { stream: self.client.generate(request).await?, summary: None });
        }
        let cuts = Cuts::of(&messages);
        let keys = self.keys(&request, &cuts.gone(&messages, cuts.at(cuts.len())));
        let (cut, kept) = self.cut(&request, &messages, &cuts, &keys).await?;
        let gone = cuts.gone(&messages, cut);
        let mut summary = self.summary(&request, &gone, &keys).await?;
        summary.compacted.messages = u32::try_from(gone.len()).unwrap_or(u32::MAX);
        summary.dropped = Tokens(whole.0.saturating_sub(kept.0));
        let messages = cuts.with_summary(&messages, cut, summary.text.expose());
        let deadline = self.time_left(&request);
        let request = Request { prompt: Prompt::Chat(messages), deadline, ..request };
        Ok(Prepared { stream: self.client.generate(request).await?, summary: Some(summary) })
    }

    /// What is left of the request's deadline.
    fn time_left(&self, request: &Request) -> Option<Duration> {
        request.deadline.map(|deadline| deadline.saturating_sub(self.arrived.elapsed()))
    }

    /// What summaries of the first message of `gone`, of the first two and so on are known by.
    fn keys(&self, request: &Request, gone: &[&Message]) -> Vec<Key> {
        let all = (&request.owner, &request.adapters, summary_tokens(self.context));
        known::keys(&format!("{all:?}"), &Parts::of(gone))
    }

    /// The place of the cut, and the length of what stays. It is one whose summary is written already where that makes
    /// room, so that the next turns of a conversation begin alike and are found in the prefix cache; else one that
    /// leaves room for some turns to come; else the one that leaves out least and makes room.
    async fn cut(
        &self,
        request: &Request,
        messages: &[Message],
        cuts: &Cuts,
        keys: &[Key],
    ) -> Result<(usize, Tokens), BackendError> {
        let room = room(request.max_tokens, self.context);
        let length = async |number: usize| {
            let messages = cuts.with_summary(messages, cuts.at(number), "");
            self.client.count(Request { prompt: Prompt::Chat(messages), ..request.clone() }).await
        };
        let is_written = |number: &usize| {
            let gone = cuts.gone(messages, cuts.at(*number)).len();
            is_kept(request) && self.known.is_written(&keys[gone - 1])
        };
        if let Some(number) = (0..cuts.len()).rfind(is_written) {
            let length = length(number).await?;
            if length <= room {
                return Ok((cuts.at(number), length));
            }
        }
        let mut shortest = None;
        for room in [Tokens(room.0 / 4 * 3), room] {
            let mut search = Search::over(cuts.len());
            let mut found = None;
            while let Some(number) = search.next() {
                let length = length(number).await?;
                search.tell(length <= room);
                if length <= room {
                    found = Some((cuts.at(number), length));
                } else {
                    shortest = Some(length);
                }
            }
            if let Some(found) = found {
                return Ok(found);
            }
        }
        let what = shortest.map_or("there is nothing to leave out".to_owned(), |shortest| {
            format!(
                "what must stay has {shortest}, and there is room for {room} beside the summary"
            )
        });
        let text = format!("the conversation does not fit a context of {}: {what}", self.context);
        let hint = "shorten the newest message or the instructions, or ask for a longer context";
        Err(BackendError::new(ErrorKind::ContextExceeded, text).with_hint(hint))
    }

    /// The summary of what goes: as it was written before, or going on from the longest part of it that was.
    async fn summary(
        &self,
        request: &Request,
        gone: &[&Message],
        keys: &[Key],
    ) -> Result<Summary, BackendError> {
        let mut parts = Parts::of(gone);
        let Some(key) = keys.get(gone.len() - 1).filter(|_| is_kept(request)) else {
            return self.summarise(request, Written::default(), parts, &[]).await;
        };
        let mut own = None;
        let cell = self.known.cell(*key);
        let written = cell.get_or_try_init(async || {
            let (count, before) = self.known.longest(&keys[..gone.len()]);
            parts.take(count);
            let keys = &keys[..gone.len() - 1];
            let summary = own.insert(self.summarise(request, before, parts, keys).await?);
            Ok::<_, BackendError>(summary.written())
        });
        let written = match self.time_left(request) {
            // Who waits for another's summary waits no longer than for an own one.
            Some(left) => timeout(left, written).await.map_err(|_| late())??.clone(),
            None => written.await?.clone(),
        };
        Ok(own.unwrap_or_else(|| Summary::known(written)))
    }

    /// Has the model write a summary of `parts`, as many at once as its context holds: each reads what was written before.
    /// Where one ends with a message of those that `keys` are of it is kept, so that whoever asks again after the deadline goes on from it.
    async fn summarise(
        &self,
        request: &Request,
        before: Written,
        mut parts: Parts,
        keys: &[Key],
    ) -> Result<Summary, BackendError> {
        let mut summary = Summary::known(before);
        let mut step = None;
        while !parts.is_empty() {
            let ask = self.longest(request, summary.text.expose(), &mut parts).await?;
            let (text, finished) = listen(self.client.generate(ask).await?).await?;
            summary.add(&text, finished)?;
            if let Some(&key) = parts.messages_taken().and_then(|taken| keys.get(taken - 1)) {
                self.known.keep_step(key, &mut step, summary.written());
            }
        }
        Ok(summary)
    }

    /// The question about as many parts as the context holds, which are taken from `parts`.
    async fn longest(
        &self,
        request: &Request,
        before: &str,
        parts: &mut Parts,
    ) -> Result<Request, BackendError> {
        let most = summary_tokens(self.context);
        let bytes = usize::try_from(self.context.0).unwrap_or(usize::MAX);
        loop {
            let all = parts.within(bytes.saturating_mul(TOKEN_BYTES));
            let ask = |count: usize| self.ask(request, question(before, &parts.first(count), most));
            let mut length = self.client.count(ask(all)).await?;
            let fits = |length: Tokens| length.0.saturating_add(most.0) <= self.context.0;
            let mut found = fits(length).then_some(all);
            // The fewer, the shorter: all but `number` of them.
            let mut search = Search::over(if found.is_some() { 0 } else { all });
            while let Some(number) = search.next() {
                let count = all - number;
                length = self.client.count(ask(count)).await?;
                search.tell(fits(length));
                found = if fits(length) { Some(count) } else { found };
            }
            if let Some(count) = found {
                let ask = ask(count);
                parts.take(count);
                return Ok(ask);
            }
            // Not even one: a message may be longer than the context.
            if !parts.halve_first() {
                let context = self.context;
                let text = format!(
                    "cannot summarise what does not fit: with the question it has {length}, and the context \
                     holds {context}, {most} of them for the summary"
                );
                let hint = "ask for a longer context, or leave the oldest turns out (drop_oldest)";
                return Err(BackendError::new(ErrorKind::ContextExceeded, text).with_hint(hint));
            }
        }
    }

    /// A request for a summary, in the name of who asks for the answer.
    fn ask(&self, request: &Request, question: Vec<Message>) -> Request {
        Request {
            prompt: Prompt::Chat(question),
            sampling: Sampling::greedy(),
            max_tokens: Some(summary_tokens(self.context)),
            stop: Vec::new(),
            logprobs: None,
            prompt_logprobs: None,
            ignore_eog: false,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            thinking: Some(false),
            constraint: None,
            deadline: self.time_left(request),
            ..request.clone()
        }
    }
}

/// Whether summaries may be kept of it, and kept ones be used: a deterministic answer hangs on no earlier request.
fn is_kept(request: &Request) -> bool {
    request.cache && !request.deterministic
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

/// What is asked of the model for a summary of `said`; `before` is the summary of what came before that.
fn question(before: &str, said: &str, most: Tokens) -> Vec<Message> {
    // English takes about four tokens for three words; some are left for the end.
    let words = (most.0 / 2).max(1);
    let before = match before {
        "" => String::new(),
        before => format!("Summary of what came before, which belongs into yours: {before}\n"),
    };
    let text = format!(
        "Summarise the conversation between the lines below for somebody who goes on with it. Keep names, \
         numbers, decisions, results of tools and open questions. Write at most {words} words in the \
         conversation's language, and nothing but the summary.\n---\n{before}{said}\n---"
    );
    vec![
        Message::new(Role::System, "You summarise conversations faithfully and briefly."),
        Message::new(Role::User, text),
    ]
}
