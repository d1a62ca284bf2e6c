//! Shows what a policy means, and runs its own tests.

use std::collections::BTreeSet;
use std::fmt;

use tieline_types::{DataClass, MicroUsd, Zone};

use super::glob::Glob;
use super::{Budget, BudgetScope, Policy, Program, ToolTask, Treatment};
use crate::choose::{Asked, Candidate, Decision, RefusalCode, Try, decide, everybody};

/// A request and what must become of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicyTest {
    /// What it shows.
    pub name: String,
    /// The request.
    pub asked: Asked,
    /// What must become of it.
    pub expected: Expected,
}

/// What must become of a request. What is not said may be anything.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Who is tried first.
    pub first: Option<Glob>,
    /// Whether nobody may answer.
    pub refused: Option<bool>,
    /// The class.
    pub class: Option<DataClass>,
    /// Nobody farther than this may answer, however many others are busy or in trouble.
    pub farthest: Option<Zone>,
    /// No more of it than this leaves the machine, whoever of them is asked.
    pub leaves: Option<Leaves>,
    /// What is done to it before it goes to the first.
    pub treatment: Option<Treatment>,
    /// The rule by which it goes to the first.
    pub rule: Option<String>,
    /// What it is about.
    pub task: Option<String>,
}

/// How much of a request leaves the machine, from least to most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leaves {
    /// Nothing.
    Nothing,
    /// What the detectors find is replaced.
    Redacted,
    /// All of it.
    AsIs,
}

impl Leaves {
    /// The word for it in policies.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Redacted => Treatment::Redacted.as_str(),
            Self::AsIs => Treatment::AsIs.as_str(),
        }
    }

    /// The most that leaves where any of these may be asked.
    fn of(everybody: &[Try]) -> Self {
        let others = everybody.iter().filter(|one| one.zone > Zone::Host);
        let leaves = others.map(|one| match one.treatment {
            Treatment::AsIs => Self::AsIs,
            Treatment::Redacted => Self::Redacted,
        });
        leaves.max().unwrap_or(Self::Nothing)
    }
}

/// How a test of the policy ended.
#[derive(Clone, Debug, PartialEq)]
pub struct TestResult {
    /// The test's name.
    pub name: String,
    /// What differs; empty: it passed.
    pub problems: Vec<String>,
    /// What was decided.
    pub decision: Decision,
}

/// What a policy means, and how its tests ended.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckReport {
    /// Who may reach what, a sentence each.
    pub lines: Vec<String>,
    /// The tests.
    pub tests: Vec<TestResult>,
}

impl CheckReport {
    /// Whether every test passed.
    pub fn passed(&self) -> bool {
        self.failed() == 0
    }

    fn failed(&self) -> usize {
        self.tests.iter().filter(|test| !test.problems.is_empty()).count()
    }

    /// What came of it, in a sentence.
    pub fn verdict(&self) -> String {
        match (self.tests.len(), self.failed()) {
            (0, _) => "the policy can be used; it has no tests".to_owned(),
            (1, 0) => "the policy can be used; its test passed".to_owned(),
            (all, 0) => format!("the policy can be used; its {all} tests passed"),
            (all, failed) => format!("{failed} of the policy's {all} tests failed"),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        for TestResult { name, problems, .. } in &self.tests {
            match problems.is_empty() {
                true => writeln!(f, "test {name:?}: passed")?,
                false => writeln!(f, "test {name:?}: failed: {}", problems.join("; "))?,
            }
        }
        Ok(())
    }
}

impl Policy {
    /// What the policy means, and its tests, with its own backends' models and these of this machine.
    pub fn check(&self, local: &[Candidate]) -> CheckReport {
        let mut candidates = self.remote_candidates();
        candidates.extend(local.iter().cloned().map(|candidate| self.with_local(candidate)));
        let run = |test: &PolicyTest| {
            let decision = decide(self, &test.asked, &candidates);
            let everybody = everybody(self, &test.asked, &candidates);
            let problems = test.expected.differs(&decision, &everybody);
            TestResult { name: test.name.clone(), problems, decision }
        };
        let mut lines = self.explain();
        lines.extend(self.spaces(&candidates));
        CheckReport { lines, tests: self.tests.iter().map(run).collect() }
    }

