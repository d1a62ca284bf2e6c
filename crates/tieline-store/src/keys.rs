//! Keys that callers show: made, listed, revoked; and the local admin token.
//!
//! A secret is `tl_<kind>_<32 random digits>_<6 check digits>`, digits being base62. It is shown once, when it is
//! made. Only its SHA-256 is kept: with 190 random bits nobody finds a secret from it, and whoever compares hashes
//! learns nothing of the secret from how long that takes, so looking one up in a map is safe.

mod secret;
mod token;

use std::str::FromStr;

use rusqlite::{Row, params};
use tieline_types::Digest;

use crate::db::{DbError, digest};
use crate::store::Store;

pub use secret::{Secret, looks_like_ours};
pub use token::{TokenError, admin_token};

/// What a key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Have models answer, make vectors and scores.
    Infer,
    /// Make vectors and scores.
    Embed,
    /// See which models are here, and the metrics.
    ReadModels,
    /// Pull, make and delete models.
    WriteModels,
    /// All of it.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Infer, Self::Embed, Self::ReadModels, Self::WriteModels, Self::Admin];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Infer => "infer",
            Self::Embed => "embed",
            Self::ReadModels => "models.read",
            Self::WriteModels => "models.write",
            Self::Admin => "admin",
        }
    }
}

/// A word that is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no scope: expected infer, embed, models.read, models.write or admin")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(word: &str) -> Result<Self, UnknownScope> {
        let found = Self::ALL.into_iter().find(|scope| scope.as_str() == word);
        found.ok_or_else(|| UnknownScope(word.to_owned()))
    }
}

/// A key to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// What people call it.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The models that it may ask; `None`: all.
    pub models: Option<Vec<String>>,
    /// Requests that it may send in a minute; `None`: as many as it likes.
    pub requests_per_minute: Option<u32>,
    /// When it ends, in seconds since 1970.
    pub expires_at_unix_s: Option<i64>,
}

/// A key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its name in logs and lists: eight digits that are no part of the secret.
    pub id: String,
    /// The SHA-256 of its secret.
    pub digest: Digest,
    /// What people call it.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// The models that it may ask; `None`: all.
    pub models: Option<Vec<String>>,
    /// Requests that it may send in a minute; `None`: as many as it likes.
    pub requests_per_minute: Option<u32>,
    /// When it was made, in seconds since 1970.
    pub created_at_unix_s: i64,
    /// When it ends.
    pub expires_at_unix_s: Option<i64>,
    /// When it was last used, to the minute.
    pub last_used_at_unix_s: Option<i64>,
    /// When it was revoked.
    pub revoked_at_unix_s: Option<i64>,
}

impl Key {
    /// Whether it opens anything at this time.
    pub fn is_valid(&self, now_unix_s: i64) -> bool {
        self.revoked_at_unix_s.is_none()
            && self.expires_at_unix_s.is_none_or(|end| now_unix_s < end)
    }
}

/// Tells whether keys may have changed since it was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysVersion(i64, i64);

/// Why a key could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// It could do nothing.
    #[error("a key needs at least one scope")]
    NoScope,
    /// The database could not be written.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl tieline_types::Hint for KeyError {}

impl Store {
    /// Makes a key. Its secret is given here and never again.
    ///
    /// # Errors
    /// It has no scope, or the database cannot be written.
    pub fn create_key(&self, new: &NewKey, now_unix_s: i64) -> Result<(Secret, Key), KeyError> {
        if new.scopes.is_empty() {
            return Err(KeyError::NoScope);
        }
        let kind = if new.scopes.contains(&Scope::Admin) { "admin" } else { "user" };
        let secret = Secret::random(kind).map_err(KeyError::Random)?;
        let key = Key {
            id: secret::random_digits(8).map_err(KeyError::Random)?,
            digest: secret.digest(),
            label: new.label.clone(),
            scopes: new.scopes.clone(),
            models: new.models.clone(),
            requests_per_minute: new.requests_per_minute.filter(|most| *most > 0),
            created_at_unix_s: now_unix_s,
            expires_at_unix_s: new.expires_at_unix_s,
            last_used_at_unix_s: None,
            revoked_at_unix_s: None,
        };
        self.insert_key(&key)?;
        Ok((secret, key))
    }

