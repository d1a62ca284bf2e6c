//! Writes a row for each attempt at a request, and one for what was decided, from one thread: no answer waits for a
//! disk.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tieline_router::replay::Keeper;
use tieline_router::{Filed, Record, Tried};
use tieline_store::budget::Intents;
use tieline_store::{DbError, PackedDecision, Packing, RequestRow, Store, UsageSources};
use tieline_types::{MicroUsd, Source};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tracing::{error, warn};

/// Records that may wait for the disk.
const WAITING: usize = 4096;
/// Records in one transaction.
const BATCH: usize = 1024;
/// Calls whose attempts are counted on where more of them come.
const CALLS: usize = 4096;
/// How long a record waits for others, so that they are one transaction: each waits for a disk, and what the disk
/// has to do is done on the processors that answer. Longer, and a transaction keeps a processor for milliseconds
/// (bench/RESULTS.md, "Beside other gateways").
const GATHER: Duration = Duration::from_millis(10);
/// After how long what could not be written is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often the records that came meanwhile are made into rows: the work of all of them at once would keep those who
/// answer from a processor for milliseconds.
const SLICE: Duration = Duration::from_millis(2);
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
    /// The database cannot be opened once more, or the system gives no thread.
    pub fn start(store: &Store) -> io::Result<(Sender<Filed>, Self)> {
        Self::booking(store, None)
    }

    /// As [`Ledger::start`], and takes back what was noted of a request before it left once its rows are written.
    ///
    /// # Errors
    /// As of [`Ledger::start`].
    pub fn booking(store: &Store, intents: Option<Intents>) -> io::Result<(Sender<Filed>, Self)> {
        let store = store.apart().map_err(io::Error::other)?;
        let (sender, receiver) = mpsc::channel(WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&lost);
        let writer = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write(receiver, &Book { store, intents, lost: counted }))?;
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

/// Where rows go.
struct Book {
    store: Store,
    intents: Option<Intents>,
    lost: Arc<AtomicU64>,
}

impl Book {
    /// What was noted of these rows before they left is taken back.
    fn booked(&self, rows: &[RequestRow]) {
        let names = rows.iter().filter_map(|row| row.reservation.as_deref());
        self.intents.iter().for_each(|intents| intents.booked(names.clone()));
    }
}

fn cause(failed: &DbError) -> Option<String> {
    std::error::Error::source(failed).map(ToString::to_string)
}

/// What is written next, in one transaction.
#[derive(Default)]
struct Page {
    keeper: Keeper,
    packing: Packing,
    rows: Vec<RequestRow>,
    decisions: Vec<PackedDecision>,
    attempts: Attempts,
}

/// How many attempts each of the latest calls had: several answers to one call come as a record each.
#[derive(Default)]
struct Attempts {
    last: HashMap<String, u32>,
    order: VecDeque<String>,
}

impl Attempts {
    fn next(&mut self, id: &str) -> u32 {
        if let Some(last) = self.last.get_mut(id) {
            *last = last.saturating_add(1);
            return *last;
        }
        if self.order.len() == CALLS
            && let Some(oldest) = self.order.pop_front()
        {
            self.last.remove(&oldest);
        }
        self.order.push_back(id.to_owned());
        self.last.insert(id.to_owned(), 1);
        1
    }
}

impl Page {
    fn take(&mut self, filed: &Filed) {
        let rows = rows(&filed.record).into_iter();
        self.rows
            .extend(rows.map(|row| RequestRow { attempt: self.attempts.next(&row.id), ..row }));
        let row = self.keeper.row(filed).ok();
        self.decisions.extend(row.and_then(|row| self.packing.pack(row).ok()));
    }

    /// Says how many decisions were written. Where nothing could be, the rows of money stay for the next time.
    fn write(&mut self, book: &Book) -> usize {
        let decisions = std::mem::take(&mut self.decisions);
        let rows = std::mem::take(&mut self.rows);
        match book.store.record_packed(&rows, &decisions) {
            Ok(()) => book.booked(&rows),
            Err(failed) if failed.is_refusal() => {
                if let Err(failed) = book.store.record_packed(&[], &decisions) {
                    error!(
                        lost = decisions.len(),
                        cause = cause(&failed),
                        "decisions could not be written down"
                    );
                }
                self.write_apart(book, rows);
            }
            Err(failed) => self.keep(book, rows, &failed),
        }
        decisions.len()
    }

