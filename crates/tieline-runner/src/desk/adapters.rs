//! The adapters that are here, and which set of them the model computes with.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use tieline_decode::schedule::Group;
use tieline_types::wire::{ADAPTERS, Failure, FailureKind};
use tieline_types::{Adapters, Digest};

use crate::llama::{self, Adapter, Context, Model};
use crate::parcel::Arrived;
use crate::session::{failure, failure_with};

/// Sets that are told apart, beside those of requests that are here.
const SETS: usize = 256;
/// The base as it is.
const BASE: Group = Group(0);

/// The adapters by content, and the sets by number.
#[derive(Debug, Default)]
pub(crate) struct Shelf<'m> {
    held: HashMap<Digest, Rc<Adapter<'m>>>,
    /// By the names of sets.
    groups: HashMap<String, Group>,
    /// Numbers that were given.
    given: u32,
    /// What the context computes with.
    current: Adapters,
}

impl<'m> Shelf<'m> {
    /// Takes an adapter in whose file has come. One that is here already stays.
    pub(crate) fn take_in(&mut self, model: &'m Model, arrived: Arrived) -> Result<(), Failure> {
        let (digest, file) = arrived;
        let mut file = file?;
        if self.held.contains_key(&digest) {
            return Ok(());
        }
        if self.held.len() >= ADAPTERS {
            let text = format!("{ADAPTERS} adapters are held already, and {digest} is one more");
            return Err(failure(FailureKind::Busy, text));
        }
        // What is there has no part in it.
        llama::take_errors();
        let adapter = Adapter::load(model, &mut file).ok_or_else(|| unfit(digest, model))?;
        self.held.insert(digest, Rc::new(adapter));
        Ok(())
    }

    /// Forgets an adapter.
    pub(crate) fn remove(&mut self, digest: Digest, context: &mut Context<'m>) {
        let in_use = self.current.iter().any(|adapter| adapter.digest == digest);
        // Where llama.cpp does not let it go, it stays: the next step tells who computes.
        if !in_use || self.bring(&Adapters::default(), context).is_ok() {
            self.held.remove(&digest);
        }
    }

    /// Refuses a set of which one is missing.
    pub(crate) fn check(&self, adapters: &Adapters) -> Result<(), Failure> {
        match adapters.iter().find(|adapter| !self.held.contains_key(&adapter.digest)) {
            None => Ok(()),
            Some(missing) => {
                let text = format!("the adapter {} was not brought here", missing.digest);
                Err(failure(FailureKind::Internal, text))
            }
        }
    }

    /// The number of a set. `used`: the sets of requests that are here, which keep theirs.
    pub(crate) fn group<'a>(
        &mut self,
        adapters: &Adapters,
        used: impl Iterator<Item = &'a Adapters>,
    ) -> Group {
        if adapters.is_empty() {
            return BASE;
        }
        let key = adapters.key();
        if let Some(known) = self.groups.get(&key) {
            return *known;
        }
        if self.groups.len() >= SETS {
            let used: HashSet<String> = used.map(Adapters::key).collect();
            self.groups.retain(|set, _| used.contains(set));
        }
        self.given = self.given.wrapping_add(1).max(1);
        self.groups.insert(key, Group(self.given));
        Group(self.given)
    }

    /// Has the model compute with this set from now on.
    ///
    /// # Errors
    /// One of them is not here, or llama.cpp refuses the set: nothing may be computed with it.
    pub(crate) fn bring(
        &mut self,
        adapters: &Adapters,
        context: &mut Context<'m>,
    ) -> Result<(), Failure> {
        if *adapters == self.current {
            return Ok(());
        }
        self.check(adapters)?;
        let held = |digest| self.held.get(digest).map(Rc::clone);
        let set = adapters.iter().filter_map(|one| Some((held(&one.digest)?, one.scale.get())));
        context.set_adapters(set.collect()).map_err(|code| {
            let key = adapters.key();
            let text = format!("llama.cpp refuses the adapters {key:?} with code {code}");
            failure(FailureKind::Internal, text)
        })?;
        self.current = adapters.clone();
        Ok(())
    }
}

/// Says which does not fit which, and what llama.cpp says of it.
fn unfit(digest: Digest, model: &Model) -> Failure {
    let log = llama::take_errors();
    let why = if log.is_empty() { "llama.cpp says no more".to_owned() } else { log.join("; ") };
    let text =
        format!("the adapter {digest} does not fit the model ({}): {why}", model.description());
    let hint = "an adapter works with the model that it was trained for, in any quantisation";
    failure_with(FailureKind::BadModel, text, hint)
}
