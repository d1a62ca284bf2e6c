//! Certificates that are renewed while the server runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Tls, TlsError};

/// How a file looked: when it was changed, and how long it is.
type Stamp = Option<(SystemTime, u64)>;

/// The files of certificates, and how those looked that are in use.
#[derive(Debug)]
pub struct Renewal {
    chain: PathBuf,
    key: PathBuf,
    tls: Tls,
    used: [Stamp; 2],
    /// How those looked that could not be used, which was said.
    refused: Option<[Stamp; 2]>,
}

impl Renewal {
    /// Reads the files.
    ///
    /// # Errors
    /// As of [`Tls::from_files`].
    pub fn begin(chain: &Path, key: &Path) -> Result<Self, TlsError> {
        // First, so that what changes while it is read is read again.
        let used = [stamp(chain), stamp(key)];
        let tls = Tls::from_files(chain, key)?;
        Ok(Self { chain: chain.into(), key: key.into(), tls, used, refused: None })
    }

    /// What is in use.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Reads the files again where they changed, or in any case, and uses what they hold. Whether they did.
    ///
    /// # Errors
    /// They hold nothing that can be used, which is said once of the same files; what was used before stays.
    pub fn look(&mut self, in_any_case: bool) -> Result<bool, TlsError> {
        let now = [stamp(&self.chain), stamp(&self.key)];
        if now == self.used && !in_any_case {
            return Ok(false);
        }
        match Tls::from_files(&self.chain, &self.key) {
            Ok(tls) => {
                self.tls.replace(&tls);
                (self.used, self.refused) = (now, None);
                Ok(true)
            }
            // One file may be new and the other not yet: they are read again until they go together.
            Err(_) if self.refused == Some(now) && !in_any_case => Ok(false),
            Err(error) => {
                self.refused = Some(now);
                Err(error)
            }
        }
    }
}

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[test]
    fn renewed_files_are_used_and_broken_ones_are_said_once() {
        let folder = tempfile::tempdir().unwrap();
        let [chain, key] = ["chain", "key"].map(|name| folder.path().join(name));
        let made = |name: &str| {
            let CertifiedKey { cert, signing_key } =
                generate_simple_self_signed(vec![name.to_owned()]).unwrap();
            (cert.pem(), signing_key.serialize_pem())
        };
        // Of another length, so that the two look different whatever the clock's grain is.
        let (first, second) = (made("a"), made("a.much.longer.name.example"));
        fs::write(&chain, &first.0).unwrap();
        fs::write(&key, &first.1).unwrap();
        let mut renewal = Renewal::begin(&chain, &key).unwrap();
        let before = renewal.tls().current();
        assert!(!renewal.look(false).unwrap());
        assert!(renewal.look(true).unwrap(), "who asks for it has them read in any case");
        let again = renewal.tls().current();
        assert!(!Arc::ptr_eq(&before, &again));
        // The chain is there, its key is not yet.
        fs::write(&chain, &second.0).unwrap();
        assert!(renewal.look(false).is_err());
        assert!(!renewal.look(false).unwrap(), "it was said");
        assert!(Arc::ptr_eq(&again, &renewal.tls().current()));
        fs::remove_file(&key).unwrap();
        assert!(renewal.look(false).is_err());
        fs::write(&key, &second.1).unwrap();
        assert!(renewal.look(false).unwrap());
        assert!(!Arc::ptr_eq(&again, &renewal.tls().current()));
    }
}
