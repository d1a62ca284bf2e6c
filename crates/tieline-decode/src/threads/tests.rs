use proptest::prelude::*;

use super::*;

/// A machine where a token takes `a / threads + b` seconds while every thread has a core of its own.
#[derive(Clone, Copy)]
struct Machine {
    cores: usize,
    a: f64,
    b: f64,
    /// Each time is multiplied by up to this much more or less.
    noise: f64,
}

impl Machine {
    /// The measured one, scaled: 65 tokens a second with two threads, 40 with one.
    fn with(cores: usize) -> Self {
        Self { cores, a: 0.0192, b: 0.0058, noise: 0.0 }
    }

    /// A single thread only shares its core; several wait at barriers for the one that was pushed aside.
    fn seconds(&self, threads: usize, hogs: usize) -> f64 {
        let quiet = self.a / threads as f64 + self.b;
        let crowded = match (threads, hogs) {
            _ if threads + hogs <= self.cores => 1.0,
            (1, _) => {
                if hogs > self.cores {
                    1.8
                } else {
                    1.2
                }
            }
            _ => {
                if hogs > self.cores {
                    20.0
                } else {
                    4.0
                }
            }
        };
        quiet * crowded
    }

    fn best(&self, hogs: usize) -> (usize, f64) {
        (1..=self.cores)
            .map(|threads| (threads, self.seconds(threads, hogs)))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .unwrap()
    }

    fn calibration(&self) -> Vec<(usize, f64)> {
        (1..=self.cores).map(|threads| (threads, self.seconds(threads, 0))).collect()
    }
}

struct Sim {
    machine: Machine,
    threads: Threads,
    now: f64,
    /// Whether the system says what others take, and what it has counted.
    told: bool,
    busy: f64,
    own: f64,
    random: u64,
    /// End of each step, its count, whether it polled.
    log: Vec<(f64, Choice)>,
}

impl Sim {
    fn new(machine: Machine, calibrated: bool) -> Self {
        let calibration = if calibrated { machine.calibration() } else { Vec::new() };
        let threads = Threads::new(machine.cores, &calibration);
        let (random, log) = (0x9e37_79b9, Vec::new());
        Self { machine, threads, now: 0.0, told: false, busy: 0.0, own: 0.0, random, log }
    }

    fn noise(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let unit = f64::from(u32::try_from(self.random >> 32).unwrap()) / f64::from(u32::MAX);
        1.0 + self.machine.noise * (2.0 * unit - 1.0)
    }

    /// Where the system says what others take.
    fn told(machine: Machine) -> Self {
        Self { told: true, ..Self::new(machine, true) }
    }

    /// So many seconds in which so many threads of ours wanted a processor each.
    fn pass(&mut self, seconds: f64, threads: usize, hogs: usize) {
        let cores = self.machine.cores as f64;
        let wanted = (threads + hogs) as f64;
        let share = (cores / wanted.max(1.0)).min(1.0);
        self.now += seconds;
        self.busy += seconds * wanted * share;
        self.own += seconds * threads as f64 * share;
        if self.told {
            let (now, busy, own) = (self.now, self.busy, self.own);
            let (processors, waiting) = (self.machine.cores, hogs);
            self.threads.note(Usage { now, processors, busy, own, waiting });
        }
    }

    fn step(&mut self, kind: Kind, tokens: usize, times: f64, hogs: usize) {
        let choice = self.threads.choose(kind, tokens);
        let seconds = self.machine.seconds(choice.threads, hogs) * times * self.noise();
        self.pass(seconds, choice.threads, hogs);
        self.log.push((self.now, choice));
        let (threads, now) = (choice.threads, self.now);
        self.threads.report(Step { tokens, kind, threads, seconds, now });
    }

    /// Decodes for so many seconds.
    fn decode(&mut self, seconds: f64, hogs: usize) {
        let end = self.now + seconds;
        while self.now < end {
            self.step(Kind::Decode, 1, 1.0, hogs);
        }
    }

