//! What a cascade comes to: its first model, and as often as that is not kept, another one after it.
//!
//! How often is known only from answers that were judged. Where this very request was, its outcome is that; else it is
//! the share of the model's answers in the same span that would not be kept at the decision's limit.

use std::collections::{HashMap, VecDeque};

use tieline_types::{MicroUsd, Source};

use super::kept::{Attempt, Kept};
use crate::choose::{Cascade, Decision, Score};
use crate::policy::Policy;
use crate::quality::estimate::beta_quantile;

/// Answers of one model that are remembered: the newest.
const MOST: usize = 2000;
/// How long an answer is held back at most after its first token, in seconds.
const HELD_S: f64 = 2.0;

/// Answers that were judged, by their models.
#[derive(Debug, Default)]
pub(super) struct Judgements {
    by_model: HashMap<String, VecDeque<Was>>,
    shares: HashMap<(usize, usize), Share>,
}

/// How an answer was judged.
#[derive(Clone, Copy, Debug)]
struct Was {
    /// The probability that it is wrong, where the model was calibrated.
    error: Option<f64>,
    /// Whether the confidence let it pass.
    sure: bool,
    /// Whether the alias's program did; `None`: it was not asked.
    passed: Option<bool>,
}

/// A share, and the ends of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) low: f64,
    pub(super) mean: f64,
    pub(super) high: f64,
    /// Answers that it rests on; 0: nobody knows.
    pub(super) judged: usize,
}

/// A decision's cascade, and how often it is escalated.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course<'d> {
    pub(super) first: &'d Score,
    pub(super) other: &'d Score,
    pub(super) share: Share,
    /// Whether all of the first answer is held back.
    whole: bool,
}

/// What is forecast of a request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Forecast {
    /// US dollars; `None`: nobody knows.
    pub(super) cost: Option<f64>,
    pub(super) first_token_s: f64,
    pub(super) total_s: f64,
    pub(super) quality: f64,
    pub(super) utility: f64,
    pub(super) times: Source,
    pub(super) qualities: Source,
}

impl Was {
    fn of(attempt: &Attempt) -> Option<Self> {
        let judged = attempt.judged.as_ref()?;
        let passed = judged.check.as_ref().map(|found| found == "passed");
        // A program is asked only what the confidence lets pass.
        Some(Self { error: judged.error, sure: judged.kept || passed.is_some(), passed })
    }

    /// What a program would find that was not asked is not known: it is taken to say yes.
    fn is_kept(self, most_error: f64, checked: bool) -> bool {
        let sure = self.error.map_or(self.sure, |error| error <= most_error);
        sure && (!checked || self.passed.unwrap_or(true))
    }
}

impl Share {
    const fn known(escalated: bool) -> Self {
        let share = if escalated { 1.0 } else { 0.0 };
        Self { low: share, mean: share, high: share, judged: 1 }
    }

    /// By Jeffreys: Beta(k + ½, n − k + ½).
    fn of(count: usize, all: usize) -> Self {
        if all == 0 {
            return Self { low: 0.0, mean: 0.5, high: 1.0, judged: 0 };
        }
        let (count, others) = (count as f64 + 0.5, (all - count) as f64 + 0.5);
        Self {
            low: beta_quantile(count, others, 0.025),
            mean: count / (count + others),
            high: beta_quantile(count, others, 0.975),
            judged: all,
        }
    }
}

impl Judgements {
    /// Remembers how answers to this request were judged. They must come in the order of their times.
    pub(super) fn hear(&mut self, kept: &Kept) {
        for attempt in &kept.end.tried {
            let Some(was) = Was::of(attempt) else { continue };
            let all = self.by_model.entry(attempt.name.clone()).or_default();
            if all.len() == MOST {
                all.pop_front();
            }
            all.push_back(was);
        }
    }

