//! How fast a candidate's answers were.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tieline_types::Digest;

use super::recent::Recent;
use crate::carry::Attempt;

/// Answers of fewer tokens say little of how fast they are written.
const FEW: u32 = 8;
/// Prompts of fewer fresh tokens say little of how fast they are read.
const FEW_READ: u32 = 32;

/// Answers from which on the median of the last ones is believed more than a measurement made by hand.
pub(in crate::switch) const ENOUGH: u32 = 3;

/// What the last answers took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(in crate::switch) struct Speed {
    /// What a model of this machine holds: another content is another model. `None`: it is somebody else's.
    pub(in crate::switch) digest: Option<Digest>,
    /// Tokens of a prompt that it read in a second.
    pub(in crate::switch) prefill_tps: Recent,
    /// Tokens that it wrote in a second.
    pub(in crate::switch) decode_tps: Recent,
    /// Seconds until the first token besides loading, waiting and reading.
    pub(in crate::switch) first_token_s: Recent,
    /// Seconds until it was in memory.
    pub(in crate::switch) load_s: Recent,
    /// Seconds for which an answer kept a place.
    pub(in crate::switch) whole_s: Recent,
    /// When the last answer came, in milliseconds since 1970.
    pub(in crate::switch) at_unix_ms: i64,
    /// What tells the load apart that is in memory: how long it took.
    #[serde(skip)]
    pub(super) load: Option<Duration>,
    /// Since when it is in memory, at the latest.
    #[serde(skip)]
    pub(in crate::switch) since: Option<Instant>,
    /// Since when it is not: whoever was decided on then has it loaded.
    #[serde(skip)]
    pub(super) away: Option<Instant>,
    /// It changed since it was last kept.
    #[serde(skip)]
    pub(super) changed: bool,
}

impl Speed {
    /// Learns from an answer. `prefill_tps` is what is believed of how fast prompts are read; `None`: reading is not
    /// told apart from the rest.
    pub(super) fn learn(&mut self, attempt: &Attempt, prefill_tps: Option<f64>) {
        let Some(first) = attempt.first_token else { return };
        let usage = attempt.usage;
        let fresh = usage.prompt_tokens.0.saturating_sub(usage.cached_tokens.0);
        let tokens = usage.completion_tokens.0;
        // Of a backend far away nobody knows how long it read: its time until the first token is all of it.
        let here = self.digest.is_some();
        let timing = attempt.timing.filter(|timing| here && !timing.prefill.is_zero());
        let rest = attempt.total.saturating_sub(first);
        let decode = timing.map_or(rest, |timing| timing.decode).as_secs_f64();
        if tokens >= FEW && decode > 0.0 {
            self.decode_tps.push(f64::from(tokens - 1) / decode);
        }
        let (queue, read) = match timing {
            Some(timing) => (timing.queue.as_secs_f64(), timing.prefill.as_secs_f64()),
            None => (0.0, prefill_tps.map_or(0.0, |tps| f64::from(fresh) / tps)),
        };
        if timing.is_some() && fresh >= FEW_READ {
            self.prefill_tps.push(f64::from(fresh) / read);
        }
        let first = first.as_secs_f64();
        // What had to be loaded first says nothing of the rest.
        if self.digest.is_none() || self.load.is_some() {
            self.first_token_s.push((first - queue - read).max(0.0));
            self.whole_s.push((attempt.total.as_secs_f64() - queue).max(0.0));
        }
        self.changed = true;
    }

    /// It was seen in memory, or not: a load is known by how long it took.
    pub(super) fn see(&mut self, load: Option<Duration>, now: Instant) {
        match load {
            Some(took) if self.load != load => {
                self.load_s.push(took.as_secs_f64());
                self.since = Some(self.away.take().unwrap_or(now));
                self.changed = true;
            }
            Some(_) => self.away = None,
            None => {
                self.away.get_or_insert(now);
            }
        }
        self.load = load;
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Timing, Tokens, Usage, Zone};

    use super::*;
    use crate::carry::Ended;

    /// Its clock is ours: what it calls reading is all that was before the first token.
    #[test]
    fn how_fast_a_vendor_reads_is_not_learned() {
        let attempt = Attempt {
            name: "cloud/big".to_owned(),
            seat: 0,
            zone: Zone::Cloud,
            ended: Ended::Answered,
            error: None,
            first_token: Some(Duration::from_secs(1)),
            total: Duration::from_secs(3),
            timing: Some(Timing {
                queue: Duration::ZERO,
                prefill: Duration::from_secs(1),
                decode: Duration::from_secs(2),
            }),
            usage: Usage {
                prompt_tokens: Tokens(100),
                completion_tokens: Tokens(50),
                ..Usage::default()
            },
            usage_told: true,
            accepted: true,
        };
        let mut speed = Speed::default();
        (0..3).for_each(|_| speed.learn(&attempt, Some(1000.0)));
        assert_eq!(speed.prefill_tps.median(), None);
        assert!((speed.first_token_s.median().unwrap() - 0.9).abs() < 1e-9);
    }
}
