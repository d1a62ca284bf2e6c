//! Counts what is decided again.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use tieline_privacy::Treatment;
use tieline_types::{Source, Zone};

use super::again::{Again, Anew, leader};
use super::blocks::{Blocks, Metric, Resamples};
use super::cascades::{Course, Forecast};
use super::kept::{Kept, Made, Unreadable};
use super::report::{Change, Difference, Escalations, Ids, Pair, Report, Same, Sources, Strategy};
use crate::choose::{Decision, Score, Try};
use crate::quality::confidence::Interval;

/// Ways to choose, and what they are called.
const STRATEGIES: [&str; 6] =
    ["as it was", "as it was", "this policy", "all here", "all away", "one for all"];
/// What happened.
const WAS: usize = 0;
/// What was forecast of what was decided.
const FORECAST: usize = 1;
/// What is forecast of what is decided now.
const NEW: usize = 2;
/// The best model of this machine.
const HERE: usize = 3;
/// The best of the others.
const AWAY: usize = 4;
/// What was forecast, of the requests that are answered both times.
const BOTH_FORECAST: usize = 5;
/// What is forecast now, of the same.
const BOTH_NEW: usize = 6;
/// Series of which cascades are part: each has two more, where these are escalated as seldom and as often as may be.
const ENDS: [usize; 4] = [FORECAST, NEW, BOTH_FORECAST, BOTH_NEW];
/// Each alone, from here on, by its number.
const ALONE: usize = 7 + 2 * ENDS.len();

/// What a refusal is called among names.
const REFUSED: &str = "refused";

/// Decides again, and counts.
#[derive(Debug)]
pub struct Replay {
    again: Again,
    report: Report,
    moves: HashMap<(String, String), u64>,
    classes: HashMap<(String, String), u64>,
    zones: HashMap<(String, String), u64>,
    treatments: HashMap<(String, String), u64>,
    blocks: Blocks,
    about: Vec<About>,
    /// The number of each candidate's series.
    names: BTreeMap<String, usize>,
}

/// What is known of a series besides its sums.
#[derive(Clone, Copy, Debug, Default)]
struct About {
    answered: u64,
    unpriced: u64,
    times: Sources,
    qualities: Sources,
    costs: Sources,
}

impl Replay {
    /// Decides by this.
    pub fn new(again: Again) -> Self {
        let nothing = Difference {
            unpriced: 0,
            cost_usd: None,
            first_token_s: None,
            total_s: None,
            quality: None,
        };
        let report = Report {
            policy: again.digest(),
            policies: BTreeMap::new(),
            requests: 0,
            by_name: 0,
            unreadable: 0,
            newer: 0,
            changed: 0,
            moves: Vec::new(),
            refused: Change::default(),
            cascades: Change::default(),
            escalations: Escalations::default(),
            leave: Ids::default(),
            might_leave: Ids::default(),
            farther: Ids::default(),
            bare: Ids::default(),
            stay: Ids::default(),
            classes: Vec::new(),
            zones: Vec::new(),
            treatments: Vec::new(),
            strategies: Vec::new(),
            difference: nothing,
        };
        Self {
            again,
            report,
            moves: HashMap::new(),
            classes: HashMap::new(),
            zones: HashMap::new(),
            treatments: HashMap::new(),
            blocks: Blocks::default(),
            about: vec![About::default(); ALONE],
            names: BTreeMap::new(),
        }
    }

    /// Hears how the answers to a request were judged. All must be heard before the first is decided again.
    pub fn hear(&mut self, kept: &Kept) {
        self.again.hear(kept);
    }

    /// Decides one again. They must come in the order of their times.
    pub fn add(&mut self, kept: &Kept) {
        let Some(made) = &kept.made else {
            self.report.by_name += 1;
            return;
        };
        self.report.requests += 1;
        *self.report.policies.entry(made.decision.policy.to_string()).or_default() += 1;
        let anew = self.again.decide(kept, made);
        self.compare(&kept.id, &made.decision, &anew.decision);
        self.blocks.next();
        self.measured(kept);
        self.forecast(kept, made, &anew);
    }

    /// Counts one that cannot be read; `None`: the store itself could not.
    pub fn unreadable(&mut self, why: Option<&Unreadable>) {
        match why {
            Some(Unreadable::Newer(_)) => self.report.newer += 1,
            Some(Unreadable::Broken(_) | Unreadable::Incomplete) | None => {
                self.report.unreadable += 1;
            }
        }
    }

