//! What is guessed ahead in the next step: from what was said, by a rule, else by the draft model.

use tieline_decode::schedule::Share;
use tieline_types::RequestId;

use super::Desk;
use crate::answer::{Costs, Guess, Source};
use crate::drafter::Wanted;

/// How far what is thought of the draft model's cost goes back to what its size says, in a step in which it is
/// not asked: half of the way in some 700.
const FORGET: f64 = 0.001;

impl Desk<'_> {
    /// Guesses for all `shares`, in their order. Guesses beside prompts would make both slower: then none.
    pub(super) fn guess_ahead(&mut self, shares: &[Share]) -> Vec<Guess> {
        let mut guesses: Vec<Guess> = shares.iter().map(|_| Guess::default()).collect();
        if !shares.iter().all(|share| share.decodes) {
            return guesses;
        }
        let outputs = usize::try_from(self.settings.outputs).unwrap_or(1);
        let most = outputs.saturating_sub(shares.len()) / shares.len().max(1);
        let companions = shares.len().saturating_sub(1);
        let needed: usize = shares.iter().map(|share| share.tokens).sum();
        let mut spare = self.kv.room_for_guesses().saturating_sub(needed);
        let mut wanted = Vec::new();
        for (share, guess) in shares.iter().zip(&mut guesses) {
            let Some(answer) = self.answers.get_mut(&share.id) else { continue };
            let context = usize::try_from(self.settings.context).unwrap_or(0);
            let room = most.min(context.saturating_sub(answer.tokens.len() + 1)).min(spare);
            *guess = answer.guess(companions, room);
            spare -= guess.tokens.len().min(spare);
            let drafter = self.drafter.as_mut();
            let Some(drafter) = drafter.filter(|_| guess.tokens.is_empty() && room > 0) else {
                continue;
            };
            let length = drafter.wanted(answer, companions, room);
            if length > 0 {
                wanted.push(Wanted::new(share.id, length));
                spare -= length;
            }
        }
        self.ask_the_draft_model(shares, wanted, &mut guesses);
        guesses
    }

    fn ask_the_draft_model(
        &mut self,
        shares: &[Share],
        mut wanted: Vec<Wanted>,
        guesses: &mut [Guess],
    ) {
        let Some(drafter) = self.drafter.as_mut().filter(|_| !wanted.is_empty()) else { return };
        let threads = self.kv.context();
        drafter.read(&self.answers, &mut wanted, threads);
        drafter.guess(self.model, &mut self.answers, &mut wanted, threads);
        for one in wanted {
            let place = shares.iter().position(|share| share.id == one.id);
            if let Some(guess) = place.and_then(|at| guesses.get_mut(at)) {
                *guess = Guess { tokens: one.guesses, source: Source::Model };
            }
        }
    }

    /// Of `guess`, for the answer `id`, the first `right` tokens were right. Takes over what it has learned.
    pub(super) fn settle(
        &mut self,
        guess: &Guess,
        right: usize,
        (id, learned): (RequestId, Costs),
    ) {
        self.costs.steps = learned.steps.or(self.costs.steps.take());
        let Some(drafter) = &mut self.drafter else { return };
        if guess.source == Source::Model {
            drafter.checked(id, &guess.tokens, right);
            self.costs.making = learned.making.or(self.costs.making);
        } else if let Some(making) = &mut self.costs.making {
            // Or what one disturbed measurement said would stand for ever.
            *making += (drafter.prior() - *making) * FORGET;
        }
    }
}