    /// Writes rows of which the database does not take all: the halves that it takes, and the others aside, where
    /// they hold up none that come after them.
    fn write_apart(&mut self, book: &Book, mut rows: Vec<RequestRow>) {
        match book.store.record_packed(&rows, &[]) {
            Ok(()) => book.booked(&rows),
            Err(failed) if failed.is_refusal() && rows.len() > 1 => {
                let others = rows.split_off(rows.len() / 2);
                self.write_apart(book, rows);
                self.write_apart(book, others);
            }
            Err(failed) if failed.is_refusal() => match book.store.set_aside(&rows[0]) {
                Ok(file) => {
                    book.lost.fetch_add(1, Ordering::Relaxed);
                    let (file, id) = (file.display().to_string(), &rows[0].id);
                    error!(
                        file,
                        id,
                        cause = cause(&failed),
                        "the ledger does not take a row: it is set aside"
                    );
                }
                Err(_) => self.keep(book, rows, &failed),
            },
            Err(failed) => self.keep(book, rows, &failed),
        }
    }

    /// Keeps those of the rows for the next time that are of money.
    fn keep(&mut self, book: &Book, rows: Vec<RequestRow>, failed: &DbError) {
        let before = self.rows.len();
        self.rows.extend(rows);
        let lost = self.keep_money();
        book.lost.fetch_add(lost, Ordering::Relaxed);
        let kept = self.rows.len() - before;
        error!(lost, kept, cause = cause(failed), "requests could not be written down");
    }

    /// Lets go what costs nothing: what costs something waits, and [`next`] takes no more than can. Says how many rows
    /// are lost.
    fn keep_money(&mut self) -> u64 {
        let all = self.rows.len();
        self.rows.retain(|row| row.reservation.is_some());
        u64::try_from(all - self.rows.len()).unwrap_or(u64::MAX)
    }
}

/// Takes what came; waits for something, but not where rows wait that could not be written. Where many do, nothing is
/// taken: whoever wants a place for a record of money then finds none, and spends nothing. Whether more may come.
fn next<R>(records: &mut Receiver<R>, batch: &mut Vec<R>, page: &Page) -> bool {
    if page.rows.is_empty() {
        return records.blocking_recv_many(batch, BATCH) > 0;
    }
    std::thread::sleep(AGAIN);
    // What is left once nobody sends any more is tried with the last page.
    if page.rows.len() >= WAITING && !records.is_closed() {
        return true;
    }
    while batch.len() < BATCH {
        match records.try_recv() {
            Ok(filed) => batch.push(filed),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return !batch.is_empty(),
        }
    }
    true
}

