//! Steps whose times can be compared, and the search of each class of them.

use std::collections::BTreeMap;

use super::Step;
use super::tuner::Tuner;

/// What each further token of a step that decodes adds, in steps of one token: measured, between 0.15 and 0.7.
/// A guess that serves until a class has steps of its own.
const EACH: f64 = 0.35;
/// A prompt's token looks at what is before it, and takes part in all else: so many tokens before it do not
/// double its time.
const LITTLE: f64 = 512.0;
/// A step of a prompt that took more times what was known teaches nothing of the quiet machine.
const LEARNED: f64 = 1.5;
/// Weight of the newest step in what is known of a class.
const NEW: f64 = 0.1;

/// Names steps that are compared: how many tokens, how deep, beside how many answers. Zeros where that does not
/// matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class {
    size: u8,
    depth: u8,
    answers: u8,
}

/// 1, 2, 3 to 4, 5 to 8, and so on.
pub(super) fn decode(tokens: usize) -> Class {
    Class { size: octave(tokens.saturating_sub(1).saturating_mul(2)), depth: 0, answers: 0 }
}

/// Octaves of tokens, halves of octaves of depth.
pub(super) fn prefill(tokens: usize, before: usize, answers: usize) -> Class {
    let answers = if answers == 0 { 0 } else { 1 + decode(answers).size };
    Class { size: octave(tokens), depth: half_octaves(before), answers }
}

/// The whole part of the binary logarithm; none of zero is taken as none of one.
fn octave(number: usize) -> u8 {
    u8::try_from(number.max(1).ilog2()).unwrap_or(u8::MAX)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 120")]
fn half_octaves(before: usize) -> u8 {
    (2.0 * depth(before).log2()).clamp(0.0, 120.0) as u8
}

/// At least as many times as this is one of so many tokens deep slower than the first.
fn depth(before: usize) -> f64 {
    1.0 + before as f64 / LITTLE
}

/// About how many times longer than one token a step of so many takes that decodes: what brings the steps of a
/// class together, and is a guess between classes.
pub(super) fn weight(tokens: usize) -> f64 {
    1.0 + EACH * tokens.saturating_sub(1) as f64
}

/// Seconds a token, brought to the middle between what a class's fewest and most, first and last tokens take.
pub(super) fn token_seconds(tokens: usize, before: usize, seconds: f64) -> f64 {
    let size = tokens as f64 / f64::powi(2.0, i32::from(octave(tokens)));
    let deep = depth(before) / f64::powf(2.0, f64::from(half_octaves(before)) / 2.0);
    seconds / tokens.max(1) as f64 * (size / deep).sqrt()
}

/// A search for each class that was seen.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    searches: BTreeMap<Class, Tuner>,
    /// What a new class begins as.
    blank: Tuner,
    /// Whether the machine is loaded, the threads to be used, and since when: as the last class found that noticed
    /// a change.
    found: (bool, usize, f64),
}

impl Classes {
    pub(super) fn new(blank: Tuner) -> Self {
        let found = (blank.loaded(), blank.settled(), 0.0);
        Self { searches: BTreeMap::new(), blank, found }
    }

    pub(super) fn holding(mut self, class: Class, search: Tuner) -> Self {
        self.searches.insert(class, search);
        self
    }

    pub(super) fn loaded(&self) -> bool {
        self.found.0
    }

    pub(super) fn settled(&self) -> usize {
        self.found.1
    }

    /// The search of a class. A new one starts where the others are.
    pub(super) fn get(&mut self, class: Class) -> &mut Tuner {
        if !self.searches.contains_key(&class) {
            let mut new = self.blank.clone().guessing(self.nearest(class));
            if let (true, threads, since) = self.found {
                new.follow(true, threads, since);
            }
            self.searches.insert(class, new);
        }
        self.searches.entry(class).or_insert_with(|| self.blank.clone())
    }

    /// Tells a class what a step took. What changed by it: whether a load is seen, and how many threads.
    pub(super) fn report(
        &mut self,
        class: Class,
        step: Step,
        time: f64,
        now: f64,
    ) -> Option<(bool, usize)> {
        let search = self.get(class);
        let before = (search.loaded(), search.settled());
        search.report(step.threads, time, step.seconds, now);
        let after = (search.loaded(), search.settled());
        let next = search.next_probe();
        if after.0 {
            // What a try costs is a share of the time of all.
            self.searches.values_mut().for_each(|other| other.put_off_until(next));
        }
        if before == after {
            return None;
        }
        self.follow(class, after.0, after.1, now);
        Some(after)
    }