    /// Counts what changed.
    pub(super) fn compare(&mut self, id: &str, was: &Decision, new: &Decision) {
        let (before, after) = (told(was), told(new));
        self.report.refused.before += u64::from(was.tries.is_empty());
        self.report.refused.after += u64::from(new.tries.is_empty());
        self.report.cascades.before += u64::from(was.cascade.is_some());
        self.report.cascades.after += u64::from(new.cascade.is_some());
        if before != after {
            self.report.changed += 1;
            count(&mut self.moves, (before, after));
        }
        if was.class != new.class {
            count(&mut self.classes, (was.class.to_string(), new.class.to_string()));
        }
        let (from, to) = (leader(was), leader(new));
        let told = |one: Option<&Try>| one.map_or(REFUSED.to_owned(), |one| one.zone.to_string());
        if from.map(|one| one.zone) != to.map(|one| one.zone) {
            count(&mut self.zones, (told(from), told(to)));
        }
        if let (Some(from), Some(to)) = (from, to)
            && from.treatment != to.treatment
        {
            let told = (from.treatment.as_str().to_owned(), to.treatment.as_str().to_owned());
            count(&mut self.treatments, told);
        }
        self.leave(id, (was, new));
    }

    /// Notes what goes, or may go, where it did not.
    fn leave(&mut self, id: &str, (was, new): (&Decision, &Decision)) {
        let away = |decision| leader(decision).is_some_and(|one| one.zone > Zone::Host);
        let (before, after) = (Reach::of(was), Reach::of(new));
        let might = |reach: Reach| reach.farthest > Zone::Host;
        let report = &mut self.report;
        match (away(was), away(new)) {
            (false, true) => report.leave.add(id),
            (false, false) if might(after) && !might(before) => report.might_leave.add(id),
            (true, false) if !might(after) => report.stay.add(id),
            (true, _) | (false, false) => {}
        }
        if might(before) && after.is_farther(before, (was, new)) {
            report.farther.add(id);
        }
        if might(before) && after.is_barer(before, (was, new)) {
            report.bare.add(id);
        }
    }

    fn measured(&mut self, kept: &Kept) {
        let (end, about) = (&kept.end, &mut self.about[WAS]);
        let mut put = |metric, value| self.blocks.put(WAS, metric, value);
        let costs: Option<i64> = end.tried.iter().map(|one| one.cost_micro_usd).sum();
        match costs {
            Some(cost) => put(Metric::Cost, dollars(cost)),
            None => about.unpriced += 1,
        }
        if let Some(worst) = end.tried.iter().map(|one| one.source).max() {
            about.costs.add(worst);
        }
        if end.outcome != "answered" {
            return;
        }
        about.answered += 1;
        about.times.add(Source::Measured);
        let seconds = |micros: u64| std::time::Duration::from_micros(micros).as_secs_f64();
        put(Metric::Total, seconds(end.total_us));
        if let Some(first) = end.first_token_us {
            put(Metric::FirstToken, seconds(first));
        }
    }

    fn forecast(&mut self, kept: &Kept, made: &Made, anew: &Anew) {
        let was = self.again.course((kept, &made.decision), true);
        let was = forecasts(&made.decision, was.as_ref());
        let new = self.again.course((kept, &anew.decision), false);
        if let Some(course) = &new {
            self.report.escalations.add(course.share);
        }
        let new = forecasts(&anew.decision, new.as_ref());
        self.put_all(FORECAST, was);
        self.put_all(NEW, new);
        if let (Some(was), Some(new)) = (was, new) {
            let (was, new) = self.alike(was, new);
            self.put_all(BOTH_FORECAST, Some(was));
            self.put_all(BOTH_NEW, Some(new));
        }
        let is_local =
            |score: &&Score| anew.candidates.iter().any(|one| one.name == score.name && one.local);
        let scores = &anew.anybody.scores;
        self.put(HERE, scores.iter().find(is_local).map(Forecast::from));
        let away = scores.iter().find(|score| !is_local(score));
        self.put(AWAY, away.map(Forecast::from));
        for score in scores {
            let next = ALONE + self.names.len();
            let series = *self.names.entry(score.name.clone()).or_insert(next);
            if self.about.len() <= series {
                self.about.resize(series + 1, About::default());
            }
            self.put(series, Some(Forecast::from(score)));
        }
    }

    /// Of a request's two forecasts, the costs where both are known: a difference of sums needs the same requests.
    fn alike(
        &mut self,
        mut was: [Forecast; 3],
        mut new: [Forecast; 3],
    ) -> ([Forecast; 3], [Forecast; 3]) {
        if was.iter().chain(&new).any(|one| one.cost.is_none()) {
            self.report.difference.unpriced += 1;
            was.iter_mut().chain(&mut new).for_each(|one| one.cost = None);
        }
        (was, new)
    }