    /// Which aliases make vectors, and which would if theirs could be compared.
    fn spaces(&self, candidates: &[Candidate]) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, alias) in &self.aliases {
            let is_meant = |one: &&Candidate| {
                let globs = &alias.candidates;
                globs.is_empty() || globs.iter().any(|glob| glob.fits(&one.name))
            };
            let makers = candidates.iter().filter(|one| one.abilities.embeddings);
            let spaces: BTreeSet<&str> = makers.filter(is_meant).map(Candidate::space).collect();
            let all = spaces.iter().copied().collect::<Vec<_>>().join(", ");
            match spaces.len() {
                0 => {}
                1 => lines.push(format!("alias {name} makes vectors of the space {all}")),
                _ => lines.push(format!(
                    "note: alias {name} makes no vectors: those of {all} cannot be compared"
                )),
            }
        }
        lines
    }

    /// Who may reach what, a sentence each.
    fn explain(&self) -> Vec<String> {
        let mut lines =
            vec![format!("a request that nothing classifies is {}", self.default_class)];
        lines.extend(self.classes());
        for class in DataClass::ALL {
            let rules = self.rules.iter().filter(|rule| rule.classes.contains(&class));
            let mut ways: Vec<String> = Vec::new();
            for rule in rules {
                let zones: Vec<&str> = rule.zones.iter().map(|zone| zone.as_str()).collect();
                let mut way = format!("{} {}", zones.join(" or "), rule.treatment.as_str());
                if !rule.to.is_empty() {
                    let to: Vec<&str> = rule.to.iter().map(Glob::as_str).collect();
                    way += &format!(" to {}", to.join(" or "));
                }
                if !rule.keys.is_empty() {
                    way += &format!(" by key {}", rule.keys.join(" or "));
                }
                ways.push(format!("{way} (rule {:?})", rule.name));
            }
            lines.push(match ways.is_empty() {
                true => format!("{class} stays on this machine"),
                false => format!("{class} may reach {}", ways.join(", or else ")),
            });
        }
        if let Some(projects) = &self.git_identity {
            let besides = projects.iter().map(|project| format!(" and in that of {project}"));
            let besides: String = besides.collect();
            lines.push(format!(
                "the names and addresses in your git configuration{besides} are private, like terms"
            ));
        }
        if let Some(zone) = self.offline {
            lines.push(format!("offline: nothing goes farther than {zone} at the moment"));
        }
        for (name, backend) in &self.backends {
            let models: Vec<&str> = backend.models.keys().map(String::as_str).collect();
            lines.push(format!("backend {name} in zone {}: {}", backend.zone, models.join(", ")));
        }
        for ToolTask { name, tool } in &self.tasks {
            let tools: Vec<&str> = tool.iter().map(Glob::as_str).collect();
            let tools = tools.join(" or ");
            lines.push(format!("a request that offers a tool {tools} is about {name}"));
        }
        for rule in &self.rules {
            let reached = |zone| self.backends.values().any(|backend| backend.zone == zone);
            if !rule.zones.iter().any(|zone| reached(*zone)) {
                lines.push(format!("note: rule {:?} allows zones where no backend is", rule.name));
            }
        }
        lines.extend(self.habits());
        lines.extend(self.money());
        lines.extend(self.aliases.iter().filter_map(|(name, alias)| {
            let Program { words, time, reads } = alias.check.as_ref()?;
            Some(judged(name, words, (time.as_secs_f64(), reads.is_none())))
        }));
        lines
    }

    /// What may be spent, a sentence each.
    fn money(&self) -> Vec<String> {
        let budget = |budget: &Budget| {
            let caps = [(budget.day, "a day"), (budget.month, "a month")];
            let caps = caps.iter().filter_map(|(cap, each)| Some(format!("{} {each}", (*cap)?)));
            let whose = match &budget.scope {
                BudgetScope::Everything => "all together".to_owned(),
                BudgetScope::Key(key) => format!("key {key}"),
                BudgetScope::Project(project) => format!("project {project}"),
            };
            format!("{whose} may spend {}", caps.collect::<Vec<_>>().join(" and "))
        };
        let hedge = self.hedge.day;
        let hedge = (hedge > MicroUsd::ZERO).then(|| format!("hedges may spend {hedge} a day"));
        self.budgets.iter().map(budget).chain(hedge).collect()
    }
}

