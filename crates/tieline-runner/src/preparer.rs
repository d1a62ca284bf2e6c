//! Templates, tokenisers and rules, on threads beside the one that computes: no answer at work waits for somebody's
//! text to be read.
//!
//! There are two of them. What is long goes to one of its own, where it holds up nobody but what is long as well.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Instant;

use tieline_types::wire::{FailureKind, FrameError, Input, Reply, Work};
use tieline_types::{Message, Prompt, Request, RequestId, Tool};

use crate::control::Control;
use crate::embed;
use crate::pipe::{Order, Writer};
use crate::prompt::{self, Prepared, Prompts};
use crate::session::failure;

/// Texts of more bytes are long: some tens of milliseconds.
const LONG: usize = 64 * 1024;
/// Most long texts that wait; the next is refused.
const LONG_QUEUE: usize = 64;
/// Most prompts that are ready and wait for the computing thread: it takes some of them between two steps.
const READY: usize = 8;
/// The same of orders of texts: as many as fill a batch with a text each.
const READY_TEXTS: usize = 16;
/// The stack of the thread for short texts, of which a template can make long ones all the same.
const SHORT_STACK: usize = prompt::STACK / 4;

/// A request that can be computed.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) id: RequestId,
    pub(crate) request: Request,
    pub(crate) prepared: Prepared,
    pub(crate) arrived: Instant,
}

/// What a model is loaded for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Serves {
    /// Answers, in a context of so many tokens.
    Answers(usize),
    /// Vectors and scores.
    Vectors,
}

/// What a preparing thread needs.
#[derive(Clone)]
struct Preparer {
    prompts: Arc<Prompts<'static>>,
    serves: Serves,
    control: Arc<Control>,
    writer: Writer,
    ready: SyncSender<Order>,
}

/// Starts to prepare what comes by `orders`. The receiver has what is left to do, in the order in which it came but
/// for what is long; it ends when `orders` does.
///
/// # Errors
/// The system has no room for a thread.
pub(crate) fn start(
    prompts: Prompts<'static>,
    serves: Serves,
    orders: Receiver<Order>,
    (control, writer): (&Arc<Control>, &Writer),
) -> io::Result<Receiver<Order>> {
    let (ready, receiver) = sync_channel(match serves {
        Serves::Answers(_) => READY,
        Serves::Vectors => READY_TEXTS,
    });
    let (long, long_orders) = sync_channel(LONG_QUEUE);
    let preparer = Preparer {
        prompts: Arc::new(prompts),
        serves,
        control: Arc::clone(control),
        writer: writer.clone(),
        ready,
    };
    let other = preparer.clone();
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    named("long texts")
        .stack_size(prompt::STACK)
        .spawn(move || other.work(&long_orders, |order| other.prepare_long(order)))?;
    named("texts").stack_size(SHORT_STACK).spawn(move || {
        preparer.work(&orders, |order| match length(&order) {
            0..=LONG => preparer.prepare(order),
            _ => preparer.hand_on(&long, order),
        });
    })?;
    Ok(receiver)
}

/// Nobody takes what is ready any more, or the engine is gone.
struct Ended;

impl From<FrameError> for Ended {
    fn from(_: FrameError) -> Self {
        Self
    }
}

impl Preparer {
    fn work(&self, orders: &Receiver<Order>, mut take: impl FnMut(Order) -> Result<(), Ended>) {
        while let Ok(order) = orders.recv() {
            if self.control.is_closing() || take(order).is_err() {
                return;
            }
        }
    }

    /// A long text takes its time: not for whoever is gone.
    fn prepare_long(&self, order: Order) -> Result<(), Ended> {
        match order {
            Order::Work { id, .. } if self.control.is_cancelled(id) => {
                self.answer(id, Reply::Failed(failure(FailureKind::Busy, "cancelled")))
            }
            order => self.prepare(order),
        }
    }

    fn prepare(&self, order: Order) -> Result<(), Ended> {
        let Order::Work { id, work, arrived } = order else { return self.pass_on(order) };
        match (work, self.serves) {
            (Work::Generate(request), Serves::Answers(context)) => {
                self.prepare_prompt((id, request, arrived), context)
            }
            (work @ (Work::Embed { .. } | Work::Rank { .. }), Serves::Vectors) => {
                self.prepare_texts(id, work, arrived)
            }
            // Whoever computes says why it does not.
            (
                work @ (Work::Generate(_)
                | Work::Embed { .. }
                | Work::Rank { .. }
                | Work::Measure { .. }),
                _,
            ) => self.pass_on(Order::Work { id, work, arrived }),
            (text, _) => {
                let reply = self.reading(|| prompt::text_work(&self.prompts, text));
                self.answer(id, reply.unwrap_or_else(Reply::Failed))
            }
        }
    }

    fn prepare_texts(&self, id: RequestId, work: Work, arrived: Instant) -> Result<(), Ended> {
        let is_wanted = || !self.control.is_cancelled(id);
        let order = (id, work, arrived);
        let model = self.prompts.model;
        match self.reading(|| embed::Prepared::new(model, order, LONG, is_wanted)) {
            Ok(prepared) => self.pass_on(Order::Vectors(Box::new(prepared))),
            Err(failure) => self.answer(id, Reply::Failed(failure)),
        }
    }

