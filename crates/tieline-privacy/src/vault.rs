//! What the pseudonyms of a session stand for. In memory alone, bounded, and wiped when it is dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zeroize::Zeroizing;

use crate::detect::Entity;
use crate::known::{Known, Value, is_telling};
use crate::pseudonym::{Id, Kind, write};

/// The secret that all pseudonyms of this process are made with. Wiped when it is dropped.
#[derive(Clone)]
pub struct RootKey(Zeroizing<[u8; 32]>);

impl RootKey {
    /// A key of random bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey")
    }
}

/// Requests whose pseudonyms are the same, such as those of one conversation. An answer is restored with all of
/// its session's values, so callers who may not see each other's must not share one. Holds a hash of its name.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session([u8; 32]);

impl Session {
    /// The session of this name.
    pub fn named(name: &str) -> Self {
        Self(*blake3::hash(name.as_bytes()).as_bytes())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({:02x}{:02x}{:02x}{:02x})", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VaultLimits {
    /// The most sessions; the least recently used is forgotten first.
    pub sessions: usize,
    /// The most values of a session.
    pub values: usize,
    /// The most bytes of a session's values.
    pub bytes: usize,
}

impl Default for VaultLimits {
    fn default() -> Self {
        Self { sessions: 128, values: 16_384, bytes: 4 << 20 }
    }
}

/// A session whose vault has no room for another value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session holds as many pseudonyms as it may")]
pub struct VaultFull;

struct Entry {
    kind: Kind,
    value: Value,
    /// How many came before it.
    place: usize,
}

/// The pseudonyms of a session. The same value of the same kind always has the same one; those of another
/// session have nothing in common with them.
pub struct Pseudonyms {
    key: Zeroizing<[u8; 32]>,
    entries: HashMap<Id, Entry>,
    bytes: usize,
    limits: VaultLimits,
    /// All values of a kind have the same one, and none is kept.
    pub(crate) masks: bool,
    /// The values as they are looked for. `None`: more came since.
    known: Option<Arc<Known>>,
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pseudonyms").field("values", &self.entries.len()).finish_non_exhaustive()
    }
}

impl Pseudonyms {
    /// A session's, with none yet. A session that was forgotten gets the same again for the same values.
    pub fn new(root: &RootKey, session: Session, limits: VaultLimits) -> Self {
        let key = Zeroizing::new(*blake3::keyed_hash(&root.0, &session.0).as_bytes());
        Self { key, entries: HashMap::new(), bytes: 0, limits, masks: false, known: None }
    }

    /// What stands for a kind alone: the same for all its values, whoever asks and whenever, so that nothing can be put
    /// back. Texts that become vectors get these: nothing of them comes back, and vectors of the same text must be the
    /// same after a restart and for every session.
    pub(crate) fn masks() -> Self {
        let (key, entries) = (Zeroizing::default(), HashMap::new());
        Self { key, entries, bytes: 0, limits: VaultLimits::default(), masks: true, known: None }
    }

    /// The pseudonym of a value, as it is written.
    ///
    /// # Errors
    /// There is no room for another value.
    pub fn pseudonym(&mut self, entity: Entity, value: &str) -> Result<String, VaultFull> {
        self.replace(Kind::Found(entity), value)
    }

    /// Values that are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(crate) fn replace(&mut self, kind: Kind, value: &str) -> Result<String, VaultFull> {
        if self.masks {
            return Ok(write(kind, Id::from_number(0)));
        }
        // Two values with the same digits are rarer than one in a billion pairs; the second gets the next ones.
        for attempt in 0..8 {
            let id = self.id(kind, value, attempt);
            match self.entries.get(&id) {
                Some(entry) if entry.kind == kind && entry.value.as_str() == value => {
                    return Ok(write(kind, id));
                }
                Some(_) => {}
                None => {
                    self.keep(kind, id, value)?;
                    return Ok(write(kind, id));
                }
            }
        }
        Err(VaultFull)
    }

    fn keep(&mut self, kind: Kind, id: Id, value: &str) -> Result<(), VaultFull> {
        let bytes = self.bytes.saturating_add(value.len());
        if self.entries.len() >= self.limits.values || bytes > self.limits.bytes {
            return Err(VaultFull);
        }
        self.bytes = bytes;
        if matches!(kind, Kind::Found(_)) && is_telling(value) {
            self.known = None;
        }
        let value = Arc::new(Zeroizing::new(value.to_owned()));
        self.entries.insert(id, Entry { kind, value, place: self.entries.len() });
        Ok(())
    }

    fn id(&self, kind: Kind, value: &str, attempt: u8) -> Id {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(kind.tag().as_bytes()).update(&[0, attempt]).update(value.as_bytes());
        let mut number = [0; 8];
        number.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Id::from_number(u64::from_le_bytes(number))
    }

    /// The values of this session, to look for. One of several kinds has the kind that it was found as first, so that
    /// what left once leaves the same way again.
    pub(crate) fn known(&mut self) -> Arc<Known> {
        if let Some(known) = &self.known {
            return Arc::clone(known);
        }
        let mut found: Vec<(usize, Entity, &Value)> = Vec::with_capacity(self.entries.len());
        found.extend(self.entries.values().filter_map(|entry| match entry.kind {
            Kind::Found(entity) => Some((entry.place, entity, &entry.value)),
            Kind::Lookalike => None,
        }));
        found.sort_unstable_by_key(|(place, ..)| *place);
        let values = found.into_iter().map(|(_, entity, value)| (entity, Arc::clone(value)));
        let known = Arc::new(Known::new(values));
        self.known = Some(Arc::clone(&known));
        known
    }

    /// All that was found.
    #[cfg(test)]
    pub(crate) fn values(&self) -> Vec<String> {
        let found = self.entries.values().filter(|entry| entry.kind != Kind::Lookalike);
        found.map(|entry| entry.value.to_string()).collect()
    }

    /// What a pseudonym of this session stands for.
    pub(crate) fn value(&self, kind: Kind, id: Id) -> Option<&str> {
        self.entries.get(&id).filter(|entry| entry.kind == kind).map(|entry| entry.value.as_str())
    }
}

