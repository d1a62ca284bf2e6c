//! The cache against real folders, a real full disk, and whatever else may lie in one.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const PLENTY: Bytes = Bytes(1 << 40);

/// In memory, where the system has such a place.
fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let folder = tempfile::Builder::new();
    if memory.is_dir() { folder.tempdir_in(memory) } else { folder.tempdir() }.unwrap()
}

fn try_open(folder: &Path, quota: Bytes) -> Result<DiskCache, DiskError> {
    DiskCache::open(fs::File::open(folder).unwrap().into(), quota)
}

fn open(folder: &Path) -> DiskCache {
    try_open(folder, PLENTY).unwrap()
}

fn root(owner: &str) -> Root {
    Root::new(&[("model", b"sha256"), ("owner", owner.as_bytes())])
}

/// `length` tokens of a sequence that differs from others from the first token on.
fn tokens(sequence: i32, length: usize) -> Vec<i32> {
    (0..length).map(|at| sequence * 100_000 + i32::try_from(at).unwrap()).collect()
}

/// Bytes that no compression makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// The payload that tests give a segment.
fn payload_of(tokens: &[i32], range: &Range<usize>) -> Vec<u8> {
    let seed = u64::from(tokens[range.start].unsigned_abs()) + ((range.end as u64) << 40);
    noise(seed, 64 + range.len())
}

/// Writes all that is missing, in order.
fn store(cache: &DiskCache, root: &Root, tokens: &[i32]) -> Vec<Written> {
    let missing = cache.missing(root, tokens);
    let write = |range: Range<usize>| {
        cache.write(root, tokens, range.clone(), &payload_of(tokens, &range)).unwrap()
    };
    missing.into_iter().map(write).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn file_of(folder: &Path, id: SegmentId) -> PathBuf {
    folder.join(id.0.file_name())
}

fn set_age(path: &Path, age: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - age).unwrap();
}

#[test]
fn what_was_written_is_read_after_a_restart() {
    let folder = folder();
    let (root, tokens) = (root("a"), tokens(1, 152));
    let written = store(&open(folder.path()), &root, &tokens);
    assert_eq!(written.len(), 3);
    let cache = open(folder.path());
    let found = cache.longest(&root, &tokens);
    assert_eq!(found.tokens, 152);
    let lengths: Vec<_> = found.segments.iter().map(|segment| segment.tokens).collect();
    assert_eq!(lengths, [64, 64, 24]);
    for (segment, range) in found.segments.iter().zip([0..64, 64..128, 128..152]) {
        let want = payload_of(&tokens, &range);
        assert_eq!(segment.payload, Bytes(want.len() as u64));
        assert_eq!(cache.read(segment.id).unwrap(), want);
    }
    assert!(cache.missing(&root, &tokens).is_empty());
    let size: u64 = written.iter().map(|written| written.size.unwrap().0).sum();
    assert_eq!(cache.usage(), Usage { size: Bytes(size), segments: 3 });
    let on_disk: u64 = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| {
            let metadata = entry.unwrap().metadata().unwrap();
            assert_eq!(metadata.mode() & 0o777, 0o600);
            metadata.len()
        })
        .sum();
    assert_eq!(on_disk, size);
}

#[test]
fn the_last_segment_may_match_in_part() {
    let folder = folder();
    let cache = open(folder.path());
    let stored = tokens(1, 172);
    store(&cache, &root("a"), &stored);
    #[track_caller]
    fn check(cache: &DiskCache, tokens: &[i32], matching: usize, segments: usize) {
        let found = cache.longest(&root("a"), tokens);
        assert_eq!((found.tokens, found.segments.len()), (matching, segments));
    }
    check(&cache, &[], 0, 0);
    check(&cache, &[-7], 0, 0);
    check(&cache, &stored[..1], 1, 1);
    check(&cache, &stored[..63], 63, 1);
    check(&cache, &stored[..64], 64, 1);
    check(&cache, &stored[..65], 65, 2);
    check(&cache, &[&stored[..108], &[-7; 500]].concat(), 108, 2);
    check(&cache, &[&stored[..128], &[-7; 500]].concat(), 128, 2);
    check(&cache, &[&stored[..], &[-7; 500]].concat(), 172, 3);
    check(&cache, &stored[1..], 0, 0);
}

#[test]
fn other_roots_share_nothing() {
    let folder = folder();
    let cache = open(folder.path());
    let tokens = tokens(1, 108);
    store(&cache, &root("a"), &tokens);
    for other in [root("b"), root(""), Root::new(&[("model", b"other"), ("owner", b"a")])] {
        assert_eq!(cache.longest(&other, &tokens), Found::default());
        assert_eq!(cache.missing(&other, &tokens), [0..64, 64..108]);
    }
    store(&cache, &root("b"), &tokens);
    assert_eq!(names(folder.path()).len(), 4);
    assert_eq!(open(folder.path()).longest(&root("b"), &tokens).tokens, 108);
}

