//! Starts every process from one thread, which never ends.
//!
//! A runner asks the system to be killed when its parent dies, and by that Linux means the thread that
//! started it: one of an async runtime may end long before the program does.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// Processes that may wait to be started.
const WAITING: usize = 16;

type Started = oneshot::Sender<io::Result<Child>>;

/// Starts a process that lives no longer than this program.
pub(crate) async fn start(command: Command) -> io::Result<Child> {
    let (started, child) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    // Waits only while so many others are started, each in a moment.
    starter()?.send((command, Handle::current(), started)).map_err(|_| gone())?;
    child.await.map_err(|_| gone())?
}

fn starter() -> io::Result<&'static SyncSender<(Command, Handle, Started)>> {
    static STARTER: OnceLock<Option<SyncSender<(Command, Handle, Started)>>> = OnceLock::new();
    let started = STARTER.get_or_init(|| {
        let (orders, receiver) = sync_channel(WAITING);
        let named = thread::Builder::new().name("starter".to_owned());
        named.spawn(move || start_all(&receiver)).ok().map(|_| orders)
    });
    started.as_ref().ok_or_else(|| io::Error::other("cannot start a thread to start processes"))
}

fn start_all(orders: &Receiver<(Command, Handle, Started)>) {
    while let Ok((mut command, runtime, started)) = orders.recv() {
        let _inside = runtime.enter();
        // Where nobody waits any more the process is killed as it is dropped.
        let _ = started.send(command.spawn());
    }
}
