//! How many threads compute the next step.

use std::time::{Duration, Instant};

use tieline_decode::threads::{Choice, Kind, OLD_S, Step, Threads, WINDOW_S};

use crate::kv::Kv;
use crate::llama::{Batch, Settings};
use crate::others::Others;

/// What measuring at load may take, once the first count is measured.
const CALIBRATION: Duration = Duration::from_millis(40);
/// Tokens that are timed for each count, after one that is not.
const TIMED: usize = 2;

/// The threads at hand.
#[derive(Debug)]
pub(crate) struct Crew {
    settings: Settings,
    /// `None`: always as many as the settings say.
    threads: Option<Threads>,
    others: Option<Others>,
    started: Instant,
    /// When others were last looked at, in seconds since the start.
    looked: f64,
}

impl Crew {
    /// Always as many threads as the settings say.
    pub(crate) fn fixed(settings: Settings) -> Self {
        Self { settings, threads: None, others: None, started: Instant::now(), looked: 0.0 }
    }

    /// Measures shortly how fast few threads and many are, and follows the machine from there. The cache
    /// must be empty, and is empty afterwards.
    pub(crate) fn measured(settings: Settings, kv: &mut Kv<'_>) -> Self {
        let most = usize::try_from(settings.threads.max(settings.threads_batch)).unwrap_or(1);
        let calibration = calibrate(most, kv);
        let threads = Some(Threads::new(most, &calibration));
        Self { settings, threads, others: None, started: Instant::now(), looked: 0.0 }
    }

    /// Makes room for others from now on, where the system says what they take.
    pub(crate) fn watch(&mut self, others: Option<Others>) {
        self.others = others;
        self.look();
    }

    /// Threads for the next step, of `tokens` tokens, and whether they spin while they wait for each other.
    pub(crate) fn choose(&mut self, kind: Kind, tokens: usize) -> (i32, bool) {
        let (most, _) = self.usual(kind == Kind::Decode);
        if self.started.elapsed().as_secs_f64() > self.looked + WINDOW_S {
            self.look();
        }
        let Some(threads) = &mut self.threads else { return (most, true) };
        let Choice { threads, poll } = threads.choose(kind, tokens);
        (i32::try_from(threads).unwrap_or(1).clamp(1, most), poll)
    }

    /// Looks at what others take of the processors.
    fn look(&mut self) {
        let now = self.started.elapsed().as_secs_f64();
        let paused = now - self.looked > OLD_S;
        self.looked = now;
        let usage = self.others.as_mut().and_then(|others| others.look(now, paused));
        if let (Some(usage), Some(threads)) = (usage, &mut self.threads) {
            threads.note(usage);
        }
    }

    /// As many threads as the settings say.
    pub(crate) fn usual(&self, decodes: bool) -> (i32, bool) {
        (if decodes { self.settings.threads } else { self.settings.threads_batch }, true)
    }

    /// Takes note of a step.
    pub(crate) fn note(&mut self, kind: Kind, tokens: usize, threads: i32, seconds: f64) {
        let Some(controller) = &mut self.threads else { return };
        controller.report(Step {
            tokens,
            kind,
            threads: usize::try_from(threads).unwrap_or(1),
            seconds,
            now: self.started.elapsed().as_secs_f64(),
        });
    }
}

/// Seconds that a token takes by the number of threads: most first, then fewer while there is time.
fn calibrate(most: usize, kv: &mut Kv<'_>) -> Vec<(usize, f64)> {
    let mut measured = Vec::new();
    let mut counts: Vec<usize> = vec![most, most.saturating_sub(1), most.div_ceil(2), 1];
    counts.retain(|&count| count > 0);
    counts.dedup();
    let mut started = Instant::now();
    for (at, count) in counts.into_iter().enumerate() {
        if at > 0 && started.elapsed() > CALIBRATION {
            break;
        }
        let Some(seconds) = time_one(count, kv) else { break };
        measured.push((count, seconds));
        if at == 0 {
            started = Instant::now();
        }
    }
    kv.clear();
    measured
}

/// Seconds for a token on `threads` threads: the fastest of a few, since whatever disturbs only slows.
fn time_one(threads: usize, kv: &mut Kv<'_>) -> Option<f64> {
    kv.clear();
    kv.context().set_threads(i32::try_from(threads).ok()?, true);
    let mut best = f64::INFINITY;
    for position in 0..=TIMED {
        let mut batch = Batch::default();
        // Any token will do: it is the work that counts.
        batch.push(0, position, 0, true);
        let started = Instant::now();
        kv.decode(&mut batch).ok()?;
        kv.context().synchronize();
        if position > 0 {
            best = best.min(started.elapsed().as_secs_f64());
        }
    }
    Some(best)
}
