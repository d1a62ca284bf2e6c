//! Remembers which requests were at work when runners died. Pure: the time is an argument.
//!
//! A request is known by a hash whose key is drawn anew in each process, so what is kept tells nothing of
//! its text.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

use tieline_types::wire::{self, Work};

/// A request at work at so many deaths, at the last of them alone, is not tried again.
const MOST: u32 = 2;
/// Nor one at work at so many.
const MOST_AMONG_OTHERS: u32 = 3;
/// Requests that are remembered.
const REMEMBERED: usize = 256;
/// For so long.
const MEMORY: Duration = Duration::from_secs(600);

/// A request, as far as it is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Trace(u64);

#[derive(Debug, Default)]
pub(super) struct Blame {
    hasher: RandomState,
    suspects: VecDeque<Suspect>,
}

#[derive(Debug)]
struct Suspect {
    trace: Trace,
    deaths: u32,
    /// Nothing else can have been the cause of the last.
    alone: bool,
    last: Duration,
}

impl Blame {
    pub(super) fn trace(&self, work: &Work) -> Trace {
        // Work that cannot be encoded is never sent, so it kills nobody.
        Trace(self.hasher.hash_one(wire::encode(work).unwrap_or_default()))
    }

    /// These were at work when a runner died: one of them, most likely, was the cause.
    pub(super) fn died(&mut self, traces: &[Trace], now: Duration) {
        self.forget(now);
        let alone = traces.len() == 1;
        for &trace in traces {
            if let Some(suspect) = self.suspects.iter_mut().find(|suspect| suspect.trace == trace) {
                *suspect = Suspect { deaths: suspect.deaths + 1, alone, last: now, ..*suspect };
                continue;
            }
            if self.suspects.len() == REMEMBERED {
                self.suspects.pop_front();
            }
            self.suspects.push_back(Suspect { trace, deaths: 1, alone, last: now });
        }
    }

    /// It was answered to its end: it kills nobody.
    pub(super) fn cleared(&mut self, trace: Trace) {
        self.suspects.retain(|suspect| suspect.trace != trace);
    }

    /// Whether it has killed too many.
    pub(super) fn refuses(&mut self, trace: Trace, now: Duration) -> bool {
        self.forget(now);
        let guilty = |suspect: &Suspect| match suspect.alone {
            true => suspect.deaths >= MOST,
            false => suspect.deaths >= MOST_AMONG_OTHERS,
        };
        self.suspects.iter().any(|suspect| suspect.trace == trace && guilty(suspect))
    }

    /// Whether it was at work when a runner died, and not answered since.
    pub(super) fn suspects(&self, trace: Trace, now: Duration) -> bool {
        let lately = |suspect: &Suspect| now.saturating_sub(suspect.last) < MEMORY;
        self.suspects.iter().any(|suspect| suspect.trace == trace && lately(suspect))
    }

    fn forget(&mut self, now: Duration) {
        self.suspects.retain(|suspect| now.saturating_sub(suspect.last) < MEMORY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(text: &str) -> Work {
        Work::Tokenize { text: text.into(), add_special: false, parse_special: false }
    }

    #[test]
    fn two_deaths_are_too_many_and_time_or_an_answer_clears() {
        let mut blame = Blame::default();
        let (guilty, other) = (blame.trace(&work("a")), blame.trace(&work("b")));
        assert_eq!(guilty, blame.trace(&work("a")));
        blame.died(&[guilty, other], Duration::ZERO);
        assert!(!blame.refuses(guilty, Duration::ZERO));
        assert!(blame.suspects(other, Duration::from_secs(599)));
        assert!(!blame.suspects(other, Duration::from_secs(600)));
        blame.died(&[guilty], Duration::from_secs(1));
        assert!(blame.refuses(guilty, Duration::from_secs(600)));
        assert!(!blame.refuses(other, Duration::from_secs(1)));
        assert!(!blame.refuses(guilty, Duration::from_secs(601)));
        blame.died(&[other], Duration::from_secs(602));
        blame.cleared(other);
        blame.died(&[other], Duration::from_secs(603));
        assert!(!blame.refuses(other, Duration::from_secs(603)));
    }

    #[test]
    fn who_is_only_ever_among_others_is_refused_at_the_third_death() {
        let mut blame = Blame::default();
        let both = [blame.trace(&work("a")), blame.trace(&work("b"))];
        for (death, refused) in [false, false, true].into_iter().enumerate() {
            let now = Duration::from_secs(death as u64);
            blame.died(&both, now);
            assert!(both.iter().all(|one| blame.refuses(*one, now) == refused), "{death}");
        }
    }

    #[test]
    fn no_text_and_no_process_wide_name_is_kept() {
        let text = format!("{:?}", {
            let mut blame = Blame::default();
            let trace = blame.trace(&work("a secret"));
            blame.died(&[trace], Duration::ZERO);
            blame
        });
        assert!(!text.contains("secret"), "{text}");
        assert_ne!(Blame::default().trace(&work("a")), Blame::default().trace(&work("a")));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut blame = Blame::default();
        for at in 0..1000 {
            let trace = blame.trace(&work(&at.to_string()));
            blame.died(&[trace], Duration::ZERO);
        }
        assert_eq!(blame.suspects.len(), REMEMBERED);
    }
}
