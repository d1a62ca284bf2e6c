//! Reads outcomes that are on record: how often models were right, by task.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::evaluate::ReadTableError;

/// The longest name of a task.
const MAX_TASK: usize = 32;
/// The most tasks: each is looked at in each decision.
const MOST_TASKS: usize = 256;

/// How often a model was right at a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Sum {
    /// The model, as the table names it.
    pub model: String,
    /// The task.
    pub task: String,
    /// How many were right; parts of an answer count in part.
    pub correct: f64,
    /// How many there were.
    pub answers: u32,
}

/// Sums the columns `MODEL.correct` of a CSV by its column `task`; without one, all rows are of the task `usual`.
/// Other columns are not read, and no cell is repeated by an error.
///
/// # Errors
/// It is no CSV, has no such column, or a cell is no number from 0 to 1 or no task.
pub fn sums(from: impl Read, usual: &str) -> Result<Vec<Sum>, ReadTableError> {
    let mut reader = csv::Reader::from_reader(from);
    let unreadable = |error: csv::Error| ReadTableError::Csv {
        line: error.position().map_or(0, csv::Position::line),
    };
    let headers = reader.headers().map_err(unreadable)?.clone();
    let column = |(at, name): (usize, &str)| Some((at, name.strip_suffix(".correct")?.to_owned()));
    let models: Vec<(usize, String)> = headers.iter().enumerate().filter_map(column).collect();
    if models.is_empty() {
        return Err(ReadTableError::Models(0));
    }
    let task_at = headers.iter().position(|name| name == "task");
    let mut sums: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
    let mut tasks = BTreeSet::new();
    for row in reader.records() {
        let row = row.map_err(unreadable)?;
        let line = row.position().map_or(0, csv::Position::line);
        let wrong = |column: &str, want| ReadTableError::Cell { line, column: column.into(), want };
        let task = task_at.and_then(|at| row.get(at)).unwrap_or(usual);
        if !is_task(task) {
            return Err(wrong("task", "a word of at most 32 letters, digits, _ - and ."));
        }
        for (at, model) in &models {
            let cell = row.get(*at).unwrap_or_default().trim();
            if cell.is_empty() {
                continue;
            }
            let correct = cell.parse().ok().filter(|value| (0.0..=1.0).contains(value));
            let want = "a number from 0 to 1";
            let correct: f64 = correct.ok_or_else(|| wrong(&format!("{model}.correct"), want))?;
            tasks.insert(task.to_owned());
            if tasks.len() > MOST_TASKS {
                return Err(wrong("task", "one of at most 256 different words"));
            }
            let sum = sums.entry((model.clone(), task.to_owned())).or_default();
            *sum = (sum.0 + correct, sum.1.saturating_add(1));
        }
    }
    let sum = |((model, task), (correct, answers))| Sum { model, task, correct, answers };
    Ok(sums.into_iter().map(sum).collect())
}

/// Whether a text can be a task's name.
#[must_use]
pub fn is_task(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    !text.is_empty() && text.len() <= MAX_TASK && text.bytes().all(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_summed_by_model_and_task() {
        let table = "prompt,task,a.correct,b/c.correct,a.cost\nCANARY,math,1,0.5,9\nx,math,0,,\nx,code,1,1,\n";
        let read = sums(table.as_bytes(), "any").unwrap();
        let told: Vec<_> = read
            .iter()
            .map(|s| (s.model.as_str(), s.task.as_str(), s.correct, s.answers))
            .collect();
        let want = [
            ("a", "code", 1.0, 1),
            ("a", "math", 1.0, 2),
            ("b/c", "code", 1.0, 1),
            ("b/c", "math", 0.5, 1),
        ];
        assert_eq!(told, want);
        assert_eq!(sums("a.correct\n1\n".as_bytes(), "any").unwrap()[0].task, "any");
    }

    #[test]
    fn what_is_no_outcome_is_refused_by_its_place() {
        let check = |table: &str, want: &str| {
            let said = sums(table.as_bytes(), "any").unwrap_err().to_string();
            assert!(said.contains(want) && !said.contains("CANARY"), "{said}");
        };
        check("a.correct\n1\nCANARY\n", "line 3: column a.correct is not a number from 0 to 1");
        check("a.correct\n1.5\n", "line 2");
        check("a.correct\nNaN\n", "line 2");
        check("task,a.correct\nCANARY two words,1\n", "line 2: column task is not a word");
        check("a,b\n1,2\n", "columns named MODEL.correct");
        check("a.correct\n1,2\n", "line 2");
    }

    #[test]
    fn numbers_of_prompts_are_no_tasks() {
        let table = |count: u32| {
            let rows = (0..count).map(|at| format!("t{at},1\n"));
            format!("task,m.correct\n{}", rows.collect::<String>())
        };
        assert_eq!(sums(table(256).as_bytes(), "any").unwrap().len(), 256);
        assert!(sums(table(257).as_bytes(), "any").is_err());
    }
}