#[test]
fn a_tail_is_stored_when_it_has_grown_enough() {
    let folder = folder();
    let cache = open(folder.path());
    let (root, tokens) = (root("a"), tokens(1, 128));
    assert!(cache.missing(&root, &tokens[..15]).is_empty());
    assert_eq!(cache.missing(&root, &tokens[..16]), std::slice::from_ref(&(0..16)));
    store(&cache, &root, &tokens[..16]);
    assert!(cache.missing(&root, &tokens[..31]).is_empty());
    let longer = store(&cache, &root, &tokens[..32]);
    assert_eq!(longer[0].removed, 1);
    assert_eq!(names(folder.path()), [longer[0].id.0.file_name()]);
    // A branch within a tail is another tail.
    let branch = [&tokens[..20], &[-1; 30]].concat();
    assert_eq!(store(&cache, &root, &branch)[0].removed, 0);
    assert_eq!(cache.usage().segments, 2);
    // A whole segment replaces its own tail alone, and covers what begins as it does.
    let whole = store(&cache, &root, &tokens);
    assert_eq!((whole.len(), whole[0].removed, whole[1].removed), (2, 1, 0));
    assert_eq!(cache.usage().segments, 3);
    assert!(cache.missing(&root, &tokens[..50]).is_empty());
    assert_eq!(cache.longest(&root, &branch).tokens, 50);
}

#[test]
fn a_second_write_of_the_same_is_success() {
    let folder = folder();
    let (one, other) = (open(folder.path()), open(folder.path()));
    let (root, tokens) = (root("a"), tokens(1, 64));
    let first = store(&one, &root, &tokens)[0];
    let again = one.write(&root, &tokens, 0..64, b"else").unwrap();
    assert_eq!(again, Written { id: first.id, size: None, removed: 0 });
    assert_eq!(one.read(first.id).unwrap(), payload_of(&tokens, &(0..64)));
    // Another process does not know of it, and replaces it by its own.
    assert!(other.write(&root, &tokens, 0..64, b"else").unwrap().size.is_some());
    assert_eq!(names(folder.path()).len(), 1);
    assert_eq!(one.read(first.id).unwrap(), b"else");
    assert_eq!(one.usage(), other.usage());
}

#[test]
fn what_another_process_removes_is_a_miss_and_what_it_adds_is_seen_by_refresh() {
    let folder = folder();
    let (one, other) = (open(folder.path()), open(folder.path()));
    let (root, tokens) = (root("a"), tokens(1, 128));
    let written = store(&one, &root, &tokens);
    assert_eq!(other.longest(&root, &tokens).tokens, 0);
    other.refresh().unwrap();
    assert_eq!(other.longest(&root, &tokens).tokens, 128);
    fs::remove_file(file_of(folder.path(), written[0].id)).unwrap();
    assert!(matches!(one.read(written[0].id), Err(DiskError::Gone)));
    assert!(matches!(one.read(written[0].id), Err(DiskError::Gone)));
    assert_eq!(one.usage().segments, 1);
    // Written again, it leads to what followed it.
    assert_eq!(one.missing(&root, &tokens), std::slice::from_ref(&(0..64)));
    // The other still knows of it; a write finds out that it is gone.
    assert!(other.write(&root, &tokens, 0..64, b"new").unwrap().size.is_some());
    one.refresh().unwrap();
    assert_eq!(one.longest(&root, &tokens).tokens, 128);
    fs::remove_file(file_of(folder.path(), written[1].id)).unwrap();
    one.refresh().unwrap();
    assert_eq!(one.longest(&root, &tokens).tokens, 64);
}

#[test]
fn what_another_process_uses_is_not_the_first_to_go() {
    let folder = folder();
    let root = root("a");
    let size = 100 + 4 * 64 + 64 + 64;
    let one = try_open(folder.path(), Bytes(size * 3)).unwrap();
    for (sequence, minutes) in [(1, 30), (2, 20), (3, 10)] {
        let id = store(&one, &root, &tokens(sequence, 64))[0].id;
        set_age(&file_of(folder.path(), id), Duration::from_secs(60 * minutes));
    }
    one.refresh().unwrap();
    // The oldest, which the other has just read.
    let other = open(folder.path());
    other.read(other.longest(&root, &tokens(1, 64)).segments[0].id).unwrap();
    one.refresh().unwrap();
    store(&one, &root, &tokens(4, 64));
    let left = |cache: &DiskCache| -> Vec<i32> {
        (1..=4).filter(|at| cache.longest(&root, &tokens(*at, 64)).tokens > 0).collect()
    };
    assert_eq!(left(&one), [1, 3, 4]);
    // What is gone is forgotten without a look at any file.
    assert_eq!(left(&other), [1, 2, 3]);
    other.forget_removed().unwrap();
    assert_eq!(left(&other), [1, 3]);
}

