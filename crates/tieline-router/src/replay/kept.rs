//! Decisions as rows of the store, and back.
//!
//! Who can answer changes seldom: that part is written once, as the decision's grounds. What changes with each request
//! stands beside the decision: the state, and what was measured of speeds.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tieline_store::{DecisionRow, Grounds};
use tieline_types::{Digest, Source, Usage, Zone};

use crate::choose::{Asked, Candidate, Decision, Figure, Profile, State};
use crate::record::{Filed, Record};

/// The form of the texts. A change of it that old readers cannot read has a new number.
const FORMAT: u32 = 1;

/// Makes rows of records. Remembers the last grounds, since the next ones are most likely the same.
#[derive(Debug, Default)]
pub struct Keeper {
    last: Option<(Vec<Candidate>, Arc<Grounds>)>,
    /// Those of requests that no policy decided.
    none: Option<Arc<Grounds>>,
}

/// What changes of a candidate from request to request.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Now {
    state: State,
    /// What was measured, in the order of [`figures`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    measured: Vec<Option<f64>>,
}

/// A row's text.
#[derive(Serialize)]
struct Written<'r> {
    #[serde(flatten)]
    record: &'r Record,
    now: Vec<Now>,
}

impl Keeper {
    /// The row of a record.
    ///
    /// # Errors
    /// A number of it has no form in JSON.
    pub fn row(&mut self, filed: &Filed) -> Result<DecisionRow, serde_json::Error> {
        let Filed { record, candidates } = filed;
        let (fixed, now) = candidates.iter().flat_map(|all| all.iter()).map(split).unzip();
        let policy = record.plan.as_ref().map(|plan| plan.policy);
        let grounds = self.grounds(policy, fixed)?;
        let facts = serde_json::to_string(&Written { record: record.as_ref(), now })?;
        Ok(DecisionRow {
            id: record.id.clone(),
            at_unix_ms: i64::try_from(record.at_unix_ms).unwrap_or(i64::MAX),
            key: record.key.clone(),
            grounds,
            facts,
        })
    }

    fn grounds(
        &mut self,
        policy: Option<Digest>,
        fixed: Vec<Candidate>,
    ) -> Result<Arc<Grounds>, serde_json::Error> {
        let new = |fixed: &[Candidate]| {
            let candidates = serde_json::to_string(fixed)?;
            let program = env!("CARGO_PKG_VERSION").to_owned();
            Ok(Arc::new(Grounds { policy, program, format: FORMAT, candidates }))
        };
        if policy.is_none() {
            let none = self.none.take().map_or_else(|| new(&[]), Ok)?;
            return Ok(Arc::clone(self.none.insert(none)));
        }
        match &self.last {
            Some((last, grounds)) if *last == fixed && grounds.policy == policy => {
                Ok(Arc::clone(grounds))
            }
            _ => {
                let grounds = new(&fixed)?;
                self.last = Some((fixed, Arc::clone(&grounds)));
                Ok(grounds)
            }
        }
    }
}

pub(super) fn figures(profile: &mut Profile) -> [&mut Option<Figure>; 6] {
    let Profile {
        prefill_tps,
        decode_tps,
        load_s,
        first_token_s,
        joules_per_prompt_token,
        joules_per_token,
        quality: _,
        calibrated: _,
    } = profile;
    [prefill_tps, decode_tps, load_s, first_token_s, joules_per_prompt_token, joules_per_token]
}

/// What stays of a candidate, and what changes.
fn split(candidate: &Candidate) -> (Candidate, Now) {
    let mut fixed = candidate.clone();
    let state = std::mem::take(&mut fixed.state);
    let take = |figure: &mut Option<Figure>| {
        let measured = figure.filter(|figure| figure.source == Source::Measured)?;
        *figure = None;
        Some(measured.value)
    };
    let mut measured: Vec<_> = figures(&mut fixed.profile).into_iter().map(take).collect();
    while measured.last() == Some(&None) {
        measured.pop();
    }
    (fixed, Now { state, measured })
}

fn join(mut fixed: Candidate, now: Now) -> Candidate {
    fixed.state = now.state;
    for (figure, value) in figures(&mut fixed.profile).into_iter().zip(now.measured) {
        *figure = value.map(|value| Figure { value, source: Source::Measured }).or(*figure);
    }
    fixed
}

/// Why a row cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unreadable {
    /// A later version of this program wrote it.
    #[error("it has form {0}, and this program knows {FORMAT}")]
    Newer(u32),
    /// It is not what it should be.
    #[error("it is not what it should be")]
    Broken(#[from] serde_json::Error),
    /// Somebody is missing.
    #[error("it does not say how each candidate was")]
    Incomplete,
}

/// What is kept of a request.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The request's id.
    pub id: String,
    /// When it came, in milliseconds since 1970.
    pub at_unix_ms: i64,
    /// The version of the program that decided.
    pub program: String,
    /// What was decided, and on what; `None`: it was asked for by the name of a model of this machine.
    pub made: Option<Made>,
    /// What became of it.
    pub end: End,
}

