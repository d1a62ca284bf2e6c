//! Finds the fastest of a few thread counts and notices when it changes.

/// So much longer that two steps of three are evidence enough.
const VERY_SLOW: f64 = 3.0;
/// Steps that take this much of what they did: a load went, or a part of it.
const FASTER: f64 = 0.85;
/// Another count must take at most this much of the present one's time. Less would follow noise.
const BETTER: f64 = 0.9;
/// One step that takes so much of the best count's time ends its count's turn: a scan has many to see.
const UNLIKELY: f64 = 1.1;
/// The quiet machine's time again, nearly: the load is over.
const QUIET: f64 = 1.25;
/// The share of time that tries may cost beside a load, and without one.
const SHARE_LOADED: f64 = 0.03;
const SHARE_QUIET: f64 = 0.01;
/// Tries come at least as far apart, in seconds: beside a load, and without one (then doubling).
const WAIT_LOADED_S: f64 = 0.5;
const WAIT_QUIET_S: f64 = 10.0;
const LONGEST_WAIT_S: f64 = 120.0;
/// A slowness that no other count betters for so long is how the machine is now.
const NORMAL_AFTER_S: f64 = 30.0;
/// The most of recent times kept.
const WINDOW: usize = 5;
/// Follows slow change, as of a growing context, by so much a step.
const DRIFT: f64 = 0.02;

/// How much evidence a decision needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    /// Steps before the present count is judged.
    settle: usize,
    /// Steps of a try.
    samples: usize,
    /// A step that takes as many times longer than it did is a load's doing.
    slow: f64,
    /// Whether other counts are tried without any sign of a load.
    curious: bool,
}

impl Style {
    /// Steps take tens of milliseconds.
    pub(super) const DECODE: Self = Self { settle: 3, samples: 3, slow: 1.5, curious: true };
    /// Steps take hundreds, and the more the deeper they are.
    pub(super) const PREFILL: Self = Self { settle: 2, samples: 1, slow: 2.0, curious: false };
}

/// The search for one kind of step. Times are seconds a token, comparable among all steps it is told of.
#[derive(Clone, Debug)]
pub(super) struct Tuner {
    style: Style,
    /// Counts worth trying, rising; never empty.
    counts: Vec<usize>,
    /// What each took when no load was seen.
    quiet: Vec<Option<f64>>,
    /// The best on a quiet machine; an index, as all below.
    goal: usize,
    current: usize,
    recent: Recent,
    /// What the present count took when it was chosen, following slow change.
    reference: Option<f64>,
    probe: Option<Probe>,
    /// Since when a load is seen.
    loaded: Option<f64>,
    /// Whether all counts should be compared once, for want of a calibration.
    compare: bool,
    /// What is thought of the quiet machine is a guess: no step with the best count has told yet.
    guess: bool,
    /// Whether a load may have been there from the beginning.
    doubt: bool,
    last_probe: f64,
    next_probe: f64,
    quiet_wait: f64,
    turn: usize,
}

#[derive(Clone, Debug)]
struct Probe {
    at: usize,
    times: Recent,
    /// Seconds that the tries took longer than they would have otherwise.
    lost: f64,
    /// The present count's time before the probe.
    level: f64,
    /// Set while counts are gone through downward: the best so far and its time.
    scan: Option<(usize, f64)>,
}

impl Tuner {
    pub(super) fn new(style: Style, most: usize, calibration: &[(usize, f64)]) -> Self {
        let most = most.max(1);
        let known = |entry: &&(usize, f64)| {
            (1..=most).contains(&entry.0) && entry.1.is_finite() && entry.1 > 0.0
        };
        let known: Vec<(usize, f64)> = calibration.iter().filter(known).copied().collect();
        let fastest = known.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map(|entry| entry.0);
        let counts = ladder(most, fastest);
        let quiet: Vec<Option<f64>> = counts
            .iter()
            .map(|count| known.iter().filter(|k| k.0 == *count).map(|k| k.1).reduce(f64::min))
            .collect();
        let best = (0..counts.len())
            .filter_map(|at| Some((at, quiet.get(at).copied().flatten()?)))
            .min_by(|a, b| a.1.total_cmp(&b.1));
        let goal = best.map_or(counts.len() - 1, |best| best.0);
        Self {
            style,
            counts,
            quiet,
            goal,
            current: goal,
            recent: Recent::default(),
            reference: best.map(|best| best.1),
            probe: None,
            loaded: None,
            compare: style.curious && best.is_none(),
            guess: false,
            doubt: false,
            last_probe: f64::NEG_INFINITY,
            next_probe: f64::NEG_INFINITY,
            quiet_wait: WAIT_QUIET_S,
            turn: 0,
        }
    }

