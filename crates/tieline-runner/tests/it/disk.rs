//! The cache of prefixes on disk: what outlives a runner, and what never harms the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use tieline_types::wire::ToRunner;
use tieline_types::{Bytes, Digest, Event, KvType, LoadParams, Owner, Request, Tokens};

use crate::peer::{Peer, exact, going_on, keeping, some_tokens};

/// With what is answered, four whole segments of 64 tokens and a tail.
const PROMPT: u32 = 300;
const SEGMENTS: usize = 5;

fn request() -> Request {
    going_on(some_tokens(1, PROMPT), 8)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn segments(folder: &Path) -> usize {
    files(folder).iter().filter(|file| file.extension().is_some_and(|kind| kind == "kv")).count()
}

fn size(folder: &Path) -> u64 {
    files(folder).iter().map(|file| file.metadata().unwrap().len()).sum()
}

fn copy(from: &Path) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files(from) {
        fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    folder
}

/// A folder with what is kept of [`request`], and its answer.
fn kept() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::with_cache(folder.path());
    let text = peer.generate(request()).text;
    peer.hang_up();
    assert_eq!(segments(folder.path()), SEGMENTS);
    (folder, text)
}

/// Asks a new runner; returns how much was cached, once the answer is right.
#[track_caller]
fn ask(folder: &Path, text: &str) -> u32 {
    let mut peer = Peer::with_cache(folder);
    let answer = peer.generate(request());
    assert_eq!(answer.text, text);
    answer.is_whole(8);
    let cached = answer.cached();
    assert!(peer.hang_up().success());
    cached
}

/// Waits until the writer, which works beside all else, has written so many segments.
fn wait_for_segments(folder: &Path, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while segments(folder) < count {
        assert!(Instant::now() < until, "{} of {count} segments", segments(folder));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_killed_runner_leaves_what_it_wrote_while_idle() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::with_cache(folder.path());
    let text = peer.generate(request()).text;
    wait_for_segments(folder.path(), SEGMENTS);
    peer.kill();
    assert_eq!(ask(folder.path(), &text), PROMPT - 1);
}

#[test]
fn a_runner_that_is_never_idle_writes_too() {
    let folder = tempfile::tempdir().unwrap();
    // Room for both: nothing must leave the memory, which would write it too.
    let params = || LoadParams { kv_tokens: Some(Tokens(4096)), ..exact() };
    let mut peer = Peer::with_cache_and(folder.path(), params());
    let busy = peer.begin(going_on(some_tokens(2, 20), 900));
    peer.until(busy, |event| matches!(event, Event::Started(_)));
    let first = peer.begin(request());
    peer.until(first, |event| matches!(event, Event::Finished(_)));
    while segments(folder.path()) < SEGMENTS {
        let (id, event) = peer.event();
        assert!(id == busy && matches!(event, Event::Piece(_)), "{event:?} before it was written");
    }
    peer.kill();
    let mut next = Peer::with_cache_and(folder.path(), params());
    assert_eq!(next.generate(request()).cached(), PROMPT - 1);
}

#[test]
fn a_runner_killed_at_work_harms_nothing() {
    let (folder, text) = kept();
    for pieces in [0, 1, 5] {
        let mut peer = Peer::with_cache(folder.path());
        let id = peer.begin(going_on(some_tokens(2 + pieces, 280), 400));
        peer.until(id, |event| matches!(event, Event::Started(_)));
        for _ in 0..pieces {
            peer.until(id, |event| matches!(event, Event::Piece(_)));
        }
        peer.kill();
        assert_eq!(ask(folder.path(), &text), PROMPT - 1);
    }
}

#[test]
fn who_leaves_while_his_prompt_is_fetched_takes_nothing_with_him() {
    let (folder, text) = kept();
    for pieces in 0..3 {
        let mut peer = Peer::with_cache(folder.path());
        let busy = peer.begin(going_on(some_tokens(2, 20), 400));
        peer.until(busy, |event| matches!(event, Event::Started(_)));
        let left = peer.begin(request());
        for _ in 0..pieces {
            peer.until(busy, |event| matches!(event, Event::Piece(_)));
        }
        for id in [left, busy] {
            peer.send(&ToRunner::Cancel(id));
            peer.until(id, |event| matches!(event, Event::Finished(_)));
        }
        let answer = peer.generate(request());
        assert_eq!((answer.cached(), &answer.text), (PROMPT - 1, &text));
    }
}

/// What happens to a file.
type Damage = (&'static str, fn(&mut Vec<u8>));

const DAMAGES: [Damage; 6] = [
    ("a byte of the header", |bytes| bytes[20] ^= 1),
    ("a token", |bytes| bytes[104] ^= 1),
    ("a byte in the middle", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x40;
    }),
    ("cut off", |bytes| bytes.truncate(bytes.len() - 1)),
    ("empty", Vec::clear),
    ("another's", |bytes| *bytes = vec![b'x'; 5000]),
];

#[test]
fn damaged_files_are_passed_over_and_replaced() {
    let (sound, text) = kept();
    for (what, damage) in DAMAGES {
        let folder = copy(sound.path());
        for file in files(folder.path()) {
            let mut bytes = fs::read(&file).unwrap();
            damage(&mut bytes);
            fs::write(&file, bytes).unwrap();
        }
        // What was never read, since what it follows was damaged, is still to be found out.
        let mut asked: Vec<u32> = (0..=SEGMENTS).map(|_| ask(folder.path(), &text)).collect();
        assert_eq!((asked[0], asked[SEGMENTS]), (0, PROMPT - 1), "{what}: {asked:?}");
        asked.dedup();
        assert!(asked.is_sorted_by(|one, next| one < next), "{what}: {asked:?}");
    }
}

#[test]
fn what_stands_before_a_damaged_file_is_used() {
    let (folder, text) = kept();
    let longest = |file: &PathBuf| file.metadata().unwrap().len();
    let tail = files(folder.path()).into_iter().min_by_key(longest).unwrap();
    let mut bytes = fs::read(&tail).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&tail, bytes).unwrap();
    assert_eq!(ask(folder.path(), &text), 256);
}