#[test]
fn only_segments_are_written() {
    let folder = folder();
    let cache = open(folder.path());
    let tokens = tokens(1, 152);
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller may get wrong")]
    for range in [0..0, 0..65, 1..50, 64..63, 128..153, 152..152, 152..180, 63..128] {
        let error = cache.write(&root("a"), &tokens, range.clone(), b"").unwrap_err();
        assert!(matches!(error, DiskError::NotASegment { .. }), "{range:?}: {error}");
    }
    assert!(names(folder.path()).is_empty());
    // A segment may be written before the one that it follows, and may be empty.
    cache.write(&root("a"), &tokens, 64..128, b"").unwrap();
    assert_eq!(cache.longest(&root("a"), &tokens).tokens, 0);
    cache.write(&root("a"), &tokens, 0..64, b"").unwrap();
    let found = cache.longest(&root("a"), &tokens);
    assert_eq!(found.tokens, 128);
    assert_eq!(cache.read(found.segments[1].id).unwrap(), b"");
}

/// Changes the only file as told; opens the folder anew, or reads with a cache that was open before.
#[track_caller]
fn check_damage(change: impl Fn(&mut Vec<u8>)) {
    let folder = folder();
    let (root, tokens) = (root("a"), tokens(1, 20));
    let cache = open(folder.path());
    let id = store(&cache, &root, &tokens)[0].id;
    let path = file_of(folder.path(), id);
    let mut bytes = fs::read(&path).unwrap();
    change(&mut bytes);
    fs::write(&path, &bytes).unwrap();

    let fresh = open(folder.path());
    if let [segment] = fresh.longest(&root, &tokens).segments[..] {
        let error = fresh.read(segment.id).unwrap_err();
        assert!(matches!(error, DiskError::Damaged(_)), "{error}");
    }
    assert_eq!(fresh.usage(), Usage::default());
    assert!(names(folder.path()).is_empty());

    fs::write(&path, &bytes).unwrap();
    let mut payload = b"before".to_vec();
    let error = cache.read_into(id, &mut payload).unwrap_err();
    assert!(matches!(error, DiskError::Damaged(_)), "{error}");
    assert!(payload.is_empty());
    assert_eq!(cache.usage(), Usage::default());
    assert!(names(folder.path()).is_empty());
    assert!(matches!(cache.read(id), Err(DiskError::Gone)));
}

/// Length of the file that [`check_damage`] makes.
const DAMAGED_LENGTH: usize = 100 + 4 * 20 + 64 + 20;

#[test]
fn every_changed_bit_is_found() {
    let file = encode(root("a"), &tokens(1, 20), &noise(1, 84)).unwrap();
    for bit in 0..file.len() * 8 {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&bytes).is_err(), "{bit}");
    }
    for at in 0..DAMAGED_LENGTH {
        check_damage(|bytes| {
            assert_eq!(bytes.len(), DAMAGED_LENGTH);
            bytes[at] ^= 1 << (at % 8);
        });
    }
}

#[test]
fn every_lost_or_added_byte_is_found() {
    for length in 0..DAMAGED_LENGTH {
        check_damage(|bytes| bytes.truncate(length));
    }
    check_damage(|bytes| bytes.push(0));
    check_damage(|bytes| bytes.extend([0; 2000]));
    check_damage(|bytes| bytes.fill(0));
}

#[test]
fn a_segment_under_another_name_is_no_segment() {
    let folder = folder();
    let cache = open(folder.path());
    let (root, one, other) = (root("a"), tokens(1, 64), tokens(2, 64));
    let one = store(&cache, &root, &one)[0].id;
    let other = store(&cache, &root, &other)[0].id;
    fs::copy(file_of(folder.path(), one), file_of(folder.path(), other)).unwrap();
    let error = cache.read(other).unwrap_err();
    assert!(matches!(error, DiskError::Damaged(Damage::Name)), "{error}");
    assert_eq!(names(folder.path()), [one.0.file_name()]);
}

#[test]
fn huge_lengths_are_refused_before_anything_is_allocated() {
    let file = encode(root("a"), &tokens(1, 20), b"payload").unwrap();
    #[track_caller]
    fn check(file: &[u8], at: usize, value: &[u8], want: Damage) {
        let mut bytes = file.to_vec();
        bytes[at..at + value.len()].copy_from_slice(value);
        assert_eq!(decode(&bytes), Err(want));
    }
    assert_eq!(decode(&file).unwrap(), b"payload");
    check(&file, 0, b"GGUF", Damage::Magic);
    check(&file, 8, &1_u32.to_le_bytes(), Damage::Version);
    check(&file, 12, &2_u32.to_le_bytes(), Damage::Header);
    check(&file, 16, &0_u32.to_le_bytes(), Damage::Header);
    check(&file, 16, &65_u32.to_le_bytes(), Damage::Header);
    check(&file, 16, &u32::MAX.to_le_bytes(), Damage::Header);
    check(&file, 16, &21_u32.to_le_bytes(), Damage::Length);
    check(&file, 20, &u64::MAX.to_le_bytes(), Damage::Header);
    check(&file, 28, &u64::MAX.to_le_bytes(), Damage::Header);
    check(&file, 20, &[0xff; 16], Damage::Header);
    let gigabyte = [MAX_PAYLOAD.to_le_bytes(), MAX_PAYLOAD.to_le_bytes()].concat();
    check(&file, 20, &gigabyte, Damage::Length);
    check(&file, 36, &[1; 32], Damage::Checksum);
}