    /// Tokens a second since `from`, as a share of what the best fixed count gives.
    fn share(&self, from: f64, hogs: usize) -> f64 {
        let steps = self.log.iter().filter(|step| step.0 > from).count();
        steps as f64 / (self.now - from) * self.machine.best(hogs).1
    }

    fn switches(&self, from: f64) -> usize {
        let since: Vec<usize> =
            self.log.iter().filter(|step| step.0 > from).map(|step| step.1.threads).collect();
        since.windows(2).filter(|pair| pair[0] != pair[1]).count()
    }
}

/// A piece of a prompt's beginning.
const PROMPT: Kind = Kind::Prefill { before: 0, answers: 0 };

const CORES: [usize; 4] = [1, 2, 8, 64];

/// Every number of busy programs, from none to two a core.
fn loads(cores: usize) -> Vec<usize> {
    let mut loads = vec![0, 1, cores / 2, cores - 1, cores, 2 * cores];
    loads.dedup();
    loads
}

#[test]
fn reaches_the_best_count_under_each_load() {
    for cores in CORES {
        for hogs in loads(cores) {
            for noise in [0.0, 0.1, 0.2] {
                let mut sim = Sim::new(Machine { noise, ..Machine::with(cores) }, true);
                sim.decode(20.0, 0);
                assert!(sim.share(1.0, 0) > 0.95, "{cores} quiet: {}", sim.share(1.0, 0));
                sim.decode(8.0, hogs);
                let from = sim.now;
                sim.decode(60.0, hogs);
                let share = sim.share(from, hogs);
                assert!(share > 0.85, "{cores} cores, {hogs} hogs, noise {noise}: {share}");
            }
        }
    }
}

#[test]
fn what_the_system_says_of_others_is_followed_at_once() {
    for (cores, hogs) in [(2, 1), (2, 2), (2, 4), (8, 4), (8, 16), (64, 32)] {
        let mut sim = Sim::told(Machine { noise: 0.1, ..Machine::with(cores) });
        sim.decode(5.0, 0);
        // The load comes between two requests, and goes between two.
        sim.pass(8.0, 0, hogs);
        let from = sim.log.len();
        sim.step(PROMPT, 256, 8.0, hogs);
        sim.decode(30.0, hogs);
        let left = cores.saturating_sub(hogs).max(1);
        assert!(sim.log[from..].iter().all(|step| step.1.threads <= left), "{cores} cores, {hogs}");
        sim.pass(8.0, 0, 0);
        let from = sim.now;
        sim.decode(5.0, 0);
        assert!(sim.share(from, 0) > 0.95, "{cores} cores, {hogs} hogs: {}", sim.share(from, 0));
    }
}

#[test]
fn a_try_that_was_slow_is_made_once_a_minute() {
    for hogs in [2, 4] {
        let mut sim = Sim::told(Machine::with(2));
        sim.decode(5.0, 0);
        sim.pass(8.0, 0, hogs);
        let from = sim.log.len();
        sim.decode(300.0, hogs);
        let tries = sim.log[from..].iter().filter(|step| step.1.threads == 2).count();
        assert!((1..=5).contains(&tries), "{hogs} hogs: {tries}");
    }
}

#[test]
fn who_gives_way_costs_nothing_but_a_minute() {
    let mut sim = Sim::told(Machine::with(2));
    sim.decode(5.0, 0);
    sim.pass(8.0, 0, 2);
    let mut counts = [0.0; 3];
    while sim.now < 200.0 {
        // The system counts two that are always there, and our threads are never in their way.
        let choice = sim.threads.choose(Kind::Decode, 1);
        let seconds = sim.machine.seconds(choice.threads, 0);
        (sim.now, sim.busy) = (sim.now + seconds, sim.busy + 2.0 * seconds);
        sim.own += seconds * choice.threads as f64;
        let usage = Usage { now: sim.now, processors: 2, busy: sim.busy, own: sim.own, waiting: 2 };
        sim.threads.note(usage);
        let (threads, now) = (choice.threads, sim.now);
        sim.threads.report(Step { tokens: 1, kind: Kind::Decode, threads, seconds, now });
        counts[threads] += if now > 80.0 { seconds } else { 0.0 };
    }
    assert!(counts[1] < 0.03 * counts[2], "{counts:?}");
}

