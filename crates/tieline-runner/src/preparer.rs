//! Templates, tokenisers and rules, on threads beside the one that computes: no answer at work waits for somebody's
//! text to be read.
//!
//! There are two of them. What is long goes to one of its own, where it holds up nobody but what is long as well.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Instant;

use tieline_types::wire::{FailureKind, FrameError, Reply, Work};
use tieline_types::{Prompt, Request, RequestId};

use crate::control::Control;
use crate::pipe::{Order, Writer};
use crate::prompt::{self, Prepared, Prompts};
use crate::session::failure;

/// Texts of more bytes are long: some tens of milliseconds.
const LONG: usize = 64 * 1024;
/// Most long texts that wait; the next is refused.
const LONG_QUEUE: usize = 64;
/// Most prompts that are ready and wait for the computing thread: it takes some of them between two steps.
const READY: usize = 8;
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

/// What a preparing thread needs.
#[derive(Clone)]
struct Preparer {
    prompts: Arc<Prompts<'static>>,
    /// Tokens of the context.
    context: usize,
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
    context: usize,
    orders: Receiver<Order>,
    (control, writer): (&Arc<Control>, &Writer),
) -> io::Result<Receiver<Order>> {
    let (ready, receiver) = sync_channel(READY);
    let (long, long_orders) = sync_channel(LONG_QUEUE);
    let preparer = Preparer {
        prompts: Arc::new(prompts),
        context,
        control: Arc::clone(control),
        writer: writer.clone(),
        ready,
    };
    let other = preparer.clone();
    let named = |name: &str| thread::Builder::new().name(name.to_owned());
    named("long texts")
        .stack_size(prompt::STACK)
        .spawn(move || other.work(&long_orders, |order| other.prepare(order)))?;
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

    fn prepare(&self, order: Order) -> Result<(), Ended> {
        let Order::Work { id, work, arrived } = order else { return self.pass_on(order) };
        match work {
            Work::Generate(request) => self.prepare_prompt(id, request, arrived),
            Work::Embed { .. } | Work::Rank { .. } | Work::Measure { .. } => {
                self.pass_on(Order::Work { id, work, arrived })
            }
            text => {
                let reply = self.reading(|| prompt::text_work(&self.prompts, text));
                self.answer(id, reply.unwrap_or_else(Reply::Failed))
            }
        }
    }

    fn prepare_prompt(
        &self,
        id: RequestId,
        request: Box<Request>,
        arrived: Instant,
    ) -> Result<(), Ended> {
        match self.reading(|| self.prompts.prepare(id, &request, self.context)) {
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

/// How long the texts of an order are, in bytes.
fn length(order: &Order) -> usize {
    let Order::Work { work, .. } = order else { return 0 };
    let chat = |messages: &[tieline_types::Message]| {
        messages.iter().map(|message| message.content.expose().len()).sum()
    };
    let prompt = |prompt: &Prompt| match prompt {
        Prompt::Chat(messages) => chat(messages),
        Prompt::Text(text) => text.expose().len(),
        Prompt::Infill { prefix, suffix } => prefix.expose().len() + suffix.expose().len(),
        // Tokens need no tokeniser.
        Prompt::Tokens(_) | Prompt::Rendered(_) | Prompt::Texts(_) => 0,
    };
    match work {
        Work::Generate(request) | Work::Count(request) => prompt(&request.prompt),
        Work::Tokenize { text, .. } => text.expose().len(),
        Work::Render { messages, .. } => chat(messages),
        Work::Detokenize { .. } | Work::Embed { .. } | Work::Rank { .. } | Work::Measure { .. } => {
            0
        }
    }
}