#[test]
fn what_pays_is_compressed() {
    let zeros = vec![0; 3_000_000];
    let mut half = noise(1, 3_000_000);
    half.iter_mut().step_by(2).for_each(|byte| *byte = 7);
    let mixed = [noise(2, 1_000_000), vec![0; 500_000]].concat();
    for (payload, most) in [(zeros, 1_000), (half, 2_000_000), (mixed, 1_100_000)] {
        let file = encode(root("a"), &[1], &payload).unwrap();
        assert!(file.len() < most, "{}", file.len());
        assert_eq!(decode(&file).unwrap(), payload);
        let folder = folder();
        let cache = open(folder.path());
        let id = cache.write(&root("a"), &[1], 0..1, &payload).unwrap().id;
        assert_eq!(cache.read(id).unwrap(), payload);
        assert_eq!(cache.usage().size, Bytes(file.len() as u64));
    }
    for length in [0, 1, 1000, 100_000, 3_000_000] {
        let payload = noise(3, length);
        let file = encode(root("a"), &[1], &payload).unwrap();
        assert_eq!(file.len(), 104 + length);
        assert_eq!(decode(&file).unwrap(), payload);
    }
}

#[test]
fn a_wrong_length_of_a_compressed_payload_is_found() {
    for wrong in [999, 1001, MAX_PAYLOAD] {
        let mut file = encode(root("a"), &[1], &[7; 1000]).unwrap();
        file[20..28].copy_from_slice(&wrong.to_le_bytes());
        let sum =
            *blake3::Hasher::new().update(&file[..68]).update(&file[100..]).finalize().as_bytes();
        file[68..100].copy_from_slice(&sum);
        assert_eq!(decode(&file), Err(Damage::Payload), "{wrong}");
    }
}

#[test]
fn the_quota_takes_leaves_first_and_the_oldest_of_them() {
    let folder = folder();
    let root = root("a");
    let size = 100 + 4 * 64 + 64 + 64;
    let cache = try_open(folder.path(), Bytes(size * 4)).unwrap();
    let (one, two) = (tokens(1, 128), tokens(2, 128));
    store(&cache, &root, &one);
    store(&cache, &root, &two);
    assert_eq!(cache.usage(), Usage { size: Bytes(size * 4), segments: 4 });
    // The first of one is the oldest of all, but others follow it.
    let three = tokens(3, 64);
    assert_eq!(store(&cache, &root, &three)[0].removed, 1);
    assert_eq!(cache.longest(&root, &one).tokens, 64);
    // A use counts: then that of two goes.
    let id = cache.longest(&root, &one).segments[0].id;
    cache.read(id).unwrap();
    store(&cache, &root, &tokens(4, 64));
    assert_eq!(cache.longest(&root, &one).tokens, 64);
    assert_eq!(cache.longest(&root, &two).tokens, 64);
    assert_eq!(cache.usage().size, Bytes(size * 4));
    assert_eq!(names(folder.path()).len(), 4);
}

#[test]
fn a_chain_longer_than_the_quota_keeps_its_beginning() {
    let folder = folder();
    let (root, tokens) = (root("a"), tokens(1, 1024));
    let size = 100 + 4 * 64 + 64 + 64;
    let cache = try_open(folder.path(), Bytes(size * 2 + 10)).unwrap();
    let write = |range: Range<usize>| {
        cache.write(&root, &tokens, range.clone(), &payload_of(&tokens, &range))
    };
    write(0..64).unwrap();
    write(64..128).unwrap();
    let error = write(128..192).unwrap_err();
    assert!(matches!(error, DiskError::NoRoom { .. }), "{error}");
    assert_eq!(error.to_string(), "a segment of 484 B does not fit into a cache of 978 B");
    assert_eq!(cache.longest(&root, &tokens).tokens, 128);
    assert_eq!(names(folder.path()).len(), 2);
    // One that is too large for any room removes nothing.
    let other = self::tokens(2, 16);
    let error = cache.write(&root, &other, 0..16, &noise(1, 5000)).unwrap_err();
    assert!(matches!(error, DiskError::NoRoom { .. }), "{error}");
    assert_eq!(cache.usage().segments, 2);
}

#[test]
fn a_growing_tail_needs_no_room_for_both() {
    let folder = folder();
    let (root, tokens) = (root("a"), tokens(1, 64));
    let cache = try_open(folder.path(), Bytes(1000)).unwrap();
    for length in [20, 30, 40, 50, 64] {
        cache.write(&root, &tokens, 0..length, &noise(1, 400)).unwrap();
        assert_eq!(cache.longest(&root, &tokens).tokens, length);
        assert_eq!(names(folder.path()).len(), 1);
    }
}