/// A decision with all that it was made on.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The request.
    pub asked: Asked,
    /// Who could answer.
    pub candidates: Vec<Candidate>,
    /// The decision.
    pub decision: Decision,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct End {
    /// The API that it came by.
    pub dialect: String,
    /// What was asked: `chat`, `completion`, `embeddings`, …
    pub operation: String,
    /// Who answered, and why, in a word.
    pub decision: Short,
    /// How it ended, as a word.
    pub outcome: String,
    /// What the failure was, as a word.
    pub error: Option<String>,
    /// What was used, where it was told.
    pub usage: Option<Usage>,
    /// From arrival to the first token of the answer, in microseconds.
    pub first_token_us: Option<u64>,
    /// From arrival to the end, in microseconds.
    pub total_us: u64,
    /// Who was asked, in this order.
    pub tried: Vec<Attempt>,
}

/// Who answered, and why, in a word.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Short {
    /// Whom the request was for.
    pub model: String,
    /// Why.
    pub reason: String,
}

/// One attempt.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Attempt {
    /// Who was asked.
    pub name: String,
    /// How far the request travelled.
    pub zone: Zone,
    /// How it ended, as a word.
    pub ended: String,
    /// What the failure was, as a word.
    pub error: Option<String>,
    /// From the sending to the first part of an answer, in microseconds.
    pub first_token_us: Option<u64>,
    /// From the sending to the end, in microseconds.
    pub total_us: u64,
    /// What was used, where something was.
    pub usage: Option<Usage>,
    /// Where that is from.
    pub source: Source,
    /// What it cost; `None`: nobody knows.
    pub cost_micro_usd: Option<i64>,
    /// Bytes of text that left this machine.
    pub sent_bytes: u64,
    /// Values in them that were replaced.
    pub redacted: u64,
    /// How it was judged, where it was the first of a cascade.
    #[serde(default)]
    pub judged: Option<Judged>,
}

/// How the first answer of a cascade was judged.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Judged {
    /// Whether it was kept.
    pub kept: bool,
    /// The probability that it is wrong, by the model's calibration; `None`: a cautious rule judged.
    pub error: Option<f64>,
    /// What the alias's program found, as a word.
    #[serde(default)]
    pub check: Option<String>,
}

/// The parts of a row's text that are read.
#[derive(Deserialize)]
struct Read {
    plan: Option<Decision>,
    asked: Option<Asked>,
    now: Vec<Now>,
    #[serde(flatten)]
    end: End,
}

/// Reads rows. Remembers the last grounds, since the next ones are most likely the same.
#[derive(Debug, Default)]
pub struct Reader {
    last: Option<(Arc<Grounds>, Vec<Candidate>)>,
}

impl Reader {
    /// Reads a row.
    ///
    /// # Errors
    /// The row is of a later version, or damaged.
    pub fn read(&mut self, row: &DecisionRow) -> Result<Kept, Unreadable> {
        let Grounds { program, format, .. } = row.grounds.as_ref();
        if *format > FORMAT {
            return Err(Unreadable::Newer(*format));
        }
        let Read { plan, asked, now, end } = serde_json::from_str(&row.facts)?;
        let made = match (plan, asked) {
            (Some(decision), Some(asked)) => {
                let fixed = self.fixed(&row.grounds)?;
                if fixed.len() != now.len() {
                    return Err(Unreadable::Incomplete);
                }
                let candidates =
                    fixed.iter().cloned().zip(now).map(|(fixed, now)| join(fixed, now));
                Some(Made { asked, candidates: candidates.collect(), decision })
            }
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => return Err(Unreadable::Incomplete),
        };
        let (id, at_unix_ms, program) = (row.id.clone(), row.at_unix_ms, program.clone());
        Ok(Kept { id, at_unix_ms, program, made, end })
    }

    fn fixed(&mut self, grounds: &Arc<Grounds>) -> Result<&[Candidate], serde_json::Error> {
        let (_, fixed) = match self.last.take() {
            Some(last) if Arc::ptr_eq(&last.0, grounds) => self.last.insert(last),
            _ => {
                let fixed = serde_json::from_str(&grounds.candidates)?;
                self.last.insert((Arc::clone(grounds), fixed))
            }
        };
        Ok(fixed)
    }
}

impl Kept {
    /// Reads a row.
    ///
    /// # Errors
    /// The row is of a later version, or damaged.
    pub fn read(row: &DecisionRow) -> Result<Self, Unreadable> {
        Reader::default().read(row)
    }
}

/// A row as the record that it was made of, in JSON: what is asked about requests of long ago has the same form as
/// what is asked about the latest.
///
/// # Errors
/// The row is of a later version, or damaged.
pub fn record(row: &DecisionRow) -> Result<Value, Unreadable> {
    if row.grounds.format > FORMAT {
        return Err(Unreadable::Newer(row.grounds.format));
    }
    let mut value: Value = serde_json::from_str(&row.facts)?;
    value.as_object_mut().ok_or(Unreadable::Incomplete)?.shift_remove("now");
    Ok(value)
}
