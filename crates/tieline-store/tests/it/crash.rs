//! Processes that die, and processes that pull the same at once.

use std::path::Path;
use std::time::{Duration, Instant};

use tieline_store::Store;

use crate::probe::{Probe, said};
use crate::server::{Server, file};
use crate::world::{assert_blobs_are_true, blobs, digest, model};

const CHUNK: u64 = 64 * 1024;
const KILLS: u64 = 24;

/// Waits until `done`, for a bounded time.
fn wait_until(done: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !done() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn assert_sound(root: &Path) {
    assert_blobs_are_true(root);
    for model in Store::open(root).unwrap().list().unwrap() {
        assert!(!model.missing, "a row without its file");
    }
}

/// How much of the only download is on disk.
fn written_under(root: &Path) -> u64 {
    let ingest = std::fs::read_dir(root.join("ingest")).unwrap().next();
    let data = ingest.map(|folder| folder.unwrap().path().join("data"));
    data.and_then(|data| data.metadata().ok()).map_or(0, |found| found.len())
}

#[test]
fn a_killed_pull_loses_at_most_a_chunk() {
    let body = model(6 * 1024 * 1024);
    let (served, want) = (body.clone(), digest(&body));
    let server = Server::start(move |asked| file(asked, &served, "\"1\"").pace(16 * 1024, 2));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let url = server.url("/a.gguf");
    let mut dice = Dice(1);
    let mut refetched_most = 0;
    let mut written = 0;
    for kill in 0..KILLS {
        let asked = server.asked().len();
        let enough = server.sent() + dice.below(400_000);
        let mut child = Probe::new(&root, &url).start();
        wait_until(|| server.asked().len() > asked && server.sent() >= enough);
        child.kill().unwrap();
        child.wait().unwrap();
        // What the kernel had in flight was never ours; all that was written counts.
        let resumed = server.asked()[asked].range().unwrap_or(0);
        let refetched = written - resumed.min(written);
        assert!(refetched <= CHUNK, "kill {kill}: {written} written, resumed at {resumed}");
        refetched_most = refetched_most.max(refetched);
        written = written_under(&root);
        assert_sound(&root);
        assert!(blobs(&root).is_empty(), "kill {kill}: nothing is whole yet");
    }
    let said = Probe::new(&root, &url).run();
    assert!(said.contains("EVENT Resumed") && said.contains(&format!("OK {want}")), "{said}");
    assert_sound(&root);
    println!(
        "{KILLS} kills, {} sent for {}, at most {refetched_most} again",
        server.sent(),
        body.len()
    );
}

#[test]
fn a_pull_killed_while_publishing_leaves_nothing_half_done() {
    let body = model(256 * 1024);
    let (served, want) = (body.clone(), digest(&body));
    let server = Server::start(move |asked| file(asked, &served, "\"1\""));
    let mut dice = Dice(2);
    let mut committed = 0;
    for _ in 0..KILLS {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let sent = server.sent();
        let mut child = Probe::new(&root, &server.url("/a.gguf")).start();
        wait_until(|| server.sent() >= sent + body.len() as u64);
        std::thread::sleep(Duration::from_micros(dice.below(12_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_sound(&root);
        // A file that came to its place and was not committed is counted, and stays.
        let store = Store::open(&root).unwrap();
        let (models, unnamed) = (store.list().unwrap().len(), store.unnamed().unwrap());
        assert_eq!(blobs(&root).len(), models + unnamed.len());
        assert!(unnamed.iter().all(|file| !file.goes));
        committed += models;
        let said = Probe::new(&root, &server.url("/a.gguf")).run();
        assert!(said.contains(&format!("OK {want}")), "{said}");
        assert_sound(&root);
    }
    println!("{committed} of {KILLS} were committed before the kill");
}

#[test]
fn two_processes_share_one_download() {
    let body = model(1024 * 1024);
    let (served, want) = (body.clone(), digest(&body));
    let server = Server::start(move |asked| file(asked, &served, "\"1\"").pace(32 * 1024, 10));
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let start = || Probe::new(&root, &server.url("/a.gguf")).start();
    let first = start();
    wait_until(|| !server.asked().is_empty());
    let others = [start(), start()];
    let said: Vec<String> = std::iter::once(first).chain(others).map(said).collect();
    for text in &said {
        assert!(text.contains(&format!("OK {want}")), "{said:?}");
    }
    assert!(said[0].contains("already_here=false"), "{said:?}");
    for text in &said[1..] {
        assert!(text.contains("EVENT Waiting") && text.contains("already_here=true"), "{said:?}");
    }
    assert_eq!(server.sent(), body.len() as u64);
    assert_sound(&root);
}
