//! The switch: takes a request that a policy concerns, finds out what is in it and who could answer it, decides,
//! and carries it.
//!
//! A model of this machine that is asked by its own name is none of its business: nothing leaves, and nothing is
//! looked at.

mod checking;
mod facts;
mod hedging;
pub(crate) mod kept;
mod known;
mod memory;
mod noted;
mod planned;
mod profile;
mod setup;
mod shut;
#[cfg(test)]
mod tests;
mod waits;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tieline_privacy::survey::{Survey, Unknown, survey};
use tieline_store::profiles::Learned;
use tieline_types::{
    BackendError, ErrorKind, Host, HostStatus, ModelCard, Origin, Request, Retry, Tokens, Zone,
};

use crate::carry::{Answers, Breakers, Network};
use crate::choose::{
    Abilities, Asked, Candidate, Decision, Guess, RefusalCode, TaskHow, Try, bare, decide,
    everybody, task_of,
};
use crate::policy::{Policy, ToolTask, amount};
use crate::quality::{Calibration, Task};
use crate::run::Call;
use facts::Ground;
use kept::Shelf;
use memory::{Like, Memory, Talk};
use planned::Case;
use waits::Waits;

pub use facts::build;
pub use known::Known;
pub(crate) use planned::Looked;
pub use planned::{Judged, Planned, Tried, release};
pub use profile::{Figures, Report, Told};
pub use setup::{RemoteModel, Setup, Standing};
pub(crate) use setup::{left, scopes};
pub use shut::LeftAlone;

/// How long what was seen of this machine's models counts.
const A_MOMENT: Duration = Duration::from_millis(250);

/// This machine's models, and what is in memory.
type Machine = Arc<(Vec<ModelCard>, HostStatus)>;

/// A name that may be asked for besides those of this machine's models.
#[derive(Clone, Debug, PartialEq)]
pub struct Other {
    /// The name.
    pub name: String,
    /// The backend that answers; aliases are the `policy`'s.
    pub owner: String,
    /// Its context and what it can, by the policy; `None`: an alias, for which that depends on who answers.
    pub known: Option<(Option<Tokens>, Abilities)>,
}

/// Decides by a policy that can be changed while it runs.
pub struct Switch {
    setup: RwLock<Option<Arc<Setup>>>,
    /// What is kept for whom it decides by.
    answers: RwLock<Option<Arc<Answers>>>,
    machine: Mutex<Option<(Instant, Machine)>>,
    shared: Arc<Shared>,
}

/// What outlives a policy.
struct Shared {
    memory: Memory,
    waits: Waits,
    breakers: Arc<Mutex<Breakers>>,
    network: Arc<Mutex<Network>>,
}

impl Default for Shared {
    fn default() -> Self {
        let network = Arc::new(Mutex::new(Network::new(0)));
        Self {
            memory: Memory::default(),
            waits: Waits::default(),
            breakers: Arc::default(),
            network,
        }
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Switch").field("setup", &self.current()).finish_non_exhaustive()
    }
}

impl Default for Switch {
    /// Without a policy: every request is for a model of this machine, by its name.
    fn default() -> Self {
        Self {
            setup: RwLock::new(None),
            answers: RwLock::new(None),
            machine: Mutex::default(),
            shared: Arc::default(),
        }
    }
}

