//! Reads TOML tables, collecting faults instead of stopping at the first.
//!
//! Serde's derive stops at the first fault. Here each value is read by hand from the parser's spanned tree, so
//! that one run shows them all, each with its place.

use std::collections::BTreeSet;
use std::ops::Range;
use std::str::FromStr;
use std::time::Duration;

use tieline_types::{MicroUsd, Tokens};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::amount;
use super::fault::Faults;
use super::glob::Glob;

type Value<'t> = Spanned<DeValue<'t>>;

/// A table that is being read. What was not asked for at the end is a fault.
#[derive(Debug)]
pub(super) struct Table<'t> {
    table: &'t DeTable<'t>,
    pub(super) span: Range<usize>,
    at: String,
    known: BTreeSet<&'static str>,
}

impl<'t> Table<'t> {
    pub(super) fn root(table: &'t DeTable<'t>) -> Self {
        Self { table, span: 0..0, at: String::new(), known: BTreeSet::new() }
    }

    fn of(value: &'t Value<'t>, at: String, faults: &mut Faults<'_>) -> Option<Self> {
        match value.get_ref() {
            DeValue::Table(table) => {
                Some(Self { table, span: value.span(), at, known: BTreeSet::new() })
            }
            other => {
                faults.add(&value.span(), &at, wrong_type("a table", other));
                None
            }
        }
    }

    fn path(&self, key: &str) -> String {
        match (self.at.is_empty(), key.is_empty()) {
            (true, _) => key.to_owned(),
            (false, true) => self.at.clone(),
            (false, false) => format!("{}.{key}", self.at),
        }
    }

