//! What the folder holds, as a tree in memory: which segments follow which prefix.
//!
//! Pure: touches no file.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::time::SystemTime;

use tieline_types::Bytes;

use super::key::{Key, SegmentId};
use super::{Found, FoundSegment, MAX_SEGMENTS, MIN_TAIL, SEGMENT};

/// One stored segment.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) parent: Key,
    pub(super) tokens: Arc<[i32]>,
    /// Length of the payload in bytes.
    pub(super) payload: u64,
    /// Length of the file in bytes.
    pub(super) size: u64,
}

impl Entry {
    fn is_whole(&self) -> bool {
        self.tokens.len() == SEGMENT
    }
}

struct Node {
    entry: Entry,
    /// The tick of the last use; no two are equal.
    used: u64,
    /// When its file was last marked as used, as far as known.
    marked: SystemTime,
}

/// The tree. Its edges go from a prefix's key to the segments after it; a parent may be missing.
#[derive(Default)]
pub(super) struct Index {
    nodes: HashMap<Key, Node>,
    children: HashMap<Key, BTreeSet<Key>>,
    size: u64,
    ticks: u64,
}

impl Index {
    /// Bytes of all files.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// All segments, and when their files were last marked as used, as far as known.
    pub(super) fn marks(&self) -> HashMap<Key, SystemTime> {
        self.nodes.iter().map(|(key, node)| (*key, node.marked)).collect()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        self.nodes.get(&key).map(|node| &node.entry)
    }

    /// Adds or replaces a segment; it is the last used. `marked`: its file, as used.
    pub(super) fn insert(&mut self, key: Key, entry: Entry, marked: SystemTime) {
        self.remove(key);
        self.size += entry.size;
        self.children.entry(entry.parent).or_default().insert(key);
        let used = self.tick();
        self.nodes.insert(key, Node { entry, used, marked });
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.nodes.remove(&key)?.entry;
        self.size -= entry.size;
        if let Some(siblings) = self.children.get_mut(&entry.parent) {
            siblings.remove(&key);
            if siblings.is_empty() {
                self.children.remove(&entry.parent);
            }
        }
        Some(entry)
    }

    /// Makes a segment the last used. False if there is none.
    pub(super) fn touch(&mut self, key: Key) -> bool {
        let used = self.tick();
        self.nodes.get_mut(&key).map(|node| node.used = used).is_some()
    }

    /// The same, where its file was marked then.
    pub(super) fn mark(&mut self, key: Key, marked: SystemTime) {
        if self.touch(key)
            && let Some(node) = self.nodes.get_mut(&key)
        {
            node.marked = marked;
        }
    }

    fn tick(&mut self) -> u64 {
        self.ticks += 1;
        self.ticks
    }

    fn children(&self, parent: Key) -> impl Iterator<Item = (Key, &Entry)> {
        let keys = self.children.get(&parent).into_iter().flatten();
        keys.filter_map(|key| Some((*key, self.get(*key)?)))
    }

    /// The longest chain of segments after `root` that begins as `tokens` do.
    pub(super) fn longest(&self, root: Key, tokens: &[i32]) -> Found {
        let (mut found, mut parent, mut rest) = (Found::default(), root, tokens);
        while let Some((key, matching)) = self.best_child(parent, rest) {
            let Some(entry) = self.get(key) else { break };
            found.segments.push(FoundSegment {
                id: SegmentId(key),
                tokens: entry.tokens.len(),
                payload: Bytes(entry.payload),
            });
            found.tokens += matching;
            if matching < SEGMENT {
                break;
            }
            (parent, rest) = (key, rest.get(SEGMENT..).unwrap_or_default());
        }
        found
    }

    /// The child that has most tokens in common with `rest`, and how many; of equals the smallest.
    fn best_child(&self, parent: Key, rest: &[i32]) -> Option<(Key, usize)> {
        if let Some(whole) = rest.get(..SEGMENT) {
            let key = parent.after(whole);
            if self.get(key).is_some_and(|entry| entry.tokens[..] == *whole) {
                return Some((key, SEGMENT));
            }
        }
        let counted = self
            .children(parent)
            .map(|(key, entry)| (common(&entry.tokens, rest), Reverse((entry.payload, key))));
        let (matching, Reverse((_, key))) = counted.max()?;
        (matching > 0).then_some((key, matching))
    }

