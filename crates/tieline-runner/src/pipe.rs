//! The two ends of the pipe to the engine.
//!
//! One thread reads all the time, so that a ping, a cancellation or the parent's death is seen in the
//! middle of a computation. Any thread may write.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tieline_types::wire::{
    self, ADAPTERS, Failure, FailureKind, FrameError, FromRunner, Reply, ToRunner, Work,
};
use tieline_types::{Digest, LoadParams, RequestId};

use crate::control::Control;
use crate::embed::Prepared;
use crate::llama;
use crate::parcel::{Arrived, Parcel};
use crate::preparer::Ready;
use crate::process;
use crate::session::failure;

/// Most orders that wait; the engine keeps its own, longer queue.
const QUEUE: usize = 256;

/// How long this goes on where the engine left without a word.
const ORPHANED: Duration = Duration::from_secs(2);

/// Of the time that there is, what is left for the end of what goes on, and then for the system to clear away the
/// process before the engine would kill it.
const MARGIN: u32 = 10;

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
    /// A request whose prompt is ready to be computed.
    Answer(Box<Ready>),
    /// Texts of which vectors or scores are to be made; the long ones are read.
    Vectors(Box<Prepared>),
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
                let failure = failure(FailureKind::InvalidRequest, message);
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
        let mut input = BufReader::new(io::stdin().lock());
        let mut reader =
            Reader { control: &control, writer: &writer, orders: &orders, drops: Vec::new() };
        let within = reader.read_until_end(&mut input).unwrap_or_else(|error| {
            process::complain(&error);
            None
        });
        let within = within.unwrap_or(ORPHANED);
        control.close(Instant::now() + within - within / MARGIN * 2);
        drop(orders);
        // The main thread sees both and exits. If llama.cpp does not return, the process must still end.
        thread::sleep(within - within / MARGIN);
        process::exit_now(0);
    })?;
    Ok(receiver)
}

/// The reading thread: it never waits for the computing one, so that a ping or a cancellation is always seen.
struct Reader<'r> {
    control: &'r Control,
    writer: &'r Writer,
    orders: &'r SyncSender<Order>,
    /// Adapters to be dropped for which the queue had no room yet. What an adapter's file brings comes after them.
    drops: Vec<Digest>,
}

impl Reader<'_> {
    /// How long there is then, where the engine said so.
    fn read_until_end(&mut self, input: &mut impl Read) -> Result<Option<Duration>, FrameError> {
        let mut parcel = Parcel::default();
        while let Some(frame) = wire::read::<ToRunner>(input)? {
            self.hand_on_drops();
            match frame {
                ToRunner::Load(params) => {
                    // The queue is empty before the first order; a second load is refused by `serve`.
                    let _ = self.orders.try_send(Order::Load(params));
                }
                ToRunner::Plan(params) => {
                    // One is asked for when the last was answered.
                    let _ = self.orders.try_send(Order::Plan(params));
                }
                ToRunner::BeginAdapter(adapter) => self.arrive(parcel.begin(adapter))?,
                ToRunner::AdapterPiece(piece) => self.arrive(parcel.piece(&piece))?,
                ToRunner::DropAdapter(digest) => {
                    parcel.give_up(digest);
                    self.drop_adapter(digest);
                }
                ToRunner::Work(id, work) => self.enqueue(id, work)?,
                ToRunner::Cancel(id) => self.control.cancel(id),
                ToRunner::Ping(number) => {
                    let (working, steps) = self.control.steps();
                    // Steps count where nobody asks between operations, as on a GPU. A slow disk gets on, too.
                    let moved = process::brought_in(self.control.is_loading());
                    let progress = llama::progress().wrapping_add(steps).wrapping_add(moved);
                    self.writer.send(&FromRunner::Pong { number, working, progress })?;
                }
                ToRunner::Shutdown(within) => return Ok(Some(within)),
            }
        }
        Ok(None)
    }

    /// Hands an adapter on, or refuses it where there is no room: whoever waits for it is told.
    fn arrive(&mut self, arrived: Option<Arrived>) -> Result<(), FrameError> {
        let Some(arrived) = arrived else { return Ok(()) };
        let digest = arrived.0;
        if self.drops.is_empty() && self.orders.try_send(Order::Adapter(arrived)).is_ok() {
            return Ok(());
        }
        self.writer.send(&FromRunner::Adapter(digest, Err(queue_is_full())))
    }

    /// Hands on that an adapter is to be dropped, now or before the next frame for which there is room.
    fn drop_adapter(&mut self, digest: Digest) {
        // More than are ever held are none that are.
        if !self.drops.contains(&digest) && self.drops.len() < ADAPTERS {
            self.drops.push(digest);
        }
        self.hand_on_drops();
    }

    fn hand_on_drops(&mut self) {
        while let Some(digest) = self.drops.first() {
            if self.orders.try_send(Order::DropAdapter(*digest)).is_err() {
                return;
            }
            self.drops.remove(0);
        }
    }

    fn enqueue(&self, id: RequestId, work: Work) -> Result<(), FrameError> {
        self.control.enqueue(id);
        match self.orders.try_send(Order::Work { id, work, arrived: Instant::now() }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.control.end(id);
                self.writer.reply(id, Reply::Failed(queue_is_full()))
            }
        }
    }
}

