//! What is known of models besides their files: how fast they were measured to be, how far their confidence can be
//! believed, how often they were right, and what a server learned from their answers. Times are given by the caller.

use rusqlite::{Connection, Row, TransactionBehavior, params};
use tieline_types::{Digest, Tokens};

use crate::db::{DbError, digest};
use crate::store::Store;

/// Rows of each kind that a server learns; the oldest go first.
const LEARNED: u32 = 4096;

/// What was measured of a model by hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Bench {
    /// The model's content.
    pub digest: Digest,
    /// The runner's build, in one line.
    pub build: String,
    /// The context that it was loaded with.
    pub context: Tokens,
    /// Tokens of a prompt that it read in a second: the median.
    pub prefill_tps: Option<f64>,
    /// Tokens that it wrote in a second: the median.
    pub decode_tps: Option<f64>,
    /// Seconds until it was in memory.
    pub load_s: Option<f64>,
    /// Seconds until the first token, besides loading, waiting and reading the prompt: the median.
    pub first_token_s: Option<f64>,
    /// Joules for a token of a prompt, above those of a machine that rests: the median.
    pub joules_per_prompt_token: Option<f64>,
    /// Joules for a token that it wrote, above those of a machine that rests: the median.
    pub joules_per_token: Option<f64>,
    /// Measurements behind the medians.
    pub samples: u32,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
}

/// How far a model's own confidence can be believed at a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CalibrationRow {
    /// The model's content.
    pub digest: Digest,
    /// The task; `any` for all others.
    pub task: String,
    /// The calibration, as JSON.
    pub calibration: String,
    /// When it was made, in milliseconds since 1970.
    pub at_unix_ms: i64,
}

/// How often a model was right at a task.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    /// The model's content as hexadecimal digits; `backend/model` for somebody else's.
    pub model: String,
    /// The task; `any` where it is none in particular.
    pub task: String,
    /// Where they are from, in a word. New ones of one origin take the place of its old ones.
    pub origin: String,
    /// How many were right; parts of an answer count in part.
    pub correct: f64,
    /// How many there were.
    pub answers: u32,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: i64,
}

/// What a server learned from answers: numbers, without a word of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// What it is of, in a word.
    pub kind: String,
    /// Of whom.
    pub name: String,
    /// The numbers, as JSON.
    pub seen: String,
    /// When it last changed, in milliseconds since 1970.
    pub at_unix_ms: i64,
}