    /// All but `finder` start from what it found.
    fn follow(&mut self, finder: Class, loaded: bool, threads: usize, now: f64) {
        self.found = (loaded, threads, now);
        let others = self.searches.iter_mut().filter(|(class, _)| **class != finder);
        others.for_each(|(_, other)| other.follow(loaded, threads, now));
    }

    pub(super) fn forget_recent(&mut self, now: f64) {
        self.searches.values_mut().for_each(|search| search.forget_recent(now));
    }

    /// What steps of a class take on a quiet machine, as far as is known.
    pub(super) fn quiet(&self, class: Class) -> Option<f64> {
        self.searches.get(&class).filter(|search| search.knows())?.quiet()
    }

    /// The class nearest in size of which something is known.
    fn nearest(&self, class: Class) -> Option<&Tuner> {
        let near = |(other, _): &(&Class, &Tuner)| other.size.abs_diff(class.size);
        let known = self.searches.iter().filter(|(_, search)| search.knows());
        known.min_by_key(near).map(|(_, search)| search)
    }

    /// The least that a token takes of the steps that decode, on a quiet machine: a prompt's takes less.
    pub(super) fn quiet_token(&self) -> Option<f64> {
        let token = |(class, search): (&Class, &Tuner)| {
            let fewest = if class.size == 0 { 1 } else { (1 << (class.size - 1).min(20)) + 1 };
            Some(search.quiet()? * weight(fewest) / fewest as f64)
        };
        self.searches.iter().filter(|(_, search)| search.knows()).filter_map(token).reduce(f64::min)
    }
}

/// The search for prompts: they have too few steps for one of each class, so times are brought to what the class
/// takes on a quiet machine.
#[derive(Clone, Debug)]
pub(super) struct Prompts {
    pub(super) search: Tuner,
    /// Seconds of a token, where no load was seen.
    quiet: BTreeMap<Class, f64>,
}

impl Prompts {
    pub(super) fn new(search: Tuner) -> Self {
        Self { search, quiet: BTreeMap::new() }
    }

    /// Takes note of a step. `most`: no prompt's token takes longer on a quiet machine.
    pub(super) fn report(&mut self, class: Class, step: Step, time: f64, most: Option<f64>) {
        let known = self.quiet.get(&class).copied();
        let is_calm = self.search.is_calm();
        let (least, highest) = self.bounds(class).unzip();
        let middle = || Some((least? * highest?).sqrt());
        let times = match (known, is_calm) {
            (Some(quiet), _) => time / quiet,
            // The first of its class: slow only past all doubt.
            (None, true) => most
                .into_iter()
                .chain(highest)
                .reduce(f64::min)
                .map_or(1.0, |most| (time / most).max(1.0)),
            (None, false) => match middle() {
                Some(middle) => time / middle,
                None => return,
            },
        };
        let goal = step.threads == self.search.settled();
        self.search.report(step.threads, times, step.seconds, step.now);
        match (is_calm, self.search.is_calm()) {
            (true, true) if goal && times < LEARNED => {
                self.quiet.insert(class, known.map_or(time, |quiet| quiet + (time - quiet) * NEW));
            }
            // It was no load, or it is over.
            (false, true) => self.quiet.clear(),
            _ => {}
        }
    }

    /// The least and the most that a token of this class should take on a quiet machine: it takes at most twice as long in half
    /// as large a piece, or twice as deep.
    fn bounds(&self, class: Class) -> Option<(f64, f64)> {
        let known = self.quiet.iter().filter(|(other, _)| other.answers >= class.answers);
        let bounds = known.map(|(other, quiet)| {
            let smaller = f64::from(other.size.saturating_sub(class.size));
            let deeper = f64::from(class.depth.saturating_sub(other.depth)) / 2.0;
            (*quiet, *quiet * f64::powf(2.0, smaller + deeper))
        });
        bounds.min_by(|one, other| one.1.total_cmp(&other.1))
    }
}
