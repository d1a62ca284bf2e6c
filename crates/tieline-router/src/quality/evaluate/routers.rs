//! The routers that are judged. Each gives every row a score, the expected gain of the strong model over the weak
//! one, learned from the other folds alone.

use super::super::estimate::STRENGTH;
use super::super::isotonic::{Isotonic, Labelled};
use super::super::linear;
use super::super::ngrams::BUCKETS;
use super::{Random, Row, Settings, Table, number};

/// Scores of all rows, by one router.
pub(super) struct Scored {
    pub(super) name: String,
    pub(super) cascade: bool,
    pub(super) scores: Vec<f64>,
}

/// A router that learns. The combined one is made of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Groups,
    Prompts,
    Confidence,
}

/// What one router has learned.
enum Learned {
    /// Gain of each group, then that of a row without one.
    Groups(Vec<f64>, f64),
    Prompts(Linear),
    /// Falls with confidence; a row without one has the mean.
    Confidence(Option<Isotonic>, f64),
}

/// All that the table's columns allow, between the random mix and the oracle.
pub(super) fn scored(table: &Table, settings: Settings, random: &mut Random) -> Vec<Scored> {
    let rows = &table.rows;
    let mut order: Vec<usize> = (0..rows.len()).collect();
    random.shuffle(&mut order);
    let mut kinds = Vec::new();
    if table.groups > 1 {
        kinds.push(Kind::Groups);
    }
    if rows.iter().any(|row| !row.features.is_empty()) {
        kinds.push(Kind::Prompts);
    }
    if rows.iter().any(|row| row.confidence.is_some()) {
        kinds.push(Kind::Confidence);
    }
    let folds = Folds {
        rows,
        groups: table.groups,
        order,
        folds: settings.folds.max(2),
        seed: settings.seed,
    };
    let mut all = vec![fixed("random mix", rows, |_| 0.0)];
    for kind in &kinds {
        if *kind == Kind::Groups {
            all.push(folds.single(*kind, Some(settings.few)));
        }
        all.push(folds.single(*kind, None));
    }
    if kinds.len() > 1 {
        all.push(folds.combined(&kinds));
    }
    all.push(fixed("oracle of each query", rows, |row| row.strong - row.weak));
    all
}

fn fixed(name: &str, rows: &[Row], of: fn(&Row) -> f64) -> Scored {
    Scored { name: name.to_owned(), cascade: false, scores: rows.iter().map(of).collect() }
}

struct Folds<'a> {
    rows: &'a [Row],
    groups: usize,
    order: Vec<usize>,
    folds: usize,
    seed: u64,
}

