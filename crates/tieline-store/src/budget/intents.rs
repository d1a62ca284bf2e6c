//! What left for a vendor and is not in the ledger yet, in a file that outlives a killed process.
//!
//! An attempt is noted before it leaves, as the row that it comes to at most, and the note is taken back once its true
//! row is in the database. What a dead process left noted and not on record is written as *unsettled*, see
//! [`super::Budgets::recover`]. A note is one write into the system's memory, some microseconds: it survives the
//! process, however that dies, and not a power cut; reservations of budgets do.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::files::{private_file, write_all_at};
use crate::requests::RequestRow;

/// Bytes of a note, its length before it: none crosses a page of memory, so that a kill tears none.
const SLOT: usize = 2048;
const LENGTH: usize = 4;
/// Letters that are kept of a name where all of them do not fit.
const NAME: usize = 64;

/// What this process has noted. A clone notes in the same file.
#[derive(Clone, Debug)]
pub struct Intents(Arc<Mutex<Notes>>);

#[derive(Debug)]
struct Notes {
    path: PathBuf,
    /// Made for the first note: most who open the budgets only look.
    file: Option<Arc<File>>,
    slots: HashMap<String, u64>,
    free: Vec<u64>,
    end: u64,
}

/// What a process left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub(super) rows: Vec<RequestRow>,
    /// Notes that cannot be read.
    pub(super) damaged: usize,
}

impl Intents {
    pub(super) fn new(path: PathBuf) -> Self {
        let (file, slots, free) = (None, HashMap::new(), Vec::new());
        Self(Arc::new(Mutex::new(Notes { path, file, slots, free, end: 0 })))
    }

    /// Notes an attempt under its row's `reservation`, before it leaves: what it comes to at most.
    ///
    /// # Errors
    /// The file cannot be written; or the row names no reservation, or one that is noted already.
    pub fn note(&self, row: &RequestRow) -> io::Result<()> {
        let name = row.reservation.as_deref().ok_or(io::ErrorKind::InvalidInput)?;
        let bytes = written(row)?;
        let (file, slot) = self.lock().take(name)?;
        // Nobody waits for another's writing: the slot is this note's own.
        let noted = write_all_at(&file, &bytes, slot);
        if noted.is_err() {
            // Nothing left: whatever of it is there is not to be read as a note that is damaged.
            let _ = write_all_at(&file, &[0; LENGTH], slot);
            let mut notes = self.lock();
            notes.slots.remove(name);
            notes.free.push(slot);
        }
        noted
    }

    /// Takes notes back, once their rows are in the database.
    pub fn booked<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let (file, slots) = {
            let mut notes = self.lock();
            let slots = names.into_iter().filter_map(|name| notes.slots.remove(name));
            let slots: Vec<u64> = slots.collect();
            (notes.file.clone(), slots)
        };
        let Some(file) = file else { return };
        // Hundreds at once, while others note what leaves.
        for &slot in &slots {
            // One that stays is found on record by whoever reads it.
            let _ = write_all_at(&file, &[0; LENGTH], slot);
        }
        self.lock().free.extend(slots);
    }

    /// How many are noted and not on record.
    pub fn outstanding(&self) -> usize {
        self.lock().slots.len()
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notes {
    /// A place for a note of this name.
    fn take(&mut self, name: &str) -> io::Result<(Arc<File>, u64)> {
        if self.slots.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.file()?;
        let slot = self.free.pop().unwrap_or(self.end);
        self.end = self.end.max(slot + SLOT as u64);
        self.slots.insert(name.to_owned(), slot);
        Ok((file, slot))
    }

    fn file(&mut self) -> io::Result<Arc<File>> {
        let file = match self.file.take() {
            Some(file) => file,
            None => Arc::new(private_file().open(&self.path)?),
        };
        Ok(Arc::clone(self.file.insert(file)))
    }
}

fn written(row: &RequestRow) -> io::Result<Vec<u8>> {
    let mut json = serde_json::to_vec(row)?;
    if json.len() > SLOT - LENGTH {
        json = serde_json::to_vec(&shortened(row))?;
    }
    let length = u32::try_from(json.len()).unwrap_or(u32::MAX).to_le_bytes();
    let bytes = [&length[..], &json].concat();
    match bytes.len() > SLOT {
        true => Err(io::Error::other("the note of a request is too long")),
        false => Ok(bytes),
    }
}

/// The same money with shorter names.
fn shortened(row: &RequestRow) -> RequestRow {
    let short = |text: &str| text.chars().filter(char::is_ascii_graphic).take(NAME).collect();
    RequestRow {
        key: short(&row.key),
        model: short(&row.model),
        backend: short(&row.backend),
        vendor: short(&row.vendor),
        project: short(&row.project),
        policy_rule: row.policy_rule.as_deref().map(short),
        ..row.clone()
    }
}

/// What is noted in the file of a process that ended.
pub(super) fn read(path: &Path) -> io::Result<Left> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Left::default()),
        Err(error) => return Err(error),
    };
    let mut left = Left::default();
    for slot in bytes.chunks(SLOT) {
        match row(slot) {
            Some(Ok(row)) => left.rows.push(row),
            Some(Err(_)) => left.damaged += 1,
            None => {}
        }
    }
    Ok(left)
}

