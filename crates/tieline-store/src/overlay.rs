//! Models that are others with something said before: no bytes of their own, only a base's name and what is put
//! before its conversations. And second names of the same bytes.

use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};
use tieline_types::{Digest, Hint, ModelRef, Private};

use crate::db::{Db, DbError};
use crate::model::Model;
use crate::store::Store;

const COLUMNS: &str =
    "name, base, system, template, licence, parameters, messages, changed_at_unix_s";

/// A model made of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// Its name.
    pub name: String,
    /// The model that answers.
    pub base: String,
    /// What is said above its conversations.
    pub system: Option<Private>,
    /// A template that somebody gave it; kept, never used.
    pub template: Option<String>,
    /// Its terms of use.
    pub licence: Option<String>,
    /// How it chooses words: a JSON object, in the words of whoever made it.
    pub parameters: String,
    /// What stands at the beginning of its conversations: a JSON list, in the words of whoever made it.
    pub messages: Private,
    /// When it was last changed, in seconds since 1970.
    pub changed_at_unix_s: i64,
}

impl Overlay {
    /// Whether both put the same before a model, whatever they are called.
    pub(crate) fn says_as(&self, other: &Self) -> bool {
        let Self { system, template, licence, parameters, messages, .. } = self;
        (system, template, licence, parameters, messages)
            == (&other.system, &other.template, &other.licence, &other.parameters, &other.messages)
    }
}

/// Why a name was not given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NameError {
    /// It is none.
    #[error(
        "{name:?} is no model name: it has letters, digits and . _ - : and at most 128 of them"
    )]
    Invalid {
        /// What was given.
        name: String,
    },
    /// It means something else.
    #[error("the name {name:?} is taken")]
    Taken {
        /// The name.
        name: String,
    },
    /// There is no such model.
    #[error("no model {reference:?} is installed")]
    NotFound {
        /// What was asked for.
        reference: String,
    },
    /// The database failed.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hint for NameError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Taken { name } => Some(format!("remove {name:?} first, or choose another name")),
            Self::NotFound { .. } => Some("list the installed models to see their names".into()),
            Self::Invalid { .. } => None,
            Self::Db(error) => error.hint(),
        }
    }
}

impl Store {
    /// All overlays, by name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn overlays(&self) -> Result<Vec<Overlay>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM overlays ORDER BY name");
        self.db.run("list overlays", |db| db.prepare(&sql)?.query_map([], overlay)?.collect())
    }

    /// The overlay of this name.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn overlay(&self, name: &str) -> Result<Option<Overlay>, DbError> {
        self.db.overlay(name)
    }

    /// Keeps an overlay, in the place of one with the same name. One whose name is its base's says what is put
    /// before that model itself, and goes when the model goes.
    ///
    /// # Errors
    /// Its name is none or another model's, or the database cannot be written.
    pub fn keep_overlay(&self, overlay: &Overlay) -> Result<(), NameError> {
        let name = plain(&overlay.name)?;
        match self.db.keep_overlay(&name, overlay)? {
            true => Ok(()),
            false => Err(NameError::Taken { name }),
        }
    }

    /// Removes an overlay; says whether there was one.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn remove_overlay(&self, name: &str) -> Result<bool, DbError> {
        let sql = "DELETE FROM overlays WHERE name = ?1";
        self.db.run("remove an overlay", |db| Ok(db.execute(sql, [name])? == 1))
    }

    /// Gives a model or an overlay a second name. The bytes stay shared.
    ///
    /// # Errors
    /// There is no such model, the name is none or taken, or the database cannot be written.
    pub fn copy(&self, from: &ModelRef, name: &str) -> Result<(), NameError> {
        let name = plain(name)?;
        // What was put before a model of that name stays before the same bytes.
        if self.overlay(&name)?.is_some_and(|there| there.base != name) {
            return Err(NameError::Taken { name });
        }
        if let ModelRef::Name(from) = from
            && let Some(overlay) = self.overlay(from)?
        {
            if self.find(&ModelRef::Name(name.clone()))?.is_some() {
                return Err(NameError::Taken { name });
            }
            if overlay.base != *from {
                return self.keep_overlay(&Overlay { name, ..overlay });
            }
            // The copy stands on its own feet: it outlives what it was copied from.
            self.copy_model(&ModelRef::Name(from.clone()), &name)?;
            return self.keep_overlay(&Overlay { base: name.clone(), name, ..overlay });
        }
        self.copy_model(from, &name)
    }

    /// Gives the bytes of this digest a second name and, in the same step, what is put before the model of that name;
    /// `None` puts nothing there, and takes away what was.
    ///
    /// # Errors
    /// As [`copy`](Self::copy).
    pub fn name_digest(
        &self,
        digest: Digest,
        name: &str,
        said: Option<&Overlay>,
    ) -> Result<(), NameError> {
        let name = plain(name)?;
        let from = ModelRef::Digest(digest);
        let not_found = || NameError::NotFound { reference: from.to_string() };
        let model = self.find(&from)?.ok_or_else(not_found)?;
        match self.db.name_again(&model, &name, Said::Now(said))? {
            true => Ok(()),
            false => Err(NameError::Taken { name }),
        }
    }

    fn copy_model(&self, from: &ModelRef, name: &str) -> Result<(), NameError> {
        let not_found = || NameError::NotFound { reference: from.to_string() };
        let model = self.find(from)?.ok_or_else(not_found)?;
        match self.db.name_again(&model, name, Said::AsBefore)? {
            true => Ok(()),
            false => Err(NameError::Taken { name: name.to_owned() }),
        }
    }
}

