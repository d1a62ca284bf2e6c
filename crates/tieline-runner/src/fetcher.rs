//! Reads what is stored of prompts beside the computing.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tieline_decode::disk::{DiskCache, Found, SegmentId};

/// After so long a disk does not answer: what is on it is computed.
const SILENT: Duration = Duration::from_secs(10);

/// Fetches that wait for the thread: more than requests are at work, but for those that were given up.
const WAITING: usize = 64;

/// Segments that are ready while another is read and one is put in place: each is some megabytes of memory.
const READY: usize = 1;

/// The thread that reads. It ends when this is dropped; nobody waits for it, since a disk may hang.
#[derive(Debug)]
pub(crate) struct Fetcher {
    jobs: SyncSender<Job>,
    /// When something was read last.
    heard: Instant,
}

#[derive(Debug)]
struct Job {
    segments: Vec<SegmentId>,
    ready: SyncSender<Vec<u8>>,
    used: Receiver<Vec<u8>>,
}

/// Segments that are on their way. Dropped, the rest is not read.
#[derive(Debug)]
pub(crate) struct Fetch {
    /// Which tokens each of those to come holds.
    ranges: VecDeque<Range<usize>>,
    /// How many tokens match in all.
    pub(crate) tokens: usize,
    ready: Receiver<Vec<u8>>,
    /// Takes back what was read into: new memory costs more than the reading.
    used: SyncSender<Vec<u8>>,
    since: Instant,
}

/// What came of waiting for a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// The KV of these tokens.
    Segment(Range<usize>, Vec<u8>),
    /// Nothing yet.
    Nothing,
    /// All that there was, or it could not be read.
    End,
    /// The disk does not answer.
    Silence,
}

impl Fetcher {
    /// `None` where there can be no thread.
    pub(crate) fn start(cache: Arc<DiskCache>) -> Option<Self> {
        let (jobs, receiver) = sync_channel(WAITING);
        let named = thread::Builder::new().name("fetcher".to_owned());
        named.spawn(move || read_all(&cache, &receiver)).ok()?;
        Some(Self { jobs, heard: Instant::now() })
    }

    /// Begins to read what was found beyond the first `held` tokens.
    pub(crate) fn fetch(&self, found: Found, held: usize) -> Fetch {
        let (mut segments, mut ranges, mut start) = (Vec::new(), VecDeque::new(), 0);
        for segment in found.segments {
            let range = start..start + segment.tokens;
            start = range.end;
            if range.end > held {
                segments.push(segment.id);
                ranges.push_back(range);
            }
        }
        let (sender, ready) = sync_channel(READY);
        let (used, give_back) = sync_channel(READY + 2);
        // Where the thread is gone or has too much to do, nothing comes, and all is computed.
        let _ = self.jobs.try_send(Job { segments, ready: sender, used: give_back });
        Fetch { ranges, tokens: found.tokens, ready, used, since: Instant::now() }
    }

    /// The next segment of one that was begun, for which is waited no longer than `patience`.
    pub(crate) fn next(&mut self, fetch: &mut Fetch, patience: Duration) -> Came {
        if fetch.ranges.is_empty() {
            return Came::End;
        }
        match fetch.ready.recv_timeout(patience) {
            Ok(bytes) => {
                self.heard = Instant::now();
                fetch.ranges.pop_front().map_or(Came::End, |range| Came::Segment(range, bytes))
            }
            Err(RecvTimeoutError::Disconnected) => Came::End,
            // While another's is read, this one waits for its turn.
            Err(RecvTimeoutError::Timeout) => {
                match self.heard.max(fetch.since).elapsed() >= SILENT {
                    true => Came::Silence,
                    false => Came::Nothing,
                }
            }
        }
    }
}

impl Fetch {
    /// Gives back what a segment was read into.
    pub(crate) fn take_back(&self, bytes: Vec<u8>) {
        // Nobody reads any more.
        let _ = self.used.try_send(bytes);
    }
}