#[test]
fn a_smaller_quota_is_kept_from_the_start_by_age() {
    let folder = folder();
    let root = root("a");
    let cache = open(folder.path());
    for sequence in 0..10 {
        let id = store(&cache, &root, &tokens(sequence, 64))[0].id;
        let age = Duration::from_secs(60 * u64::from(sequence.unsigned_abs()));
        set_age(&file_of(folder.path(), id), age);
    }
    // Read last, so it survives though it was the oldest.
    cache.read(cache.longest(&root, &tokens(9, 64)).segments[0].id).unwrap();
    let size = cache.usage().size.0;
    let cache = try_open(folder.path(), Bytes(size * 3 / 10)).unwrap();
    let left: Vec<_> =
        (0..10).filter(|at| cache.longest(&root, &tokens(*at, 64)).tokens > 0).collect();
    assert_eq!(left, [0, 1, 9]);
    assert_eq!(names(folder.path()).len(), 3);
    assert_eq!(try_open(folder.path(), Bytes(0)).unwrap().usage(), Usage::default());
    assert!(names(folder.path()).is_empty());
}

#[test]
fn what_a_killed_writer_left_is_never_read_and_goes_after_an_hour() {
    let folder = folder();
    let (root, tokens) = (root("a"), tokens(1, 64));
    let cache = open(folder.path());
    let id = store(&cache, &root, &tokens)[0].id;
    let (young, old) = (id.0.temporary_name(0), id.0.temporary_name(1));
    fs::rename(file_of(folder.path(), id), folder.path().join(&young)).unwrap();
    fs::copy(folder.path().join(&young), folder.path().join(&old)).unwrap();
    fs::write(folder.path().join("notes.tmp"), "not ours").unwrap();
    set_age(&folder.path().join(&young), Duration::from_secs(3000));
    set_age(&folder.path().join(&old), Duration::from_secs(4000));
    set_age(&folder.path().join("notes.tmp"), Duration::from_secs(4000));

    let cache = open(folder.path());
    assert_eq!(cache.longest(&root, &tokens).tokens, 0);
    assert_eq!(names(folder.path()), [young.clone(), "notes.tmp".to_owned()]);
    // It is not in the way of another writer either.
    store(&cache, &root, &tokens);
    assert_eq!(names(folder.path()).len(), 3);
    cache.remove_all().unwrap();
    assert_eq!(names(folder.path()), ["notes.tmp"]);
    assert_eq!(cache.usage(), Usage::default());
}

