//! Takes in a file that a caller sends. It waits, verified, in a folder of its own until somebody names it; what
//! nobody names goes after a day, and what breaks off goes at once.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tieline_types::{Bytes, Digest, Hint, ModelRef};

use super::error::{Failure, MirrorError, PullError, StorageError};
use super::ingest::{Ingest, Origin};
use super::job::{Fetched, SharedIngest, Writer, lock};
use super::options::{PullOptions, Pulled, Tuning};
use super::plan::{Name, Target};
use super::{LOOK_EVERY, Pull, open_ingest, publish};
use crate::files::{self, Layout, WHOLE};
use crate::gguf::{Gguf, GgufError};
use crate::model::UPLOAD;
use crate::overlay::Overlay;
use crate::store::Store;

/// How often an upload looks how much the others take meanwhile, in bytes.
const LOOK_AT_OTHERS: u64 = 16 * 1024 * 1024;

/// How much an upload may bring.
#[derive(Clone, Copy, Debug)]
pub struct UploadLimits {
    /// The most bytes of all uploads that wait for a name, this one among them.
    pub most: Bytes,
    /// What the caller says that it will be.
    pub announced: Option<Bytes>,
    /// Space that stays free, and how often bytes are made durable.
    pub tuning: Tuning,
}

/// Why a file was not taken in. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UploadError {
    /// It, and those that wait for a name, are too much.
    #[error("the file is too long: uploads without a name may take {most} together")]
    TooLarge {
        /// What they may take.
        most: Bytes,
    },
    /// The same caller sends the same file already.
    #[error("the file {digest} is being uploaded already")]
    Busy {
        /// What its digest is.
        digest: Digest,
    },
    /// It is another file.
    #[error("the bytes have another digest: expected {expected}, found {found}")]
    WrongDigest {
        /// As the caller said.
        expected: Digest,
        /// As it is.
        found: Digest,
    },
    /// It is no model that is safe to open.
    #[error("the file is no GGUF model: {0}")]
    Gguf(#[from] GgufError),
    /// The disk failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The work was stopped from inside.
    #[error("the upload stopped before it was done")]
    Stopped,
}

impl Hint for UploadError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLarge { .. } => {
                Some("name what was uploaded by /api/create, or pull the model instead".to_owned())
            }
            Self::WrongDigest { .. } => Some("upload it again".to_owned()),
            Self::Storage(error) => error.hint(),
            Self::Busy { .. } | Self::Gguf(_) | Self::Stopped => None,
        }
    }
}

/// A file on its way in. Dropped before its end, it is gone.
#[derive(Debug)]
pub struct Upload {
    layout: Layout,
    folder: PathBuf,
    digest: Digest,
    limits: UploadLimits,
    ingest: SharedIngest,
    writer: Option<Writer>,
    length: u64,
    /// At this length it looks again how much the others take.
    look_at: u64,
    kept: bool,
}

impl Store {
    /// Whether a file of this caller waits, whole and verified, for its name.
    pub fn has_upload(&self, who: &str, digest: Digest) -> bool {
        self.layout.upload(who, digest).join(WHOLE).exists()
    }

    /// Begins to take in a file of this digest, which this caller sends: nobody else can name it.
    ///
    /// # Errors
    /// It is announced as too long, it is on its way already, or the disk cannot take it.
    pub async fn upload(
        &self,
        who: &str,
        digest: Digest,
        limits: UploadLimits,
    ) -> Result<Upload, UploadError> {
        let (layout, folder) = (self.layout.clone(), self.layout.upload(who, digest));
        let task = tokio::task::spawn_blocking(move || begin(layout, folder, digest, limits));
        task.await.map_err(|_| UploadError::Stopped)?
    }

    /// Makes a model of an upload: checks it once more, and moves it to its place under the options' name. What is
    /// `said` before it is kept in the same step as its name.
    ///
    /// # Errors
    /// There is no such upload, the name is none or taken, or the disk failed.
    pub async fn name_upload(
        &self,
        who: &str,
        digest: Digest,
        options: PullOptions<'_>,
        said: Option<&Overlay>,
    ) -> Result<Pulled, PullError> {
        let name = options.name.clone().unwrap_or_default().to_ascii_lowercase();
        if name.parse() != Ok(ModelRef::Name(name.clone())) {
            return Err(PullError::InvalidName { name });
        }
        let target = Target {
            reference: digest.to_string(),
            name: Name::Fixed(name),
            mirrors: Vec::new(),
            expected: Some(digest),
            size: None,
            licence: None,
        };
        let pull = Pull { store: self, target, options: &options, upload: Some(said) };
        pull.check_fixed_name()?;
        let folder = self.layout.upload(who, digest);
        let lock = take(&folder, digest).await?;
        // Somebody died, or left, between the move and the name.
        if let Some(pulled) = pull.adopt(digest, Some(Fetched::from(UPLOAD))).await? {
            let _ = self.layout.discard(&folder);
            return Ok(pulled);
        }
        let mut ingest = open_ingest(&folder, lock, options.environment.tuning).await?;
        let (layout, whole) = (self.layout.clone(), folder.join(WHOLE));
        let work = tokio::task::spawn_blocking(move || {
            let checked = publish::check(&mut ingest, &[digest], None);
            if checked.is_err() {
                // The disk lost it: it must come again.
                let _ = std::fs::remove_file(&whole);
            }
            let (digest, facts) = checked?;
            let placed = publish::place(&layout, &ingest, (digest, facts))?;
            Ok::<_, MirrorError>((placed, ingest))
        });
        let done = work.await.map_err(|_| PullError::Stopped)?;
        let (placed, ingest) = done.map_err(|error| failed(digest, error))?;
        let pulled = pull.finish(digest, Fetched::from(UPLOAD), &placed, false).await?;
        // The model is there; what is left is also cleared by the next start.
        let _ = self.layout.discard(&folder);
        drop(ingest);
        Ok(pulled)
    }
}