    pub(super) fn value(&mut self, key: &'static str) -> Option<&'t Value<'t>> {
        self.known.insert(key);
        self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key).map(|(_, value)| value)
    }

    /// The place of a key, where it stands; else that of the table.
    pub(super) fn span_of(&self, key: &str) -> Range<usize> {
        let entry = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key);
        entry.map_or_else(|| self.span.clone(), |(_, value)| value.span())
    }

    pub(super) fn fault(&self, key: &str, problem: impl Into<String>, faults: &mut Faults<'_>) {
        faults.add(&self.span_of(key), &self.path(key), problem);
    }

    /// Every key that nobody asked for is a fault.
    pub(super) fn finish(self, faults: &mut Faults<'_>) {
        for (name, _) in self.table {
            let key = name.get_ref().as_ref();
            if !self.known.contains(key) {
                let problem = format!("there is no key {key:?}{}", hint(key, &self.known));
                faults.add(&name.span(), &self.at, problem);
            }
        }
    }

    pub(super) fn table(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<Self> {
        let at = self.path(key);
        self.value(key).and_then(|value| Self::of(value, at, faults))
    }

    /// The tables under a key, by their names.
    pub(super) fn named(
        &mut self,
        key: &'static str,
        faults: &mut Faults<'_>,
    ) -> Vec<(String, Self)> {
        let Some(all) = self.table(key, faults) else { return Vec::new() };
        let mut found = Vec::new();
        for (name, value) in all.table {
            let name = name.get_ref().as_ref();
            if let Some(table) = Self::of(value, all.path(name), faults) {
                found.push((name.to_owned(), table));
            }
        }
        found
    }

    /// The tables of `[[key]]`.
    pub(super) fn rows(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Vec<Self> {
        let at = self.path(key);
        let Some(value) = self.value(key) else { return Vec::new() };
        let DeValue::Array(rows) = value.get_ref() else {
            let problem = format!("expected several tables: write [[{key}]]");
            faults.add(&value.span(), &at, problem);
            return Vec::new();
        };
        let row = |(number, row): (usize, &'t Value<'t>)| {
            Self::of(row, format!("{at}[{}]", number + 1), faults)
        };
        rows.iter().enumerate().filter_map(row).collect()
    }

    /// Every key with its value, for tables whose keys are the user's.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&'t str, &'t Value<'t>)> {
        self.table.iter().map(|(name, value)| (name.get_ref().as_ref(), value))
    }

    pub(super) fn text(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<String> {
        let at = self.path(key);
        let value = self.value(key)?;
        read_text(value, &at, faults).map(str::to_owned)
    }

    pub(super) fn flag(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<bool> {
        let at = self.path(key);
        let value = self.value(key)?;
        match value.get_ref() {
            DeValue::Boolean(flag) => Some(*flag),
            other => {
                faults.add(&value.span(), &at, wrong_type("true or false", other));
                None
            }
        }
    }

    pub(super) fn count(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<u32> {
        let at = self.path(key);
        let value = self.value(key)?;
        read_count(value, &at, faults)
    }

    pub(super) fn tokens(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<Tokens> {
        let count = self.count(key, faults)?;
        if count == 0 {
            self.fault(key, "expected one token at least", faults);
            return None;
        }
        Some(Tokens(count))
    }

    /// A number within these limits.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        limits: Range<f64>,
        faults: &mut Faults<'_>,
    ) -> Option<f64> {
        let at = self.path(key);
        let value = self.value(key)?;
        read_number(value, limits, &at, faults)
    }

    pub(super) fn money(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<MicroUsd> {
        let at = self.path(key);
        let value = self.value(key)?;
        let digits = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Float(number) => number.as_str(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
            other => {
                faults.add(&value.span(), &at, wrong_type("dollars, such as 2.50", other));
                return None;
            }
        };
        digits
            .parse::<MicroUsd>()
            .map_err(|problem| faults.add(&value.span(), &at, problem.to_string()))
            .ok()
    }

    pub(super) fn time(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Option<Duration> {
        let text = self.text(key, faults)?;
        let read = amount::time(&text);
        read.map_err(|problem| self.fault(key, problem, faults)).ok()
    }

    /// One of these words.
    pub(super) fn word<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        faults: &mut Faults<'_>,
    ) -> Option<T> {
        let text = self.text(key, faults)?;
        let at = self.path(key);
        find_word(&text, words, (&self.span_of(key), &at), faults)
    }

    /// A text or a list of texts.
    pub(super) fn texts(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Vec<String> {
        self.spanned_texts(key, faults).into_iter().map(|(text, _)| text.to_owned()).collect()
    }

    fn spanned_texts(
        &mut self,
        key: &'static str,
        faults: &mut Faults<'_>,
    ) -> Vec<(&'t str, Range<usize>)> {
        let at = self.path(key);
        let Some(value) = self.value(key) else { return Vec::new() };
        match value.get_ref() {
            DeValue::Array(all) => {
                if all.is_empty() {
                    faults.add(&value.span(), &at, "an empty list fits nothing: leave the key out");
                }
                let read = |one: &'t Value<'t>| Some((read_text(one, &at, faults)?, one.span()));
                all.iter().filter_map(read).collect()
            }
            _ => {
                read_text(value, &at, faults).map(|text| (text, value.span())).into_iter().collect()
            }
        }
    }

    /// One word or several.
    pub(super) fn words<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
        faults: &mut Faults<'_>,
    ) -> Vec<T> {
        let at = self.path(key);
        let texts = self.spanned_texts(key, faults);
        let found =
            texts.iter().filter_map(|(text, span)| find_word(text, words, (span, &at), faults));
        found.collect()
    }

    /// One pattern or several.
    pub(super) fn globs(&mut self, key: &'static str, faults: &mut Faults<'_>) -> Vec<Glob> {
        let at = self.path(key);
        let mut globs = Vec::new();
        for (text, span) in self.spanned_texts(key, faults) {
            match Glob::new(text) {
                Ok(glob) => globs.push(glob),
                Err(problem) => faults.add(&span, &at, problem),
            }
        }
        globs
    }
}

pub(super) fn read_text<'t>(
    value: &'t Value<'t>,
    at: &str,
    faults: &mut Faults<'_>,
) -> Option<&'t str> {
    match value.get_ref() {
        DeValue::String(text) if text.is_empty() => {
            faults.add(&value.span(), at, "expected a text that is not empty");
            None
        }
        DeValue::String(text) => Some(text),
        other => {
            faults.add(&value.span(), at, wrong_type("a text", other));
            None
        }
    }
}

pub(super) fn read_count(value: &Value<'_>, at: &str, faults: &mut Faults<'_>) -> Option<u32> {
    let DeValue::Integer(number) = value.get_ref() else {
        faults.add(&value.span(), at, wrong_type("a whole number", value.get_ref()));
        return None;
    };
    let read = u32::from_str_radix(number.as_str(), number.radix());
    if read.is_err() {
        faults.add(&value.span(), at, "expected a whole number from 0 to 4294967295");
    }
    read.ok()
}

pub(super) fn read_number(
    value: &Value<'_>,
    limits: Range<f64>,
    at: &str,
    faults: &mut Faults<'_>,
) -> Option<f64> {
    let digits = match value.get_ref() {
        DeValue::Float(number) => number.as_str(),
        DeValue::Integer(number) => number.as_str(),
        other => {
            faults.add(&value.span(), at, wrong_type("a number", other));
            return None;
        }
    };
    let read = f64::from_str(digits).ok();
    let fitting = read.filter(|number| (limits.start..=limits.end).contains(number));
    if fitting.is_none() {
        let problem = format!("expected a number from {} to {}", limits.start, limits.end);
        faults.add(&value.span(), at, problem);
    }
    fitting
}

fn find_word<T: Copy>(
    text: &str,
    words: &[(&'static str, T)],
    (span, at): (&Range<usize>, &str),
    faults: &mut Faults<'_>,
) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let problem = format!("there is no {text:?}: expected {}", all.join(", "));
        faults.add(span, at, problem + &hint(text, &all.into_iter().collect()));
    }
    found
}

/// `; did you mean …?`, where one of the words is near.
pub(super) fn hint(text: &str, words: &BTreeSet<&str>) -> String {
    let near = words.iter().map(|&word| (strsim::jaro_winkler(text, word), word));
    match near.max_by(|one, other| one.0.total_cmp(&other.0)) {
        Some((score, word)) if score > 0.8 => format!("; did you mean {word:?}?"),
        _ => String::new(),
    }
}

fn wrong_type(wanted: &str, got: &DeValue<'_>) -> String {
    format!(
        "expected {wanted}, not {}",
        match got.type_str() {
            "array" => "a list",
            "string" => "a text",
            "integer" => "a number",
            "float" => "a number with a fraction",
            "boolean" => "true or false",
            "table" => "a table",
            _ => "a date",
        }
    )
}