#[test]
fn without_a_calibration_too() {
    for cores in CORES {
        for hogs in loads(cores) {
            let mut sim = Sim::new(Machine { noise: 0.1, ..Machine::with(cores) }, false);
            sim.decode(20.0, hogs);
            let from = sim.now;
            sim.decode(60.0, hogs);
            let share = sim.share(from, hogs);
            assert!(share > 0.8, "{cores} cores, {hogs} hogs: {share}");
        }
    }
}

#[test]
fn a_load_is_noticed_within_few_steps() {
    let mut sim = Sim::new(Machine::with(2), true);
    sim.decode(5.0, 0);
    let before = sim.log.len();
    sim.decode(10.0, 2);
    let first = sim.log[before..].iter().position(|step| step.1.threads == 1).unwrap();
    assert!(first <= 4, "{first} steps");
}

#[test]
fn full_speed_is_back_soon_after_the_load_went() {
    for cores in [2, 8, 64] {
        for hogs in loads(cores) {
            for noise in [0.0, 0.15] {
                let mut sim = Sim::new(Machine { noise, ..Machine::with(cores) }, true);
                sim.decode(3.0, 0);
                for _ in 0..4 {
                    sim.decode(17.0, hogs);
                    sim.decode(2.0, 0);
                    let from = sim.now;
                    sim.decode(4.0, 0);
                    let share = sim.share(from, 0);
                    assert!(share > 0.9, "{cores} cores, {hogs} hogs, noise {noise}: {share}");
                }
            }
        }
    }
}

#[test]
fn tries_beside_a_load_cost_little() {
    for cores in [2, 8, 64] {
        for hogs in [cores, 2 * cores] {
            let mut sim = Sim::new(Machine::with(cores), true);
            sim.decode(5.0, 0);
            sim.decode(40.0, hogs);
            let from = sim.now;
            sim.decode(400.0, hogs);
            let since = || sim.log.iter().filter(|step| step.0 > from);
            let settled = |count: &usize| since().filter(|step| step.1.threads == *count).count();
            let count = (1..=cores).max_by_key(settled).unwrap();
            let lost = 1.0 - since().count() as f64 * sim.machine.seconds(count, hogs) / 400.0;
            assert!(lost < 0.04, "{cores} cores, {hogs} hogs: {lost}");
        }
    }
}

#[test]
fn noise_does_not_make_it_flap() {
    for cores in [2, 8, 64] {
        for hogs in [0, cores / 2, cores] {
            for noise in [0.1, 0.3] {
                let mut sim = Sim::new(Machine { noise, ..Machine::with(cores) }, true);
                sim.decode(10.0, hogs);
                let (from, steps) = (sim.now, sim.log.len());
                sim.decode(120.0, hogs);
                let switches = sim.switches(from);
                let steps = sim.log.len() - steps;
                assert!(
                    switches * 100 <= steps * 6,
                    "{cores} cores, {hogs} hogs, noise {noise}: {switches} in {steps} steps"
                );
            }
        }
    }
}

#[test]
fn a_single_slow_step_changes_nothing() {
    let mut sim = Sim::new(Machine::with(8), true);
    sim.decode(5.0, 0);
    for _ in 0..20 {
        sim.step(Kind::Decode, 1, 30.0, 0);
        assert_eq!(sim.threads.choose(Kind::Decode, 1), Choice { threads: 8, poll: true });
        for _ in 0..10 {
            sim.step(Kind::Decode, 1, 1.0, 0);
        }
    }
    assert!(sim.log.iter().filter(|step| step.1.threads != 8).count() <= 6);
}

#[test]
fn polls_only_without_a_load() {
    let mut sim = Sim::new(Machine::with(2), true);
    sim.decode(5.0, 0);
    assert!(sim.log.iter().all(|step| step.1.poll));
    sim.decode(2.0, 2);
    let from = sim.now;
    sim.decode(10.0, 2);
    assert!(sim.log.iter().filter(|step| step.0 > from).all(|step| !step.1.poll));
    sim.decode(3.0, 0);
    assert_eq!(sim.threads.choose(Kind::Decode, 1), Choice { threads: 2, poll: true });
}