/// What is put before a model that gets its name.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Said<'a> {
    /// What was there.
    AsBefore,
    /// This, or nothing.
    Now(Option<&'a Overlay>),
}

impl Said<'_> {
    /// Keeps it for a model of this name, in the transaction that gives the name: a model without what it was made
    /// with is another one.
    pub(crate) fn keep(self, connection: &Connection, name: &str) -> rusqlite::Result<()> {
        let sql = "DELETE FROM overlays WHERE name = ?1 AND base = ?1";
        match self {
            Self::AsBefore => Ok(()),
            Self::Now(None) => connection.execute(sql, [name]).map(drop),
            Self::Now(Some(overlay)) => {
                let own = Overlay { base: name.to_owned(), ..overlay.clone() };
                insert(connection, name, &own).map(drop)
            }
        }
    }
}

impl Db {
    pub(crate) fn overlay(&self, name: &str) -> Result<Option<Overlay>, DbError> {
        let sql = format!("SELECT {COLUMNS} FROM overlays WHERE name = ?1");
        self.run("search overlays", |db| {
            db.prepare_cached(&sql)?.query_row([name], overlay).optional()
        })
    }

    /// Says whether the name was free.
    fn keep_overlay(&self, name: &str, overlay: &Overlay) -> Result<bool, DbError> {
        self.run("keep an overlay", |db| Ok(insert(db, name, overlay)? == 1))
    }

    /// Says whether the name was free, or meant the same bytes already.
    fn name_again(&self, model: &Model, name: &str, said: Said<'_>) -> Result<bool, DbError> {
        let copy = "INSERT INTO models (name, digest, source, reference, licence, pinned,
                        pulled_at_unix_s)
                    SELECT ?1, digest, source, reference, licence, pinned, pulled_at_unix_s
                    FROM models WHERE name = ?2
                        AND NOT EXISTS (SELECT 1 FROM overlays WHERE name = ?1 AND base <> ?1)
                    ON CONFLICT (name) DO NOTHING";
        let same = "SELECT EXISTS (SELECT 1 FROM models WHERE name = ?1 AND digest = ?2)";
        self.run("name a model", |db| {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            transaction.execute(copy, [name, &model.name])?;
            let is_there: bool =
                transaction.query_row(same, [name, &model.digest.hex()], |row| row.get(0))?;
            if is_there {
                said.keep(&transaction, name)?;
            }
            transaction.commit()?;
            Ok(is_there)
        })
    }
}

/// Says how many rows were written: none where the name is another model's.
fn insert(connection: &Connection, name: &str, overlay: &Overlay) -> rusqlite::Result<usize> {
    let sql = "INSERT INTO overlays (name, base, system, template, licence, parameters, messages,
                   changed_at_unix_s)
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8
               WHERE ?1 = ?2 OR NOT EXISTS (SELECT 1 FROM models WHERE name = ?1)
               ON CONFLICT (name) DO UPDATE SET base = excluded.base,
                   system = excluded.system, template = excluded.template,
                   licence = excluded.licence, parameters = excluded.parameters,
                   messages = excluded.messages,
                   changed_at_unix_s = excluded.changed_at_unix_s";
    let values = params![
        name,
        overlay.base,
        overlay.system.as_ref().map(Private::expose),
        overlay.template,
        overlay.licence,
        overlay.parameters,
        overlay.messages.expose(),
        overlay.changed_at_unix_s,
    ];
    connection.execute(sql, values)
}

/// A name as the store has it.
fn plain(name: &str) -> Result<String, NameError> {
    match name.parse() {
        Ok(ModelRef::Name(name)) => Ok(name),
        _ => Err(NameError::Invalid { name: name.chars().take(200).collect() }),
    }
}

fn overlay(row: &Row<'_>) -> rusqlite::Result<Overlay> {
    Ok(Overlay {
        name: row.get(0)?,
        base: row.get(1)?,
        system: row.get::<_, Option<String>>(2)?.map(Private::new),
        template: row.get(3)?,
        licence: row.get(4)?,
        parameters: row.get(5)?,
        messages: Private::new(row.get::<_, String>(6)?),
        changed_at_unix_s: row.get(7)?,
    })
}