#[test]
fn strange_things_in_the_folder_are_not_followed_and_do_no_harm() {
    let (folder, outside) = (folder(), folder());
    let at = folder.path();
    let (root, good) = (root("a"), tokens(1, 64));
    let cache = open(at);
    let good_id = store(&cache, &root, &good)[0].id;
    let key = |number| root.0.after(&[number]);
    let name = |number| at.join(key(number).file_name());
    // A right segment outside, to which a link of its right name leads.
    let elsewhere = store(&open(outside.path()), &root, &[5; 20])[0].id;
    let target = file_of(outside.path(), elsewhere);
    symlink(&target, file_of(at, elsewhere)).unwrap();
    symlink("/dev/zero", name(1)).unwrap();
    symlink(name(2), name(2)).unwrap();
    fs::create_dir(name(3)).unwrap();
    fs::write(name(3).join("within"), "").unwrap();
    assert!(Command::new("mkfifo").arg(name(4)).status().unwrap().success());
    fs::write(name(5), "").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(name(6)).unwrap();
    let huge = fs::File::create(name(7)).unwrap();
    huge.set_len(1 << 40).unwrap();
    let fifo = at.join(key(4).temporary_name(0));
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    symlink(&target, at.join(key(4).temporary_name(1))).unwrap();
    fs::write(at.join("README"), "not ours").unwrap();

    let cache = open(at);
    assert_eq!(cache.usage().segments, 1);
    assert!(cache.read(good_id).is_ok());
    assert!(target.exists());
    let mut want = vec![good_id.0.file_name(), "README".to_owned(), key(3).file_name()];
    // A young pipe is as any young temporary file.
    want.push(key(4).temporary_name(0));
    want.sort();
    assert_eq!(names(at), want);
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());

    // A folder in the place of a segment is an error of that segment alone.
    let error = cache.write(&root, &[3], 0..1, b"payload").unwrap_err();
    assert!(matches!(error, DiskError::Folder { .. }), "{error}");
    assert_eq!(names(at), want);
    // What a segment is replaced by while the cache is open.
    for replace in [
        |path: &Path| symlink("/dev/zero", path).unwrap(),
        |path: &Path| assert!(Command::new("mkfifo").arg(path).status().unwrap().success()),
        |path: &Path| fs::File::create(path).unwrap().set_len(1 << 40).unwrap(),
    ] {
        let id = store(&cache, &root, &[9; 20])[0].id;
        fs::remove_file(file_of(at, id)).unwrap();
        replace(&file_of(at, id));
        let error = cache.read(id).unwrap_err();
        assert!(matches!(error, DiskError::Damaged(_)), "{error}");
        assert_eq!(names(at), want);
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A small disk in memory.
struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    fn new(at: &'a Path, size: &str) -> Option<Self> {
        let option = format!("size={size},mode=0700");
        mount(&["-t", "tmpfs", "-o", &option, "tmpfs"], at).then_some(Self(at))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-l".as_ref(), self.0]).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    is_root()
        && Command::new("mount").args(arguments).arg(at).status().is_ok_and(|end| end.success())
}

#[test]
fn a_full_disk_fails_one_write_and_no_more() {
    let folder = folder();
    let Some(_disk) = Mount::new(folder.path(), "1m") else {
        println!("SKIPPED: a small disk needs root and mount");
        return;
    };
    let (root, one, two) = (root("a"), tokens(1, 64), tokens(2, 64));
    let cache = open(folder.path());
    let id = cache.write(&root, &one, 0..64, &noise(1, 600_000)).unwrap().id;
    for _ in 0..3 {
        let error = cache.write(&root, &two, 0..64, &noise(2, 600_000)).unwrap_err();
        assert!(matches!(error, DiskError::Full(_)), "{error}");
        assert_eq!(names(folder.path()), [id.0.file_name()]);
    }
    assert_eq!(cache.usage().segments, 1);
    assert_eq!(cache.read(id).unwrap(), noise(1, 600_000));
    cache.write(&root, &two, 0..64, &noise(2, 200_000)).unwrap();
    // One that is full to the last byte opens and is read.
    fs::write(folder.path().join("ballast"), "").unwrap();
    let ballast = fs::File::options().write(true).open(folder.path().join("ballast")).unwrap();
    while std::io::Write::write(&mut &ballast, &[1; 4096]).is_ok_and(|written| written > 0) {}
    let cache = open(folder.path());
    assert_eq!(cache.usage().segments, 2);
    assert_eq!(cache.read(id).unwrap(), noise(1, 600_000));
    cache.remove_all().unwrap();
    assert_eq!(names(folder.path()), ["ballast"]);
    cache.write(&root, &two, 0..64, &noise(2, 600_000)).unwrap();
}

#[test]
fn a_folder_that_may_only_be_read_is_named_as_such() {
    let folder = folder();
    let (root, tokens) = (root("a"), tokens(1, 64));
    let set_mode = |mode| {
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    };
    // The system lets root write anywhere but on a disk that is mounted so.
    let disk = Mount::new(folder.path(), "1m");
    if is_root() && disk.is_none() {
        println!("SKIPPED: as root, a folder that may only be read needs mount");
        return;
    }
    let cache = open(folder.path());
    let id = store(&cache, &root, &tokens)[0].id;
    if disk.is_some() {
        assert!(mount(&["-o", "remount,ro", "tmpfs"], folder.path()));
    } else {
        set_mode(0o500);
    }
    assert_eq!(cache.read(id).unwrap(), payload_of(&tokens, &(0..64)));
    let other = self::tokens(2, 64);
    let error = cache.write(&root, &other, 0..64, b"payload").unwrap_err();
    assert!(matches!(error, DiskError::NotWritable(_)), "{error}");
    let error = try_open(folder.path(), PLENTY).unwrap_err();
    assert!(matches!(error, DiskError::NotWritable(_)), "{error}");
    assert_eq!(error.to_string(), "no permission to write to the cache's folder");
    set_mode_back(&disk, set_mode);
}

fn set_mode_back(disk: &Option<Mount<'_>>, set_mode: impl Fn(u32)) {
    if disk.is_none() {
        set_mode(0o700);
    }
}

#[test]
fn what_is_no_folder_is_an_error() {
    let folder = folder();
    let path = folder.path().join("file");
    fs::write(&path, "").unwrap();
    let error = try_open(&path, PLENTY).unwrap_err();
    assert_eq!(error.to_string(), "cannot list the cache's folder");
    fs::create_dir(folder.path().join("gone")).unwrap();
    let gone = folder.path().join("gone");
    let cache = open(&gone);
    fs::remove_dir(&gone).unwrap();
    assert!(matches!(cache.write(&root("a"), &[1], 0..1, b""), Err(DiskError::Folder { .. })));
    assert_eq!(cache.usage(), Usage::default());
}

#[test]
fn nothing_printed_tells_a_token() {
    let folder = folder();
    let cache = open(folder.path());
    let tokens = [777_123_456; 20];
    store(&cache, &root("a"), &tokens);
    let error = cache.write(&root("a"), &tokens, 0..21, b"").unwrap_err();
    let found = cache.longest(&root("a"), &tokens);
    let said = format!("{cache:?} {found:?} {error:?} {error} {:?}", root("a"));
    assert!(!said.contains("777123456"), "{said}");
}

#[test]
fn threads_read_and_write_at_once() {
    fn is_shared<T: Send + Sync>(_: &T) {}
    let folder = folder();
    let size = 100 + 4 * 64 + 64 + 64;
    let (one, other) = (open(folder.path()), try_open(folder.path(), Bytes(size * 6)).unwrap());
    is_shared(&one);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let cache = if thread % 2 == 0 { &one } else { &other };
            scope.spawn(move || {
                for turn in 0..60 {
                    let (root, tokens) = (root("a"), tokens((thread + turn) % 5, 128));
                    for range in cache.missing(&root, &tokens) {
                        let payload = payload_of(&tokens, &range);
                        match cache.write(&root, &tokens, range, &payload) {
                            Ok(_) | Err(DiskError::NoRoom { .. }) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                    for (at, segment) in
                        cache.longest(&root, &tokens).segments.into_iter().enumerate()
                    {
                        match cache.read(segment.id) {
                            Ok(payload) => {
                                let range = at * 64..(at + 1) * 64;
                                assert_eq!(payload, payload_of(&tokens, &range));
                            }
                            // The other cache knows a quota.
                            Err(DiskError::Gone) => {}
                            Err(error) => panic!("{error:?}"),
                        }
                    }
                }
            });
        }
    });
    assert!(other.usage().size <= Bytes(size * 6));
    other.refresh().unwrap();
    assert_eq!(names(folder.path()).len(), other.usage().segments);
}