/// A session's pseudonyms, shared by its requests and the answers under way.
pub type Vault = Arc<Mutex<Pseudonyms>>;

/// The pseudonyms, also after a panic elsewhere: whatever they are, each still stands for its value.
pub(crate) fn lock(vault: &Vault) -> MutexGuard<'_, Pseudonyms> {
    vault.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The vaults of the sessions used last.
pub(crate) struct Vaults {
    root: RootKey,
    limits: VaultLimits,
    /// The most recently used last.
    sessions: Mutex<Vec<(Session, Vault)>>,
}

impl Vaults {
    pub(crate) fn new(root: RootKey, limits: VaultLimits) -> Self {
        Self { root, limits, sessions: Mutex::default() }
    }

    /// The session's vault. One that is forgotten lives on in the answers that use it.
    pub(crate) fn of(&self, session: Session) -> Vault {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let known = sessions.iter().position(|(known, _)| *known == session);
        let entry = match known {
            Some(at) => sessions.remove(at),
            None => {
                let pseudonyms = Pseudonyms::new(&self.root, session, self.limits);
                (session, Arc::new(Mutex::new(pseudonyms)))
            }
        };
        let vault = Arc::clone(&entry.1);
        let room = self.limits.sessions.max(1);
        if sessions.len() >= room {
            sessions.remove(0);
        }
        sessions.push(entry);
        vault
    }

    /// A vault that nobody else uses and nothing keeps.
    pub(crate) fn alone(&self, session: Session) -> Vault {
        Arc::new(Mutex::new(Pseudonyms::new(&self.root, session, self.limits)))
    }

    pub(crate) fn forget(&self, session: Session) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|(known, _)| *known != session);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pseudonyms(root: u8, session: &str, limits: VaultLimits) -> Pseudonyms {
        Pseudonyms::new(&RootKey::new([root; 32]), Session::named(session), limits)
    }

    #[test]
    fn the_same_value_has_the_same_pseudonym_in_its_session_alone() {
        let limits = VaultLimits::default();
        let mut one = pseudonyms(1, "a", limits);
        let token = one.pseudonym(Entity::Email, "a@b.example").unwrap();
        assert_eq!(one.pseudonym(Entity::Email, "a@b.example").unwrap(), token);
        assert_ne!(one.pseudonym(Entity::Term, "a@b.example").unwrap()[9..], token[10..]);
        assert_ne!(one.pseudonym(Entity::Email, "A@b.example").unwrap(), token);
        assert_eq!(one.len(), 3);
        for mut other in [pseudonyms(1, "b", limits), pseudonyms(2, "a", limits)] {
            assert_ne!(other.pseudonym(Entity::Email, "a@b.example").unwrap(), token);
        }
        let mut again = pseudonyms(1, "a", limits);
        assert_eq!(again.pseudonym(Entity::Email, "a@b.example").unwrap(), token);
    }

    #[test]
    fn a_full_vault_refuses_new_values_and_keeps_the_old() {
        let mut few = pseudonyms(1, "a", VaultLimits { values: 1, ..VaultLimits::default() });
        let token = few.pseudonym(Entity::Term, "first").unwrap();
        assert_eq!(few.pseudonym(Entity::Term, "second"), Err(VaultFull));
        assert_eq!(few.pseudonym(Entity::Term, "first").unwrap(), token);
        let mut small = pseudonyms(1, "a", VaultLimits { bytes: 4, ..VaultLimits::default() });
        assert_eq!(small.pseudonym(Entity::Term, "first"), Err(VaultFull));
        assert!(small.is_empty());
    }

    #[test]
    fn two_values_with_the_same_digits_are_told_apart() {
        let mut vault = pseudonyms(1, "a", VaultLimits::default());
        let kind = Kind::Found(Entity::Term);
        let taken = vault.id(kind, "second", 0);
        vault.keep(kind, taken, "first").unwrap();
        let token = vault.replace(kind, "second").unwrap();
        assert_eq!(token, write(kind, vault.id(kind, "second", 1)));
        assert_eq!(vault.replace(kind, "second").unwrap(), token);
    }

    #[test]
    fn the_least_recently_used_session_is_forgotten() {
        let limits = VaultLimits { sessions: 2, ..VaultLimits::default() };
        let vaults = Vaults::new(RootKey::new([7; 32]), limits);
        let [a, b, c] = ["a", "b", "c"].map(Session::named);
        let first = vaults.of(a);
        let second = vaults.of(b);
        assert!(Arc::ptr_eq(&vaults.of(a), &first));
        vaults.of(c);
        assert!(Arc::ptr_eq(&vaults.of(a), &first));
        assert!(!Arc::ptr_eq(&vaults.of(b), &second));
        vaults.forget(a);
        assert!(!Arc::ptr_eq(&vaults.of(a), &first));
    }

    #[test]
    fn no_debug_shows_a_value_or_a_key() {
        let mut vault = pseudonyms(7, "a", VaultLimits::default());
        vault.pseudonym(Entity::Term, "CANARY").unwrap();
        let shown = format!("{vault:?} {:?} {:?}", RootKey::new([7; 32]), Session::named("CANARY"));
        assert!(!shown.contains("CANARY") && !shown.contains(" 7"), "{shown}");
    }
}
