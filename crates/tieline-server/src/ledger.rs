//! Writes a row for each request, from one thread: no answer waits for a disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tieline_router::Record;
use tieline_store::{RequestRow, Source, Store, UsageSources};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::error;

/// Records that may wait for the disk.
const WAITING: usize = 4096;
/// Rows in one transaction.
const BATCH: usize = 256;

/// The thread that writes.
#[derive(Debug)]
pub struct Ledger {
    lost: Arc<AtomicU64>,
    writer: JoinHandle<()>,
}

impl Ledger {
    /// Starts it. What is sent to the sender is written; give it to the router.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(store: Store) -> io::Result<(Sender<Arc<Record>>, Self)> {
        let (sender, receiver) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write(receiver, &store, &counted))?;
        Ok((sender, Self { lost, writer }))
    }

    /// Rows that could not be written so far.
    pub fn lost(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.lost)
    }

    /// Waits until all that was sent is written. Every sender must be gone.
    ///
    /// # Errors
    /// The thread died.
    pub fn finish(self) -> io::Result<()> {
        self.writer.join().map_err(|_| io::Error::other("the ledger's thread died"))
    }
}

/// While one transaction is written, the next one's rows gather.
fn write(mut records: Receiver<Arc<Record>>, store: &Store, lost: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    while records.blocking_recv_many(&mut batch, BATCH) > 0 {
        let rows: Vec<RequestRow> = batch.drain(..).map(|record| row(&record)).collect();
        if let Err(failed) = store.record_requests(&rows) {
            let count = u64::try_from(rows.len()).unwrap_or(u64::MAX);
            lost.fetch_add(count, Ordering::Relaxed);
            let cause = std::error::Error::source(&failed).map(ToString::to_string);
            error!(rows = count, cause, "requests could not be written down");
        }
    }
}

fn row(record: &Record) -> RequestRow {
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let usage = record.usage;
    RequestRow {
        id: record.id.clone(),
        at_unix_ms: number(record.at_unix_ms),
        key: record.key.clone(),
        dialect: record.dialect.to_owned(),
        operation: record.operation.to_owned(),
        model: record.decision.model.clone(),
        reason: record.decision.reason.to_owned(),
        digest: record.digest.map(|digest| digest.hex()),
        outcome: record.outcome.as_str().to_owned(),
        error: record.error.clone(),
        prompt_tokens: usage.map(|usage| usage.prompt_tokens.0),
        cached_tokens: usage.map(|usage| usage.cached_tokens.0),
        completion_tokens: usage.map(|usage| usage.completion_tokens.0),
        first_token_us: record.first_token_us.map(number),
        total_us: number(record.total_us),
        sources: UsageSources::all(Source::Measured),
        ..RequestRow::default()
    }
}