/// What the cache promises, in the plainest way: every stored run with what was before it.
#[derive(Default)]
struct Model(HashMap<(u8, Vec<i32>, Vec<i32>), Vec<u8>>);

impl Model {
    fn write(&mut self, owner: u8, tokens: &[i32], range: Range<usize>, payload: Vec<u8>) {
        let (before, run) = (&tokens[..range.start], &tokens[range]);
        self.0.retain(|(other, prefix, tail), _| {
            let is_outgrown = tail.len() < run.len() && run.starts_with(tail);
            !(*other == owner && prefix == before && is_outgrown)
        });
        self.0.entry((owner, before.to_vec(), run.to_vec())).or_insert(payload);
    }

    fn has(&self, owner: u8, tokens: &[i32], range: Range<usize>) -> bool {
        self.0.contains_key(&(owner, tokens[..range.start].to_vec(), tokens[range].to_vec()))
    }

    fn longest(&self, owner: u8, tokens: &[i32]) -> usize {
        let mut longest = 0;
        for (other, before, run) in self.0.keys() {
            let leads_here =
                || (0..before.len() / 64).all(|at| self.has(owner, before, at * 64..(at + 1) * 64));
            if *other == owner && tokens.starts_with(before) && leads_here() {
                let rest = tokens[before.len()..].iter();
                let matching = rest.zip(run).take_while(|(one, other)| one == other).count();
                if matching > 0 {
                    longest = longest.max(before.len() + matching);
                }
            }
        }
        longest
    }