#[test]
fn a_growing_context_is_no_load() {
    let mut sim = Sim::new(Machine::with(8), true);
    for step in 0..4000 {
        sim.step(Kind::Decode, 1, 1.0 + f64::from(step) / 1000.0, 0);
        assert!(sim.threads.choose(Kind::Decode, 1).poll, "step {step}");
    }
}

#[test]
fn a_lasting_slowness_becomes_normal() {
    let mut sim = Sim::new(Machine::with(8), true);
    sim.decode(5.0, 0);
    let end = sim.now + 45.0;
    while sim.now < end {
        sim.step(Kind::Decode, 1, 2.0, 0);
    }
    assert_eq!(sim.threads.choose(Kind::Decode, 1), Choice { threads: 8, poll: true });
}

#[test]
fn longer_batches_are_no_load() {
    for each in [0.1, 0.15, 0.25] {
        let mut sim = Sim::new(Machine::with(8), true);
        for step in 0..2000 {
            let tokens = [1, 1, 4, 17, 2, 9][step % 6];
            let times = 1.0 + each * (tokens - 1) as f64;
            sim.step(Kind::Decode, tokens, times, 0);
        }
        let away = sim.log.iter().filter(|step| step.1.threads != 8).count();
        assert!(away < 40, "{each}: {away}");
        assert_eq!(
            sim.threads.choose(Kind::Decode, 1),
            Choice { threads: 8, poll: true },
            "{each}"
        );
    }
}

#[test]
fn prefill_uses_all_threads_until_a_load_comes_and_again_after_it() {
    let mut sim = Sim::new(Machine::with(8), true);
    for _ in 0..10 {
        sim.step(PROMPT, 256, 20.0, 0);
        assert_eq!(sim.threads.choose(PROMPT, 256).threads, 8);
    }
    for _ in 0..12 {
        sim.step(PROMPT, 256, 20.0, 4);
    }
    let (from, steps) = (sim.now, sim.log.len());
    for _ in 0..40 {
        sim.step(PROMPT, 256, 20.0, 4);
    }
    let speed = (sim.log.len() - steps) as f64 / (sim.now - from);
    assert!(speed * 20.0 * sim.machine.best(4).1 > 0.8, "{speed}");
    for _ in 0..60 {
        sim.step(PROMPT, 256, 20.0, 0);
    }
    assert_eq!(sim.threads.choose(PROMPT, 256), Choice { threads: 8, poll: true });
}

#[test]
fn a_load_seen_by_the_last_prompt_does_not_slow_answers() {
    let mut sim = Sim::new(Machine::with(8), true);
    for hogs in [0, 0, 0, 0, 4, 4, 4, 4] {
        sim.step(PROMPT, 256, 20.0, hogs);
    }
    assert!(!sim.threads.choose(PROMPT, 256).poll);
    sim.decode(3.0, 0);
    assert_eq!(sim.threads.choose(Kind::Decode, 1), Choice { threads: 8, poll: true });
}

#[test]
fn a_steeper_machine_is_followed_too() {
    for cores in CORES {
        for hogs in loads(cores) {
            let steep = Machine { a: 0.2, b: 0.004, noise: 0.1, cores };
            let mut sim = Sim::new(steep, true);
            sim.decode(10.0, 0);
            sim.decode(20.0, hogs);
            let from = sim.now;
            sim.decode(120.0, hogs);
            let share = sim.share(from, hogs);
            assert!(share > 0.8, "{cores} cores, {hogs} hogs: {share}");
        }
    }
}

#[test]
fn prefill_follows_what_decoding_found() {
    let mut sim = Sim::new(Machine::with(8), true);
    sim.decode(5.0, 0);
    sim.decode(5.0, 4);
    assert_eq!(sim.threads.choose(PROMPT, 256), Choice { threads: 4, poll: false });
    sim.decode(5.0, 0);
    assert_eq!(sim.threads.choose(PROMPT, 256), Choice { threads: 8, poll: true });
}

