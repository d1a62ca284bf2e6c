//! Turns a finished download into a model: checks it, moves it to its place, and commits.
//!
//! Every step leaves a state from which the next process goes on: bytes are durable before they
//! have their final name, and have it before the database speaks of them.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use tieline_types::{Bytes, Digest};

use super::error::{MirrorError, PullError, StorageError};
use super::ingest::Ingest;
use super::pypi;
use crate::db::{Db, NewModel};
use crate::files::{self, Layout, Stamp};
use crate::gguf::Gguf;
use crate::model::Facts;
use crate::overlay::Said;
use crate::remove::{Lease, lease};

/// How long a removal by another process may take: two seconds.
const ROUNDS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// Checks what was downloaded. Bytes that fail are deleted: they can never become right.
pub(crate) fn check(
    ingest: &mut Ingest,
    expected: &[Digest],
    size: Option<Bytes>,
) -> Result<(Digest, Facts), MirrorError> {
    let checked = check_bytes(ingest, expected, size);
    if checked.is_err() {
        ingest.restart(super::ingest::Origin::default())?;
        pypi::forget_wheels(ingest.folder());
    }
    checked
}

fn check_bytes(
    ingest: &mut Ingest,
    expected: &[Digest],
    size: Option<Bytes>,
) -> Result<(Digest, Facts), MirrorError> {
    let found = Bytes(ingest.len());
    if let Some(expected) = size.filter(|size| *size != found) {
        return Err(MirrorError::WrongSize { expected, found });
    }
    let digest = ingest.digest();
    if let Some(&expected) = expected.iter().find(|expected| **expected != digest) {
        return Err(MirrorError::WrongDigest { expected, found: digest });
    }
    let gguf = Gguf::read(ingest.data())?;
    if gguf.parts() > 1 {
        return Err(MirrorError::Part { file: "the file".to_owned() });
    }
    Ok((digest, Facts::from(&gguf)))
}

/// A verified file at its final place, kept from removal until its row is committed.
pub(crate) struct Placed {
    pub(crate) facts: Facts,
    stamp: Stamp,
    _lease: Lease,
}

/// Moves a checked download to its final place.
pub(crate) fn place(
    layout: &Layout,
    ingest: &Ingest,
    (digest, facts): (Digest, Facts),
) -> Result<Placed, StorageError> {
    let data = ingest.data_path();
    let path = layout.blob(digest);
    make_durable(layout, ingest.data(), &data, &path)?;
    let failed = || StorageError::at("publish", &path);
    // The lease comes before the name: nobody can remove what is not committed yet.
    let file = File::open(&data).map_err(failed())?;
    file.lock_shared().map_err(failed())?;
    // What lies there may be wrong, or another process may be removing it: it has to go first.
    for _ in 0..ROUNDS {
        match files::rename_new(&data, &path) {
            Ok(()) => {
                sync_both(&data, &path).map_err(failed())?;
                let stamp = Stamp::of(&file).map_err(failed())?;
                return Ok(Placed { facts, stamp, _lease: Lease::of(file) });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed()(error)),
        }
        if let Some(placed) = adopt(layout, digest, None)? {
            return Ok(placed);
        }
        std::thread::sleep(PAUSE);
    }
    Err(failed()(io::Error::other("what lies there changes all the time")))
}

/// Takes a file that lies at its final place into use, if its bytes are right. One that is wrong is
/// thrown away. One that looks as it did when it was last hashed, `known`, is not hashed again.
pub(crate) fn adopt(
    layout: &Layout,
    digest: Digest,
    known: Option<Stamp>,
) -> Result<Option<Placed>, StorageError> {
    let path = layout.blob(digest);
    let failed = || StorageError::at("verify", &path);
    let Some(lease) = lease(layout, digest).map_err(failed())? else { return Ok(None) };
    let file = File::open(&path).map_err(failed())?;
    let stamp = Stamp::of(&file).map_err(failed())?;
    let is_right =
        known == Some(stamp) || files::hash(&file, &mut |_| {}).map_err(failed())? == digest;
    match Gguf::read(&file) {
        Ok(gguf) if is_right => {
            Ok(Some(Placed { facts: Facts::from(&gguf), stamp, _lease: lease }))
        }
        _ => {
            layout.discard(&path).map_err(failed())?;
            Ok(None)
        }
    }
}

/// The only commit point. Gives the file whose last name it took.
pub(crate) fn commit(
    db: &Db,
    model: &NewModel,
    placed: &Placed,
    said: Said<'_>,
) -> Result<Option<Digest>, PullError> {
    Ok(db.publish(model, (&placed.stamp, &placed.facts), said)?)
}

fn make_durable(
    layout: &Layout,
    file: &File,
    data: &Path,
    path: &Path,
) -> Result<(), StorageError> {
    let failed = || StorageError::at("make durable", data);
    files::set_mode(data, 0o400).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    let folder = path.parent().unwrap_or_else(|| layout.root());
    files::private_dir(folder).map_err(StorageError::at("make", folder))?;
    // The folder may be new: its own name must survive too.
    let above = folder.parent().unwrap_or_else(|| layout.root());
    files::sync_dir(above).map_err(StorageError::at("make durable", above))
}

fn sync_both(data: &Path, path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), files::sync_dir)?;
    data.parent().map_or(Ok(()), files::sync_dir)
}