    fn missing(&self, owner: u8, tokens: &[i32]) -> Vec<Range<usize>> {
        let wholes = tokens.len() / 64;
        let mut missing: Vec<_> = (0..wholes)
            .map(|at| at * 64..(at + 1) * 64)
            .filter(|range| !self.has(owner, tokens, range.clone()))
            .collect();
        let (before, tail) = tokens.split_at(wholes * 64);
        let covered = |(other, prefix, run): &(u8, Vec<i32>, Vec<i32>)| {
            let counts = *other == owner && prefix == before;
            let matching = run.iter().zip(tail).take_while(|(one, other)| one == other).count();
            if counts { matching } else { 0 }
        };
        if tail.len() >= self.0.keys().map(covered).max().unwrap_or(0) + MIN_TAIL {
            missing.push(before.len()..tokens.len());
        }
        missing
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Write all that is missing.
    Store,
    /// Write this part of the last segment alone, missing or not.
    Tail,
    /// Another process removes the last segment found.
    Lose,
    /// A disk's fault in the last segment found.
    Damage,
    Reopen,
    Refresh,
}

/// Sequences that often begin as others do: blocks of two kinds, cut anywhere.
fn sequence() -> impl Strategy<Value = Vec<i32>> {
    let blocks = prop::collection::vec(prop_oneof![3 => Just(1), 1 => Just(2)], 0..3);
    let branch = (0..75_usize, 0..60_usize, 0..3_i32);
    (blocks, branch).prop_map(|(blocks, (cut, length, kind))| {
        let whole = blocks.into_iter().flat_map(|kind| (0..64).map(move |at| at * 4 + kind));
        let start = (0..64).map(|at| at * 4 + 1).take(cut.min(64));
        let end = std::iter::repeat_n(kind, length);
        whole.chain(start).chain(end).collect()
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Store),
        3 => Just(Step::Tail),
        1 => Just(Step::Lose),
        1 => Just(Step::Damage),
        1 => Just(Step::Reopen),
        1 => Just(Step::Refresh),
    ]
}

fn write(cache: &DiskCache, model: &mut Model, owner: u8, tokens: &[i32], range: Range<usize>) {
    let seed = model.0.len() as u64 * 1000 + tokens.len() as u64;
    let payload = noise(seed, range.len());
    cache.write(&root(&owner.to_string()), tokens, range.clone(), &payload).unwrap();
    model.write(owner, tokens, range, payload);
}

fn act(folder: &Path, cache: &mut DiskCache, model: &mut Model, step: &(Step, u8, Vec<i32>)) {
    let (step, owner, tokens) = step;
    let root = root(&owner.to_string());
    match step {
        Step::Store => {
            for range in cache.missing(&root, tokens) {
                write(cache, model, *owner, tokens, range);
            }
        }
        Step::Tail if tokens.len() % 64 == 0 => {}
        Step::Tail => {
            write(cache, model, *owner, tokens, tokens.len() / 64 * 64..tokens.len());
        }
        Step::Lose | Step::Damage => {
            let found = cache.longest(&root, tokens);
            let Some(segment) = found.segments.last() else { return };
            let path = file_of(folder, segment.id);
            if matches!(step, Step::Lose) {
                fs::remove_file(path).unwrap();
                assert!(matches!(cache.read(segment.id), Err(DiskError::Gone)));
            } else {
                let mut bytes = fs::read(&path).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(path, bytes).unwrap();
                assert!(matches!(cache.read(segment.id), Err(DiskError::Damaged(_))));
            }
            model.0.retain(|(owner, before, run), _| {
                let root = self::root(&owner.to_string()).0;
                let parent = before.chunks(64).fold(root, |key, chunk| key.after(chunk));
                parent.after(run) != segment.id.0
            });
        }
        Step::Reopen => *cache = open(folder),
        Step::Refresh => cache.refresh().unwrap(),
    }
}

/// Reads all that is found and compares it with what was written.
fn compare(cache: &DiskCache, model: &Model, owner: u8, tokens: &[i32]) {
    let root = root(&owner.to_string());
    let found = cache.longest(&root, tokens);
    assert_eq!(found.tokens, model.longest(owner, tokens));
    assert_eq!(cache.missing(&root, tokens), model.missing(owner, tokens));
    let mut payload = Vec::new();
    for (at, segment) in found.segments.iter().enumerate() {
        cache.read_into(segment.id, &mut payload).unwrap();
        let before = &tokens[..at * 64];
        let matching = (found.tokens - at * 64).min(64);
        let was_written = model.0.iter().any(|((other, prefix, run), written)| {
            *other == owner
                && prefix == before
                && run.len() == segment.tokens
                && run[..matching] == tokens[at * 64..at * 64 + matching]
                && *written == payload
        });
        assert!(was_written);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn it_does_what_the_plain_model_does(
        steps in prop::collection::vec((step(), 0..2_u8, sequence()), 1..24),
        asked in prop::collection::vec((0..2_u8, sequence()), 4),
    ) {
        let folder = folder();
        let (mut cache, mut model) = (open(folder.path()), Model::default());
        for step in &steps {
            act(folder.path(), &mut cache, &mut model, step);
            compare(&cache, &model, step.1, &step.2);
            for (owner, tokens) in &asked {
                compare(&cache, &model, *owner, tokens);
            }
            assert_eq!(cache.usage().segments, model.0.len());
            assert_eq!(names(folder.path()).len(), model.0.len());
        }
    }

    #[test]
    fn a_quota_is_never_exceeded_and_no_chain_is_broken(
        steps in prop::collection::vec((sequence(), 0..2000_usize), 1..30),
        quota in 1000..20_000_u64,
    ) {
        let folder = folder();
        let cache = try_open(folder.path(), Bytes(quota)).unwrap();
        let root = root("a");
        for (number, (tokens, length)) in steps.iter().enumerate() {
            let before = cache.usage();
            for range in cache.missing(&root, tokens) {
                match cache.write(&root, tokens, range, &noise(number as u64, *length)) {
                    Ok(written) => assert!(cache.read(written.id).is_ok()),
                    Err(DiskError::NoRoom { size, .. }) => {
                        let alone = before.segments == 0 && tokens.len() <= 64;
                        assert!(!alone || size.0 > quota);
                        break;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
            let files = fs::read_dir(folder.path()).unwrap();
            let on_disk: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
            assert_eq!(cache.usage().size, Bytes(on_disk));
            assert!(on_disk <= quota);
            let reached: HashSet<_> = steps
                .iter()
                .flat_map(|(tokens, _)| cache.longest(&root, tokens).segments)
                .map(|segment| segment.id.0)
                .collect();
            assert_eq!(reached.len(), cache.usage().segments);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        assert!(decode(&bytes).is_err());
    }

    #[test]
    fn what_is_encoded_is_decoded(
        tokens in prop::collection::vec(any::<i32>(), 1..=64),
        payload in prop::collection::vec(prop_oneof![Just(0), any::<u8>()], 0..3000),
    ) {
        let file = encode(root("a"), &tokens, &payload).unwrap();
        assert_eq!(decode(&file), Ok(payload));
    }
}