#[test]
fn a_file_under_anothers_name_is_not_believed() {
    let (folder, text) = kept();
    let all = files(folder.path());
    let bytes: Vec<Vec<u8>> = all.iter().map(|file| fs::read(file).unwrap()).collect();
    for (file, bytes) in all.iter().zip(bytes.iter().cycle().skip(1)) {
        fs::write(file, bytes).unwrap();
    }
    // What is none of ours stays.
    fs::write(folder.path().join("notes.txt"), "mine").unwrap();
    assert_eq!(ask(folder.path(), &text), 0);
    assert_eq!(fs::read(folder.path().join("notes.txt")).unwrap(), b"mine");
}

#[test]
fn other_circumstances_have_another_kv() {
    let (folder, text) = kept();
    for params in [
        LoadParams { model: Some(Digest([2; 32])), ..exact() },
        LoadParams { type_k: KvType::F32, ..exact() },
        LoadParams { type_v: KvType::Q8_0, ..exact() },
    ] {
        let mut peer = Peer::with_cache_and(folder.path(), params.clone());
        let answer = peer.generate(request());
        assert_eq!(answer.cached(), 0, "{params:?}");
        answer.is_whole(8);
    }
    // Another context length is none.
    let params = LoadParams { context: Some(Tokens(700)), ..exact() };
    let answer = Peer::with_cache_and(folder.path(), params).generate(request());
    assert_eq!((answer.cached(), answer.text), (PROMPT - 1, text));
}

/// The same version, and another file.
#[test]
fn another_build_of_the_runner_has_another_kv() {
    let (folder, text) = kept();
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("tieline-runner");
    fs::copy(env!("CARGO_BIN_EXE_tieline-runner"), &program).unwrap();
    let ask = |program: &Path| {
        let chosen = |command: &mut Command| *command = Command::new(program);
        let mut peer = Peer::start_by(chosen, testkit::smollm2_f16(), Some(folder.path()));
        peer.load(keeping(exact())).unwrap();
        let answer = peer.generate(request());
        peer.hang_up();
        (answer.cached(), answer.text)
    };
    assert_eq!(ask(&program), (PROMPT - 1, text.clone()));
    let mut bytes = fs::read(&program).unwrap();
    bytes.push(0);
    let other = place.path().join("another");
    fs::copy(&program, &other).unwrap();
    fs::write(&other, bytes).unwrap();
    assert_eq!(ask(&other), (0, text));
}

/// More segments than wait for the writer at a time, and a request that empties the memory at once.
#[test]
fn a_deterministic_request_costs_nobody_what_is_cached() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::with_cache(folder.path());
    let prompts: Vec<Request> = (1..5).map(|at| going_on(some_tokens(at, PROMPT), 1)).collect();
    let ids: Vec<_> = prompts.iter().cloned().map(|request| peer.begin(request)).collect();
    let alone = Request { deterministic: true, ..going_on(some_tokens(9, 20), 1) };
    let alone = peer.begin(alone);
    for id in ids.into_iter().chain([alone]) {
        peer.until(id, |event| matches!(event, Event::Finished(_)));
    }
    wait_for_segments(folder.path(), 4 * SEGMENTS);
    for request in prompts {
        assert_eq!(peer.generate(request).cached(), PROMPT - 1);
    }
}

