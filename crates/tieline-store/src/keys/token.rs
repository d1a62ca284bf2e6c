//! The local admin token: a file that only this machine's user can read. Whoever can, may manage.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::Secret;
use crate::files::{is_open_to_others, private_file, sync_dir};

/// Longer than any token.
const MOST: u64 = 256;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("cannot use the admin token {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read it, so it is no secret.
    #[error("others than its owner can read the admin token {}", .0.display())]
    Open(PathBuf),
    /// It holds no token.
    #[error("the file {} holds no admin token", .0.display())]
    Damaged(PathBuf),
}

impl tieline_types::Hint for TokenError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::File { .. } => None,
            Self::Open(path) | Self::Damaged(path) => {
                Some(format!("delete {}: a new one is made", path.display()))
            }
        }
    }
}

/// The token in `home`, made where it is not there.
///
/// # Errors
/// It cannot be read or made, it is damaged, or others can read it.
pub fn admin_token(home: &Path) -> Result<Secret, TokenError> {
    let path = home.join("admin_token");
    let fail = |source| TokenError::File { path: path.clone(), source };
    // Under a lock: two that start at once make one token.
    let lock = private_file().open(home.join("admin_token.lock")).map_err(fail)?;
    lock.lock().map_err(fail)?;
    match File::open(&path) {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(home, &path),
        Err(error) => Err(fail(error)),
    }
}

fn read(file: File, path: &Path) -> Result<Secret, TokenError> {
    let fail = |source| TokenError::File { path: path.into(), source };
    if is_open_to_others(&file.metadata().map_err(fail)?) {
        return Err(TokenError::Open(path.into()));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(fail)?;
    Secret::parse(text.trim()).ok_or_else(|| TokenError::Damaged(path.into()))
}

fn make(home: &Path, path: &Path) -> Result<Secret, TokenError> {
    let fail = |source| TokenError::File { path: path.into(), source };
    let secret = Secret::random("local").map_err(|error| fail(io::Error::other(error)))?;
    let half = home.join("admin_token.new");
    let mut file = private_file().truncate(true).open(&half).map_err(fail)?;
    writeln!(file, "{}", secret.expose()).map_err(fail)?;
    file.sync_all().map_err(fail)?;
    std::fs::rename(&half, path).map_err(fail)?;
    sync_dir(home).map_err(fail)?;
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_token_is_made_once_and_is_nobody_elses() {
        let home = tempfile::tempdir().unwrap();
        let first = admin_token(home.path()).unwrap();
        assert!(first.expose().starts_with("tl_local_"));
        assert_eq!(admin_token(home.path()).unwrap(), first);
        let path = home.path().join("admin_token");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(admin_token(home.path()), Err(TokenError::Open(_))));
    }

    #[test]
    fn a_damaged_token_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let text = admin_token(home.path()).unwrap();
        let path = home.path().join("admin_token");
        fs::write(&path, &text.expose()[..20]).unwrap();
        assert!(matches!(admin_token(home.path()), Err(TokenError::Damaged(_))));
    }
}
