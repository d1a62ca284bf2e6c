//! The keys, in memory: a request costs no look into the database. Changes are noticed by
//! [`Keyring::refresh`], which the server calls every second.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tieline_store::keys::{Key, KeysVersion, Secret};
use tieline_store::{DbError, Store};
use tieline_types::Digest;
use tokio::time::Instant;

use super::held::Places;
use super::policy::Known;
use super::rate::Bucket;
use super::shown::Shown;

/// The use of a key is written down when it was last written so long ago.
const COARSE_S: i64 = 60;

/// A key, and what it does now.
#[derive(Debug)]
pub(crate) struct Entry {
    key: Key,
    models: Option<Arc<[String]>>,
    live: Arc<Live>,
}

/// What outlives a reload.
#[derive(Debug, Default)]
struct Live {
    bucket: Mutex<Option<(u32, Bucket)>>,
    places: Places,
    used_at_unix_s: AtomicI64,
    noted_at_unix_s: AtomicI64,
}

impl Entry {
    fn new(key: Key, live: Arc<Live>) -> Self {
        let models = key.models.clone().map(Arc::from);
        Self { key, models, live }
    }

    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn models(&self) -> Option<Arc<[String]>> {
        self.models.clone()
    }

    pub(crate) fn places(&self) -> &Places {
        &self.live.places
    }

    /// One request more.
    ///
    /// # Errors
    /// It asked too often: after so long it may again.
    pub(crate) fn ask(&self) -> Result<(), Duration> {
        let Some(per_minute) = self.key.requests_per_minute else { return Ok(()) };
        let now = Instant::now();
        let mut bucket = self.live.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *bucket {
            Some((known, bucket)) if *known == per_minute => bucket.take(now),
            other => {
                let (_, bucket) = other.insert((per_minute, Bucket::new(per_minute, now)));
                bucket.take(now)
            }
        }
    }
}

/// All keys, by the hashes of their secrets, and the local admin token's hash.
#[derive(Debug)]
pub(crate) struct Keyring {
    admin: Option<Digest>,
    keys: RwLock<HashMap<Digest, Arc<Entry>>>,
    version: Mutex<Option<KeysVersion>>,
}

impl Keyring {
    /// Knows the admin token and, until it is refreshed, no key.
    pub(crate) fn new(admin: Option<&Secret>) -> Self {
        let admin = admin.map(Secret::digest);
        Self { admin, keys: RwLock::default(), version: Mutex::default() }
    }

    /// Whose key is shown.
    pub(crate) fn known(&self, shown: Shown<'_>) -> Known {
        let text = match shown {
            Shown::Nothing => return Known::Nobody,
            Shown::Unclear => return Known::Refused,
            Shown::One(text) => text,
        };
        let Some(secret) = Secret::parse(text) else { return Known::Refused };
        let digest = secret.digest();
        // Comparing hashes early or late tells nothing of the secret that they are of.
        if self.admin == Some(digest) {
            return Known::Admin;
        }
        let now = now_unix_s();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        match keys.get(&digest).filter(|entry| entry.key.is_valid(now)) {
            Some(entry) => {
                entry.live.used_at_unix_s.store(now, Ordering::Relaxed);
                Known::Key(Arc::clone(entry))
            }
            None => Known::Refused,
        }
    }

    /// Whether any key opens anything now.
    pub(crate) fn has_keys(&self) -> bool {
        let now = now_unix_s();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.values().any(|entry| entry.key.is_valid(now))
    }

    /// Reads the keys again where they may have changed, and writes down which were used.
    ///
    /// # Errors
    /// The database cannot be read or written; the keys stay as they are.
    pub(crate) fn refresh(&self, store: &Store) -> Result<(), DbError> {
        let uses = self.uses();
        if !uses.is_empty() {
            store.touch_keys(&uses)?;
        }
        let mut version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let found = store.keys_version()?;
        if *version == Some(found) {
            return Ok(());
        }
        let keys = store.keys()?;
        let mut known = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        let read = keys.into_iter().map(|key| {
            let live = known.get(&key.digest).map(|entry| Arc::clone(&entry.live));
            (key.digest, Arc::new(Entry::new(key, live.unwrap_or_default())))
        });
        *known = read.collect();
        *version = Some(found);
        Ok(())
    }

    fn uses(&self) -> Vec<(String, i64)> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let due = keys.values().filter_map(|entry| {
            let used = entry.live.used_at_unix_s.load(Ordering::Relaxed);
            let noted = entry.live.noted_at_unix_s.load(Ordering::Relaxed);
            if used < noted + COARSE_S || used == 0 {
                return None;
            }
            entry.live.noted_at_unix_s.store(used, Ordering::Relaxed);
            Some((entry.key.id.clone(), used))
        });
        due.collect()
    }
}

fn now_unix_s() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
