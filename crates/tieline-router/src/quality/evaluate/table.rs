//! Reads the table of outcomes: one row for each prompt, columns `<model>.correct` and companions.

use std::collections::HashMap;
use std::io::Read;

use super::super::ngrams;
use super::number;

/// The two models that are routed between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    /// The one asked by default.
    pub weak: String,
    /// The one escalated to.
    pub strong: String,
}

/// One prompt and how both models did on it. The prompt itself is not kept, only hashes of its parts.
#[derive(Clone, Debug)]
pub struct Row {
    /// Index of its group, where the table has groups.
    pub group: Option<usize>,
    /// Hashed features of the prompt, sorted; empty without one.
    pub features: Vec<u16>,
    /// The weak model's outcome, 0 to 1.
    pub weak: f64,
    /// The strong model's.
    pub strong: f64,
    /// What the two answers cost, weak then strong.
    pub costs: Option<(f64, f64)>,
    /// How sure the weak model was; more is surer.
    pub confidence: Option<f64>,
}

/// Outcomes of two models.
#[derive(Clone, Debug)]
pub struct Table {
    /// Which models.
    pub models: Models,
    /// The rows that have both outcomes.
    pub rows: Vec<Row>,
    /// How many rows lack one.
    pub left_out: usize,
    /// How many groups there are; none where the table has no such column.
    pub groups: usize,
}

/// A table that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadTableError {
    /// It is no CSV.
    #[error("the table is no CSV: line {line} has another number of columns, or is no UTF-8")]
    Csv {
        /// Where, counted from 1; 0 where unknown.
        line: u64,
    },
    /// Fewer than two models.
    #[error(
        "the table has outcomes of {0} models, and two are needed: columns named MODEL.correct"
    )]
    Models(usize),
    /// A model that is not there.
    #[error("the table has no column {0}.correct")]
    Unknown(String),
    /// Both names are the same.
    #[error("{0} cannot be both the weak and the strong model")]
    Same(String),
    /// A cell that is no number of its kind.
    #[error("line {line}: column {column} is not {want}")]
    Cell {
        /// Where, counted from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What it should be.
        want: &'static str,
    },
}

/// Which models to read; where a name is missing, the lowest or highest mean decides.
#[derive(Clone, Debug, Default)]
pub struct ReadTable {
    /// The weak model.
    pub weak: Option<String>,
    /// The strong model.
    pub strong: Option<String>,
}

struct Columns {
    group: Option<usize>,
    prompt: Option<usize>,
    models: Vec<Model>,
}

struct Model {
    name: String,
    correct: usize,
    cost: Option<usize>,
    confidence: Option<usize>,
}

/// One row with the outcomes of all models: `(correct, cost, confidence)`.
struct Wide {
    group: Option<usize>,
    features: Vec<u16>,
    cells: Vec<[Option<f64>; 3]>,
}