impl Switch {
    /// Decides by this from now on. What is being answered goes on as it was decided.
    pub fn replace(&self, mut setup: Setup) {
        // What stands in this network says nothing of the one beyond it.
        let beyond = setup.remotes.iter().filter(|remote| remote.candidate.zone > Zone::Lan);
        let hosts: std::collections::BTreeSet<_> =
            beyond.map(|remote| &remote.circuit.host).collect();
        let network = Network::new(hosts.len());
        *self.shared.network.lock().unwrap_or_else(PoisonError::into_inner) = network;
        let mut breakers = self.shared.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = breakers.forget_keys();
        drop(breakers);
        setup.remotes.iter_mut().for_each(|remote| remote.circuit.turn = turn);
        let answers = kept::shelf(&setup.policy);
        *self.answers.write().unwrap_or_else(PoisonError::into_inner) = answers;
        facts::prepare();
        *self.setup.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(setup));
    }

    /// Knows this of models from now on.
    pub fn know(&self, known: Known) {
        let mut setup = self.setup.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(setup) = setup.as_mut() {
            *setup = Arc::new(Setup { known: Arc::new(known), ..Setup::clone(setup) });
        }
    }

    /// What was learned of candidates since this was asked last, to be kept.
    pub fn learned(&self) -> Vec<Learned> {
        self.shared.memory.learned()
    }

    /// Remembers what was learned and kept before.
    pub fn recall(&self, rows: &[Learned]) {
        self.shared.memory.recall(rows);
    }

    /// What is known of each candidate. None without a policy.
    ///
    /// # Errors
    /// This machine cannot say which models it has.
    pub async fn profiles(&self, host: &Arc<dyn Host>) -> Result<Vec<Report>, BackendError> {
        let Some(setup) = self.current() else { return Ok(Vec::new()) };
        let machine = self.machine(host, &setup.policy).await?;
        let all = self.facts(&setup, &machine, (None, false));
        Ok(all.into_iter().map(|(candidate, figures)| Report::of(candidate, figures)).collect())
    }

    /// What it decides by.
    pub fn current(&self) -> Option<Arc<Setup>> {
        self.setup.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What may be asked for besides this machine's models.
    pub fn others(&self) -> Vec<Other> {
        let Some(setup) = self.current() else { return Vec::new() };
        let aliases = setup.policy.aliases.keys().map(|name| Other {
            name: name.clone(),
            owner: "policy".to_owned(),
            known: None,
        });
        let remotes = setup.remotes.iter().map(|remote| {
            let name = remote.candidate.name.clone();
            let owner = name.split_once('/').map_or("", |(backend, _)| backend).to_owned();
            Other {
                name,
                owner,
                known: Some((remote.candidate.context, remote.candidate.abilities)),
            }
        });
        aliases.chain(remotes).collect()
    }

    /// Whether a policy's alias or backend has this name.
    pub fn knows(&self, name: &str) -> bool {
        self.concerned(name).is_some()
    }

    /// What it decides by, where that concerns this name.
    pub(crate) fn concerned(&self, name: &str) -> Option<Arc<Setup>> {
        self.current().filter(|setup| setup.policy.concerns(name))
    }

    /// Decides who answers, without asking anybody but this machine.
    ///
    /// # Errors
    /// This machine cannot say which models it has.
    pub(crate) async fn plan(
        &self,
        setup: Arc<Setup>,
        host: &Arc<dyn Host>,
        (call, request): (&Call, &Request),
    ) -> Result<Planned, BackendError> {
        let surveyed = survey(request, &setup.detectors);
        let memory = &self.shared.memory;
        let session = memory::session_of(call, request);
        let talk = memory.previous(&session);
        let held = talk.as_ref().and_then(|talk| talk.task);
        let mut asked = asked(&setup, (call, request), (surveyed, self.is_online()))?;
        asked.guess = guess(&setup, &asked, request, held);
        asked.session = talk.as_ref().map(|talk| facts::session(talk, request));
        let (task, how) = task_of(&setup.policy, &asked);
        asked.output = memory.length(Like::of(&asked.key, bare(&asked.asked), (&task, how)));
        let scopes = setup.scopes(&asked);
        if !scopes.is_empty() {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
            let reader = Arc::clone(&setup);
            let read = tokio::task::spawn_blocking(move || reader.left(&scopes, now));
            asked.budgets = read.await.unwrap_or_default();
        }
        let machine = self.machine(host, &setup.policy).await?;
        let silent = asked.needs.are_silent();
        let candidates = self.facts(&setup, &machine, (talk.as_ref(), silent));
        let candidates: Vec<Candidate> = candidates.into_iter().map(|(one, _)| one).collect();
        let decision = decide(&setup.policy, &asked, &candidates);
        let shelf = self.shelf(&setup, (&decision, call), &machine);
        let calibration = calibration(&setup, &machine.0, &decision);
        let (id, wanted) = (call.id.clone(), call.wanted.clone());
        let candidates = Arc::new(candidates);
        let case = Case { decision, asked, candidates, session, id, wanted, shelf, calibration };
        Ok(Planned::new((setup, Arc::clone(&self.shared)), Arc::clone(host), case))
    }

    /// Where answers to this call are kept, where any are.
    fn shelf(
        &self,
        setup: &Setup,
        (decision, call): (&Decision, &Call),
        machine: &Machine,
    ) -> Option<Shelf> {
        if !setup.policy.cache.exact {
            return None;
        }
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let whose = (call.hints.again, &call.wanted, machine.0.as_slice());
        Shelf::of(&answers, (&setup.policy, decision), whose)
    }

    /// Everybody who could answer, with all that is known of them.
    fn facts(
        &self,
        setup: &Setup,
        machine: &Machine,
        (talk, silent): (Option<&Talk>, bool),
    ) -> Vec<(Candidate, Figures)> {
        let (cards, status) = &**machine;
        let now = Instant::now();
        let breakers = self.shared.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut speeds = self.shared.memory.speeds();
        let ground = Ground { status, policy: &setup.policy, known: &setup.known, talk, silent };
        let mut all = facts::local(cards, &ground, &mut speeds);
        for remote in &setup.remotes {
            let mut candidate = remote.candidate.clone();
            let figures = facts::remote(&mut candidate, &ground, &speeds);
            candidate.state.breaker_open_ms =
                breakers.allows(&remote.circuit, now).err().map(|open| {
                    let left = open.until.saturating_duration_since(now);
                    u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
                });
            all.push((candidate, figures));
        }
        all
    }

    /// What this machine has, as it was a moment ago: its models are rows of a database and headers of files.
    async fn machine(
        &self,
        host: &Arc<dyn Host>,
        policy: &Policy,
    ) -> Result<Machine, BackendError> {
        let seen = || self.machine.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = seen().clone().filter(|(since, _)| since.elapsed() < A_MOMENT);
        if let Some((_, machine)) = fresh {
            return Ok(machine);
        }
        let mut cards = host.models().await?;
        // Of models with adapters no list has all pairs: those count that the policy names.
        for name in policy.composed() {
            // One that is not here is no candidate.
            cards.extend(host.describe(name).await.ok().map(|details| details.card));
        }
        let machine = Arc::new((cards, host.status().await?));
        *seen() = Some((Instant::now(), Arc::clone(&machine)));
        Ok(machine)
    }

    fn is_online(&self) -> bool {
        let network = self.shared.network.lock().unwrap_or_else(PoisonError::into_inner);
        network.allows(Instant::now())
    }
}