    /// A series with its ends.
    fn put_all(&mut self, series: usize, forecasts: Option<[Forecast; 3]>) {
        let Some(forecasts) = forecasts else { return };
        for (series, forecast) in with_ends(series).into_iter().zip(forecasts) {
            self.put(series, Some(forecast));
        }
    }

    fn put(&mut self, series: usize, forecast: Option<Forecast>) {
        let Some(forecast) = forecast else { return };
        let about = &mut self.about[series];
        about.answered += 1;
        about.times.add(forecast.times);
        about.qualities.add(forecast.qualities);
        match forecast.cost {
            Some(cost) => self.blocks.put(series, Metric::Cost, cost),
            None => about.unpriced += 1,
        }
        let figures = [
            (Metric::FirstToken, forecast.first_token_s),
            (Metric::Total, forecast.total_s),
            (Metric::Quality, forecast.quality),
            (Metric::Utility, forecast.utility),
        ];
        figures.into_iter().for_each(|(metric, value)| self.blocks.put(series, metric, value));
    }

    /// What comes of it. The seed decides the resamples.
    pub fn report(self, seed: u64) -> Report {
        let resamples = self.blocks.resampled(seed);
        // In hindsight: whoever answers the most, and of those the best in the mean.
        let alone = |(_, series): &(&String, &usize)| {
            let utility = resamples.mean_of(**series, Metric::Utility).unwrap_or(f64::NEG_INFINITY);
            (resamples.count(**series, Metric::Utility), utility)
        };
        let order = |one: &(f64, f64), other: &(f64, f64)| {
            one.0.total_cmp(&other.0).then(one.1.total_cmp(&other.1))
        };
        let best = self.names.iter().max_by(|one, other| order(&alone(one), &alone(other)));
        let mut series: Vec<(usize, Option<&String>)> =
            (0..BOTH_FORECAST).map(|at| (at, None)).collect();
        series.extend(best.map(|(name, at)| (*at, Some(name))));
        let strategies = series.into_iter().map(|(at, who)| {
            let about = self.about[at];
            Strategy {
                strategy: STRATEGIES[at.min(STRATEGIES.len() - 1)],
                who: who.cloned(),
                measured: at == WAS,
                answered: about.answered,
                unpriced: about.unpriced,
                cost_usd: widest(at, |at| resamples.total(at, Metric::Cost)),
                first_token_s: widest(at, |at| resamples.mean(at, Metric::FirstToken)),
                total_s: widest(at, |at| resamples.mean(at, Metric::Total)),
                quality: widest(at, |at| resamples.mean(at, Metric::Quality)),
                times: about.times,
                qualities: about.qualities,
                costs: about.costs,
            }
        });
        Report {
            moves: pairs(self.moves),
            classes: pairs(self.classes),
            zones: pairs(self.zones),
            treatments: pairs(self.treatments),
            strategies: strategies.collect(),
            difference: difference(&resamples, self.report.difference.unpriced),
            ..self.report
        }
    }
}

impl Same {
    /// Makes a decision again.
    pub fn add(&mut self, again: &Again, kept: &Kept) {
        let Some(made) = &kept.made else {
            self.by_name += 1;
            return;
        };
        match again.same(made) {
            None => self.of_others += 1,
            Some(true) => self.same += 1,
            Some(false) => {
                self.different.add(&kept.id);
                *self.programs.entry(kept.program.clone()).or_default() += 1;
            }
        }
    }

    /// Counts one that cannot be read; `None`: the store itself could not.
    pub fn unreadable(&mut self, why: Option<&Unreadable>) {
        match why {
            Some(Unreadable::Newer(_)) => self.newer += 1,
            Some(Unreadable::Broken(_) | Unreadable::Incomplete) | None => self.unreadable += 1,
        }
    }
}

fn difference(resamples: &Resamples, unpriced: u64) -> Difference {
    // Both are escalated seldom, or both are often: it is the same models that are not known well.
    let of = |difference: &dyn Fn((usize, usize)) -> Option<Interval>| {
        let pairs = with_ends(BOTH_NEW).into_iter().zip(with_ends(BOTH_FORECAST));
        span(pairs.map(difference))
    };
    Difference {
        unpriced,
        cost_usd: of(&|both| resamples.more(both, Metric::Cost)),
        first_token_s: of(&|both| resamples.higher(both, Metric::FirstToken)),
        total_s: of(&|both| resamples.higher(both, Metric::Total)),
        quality: of(&|both| resamples.higher(both, Metric::Quality)),
    }
}

