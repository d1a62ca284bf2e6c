//! What a policy knows of models, as candidates.

use std::time::Duration;

use tieline_types::Source;

use super::{ModelPolicy, Policy, Protocol};
use crate::choose::{Abilities, Candidate, Estimate, Figure, Profile, State};

impl Policy {
    /// All models of the policy's backends, by `backend/model`, in the state of one that is ready. Their prices
    /// are the policy's own: whoever has a price table fills in the others.
    pub fn remote_candidates(&self) -> Vec<Candidate> {
        let mut all = Vec::new();
        for (backend, settings) in &self.backends {
            for (model, known) in &settings.models {
                let mut candidate = Candidate {
                    name: format!("{backend}/{model}"),
                    local: false,
                    zone: settings.zone,
                    abilities: Abilities {
                        // Tieline hands tokens' grammars on to another Tieline; no other protocol has a word.
                        grammar: settings.protocol == Protocol::Tieline,
                        cuts: settings.protocol == Protocol::Ollama,
                        ..Abilities::default()
                    },
                    space: None,
                    context: None,
                    max_output: None,
                    price: None,
                    above: None,
                    licence: None,
                    profile: Profile::default(),
                    state: State::default(),
                };
                known.apply(&mut candidate);
                all.push(candidate);
            }
        }
        all
    }

    /// A model of this machine, with what the policy knows of it besides. What was measured stays.
    pub fn with_local(&self, mut candidate: Candidate) -> Candidate {
        if let Some(known) = self.local.get(&candidate.name).filter(|_| candidate.local) {
            known.apply(&mut candidate);
        }
        candidate
    }
}

impl ModelPolicy {
    fn apply(&self, candidate: &mut Candidate) {
        let Candidate { abilities, profile, local, .. } = candidate;
        let flags = [
            (self.tools, &mut abilities.tools),
            (self.vision, &mut abilities.vision),
            (self.json_schema, &mut abilities.json_schema),
            (self.reasoning, &mut abilities.reasoning),
            (self.logprobs, &mut abilities.logprobs),
            (self.embeddings, &mut abilities.embeddings),
            (self.rerank, &mut abilities.rerank),
        ];
        for (said, flag) in flags {
            *flag = said.unwrap_or(*flag);
        }
        // A vendor's model does one or the other; what one of this machine's does, its file says.
        if !*local {
            abilities.silent = abilities.embeddings || abilities.rerank;
        }
        let figures = [
            (self.prefill_tps, &mut profile.prefill_tps),
            (self.decode_tps, &mut profile.decode_tps),
            (self.first_token.map(|time: Duration| time.as_secs_f64()), &mut profile.first_token_s),
        ];
        for (said, figure) in figures {
            *figure = figure.or(said.map(|value| Figure { value, source: Source::Reported }));
        }
        for (task, &mean) in &self.quality {
            let said = Estimate { mean, low: mean, samples: 0, source: Source::Reported };
            profile.quality.entry(task.clone()).or_insert(said);
        }
        // A policy makes a context smaller, never larger than it is.
        candidate.context = match (candidate.context, self.context) {
            (Some(there), Some(said)) => Some(there.min(said)),
            (there, said) => there.or(said),
        };
        candidate.max_output = self.max_output.or(candidate.max_output);
        candidate.price = self.price.or(candidate.price);
        if self.space.is_some() {
            candidate.space.clone_from(&self.space);
        }
        if self.licence.is_some() {
            candidate.licence.clone_from(&self.licence);
        }
    }
}
