//! The page that is made of the cells.

use std::fmt::Write as _;

use super::Table;
use super::cells::Outcome;
use super::clients::Client;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/matrix.md");
const MARK: &str = "<!-- made by crates/tieline/tests/it/matrix; DOCS=write writes it anew -->\n";

/// The tables so far, and the notes to their cells.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
    notes: Vec<String>,
}

impl Page {
    pub(crate) fn add(&mut self, title: &str, table: &Table) {
        let columns = Client::ALL.map(Client::title).join(" | ");
        let line = "---|".repeat(Client::ALL.len() + 1);
        let _ = write!(self.text, "\n## {title}\n\n| to | {columns} |\n|{line}\n");
        for (backend, cells) in table {
            let cells: Vec<String> =
                cells.iter().map(|[whole, streamed]| self.cell(backend, whole, streamed)).collect();
            let _ = writeln!(self.text, "| {backend} | {} |", cells.join(" | "));
        }
    }

    fn cell(&mut self, backend: &str, whole: &Outcome, streamed: &Outcome) -> String {
        let (whole, streamed) = (self.told(backend, whole), self.told(backend, streamed));
        if whole == streamed { whole } else { format!("{whole}; streamed: {streamed}") }
    }

    fn told(&mut self, backend: &str, outcome: &Outcome) -> String {
        match outcome {
            Outcome::NoWord => "–".to_owned(),
            Outcome::Done { what, warnings } => {
                let notes = warnings.iter().map(|warning| self.note(backend, warning));
                let notes: String = notes.collect();
                format!("{what}{notes}")
            }
            Outcome::Refused { status, code, why } => {
                let code = if code.is_empty() { String::new() } else { format!(" {code}") };
                format!("{status}{code}{}", self.note(backend, why))
            }
        }
    }

    fn note(&mut self, backend: &str, text: &str) -> String {
        // The same words of another vendor are the same note.
        let words = text.split(' ').map(|word| {
            let own = word.trim_start_matches('(');
            let is_name = own == backend || own.starts_with(&format!("{backend}/"));
            if is_name { "VENDOR" } else { word }
        });
        let text = words.collect::<Vec<_>>().join(" ");
        let text =
            text.replace("openai-responses", "VENDOR").replace(&format!("{backend}:"), "VENDOR:");
        let at = self.notes.iter().position(|note| *note == text).unwrap_or_else(|| {
            self.notes.push(text);
            self.notes.len() - 1
        });
        format!(" [{}]", at + 1)
    }

    /// The page is as it is on disk.
    pub(crate) fn compare(self) {
        let before = std::fs::read_to_string(PATH).unwrap_or_default();
        let (head, _) = before.split_once(MARK).unwrap_or(("", ""));
        let notes = self.notes.iter().zip(1..).fold(String::new(), |mut all, (note, number)| {
            let _ = writeln!(all, "{number}. {note}");
            all
        });
        let fresh = format!("{head}{MARK}{}\n## Notes\n\n{notes}", self.text);
        if std::env::var_os("DOCS").is_some_and(|word| word == "write") {
            std::fs::write(PATH, &fresh).unwrap();
            return;
        }
        assert!(
            before == fresh,
            "docs/matrix.md is not fresh: DOCS=write cargo nextest run -p tieline every_client"
        );
    }
}