fn queue_is_full() -> Failure {
    let message = format!("the runner's queue of {QUEUE} is full");
    failure(FailureKind::Busy, message)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Seek};

    use sha2::{Digest as _, Sha256};
    use tieline_types::wire::AdapterPiece;
    use tieline_types::{Bytes, HeldAdapter};

    use super::*;

    fn tokenize(id: u64) -> ToRunner {
        let work = Work::Tokenize { text: "x".into(), add_special: false, parse_special: false };
        ToRunner::Work(RequestId(id), work)
    }

    fn adapter(bytes: &[u8]) -> [ToRunner; 2] {
        let digest = Digest(Sha256::digest(bytes).into());
        let held = HeldAdapter { digest, bytes: Bytes(bytes.len() as u64) };
        let piece = AdapterPiece { digest, bytes: bytes.to_vec() };
        [ToRunner::BeginAdapter(held), ToRunner::AdapterPiece(piece)]
    }

    /// Reads these, while nobody takes orders. What is said of the end.
    fn read(reader: &mut Reader<'_>, frames: &[ToRunner]) -> Option<Duration> {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| wire::encode(frame).unwrap()).collect();
        reader.read_until_end(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn a_flood_of_orders_hides_no_cancellation_and_no_ping() {
        let mut file = tempfile::tempfile().unwrap();
        let (control, writer) = (Control::default(), Writer::new(file.try_clone().unwrap()));
        let (orders, receiver) = sync_channel(QUEUE);
        let mut reader =
            Reader { control: &control, writer: &writer, orders: &orders, drops: Vec::new() };
        let full = QUEUE as u64;
        let mut frames: Vec<ToRunner> = (0..=full).map(tokenize).collect();
        frames.extend(adapter(b"one"));
        let dropped = Digest([9; 32]);
        frames.extend([ToRunner::DropAdapter(dropped), ToRunner::DropAdapter(dropped)]);
        frames.extend([ToRunner::Cancel(RequestId(3)), ToRunner::Ping(7)]);
        assert_eq!(read(&mut reader, &frames), None);
        assert!(control.is_cancelled(RequestId(3)) && !control.is_cancelled(RequestId(4)));
        file.rewind().unwrap();
        let mut said = Vec::new();
        while let Some(frame) = wire::read::<FromRunner>(&mut file).unwrap() {
            said.push(frame);
        }
        let busy = |failure: &Failure| failure.kind == FailureKind::Busy;
        assert!(
            matches!(&said[0], FromRunner::Reply(id, Reply::Failed(why)) if id.0 == full && busy(why))
        );
        assert!(matches!(&said[1], FromRunner::Adapter(_, Err(why)) if busy(why)), "{said:?}");
        assert!(matches!(said[2], FromRunner::Pong { number: 7, .. }), "{said:?}");
        assert_eq!(said.len(), 3);
        // Once there is room, what was to be dropped is, before another comes.
        assert_eq!(receiver.try_iter().count(), QUEUE);
        let [begin, piece] = adapter(b"two");
        let within = Duration::from_secs(7);
        // Nothing after it is read.
        let frames = [begin, piece, ToRunner::Shutdown(within), tokenize(9)];
        assert_eq!(read(&mut reader, &frames), Some(within));
        let late: Vec<Order> = receiver.try_iter().collect();
        assert!(matches!(late[0], Order::DropAdapter(digest) if digest == dropped), "{late:?}");
        assert!(matches!(late[1], Order::Adapter(_)) && late.len() == 2, "{late:?}");
    }
}