    /// What a decision's cascade comes to. `None`: it has none, or nobody else to ask. `policy`: where it is not the one
    /// that was in force, what is to be known of its programs.
    pub(super) fn course<'d>(
        &mut self,
        (kept, decision): (&Kept, &'d Decision),
        policy: Option<&Policy>,
    ) -> Option<Course<'d>> {
        let cascade = decision.cascade.as_ref()?;
        let is_first = |name: &str| name == cascade.first;
        decision.tries.iter().find(|one| is_first(&one.name))?;
        let other = decision.tries.iter().find(|one| !is_first(&one.name))?;
        let score = |name: &str| decision.scores.iter().find(|score| score.name == name);
        let mut tried = kept.end.tried.iter().filter(|one| is_first(&one.name));
        let own = tried.find_map(Was::of);
        let checked = match policy {
            Some(policy) => {
                policy.aliases.get(&decision.asked).is_some_and(|alias| alias.check.is_some())
            }
            None => own.is_some_and(|own| own.passed.is_some()),
        };
        let share = match own {
            Some(own) => Share::known(!own.is_kept(cascade.most_error, checked)),
            None => self.share(cascade, checked),
        };
        let (first, other) = (score(&cascade.first)?, score(&other.name)?);
        Some(Course { first, other, share, whole: checked })
    }

    fn share(&mut self, cascade: &Cascade, checked: bool) -> Share {
        let all = self.by_model.get(&cascade.first);
        let known = all.into_iter().flatten();
        let escalated = known.filter(|was| !was.is_kept(cascade.most_error, checked)).count();
        let counts = (escalated, all.map_or(0, VecDeque::len));
        *self.shares.entry(counts).or_insert_with(|| Share::of(counts.0, counts.1))
    }
}

impl Course<'_> {
    /// The forecast where this share is escalated.
    pub(super) fn forecast(&self, share: f64) -> Forecast {
        let (first, other) = (Forecast::from(self.first), Forecast::from(self.other));
        let held_s = self.held_s();
        let mix = |kept: f64, escalated: f64| kept + share * (escalated - kept);
        let cost = match (first.cost, other.cost) {
            (Some(first), Some(other)) => Some(first + share * other),
            (first, None) if share == 0.0 => first,
            (None, _) | (_, None) => None,
        };
        Forecast {
            cost,
            first_token_s: mix(held_s, held_s + other.first_token_s),
            total_s: mix(first.total_s, held_s + other.total_s),
            quality: mix(first.quality, other.quality),
            utility: mix(first.utility, other.utility),
            times: first.times.max(other.times),
            qualities: first.qualities.max(other.qualities),
        }
    }

    /// What asking the other one costs in the mean; nothing where nobody knows.
    pub(super) fn escalation(&self) -> MicroUsd {
        let cost = self.other.forecast.cost_p50.unwrap_or_default();
        #[expect(clippy::cast_possible_truncation, reason = "no more than the cost itself")]
        let micros = (cost.0 as f64 * self.share.mean).round() as i64;
        MicroUsd(micros)
    }

    /// Seconds until it is judged.
    fn held_s(&self) -> f64 {
        let forecast = &self.first.forecast;
        match self.whole {
            true => forecast.total_s,
            false => forecast.total_s.min(forecast.first_token_s + HELD_S),
        }
    }
}

impl From<&Score> for Forecast {
    fn from(score: &Score) -> Self {
        Self {
            cost: score.forecast.cost_p50.map(|cost| cost.0 as f64 / 1e6),
            first_token_s: score.forecast.first_token_s,
            total_s: score.forecast.total_s,
            quality: score.quality,
            utility: score.utility,
            times: score.forecast.times,
            qualities: score.quality_source,
        }
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::Tokens;

    use super::*;

    #[test]
    fn a_share_has_the_ends_of_jeffreys() {
        let near = |was: f64, want: f64| assert!((was - want).abs() < 1e-3, "{was} is not {want}");
        let share = Share::of(3, 10);
        near(share.low, 0.0927);
        near(share.mean, 3.5 / 11.0);
        near(share.high, 0.6058);
        near(Share::of(0, 10).high, 0.2172);
    }

    #[test]
    fn what_is_held_back_whole_is_judged_at_its_end() {
        let forecast = crate::choose::Forecast {
            tokens_p50: Tokens(1),
            tokens_p90: Tokens(1),
            cost_p50: None,
            cost_p90: None,
            first_token_s: 1.0,
            total_s: 9.0,
            joules: None,
            here_usd: None,
            here_usd_source: None,
            times: Source::Measured,
            queue_s: 0.0,
            cached_tokens: Tokens(0),
        };
        let score = Score {
            name: "here".to_owned(),
            utility: 0.0,
            quality: 0.0,
            quality_source: Source::Measured,
            cost: 0.0,
            miss: 0.0,
            deadline: 0.0,
            wait: 0.0,
            switch: 0.0,
            energy: 0.0,
            forecast,
        };
        let first_token_s = |whole| {
            let share = Share::known(false);
            Course { first: &score, other: &score, share, whole }.forecast(0.0).first_token_s
        };
        assert_eq!([first_token_s(true), first_token_s(false)], [9.0, 1.0 + HELD_S]);
    }
}