    fn insert_key(&self, key: &Key) -> Result<(), DbError> {
        let sql = "INSERT INTO keys (id, digest, label, scopes, models, requests_per_minute,
            created_at_unix_s, expires_at_unix_s) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        // A name may hold a comma; JSON says where it ends.
        let models = key.models.as_ref().map(|models| serde_json::json!(models).to_string());
        let Key { id, label, requests_per_minute, created_at_unix_s, expires_at_unix_s, .. } = key;
        self.db.run("record a key", |db| {
            let times = (created_at_unix_s, expires_at_unix_s);
            let row = params![
                id,
                key.digest.hex(),
                label,
                scopes.join(" "),
                models,
                requests_per_minute,
                times.0,
                times.1
            ];
            db.execute(sql, row).map(drop)
        })
    }

    /// All keys, the oldest first, revoked ones too.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn keys(&self) -> Result<Vec<Key>, DbError> {
        let sql = "SELECT id, digest, label, scopes, models, requests_per_minute,
                created_at_unix_s, expires_at_unix_s, last_used_at_unix_s, revoked_at_unix_s
            FROM keys ORDER BY created_at_unix_s, id";
        self.db.run("list keys", |db| db.prepare(sql)?.query_map([], key)?.collect())
    }

    /// Revokes the key of this id. `false`: there is none, or it was revoked before.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn revoke_key(&self, id: &str, now_unix_s: i64) -> Result<bool, DbError> {
        let sql = "UPDATE keys SET revoked_at_unix_s = ?2
            WHERE id = ?1 AND revoked_at_unix_s IS NULL";
        self.db.run("revoke a key", |db| Ok(db.execute(sql, params![id, now_unix_s])? > 0))
    }

    /// Notes when keys were last used.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn touch_keys(&self, uses: &[(String, i64)]) -> Result<(), DbError> {
        let sql = "UPDATE keys SET last_used_at_unix_s = max(?2, coalesce(last_used_at_unix_s, 0))
            WHERE id = ?1";
        self.db.run("note the use of keys", |db| {
            let transaction = db.transaction()?;
            for (id, at) in uses {
                transaction.execute(sql, params![id, at])?;
            }
            transaction.commit()
        })
    }

    /// Another one than before where anything in the database changed, by this process or another. Reads no table.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn keys_version(&self) -> Result<KeysVersion, DbError> {
        self.db.run("look for changed keys", |db| {
            let others = db.query_row("PRAGMA data_version", [], |row| row.get(0))?;
            let ours = db.query_row("SELECT total_changes()", [], |row| row.get(0))?;
            Ok(KeysVersion(others, ours))
        })
    }
}

fn key(row: &Row<'_>) -> rusqlite::Result<Key> {
    let scopes: String = row.get(3)?;
    let models: Option<String> = row.get(4)?;
    // A list that cannot be read lets nothing through rather than everything.
    let models = models.map(|models| serde_json::from_str(&models).unwrap_or_default());
    Ok(Key {
        id: row.get(0)?,
        digest: digest(row, 1)?,
        label: row.get(2)?,
        scopes: scopes.split(' ').filter_map(|word| word.parse().ok()).collect(),
        models,
        requests_per_minute: row.get(5)?,
        created_at_unix_s: row.get(6)?,
        expires_at_unix_s: row.get(7)?,
        last_used_at_unix_s: row.get(8)?,
        revoked_at_unix_s: row.get(9)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        (folder, store)
    }

    #[test]
    fn a_key_comes_back_without_its_secret() {
        let (folder, store) = store();
        let new = NewKey {
            label: "editor".to_owned(),
            scopes: vec![Scope::Infer, Scope::ReadModels],
            models: Some(vec!["a, b".to_owned()]),
            requests_per_minute: Some(60),
            expires_at_unix_s: Some(100),
        };
        let (secret, made) = store.create_key(&new, 10).unwrap();
        assert!(secret.expose().starts_with("tl_user_"));
        assert_eq!(store.keys().unwrap(), std::slice::from_ref(&made));
        assert_eq!(made.digest, secret.digest());
        assert!(made.is_valid(99));
        assert!(!made.is_valid(100));
        drop(store);
        for file in std::fs::read_dir(folder.path()).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                let random = &secret.expose().as_bytes()[8..40];
                assert!(!bytes.windows(32).any(|part| part == random), "{}", path.display());
            }
        }
    }

    #[test]
    fn a_revoked_key_opens_nothing_and_stays_revoked() {
        let (_folder, store) = store();
        let new = NewKey { scopes: vec![Scope::Admin], ..NewKey::default() };
        let (secret, made) = store.create_key(&new, 10).unwrap();
        assert!(secret.expose().starts_with("tl_admin_"));
        assert!(store.revoke_key(&made.id, 20).unwrap());
        assert!(!store.revoke_key(&made.id, 30).unwrap());
        assert!(!store.revoke_key("nobody", 30).unwrap());
        let key = store.keys().unwrap().remove(0);
        assert_eq!(key.revoked_at_unix_s, Some(20));
        assert!(!key.is_valid(15));
    }

    #[test]
    fn a_key_without_a_scope_is_not_made() {
        let (_folder, store) = store();
        assert!(matches!(store.create_key(&NewKey::default(), 1), Err(KeyError::NoScope)));
        assert_eq!("models.read".parse(), Ok(Scope::ReadModels));
        assert!("everything".parse::<Scope>().is_err());
    }

    #[test]
    fn a_change_is_noticed_whoever_made_it() {
        let (folder, store) = store();
        let other = Store::open(folder.path()).unwrap();
        let before = store.keys_version().unwrap();
        assert_eq!(store.keys_version().unwrap(), before);
        let new = NewKey { scopes: vec![Scope::Infer], ..NewKey::default() };
        let (_, key) = other.create_key(&new, 1).unwrap();
        let between = store.keys_version().unwrap();
        assert_ne!(between, before);
        store.touch_keys(&[(key.id, 7)]).unwrap();
        assert_ne!(store.keys_version().unwrap(), between);
        assert_eq!(store.keys().unwrap()[0].last_used_at_unix_s, Some(7));
    }
}