    fn prepare_prompt(
        &self,
        (id, request, arrived): (RequestId, Box<Request>, Instant),
        context: usize,
    ) -> Result<(), Ended> {
        match self.reading(|| self.prompts.prepare(id, &request, context)) {
            Ok(prepared) => {
                let request = *request;
                self.pass_on(Order::Answer(Box::new(Ready { id, request, prepared, arrived })))
            }
            Err(failure) => self.answer(id, Reply::Failed(failure)),
        }
    }

    /// Hands a long text to the thread for those, or refuses it.
    fn hand_on(&self, long: &SyncSender<Order>, order: Order) -> Result<(), Ended> {
        match long.try_send(order) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(Order::Work { id, .. })) => {
                let text = format!("{LONG_QUEUE} texts of more than {LONG} bytes already wait");
                self.answer(id, Reply::Failed(failure(FailureKind::Busy, text)))
            }
            Err(_) => Err(Ended),
        }
    }

    fn answer(&self, id: RequestId, reply: Reply) -> Result<(), Ended> {
        self.control.end(id);
        Ok(self.writer.last(id, reply)?)
    }

    fn pass_on(&self, order: Order) -> Result<(), Ended> {
        self.ready.send(order).map_err(|_| Ended)
    }

    /// Does what the engine watches.
    fn reading<T>(&self, work: impl FnOnce() -> T) -> T {
        let _reading = self.control.read();
        work()
    }
}

/// How much there is to read in an order, in bytes; tokens need no tokeniser and count as such.
fn length(order: &Order) -> usize {
    let Order::Work { work, .. } = order else { return 0 };
    match work {
        Work::Generate(request) | Work::Count(request) => {
            prompt_length(&request.prompt) + tools_length(&request.tools)
        }
        Work::Tokenize { text, .. } => text.expose().len(),
        Work::Render { messages, tools } => chat_length(messages) + tools_length(tools),
        Work::Detokenize { tokens, .. } => tokens.len(),
        // The others are read one by one, when they are computed.
        Work::Embed { texts, .. } => texts.iter().map(text_length).max().unwrap_or(0),
        Work::Rank { query, texts, .. } => {
            let texts = texts.iter().chain([query]);
            texts.map(|text| text.expose().len()).max().unwrap_or(0)
        }
        Work::Measure { .. } => 0,
    }
}

fn prompt_length(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Chat(messages) => chat_length(messages),
        Prompt::Text(text) => text.expose().len(),
        Prompt::Infill { prefix, suffix } => prefix.expose().len() + suffix.expose().len(),
        Prompt::Tokens(tokens) | Prompt::Rendered(tokens) => tokens.len(),
        // No frame holds them.
        Prompt::Texts(_) => 0,
    }
}

fn text_length(text: &Input) -> usize {
    match text {
        Input::Text(text) => text.expose().len(),
        Input::Tokens(_) => 0,
    }
}

fn chat_length(messages: &[Message]) -> usize {
    let length = |message: &Message| {
        let thoughts = message.reasoning.as_ref().map_or(0, |text| text.expose().len());
        let calls = message.tool_calls.iter().map(|call| call.arguments.expose().len());
        message.content.expose().len() + thoughts + calls.sum::<usize>()
    };
    messages.iter().map(length).sum()
}

fn tools_length(tools: &[Tool]) -> usize {
    tools.iter().map(|tool| tool.description.len() + tool.parameters.len()).sum()
}

#[cfg(test)]
mod tests {
    use tieline_types::{Asker, Role};

    use super::*;

    /// Whatever a tokeniser or a template reads counts.
    #[test]
    fn all_that_is_read_counts() {
        let of = |work| length(&Order::Work { id: RequestId(1), work, arrived: Instant::now() });
        let mut message = Message::new(Role::User, "12345");
        message.reasoning = Some("123".into());
        let tool = Tool { name: "t".into(), description: "12".into(), parameters: "{}".into() };
        let chat = Prompt::Chat(vec![message.clone(), message]);
        let request = Request { tools: vec![tool], ..Request::new(chat) };
        assert_eq!(of(Work::Count(Box::new(request.clone()))), 2 * 8 + 4);
        assert_eq!(of(Work::Generate(Box::new(request))), 2 * 8 + 4);
        let (prefix, suffix) = ("12".into(), "345".into());
        let gap = Request::new(Prompt::Infill { prefix, suffix });
        assert_eq!(of(Work::Generate(Box::new(gap))), 5);
        assert_eq!(of(Work::Detokenize { tokens: vec![1; 7], special: false }), 7);
        // Of texts to be computed one by one the longest; tokens are read already.
        let texts = vec!["1".into(), "1234".into(), Input::Tokens(vec![1; 9]), "12".into()];
        let asker = Asker::default;
        assert_eq!(of(Work::Embed { texts, normalise: true, asker: asker() }), 4);
        let rank = |query: &str| {
            let texts = vec!["1".into(), "123".into()];
            of(Work::Rank { query: query.into(), texts, asker: asker() })
        };
        assert_eq!((rank("12"), rank("12345")), (3, 5));
    }
}