/// Which program judges for an alias, within how many seconds, and whether nothing is shut to it.
fn judged(name: &str, words: &[String], (time, open): (f64, bool)) -> String {
    let program = words.first().map_or("", String::as_str);
    let open = if open { ", with all that you may" } else { "" };
    format!(
        "alias {name}: {program} judges what a cascade's first model says, within {time} s{open}"
    )
}

impl Expected {
    /// What is otherwise. Whom nobody would ask today a server whose other models are in trouble does ask: what must not
    /// be is judged by `everybody` who may answer.
    fn differs(&self, decision: &Decision, everybody: &[Try]) -> Vec<String> {
        let first = decision.tries.first();
        let mut problems = Vec::new();
        let unknown = decision.refusal.as_ref().filter(|why| why.code == RefusalCode::UnknownModel);
        // Of a misspelt name nothing leaves, whatever the rules are.
        let bounded = self.leaves.is_some() || self.farthest.is_some();
        if unknown.is_some() && bounded && self.refused != Some(true) {
            problems.push("nobody has the model that it names".to_owned());
        }
        let mut compare = |what: &str, wanted: Option<String>, got: String, same: bool| {
            if let Some(wanted) = wanted.filter(|_| !same) {
                problems.push(format!("{what} is {got}, not {wanted}"));
            }
        };
        let name = first.map_or("nobody", |first| &first.name);
        let fits = self.first.as_ref().is_some_and(|glob| glob.fits(name));
        compare("the first", self.first.as_ref().map(Glob::to_string), name.to_owned(), fits);
        let refused = decision.refusal.is_some();
        let same = self.refused == Some(refused);
        compare("refused", self.refused.map(|flag| flag.to_string()), refused.to_string(), same);
        let class = decision.class;
        let same = self.class == Some(class);
        compare("the class", self.class.map(|class| class.to_string()), class.to_string(), same);
        let farthest = everybody.iter().map(|one| one.zone).max();
        let same = self.farthest.is_some_and(|most| farthest.is_none_or(|zone| zone <= most));
        let got = farthest.map_or("none", Zone::as_str).to_owned();
        compare("the farthest zone", self.farthest.map(|zone| zone.to_string()), got, same);
        let leaves = Leaves::of(everybody);
        let same = self.leaves.is_some_and(|most| leaves <= most);
        let wanted = self.leaves.map(|most| format!("at most {}", most.as_str()));
        compare("what leaves", wanted, leaves.as_str().to_owned(), same);
        let treatment = first.map(|first| first.treatment);
        let same = self.treatment.is_some() && self.treatment == treatment;
        let wanted = self.treatment.map(|treatment| treatment.as_str().to_owned());
        compare(
            "the treatment",
            wanted,
            treatment.map_or("none", Treatment::as_str).to_owned(),
            same,
        );
        let (task, same) = (decision.task.clone(), self.task.as_ref() == Some(&decision.task));
        compare("the task", self.task.clone(), task, same);
        let rule = first.map_or("none", |first| &first.rule);
        let same = self.rule.as_deref() == Some(rule);
        let wanted = self.rule.as_ref().map(|rule| format!("{rule:?}"));
        compare("the rule", wanted, format!("{rule:?}"), same);
        problems
    }
}
