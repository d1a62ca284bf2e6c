//! The loop of a model that makes vectors or scores: takes orders, reads a few texts of all of them, computes these
//! together, says what came.

mod order;

use std::collections::HashMap;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use tieline_decode::schedule::QueueFull;
use tieline_decode::texts::{Limits, Order as Waiting, Text, Texts};
use tieline_types::RequestId;
use tieline_types::wire::{Failure, FailureKind, FrameError, FromRunner, Reply};

use crate::desk::Line;
use crate::llama::{Batch, DecodeError};
use crate::pipe::Order as Arrived;
use crate::session::{Session, failure, failure_with};
use order::Order;
pub(crate) use order::Prepared;

/// Most orders that wait; the next is refused.
const QUEUE: usize = 256;
/// Once orders took so long, the next one waits for a batch.
const PAUSE: Duration = Duration::from_millis(5);

const NO_ADAPTERS: &str = "this version applies adapters to models that generate text alone";

/// Serves a model that is loaded for embeddings until the orders end.
pub(crate) fn serve(session: Session<'_>, line: Line<'_>) -> Result<(), FrameError> {
    let limits = Limits {
        queue: QUEUE,
        texts: session.settings.sequences.into(),
        tokens: usize::try_from(session.settings.batch).unwrap_or(usize::MAX),
    };
    let (queue, orders) = (Texts::new(limits), HashMap::new());
    Table { session, queue, orders }.serve(line)
}

/// What is at work.
struct Table<'m> {
    session: Session<'m>,
    queue: Texts,
    orders: HashMap<RequestId, Order>,
}