fn write(mut records: Receiver<Filed>, book: &Book) {
    let mut batch = Vec::with_capacity(BATCH);
    let mut page = Page::default();
    let mut unforgotten = 0;
    forget(&book.store);
    while next(&mut records, &mut batch, &page) {
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
        unforgotten += page.write(book);
        // Where nobody waits, and from time to time where somebody always does.
        if unforgotten >= FORGET_AT_LAST || (unforgotten >= FORGET_AFTER && records.is_empty()) {
            unforgotten = 0;
            forget(&book.store);
        }
    }
    if !page.rows.is_empty() {
        page.write(book);
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
    record.tried.iter().map(|tried| attempt(record, tried)).collect()
}

fn attempt(record: &Record, tried: &Tried) -> RequestRow {
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
        project: record.asked.as_ref().and_then(|asked| asked.project.clone()).unwrap_or_default(),
        data_class: Some(tried.data_class.as_str().to_owned()),
        policy_rule: Some(tried.rule.clone()),
        price_source,
        price_date: price_date.flatten(),
        cost: tried.cost_micro_usd.map(MicroUsd),
        cost_at_least: tried.cost_at_least,
        reserved: tried.reserved_micro_usd.map(MicroUsd),
        reservation: tried.reservation.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_money_wait_until_they_can_be_written_and_then_are_booked() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let intents = store.budgets().unwrap().intents().clone();
        let lost = Arc::new(AtomicU64::new(0));
        let book = Book { store, intents: Some(intents.clone()), lost: Arc::clone(&lost) };
        let free = RequestRow { id: "free".to_owned(), ..RequestRow::default() };
        let paid = RequestRow {
            id: "paid".to_owned(),
            reservation: Some("paid/0.0".to_owned()),
            ..RequestRow::default()
        };
        intents.note(&paid).unwrap();
        // The database takes no attempt of number 0; nor is there a place for it beside the database.
        let refused = RequestRow { attempt: 0, ..paid.clone() };
        let aside = home.path().join("ledger.set-aside.jsonl");
        std::fs::create_dir(&aside).unwrap();
        let mut page = Page { rows: vec![free.clone(), refused], ..Page::default() };
        page.write(&book);
        assert_eq!((page.rows.len(), lost.load(Ordering::Relaxed)), (1, 0));
        assert_eq!(intents.outstanding(), 1);
        page.rows[0].attempt = 1;
        page.write(&book);
        assert!(page.rows.is_empty());
        assert_eq!(intents.outstanding(), 0);
        assert_eq!(book.store.latest_requests(9).unwrap(), [paid.clone(), free.clone()]);
        // What costs nothing does not wait.
        let mut page = Page { rows: vec![free, paid], ..Page::default() };
        assert_eq!((page.keep_money(), page.rows.len()), (1, 1));
    }

    #[test]
    fn a_row_that_the_database_does_not_take_keeps_back_no_other() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let intents = store.budgets().unwrap().intents().clone();
        let lost = Arc::new(AtomicU64::new(0));
        let book = Book { store, intents: Some(intents.clone()), lost: Arc::clone(&lost) };
        let paid = |number: u32| RequestRow {
            id: format!("call {number}"),
            reservation: Some(format!("paid/{number}")),
            // Some of them cannot be.
            attempt: u32::from(!matches!(number, 3 | 8)),
            ..RequestRow::default()
        };
        let rows: Vec<_> = (0..10).map(paid).collect();
        rows.iter().for_each(|row| intents.note(row).unwrap());
        let mut page = Page { rows: rows.clone(), ..Page::default() };
        page.write(&book);
        assert!(page.rows.is_empty());
        let mut written = book.store.latest_requests(99).unwrap();
        written.reverse();
        let (bad, good): (Vec<_>, Vec<_>) = rows.into_iter().partition(|row| row.attempt == 0);
        assert_eq!(written, good);
        let aside = std::fs::read_to_string(home.path().join("ledger.set-aside.jsonl")).unwrap();
        let aside: Vec<RequestRow> =
            aside.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(aside, bad);
        // Their notes stay: the next start writes what they come to at most.
        assert_eq!((intents.outstanding(), lost.load(Ordering::Relaxed)), (2, 2));
    }

    #[test]
    fn attempts_are_counted_over_all_answers_to_a_call() {
        let mut attempts = Attempts::default();
        let numbers: Vec<_> = ["a", "b", "a", "a", "b"].map(|id| attempts.next(id)).into();
        assert_eq!(numbers, [1, 1, 2, 3, 2]);
        for number in 0..CALLS {
            attempts.next(&number.to_string());
        }
        assert_eq!((attempts.last.len(), attempts.order.len()), (CALLS, CALLS));
    }

    #[test]
    fn nothing_more_is_taken_while_too_much_cannot_be_written() {
        let (sender, mut records) = mpsc::channel(1);
        let full = Page { rows: vec![RequestRow::default(); WAITING], ..Page::default() };
        let less = Page { rows: vec![RequestRow::default(); WAITING - 1], ..Page::default() };
        let mut batch = Vec::new();
        sender.try_send(1).unwrap();
        assert!(next(&mut records, &mut batch, &full) && batch.is_empty());
        assert!(next(&mut records, &mut batch, &less));
        assert_eq!(batch, [1]);
        sender.try_send(2).unwrap();
        drop(sender);
        // What is left is tried with the last page.
        assert!(next(&mut records, &mut batch, &full));
        assert_eq!(batch, [1, 2]);
        batch.clear();
        assert!(!next(&mut records, &mut batch, &full), "nothing more comes");
    }
}