impl Folds<'_> {
    /// The rows to learn from and those to judge.
    fn split(&self, fold: usize) -> (Vec<usize>, Vec<usize>) {
        let numbered = self.order.iter().enumerate();
        let (judge, learn): (Vec<_>, Vec<_>) =
            numbered.partition(|(place, _)| place % self.folds == fold);
        let rows = |pairs: Vec<(usize, &usize)>| pairs.into_iter().map(|pair| *pair.1).collect();
        (rows(learn), rows(judge))
    }

    fn single(&self, kind: Kind, few: Option<usize>) -> Scored {
        let mut scores = vec![0.0; self.rows.len()];
        for fold in 0..self.folds {
            let (mut learn, judge) = self.split(fold);
            learn.truncate(few.unwrap_or(usize::MAX));
            let learned = self.learn(kind, &learn);
            judge.into_iter().for_each(|row| scores[row] = learned.gain(&self.rows[row]));
        }
        let name = match (kind, few) {
            (Kind::Groups, Some(few)) => format!("group table, {few} outcomes"),
            (Kind::Groups, None) => "group table".to_owned(),
            (Kind::Prompts, _) => "words of the prompt".to_owned(),
            (Kind::Confidence, _) => "confidence cascade".to_owned(),
        };
        Scored { name, cascade: kind == Kind::Confidence, scores }
    }

    /// Stacking (Wolpert 1992): what each is worth is learned on rows that none of them learned from.
    fn combined(&self, kinds: &[Kind]) -> Scored {
        let mut scores = vec![0.0; self.rows.len()];
        for fold in 0..self.folds {
            let (learn, judge) = self.split(fold);
            let (for_bases, for_weights) = learn.split_at(learn.len() * 2 / 3);
            let bases = |from: &[usize]| -> Vec<Learned> {
                kinds.iter().map(|kind| self.learn(*kind, from)).collect()
            };
            let inner = bases(for_bases);
            let said = |by: &[Learned], row: usize| -> Vec<f64> {
                by.iter().map(|one| one.gain(&self.rows[row])).collect()
            };
            let labelled =
                |row: &usize| (said(&inner, *row), f64::midpoint(gain(&self.rows[*row]), 1.0));
            let labelled: Vec<_> = for_weights.iter().map(labelled).collect();
            let equal = || vec![1.0; kinds.len() + 1];
            let weights = linear::logistic(&labelled, 1.0).unwrap_or_else(equal);
            let outer = bases(&learn);
            judge
                .into_iter()
                .for_each(|row| scores[row] = linear::score(&weights, &said(&outer, row)));
        }
        let cascade = kinds.contains(&Kind::Confidence);
        Scored { name: "all of these combined".to_owned(), cascade, scores }
    }

    fn learn(&self, kind: Kind, learn: &[usize]) -> Learned {
        let rows = || learn.iter().map(|row| &self.rows[*row]);
        let mean = rows().map(gain).sum::<f64>() / number(learn.len().max(1));
        match kind {
            Kind::Groups => {
                let mut sums = vec![(STRENGTH, STRENGTH * mean); self.groups];
                for (group, row) in rows().filter_map(|row| Some((row.group?, row))) {
                    sums[group].0 += 1.0;
                    sums[group].1 += gain(row);
                }
                Learned::Groups(sums.into_iter().map(|(count, sum)| sum / count).collect(), mean)
            }
            Kind::Prompts => Learned::Prompts(Linear::fit(self.rows, learn, (mean, self.seed))),
            Kind::Confidence => {
                let labelled = rows().filter_map(|row| {
                    Some(Labelled { score: row.confidence?, error: f64::midpoint(gain(row), 1.0) })
                });
                Learned::Confidence(Isotonic::fit(&labelled.collect::<Vec<_>>()), mean)
            }
        }
    }
}

fn gain(row: &Row) -> f64 {
    row.strong - row.weak
}

impl Learned {
    fn gain(&self, row: &Row) -> f64 {
        match self {
            Self::Groups(gains, mean) => {
                row.group.and_then(|group| gains.get(group)).copied().unwrap_or(*mean)
            }
            Self::Prompts(linear) => linear.value(&row.features),
            Self::Confidence(map, mean) => match (map, row.confidence) {
                (Some(map), Some(confidence)) => 2.0 * map.error(confidence) - 1.0,
                (None, _) | (_, None) => *mean,
            },
        }
    }
}

/// Passes over the rows.
const PASSES: usize = 4;
/// How far one row moves the weights.
const RATE: f64 = 0.05;
/// What is taken from a weight each time it is used, times itself.
const PENALTY: f64 = 0.02;

/// Least squares of the gain on hashed features of the prompt, by averaged stochastic gradient (Polyak and
/// Juditsky 1992).
struct Linear {
    intercept: f64,
    weights: Vec<f64>,
}

impl Linear {
    fn fit(rows: &[Row], learn: &[usize], (mean, seed): (f64, u64)) -> Self {
        let mut order = learn.to_vec();
        let mut random = Random::new(seed);
        let mut current = Self { intercept: mean, weights: vec![0.0; BUCKETS] };
        // Mean of the weights over all steps = last - (sum of step · change) / steps.
        let mut owed = vec![0.0; BUCKETS];
        let mut steps = 0.0;
        for _ in 0..PASSES {
            random.shuffle(&mut order);
            for &row in &order {
                let row = &rows[row];
                let wrong = current.value(&row.features) - gain(row);
                let scale = scale(&row.features);
                for &feature in &row.features {
                    let weight = &mut current.weights[usize::from(feature)];
                    let change = RATE * (wrong * scale + PENALTY * *weight);
                    *weight -= change;
                    owed[usize::from(feature)] -= steps * change;
                }
                steps += 1.0;
            }
        }
        let steps = f64::max(steps, 1.0);
        current.weights.iter_mut().zip(owed).for_each(|(weight, owed)| *weight -= owed / steps);
        current
    }

    fn value(&self, features: &[u16]) -> f64 {
        let sum: f64 = features.iter().map(|feature| self.weights[usize::from(*feature)]).sum();
        self.intercept + sum * scale(features)
    }
}

/// Makes a long prompt weigh as much as a short one.
fn scale(features: &[u16]) -> f64 {
    1.0 / number(features.len().max(1)).sqrt()
}