impl ReadTable {
    /// Reads a table, row by row.
    ///
    /// # Errors
    /// It is no CSV, lacks the models, or a cell is no number of its kind. No error repeats a cell.
    pub fn read(&self, from: impl Read) -> Result<Table, ReadTableError> {
        let mut reader = csv::Reader::from_reader(from);
        let columns = Columns::of(reader.headers().map_err(|error| unreadable(&error))?)?;
        let mut groups = HashMap::new();
        let mut wide = Vec::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| unreadable(&error))? {
            let line = record.position().map_or(0, csv::Position::line);
            let group = columns.group.and_then(|index| record.get(index)).map(|name| {
                let next = groups.len();
                *groups.entry(name.to_owned()).or_insert(next)
            });
            let prompt = columns.prompt.and_then(|index| record.get(index));
            let cells = columns.models.iter().map(|model| model.cells(&record, line));
            let features = prompt.map(ngrams::features).unwrap_or_default();
            wide.push(Wide { group, features, cells: cells.collect::<Result<_, _>>()? });
        }
        let (weak, strong) = self.chosen(&columns.models, &wide)?;
        let all = wide.len();
        let rows: Vec<Row> = wide.into_iter().filter_map(|one| narrow(one, weak, strong)).collect();
        let name = |index: usize| columns.models[index].name.clone();
        let left_out = all - rows.len();
        let models = Models { weak: name(weak), strong: name(strong) };
        Ok(Table { models, rows, left_out, groups: groups.len() })
    }

    fn chosen(&self, models: &[Model], wide: &[Wide]) -> Result<(usize, usize), ReadTableError> {
        let mean = |index: usize| {
            let values: Vec<f64> = wide.iter().filter_map(|row| row.cells[index][0]).collect();
            values.iter().sum::<f64>() / number(values.len().max(1))
        };
        let named = |name: &Option<String>| {
            name.as_ref().map(|name| {
                let found = models.iter().position(|model| model.name == *name);
                found.ok_or_else(|| ReadTableError::Unknown(name.clone()))
            })
        };
        let (weak, strong) = (named(&self.weak).transpose()?, named(&self.strong).transpose()?);
        let pick = |taken: Option<usize>, sign: f64| {
            let free = (0..models.len()).filter(|index| Some(*index) != taken);
            free.max_by(|a, b| (sign * mean(*a)).total_cmp(&(sign * mean(*b)))).unwrap_or(0)
        };
        let strong_index = strong.unwrap_or_else(|| pick(weak, 1.0));
        let weak_index = weak.unwrap_or_else(|| pick(Some(strong_index), -1.0));
        if weak_index == strong_index {
            return Err(ReadTableError::Same(models[weak_index].name.clone()));
        }
        Ok((weak_index, strong_index))
    }
}

fn narrow(wide: Wide, weak: usize, strong: usize) -> Option<Row> {
    let (a, b) = (wide.cells[weak], wide.cells[strong]);
    Some(Row {
        group: wide.group,
        features: wide.features,
        weak: a[0]?,
        strong: b[0]?,
        costs: a[1].zip(b[1]),
        confidence: a[2],
    })
}

impl Columns {
    fn of(headers: &csv::StringRecord) -> Result<Self, ReadTableError> {
        let find = |name: &str| headers.iter().position(|header| header == name);
        let model = |(correct, header): (usize, &str)| {
            let name = header.strip_suffix(".correct")?;
            let of = |kind: &str| find(&format!("{name}.{kind}"));
            let confidence = of("confidence").or_else(|| of("logprob"));
            Some(Model { name: name.to_owned(), correct, cost: of("cost"), confidence })
        };
        let models: Vec<Model> = headers.iter().enumerate().filter_map(model).collect();
        if models.len() < 2 {
            return Err(ReadTableError::Models(models.len()));
        }
        Ok(Self { group: find("group"), prompt: find("prompt"), models })
    }
}

impl Model {
    fn cells(
        &self,
        record: &csv::StringRecord,
        line: u64,
    ) -> Result<[Option<f64>; 3], ReadTableError> {
        let cell = |index: Option<usize>, kind: &str, (least, most): (f64, f64), want| {
            let text = index.and_then(|index| record.get(index)).unwrap_or_default().trim();
            if text.is_empty() {
                return Ok(None);
            }
            let value = text.parse::<f64>().ok().filter(|value| (least..=most).contains(value));
            let column = || format!("{}.{kind}", self.name);
            value.map(Some).ok_or_else(|| ReadTableError::Cell { line, column: column(), want })
        };
        let (zero, most) = (0.0, f64::MAX);
        Ok([
            cell(Some(self.correct), "correct", (zero, 1.0), "a number from 0 to 1")?,
            cell(self.cost, "cost", (zero, most), "a number of zero or more")?,
            cell(self.confidence, "confidence", (-most, most), "a number")?,
        ])
    }
}

fn unreadable(error: &csv::Error) -> ReadTableError {
    ReadTableError::Csv { line: error.position().map_or(0, csv::Position::line) }
}
