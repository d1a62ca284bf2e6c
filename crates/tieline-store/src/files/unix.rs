//! What of files is a Unix's own: modes, inodes, folders that are synced.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tieline_types::Bytes;

use super::Stamp;

/// Takes away what others may do.
pub(super) fn narrow(path: &Path) -> io::Result<()> {
    let mode = fs::metadata(path)?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    set_mode(path, mode & 0o700)
}

/// Who may do what with a file, as `chmod` has it.
pub(crate) fn set_mode(path: &Path, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode))
}

/// Whether others than its owner may do anything with it.
pub(crate) fn is_open_to_others(about: &Metadata) -> bool {
    about.permissions().mode() & 0o077 != 0
}

/// New folders are made with this mode.
pub(super) fn folders_of_mode(builder: &mut DirBuilder, mode: u32) -> &mut DirBuilder {
    builder.mode(mode)
}

/// New files are made with this mode.
pub(crate) fn files_of_mode(options: &mut OpenOptions, mode: u32) -> &mut OpenOptions {
    options.mode(mode)
}

/// Makes a rename inside `folder` survive a power cut.
pub(crate) fn sync_dir(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Whether `path` still names the open file.
pub(crate) fn is_same(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(theirs) => Ok((ours.dev(), ours.ino()) == (theirs.dev(), theirs.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

pub(super) fn stamp(found: &Metadata) -> Stamp {
    let nanos =
        |seconds: i64, rest: i64| seconds.saturating_mul(1_000_000_000).saturating_add(rest);
    Stamp {
        device: found.dev().cast_signed(),
        inode: found.ino().cast_signed(),
        size: found.len().cast_signed(),
        mtime_ns: nanos(found.mtime(), found.mtime_nsec()),
        ctime_ns: nanos(found.ctime(), found.ctime_nsec()),
    }
}

/// What this user may still write where `path` lies; `None` where the system is not asked.
///
/// # Errors
/// Nothing lies there, or the system does not say.
pub fn free_space(path: &Path) -> io::Result<Option<Bytes>> {
    let found = rustix::fs::statvfs(path)?;
    Ok(Some(Bytes(found.f_bavail.saturating_mul(found.f_frsize))))
}

/// Renames where nothing has the new name.
pub(crate) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

/// Writes at a place of the file, in one call where the system takes it so.
pub(crate) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}