#[test]
fn a_disturbed_calibration_is_mended() {
    let machine = Machine::with(2);
    let mut sim = Sim::new(machine, true);
    sim.threads = Threads::new(2, &[(1, 0.03), (2, 0.2)]);
    assert_eq!(sim.threads.choose(Kind::Decode, 1).threads, 1);
    sim.decode(60.0, 0);
    assert_eq!(sim.threads.choose(Kind::Decode, 1).threads, 2);
}

#[test]
fn senseless_calibration_is_left_out() {
    let calibration = [(0, 1.0), (99, 1e-9), (3, f64::NAN), (2, -1.0), (4, 0.01), (1, 0.03)];
    assert_eq!(
        Threads::new(8, &calibration).choose(Kind::Decode, 1),
        Choice { threads: 4, poll: true }
    );
    assert_eq!(Threads::new(0, &[]).choose(Kind::Decode, 1).threads, 1);
    assert_eq!(Threads::new(usize::MAX, &[]).choose(PROMPT, 256).threads, usize::MAX);
}

/// What so many answers in a step take, in steps with one: little or much for each more.
const EACH: [f64; 3] = [0.1, 0.35, 0.7];

impl Sim {
    /// Answers so many for so many seconds.
    fn answer(&mut self, answers: usize, each: f64, seconds: f64, hogs: usize) {
        let end = self.now + seconds;
        while self.now < end {
            self.step(Kind::Decode, answers, 1.0 + each * (answers - 1) as f64, hogs);
        }
    }

    /// As [`share`](Self::share), where each step holds `answers`.
    fn share_of(&self, from: f64, hogs: usize, answers: usize, each: f64) -> f64 {
        self.share(from, hogs) * (1.0 + each * (answers - 1) as f64)
    }
}

#[test]
fn several_answers_find_the_best_count_beside_a_load() {
    for cores in [2, 8, 64] {
        for hogs in [cores / 2, cores, 2 * cores] {
            for each in EACH {
                for answers in [2, 4, 8] {
                    // Nobody ever answered alone.
                    let mut sim = Sim::new(Machine { noise: 0.1, ..Machine::with(cores) }, true);
                    sim.answer(answers, each, 20.0, 0);
                    let what = format!("{answers} answers, {cores} cores, {hogs} hogs, {each}");
                    let quiet = sim.share_of(0.0, 0, answers, each);
                    assert!(quiet > 0.8, "{what}: {quiet} before");
                    sim.answer(answers, each, 30.0, hogs);
                    let from = sim.now;
                    sim.answer(answers, each, 60.0, hogs);
                    let share = sim.share_of(from, hogs, answers, each);
                    assert!(share > 0.85, "{what}: {share}");
                    sim.answer(answers, each, 8.0, 0);
                    let from = sim.now;
                    sim.answer(answers, each, 10.0, 0);
                    let share = sim.share_of(from, 0, answers, each);
                    assert!(share > 0.9, "{what}: {share} after");
                }
            }
        }
    }
}

#[test]
fn answers_that_begin_beside_a_load_find_the_best_count_too() {
    for cores in [2, 8] {
        for each in EACH {
            let mut sim = Sim::new(Machine::with(cores), true);
            sim.answer(4, each, 20.0, 2 * cores);
            let from = sim.now;
            sim.answer(4, each, 30.0, 2 * cores);
            let share = sim.share_of(from, 2 * cores, 4, each);
            assert!(share > 0.85, "{cores} cores, {each}: {share}");
        }
    }
}

/// While guesses are checked, hardly any step holds a single token.
#[test]
fn guesses_hide_no_load() {
    let mut sim = Sim::new(Machine { noise: 0.1, ..Machine::with(2) }, true);
    let mut work = |seconds: f64, hogs: usize| {
        let end = sim.now + seconds;
        for rows in [9, 5, 2, 9, 4].into_iter().cycle() {
            if sim.now > end {
                break;
            }
            sim.step(Kind::Decode, rows, 1.0 + 0.5 * (rows - 1) as f64, hogs);
        }
        (sim.now, sim.log.len())
    };
    work(10.0, 0);
    work(10.0, 4);
    let (from, steps) = work(0.0, 4);
    let (now, all) = work(60.0, 4);
    // A step takes 3.4 times one with a single token on average.
    let best = Machine::with(2).best(4).1 * 3.4;
    let share = (all - steps) as f64 * best / (now - from);
    assert!(share > 0.85, "{share}");
}

