//! The two ends of the pipe to the engine.
//!
//! One thread reads all the time, so that a ping, a cancellation or the parent's death is seen in the
//! middle of a computation. Any thread may write.

use std::fs::File;
use std::io::{self, BufReader};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tieline_types::wire::{
    self, Failure, FailureKind, FrameError, FromRunner, Reply, ToRunner, Work,
};
use tieline_types::{Digest, LoadParams, RequestId};

use crate::control::Control;
use crate::llama;
use crate::parcel::{Arrived, Parcel};
use crate::process;

/// Most orders that wait; the engine keeps its own, longer queue.
const QUEUE: usize = 256;

/// How long a computation may go on after the parent died.
const GRACE: Duration = Duration::from_secs(2);

/// What the main thread has to do.
#[derive(Debug)]
pub(crate) enum Order {
    Load(Box<LoadParams>),
    Plan(Box<LoadParams>),
    Work {
        id: RequestId,
        work: Work,
        arrived: Instant,
    },
    /// An adapter's file came, or will not.
    Adapter(Arrived),
    DropAdapter(Digest),
}

/// Writes frames.
#[derive(Clone, Debug)]
pub(crate) struct Writer(Arc<Mutex<File>>);

impl Writer {
    pub(crate) fn new(file: File) -> Self {
        Self(Arc::new(Mutex::new(file)))
    }

    pub(crate) fn send(&self, frame: &FromRunner) -> Result<(), FrameError> {
        wire::write(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), frame)
    }

    pub(crate) fn reply(&self, id: RequestId, reply: Reply) -> Result<(), FrameError> {
        self.send(&FromRunner::Reply(id, reply))
    }

    /// Sends the last reply of some work, or that it is too long.
    pub(crate) fn last(&self, id: RequestId, reply: Reply) -> Result<(), FrameError> {
        match self.reply(id, reply) {
            // Nothing of it was written.
            Err(FrameError::TooLong(bytes)) => {
                let message =
                    format!("the answer has {bytes} bytes, and {} is the limit", wire::MAX_FRAME);
                let failure = Failure { kind: FailureKind::InvalidRequest, message, hint: None };
                self.reply(id, Reply::Failed(failure))
            }
            sent => sent,
        }
    }
}

/// Starts to read standard input. The receiver ends when the input does, or at a shutdown.
pub(crate) fn read_orders(control: Arc<Control>, writer: Writer) -> io::Result<Receiver<Order>> {
    let (orders, receiver) = sync_channel(QUEUE);
    thread::Builder::new().name("reader".to_owned()).spawn(move || {
        if let Err(error) = read_until_end(&control, &writer, &orders) {
            process::complain(&error);
        }
        control.close();
        drop(orders);
        // The main thread sees both and exits. If llama.cpp does not return, the process must still end.
        thread::sleep(GRACE);
        process::exit_now();
    })?;
    Ok(receiver)
}

fn read_until_end(
    control: &Control,
    writer: &Writer,
    orders: &SyncSender<Order>,
) -> Result<(), FrameError> {
    let mut input = BufReader::new(io::stdin().lock());
    let mut parcel = Parcel::default();
    while let Some(frame) = wire::read::<ToRunner>(&mut input)? {
        match frame {
            ToRunner::Load(params) => {
                // The queue is empty before the first order; a second load is refused by `serve`.
                let _ = orders.try_send(Order::Load(params));
            }
            ToRunner::Plan(params) => {
                // One is asked for when the last was answered.
                let _ = orders.try_send(Order::Plan(params));
            }
            ToRunner::BeginAdapter(adapter) => arrive(orders, parcel.begin(adapter)),
            ToRunner::AdapterPiece(piece) => arrive(orders, parcel.piece(&piece)),
            ToRunner::DropAdapter(digest) => drop(orders.send(Order::DropAdapter(digest))),
            ToRunner::Work(id, work) => enqueue(control, writer, orders, (id, work))?,
            ToRunner::Cancel(id) => control.cancel(id),
            ToRunner::Ping(number) => {
                let (working, steps) = control.steps();
                // Steps count where nobody asks between operations, as on a GPU.
                let progress = llama::progress().wrapping_add(steps);
                writer.send(&FromRunner::Pong { number, working, progress })?;
            }
            ToRunner::Shutdown => return Ok(()),
        }
    }
    Ok(())
}

/// Hands an adapter on. Waits for room in the queue where there is none: that is a step's time at most, and what
/// is lost here would be waited for in vain. Where nobody takes orders any more, the program ends.
fn arrive(orders: &SyncSender<Order>, arrived: Option<Arrived>) {
    if let Some(arrived) = arrived {
        let _ = orders.send(Order::Adapter(arrived));
    }
}

fn enqueue(
    control: &Control,
    writer: &Writer,
    orders: &SyncSender<Order>,
    (id, work): (RequestId, Work),
) -> Result<(), FrameError> {
    control.enqueue(id);
    match orders.try_send(Order::Work { id, work, arrived: Instant::now() }) {
        Ok(()) => Ok(()),
        Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
            control.end(id);
            let failure = Failure {
                kind: FailureKind::Busy,
                message: format!("the runner's queue of {QUEUE} is full"),
                hint: None,
            };
            writer.reply(id, Reply::Failed(failure))
        }
    }
}