/// A series, and where it has cascades, those of its ends.
fn with_ends(series: usize) -> Vec<usize> {
    let place = ENDS.iter().position(|with| *with == series);
    let ends = place.map(|place| ALONE - 2 * ENDS.len() + 2 * place);
    [series].into_iter().chain(ends.into_iter().flat_map(|low| [low, low + 1])).collect()
}

/// The interval of a series that holds those of its ends.
fn widest(series: usize, of: impl Fn(usize) -> Option<Interval>) -> Option<Interval> {
    span(with_ends(series).into_iter().map(of))
}

/// The first one's value, and all that any of them holds.
fn span(intervals: impl Iterator<Item = Option<Interval>>) -> Option<Interval> {
    let wider = |all: Interval, one: Interval| Interval {
        low: all.low.min(one.low),
        high: all.high.max(one.high),
        ..all
    };
    intervals.flatten().reduce(wider)
}

/// What is forecast of a decision: as it looks, and where its cascade is escalated as seldom and as often as may be.
fn forecasts(decision: &Decision, course: Option<&Course<'_>>) -> Option<[Forecast; 3]> {
    match course {
        Some(course) => {
            let share = course.share;
            Some([share.mean, share.low, share.high].map(|share| course.forecast(share)))
        }
        None => first_score(decision).map(|score| [Forecast::from(score); 3]),
    }
}

/// Who answers, in words.
fn told(decision: &Decision) -> String {
    let Some(first) = leader(decision) else { return REFUSED.to_owned() };
    match &decision.cascade {
        Some(cascade) if cascade.first == first.name => {
            format!("{}, then {}", first.name, cascade.escalate_to)
        }
        Some(_) | None => first.name.clone(),
    }
}

/// How far a request may go, by all who are tried. What goes nowhere is at this machine.
#[derive(Clone, Copy, Debug)]
struct Reach {
    farthest: Zone,
    /// The same of those who get it as it is.
    bare: Zone,
    /// Whether somebody outside gets it redacted.
    redacts: bool,
}

impl Reach {
    fn of(decision: &Decision) -> Self {
        let zones = |with: &dyn Fn(&Try) -> bool| {
            decision.tries.iter().filter(|one| with(one)).map(|one| one.zone).max()
        };
        let is_away = |one: &&Try| one.zone > Zone::Host;
        let mut away = decision.tries.iter().filter(is_away);
        Self {
            farthest: zones(&|_| true).unwrap_or(Zone::Host),
            bare: zones(&|one| one.treatment == Treatment::AsIs).unwrap_or(Zone::Host),
            redacts: away.any(|one| one.treatment == Treatment::Redacted),
        }
    }

    /// Whether anybody is farther, or whoever is asked first outside.
    fn is_farther(self, before: Self, (was, new): (&Decision, &Decision)) -> bool {
        let first = first_away(was).zip(first_away(new));
        self.farthest > before.farthest || first.is_some_and(|(was, new)| new.zone > was.zone)
    }

    /// Whether it goes as it is where it did not, and something of it was redacted.
    fn is_barer(self, before: Self, (was, new): (&Decision, &Decision)) -> bool {
        let first = first_away(was).zip(first_away(new));
        let first = first.is_some_and(|(was, new)| {
            (was.treatment, new.treatment) == (Treatment::Redacted, Treatment::AsIs)
        });
        first || (before.redacts && self.bare > before.bare)
    }
}

/// Whoever is asked first, where that is not on this machine.
fn first_away(decision: &Decision) -> Option<&Try> {
    leader(decision).filter(|one| one.zone > Zone::Host)
}

/// How good whoever is asked first looks.
fn first_score(decision: &Decision) -> Option<&Score> {
    let first = leader(decision)?;
    decision.scores.iter().find(|score| score.name == first.name)
}

fn dollars(micros: i64) -> f64 {
    micros as f64 / 1e6
}

fn count<K: Eq + Hash>(counts: &mut HashMap<K, u64>, key: K) {
    *counts.entry(key).or_default() += 1;
}

/// The most first; of equals by name.
fn pairs(counts: HashMap<(String, String), u64>) -> Vec<Pair> {
    let pair = |((from, to), count)| Pair { from, to, count };
    let mut pairs: Vec<Pair> = counts.into_iter().map(pair).collect();
    pairs.sort_by(|one, other| {
        other
            .count
            .cmp(&one.count)
            .then_with(|| (&one.from, &one.to).cmp(&(&other.from, &other.to)))
    });
    pairs
}