/// Models of this machine as candidates, none of which is in memory, with what was learned of them before.
pub fn local_candidates(
    (policy, known): (&Policy, &Known),
    cards: &[ModelCard],
    learned: &[Learned],
) -> Vec<(Candidate, Figures)> {
    let memory = Memory::default();
    memory.recall(learned);
    let status = &HostStatus::default();
    let ground = Ground { status, policy, known, talk: None, silent: true };
    facts::local(cards, &ground, &mut memory.speeds())
}

/// What is decided without a server.
#[derive(Clone, Debug)]
pub struct Preview {
    /// The decision.
    pub decision: Decision,
    /// All who may answer, as [`everybody`] says.
    pub everybody: Vec<Try>,
}

/// Decides without a server: by these models of this machine, none of which is in memory, and what was learned before;
/// `remotes`: who else could be asked, whether or not the setup can.
///
/// # Errors
/// The data class that is declared is none.
pub fn preview(
    setup: &Setup,
    (cards, learned): (&[ModelCard], &[Learned]),
    remotes: &[Candidate],
    (call, request): (&Call, &Request),
) -> Result<Preview, BackendError> {
    let surveyed = survey(request, &setup.detectors);
    let asked = asked(setup, (call, request), (surveyed, true))?;
    let asked = Asked { guess: guess(setup, &asked, request, None), ..asked };
    let memory = Memory::default();
    memory.recall(learned);
    let (policy, known) = (&setup.policy, &*setup.known);
    let (status, silent) = (&HostStatus::default(), asked.needs.are_silent());
    let ground = Ground { status, policy, known, talk: None, silent };
    let speeds = &mut memory.speeds();
    let local = facts::local(cards, &ground, speeds);
    let mut candidates: Vec<Candidate> = local.into_iter().map(|(one, _)| one).collect();
    candidates.extend(remotes.iter().cloned());
    for remote in candidates.iter_mut().filter(|one| !one.local) {
        facts::remote(remote, &ground, speeds);
    }
    let decision = decide(policy, &asked, &candidates);
    let everybody = everybody(policy, &asked, &candidates);
    Ok(Preview { decision, everybody })
}

