//! Writes a row for each attempt at a request, and one for what was decided, from one thread: no answer waits for a
//! disk.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tieline_router::replay::Keeper;
use tieline_router::{Filed, Record, Tried};
use tieline_store::{PackedDecision, Packing, RequestRow, Store, UsageSources};
use tieline_types::{MicroUsd, Source};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::{error, warn};

/// Records that may wait for the disk.
const WAITING: usize = 4096;
/// Records in one transaction.
const BATCH: usize = 1024;
/// How long a record waits for others, so that they are one transaction: each waits for a disk, and what the disk
/// has to do is done on the processors that answer.
const GATHER: Duration = Duration::from_millis(50);
/// How often the records that came meanwhile are made into rows: the work of all of them at once would keep those who
/// answer from a processor for milliseconds.
const SLICE: Duration = Duration::from_millis(5);
/// Decisions after which old ones are let go, once nobody waits. A step lets more of them go than that.
const FORGET_AFTER: usize = 256;
/// Decisions after which old ones are let go, whoever waits.
const FORGET_AT_LAST: usize = 1024;

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
    pub fn start(store: Store) -> io::Result<(Sender<Filed>, Self)> {
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

/// What is written next, in one transaction.
#[derive(Default)]
struct Page {
    keeper: Keeper,
    packing: Packing,
    rows: Vec<RequestRow>,
    decisions: Vec<PackedDecision>,
}

impl Page {
    fn take(&mut self, filed: &Filed) {
        self.rows.extend(rows(&filed.record));
        let row = self.keeper.row(filed).ok();
        self.decisions.extend(row.and_then(|row| self.packing.pack(row).ok()));
    }

    /// Says how many decisions were written.
    fn write(&mut self, store: &Store, lost: &AtomicU64) -> usize {
        if let Err(failed) = store.record_packed(&self.rows, &self.decisions) {
            let count = u64::try_from(self.rows.len()).unwrap_or(u64::MAX);
            lost.fetch_add(count, Ordering::Relaxed);
            let cause = std::error::Error::source(&failed).map(ToString::to_string);
            error!(rows = count, cause, "requests could not be written down");
        }
        let decisions = self.decisions.len();
        self.rows.clear();
        self.decisions.clear();
        decisions
    }
}

fn write(mut records: Receiver<Filed>, store: &Store, lost: &AtomicU64) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut page = Page::default();
    let mut unforgotten = 0;
    forget(store);
    while records.blocking_recv_many(&mut batch, BATCH) > 0 {
        let since = Instant::now();
        loop {
            batch.drain(..).for_each(|filed| page.take(&filed));
            let room = BATCH.saturating_sub(page.rows.len());
            if room == 0 || since.elapsed() >= GATHER {
                break;
            }
            std::thread::sleep(SLICE);
            batch.extend(std::iter::from_fn(|| records.try_recv().ok()).take(room));
        }
        unforgotten += page.write(store, lost);
        // Where nobody waits, and from time to time where somebody always does.
        if unforgotten >= FORGET_AT_LAST || (unforgotten >= FORGET_AFTER && records.is_empty()) {
            unforgotten = 0;
            forget(store);
        }
    }
}

/// Lets old decisions go, a step of them.
fn forget(store: &Store) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
    if let Err(failed) = store.forget_decisions(now) {
        let cause = std::error::Error::source(&failed).map(ToString::to_string);
        warn!(cause, "old decisions could not be forgotten");
    }
}

/// A row for each attempt, or one where nobody was asked.
fn rows(record: &Record) -> Vec<RequestRow> {
    if record.tried.is_empty() {
        return vec![row(record)];
    }
    let numbered = (1..).zip(&record.tried);
    numbered.map(|(number, tried)| attempt(record, tried, number)).collect()
}

fn attempt(record: &Record, tried: &Tried, number: u32) -> RequestRow {
    let micros = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let usage = tried.usage;
    let here = ("", tried.name.as_str());
    let away = tried.name.split_once('/').filter(|_| !tried.vendor.is_empty());
    let (backend, model) = away.unwrap_or(here);
    let (price_source, price_date) = tried.price.clone().unzip();
    RequestRow {
        // As the vendor names it, which is what prices are known by.
        model: model.to_owned(),
        outcome: outcome(tried.ended).to_owned(),
        error: tried.error.clone(),
        prompt_tokens: usage.map(|usage| usage.prompt_tokens.0),
        cached_tokens: usage.map(|usage| usage.cached_tokens.0),
        cache_write_tokens: usage.map(|usage| usage.cache_write_tokens.0),
        completion_tokens: usage.map(|usage| usage.completion_tokens.0),
        reasoning_tokens: usage.map(|usage| usage.reasoning_tokens.0),
        sources: UsageSources::all(tried.source),
        first_token_us: tried.first_token_us.map(micros),
        total_us: micros(tried.total_us),
        backend: backend.to_owned(),
        vendor: tried.vendor.clone(),
        zone: tried.zone,
        attempt: number,
        project: record.asked.as_ref().and_then(|asked| asked.project.clone()).unwrap_or_default(),
        data_class: Some(tried.data_class.as_str().to_owned()),
        policy_rule: Some(tried.rule.clone()),
        price_source,
        price_date: price_date.flatten(),
        cost: tried.cost_micro_usd.map(MicroUsd),
        reserved: tried.reserved_micro_usd.map(MicroUsd),
        sent_bytes: Some(micros(tried.sent_bytes)),
        redacted: u32::try_from(tried.redacted).ok(),
        ..row(record)
    }
}

/// An attempt's end in the ledger's words: those of requests, and its own where they have none.
fn outcome(ended: &'static str) -> &'static str {
    match ended {
        "refused" | "broke" => "failed",
        "cancelled" => "left",
        other => other,
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
        // Nobody outside was asked.
        cost: Some(MicroUsd::ZERO),
        ..RequestRow::default()
    }
}
