//! Says what a policy means besides who may reach what: classes, times, weights and kept answers.

use std::time::Duration;

use tieline_types::DataClass;

use super::glob::Glob;
use super::{CachePolicy, Classify, Deadlines, Policy, Preferences};
use crate::carry::AnswersLimits;

impl Policy {
    /// What gives a request its class, a sentence each.
    pub(super) fn classes(&self) -> Vec<String> {
        self.classify.iter().map(Classify::told).collect()
    }

    /// How long answers may take, what counts how much, and what is kept, a sentence each.
    pub(super) fn habits(&self) -> Vec<String> {
        let aliases = self.aliases.iter().filter_map(|(name, alias)| {
            let first = alias.first_token.map(|time| format!("begins within {}", seconds(time)));
            let total = alias.total.map(|time| format!("ends within {}", seconds(time)));
            let both: Vec<String> = first.into_iter().chain(total).collect();
            (!both.is_empty()).then(|| format!("alias {name}: an answer {}", both.join(" and ")))
        });
        let all = [self.deadlines.told()].into_iter().chain(aliases);
        all.chain([self.preferences.told(), self.cache.told()]).chain(self.machine.told()).collect()
    }
}

impl Classify {
    fn told(&self) -> String {
        let globs = |all: &[Glob]| all.iter().map(Glob::as_str).collect::<Vec<_>>().join(" or ");
        let entities: Vec<&str> = self.entity.iter().map(|entity| entity.as_str()).collect();
        let found = match self.at_least {
            0 | 1 => format!("{} is found in it", entities.join(" or ")),
            least => format!("at least {least} of {} are found in it", entities.join(" or ")),
        };
        let all = [
            (!self.path.is_empty(), format!("its path is {}", globs(&self.path))),
            (!self.project.is_empty(), format!("its project is {}", globs(&self.project))),
            (!self.key.is_empty(), format!("its key is {}", self.key.join(" or "))),
            (!self.label.is_empty(), format!("its label is {}", self.label.join(" or "))),
            (!self.entity.is_empty(), found),
        ];
        let said: Vec<String> =
            all.into_iter().filter_map(|(is, text)| is.then_some(text)).collect();
        let said = match said.is_empty() {
            true => "always".to_owned(),
            false => format!("where {}", said.join(" and ")),
        };
        format!("a request is {} {said} (classify {:?})", self.class, self.name)
    }
}

impl Deadlines {
    fn told(&self) -> String {
        let Self { connect, first_token, idle, total } = *self;
        format!(
            "deadlines: {} for a connection, {} until the first token, {} between two, {} in all",
            seconds(connect),
            seconds(first_token),
            seconds(idle),
            seconds(total)
        )
    }
}

impl Preferences {
    fn told(&self) -> String {
        let Self {
            cost_per_usd,
            deadline,
            wait_per_s,
            switch,
            energy_per_kj,
            margin,
            cascade_margin,
            fallbacks,
        } = self;
        format!(
            "preferences: of a quality from 0 to 1 a dollar is worth {cost_per_usd}, a missed deadline {deadline}, a second \
             {wait_per_s}, a kilojoule {energy_per_kj}; a forgotten session counts {switch} times; a session moves for \
             {margin}, a model of this machine is tried first within {cascade_margin}; fallbacks: {fallbacks}"
        )
    }
}

impl CachePolicy {
    fn told(&self) -> String {
        if !self.exact {
            return "no answer is kept to be given again".to_owned();
        }
        let classes: Vec<&str> = self.classes.iter().copied().map(DataClass::as_str).collect();
        let keep = seconds(self.keep.unwrap_or(AnswersLimits::default().age));
        format!("an answer to a {} request may be given again for {keep}", classes.join(" or "))
    }
}

fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}
