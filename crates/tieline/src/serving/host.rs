//! Which variant of a model serves a request.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tieline_engine::pool::decide::Phase;
use tieline_engine::pool::{Eviction, Standing};
use tieline_engine::{Member, Pool, probe};
use tieline_store::{Catalogue, Model};
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Abilities, Adapters, BackendError, Bytes, Departure, ErrorKind, EventStream, Host, HostStatus,
    Keep, LoadParams, ModelCard, ModelDetails, Pooling, Request, Residence, Served, Tokens, Wanted,
};

use super::cards::Cards;
use super::variants::{self, Kind, Place, Variant, Variants};
use super::{Ground, abilities, blocking, errors, needs};
use crate::composed::{self, Found};

/// This machine's models by name.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) ground: Arc<Ground>,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) cards: Cards,
    pub(super) variants: Arc<Variants>,
    pub(super) pool: Pool,
    pub(super) params: LoadParams,
    pub(super) keep: Keep,
}

/// What a request needs of a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Text,
    /// Vectors or scores.
    Vectors,
    /// Only the tokeniser and the template: any variant has them.
    Words,
}

/// A model, and the adapters that change it.
struct Composite {
    found: Found,
    adapters: Adapters,
}

impl Composite {
    /// Refuses adapters that take more than the model leaves of what there is.
    fn check_room(&self, variant: &Variant, there: Bytes) -> Result<(), BackendError> {
        let adapters = self.found.adapter_bytes();
        let base = variant.need().map_or(Bytes(0), |need| need.bytes());
        if base.0.saturating_add(adapters.0) <= there.0 || self.adapters.is_empty() {
            return Ok(());
        }
        let text = format!(
            "{} needs {base} of memory and its adapters {adapters}, and there are {there}",
            variant.name
        );
        let hint = "use a smaller context or fewer adapters, or allow more with --memory";
        Err(BackendError::new(ErrorKind::OutOfMemory, text).with_hint(hint))
    }
}

/// A model that is to do something, and how long it stays then.
struct Placed {
    what: Composite,
    variant: Arc<Variant>,
    keep: Option<Keep>,
}

impl Machine {
    /// What a name means, and what it can do.
    async fn known(&self, name: &str) -> Result<(Composite, Abilities), BackendError> {
        let (cards, store) = (self.cards.clone(), self.ground.store.clone());
        let find = self.finding(name.to_owned());
        blocking(move || {
            let found = find()?;
            let abilities = cards.header(&found.base)?.abilities;
            let adapters = found.set(&store).map_err(errors::composed)?;
            Ok((Composite { found, adapters }, abilities))
        })
        .await
    }