impl Store {
    /// Keeps what was measured, in the place of what the same build had with the same context.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn record_bench(&self, bench: &Bench) -> Result<(), DbError> {
        let sql = "INSERT OR REPLACE INTO benches (digest, build, context_tokens, prefill_tps,
            decode_tps, load_s, first_token_s, samples, at_unix_ms, joules_per_prompt_token,
            joules_per_token) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
        let Bench { digest, build, context, prefill_tps, decode_tps, load_s, .. } = bench;
        let (digest, first_token_s) = (digest.hex(), bench.first_token_s);
        let (samples, at_unix_ms) = (bench.samples, bench.at_unix_ms);
        let row = params![
            digest,
            build,
            context.0,
            prefill_tps,
            decode_tps,
            load_s,
            first_token_s,
            samples,
            at_unix_ms,
            bench.joules_per_prompt_token,
            bench.joules_per_token
        ];
        self.db.run("keep a measurement", |db| db.execute(sql, row).map(drop))
    }

    /// All measurements, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn benches(&self) -> Result<Vec<Bench>, DbError> {
        let sql = "SELECT digest, build, context_tokens, prefill_tps, decode_tps, load_s,
            first_token_s, samples, at_unix_ms, joules_per_prompt_token, joules_per_token
            FROM benches ORDER BY at_unix_ms DESC, digest, build, context_tokens";
        let read = |row: &Row<'_>| {
            Ok(Bench {
                digest: digest(row, 0)?,
                build: row.get(1)?,
                context: Tokens(row.get(2)?),
                prefill_tps: row.get(3)?,
                decode_tps: row.get(4)?,
                load_s: row.get(5)?,
                first_token_s: row.get(6)?,
                samples: row.get(7)?,
                at_unix_ms: row.get(8)?,
                joules_per_prompt_token: row.get(9)?,
                joules_per_token: row.get(10)?,
            })
        };
        self.db.run("read measurements", |db| db.prepare(sql)?.query_map([], read)?.collect())
    }

    /// Keeps a calibration with the outcomes that it is from, in the place of the model's old ones at this task.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn keep_calibration(
        &self,
        calibration: &CalibrationRow,
        outcomes: &Outcomes,
    ) -> Result<(), DbError> {
        let sql = "INSERT OR REPLACE INTO calibrations (digest, task, calibration, at_unix_ms)
            VALUES (?1, ?2, ?3, ?4)";
        let CalibrationRow { digest, task, calibration, at_unix_ms } = calibration;
        self.change("keep a calibration", |db| {
            db.execute(sql, params![digest.hex(), task, calibration, at_unix_ms])?;
            keep(db, outcomes)
        })
    }

    /// All calibrations.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn calibrations(&self) -> Result<Vec<CalibrationRow>, DbError> {
        let sql = "SELECT digest, task, calibration, at_unix_ms FROM calibrations
            ORDER BY digest, task";
        let read = |row: &Row<'_>| {
            Ok(CalibrationRow {
                digest: digest(row, 0)?,
                task: row.get(1)?,
                calibration: row.get(2)?,
                at_unix_ms: row.get(3)?,
            })
        };
        self.db.run("read calibrations", |db| db.prepare(sql)?.query_map([], read)?.collect())
    }

    /// Keeps outcomes, all of them or none.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn keep_outcomes(&self, outcomes: &[Outcomes]) -> Result<(), DbError> {
        self.change("keep outcomes", |db| outcomes.iter().try_for_each(|one| keep(db, one)))
    }

    /// All outcomes.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn outcomes(&self) -> Result<Vec<Outcomes>, DbError> {
        let sql = "SELECT model, task, origin, correct, answers, at_unix_ms FROM outcomes
            ORDER BY model, task, origin";
        let read = |row: &Row<'_>| {
            Ok(Outcomes {
                model: row.get(0)?,
                task: row.get(1)?,
                origin: row.get(2)?,
                correct: row.get(3)?,
                answers: row.get(4)?,
                at_unix_ms: row.get(5)?,
            })
        };
        self.db.run("read outcomes", |db| db.prepare(sql)?.query_map([], read)?.collect())
    }

    /// Numbers that change with measurements, calibrations, outcomes and the quarantine, so that whoever read them
    /// knows when to read them again. Not with what a server learns.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn profiles_version(&self) -> Result<(i64, i64), DbError> {
        let sql = "SELECT count(*), coalesce(max(at_unix_ms), 0) FROM (
            SELECT at_unix_ms FROM benches UNION ALL SELECT at_unix_ms FROM calibrations
            UNION ALL SELECT at_unix_ms FROM outcomes
            UNION ALL SELECT since_unix_s * 1000 FROM quarantine)";
        self.db.run("look at profiles", |db| {
            db.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)))
        })
    }

    /// Keeps what a server learned, in the place of what is there under the same names.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn keep_learned(&self, all: &[Learned]) -> Result<(), DbError> {
        let sql = "INSERT OR REPLACE INTO learned (kind, name, seen, at_unix_ms)
            VALUES (?1, ?2, ?3, ?4)";
        let old = "DELETE FROM learned WHERE kind = ?1 AND name NOT IN (SELECT name FROM learned
            WHERE kind = ?1 ORDER BY at_unix_ms DESC, name LIMIT ?2)";
        self.change("keep what was learned", |db| {
            let mut statement = db.prepare(sql)?;
            for Learned { kind, name, seen, at_unix_ms } in all {
                statement.execute(params![kind, name, seen, at_unix_ms])?;
            }
            let kinds: std::collections::BTreeSet<_> = all.iter().map(|one| &one.kind).collect();
            kinds.iter().try_for_each(|kind| db.execute(old, params![kind, LEARNED]).map(drop))
        })
    }

    /// What a server learned, the newest first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn learned(&self) -> Result<Vec<Learned>, DbError> {
        let sql = "SELECT kind, name, seen, at_unix_ms FROM learned
            ORDER BY at_unix_ms DESC, kind, name";
        let read = |row: &Row<'_>| {
            let (kind, name) = (row.get(0)?, row.get(1)?);
            Ok(Learned { kind, name, seen: row.get(2)?, at_unix_ms: row.get(3)? })
        };
        self.db.run("read what was learned", |db| db.prepare(sql)?.query_map([], read)?.collect())
    }

    /// All of it or nothing.
    fn change(
        &self,
        action: &'static str,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), DbError> {
        self.db.run(action, |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            work(&transaction)?;
            transaction.commit()
        })
    }
}