/// The task as it looks, where neither the caller nor the alias says what it is.
fn guess(setup: &Setup, asked: &Asked, request: &Request, held: Option<Task>) -> Option<Guess> {
    let (_, how) = task_of(&setup.policy, asked);
    (how == TaskHow::Default).then(|| facts::guess(request, held)).flatten()
}

/// What the gate of a cascade goes by, where the model that is asked first was calibrated at this task.
fn calibration(
    setup: &Setup,
    cards: &[ModelCard],
    decision: &Decision,
) -> Option<Arc<Calibration>> {
    let first = &decision.cascade.as_ref()?.first;
    let card = cards.iter().find(|card| card.name == *first)?;
    setup.known.calibration(card.digest, &decision.task).map(Arc::clone)
}

/// What is known of a request, without what was before it. Where nobody knows what is in it, it stays.
fn asked(
    setup: &Setup,
    (call, request): (&Call, &Request),
    (surveyed, online): (Result<Survey, Unknown>, bool),
) -> Result<Asked, BackendError> {
    let offline = setup.offline || surveyed.is_err();
    let declared_class = declared(call)?;
    let asked = facts::asked(call, request, &surveyed.unwrap_or_default());
    let first_token_ms = wished(call.hints.first_token.as_deref())?;
    let total_ms = [asked.total_ms, wished(call.hints.deadline.as_deref())?];
    let total_ms = total_ms.into_iter().flatten().min();
    let network_gone = !online;
    let by_tool = ToolTask::find(&setup.policy.tasks, &facts::tools(request)).map(str::to_owned);
    Ok(Asked { by_tool, declared_class, offline, network_gone, first_token_ms, total_ms, ..asked })
}

/// Milliseconds of a time that the caller says.
fn wished(word: Option<&str>) -> Result<Option<u32>, BackendError> {
    let Some(word) = word else { return Ok(None) };
    let time = amount::time(word.trim()).ok().filter(|time| !time.is_zero());
    let millis = time.and_then(|time| u32::try_from(time.as_millis()).ok());
    // Not the caller's word: it may be anything.
    millis.map(Some).ok_or_else(|| {
        let text = "a deadline is no time: expected one such as 500ms, 2s or 5m";
        BackendError::new(ErrorKind::InvalidRequest, text)
    })
}

fn declared(call: &Call) -> Result<Option<tieline_types::DataClass>, BackendError> {
    let Some(word) = &call.hints.data_class else { return Ok(None) };
    // Not the caller's word: it may be anything.
    word.parse().map(Some).map_err(|_| {
        let text = "the data class is none: expected public, internal, private or secret";
        BackendError::new(ErrorKind::InvalidRequest, text)
    })
}

/// A refusal in words, with the reasons of those who came nearest. What keeps them from it may pass after some time.
pub(crate) fn refusal(decision: &Decision, passes: Option<Duration>) -> Option<BackendError> {
    let refusal = decision.refusal?;
    let reasons: Vec<String> = decision
        .rejections
        .iter()
        .filter(|one| one.reason > crate::choose::Reason::NotAllowedForKey)
        .map(|one| format!("{}: {}", one.name, one.reason.as_str()))
        .collect();
    let nearest = refusal.nearest.map(|reason| format!(" ({})", reason.as_str()));
    let nearest = nearest.unwrap_or_default();
    let error = match refusal.code {
        RefusalCode::UnknownModel => {
            let text = "no model or alias of this name may be asked";
            BackendError::new(ErrorKind::NotFound, text)
        }
        RefusalCode::NotEligible | RefusalCode::NoneEligible => {
            let text = format!("nobody may answer this {} request{nearest}", decision.class);
            match (passes, refusal.nearest) {
                (Some(wait), _) => BackendError::new(ErrorKind::Unavailable, text)
                    .of(Origin::Here, Retry::After(wait)),
                (None, Some(crate::choose::Reason::OverBudget)) => {
                    BackendError::new(ErrorKind::OverBudget, text)
                }
                (None, _) => BackendError::new(ErrorKind::Denied, text),
            }
        }
    };
    Some(match reasons.is_empty() {
        true => error,
        false => error.with_hint(reasons.join("; ")),
    })
}