impl Table<'_> {
    fn serve(mut self, line: Line<'_>) -> Result<(), FrameError> {
        while self.take_orders(line)? {
            let _reading = line.control.read();
            self.drop_unwanted(line)?;
            self.step(line)?;
        }
        // Nobody waits for ever.
        self.drop_unwanted(line)
    }

    /// Takes all orders that have come; waits for one if there is nothing else to do. `false`: none will come any
    /// more.
    fn take_orders(&mut self, line: Line<'_>) -> Result<bool, FrameError> {
        let mut spent = Duration::ZERO;
        for _ in 0..QUEUE {
            if spent > PAUSE && !self.orders.is_empty() {
                return Ok(true);
            }
            let order = if self.orders.is_empty() {
                line.orders.recv().map_err(|_| TryRecvError::Disconnected)
            } else {
                line.orders.try_recv()
            };
            let order = match order {
                Ok(order) => order,
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            };
            if line.control.is_closing() {
                return Ok(false);
            }
            let _reading = line.control.read();
            let started = Instant::now();
            match order {
                Arrived::Vectors(prepared) => self.order(line, *prepared)?,
                Arrived::Work { id, .. } => self.close(line, id, Reply::Failed(no_text()))?,
                Arrived::Adapter((digest, _)) => {
                    let failure = failure(FailureKind::Unsupported, NO_ADAPTERS);
                    line.writer.send(&FromRunner::Adapter(digest, Err(failure)))?;
                }
                // No prompt is prepared, and what is loaded was loaded before this began.
                Arrived::Answer(_)
                | Arrived::DropAdapter(_)
                | Arrived::Load(_)
                | Arrived::Plan(_) => {}
            }
            spent += started.elapsed();
        }
        Ok(true)
    }

    fn order(&mut self, line: Line<'_>, prepared: Prepared) -> Result<(), FrameError> {
        let id = prepared.id;
        match self.take_in(line, prepared) {
            Ok(()) => self.close_done(line, &[id]),
            Err(failure) => self.close(line, id, Reply::Failed(failure)),
        }
    }

    /// Queues an order.
    fn take_in(&mut self, line: Line<'_>, prepared: Prepared) -> Result<(), Failure> {
        let id = prepared.id;
        if line.control.is_cancelled(id) {
            return Err(cancelled());
        }
        let order = Order::new(&self.session, prepared)?;
        let (class, owner) = (order.asker.class, order.asker.owner.clone());
        let waiting = Waiting { id, class, owner, texts: order.all };
        self.queue.submit(waiting).map_err(|full| busy(&full))?;
        self.orders.insert(id, order);
        Ok(())
    }

    /// Sends the only reply of some work and forgets it.
    fn close(&mut self, line: Line<'_>, id: RequestId, reply: Reply) -> Result<(), FrameError> {
        line.control.end(id);
        self.queue.remove(id);
        self.orders.remove(&id);
        line.writer.last(id, reply)
    }

    /// Ends those of these of which all is made.
    fn close_done(&mut self, line: Line<'_>, ids: &[RequestId]) -> Result<(), FrameError> {
        for id in ids {
            if self.orders.get(id).is_some_and(Order::is_done)
                && let Some(order) = self.orders.remove(id)
            {
                self.close(line, *id, order.reply())?;
            }
        }
        Ok(())
    }

    /// Ends what was cancelled or came too late, before anything more is done for it.
    fn drop_unwanted(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let unwanted: Vec<(RequestId, Failure)> = self
            .orders
            .iter()
            .filter_map(|(id, order)| {
                let cancelled = line.control.is_cancelled(*id).then(cancelled);
                Some((*id, cancelled.or(order.is_late().then(late))?))
            })
            .collect();
        self.fail(line, unwanted)
    }

    fn fail(
        &mut self,
        line: Line<'_>,
        failed: impl IntoIterator<Item = (RequestId, Failure)>,
    ) -> Result<(), FrameError> {
        failed.into_iter().try_for_each(|(id, why)| self.close(line, id, Reply::Failed(why)))
    }

    /// Computes a batch.
    fn step(&mut self, line: Line<'_>) -> Result<(), FrameError> {
        let mut failed = Vec::new();
        let Self { session, queue, orders, .. } = self;
        let batch = queue.batch(|id, number| {
            let length = orders.get_mut(&id)?.length(session, number);
            length.map_err(|failure| failed.push((id, failure))).ok()
        });
        self.fail(line, failed)?;
        if batch.is_empty() {
            return Ok(());
        }
        let mut ids: Vec<RequestId> = batch.iter().map(|text| text.id).collect();
        ids.sort_unstable();
        ids.dedup();
        line.control.begin_step(ids.clone());
        let made = self.compute(&batch);
        line.control.end_step();
        match made {
            Ok(made) => {
                for (text, made) in batch.iter().zip(made) {
                    if let Some(order) = self.orders.get_mut(&text.id) {
                        order.make(made, text.tokens);
                    }
                }
                self.close_done(line, &ids)
            }
            Err(failure) => self.fail(line, ids.into_iter().map(|id| (id, failure.clone()))),
        }
    }

    /// What the model makes of these texts, one for each.
    fn compute(&mut self, texts: &[Text]) -> Result<Vec<Vec<f32>>, Failure> {
        let mut batch = Batch::default();
        for (sequence, text) in (0u16..).zip(texts) {
            let tokens = self.orders.get_mut(&text.id).map(Order::take).unwrap_or_default();
            for (position, token) in tokens.into_iter().enumerate() {
                batch.push(token, position, sequence, true);
            }
        }
        let context = &mut self.session.context;
        context.clear();
        context.decode(&mut batch).map_err(|error| match error {
            DecodeError::Aborted => cancelled(),
            error => {
                failure(FailureKind::Internal, format!("llama.cpp failed to embed: {error:?}"))
            }
        })?;
        let vector = |(sequence, _)| {
            let vector = context.embedding(sequence).map(<[f32]>::to_vec);
            vector.ok_or_else(|| failure(FailureKind::Internal, "llama.cpp gave no embedding"))
        };
        (0u16..).zip(texts).map(vector).collect()
    }
}

fn cancelled() -> Failure {
    failure(FailureKind::Busy, "cancelled")
}

fn no_text() -> Failure {
    failure_with(
        FailureKind::Unsupported,
        "the model is loaded for embeddings",
        "load it without embeddings to generate text",
    )
}

fn late() -> Failure {
    failure(FailureKind::Timeout, "the deadline passed before the work was done")
}

fn busy(full: &QueueFull) -> Failure {
    failure(FailureKind::Busy, format!("{} requests already wait", full.length))
}