    /// As this one, of steps that nobody has seen yet: much as those of `near`.
    pub(super) fn guessing(mut self, near: Option<&Self>) -> Self {
        if let Some(near) = near {
            self.quiet.clone_from(&near.quiet);
            (self.goal, self.current, self.compare) = (near.goal, near.goal, false);
            self.reference = self.quiet();
        }
        self.guess = true;
        self
    }

    /// As this one, where a load may have been there from the beginning.
    pub(super) fn doubted(self) -> Self {
        Self { doubt: true, ..self }
    }

    /// Whether neither a load is seen nor anything tried.
    pub(super) fn is_calm(&self) -> bool {
        !self.loaded() && self.probe.is_none()
    }

    /// Whether steps have told what the quiet machine takes.
    pub(super) fn knows(&self) -> bool {
        !self.guess && self.quiet().is_some()
    }

    /// What the best count takes on a quiet machine.
    pub(super) fn quiet(&self) -> Option<f64> {
        self.quiet_time(self.goal)
    }

    pub(super) fn next_probe(&self) -> f64 {
        self.next_probe
    }

    pub(super) fn put_off_until(&mut self, next: f64) {
        self.next_probe = self.next_probe.max(next);
    }

    /// For the next step.
    pub(super) fn threads(&self) -> usize {
        self.count(self.probe.as_ref().map_or(self.current, |probe| probe.at))
    }

    /// The count that is not a try.
    pub(super) fn settled(&self) -> usize {
        self.count(self.current)
    }

    pub(super) fn loaded(&self) -> bool {
        self.loaded.is_some()
    }

    /// After a pause: old times say nothing, and a load may have gone meanwhile.
    pub(super) fn forget_recent(&mut self, now: f64) {
        self.recent.clear();
        self.probe = None;
        self.next_probe = if self.loaded() { now } else { now + self.quiet_wait };
    }

    /// Starts from what a quicker search found: few steps of one's own are needed then.
    pub(super) fn follow(&mut self, loaded: bool, threads: usize, now: f64) {
        let at = if loaded { self.at_most(threads) } else { self.goal };
        if at != self.current {
            self.current = at;
            self.probe = None;
            self.reference = self.quiet.get(at).copied().flatten().filter(|_| !loaded);
            self.recent.clear();
        }
        self.loaded = if loaded { self.loaded.or(Some(now)) } else { None };
    }

    /// A step that took `seconds`, which is `time` in the measure by which steps are compared. Steps with a
    /// count that is not asked for now say nothing.
    pub(super) fn report(&mut self, threads: usize, time: f64, seconds: f64, now: f64) {
        if threads != self.threads() {
            return;
        }
        match self.probe.take() {
            Some(mut probe) => {
                probe.lost += seconds * (1.0 - probe.level / time);
                self.probed(probe, time, now);
            }
            None => self.settled_step(time, now),
        }
    }

    fn settled_step(&mut self, time: f64, now: f64) {
        self.recent.push(time);
        if self.recent.len() < self.style.settle {
            return;
        }
        let level = self.recent.median(WINDOW);
        let reference = self.reference.unwrap_or(level);
        let slow =
            level >= self.style.slow * reference || self.recent.median(3) >= VERY_SLOW * reference;
        let slow = slow || (self.doubt && !self.loaded());
        if !slow && self.current == self.goal {
            if self.guess && !self.loaded() {
                self.learn_quiet(level);
            } else if self.quiet().is_none() {
                self.set_quiet(self.goal, level);
            }
        }
        if slow || self.compare {
            self.start_scan(slow, now);
            return;
        }
        self.watch_load(level, now);
        let away = self.current != self.goal;
        if level <= FASTER * reference && away {
            // The reference stays until the sign was followed.
            if now >= self.last_probe + WAIT_LOADED_S {
                self.reference = Some(level);
                self.start_probe(self.goal, level, now);
            }
            return;
        }
        self.reference = Some((reference + (level - reference) * DRIFT).min(level / FASTER));
        if now >= self.next_probe {
            self.next_try(level, now);
        }
    }

