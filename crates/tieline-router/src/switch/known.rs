//! What the store knows of models: measurements, calibrations, outcomes, and who is quarantined. Read when a server starts and when
//! that changes; asked for each request, without a database.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tieline_store::profiles::{Bench, Outcomes};
use tieline_store::{DbError, Store};
use tieline_types::{Digest, Source};

use crate::choose::{ANY, Calibrated, Candidate, Estimate};
use crate::quality::estimate::{self, Prior, Qualities, STRENGTH};
use crate::quality::{Calibration, Task, TaskName};

/// With this confidence a quality is above its lower bound.
const LEVEL: f64 = 0.9;

/// What is known of models, by what their files hold.
#[derive(Debug, Default)]
pub struct Known {
    benches: HashMap<Digest, Vec<Bench>>,
    calibrations: HashMap<Digest, BTreeMap<String, Arc<Calibration>>>,
    quarantined: HashSet<Digest>,
    qualities: Qualities,
    tasks: HashMap<Digest, Vec<String>>,
    /// What stands for the content of somebody else's models, by their names.
    remotes: HashMap<String, Digest>,
    now_unix_s: i64,
    /// What outcomes come to under a policy, once it was asked.
    estimated: Mutex<HashMap<(Digest, Digest), Qualifieds>>,
}

/// Quality by task.
type Qualified = BTreeMap<String, Estimate>;

/// That by the model's name: a policy knows a model by its name.
type Qualifieds = BTreeMap<String, Qualified>;

impl Known {
    /// Reads all of it. A calibration that cannot be read is left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn read(store: &Store, now_unix_s: i64) -> Result<Self, DbError> {
        let mut known = Self { now_unix_s, ..Self::default() };
        for bench in store.benches()? {
            known.benches.entry(bench.digest).or_default().push(bench);
        }
        for row in store.calibrations()? {
            let Ok(read) = serde_json::from_str::<Calibration>(&row.calibration) else { continue };
            let of_model = known.calibrations.entry(row.digest).or_default();
            of_model.insert(row.task, Arc::new(read));
        }
        known.quarantined = store.quarantined()?.into_iter().map(|one| one.digest).collect();
        for outcomes in store.outcomes()? {
            known.take_in(&outcomes);
        }
        Ok(known)
    }

    fn take_in(&mut self, outcomes: &Outcomes) {
        let Outcomes { model, task, correct, answers, at_unix_ms, .. } = outcomes;
        let digest = match model.contains('/') {
            true => {
                let digest = Digest(blake3::hash(model.as_bytes()).into());
                self.remotes.insert(model.clone(), digest);
                digest
            }
            // A row that nobody wrote.
            false => match format!("sha256:{model}").parse() {
                Ok(digest) => digest,
                Err(_) => return,
            },
        };
        let name = TaskName { family: family(task), task };
        self.qualities.observe_sum(digest, name, (*correct, *answers), at_unix_ms / 1000);
        self.tasks.entry(digest).or_default().push(task.clone());
    }

    /// The newest measurement of a model, and whether it is of this build; without a build, of any.
    pub(super) fn bench(&self, digest: Digest, build: Option<&str>) -> Option<(&Bench, bool)> {
        // The newest comes first.
        let all = self.benches.get(&digest)?;
        let same = |bench: &&Bench| build.is_none_or(|build| bench.build == build);
        let own = all.iter().find(same).map(|bench| (bench, true));
        own.or_else(|| Some((all.first()?, false)))
    }

    /// Fills in how good somebody else's model is, as [`qualify`](Self::qualify) does.
    pub(super) fn qualify_remote(&self, policy: Digest, candidate: &mut Candidate) {
        if let Some(&digest) = self.remotes.get(&candidate.name) {
            self.qualify(policy, digest, candidate);
        }
    }

    /// Whether a model misbehaved, so that a person must look.
    pub(super) fn is_quarantined(&self, digest: Digest) -> bool {
        self.quarantined.contains(&digest)
    }

    /// How far a model's confidence can be believed at a task, else at any.
    pub(super) fn calibration(&self, digest: Digest, task: &str) -> Option<&Arc<Calibration>> {
        let of_model = self.calibrations.get(&digest)?;
        // One of too few answers knows nothing, and stands for no other.
        let fitted = |task| of_model.get(task).filter(|found| found.map.is_some());
        fitted(task).or_else(|| fitted(ANY))
    }

    /// Fills in how good a model is, and how far its confidence can be believed. What the policy says of it is what
    /// is believed beforehand, and worth [`STRENGTH`] outcomes.
    pub(super) fn qualify(&self, policy: Digest, digest: Digest, candidate: &mut Candidate) {
        let profile = &mut candidate.profile;
        if let Some(of_model) = self.calibrations.get(&digest) {
            let fitted = of_model.iter().filter_map(|(task, one)| Some((task, calibrated(one)?)));
            profile.calibrated = fitted.map(|(task, one)| (task.clone(), one)).collect();
        }
        let Some(tasks) = self.tasks.get(&digest) else { return };
        let mut estimated = self.estimated.lock().unwrap_or_else(PoisonError::into_inner);
        let by_name = estimated.entry((policy, digest)).or_default();
        if !by_name.contains_key(&candidate.name) {
            let found = self.estimate(digest, tasks, &profile.quality);
            by_name.insert(candidate.name.clone(), found);
        }
        if let Some(found) = by_name.get(&candidate.name) {
            profile.quality.clone_from(found);
        }
    }

    fn estimate(&self, digest: Digest, tasks: &[String], said: &Qualified) -> Qualified {
        let builtin = Task::ALL.iter().map(|task| task.as_str());
        let names = builtin.chain([ANY]).chain(tasks.iter().map(String::as_str));
        let names: BTreeSet<&str> = names.chain(said.keys().map(String::as_str)).collect();
        let estimates = names.into_iter().filter_map(|task| {
            let name = TaskName { family: family(task), task };
            let before = said.get(task).or_else(|| said.get(ANY));
            let prior = before
                .map_or_else(Prior::default, |said| Prior { mean: said.mean, weight: STRENGTH });
            let found = self.qualities.estimate(digest, name, prior, (self.now_unix_s, LEVEL));
            let source = match found.source {
                estimate::Source::Task => Source::Measured,
                // At `any` task all outcomes count.
                estimate::Source::Artefact if task == ANY => Source::Measured,
                // What is known of any task says as much of this one.
                estimate::Source::Artefact | estimate::Source::Prior
                    if !said.contains_key(task) =>
                {
                    return None;
                }
                _ => Source::Estimated,
            };
            // Where nearly all are right, nine of ten chances may lie above the mean.
            let (mean, low) = (found.mean, found.low.min(found.mean));
            let samples = samples(found.samples);
            Some((task.to_owned(), Estimate { mean, low, samples, source }))
        });
        estimates.collect()
    }
}

fn calibrated(calibration: &Calibration) -> Option<Calibrated> {
    let ece = calibration.map.as_ref().and(calibration.ece)?;
    let answers = u32::try_from(calibration.labels).unwrap_or(u32::MAX);
    Some(Calibrated { answers, ece: ece.value })
}

/// The family of a task; one that nobody knows is alone.
fn family(task: &str) -> &str {
    task.parse().map_or(task, |task: Task| task.family())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, in range")]
fn samples(count: f64) -> u32 {
    count.round().clamp(0.0, f64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests;