    /// What finds out what a name means. Asks the database, and reads headers of adapters that are new.
    fn finding(
        &self,
        name: String,
    ) -> impl FnOnce() -> Result<Found, BackendError> + Send + 'static {
        let (store, catalogue) = (self.ground.store.clone(), Arc::clone(&self.catalogue));
        let cards = self.cards.clone();
        move || {
            let found = composed::find(&store, &catalogue, &name).map_err(errors::composed)?;
            cards.fit(&found)?;
            Ok(found)
        }
    }

    /// The variant that serves, as a member of the pool.
    async fn place(&self, wanted: &Wanted, purpose: Purpose) -> Result<Placed, BackendError> {
        let (composite, abilities) = self.known(&wanted.name).await?;
        let model = composite.found.base.clone();
        let vectors = vectors(wanted, purpose, abilities);
        let least = possible(&model, wanted.context);
        let all = self.variants.of(model.digest);
        let ready = all.iter().find(|one| one.place() == Place::Ready);
        if let (Purpose::Words, None, Some(ready)) = (purpose, wanted.vectors, ready) {
            return Ok(self.placed(composite, Arc::clone(ready), wanted.keep));
        }
        let there: Vec<_> = all
            .iter()
            .filter(|one| one.kind.vectors == vectors)
            .map(|one| (one.kind.context, one.place()))
            .collect();
        // How long a text a model makes one vector of, the runner knows best.
        let usual = if vectors.is_some() { variants::OWN } else { self.usual_context(&model) };
        let sizes = (usual, model.context_length);
        let context = variants::context(&there, least, sizes);
        let variant = self.planned(&model, Kind { context, vectors }, least).await?;
        composite.check_room(&variant, self.ground.budget)?;
        let inherited = match variant.place() {
            Place::Away => self.replace(&all, &variant).await?,
            Place::Loading | Place::Ready => None,
        };
        Ok(self.placed(composite, variant, wanted.keep.or(inherited)))
    }

    fn placed(&self, what: Composite, variant: Arc<Variant>, keep: Option<Keep>) -> Placed {
        if let Some(keep) = keep {
            variant.is_kept(keep);
        }
        Placed { what, variant, keep }
    }

    /// The context of who asks for none.
    fn usual_context(&self, model: &Model) -> Tokens {
        let usual = self.params.context.unwrap_or(LoadParams::DEFAULT_CONTEXT);
        model.context_length.map_or(usual, |trained| trained.min(usual))
    }

    /// A variant of this kind that fits the budget; where the usual context does not, one of what is wanted.
    async fn planned(
        &self,
        model: &Model,
        kind: Kind,
        wanted: Option<Tokens>,
    ) -> Result<Arc<Variant>, BackendError> {
        let least = wanted.map(|wanted| variants::rounded(wanted, model.context_length));
        let smaller = least.filter(|least| *least < kind.context);
        match (self.member(model, kind).await, smaller) {
            (Err(error), Some(context)) if error.kind == ErrorKind::OutOfMemory => {
                self.member(model, Kind { context, ..kind }).await
            }
            (result, _) => result,
        }
    }

    /// The variant of this kind, as a member of the pool.
    pub(super) async fn member(
        &self,
        model: &Model,
        kind: Kind,
    ) -> Result<Arc<Variant>, BackendError> {
        let (variant, is_new) = self.variants.take(model, kind, &self.params);
        if is_new {
            self.forget_removed().await?;
        }
        let (keep_alive, pinned) = match self.keep {
            Keep::For(time) => (Some(time), false),
            Keep::Forever => (None, true),
        };
        let (name, bytes, devices) = (variant.name.clone(), Bytes(0), <_>::default());
        let member = Member { name, bytes, devices, pinned, keep_alive };
        needs::join(&self.ground, &variant, (&self.pool, member)).await?;
        Ok(variant)
    }

    /// Forgets variants of models that are not in the store any more.
    async fn forget_removed(&self) -> Result<(), BackendError> {
        let store = self.ground.store.clone();
        let models = blocking(move || store.list().map_err(errors::db)).await?;
        let digests: Vec<_> = models.iter().map(|model| model.digest).collect();
        for name in self.variants.retain(&digests) {
            self.pool.forget(&name).await?;
        }
        Ok(())
    }

    /// Has variants leave that a larger one makes superfluous, as soon as they are idle. Returns how long they
    /// were to stay, where that is for ever.
    async fn replace(
        &self,
        all: &[Arc<Variant>],
        larger: &Variant,
    ) -> Result<Option<Keep>, BackendError> {
        let mut inherited = None;
        let smaller = all.iter().filter(|one| {
            one.kind.vectors == larger.kind.vectors
                && one.kind.context < larger.kind.context
                && one.place() != Place::Away
        });
        for one in smaller {
            inherited = inherited.or(one.keep().filter(|keep| *keep == Keep::Forever));
            // It may be forgotten by now: then it leaves as well.
            match self.pool.keep(&one.name, Keep::For(Duration::ZERO)).await {
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(inherited)
    }

    fn residence(&self, standing: Standing) -> Option<Residence> {
        let phase = match standing.phase {
            Some(Phase::Ready) => "ready",
            Some(Phase::Ending) => "ending",
            Some(Phase::Loading) => "loading",
            // It is about to be loaded.
            None if standing.waiting > 0 => "loading",
            None => return None,
        };
        let model = &self.variants.named(&standing.member.name)?.model;
        Some(Residence {
            name: model.name.clone(),
            digest: model.digest,
            phase,
            planned: standing.member.bytes,
            devices: standing.devices,
            served: standing.served,
            adapters: standing.adapters,
            busy: standing.busy,
            waiting: standing.waiting,
            loads: standing.loads,
            unwritten: standing.unwritten,
            memory: standing.pid.and_then(probe::process_memory),
            pinned: standing.member.pinned,
            leaves_in: standing.leaves_in,
        })
    }

    fn departure(&self, eviction: Eviction, age: Duration) -> Departure {
        let named = |model: String| {
            self.variants.named(&model).map_or(model, |variant| variant.model.name.clone())
        };
        Departure {
            name: named(eviction.model),
            reason: eviction.reason,
            other: eviction.other.map(named),
            ago: age.saturating_sub(eviction.at),
        }
    }
}

/// A wish for a context, as far as the model was trained for it: clients wish for the same of every model.
fn possible(model: &Model, wanted: Option<Tokens>) -> Option<Tokens> {
    let most = model.context_length.unwrap_or(Tokens(u32::MAX));
    wanted.map(|wanted| wanted.min(most))
}

/// How vectors are made of tokens, where they are to be made.
fn vectors(wanted: &Wanted, purpose: Purpose, abilities: Abilities) -> Option<Pooling> {
    // What writes no text cannot be loaded to write any.
    let needed = purpose == Purpose::Vectors || !abilities.completion;
    wanted.vectors.or(needed.then_some(Pooling::Model))
}

fn purpose(work: &Work) -> Purpose {
    match work {
        Work::Embed { .. } | Work::Rank { .. } => Purpose::Vectors,
        Work::Tokenize { .. } | Work::Detokenize { .. } | Work::Render { .. } | Work::Count(_) => {
            Purpose::Words
        }
        Work::Generate(_) | Work::Measure { .. } => Purpose::Text,
    }
}

#[async_trait]
impl Host for Machine {
    async fn models(&self) -> Result<Vec<ModelCard>, BackendError> {
        let cards = self.cards.clone();
        blocking(move || cards.all()).await
    }

    async fn describe(&self, name: &str) -> Result<ModelDetails, BackendError> {
        let (cards, find) = (self.cards.clone(), self.finding(name.to_owned()));
        blocking(move || {
            let found = find()?;
            let details = cards.details(&found.base)?;
            let (name, digest) = (found.name(), found.digest());
            let card = ModelCard { name, digest, ..details.card };
            Ok(ModelDetails { card, ..details })
        })
        .await
    }

    async fn check(&self, wanted: &Wanted, request: &Request) -> Result<(), BackendError> {
        if self.variants.is_ready(&wanted.name) {
            // Its runner says at once what else it cannot do, and knows it best.
            return tieline_engine::check_request(request);
        }
        // The name comes first: whatever else is wrong is told of models that are here.
        let (composite, abilities) = self.known(&wanted.name).await?;
        tieline_engine::check_request(request)?;
        abilities::check(abilities, &composite.found.base.name, &request.prompt)
    }

    async fn ready(&self, wanted: &Wanted) -> Result<Arc<Served>, BackendError> {
        // Who has it leave after the answer asks for the answer next.
        let keep = wanted.keep.filter(|keep| *keep != Keep::For(Duration::ZERO));
        let wanted = Wanted { keep, ..wanted.clone() };
        let Placed { what, variant, keep } = self.place(&wanted, Purpose::Text).await?;
        let served = self.pool.ready(&variant.name, keep).await?;
        let name = what.found.name();
        if served.name == name {
            return Ok(served);
        }
        // The same content under another of its names; with adapters it is other content.
        let digest = what.found.digest();
        Ok(Arc::new(Served { name, digest, ..(*served).clone() }))
    }

    async fn run(&self, wanted: &Wanted, request: Request) -> Result<EventStream, BackendError> {
        let Placed { what, variant, keep } = self.place(wanted, Purpose::Text).await?;
        let request = Request { adapters: what.adapters, ..request };
        self.pool.run(&variant.name, keep, request).await
    }

    async fn work(&self, wanted: &Wanted, work: Work) -> Result<Reply, BackendError> {
        let purpose = purpose(&work);
        let Placed { what, variant, keep } = self.place(wanted, purpose).await?;
        if purpose == Purpose::Vectors && !what.adapters.is_empty() {
            let text = "adapters change what a model writes; it makes vectors without them";
            return Err(BackendError::new(ErrorKind::Unsupported, text));
        }
        self.pool.work(&variant.name, keep, work).await
    }

    async fn status(&self) -> Result<HostStatus, BackendError> {
        let overview = self.pool.overview().await?;
        let age = overview.age;
        let departures = overview.evictions.into_iter();
        Ok(HostStatus {
            budget: overview.budget,
            taken: overview.taken,
            devices: overview.devices,
            models: overview.members.into_iter().filter_map(|one| self.residence(one)).collect(),
            departures: departures.map(|one| self.departure(one, age)).collect(),
            unfit: self.variants.unfit(overview.budget, |model| self.usual_context(model)),
        })
    }

    async fn unload(&self, name: &str) -> Result<(), BackendError> {
        let found = blocking(self.finding(name.to_owned())).await?;
        for variant in self.variants.of(found.base.digest) {
            match self.pool.unload(&variant.name).await {
                // One that never became a member is not there.
                Err(error) if error.kind != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}