fn failed(digest: Digest, error: MirrorError) -> PullError {
    match error {
        MirrorError::Storage(error) => error.into(),
        error => {
            PullError::of(digest.to_string(), vec![Failure { source: UPLOAD.to_owned(), error }])
        }
    }
}

/// Waits for the right to this upload, which must be whole.
async fn take(folder: &Path, digest: Digest) -> Result<File, PullError> {
    loop {
        if !folder.join(WHOLE).exists() {
            return Err(PullError::UnknownDigest { digest });
        }
        match files::try_lock(&folder.join("lock")) {
            // Whoever had it before may have named it, and cleared the folder.
            Ok(Some(lock)) if folder.join(WHOLE).exists() => return Ok(lock),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StorageError::at("lock", folder)(error).into()),
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn begin(
    layout: Layout,
    folder: PathBuf,
    digest: Digest,
    limits: UploadLimits,
) -> Result<Upload, UploadError> {
    let announced = limits.announced.unwrap_or(Bytes(0)).0;
    layout.forget_uploads();
    check_room(&layout, &folder, announced, limits.most)?;
    files::private_dir(&folder).map_err(StorageError::at("make", &folder))?;
    let lock = match files::try_lock(&folder.join("lock")) {
        Ok(lock) => lock.ok_or(UploadError::Busy { digest })?,
        // It was cleared at this very moment.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(UploadError::Busy { digest });
        }
        Err(error) => return Err(StorageError::at("lock", &folder)(error).into()),
    };
    let whole = folder.join(WHOLE);
    match std::fs::remove_file(&whole) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(StorageError::at("clear", &whole)(error).into());
        }
        _ => {}
    }
    let mut ingest = Ingest::open(&folder, lock, limits.tuning)?;
    let total = limits.announced.map(|bytes| bytes.0);
    ingest.restart(Origin { source: UPLOAD.to_owned(), validator: None, total })?;
    ingest.require_room(announced)?;
    let ingest = Arc::new(Mutex::new(ingest));
    let writer = Some(Writer::new(&ingest));
    let (length, look_at, kept) = (0, LOOK_AT_OTHERS, false);
    Ok(Upload { layout, folder, digest, limits, ingest, writer, length, look_at, kept })
}

fn check_room(layout: &Layout, folder: &Path, length: u64, most: Bytes) -> Result<(), UploadError> {
    if layout.uploaded_beside(folder).saturating_add(length) > most.0 {
        return Err(UploadError::TooLarge { most });
    }
    Ok(())
}

impl Upload {
    /// Adds bytes.
    ///
    /// # Errors
    /// It became too long, or the disk failed.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.length = self.length.saturating_add(bytes.len() as u64);
        if self.length > self.limits.most.0 {
            return Err(UploadError::TooLarge { most: self.limits.most });
        }
        if self.length >= self.look_at {
            self.look_at = self.length + LOOK_AT_OTHERS;
            check_room(&self.layout, &self.folder, self.length, self.limits.most)?;
        }
        let writer = self.writer.as_mut().ok_or(UploadError::Stopped)?;
        writer.push(bytes).await.map_err(stopped)
    }

    /// Checks what came; from now on it waits for its name.
    ///
    /// # Errors
    /// It is too long, another file, or no model, or the disk failed.
    pub async fn finish(mut self) -> Result<(), UploadError> {
        check_room(&self.layout, &self.folder, self.length, self.limits.most)?;
        let writer = self.writer.take().ok_or(UploadError::Stopped)?;
        writer.finish().await.map_err(stopped)?;
        let (ingest, folder, digest) = (Arc::clone(&self.ingest), self.folder.clone(), self.digest);
        let task = tokio::task::spawn_blocking(move || settle(&mut lock(&ingest), &folder, digest));
        task.await.map_err(|_| UploadError::Stopped)??;
        self.kept = true;
        Ok(())
    }
}

/// Makes an upload whole: checked, durable, and marked as both.
fn settle(ingest: &mut Ingest, folder: &Path, expected: Digest) -> Result<(), UploadError> {
    let found = ingest.digest();
    if found != expected {
        return Err(UploadError::WrongDigest { expected, found });
    }
    if !ingest.is_in_place()? {
        // Somebody moved the folder away; what lies there now is another's, and was not checked.
        return Err(UploadError::Stopped);
    }
    Gguf::read(ingest.data())?;
    ingest.record()?;
    let whole = folder.join(WHOLE);
    files::private_file().open(&whole).map_err(StorageError::at("make", &whole))?;
    Ok(files::sync_dir(folder).map_err(StorageError::at("make durable", folder))?)
}

fn stopped(error: MirrorError) -> UploadError {
    match error {
        MirrorError::Storage(error) => UploadError::Storage(error),
        _ => UploadError::Stopped,
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What lies there after a move is another's.
        let is_ours = lock(&self.ingest).is_in_place().unwrap_or(false);
        if !self.kept && is_ours {
            // What cannot be cleared now is cleared by the next start.
            let _ = self.layout.discard(&self.folder);
        }
    }
}
