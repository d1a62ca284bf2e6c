//! Kept answers of a policy that wants some: under which name an answer is kept, and what is told of one that is
//! given again.

use std::sync::Arc;
use std::time::Duration;

use tieline_types::{Digest, MicroUsd, ModelCard, Request, Usage, Wanted};

use super::planned::{Planned, Tried};
use crate::carry::answers::Name;
use crate::carry::{Answers, AnswersLimits, Found, Origin};
use crate::choose::Decision;
use crate::policy::Policy;
use crate::run::Again;

/// How an answer that was given again is told of.
pub(crate) const KEPT: &str = "kept";

/// The answers that a policy has kept; none where it wants none. Another policy begins without any.
pub(super) fn shelf(policy: &Policy) -> Option<Arc<Answers>> {
    if !policy.cache.exact {
        return None;
    }
    let mut secret = [0; 32];
    // Without a secret names could be guessed: then nothing is kept.
    getrandom::fill(&mut secret).ok()?;
    let usual = AnswersLimits::default();
    let age: Duration = policy.cache.keep.unwrap_or(usual.age);
    Some(Arc::new(Answers::new(secret, AnswersLimits { age, ..usual })))
}

/// Where one request's answers are looked for and kept.
#[derive(Debug)]
pub(super) struct Shelf {
    answers: Arc<Answers>,
    /// Who would answer: by the policy, and what their files hold.
    model: String,
    look: bool,
}

impl Shelf {
    /// `None`: nothing is kept of this request, nor given again.
    pub(super) fn of(
        answers: &Arc<Answers>,
        (policy, decision): (&Policy, &Decision),
        (again, wanted, cards): (Again, &Wanted, &[ModelCard]),
    ) -> Option<Self> {
        if again == Again::Never || !policy.cache.classes.contains(&decision.class) {
            return None;
        }
        let file = |name: &str| -> Option<Digest> {
            cards.iter().find(|card| card.name == name).map(|card| card.digest)
        };
        let who = decision.tries.iter().map(|one| (&one.name, &one.rule, file(&one.name)));
        let who: Vec<_> = who.collect();
        // Debug tells each part from the next: names are quoted.
        let (context, special) = (wanted.context, wanted.special);
        let asked = &decision.asked;
        let model = format!("{} {asked:?} {context:?} {special} {who:?}", policy.digest);
        Some(Self { answers: Arc::clone(answers), model, look: again == Again::Welcome })
    }

    pub(super) fn name(&self, decision: &Decision, request: &Request) -> Option<Name> {
        self.answers.name(&self.model, decision.class, request)
    }

    pub(super) fn find(&self, name: Name) -> Option<Found> {
        let now = tokio::time::Instant::now().into_std();
        if self.look { self.answers.find(name, now) } else { None }
    }

    pub(super) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }
}

impl Planned {
    /// What is told of an answer that was given again: nothing left this machine, and nothing was paid.
    pub(super) fn given_again(&self, origin: &Origin, usage: Usage) -> Tried {
        Tried {
            first_token_us: Some(0),
            usage: Some(usage),
            source: origin.source,
            saved_micro_usd: origin.cost.map(|MicroUsd(cost)| cost),
            ..self.free(&origin.by, KEPT)
        }
    }
}
