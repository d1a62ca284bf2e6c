//! What of files is Windows' own. Compiled and never run: see `docs/jail.md`.
//!
//! Nothing here changes who may read a file: what lies in a user's folder has that folder's rights.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::windows::fs::{FileExt, MetadataExt};
use std::path::Path;

use same_file::Handle;
use tieline_types::Bytes;

use super::Stamp;

pub(super) fn narrow(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Of a mode there is only whether the owner may write.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    let mut permissions = fs::metadata(path)?.permissions();
    permissions.set_readonly(mode & 0o200 == 0);
    fs::set_permissions(path, permissions)
}

/// Not told by the standard library; the folder's rights are the user's care.
pub(crate) fn is_open_to_others(_: &Metadata) -> bool {
    false
}

pub(super) fn folders_of_mode(builder: &mut DirBuilder, _: u32) -> &mut DirBuilder {
    builder
}

pub(crate) fn files_of_mode(options: &mut OpenOptions, _: u32) -> &mut OpenOptions {
    options
}

/// The journal of NTFS keeps a rename; a folder cannot be synced.
pub(crate) fn sync_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Whether `path` still names the open file.
pub(crate) fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let ours = Handle::from_file(file.try_clone()?)?;
    match Handle::from_path(path) {
        Ok(theirs) => Ok(ours == theirs),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Less than elsewhere: the standard library tells neither volume nor number of a file.
pub(super) fn stamp(found: &Metadata) -> Stamp {
    Stamp {
        device: 0,
        inode: 0,
        size: found.len().cast_signed(),
        mtime_ns: found.last_write_time().cast_signed(),
        ctime_ns: found.creation_time().cast_signed(),
    }
}

/// Not asked here: a full disk is noticed by writing to it.
///
/// # Errors
/// Never.
pub fn free_space(_: &Path) -> io::Result<Option<Bytes>> {
    Ok(None)
}

/// Renames where nothing has the new name. Cut short, it leaves both names, and the next pull finds the file.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to)?;
    fs::remove_file(from)
}

/// Moves the file's position, which nobody here goes by.
pub(crate) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            written => {
                bytes = bytes.get(written..).unwrap_or_default();
                offset += written as u64;
            }
        }
    }
    Ok(())
}
