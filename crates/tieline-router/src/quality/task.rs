//! What a prompt asks for: declared by the client, else by a rule, else by a small model, else unknown.
//!
//! The model is naive Bayes on hashed n-grams, 2^16 weights at most, made of labelled lines in a millisecond. It
//! looks at the head of the text alone and keeps none of it.

mod model;

use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use model::{Line, Model, TrainError};

/// Lines that the built-in model is trained on: written for this purpose, in seven languages.
const LINES: &str = include_str!("task/train.tsv");
/// How much likelier another task must be before the task of a session changes.
pub const HOLD: f64 = 0.25;
/// Bytes at the start that word rules look at.
const HEAD: usize = 240;

/// Kinds of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Write, mend or explain programs.
    Code,
    /// Talk.
    Chat,
    /// Say the same in fewer words.
    Summarise,
    /// Say the same in another language.
    Translate,
    /// Find given kinds of things in a text.
    Extract,
    /// Compute or prove.
    Math,
    /// Choose among labels.
    Classify,
    /// Say the same in a better way.
    Rewrite,
    /// Answer a question of fact or explain.
    Question,
    /// Act with tools.
    Agent,
}

impl Task {
    /// All of them, in the order of their weights.
    pub const ALL: [Self; 10] = [
        Self::Code,
        Self::Chat,
        Self::Summarise,
        Self::Translate,
        Self::Extract,
        Self::Math,
        Self::Classify,
        Self::Rewrite,
        Self::Question,
        Self::Agent,
    ];

    /// The name in headers, aliases and files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Chat => "chat",
            Self::Summarise => "summarise",
            Self::Translate => "translate",
            Self::Extract => "extract",
            Self::Math => "math",
            Self::Classify => "classify",
            Self::Rewrite => "rewrite",
            Self::Question => "question",
            Self::Agent => "agent",
        }
    }

    /// Tasks that an artefact is alike good or bad at.
    #[must_use]
    pub fn family(self) -> &'static str {
        match self {
            Self::Code | Self::Math => "reason",
            Self::Chat | Self::Question => "talk",
            Self::Summarise | Self::Translate | Self::Rewrite => "text",
            Self::Extract | Self::Classify => "read",
            Self::Agent => "act",
        }
    }
}

/// A name that is no task.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no such task: expected code, chat, summarise, translate, extract, math, classify, rewrite, question or agent"
)]
pub struct UnknownTask;

impl FromStr for Task {
    type Err = UnknownTask;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|task| task.as_str() == text).ok_or(UnknownTask)
    }
}

/// What is known of a request beside its text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// What the client says by alias, header or tool.
    pub declared: Option<Task>,
    /// Tools may be called.
    pub has_tools: bool,
    /// The answer must keep to a JSON schema.
    pub has_schema: bool,
    /// The task of the session so far.
    pub held: Option<Task>,
}

/// Who said what the task is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// The client.
    Declared,
    /// A rule.
    Rule,
    /// The model.
    Model,
    /// The session: the model is not sure enough of a change.
    Held,
}

/// The task of a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inferred {
    /// `None`: unknown, and better treated so than guessed.
    pub task: Option<Task>,
    /// The model's probability for that task, after its temperature. `None`: declared or by rule, which have none.
    pub confidence: Option<f64>,
    /// Who said so.
    pub by: By,
}

impl Model {
    /// The built-in one. `None` only where the lines that it is made of are damaged.
    #[must_use]
    pub fn built_in() -> Option<Self> {
        Self::train(&lines(LINES)).ok()
    }

    /// The task of a prompt.
    #[must_use]
    pub fn infer(&self, prompt: &str, hints: Hints) -> Inferred {
        let certain = |task, by| Inferred { task: Some(task), confidence: None, by };
        if let Some(task) = hints.declared {
            return certain(task, By::Declared);
        }
        if let Some(task) = rule(prompt) {
            return certain(task, By::Rule);
        }
        let chances = self.chances(prompt);
        let chance = |task: Task| chances.iter().find(|one| one.0 == task).map_or(0.0, |one| one.1);
        let best = chances.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
        let (task, confidence) = best.unwrap_or((Task::Chat, 0.0));
        let is_known = confidence >= self.least();
        let is_change =
            |held: &Task| *held != task && is_known && confidence >= chance(*held) + HOLD;
        if let Some(held) =
            hints.held.filter(|held| *held != task || !is_known).filter(|held| !is_change(held))
        {
            return Inferred { task: Some(held), confidence: Some(chance(held)), by: By::Held };
        }
        match (is_known, hints) {
            (true, _) => Inferred { task: Some(task), confidence: Some(confidence), by: By::Model },
            // What the request carries says more than words that nobody understands.
            (false, Hints { has_tools: true, .. }) => certain(Task::Agent, By::Rule),
            (false, Hints { has_schema: true, .. }) => certain(Task::Extract, By::Rule),
            (false, _) => Inferred { task: None, confidence: Some(confidence), by: By::Model },
        }
    }
}

/// Reads lines of a task, a tab and a prompt. Others are left out.
#[must_use]
pub fn lines(text: &str) -> Vec<Line<'_>> {
    let line = |line: &'_ str| -> Option<(Task, usize)> {
        let (task, _) = line.split_once('\t')?;
        Some((task.parse().ok()?, task.len() + 1))
    };
    text.lines()
        .filter_map(|text| line(text).map(|(task, at)| Line { task, prompt: &text[at..] }))
        .collect()
}

/// Words that leave no doubt, by their stems in several languages.
const STEMS: [(Task, &[&str]); 3] = [
    (Task::Translate, &["translat", "übersetz", "traduc", "traduis", "traduz", "перевед", "翻译"]),
    (Task::Summarise, &["summar", "summaris", "tldr", "zusammenfass", "résum", "riassum", "总结"]),
    (Task::Extract, &["extract", "extrahier", "extrais", "extrae", "estrai", "извлек", "提取"]),
];

/// A fence, a statement of SQL, a file of source; or the one stem that is there.
fn rule(prompt: &str) -> Option<Task> {
    let end = (0..=HEAD.min(prompt.len())).rev().find(|end| prompt.is_char_boundary(*end))?;
    let head = prompt[..end].to_lowercase();
    let mut words =
        head.split(|character: char| !character.is_alphanumeric()).filter(|word| !word.is_empty());
    let says = |stems: &[&str], word: &str| {
        // Languages without spaces have the stem within a run of characters.
        let is_within =
            |stem: &str| stem.len() == 6 && stem.chars().count() == 2 && word.contains(stem);
        let is_ascii = word.is_ascii();
        stems.iter().any(|stem| word.starts_with(stem) || (!is_ascii && is_within(stem)))
    };
    let found = words.find_map(|word| STEMS.iter().find(|(_, stems)| says(stems, word)));
    if let Some((task, _)) = found {
        return Some(*task);
    }
    let is_sql =
        head.starts_with("select ") && head.contains(" from ") || head.starts_with("create table ");
    let has_file = head
        .split_whitespace()
        .any(|word| is_source(word.trim_end_matches([',', '.', ':', '?', ')'])));
    (prompt.contains("```") || is_sql || has_file).then_some(Task::Code)
}

fn is_source(word: &str) -> bool {
    const ENDS: [&str; 12] =
        [".rs", ".py", ".js", ".ts", ".go", ".java", ".cpp", ".c", ".h", ".rb", ".sql", ".tsx"];
    ENDS.iter().any(|end| word.len() > end.len() + 1 && word.ends_with(end))
        && !word.contains("://")
}

#[cfg(test)]
mod tests;