fn read_all(cache: &DiskCache, jobs: &Receiver<Job>) {
    while let Ok(Job { segments, ready, used }) = jobs.recv() {
        for segment in segments {
            let mut bytes = used.try_recv().unwrap_or_default();
            // What follows one that is damaged or gone is of no use; nor is any to one who left.
            if cache.read_into(segment, &mut bytes).is_err() || ready.send(bytes).is_err() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use tieline_decode::disk::{Root, SEGMENT};
    use tieline_types::Bytes;

    use super::*;

    /// Tokens of two whole segments and a tail.
    const TOKENS: usize = 2 * SEGMENT + SEGMENT / 2;

    fn open(folder: &Path) -> Arc<DiskCache> {
        let open: OwnedFd = File::open(folder).unwrap().into();
        Arc::new(DiskCache::open(open, Bytes(1 << 30)).unwrap())
    }

    /// A cache with some sequences, of each of which it holds all: each segment's payload is its first token.
    fn stored(folder: &Path, sequences: usize) -> (Arc<DiskCache>, Vec<Found>) {
        let (cache, root) = (open(folder), Root::new(&[]));
        let found = (0..sequences).map(|number| {
            let first = i32::try_from(number * TOKENS).unwrap();
            let tokens: Vec<i32> = (first..).take(TOKENS).collect();
            for range in cache.missing(&root, &tokens) {
                let payload = tokens[range.start].to_le_bytes();
                cache.write(&root, &tokens[..range.end], range, &payload).unwrap();
            }
            cache.longest(&root, &tokens)
        });
        let found = found.collect();
        (cache, found)
    }

    const LONG: Duration = Duration::from_secs(60);

    /// All that comes, to the end.
    fn all(fetcher: &mut Fetcher, fetch: &mut Fetch) -> Vec<(Range<usize>, Vec<u8>)> {
        let mut came = Vec::new();
        loop {
            match fetcher.next(fetch, LONG) {
                Came::Segment(range, bytes) => {
                    fetch.take_back(bytes.clone());
                    came.push((range, bytes));
                }
                Came::End => return came,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn segments_come_in_their_order_and_only_those_that_are_lacking() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, found) = stored(folder.path(), 1);
        let mut fetcher = Fetcher::start(cache).unwrap();
        let ranges = [0..SEGMENT, SEGMENT..2 * SEGMENT, 2 * SEGMENT..TOKENS];
        let cases = [
            (0, 0),
            (SEGMENT - 1, 0),
            (SEGMENT, 1),
            (SEGMENT + 1, 1),
            (2 * SEGMENT, 2),
            (TOKENS, 3),
        ];
        for (held, skipped) in cases {
            let mut fetch = fetcher.fetch(found[0].clone(), held);
            assert_eq!(fetch.tokens, TOKENS);
            let payload = |range: &Range<usize>| {
                (range.clone(), i32::try_from(range.start).unwrap().to_le_bytes().to_vec())
            };
            let want: Vec<_> = ranges[skipped..].iter().map(payload).collect();
            assert_eq!(all(&mut fetcher, &mut fetch), want, "{held} held");
        }
    }

    #[test]
    fn what_follows_a_damaged_segment_does_not_come() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, found) = stored(folder.path(), 1);
        let file = |found: &Found, at: usize| {
            let id = format!("{:?}", found.segments[at].id);
            let mut files = fs::read_dir(folder.path()).unwrap().map(|file| file.unwrap().path());
            files
                .find(|file| id.contains(&file.file_stem().unwrap().to_string_lossy()[..8]))
                .unwrap()
        };
        let second = file(&found[0], 1);
        let mut bytes = fs::read(&second).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&second, bytes).unwrap();
        let mut fetcher = Fetcher::start(cache).unwrap();
        let mut fetch = fetcher.fetch(found[0].clone(), 0);
        assert_eq!(all(&mut fetcher, &mut fetch).len(), 1);
        assert!(!second.exists());
    }

    #[test]
    fn who_leaves_holds_up_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, found) = stored(folder.path(), 3);
        let mut fetcher = Fetcher::start(cache).unwrap();
        let mut fetches: Vec<Fetch> =
            found.iter().map(|found| fetcher.fetch(found.clone(), 0)).collect();
        assert!(matches!(fetcher.next(&mut fetches[0], LONG), Came::Segment(..)));
        // The second waits for its turn, and the first is given up in the middle.
        assert_eq!(fetcher.next(&mut fetches[1], Duration::ZERO), Came::Nothing);
        fetches.remove(0);
        assert_eq!(all(&mut fetcher, &mut fetches[0]).len(), 3);
        let mut last = fetches.pop().unwrap();
        drop(fetches);
        assert_eq!(all(&mut fetcher, &mut last).len(), 3);
    }

    #[test]
    fn a_disk_that_does_not_answer_is_given_up() {
        let (jobs, never_read) = sync_channel(1);
        let long_ago = Instant::now().checked_sub(SILENT).unwrap();
        let mut fetcher = Fetcher { jobs, heard: long_ago };
        let folder = tempfile::tempdir().unwrap();
        let (_, found) = stored(folder.path(), 1);
        let mut fetch = fetcher.fetch(found[0].clone(), 0);
        assert_eq!(fetcher.next(&mut fetch, Duration::ZERO), Came::Nothing);
        fetch.since = long_ago;
        assert_eq!(fetcher.next(&mut fetch, Duration::ZERO), Came::Silence);
        // Others are read meanwhile: it waits for its turn.
        fetcher.heard = Instant::now();
        assert_eq!(fetcher.next(&mut fetch, Duration::ZERO), Came::Nothing);
        drop(never_read);
        assert_eq!(fetcher.next(&mut fetch, Duration::ZERO), Came::End);
    }
}