    /// Ends a load that is over and takes for normal what does not end.
    fn watch_load(&mut self, level: f64, now: f64) {
        if self.current != self.goal {
            return;
        }
        let Some(quiet) = self.quiet().filter(|_| !self.guess) else {
            if self.loaded.is_some_and(|since| now > since + NORMAL_AFTER_S) {
                self.learn_quiet(level);
            }
            return;
        };
        match self.loaded {
            Some(since) if level <= QUIET * quiet || now > since + NORMAL_AFTER_S => {
                self.loaded = None;
                self.quiet_wait = WAIT_QUIET_S;
                self.next_probe = now + self.quiet_wait;
                self.set_quiet(self.goal, level);
            }
            Some(_) => {}
            None => self.set_quiet(self.goal, quiet + (level - quiet) * DRIFT),
        }
    }

    /// A step with the best count tells what it takes without a load.
    fn learn_quiet(&mut self, level: f64) {
        (self.guess, self.doubt, self.loaded) = (false, false, None);
        self.rescale(level);
    }

    /// What the best count takes on a quiet machine, and the others in proportion.
    fn rescale(&mut self, time: f64) {
        let times = self.quiet().map_or(1.0, |quiet| time / quiet);
        self.quiet.iter_mut().flatten().for_each(|quiet| *quiet *= times);
        self.set_quiet(self.goal, time);
        self.reference = Some(time);
    }

    fn start_scan(&mut self, slow: bool, now: f64) {
        let level = self.recent.median(3);
        if slow {
            self.loaded = self.loaded.or(Some(now));
        }
        self.reference = Some(level);
        self.scan_below(self.current, level, (self.current, level), now);
    }

    /// Goes on with the next count below `at` that could be faster: none is faster than on a quiet machine.
    fn scan_below(&mut self, at: usize, level: f64, best: (usize, f64), now: f64) {
        let hopeful = |at: &usize| self.quiet_time(*at).is_none_or(|quiet| quiet < BETTER * best.1);
        match (0..at).rev().find(hopeful) {
            Some(at) => {
                let probe =
                    Probe { at, times: Recent::default(), lost: 0.0, level, scan: Some(best) };
                self.probe = Some(probe);
            }
            None => self.end_scan(best, now),
        }
    }

    fn end_scan(&mut self, best: (usize, f64), now: f64) {
        self.doubt = false;
        if best.0 == self.goal && (self.guess || !self.style.curious) {
            // No load that fewer threads would evade: such steps take longer than was thought.
            self.learn_quiet(best.1);
        }
        self.settle_on(best.0, best.1, now);
        if std::mem::take(&mut self.compare) && !self.loaded() {
            self.goal = best.0;
            self.set_quiet(best.0, best.1);
        }
        self.next_probe = now + if self.loaded() { WAIT_LOADED_S } else { self.quiet_wait };
    }

    fn settle_on(&mut self, at: usize, time: f64, now: f64) {
        self.current = at;
        self.reference = Some(time);
        self.recent.clear();
        self.last_probe = now;
    }

    fn start_probe(&mut self, at: usize, level: f64, now: f64) {
        self.last_probe = now;
        self.probe = Some(Probe { at, times: Recent::default(), lost: 0.0, level, scan: None });
    }

    /// Away from the quiet machine's count: mostly that one and the next above. At it: the neighbours and the
    /// highest in turn, in case the calibration was disturbed.
    fn next_try(&mut self, level: f64, now: f64) {
        self.turn = self.turn.wrapping_add(1);
        let last = self.counts.len() - 1;
        let (up, down) = ((self.current + 1).min(last), self.current.saturating_sub(1));
        let away = self.current != self.goal;
        let at = match (away, self.turn % 4) {
            (true, 1 | 3) => self.goal,
            (false, 1) | (true, 2) => up,
            (_, 0) => down,
            (false, _) => last,
            (true, _) => up,
        };
        let wanted = away || self.style.curious || self.loaded();
        if at == self.current || !wanted {
            self.next_probe = now + WAIT_LOADED_S;
        } else {
            self.start_probe(at, level, now);
        }
    }

    fn probed(&mut self, mut probe: Probe, time: f64, now: f64) {
        probe.times.push(time);
        match probe.scan {
            Some(best) => self.scanned(probe, best, now),
            None => self.tried(probe, now),
        }
    }

