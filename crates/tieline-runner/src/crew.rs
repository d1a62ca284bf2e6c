//! How many threads compute the next step.

use std::time::{Duration, Instant};

use tieline_decode::threads::{Choice, Kind, OLD_S, Step, Threads, Usage, WINDOW_S};
use tieline_types::Pace;

use crate::kv::Kv;
use crate::llama::{Batch, Settings};
use crate::others::Others;

/// What measuring at load may take, once the first count is measured.
const CALIBRATION: Duration = Duration::from_millis(40);
/// Tokens that are timed for each count, after one that is not.
const TIMED: usize = 2;
/// What the system's counts may be wrong by, in seconds of each processor, and the share of one processor beyond it that others
/// may take of a measurement without disturbing it.
const UNCERTAIN_S: f64 = 0.01;
const DISTURBING: f64 = 0.2;

/// The threads at hand.
#[derive(Debug)]
pub(crate) struct Crew {
    settings: Settings,
    /// `None`: always as many as the settings say.
    threads: Option<Threads>,
    others: Option<Others>,
    /// What the next load should know, and whether others disturbed its measuring.
    paces: (Vec<Pace>, bool),
    started: Instant,
    /// When others were last looked at, in seconds since the start.
    looked: f64,
}

impl Crew {
    /// Always as many threads as the settings say.
    pub(crate) fn fixed(settings: Settings) -> Self {
        let (started, paces) = (Instant::now(), <_>::default());
        Self { settings, threads: None, others: None, paces, started, looked: 0.0 }
    }

    /// Follows the machine, from what is known of how fast few threads and many are, or from a short measurement. Makes room
    /// for others, where the system says what they take. The cache must be empty, and is empty afterwards.
    pub(crate) fn following(
        settings: Settings,
        known: &[Pace],
        mut others: Option<Others>,
        kv: &mut Kv<'_>,
    ) -> Self {
        let most = usize::try_from(settings.threads.max(settings.threads_batch)).unwrap_or(1);
        let started = Instant::now();
        let (calibration, paces) = match usable(known, most) {
            Some(calibration) => (calibration, <_>::default()),
            None => {
                let mut look =
                    |again| others.as_mut()?.look(started.elapsed().as_secs_f64(), again);
                let before = look(true);
                let calibration = calibrate(most, kv);
                let paces = calibration.iter().filter_map(pace).collect();
                (calibration, (paces, disturbed(before, look(false))))
            }
        };
        let threads = Some(Threads::new(most, &calibration));
        let mut crew = Self { settings, threads, others, paces, started, looked: 0.0 };
        crew.look();
        crew
    }

    /// What the context was made with.
    pub(crate) fn settings(&self) -> Settings {
        self.settings
    }

    /// What a token takes by the number of threads, and whether others may have disturbed its measuring; nothing where it was
    /// known.
    pub(crate) fn paces(&self) -> (Vec<Pace>, bool) {
        self.paces.clone()
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

/// What is known, where it was measured with `most` threads first, as [`calibrate`] does.
fn usable(known: &[Pace], most: usize) -> Option<Vec<(usize, f64)>> {
    let first = known.first()?;
    (usize::try_from(first.threads) == Ok(most)).then(|| known.iter().map(calibrated).collect())
}

/// Whether others did anything between two looks, as far as can be seen.
fn disturbed(before: Option<Usage>, after: Option<Usage>) -> bool {
    let Some((before, after)) = before.zip(after) else { return true };
    let others = (after.busy - before.busy) - (after.own - before.own);
    let uncertain = UNCERTAIN_S * before.processors as f64;
    before.waiting > 0 || others > uncertain + DISTURBING * (after.now - before.now)
}

/// `None` where it is no time.
fn pace(&(threads, seconds): &(usize, f64)) -> Option<Pace> {
    let token = Duration::try_from_secs_f64(seconds).ok()?;
    let token_ns = u64::try_from(token.as_nanos()).ok()?;
    Some(Pace { threads: u32::try_from(threads).ok()?, token_ns })
}

/// As it was measured.
fn calibrated(pace: &Pace) -> (usize, f64) {
    let threads = usize::try_from(pace.threads).unwrap_or(usize::MAX);
    (threads, Duration::from_nanos(pace.token_ns).as_secs_f64())
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

#[cfg(test)]
mod tests {
    use super::*;

    const MEASURED: [(usize, f64); 2] = [(2, 0.0125), (1, 0.02)];

    fn paces() -> Vec<Pace> {
        let pace = |threads, token_ns| Pace { threads, token_ns };
        vec![pace(2, 12_500_000), pace(1, 20_000_000)]
    }

    #[test]
    fn what_others_do_meanwhile_disturbs() {
        let usage = |now, busy, own| Usage { now, processors: 2, busy, own, waiting: 0 };
        let start = usage(0.0, 100.0, 7.0);
        for (now, busy, own, want) in [
            (0.2, 100.4, 7.4, false),
            (0.2, 100.4, 7.35, false),
            (0.2, 100.4, 7.3, true),
            // What the system counts comes in hundredths.
            (0.01, 100.02, 7.01, false),
            (0.01, 100.0, 7.02, false),
            (1.0, 102.0, 8.9, false),
            (1.0, 102.0, 8.5, true),
        ] {
            let end = usage(now, busy, own);
            assert_eq!(disturbed(Some(start), Some(end)), want, "{now} {busy} {own}");
        }
        let end = usage(0.2, 100.4, 7.4);
        assert!(disturbed(Some(Usage { waiting: 1, ..start }), Some(end)));
        assert!(disturbed(None, Some(end)), "the system does not say");
        assert!(disturbed(Some(start), None));
    }

    #[test]
    fn what_is_known_of_as_many_threads_is_measured_no_more() {
        assert_eq!(usable(&paces(), 2), Some(MEASURED.to_vec()));
        assert_eq!(usable(&paces(), 1), None, "it was measured for two");
        assert_eq!(usable(&paces(), 4), None);
        assert_eq!(usable(&[], 2), None);
    }

    #[test]
    fn what_is_no_time_is_no_pace() {
        for odd in [f64::NAN, f64::INFINITY, -1.0] {
            assert_eq!(pace(&(2, odd)), None);
        }
    }
}