    /// Which runs of `tokens` are worth writing.
    pub(super) fn missing(&self, root: Key, tokens: &[i32]) -> Vec<Range<usize>> {
        let (mut missing, mut parent, mut start) = (Vec::new(), root, 0);
        let (wholes, tail) = tokens.as_chunks::<SEGMENT>();
        for whole in wholes {
            parent = parent.after(whole);
            if self.get(parent).is_none() {
                missing.push(start..start + SEGMENT);
            }
            start += SEGMENT;
        }
        let covered = self.children(parent).map(|(_, entry)| common(&entry.tokens, tail)).max();
        if tail.len() >= covered.unwrap_or(0) + MIN_TAIL {
            missing.push(start..tokens.len());
        }
        missing
    }

    /// The tails after `parent` that `tokens` begin with and outgrow.
    pub(super) fn outgrown(&self, parent: Key, tokens: &[i32]) -> Vec<Key> {
        let shorter = self.children(parent).filter(|(_, entry)| {
            !entry.is_whole()
                && entry.tokens.len() < tokens.len()
                && tokens.starts_with(&entry.tokens)
        });
        shorter.map(|(key, _)| key).collect()
    }

    /// What must go to win `room` bytes and a place for `places` segments: `first`, then leaves, least
    /// recently used before others; a segment becomes a leaf when those after it are chosen.
    ///
    /// Never chooses `keep`, nor what `keep` follows. `None` if all that may go is not enough.
    pub(super) fn victims(&self, need: &Need, first: &[Key]) -> Option<Vec<Key>> {
        let (mut victims, mut freed) = (Vec::new(), 0);
        let is_enough = |victims: &[Key], freed| freed >= need.room && victims.len() >= need.places;
        let mut left: HashMap<Key, usize> = HashMap::new();
        let mut leaves = BinaryHeap::new();
        if !is_enough(&victims, freed) {
            let childless = self.nodes.iter().filter(|(key, _)| !self.children.contains_key(key));
            leaves.extend(
                childless.map(|(key, node)| Reverse((!first.contains(key), node.used, *key))),
            );
        }
        while !is_enough(&victims, freed) {
            let Reverse((_, _, key)) = leaves.pop()?;
            if Some(key) == need.keep {
                continue;
            }
            let entry = self.get(key)?;
            victims.push(key);
            freed += entry.size;
            let siblings = left
                .entry(entry.parent)
                .or_insert_with(|| self.children.get(&entry.parent).map_or(0, BTreeSet::len));
            *siblings = siblings.saturating_sub(1);
            if let (0, Some(parent)) = (*siblings, self.nodes.get(&entry.parent)) {
                leaves.push(Reverse((true, parent.used, entry.parent)));
            }
        }
        Some(victims)
    }

    /// What new files need under a quota.
    pub(super) fn need(&self, incoming: &Incoming, quota: u64) -> Need {
        let size = self.size.saturating_add(incoming.bytes);
        let segments = self.nodes.len() + incoming.segments;
        Need {
            room: size.saturating_sub(quota),
            places: segments.saturating_sub(MAX_SEGMENTS),
            keep: incoming.parent,
        }
    }
}

/// What is about to be written.
#[derive(Clone, Copy, Default)]
pub(super) struct Incoming {
    /// The prefix that it follows.
    pub(super) parent: Option<Key>,
    pub(super) bytes: u64,
    pub(super) segments: usize,
}

/// What [`Index::victims`] is to win.
pub(super) struct Need {
    pub(super) room: u64,
    pub(super) places: usize,
    pub(super) keep: Option<Key>,
}

/// How many tokens both begin with.
fn common(one: &[i32], other: &[i32]) -> usize {
    one.iter().zip(other).take_while(|(one, other)| one == other).count()
}