#[test]
fn owners_share_nothing_on_disk_either() {
    let (folder, text) = kept();
    let of = |owner: &str| Request { owner: Owner(owner.to_owned()), ..request() };
    let mut peer = Peer::with_cache(folder.path());
    let answer = peer.generate(of("ann"));
    assert_eq!((answer.cached(), &answer.text), (0, &text));
    peer.hang_up();
    assert_eq!(segments(folder.path()), 2 * SEGMENTS);
    let mut peer = Peer::with_cache(folder.path());
    assert_eq!(peer.generate(of("ben")).cached(), 0);
    assert_eq!(peer.generate(of("ann")).cached(), PROMPT - 1);
    assert_eq!(peer.generate(of("")).cached(), PROMPT - 1);
}

#[test]
fn who_wants_no_cache_leaves_nothing_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let mut peer = Peer::with_cache(folder.path());
    peer.generate(Request { cache: false, ..request() });
    peer.generate(Request { deterministic: true, ..request() });
    peer.hang_up();
    // Nor does a model that nobody named, of which nothing could be told apart.
    let mut peer = Peer::start_with(testkit::smollm2_f16(), Some(folder.path()));
    peer.load(LoadParams { model: None, ..keeping(exact()) }).unwrap();
    peer.generate(request());
    peer.hang_up();
    assert_eq!(files(folder.path()), <[PathBuf; 0]>::default());
}

#[test]
fn a_folder_that_is_of_no_use_is_no_reason_not_to_work() {
    let (folder, text) = kept();
    let file = tempfile::NamedTempFile::new().unwrap();
    let gone = tempfile::tempdir().unwrap();
    let works = |mut peer: Peer, cached: u32| {
        peer.load(keeping(exact())).unwrap();
        let answer = peer.generate(request());
        assert_eq!((answer.cached(), &answer.text), (cached, &text));
        assert_eq!(peer.generate(request()).cached(), PROMPT - 1);
        assert!(peer.hang_up().success());
    };
    let model = testkit::smollm2_f16();
    works(Peer::start(model), 0);
    works(Peer::start_with(model, Some(file.path())), 0);
    let peer = Peer::start_with(model, Some(gone.path()));
    gone.close().unwrap();
    works(peer, 0);
    // Root writes wherever it likes, but not there.
    for closed in [Path::new("/sys"), Path::new("/proc")].into_iter().filter(|path| path.exists()) {
        works(Peer::start_with(model, Some(closed)), 0);
    }
    let mut permissions = folder.path().metadata().unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.path(), permissions).unwrap();
    // Whoever started the runner: it has no more rights than others.
    works(Peer::start_with(model, Some(folder.path())), 0);
}

#[test]
fn a_small_quota_is_kept() {
    let (whole, text) = kept();
    let largest = files(whole.path()).iter().map(|file| file.metadata().unwrap().len()).max();
    let room_for_one = largest.unwrap() + 1000;
    for quota in [0, 1, 100_000, room_for_one] {
        let folder = tempfile::tempdir().unwrap();
        let params = LoadParams { disk_cache: Some(Bytes(quota)), ..exact() };
        for seed in 1..4 {
            let mut peer = Peer::with_cache_and(folder.path(), params.clone());
            let answer = peer.generate(going_on(some_tokens(seed, PROMPT), 8));
            answer.is_whole(8);
            assert!(seed > 1 || answer.text == text);
            peer.hang_up();
            assert!(size(folder.path()) <= quota, "{} of {quota}", size(folder.path()));
        }
        assert_eq!(segments(folder.path()) > 0, quota == room_for_one, "{quota}");
    }
}

#[test]
fn what_memory_drops_is_fetched_again() {
    let folder = tempfile::tempdir().unwrap();
    let params = LoadParams {
        context: Some(Tokens(512)),
        kv_tokens: Some(Tokens(512)),
        ..LoadParams::default()
    };
    let mut peer = Peer::with_cache_and(folder.path(), params);
    let first = peer.generate(request());
    peer.generate(going_on(some_tokens(2, PROMPT), 8)).is_whole(8);
    // Written before it was dropped; the writer may be behind.
    wait_for_segments(folder.path(), SEGMENTS);
    let again = peer.generate(request());
    assert_eq!((again.cached(), again.text), (PROMPT - 1, first.text));
}
