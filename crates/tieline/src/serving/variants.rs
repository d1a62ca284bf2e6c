//! One model, loaded in several ways: with a longer context, or for vectors. Each way is a member of the pool.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tieline_store::Model;
use tieline_types::{Bytes, Digest, Keep, LoadParams, Pooling, Tokens};

use super::needs::{Known, Need};

/// No shorter context is offered.
const LEAST: u32 = 256;

/// What tells variants of a model apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) context: Tokens,
    pub(super) vectors: Option<Pooling>,
}

/// Where a variant is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    #[default]
    Away,
    Loading,
    Ready,
}

/// A way to load a model.
#[derive(Debug)]
pub(super) struct Variant {
    /// Its name in the pool, which people read in errors.
    pub(super) name: String,
    pub(super) model: Model,
    pub(super) kind: Kind,
    pub(super) params: LoadParams,
    /// What it needs, once that is planned.
    pub(super) known: Known,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    place: Place,
    /// What callers said of how long it stays.
    keep: Option<Keep>,
}

impl Variant {
    /// What it needs, as far as that is planned.
    pub(super) fn need(&self) -> Option<Arc<Need>> {
        self.known.need()
    }

    pub(super) fn place(&self) -> Place {
        self.state().place
    }

    pub(super) fn is_at(&self, place: Place) {
        let keep = self.state().keep.filter(|_| place != Place::Away);
        *self.state() = State { place, keep };
    }

    /// What callers said of how long it stays, until it leaves.
    pub(super) fn keep(&self) -> Option<Keep> {
        self.state().keep
    }

    pub(super) fn is_kept(&self, keep: Keep) {
        self.state().keep = Some(keep);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// All that were asked for.
#[derive(Debug, Default)]
pub(super) struct Variants(Mutex<Vec<Arc<Variant>>>);

impl Variants {
    /// Those of one content.
    pub(super) fn of(&self, digest: Digest) -> Vec<Arc<Variant>> {
        self.all().iter().filter(|one| one.model.digest == digest).cloned().collect()
    }

    /// Contents that take more than there is with the context that is usual, as far as they were planned.
    pub(super) fn unfit(&self, there: Bytes, usual: impl Fn(&Model) -> Tokens) -> Vec<Digest> {
        let unfit = |one: &&Arc<Variant>| {
            one.kind == Kind { context: usual(&one.model), vectors: None }
                && one.need().is_some_and(|need| need.bytes() > there)
        };
        self.all().iter().filter(unfit).map(|one| one.model.digest).collect()
    }

    /// Whether the model of this very name is in memory and writes text.
    pub(super) fn is_ready(&self, name: &str) -> bool {
        let ready = |one: &Arc<Variant>| {
            one.model.name == name && one.kind.vectors.is_none() && one.place() == Place::Ready
        };
        self.all().iter().any(ready)
    }

    /// The one of this name in the pool.
    pub(super) fn named(&self, name: &str) -> Option<Arc<Variant>> {
        self.all().iter().find(|one| one.name == name).cloned()
    }

    /// The one of this kind, and whether it is new. A model of two names is one model.
    pub(super) fn take(
        &self,
        model: &Model,
        kind: Kind,
        params: &LoadParams,
    ) -> (Arc<Variant>, bool) {
        let mut all = self.all();
        let same = |one: &&Arc<Variant>| one.model.digest == model.digest && one.kind == kind;
        if let Some(known) = all.iter().find(same) {
            return (Arc::clone(known), false);
        }
        let mut name = words(&model.name, kind);
        if all.iter().any(|one| one.name == name) {
            // The name meant something else when that was loaded.
            name = format!("{name} ({})", model.digest.short());
        }
        let context = Some(kind.context).filter(|context| *context != OWN);
        let embeddings = kind.vectors;
        let params = LoadParams { context, embeddings, ..params.clone() };
        let (known, state) = (Known::default(), Mutex::default());
        let new = Arc::new(Variant { name, model: model.clone(), kind, params, known, state });
        all.push(Arc::clone(&new));
        (new, true)
    }

    /// Drops those of contents that are not kept any more, and returns their names in the pool.
    pub(super) fn retain(&self, kept: &[Digest]) -> Vec<String> {
        let gone = |one: &mut Arc<Variant>| !kept.contains(&one.model.digest);
        self.all().extract_if(.., gone).map(|one| one.name.clone()).collect()
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Variant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The context that a runner chooses by itself.
pub(super) const OWN: Tokens = Tokens(0);

fn words(name: &str, kind: Kind) -> String {
    let what = match kind.vectors {
        None => "",
        Some(Pooling::Model) => " for vectors",
        Some(Pooling::Mean) => " for mean vectors",
        Some(Pooling::Cls) => " for vectors of first tokens",
        Some(Pooling::Last) => " for vectors of last tokens",
    };
    match kind.context {
        OWN => format!("{name}{what}"),
        context => format!("{name}{what} with a context of {context}"),
    }
}

/// The context to serve a wish with: that of a variant which is there and long enough, the longest, else the
/// usual one, else what is wished for, rounded up. `most` is what the model was trained for.
pub(super) fn context(
    there: &[(Tokens, Place)],
    wanted: Option<Tokens>,
    (usual, most): (Tokens, Option<Tokens>),
) -> Tokens {
    let least = wanted.unwrap_or(usual);
    let serves = |(context, place): &&(Tokens, Place)| *place != Place::Away && *context >= least;
    let found = there.iter().filter(serves).max_by_key(|(context, place)| (*place, *context));
    match found {
        Some((context, _)) => *context,
        None if least <= usual => usual,
        None => rounded(least, most),
    }
}

/// The least context that is offered for so many tokens: a power of two, so that callers who each wish for another
/// have few ways to load a model.
pub(super) fn rounded(tokens: Tokens, most: Option<Tokens>) -> Tokens {
    let up = Tokens(tokens.0.max(LEAST).checked_next_power_of_two().unwrap_or(u32::MAX));
    most.map_or(up, |most| up.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: u32 = 8192;

    #[track_caller]
    fn check(there: &[(u32, Place)], wanted: Option<u32>, want: u32) {
        let there: Vec<_> =
            there.iter().map(|(context, place)| (Tokens(*context), *place)).collect();
        let sizes = (Tokens(USUAL), Some(Tokens(40_000)));
        assert_eq!(context(&there, wanted.map(Tokens), sizes), Tokens(want));
    }

    #[test]
    fn who_asks_for_little_or_nothing_gets_the_usual_context() {
        check(&[], None, USUAL);
        check(&[], Some(0), USUAL);
        check(&[], Some(USUAL), USUAL);
        check(&[], Some(USUAL + 1), 2 * USUAL);
        check(&[], Some(39_999), 40_000);
    }

    #[test]
    fn the_longest_that_is_ready_serves_whom_it_suffices() {
        use Place::{Away, Loading, Ready};
        check(&[(2048, Ready)], Some(1000), 2048);
        check(&[(2048, Ready)], None, USUAL);
        check(&[(USUAL, Ready), (16_384, Ready)], None, 16_384);
        check(&[(USUAL, Ready), (16_384, Loading)], None, USUAL);
        check(&[(USUAL, Ready), (16_384, Loading)], Some(10_000), 16_384);
        check(&[(USUAL, Ready), (16_384, Away)], Some(10_000), 16_384);
    }

    #[test]
    fn absurd_wishes_do_not_overflow() {
        assert_eq!(rounded(Tokens(u32::MAX), None), Tokens(u32::MAX));
        assert_eq!(rounded(Tokens(0), Some(Tokens(100))), Tokens(100));
    }
}