#[test]
fn a_new_number_of_answers_is_no_load() {
    for each in EACH {
        let mut sim = Sim::new(Machine { noise: 0.1, ..Machine::with(8) }, true);
        for answers in [1, 2, 3, 5, 8, 16, 40, 7, 1] {
            sim.answer(answers, each, 3.0, 0);
            let from = sim.now;
            sim.answer(answers, each, 3.0, 0);
            let share = sim.share_of(from, 0, answers, each);
            assert!(share > 0.9, "{answers} answers, {each}: {share}");
            assert!(sim.threads.choose(Kind::Decode, answers).poll, "{answers} answers, {each}");
        }
    }
}

/// Reads a prompt whose tokens take twice as long after `double` others, beside `answers`.
fn read(sim: &mut Sim, tokens: usize, double: f64, hogs: usize) -> Vec<usize> {
    let pieces = (0..tokens).step_by(256).map(|before| {
        let kind = Kind::Prefill { before, answers: 0 };
        sim.step(kind, 256, 20.0 * (1.0 + before as f64 / double), hogs);
        sim.log.last().unwrap().1.threads
    });
    pieces.collect()
}

#[test]
fn a_long_prompt_is_no_load() {
    for double in [600.0, 1500.0, 10_000.0] {
        for noise in [0.0, 0.1] {
            let mut sim = Sim::new(Machine { noise, ..Machine::with(8) }, true);
            for _ in 0..3 {
                let used = read(&mut sim, 16_384, double, 0);
                assert!(used.iter().all(|&threads| threads == 8), "{double}: {used:?}");
            }
        }
    }
}

#[test]
fn a_prompt_beside_a_load_leaves_it_a_core() {
    // Loaded when the model is, and from the second prompt on.
    for quiet in [false, true] {
        let machine = Machine::with(2);
        let mut sim = Sim::new(machine, true);
        if quiet {
            read(&mut sim, 2048, 2000.0, 0);
        } else {
            let loaded = [(2, machine.seconds(2, 4)), (1, machine.seconds(1, 4))];
            sim.threads = Threads::new(2, &loaded);
        }
        let used = read(&mut sim, 4096, 2000.0, 4);
        assert!(
            used[4..].iter().filter(|&&threads| threads == 2).count() <= 2,
            "{quiet}: {used:?}"
        );
        // And takes it back, once a step tells that time went by.
        sim.now += 10.0;
        let used = read(&mut sim, 2048, 2000.0, 0);
        assert!(used[1..].iter().all(|&threads| threads == 2), "{quiet}: {used:?}");
    }
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), 0.0..1.0, Just(f64::NAN), Just(-1.0), Just(1e300), Just(0.0)]
}

proptest! {
    #[test]
    fn never_none_nor_too_many(
        most in 0..100usize,
        calibration in prop::collection::vec((0..120usize, number()), 0..6),
        steps in prop::collection::vec(
            (0..40usize, any::<bool>(), any::<bool>(), number(), number()), 0..300),
    ) {
        let mut threads = Threads::new(most, &calibration);
        let mut clock = 0.0;
        for (tokens, prefill, own, seconds, now) in steps {
            let kind = if prefill { Kind::Prefill { before: tokens * 1000, answers: tokens / 3 } } else { Kind::Decode };
            let choice = threads.choose(kind, tokens);
            let used = if own { choice.threads } else { tokens };
            clock += 0.1;
            let now = if own { clock } else { now };
            threads.report(Step { tokens, kind, threads: used, seconds, now });
            for choice in [threads.choose(Kind::Decode, tokens), threads.choose(kind, tokens)] {
                prop_assert!((1..=most.max(1)).contains(&choice.threads));
            }
        }
    }
}