/// `None`: it was taken back.
fn row(slot: &[u8]) -> Option<Result<RequestRow, io::Error>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let Some((length, rest)) = slot.split_first_chunk::<LENGTH>() else {
        return Some(Err(damaged()));
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length == 0 {
        return None;
    }
    let json = rest.get(..length).ok_or_else(damaged);
    Some(json.and_then(|json| serde_json::from_slice(json).map_err(io::Error::from)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(name: &str) -> RequestRow {
        RequestRow {
            id: format!("call-{name}"),
            reservation: Some(name.to_owned()),
            cost: Some(tieline_types::MicroUsd(7)),
            ..RequestRow::default()
        }
    }

    #[test]
    fn what_was_not_booked_is_found_and_places_are_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls");
        let intents = Intents::new(path.clone());
        assert!(read(&path).unwrap().rows.is_empty() && !path.exists());
        for name in ["a", "b", "c"] {
            intents.note(&noted(name)).unwrap();
        }
        // Two attempts under one name would hide one of them.
        assert_eq!(intents.note(&noted("a")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        intents.booked(["b", "unknown"]);
        intents.note(&noted("d")).unwrap();
        assert_eq!(read(&path).unwrap().rows, ["a", "d", "c"].map(noted));
        assert_eq!(intents.outstanding(), 3);
        intents.booked(["a", "c", "d"]);
        assert!(read(&path).unwrap().rows.is_empty());
        assert!(fs::metadata(&path).unwrap().len() <= 3 * SLOT as u64);
    }

    #[test]
    fn many_note_while_others_are_booked_and_each_has_a_place_of_its_own() {
        const EACH: usize = 200;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls");
        let intents = Intents::new(path.clone());
        let name = |thread: usize, number: usize| format!("{thread}/{number}");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let intents = &intents;
                scope.spawn(move || {
                    for number in 0..EACH {
                        intents.note(&noted(&name(thread, number))).unwrap();
                        // Some together, and the last one never.
                        if number % 7 == 0 && number > 0 {
                            let names: Vec<String> =
                                (number - 7..number).map(|number| name(thread, number)).collect();
                            intents.booked(names.iter().map(String::as_str));
                        }
                    }
                });
            }
        });
        let mut left: Vec<String> =
            read(&path).unwrap().rows.into_iter().filter_map(|row| row.reservation).collect();
        let mut want: Vec<String> = (0..4)
            .flat_map(|thread| (EACH - EACH % 7..EACH).map(move |number| name(thread, number)))
            .collect();
        left.sort();
        want.sort();
        assert_eq!((left, intents.outstanding()), (want.clone(), want.len()));
        assert!(fs::metadata(&path).unwrap().len() <= (4 * 14 * SLOT) as u64);
    }

    #[test]
    fn long_names_are_shortened_and_damage_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls");
        let intents = Intents::new(path.clone());
        let long = RequestRow { project: "p\u{1}".repeat(4000), ..noted("a") };
        intents.note(&long).unwrap();
        intents.note(&noted("b")).unwrap();
        let left = read(&path).unwrap();
        assert_eq!((left.rows[0].project.len(), left.rows[0].cost), (NAME, long.cost));
        let mut bytes = fs::read(&path).unwrap();
        bytes[LENGTH + 1] ^= 0xff;
        fs::write(&path, &bytes).unwrap();
        let left = read(&path).unwrap();
        assert_eq!((left.rows.len(), left.damaged), (1, 1));
        assert!(intents.note(&RequestRow::default()).is_err());
    }
}