    fn scanned(&mut self, probe: Probe, best: (usize, f64), now: f64) {
        let time = probe.times.median(WINDOW);
        if probe.times.len() < self.style.samples && time <= UNLIKELY * best.1 {
            self.probe = Some(probe);
            return;
        }
        let best = if time < BETTER * best.1 { (probe.at, time) } else { best };
        // Past the valley, or far from where a valley could still pay.
        let past = best.0 != self.current && time > QUIET * best.1;
        if past || time > 4.0 * probe.level {
            // A thread alone waits for nobody: beyond all valleys it may still be the fastest.
            let lowest = if self.style.curious { probe.at.min(1) } else { 0 };
            self.scan_below(lowest, probe.level, best, now);
        } else {
            self.scan_below(probe.at, probe.level, best, now);
        }
    }

    /// The quiet machine's count is taken again as soon as it is not slower, others when clearly faster.
    fn tried(&mut self, probe: Probe, now: f64) {
        let home = probe.at == self.goal;
        let time = probe.times.median(WINDOW);
        let enough = probe.times.len() >= self.style.samples;
        let (first, want) = if home { (1.1, 1.0) } else { (0.95, BETTER) };
        if enough && time <= want * probe.level {
            if home && self.guess {
                self.learn_quiet(time);
            }
            self.settle_on(probe.at, time, now);
            self.quiet_wait = WAIT_QUIET_S;
            self.next_probe = now + WAIT_LOADED_S;
            if !self.loaded() {
                self.goal = probe.at;
                self.set_quiet(probe.at, time);
            }
        } else if enough || time > first * probe.level {
            self.put_off(&probe, now);
        } else {
            self.probe = Some(probe);
        }
    }

    /// The next try comes when what this one cost is a small share of the time.
    fn put_off(&mut self, probe: &Probe, now: f64) {
        let quiet = !self.loaded() && self.current == self.goal;
        let (least, share) =
            if quiet { (self.quiet_wait, SHARE_QUIET) } else { (WAIT_LOADED_S, SHARE_LOADED) };
        self.next_probe = now + (probe.lost.max(0.0) / share).clamp(least, LONGEST_WAIT_S);
        if quiet {
            self.quiet_wait = (2.0 * self.quiet_wait).min(LONGEST_WAIT_S);
        }
    }

    fn count(&self, at: usize) -> usize {
        self.counts.get(at).copied().unwrap_or(1)
    }

    fn at_most(&self, threads: usize) -> usize {
        self.counts.iter().rposition(|count| *count <= threads).unwrap_or(0)
    }

    fn quiet_time(&self, at: usize) -> Option<f64> {
        self.quiet.get(at).copied().flatten()
    }

    fn set_quiet(&mut self, at: usize, time: f64) {
        if let Some(quiet) = self.quiet.get_mut(at) {
            *quiet = Some(time);
        }
    }
}

/// All counts up to eight, then each about a quarter more than the one before, always with the highest
/// two and the fastest calibrated one. Few: a scan goes through them while answers wait.
fn ladder(most: usize, fastest: Option<usize>) -> Vec<usize> {
    let mut counts: Vec<usize> = (1..=most.min(8)).collect();
    let mut count = 8usize;
    while count < most {
        count = count.saturating_add(count / 4 + 1).min(most);
        counts.push(count);
    }
    counts.extend([most, most.saturating_sub(1).max(1)]);
    counts.extend(fastest);
    counts.sort_unstable();
    counts.dedup();
    counts
}

/// The last few times.
#[derive(Clone, Debug, Default)]
struct Recent {
    times: [f64; WINDOW],
    len: usize,
}

impl Recent {
    fn push(&mut self, time: f64) {
        self.times.rotate_right(1);
        self.times[0] = time;
        self.len = (self.len + 1).min(WINDOW);
    }

    fn len(&self) -> usize {
        self.len
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    /// Of the newest `among`, the lower one of two in the middle; zero of none.
    fn median(&self, among: usize) -> f64 {
        let count = self.len.min(among);
        let mut times: Vec<f64> = self.times.iter().take(count).copied().collect();
        times.sort_unstable_by(f64::total_cmp);
        times.get(count.saturating_sub(1) / 2).copied().unwrap_or(0.0)
    }
}