fn keep(db: &Connection, outcomes: &Outcomes) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO outcomes (model, task, origin, correct, answers, at_unix_ms)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let Outcomes { model, task, origin, correct, answers, at_unix_ms } = outcomes;
    db.execute(sql, params![model, task, origin, correct, answers, at_unix_ms]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: Digest = Digest([7; 32]);

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    fn bench(context: u32, decode: f64, at_unix_ms: i64) -> Bench {
        Bench {
            digest: MODEL,
            build: "b1".to_owned(),
            context: Tokens(context),
            prefill_tps: None,
            decode_tps: Some(decode),
            load_s: Some(0.5),
            first_token_s: Some(0.01),
            joules_per_prompt_token: Some(0.01),
            joules_per_token: Some(0.5),
            samples: 3,
            at_unix_ms,
        }
    }

    fn outcomes(origin: &str, answers: u32) -> Outcomes {
        Outcomes {
            model: MODEL.hex(),
            task: "math".to_owned(),
            origin: origin.to_owned(),
            correct: 1.5,
            answers,
            at_unix_ms: 9,
        }
    }

    #[test]
    fn a_new_measurement_takes_the_place_of_the_old_one_and_survives() {
        let (folder, store) = store();
        let version = store.profiles_version().unwrap();
        store.record_bench(&bench(512, 10.0, 1)).unwrap();
        store.record_bench(&bench(4096, 8.0, 2)).unwrap();
        let before = store.profiles_version().unwrap();
        assert_ne!(version, before);
        store.record_bench(&bench(512, 11.0, 3)).unwrap();
        assert_ne!(store.profiles_version().unwrap(), before, "it is replaced, and that is seen");
        drop(store);
        let store = Store::open(folder.path()).unwrap();
        assert_eq!(store.benches().unwrap(), [bench(512, 11.0, 3), bench(4096, 8.0, 2)]);
    }

    #[test]
    fn a_calibration_comes_with_its_outcomes_and_others_stay() {
        let (_folder, store) = store();
        store.keep_outcomes(&[outcomes("file", 4)]).unwrap();
        let row = |calibration: &str| CalibrationRow {
            digest: MODEL,
            task: "math".to_owned(),
            calibration: calibration.to_owned(),
            at_unix_ms: 9,
        };
        store.keep_calibration(&row("1"), &outcomes("calibrate", 2)).unwrap();
        store.keep_calibration(&row("2"), &outcomes("calibrate", 3)).unwrap();
        assert_eq!(store.calibrations().unwrap(), [row("2")]);
        assert_eq!(store.outcomes().unwrap(), [outcomes("calibrate", 3), outcomes("file", 4)]);
    }

    #[test]
    fn what_was_learned_is_bounded_and_the_oldest_goes() {
        let (_folder, store) = store();
        let row = |number: i64| Learned {
            kind: "speed".to_owned(),
            name: format!("{number}"),
            seen: "[]".to_owned(),
            at_unix_ms: number,
        };
        let version = store.profiles_version().unwrap();
        let all: Vec<_> = (0..i64::from(LEARNED) + 10).map(row).collect();
        store.keep_learned(&all).unwrap();
        store.keep_learned(&[Learned { kind: "length".to_owned(), ..row(1) }]).unwrap();
        let found = store.learned().unwrap();
        assert_eq!(found.iter().filter(|one| one.kind == "speed").count(), LEARNED as usize);
        assert_eq!(found.iter().filter(|one| one.kind == "length").count(), 1);
        assert!(found.contains(&row(10)) && !found.contains(&row(9)));
        assert_eq!(store.profiles_version().unwrap(), version, "nobody has to read all again");
    }
}
