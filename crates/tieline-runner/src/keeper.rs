//! Keeps computed prefixes on disk: names them, and writes them beside the computing.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tieline_decode::disk::{DiskCache, MIN_TAIL, OpenFolder, Root};
use tieline_types::{Digest, LoadParams, Owner, RunnerBuild};

use crate::llama::Model;
use crate::process;

/// Segments that wait to be written: each is 64 tokens' KV, a megabyte or several of memory.
const WAITING: usize = 16;
/// Sequences that are remembered as given to the writer.
const REMEMBERED: usize = 4096;

/// Between two looks at what the writer has done.
pub(crate) const A_WHILE: Duration = Duration::from_millis(2);

/// How long what other runners write to the same folder, and remove from it, may go unseen: the quota is over all that
/// is known, and what is thought to be on disk is dropped from memory.
const UNSEEN: Duration = Duration::from_secs(60);

/// Names what is stored: the same tokens under other circumstances have another KV.
#[derive(Debug)]
pub(crate) struct Namer(Vec<(&'static str, Vec<u8>)>);

impl Namer {
    fn new(
        params: &LoadParams,
        (build, program): (&RunnerBuild, Digest),
        model: &Model,
        kv: u32,
    ) -> Option<Self> {
        let long = model.short_rope().is_some_and(|short| kv > short);
        let text = |text: &str| text.as_bytes().to_vec();
        Some(Self(vec![
            ("model", params.model?.0.to_vec()),
            ("runner", text(&build.version)),
            // Two builds of one version may compute otherwise.
            ("program", program.0.to_vec()),
            ("llama.cpp", text(&build.llama_cpp)),
            ("kernels", text(&build.kernels.join(" "))),
            ("kernel_choices", format!("{:?}", params.kernel_choices).into_bytes()),
            ("devices", text(&build.devices.join(" "))),
            ("type_k", text(params.type_k.as_str())),
            ("type_v", text(params.type_v.as_str())),
            ("flash_attention", format!("{:?}", params.flash_attention).into_bytes()),
            ("gpu_layers", format!("{:?}", params.gpu_layers).into_bytes()),
            ("rope", text(if long { "long" } else { "short" })),
        ]))
    }

    fn root(&self, owner: &Owner) -> Root {
        let mut fields: Vec<(&str, &[u8])> =
            self.0.iter().map(|(name, value)| (*name, value.as_slice())).collect();
        fields.push(("owner", owner.0.as_bytes()));
        Root::new(&fields)
    }
}

/// Opens the cache in the folder that the engine handed over; `None` where there is none.
///
/// A folder that cannot be used is no reason not to work: it is said on standard error.
pub(crate) fn open(
    folder: io::Result<OpenFolder>,
    params: &LoadParams,
    (build, program): (&RunnerBuild, Option<Digest>),
    model: &Model,
    kv: u32,
) -> Option<(Arc<DiskCache>, Namer)> {
    let quota = params.disk_cache?;
    let namer = Namer::new(params, (build, program?), model, kv)?;
    let folder = folder.map_err(|error| process::complain(&error)).ok()?;
    match DiskCache::open(folder, quota) {
        Ok(cache) => Some((Arc::new(cache), namer)),
        Err(error) => {
            process::complain(&error);
            None
        }
    }
}

/// The cache and the thread that writes to it.
#[derive(Debug)]
pub(crate) struct Keeper {
    cache: Arc<DiskCache>,
    namer: Namer,
    writes: SyncSender<Write>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    /// Hashes of sequences of which all was given to the writer.
    noted: HashSet<u64>,
}

/// What the writer's thread and the others know of each other.
#[derive(Debug, Default)]
struct Shared {
    /// Segments that wait or are being written.
    pending: AtomicUsize,
    /// Their tokens, by a hash.
    in_flight: Mutex<HashMap<u64, usize>>,
    /// Nanoseconds that writing took, since somebody asked.
    spent: AtomicU64,
}

impl Shared {
    fn in_flight(&self) -> MutexGuard<'_, HashMap<u64, usize>> {
        self.in_flight.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Write {
    root: Root,
    tokens: Vec<i32>,
    range: Range<usize>,
    payload: Vec<u8>,
}

impl Keeper {
    pub(crate) fn start(cache: Arc<DiskCache>, namer: Namer) -> Self {
        let (writes, receiver) = sync_channel(WAITING);
        let shared = Arc::new(Shared::default());
        let thread = {
            let (cache, shared) = (Arc::clone(&cache), Arc::clone(&shared));
            let named = thread::Builder::new().name("keeper".to_owned());
            named.spawn(move || write_all(&cache, &receiver, &shared, UNSEEN)).ok()
        };
        Self { cache, namer, writes, shared, thread, noted: HashSet::new() }
    }

    pub(crate) fn cache(&self) -> Arc<DiskCache> {
        Arc::clone(&self.cache)
    }

    pub(crate) fn root(&self, owner: &Owner) -> Root {
        self.namer.root(owner)
    }

    /// Runs of `tokens` that are neither stored nor on their way there.
    pub(crate) fn missing(&self, root: &Root, tokens: &[i32]) -> Vec<Range<usize>> {
        let mut missing = self.cache.missing(root, tokens);
        let in_flight = self.shared.in_flight();
        if in_flight.is_empty() {
            return missing;
        }
        // Each run's beginning is that of the one before it, and more.
        let (mut hasher, mut hashed) = (hasher(root), 0);
        missing.retain(|range| {
            feed(&mut hasher, &tokens[hashed..range.end]);
            hashed = range.end;
            !in_flight.contains_key(&hasher.finish())
        });
        missing
    }

    /// Whether the writer takes more without making anybody wait.
    pub(crate) fn has_room(&self) -> bool {
        self.shared.pending.load(Ordering::Relaxed) < WAITING
    }

    /// Has the KV of a run of tokens written. `false`: the writer is gone.
    pub(crate) fn write(
        &mut self,
        root: Root,
        tokens: &[i32],
        range: Range<usize>,
        payload: Vec<u8>,
    ) -> bool {
        self.shared.in_flight().insert(hash(&root, tokens), range.len());
        self.shared.pending.fetch_add(1, Ordering::Relaxed);
        let tokens = tokens.to_vec();
        self.writes.send(Write { root, tokens, range, payload }).is_ok()
    }

    /// How long writing took since this was asked last.
    pub(crate) fn take_spent(&self) -> Duration {
        Duration::from_nanos(self.shared.spent.swap(0, Ordering::Relaxed))
    }

    /// Whether a sequence may hold something that is not stored: it was not noted yet.
    pub(crate) fn lacks(&self, owner: &Owner, tokens: &[i32]) -> bool {
        tokens.len() >= MIN_TAIL && !self.noted.contains(&hash(&self.root(owner), tokens))
    }

    /// Whether all of a sequence that is worth it is on disk.
    pub(crate) fn has_stored(&self, owner: &Owner, tokens: &[i32]) -> bool {
        self.cache.missing(&self.root(owner), tokens).is_empty()
    }

    /// All of a sequence was given to the writer.
    pub(crate) fn note(&mut self, owner: &Owner, tokens: &[i32]) {
        if self.noted.len() >= REMEMBERED {
            self.noted.clear();
        }
        self.noted.insert(hash(&self.root(owner), tokens));
    }

    /// Waits until all is written, no longer than to `end`; returns how many tokens were not.
    pub(crate) fn finish(self, end: Instant) -> usize {
        drop(self.writes);
        // A panic there was said already, and costs a cache.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
            && Instant::now() < end
        {
            thread::sleep(A_WHILE);
        }
        self.shared.in_flight().values().sum()
    }
}

fn write_all(cache: &DiskCache, writes: &Receiver<Write>, shared: &Shared, unseen: Duration) {
    let mut said = false;
    let mut looked = Instant::now();
    loop {
        let Write { root, tokens, range, payload } = match writes.recv_timeout(unseen) {
            Ok(write) => write,
            Err(RecvTimeoutError::Timeout) => {
                // Where it cannot be listed, the next write says why.
                let _ = cache.forget_removed();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let started = Instant::now();
        let seen = if looked.elapsed() >= unseen {
            looked = Instant::now();
            cache.refresh()
        } else {
            Ok(())
        };
        let written = seen.and_then(|()| cache.write(&root, &tokens, range, &payload));
        shared.in_flight().remove(&hash(&root, &tokens));
        shared.pending.fetch_sub(1, Ordering::Relaxed);
        let spent = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        shared.spent.fetch_add(spent, Ordering::Relaxed);
        match written {
            Ok(_) => said = false,
            // Once until it works again: a full disk stays full for a while.
            Err(error) if !said => {
                process::complain(&error);
                said = true;
            }
            Err(_) => {}
        }
    }
}

fn hash(root: &Root, tokens: &[i32]) -> u64 {
    let mut hasher = hasher(root);
    feed(&mut hasher, tokens);
    hasher.finish()
}

fn hasher(root: &Root) -> DefaultHasher {
    let mut hasher = DefaultHasher::new();
    format!("{root:?}").hash(&mut hasher);
    hasher
}

/// One by one, so that it does not matter in how many runs they come.
fn feed(hasher: &mut DefaultHasher, tokens: &[i32]) {
    tokens.iter().for_each(|&token| hasher.write_i32(token));
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;

    use tieline_types::Bytes;

    use super::*;

    const PAYLOAD: usize = 10_000;

    /// Writes so many segments of its own, as a runner of its own.
    fn write(cache: &DiskCache, who: i32, runs: Range<i32>) {
        let (writes, receiver) = sync_channel(64);
        for run in runs {
            let tokens = vec![who * 1000 + run; MIN_TAIL];
            // Nothing that is easily compressed.
            let mut noise = u32::try_from(who * 1000 + run).unwrap();
            let byte = |_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                noise.to_le_bytes()[3]
            };
            let payload = (0..PAYLOAD).map(byte).collect();
            let range = 0..tokens.len();
            writes.send(Write { root: Root::new(&[]), tokens, range, payload }).unwrap();
        }
        drop(writes);
        let shared = Shared { pending: AtomicUsize::new(64), ..Shared::default() };
        write_all(cache, &receiver, &shared, Duration::ZERO);
    }

    #[test]
    fn what_is_not_written_by_the_end_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let open: OwnedFd = File::open(folder.path()).unwrap().into();
        let cache = Arc::new(DiskCache::open(open, Bytes(1 << 20)).unwrap());
        let keeper = || {
            let mut keeper = Keeper::start(Arc::clone(&cache), Namer(Vec::new()));
            let root = keeper.root(&Owner::default());
            assert!(keeper.write(root, &[7; 20], 0..20, vec![1; 100]));
            keeper
        };
        assert_eq!(keeper().finish(Instant::now() + Duration::from_secs(60)), 0);
        let mut keeper = keeper();
        // A disk that hangs.
        let (hangs, never) = sync_channel::<()>(0);
        keeper.thread = thread::Builder::new()
            .spawn(move || {
                let _ = never.recv();
            })
            .ok();
        keeper.shared.in_flight().extend([(1, 30), (2, 256)]);
        let left = keeper.finish(Instant::now());
        drop(hangs);
        assert!((286..=306).contains(&left), "{left}");
    }

    #[test]
    fn what_another_runner_removed_is_soon_not_thought_stored() {
        let folder = tempfile::tempdir().unwrap();
        let open: OwnedFd = File::open(folder.path()).unwrap().into();
        let cache = DiskCache::open(open, Bytes(1 << 20)).unwrap();
        let (root, tokens) = (Root::new(&[]), vec![7; 20]);
        cache.write(&root, &tokens, 0..20, &[1; 100]).unwrap();
        let file = fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        fs::remove_file(file.path()).unwrap();
        assert!(cache.missing(&root, &tokens).is_empty());
        let (writes, receiver) = sync_channel(1);
        let (cache, shared) = (&cache, Shared::default());
        let shared = &shared;
        thread::scope(|scope| {
            // Nothing is written.
            scope.spawn(move || write_all(cache, &receiver, shared, Duration::from_millis(1)));
            let end = Instant::now() + Duration::from_secs(60);
            while cache.missing(&root, &tokens).is_empty() && Instant::now() < end {
                thread::sleep(A_WHILE);
            }
            drop(writes);
        });
        assert_eq!(cache.missing(&root, &tokens), std::slice::from_ref(&(0..20)));
    }

    #[test]
    fn runners_of_one_folder_keep_to_one_quota() {
        let folder = tempfile::tempdir().unwrap();
        let quota = 10 * PAYLOAD as u64;
        let open = || {
            let open: OpenFolder = File::open(folder.path()).unwrap().into();
            DiskCache::open(open, Bytes(quota)).unwrap()
        };
        let both = [open(), open()];
        for turn in 0..4 {
            for (who, cache) in (1..).zip(&both) {
                write(cache, who, turn * 3..turn * 3 + 3);
                let files = fs::read_dir(folder.path()).unwrap();
                let size: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
                assert!(size <= quota, "{size} bytes after {who} in turn {turn}");
            }
        }
        assert!(both[0].usage().size.0 > quota / 2, "{:?}", both[0]);
    }
}
