//! Whether a table of prices is signed by a key.

use minisign_verify::{PublicKey, Signature};
use tieline_types::Hint;

/// Why a table is not taken for what somebody signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// That is no public key of minisign's.
    #[error("cannot read the public key")]
    Key(#[source] minisign_verify::Error),
    /// That is no signature of minisign's.
    #[error("cannot read the signature")]
    Signature(#[source] minisign_verify::Error),
    /// It is signed by another key, or was changed since.
    #[error("the table is not what was signed by this key")]
    Other(#[source] minisign_verify::Error),
}

impl Hint for SignatureError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Key(_) => {
                "expected the file that `minisign -G` writes, or the line in it that begins with RW"
                    .to_owned()
            }
            Self::Signature(_) => {
                "expected the file that `minisign -Sm TABLE` writes beside the table".to_owned()
            }
            Self::Other(_) => {
                "get table and signature again from where the key is from, or trust another with --key"
                    .to_owned()
            }
        })
    }
}

/// Checks that `signature` is `key`'s of `table`. Signatures of minisign's old kind, without a hash first, are refused.
///
/// # Errors
/// One of them cannot be read, or they do not belong together.
pub(super) fn verify(table: &str, signature: &str, key: &str) -> Result<(), SignatureError> {
    let key = PublicKey::from_base64(key_line(key)).map_err(SignatureError::Key)?;
    let signature = Signature::decode(signature).map_err(SignatureError::Signature)?;
    key.verify(table.as_bytes(), &signature, false).map_err(SignatureError::Other)
}

/// A public key without the comment in its file, which says nothing.
pub fn key_line(key: &str) -> &str {
    key.trim().lines().last().unwrap_or_default().trim()
}
