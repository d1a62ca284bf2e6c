//! A store in a temporary folder, and what tests ask of it.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tieline_store::gguf::write::Draft;
use tieline_store::{
    Catalogue, Environment, Progress, PullError, PullEvent, PullOptions, Pulled, Store, Tuning,
};
use tieline_types::{Bytes, Digest, ModelRef};

/// A model of about `size` bytes.
pub(crate) fn model(size: u64) -> Vec<u8> {
    Draft::sample(size.next_multiple_of(128)).bytes()
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

pub(crate) fn reference(text: &str) -> ModelRef {
    text.parse().unwrap()
}

/// Keeps all events.
#[derive(Default)]
pub(crate) struct Events(Mutex<Vec<PullEvent>>);

impl Progress for Events {
    fn event(&self, event: PullEvent) {
        self.0.lock().unwrap().push(event);
    }
}

impl Events {
    pub(crate) fn all(&self) -> Vec<PullEvent> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn resumed_at(&self) -> Option<u64> {
        self.all().into_iter().find_map(|event| match event {
            PullEvent::Resumed { at } => Some(at.0),
            _ => None,
        })
    }
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) store: Store,
    pub(crate) environment: Environment,
    pub(crate) catalogue: Catalogue,
    pub(crate) events: Events,
    pub(crate) expected: Option<Digest>,
    pub(crate) name: Option<String>,
}

impl World {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        Self {
            folder,
            store,
            environment: environment(),
            catalogue: Catalogue::default(),
            events: Events::default(),
            expected: None,
            name: None,
        }
    }

    pub(crate) fn options(&self) -> PullOptions<'_> {
        PullOptions {
            catalogue: &self.catalogue,
            expected: self.expected,
            name: self.name.clone(),
            environment: &self.environment,
            progress: &self.events,
        }
    }

    pub(crate) fn pull(&self, text: &str) -> Result<Pulled, PullError> {
        run(self.store.pull(&reference(text), self.options()))
    }

    /// Pulls, expecting a failure, and gives its text after checking that nothing was published.
    #[track_caller]
    pub(crate) fn refused(&self, text: &str) -> String {
        let error = self.pull(text).unwrap_err();
        assert_eq!(self.store.list().unwrap(), vec![]);
        assert_eq!(blobs(self.store.root()), Vec::<PathBuf>::new());
        error.to_string()
    }

    /// One catalogue entry `m` for `bytes`.
    pub(crate) fn catalogue_of(&mut self, bytes: &[u8], mirrors: &[String]) {
        let text = format!(
            "[m]\ndigest = \"{}\"\nsize_bytes = {}\nlicence = \"Test\"\nmirrors = {mirrors:?}\n",
            digest(bytes),
            bytes.len()
        );
        self.catalogue = Catalogue::parse(&text).unwrap();
    }
}

pub(crate) fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(Duration::from_secs(120), work).await.expect("the test hangs")
    })
}

/// Waits for something that is not told; [`run`] bounds the wait.
pub(crate) async fn until(done: impl Fn() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Small and impatient.
pub(crate) fn environment() -> Environment {
    Environment {
        connect_timeout: Duration::from_secs(2),
        tuning: Tuning {
            chunk: Bytes(64 * 1024),
            reserve: Bytes(0),
            attempts: 3,
            stall: Duration::from_secs(5),
            retry_delay: Duration::from_millis(10),
        },
        ..Environment::new("http://127.0.0.1:9")
    }
}

/// All files that lie where verified files lie.
pub(crate) fn blobs(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("blobs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// Makes all that came look as if it had come two days ago.
pub(crate) fn age_blobs(root: &Path) {
    let database = rusqlite::Connection::open(root.join("store.sqlite")).unwrap();
    database.busy_timeout(Duration::from_secs(5)).unwrap();
    let sql = "UPDATE pulls SET pulled_at_unix_s = pulled_at_unix_s - 2 * 24 * 3600";
    database.execute(sql, []).unwrap();
}

/// No file there may hold anything but what its name says.
#[track_caller]
pub(crate) fn assert_blobs_are_true(root: &Path) {
    for path in blobs(root) {
        let found = digest(&std::fs::read(&path).unwrap()).hex();
        assert_eq!(path.file_name().unwrap().to_str(), Some(found.as_str()));
    }
}
