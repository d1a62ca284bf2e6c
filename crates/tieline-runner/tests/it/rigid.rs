//! What is kept of prompts by models that cannot be cut anywhere: recurrent ones, hybrids, and those with
//! a sliding window; and that it changes no answer, of these and of others.

use tempfile::TempDir;
use testkit::{Shape, WIDE_WINDOW, WINDOW};
use tieline_decode::disk::SEGMENT;
use tieline_types::wire::ToRunner;
use tieline_types::{
    Bytes, Event, FinishReason, FlashAttention, KvType, LoadParams, Message, Miss, MissReason,
    Private, Prompt, Request, Role, Tokens,
};

use crate::peer::{Answer, Peer, Random, keeping};
use crate::shapes::{NEAR, distance, fresh, shaped_with, told, words};

/// Models whose state is not cells alone.
const RIGID: [Shape; 2] = [Shape::Mamba, Shape::Jamba];
/// Models with layers that forget what has left their window.
const WINDOWED: [Shape; 2] = [Shape::Gemma3, Shape::GptOss];

pub(crate) fn loaded(context: u32, kv: u32) -> LoadParams {
    LoadParams {
        context: Some(Tokens(context)),
        kv_tokens: Some(Tokens(kv)),
        // Exact: flash attention computes with 16-bit floats where few tokens are computed together.
        type_k: KvType::F32,
        type_v: KvType::F32,
        flash_attention: FlashAttention::Off,
        parallel: 4,
        ..LoadParams::default()
    }
}

fn peer(shape: Shape) -> Peer {
    shaped_with(shape, loaded(2048, 8192))
}

fn miss(answer: &Answer) -> Option<(u32, MissReason)> {
    let miss = answer.started.as_ref().unwrap().miss;
    miss.map(|Miss { position, reason }| (position.0, reason))
}

/// The answer with the cache is the one without; returns the former.
#[track_caller]
fn same(peer: &mut Peer, shape: Shape, request: &Request) -> Answer {
    let cached = peer.generate(request.clone());
    let plain = peer.generate(fresh(request.clone()));
    assert_eq!(plain.cached(), 0);
    let distance = distance(&cached, &plain);
    assert!(distance < NEAR, "{}: {distance} with {} cached", shape.name(), cached.cached());
    cached
}

#[test]
fn a_prompt_that_parts_goes_on_from_the_copy_before() {
    for shape in Shape::GENERATORS {
        let mut peer = peer(shape);
        let prompt = words(shape, 1, 600);
        let first = same(&mut peer, shape, &told(prompt.clone(), 12));
        assert_eq!((first.cached(), miss(&first)), (0, Some((0, MissReason::Cold))));
        // The same again: all but the last token.
        let again = same(&mut peer, shape, &told(prompt.clone(), 12));
        assert_eq!((again.cached(), miss(&again)), (599, None), "{}", shape.name());
        // Copies were taken at 128, 256, 384, 512 and 599.
        for (parts, copy) in [(550, 512), (513, 512), (511, 384), (300, 256), (100, 0)] {
            let mut other = prompt.clone();
            other[parts] ^= 1;
            let other = same(&mut peer, shape, &told(other, 12));
            let parts = u32::try_from(parts).unwrap();
            let (cached, why) = if RIGID.contains(&shape) {
                (copy, MissReason::StateNotCut)
            } else {
                (parts, MissReason::Differs)
            };
            assert_eq!(other.cached(), cached, "{} at {parts}", shape.name());
            assert_eq!(miss(&other), Some((parts, why)), "{} at {parts}", shape.name());
        }
    }
}

#[test]
fn nobody_waits_for_a_copy_that_is_not_taken() {
    for shape in RIGID.into_iter().chain(WINDOWED) {
        let mut peer = shaped_with(shape, loaded(4096, 8192));
        // The first copy is taken at 500 tokens.
        let long = words(shape, 1, 4000);
        let mut short = long[..100].to_vec();
        short.extend(words(shape, 2, 20));
        let read = peer.begin(told(long, 4));
        let other = peer.begin(told(short, 4));
        let mut order = Vec::new();
        while !order.contains(&read) {
            match peer.event() {
                (id, Event::Started(_)) if id == other => order.push(id),
                (id, Event::Piece(_) | Event::Finished(_)) if id == read => order.push(id),
                _ => {}
            }
        }
        assert_eq!(order, [other, read], "{}", shape.name());
    }
}

/// One that will be there is worth the wait, and no longer than for it.
#[test]
fn who_begins_the_same_waits_for_the_copy() {
    for shape in RIGID {
        let mut peer = shaped_with(shape, loaded(4096, 8192));
        let long = words(shape, 1, 4000);
        // Copies are taken at 500, 1000 and 1500 tokens.
        let mut short = long[..1100].to_vec();
        short.extend(words(shape, 2, 20));
        let read = peer.begin(told(long, 4));
        let other = peer.begin(told(short, 4));
        let mut cached = None;
        while cached.is_none() {
            match peer.event() {
                (id, Event::Started(started)) if id == other => {
                    cached = Some(started.cached_tokens)
                }
                (id, Event::Piece(_) | Event::Finished(_)) if id == read => panic!("too late"),
                _ => {}
            }
        }
        assert_eq!(cached, Some(Tokens(1000)), "{}", shape.name());
    }
}

#[test]
fn a_conversation_goes_on_and_turns_back() {
    let system = "kalo bade mitu ".repeat(30);
    for shape in Shape::GENERATORS {
        let mut peer = peer(shape);
        let ask = |turns: &[&str]| {
            let roles = [Role::User, Role::Assistant].into_iter().cycle();
            let turns = roles.zip(turns).map(|(role, text)| Message::new(role, *text));
            let system = Message::new(Role::System, Private::from(system.as_str()));
            let messages = std::iter::once(system).chain(turns).collect();
            Request { prompt: Prompt::Chat(messages), ..told(Vec::new(), 8) }
        };
        let first = same(&mut peer, shape, &ask(&["tiso nema"]));
        let length = first.usage().prompt_tokens.0;
        // The question put otherwise: all before it is known.
        let other = same(&mut peer, shape, &ask(&["roka tiso nema"]));
        assert!(other.cached() + 24 > length, "{}: {} of {length}", shape.name(), other.cached());
        // The answer given back in other words than it was in.
        let next = same(&mut peer, shape, &ask(&["tiso nema", "laro", "besi"]));
        // Less than 64 tokens are not worth a sequence of their own.
        assert!(next.cached() + 64 > length, "{}: {} of {length}", shape.name(), next.cached());
    }
}

#[test]
fn an_answer_is_gone_on_with_to_the_token() {
    for shape in Shape::GENERATORS {
        let mut peer = peer(shape);
        let mut prompt = words(shape, 2, 90);
        for turn in 0..4 {
            let answer = same(&mut peer, shape, &told(prompt.clone(), 10));
            if turn > 0 {
                // All but the answer's last token was computed, and what follows it was not.
                let held = u32::try_from(prompt.len()).unwrap() - 21;
                assert_eq!((answer.cached(), miss(&answer)), (held, None), "{}", shape.name());
            }
            prompt.extend(crate::shapes::tokens(&answer));
            prompt.extend(words(shape, 10 + turn, 20));
        }
    }
}

/// Prompts that grow out of each other anywhere.
struct Prompts {
    shape: Shape,
    random: Random,
    known: Vec<Vec<u32>>,
}

impl Prompts {
    fn new(shape: Shape) -> Self {
        Self { shape, random: Random(7), known: vec![words(shape, 3, 300)] }
    }

    fn next(&mut self) -> Vec<u32> {
        let below = |random: &mut Random, end: usize| {
            usize::try_from(random.below(u32::try_from(end).unwrap())).unwrap()
        };
        let at = below(&mut self.random, self.known.len());
        let base = &self.known[at];
        // Now and then it is gone on with.
        let whole = self.random.below(3) == 0;
        let keep = if whole { base.len() } else { 1 + below(&mut self.random, base.len()) };
        let seed = 100 + u32::try_from(self.known.len()).unwrap();
        let more = 1 + self.random.below(if keep > 450 { 40 } else { 250 });
        let prompt = [&base[..keep], &words(self.shape, seed, more)].concat();
        self.known.push(prompt.clone());
        prompt
    }
}

#[test]
fn whatever_was_read_before_an_answer_is_the_same() {
    for shape in Shape::GENERATORS {
        // So little room that what is cached is dropped all the time, and windows are written over.
        let mut peer = shaped_with(shape, loaded(900, 1024));
        let mut prompts = Prompts::new(shape);
        let (mut cached, mut lost, mut put_back) = (0, 0, 0);
        for _ in 0..20 {
            let answer = same(&mut peer, shape, &told(prompts.next(), 4));
            cached += answer.cached();
            let is_lost = miss(&answer).is_some_and(|(_, why)| why == MissReason::StateNotCut);
            lost += u32::from(is_lost);
            put_back += u32::from(is_lost && answer.cached() > 0);
        }
        assert!(cached > 1000, "{}: {cached} cached", shape.name());
        if shape == Shape::Gemma3Wide {
            // Most of these prompts fit into its window.
        } else if RIGID.contains(&shape) || WINDOWED.contains(&shape) {
            assert!(lost > 0 && put_back > 0, "{}: {lost} {put_back}", shape.name());
        } else {
            assert_eq!(lost, 0, "{}", shape.name());
        }
    }
}

#[test]
fn side_by_side_they_answer_as_alone() {
    for shape in Shape::GENERATORS {
        let mut peer = peer(shape);
        let mut prompts = Prompts::new(shape);
        for _ in 0..2 {
            let requests: Vec<Request> = (0..5).map(|_| told(prompts.next(), 8)).collect();
            let together = peer.together(requests.clone());
            for (request, answer) in requests.into_iter().zip(together) {
                let alone = peer.generate(fresh(request));
                let distance = distance(&answer, &alone);
                assert!(
                    distance < NEAR,
                    "{}: {distance}, {} cached",
                    shape.name(),
                    answer.cached()
                );
            }
        }
    }
}

#[test]
fn owners_share_no_copies() {
    for shape in RIGID {
        let mut peer = peer(shape);
        let of = |owner: &str| Request {
            owner: tieline_types::Owner(owner.to_owned()),
            ..told(words(shape, 1, 200), 4)
        };
        assert_eq!(peer.generate(of("ann")).cached(), 0);
        let other = peer.generate(of("ben"));
        assert_eq!((other.cached(), miss(&other)), (0, Some((0, MissReason::Cold))));
        assert_eq!(peer.generate(of("ann")).cached(), 199);
    }
}

#[test]
fn who_wants_no_cache_leaves_no_copy() {
    for shape in RIGID {
        let mut peer = peer(shape);
        let request = || told(words(shape, 1, 200), 4);
        peer.generate(fresh(request()));
        assert_eq!(peer.generate(request()).cached(), 0, "{}", shape.name());
    }
}

#[test]
fn copies_that_had_to_go_are_not_missed_for_ever() {
    // More prompts than copies are kept, each leaves one.
    let (shape, count) = (Shape::Mamba, 80);
    let mut peer = shaped_with(shape, loaded(256, 16_384));
    let request = |seed| told(words(shape, seed, 80), 2);
    for seed in 0..count {
        assert_eq!(peer.generate(request(seed)).cached(), 0);
    }
    let last = same(&mut peer, shape, &request(count - 1));
    assert_eq!(last.cached(), 79);
    let first = same(&mut peer, shape, &request(0));
    assert_eq!(first.cached(), 0, "it was dropped");
    assert_eq!(same(&mut peer, shape, &request(0)).cached(), 79, "and is back");
}

#[test]
fn copies_keep_to_what_was_planned_for_them() {
    let cannot_be_cut = RIGID.into_iter().chain(WINDOWED);
    for (shape, has) in cannot_be_cut.map(|shape| (shape, true)).chain([(Shape::Llama, false)]) {
        let mut most = Bytes(0);
        // As many as there come, half of them, none.
        for share in [None, Some(2), Some(0)] {
            let allowed =
                share.map_or(LoadParams::DEFAULT_COPIES, |share| Bytes(most.0 * share / 4));
            let mut peer = Peer::start(&testkit::shape(shape));
            let params = LoadParams { copies: allowed, ..loaded(512, 2048) };
            let planned = peer.load(params).unwrap().memory.copies;
            let mut seen = Bytes(0);
            for seed in 0..5 {
                peer.generate(told(words(shape, seed, 300), 1));
                seen = seen.max(peer.copies);
            }
            let name = shape.name();
            assert!(seen <= planned && planned <= allowed, "{name}: {seen}, {planned}, {allowed}");
            assert_eq!(seen > Bytes(0), has && allowed > Bytes(0), "{name}: {seen} of {allowed}");
            assert_eq!(planned > Bytes(0), has && allowed > Bytes(0), "{name}: {planned}");
            most = most.max(seen);
        }
    }
}

#[test]
fn a_copy_without_its_cells_is_not_used() {
    let shape = Shape::Jamba;
    let mut peer = shaped_with(shape, loaded(512, 512));
    let request = |seed| told(words(shape, seed, 300), 3);
    for (seed, reason) in [(1, MissReason::Cold), (2, MissReason::Cold), (1, MissReason::Evicted)] {
        let answer = same(&mut peer, shape, &request(seed));
        assert_eq!((answer.cached(), miss(&answer)), (0, Some((0, reason))));
    }
}

#[test]
fn a_state_outlives_its_sequence() {
    let shape = Shape::Mamba;
    let mut peer = shaped_with(shape, loaded(512, 512));
    let request = |seed| told(words(shape, seed, 300), 3);
    for (seed, cached) in [(1, 0), (2, 0), (1, 299), (2, 299)] {
        let answer = same(&mut peer, shape, &request(seed));
        assert_eq!(answer.cached(), cached, "{seed}");
    }
}

#[test]
fn a_prompt_that_was_cancelled_half_way_changes_no_other() {
    for shape in Shape::GENERATORS {
        let mut peer = shaped_with(shape, loaded(4096, 8192));
        let prompt = words(shape, 1, 4000);
        let before = same(&mut peer, shape, &told(prompt[..300].to_vec(), 4));
        let id = peer.begin(told(prompt.clone(), 4));
        peer.until(id, |event| matches!(event, Event::Started(_)));
        peer.send(&ToRunner::Cancel(id));
        assert_eq!(peer.rest(id).finished.reason, FinishReason::Cancelled, "{}", shape.name());
        let after = same(&mut peer, shape, &told(prompt[..300].to_vec(), 4));
        assert!(distance(&before, &after) < NEAR, "{}", shape.name());
        same(&mut peer, shape, &told(prompt[..700].to_vec(), 4));
    }
}

#[test]
fn what_the_disk_cannot_hold_stays_off_it() {
    const { assert!((WINDOW as usize) < SEGMENT, "shorter than what is stored at once") };
    for shape in RIGID.into_iter().chain(WINDOWED) {
        let folder = TempDir::new().unwrap();
        let start = || {
            let mut peer = Peer::start_with(&testkit::shape(shape), Some(folder.path()));
            peer.load(keeping(loaded(1024, 1024))).unwrap();
            peer
        };
        let request = told(words(shape, 1, 600), 6);
        let mut peer = start();
        let before = peer.generate(request.clone());
        peer.hang_up();
        assert_eq!(files(&folder), 0, "{}", shape.name());
        let mut peer = start();
        let after = peer.generate(request);
        assert_eq!((after.cached(), miss(&after)), (0, Some((0, MissReason::Cold))));
        assert!(distance(&before, &after) < NEAR, "{}", shape.name());
    }
}

#[test]
fn others_come_back_from_disk_as_they_were() {
    const { assert!(WIDE_WINDOW as usize > SEGMENT, "what is stored at once") };
    for shape in [Shape::Llama, Shape::Qwen3, Shape::Qwen3Moe, Shape::Gemma3Wide] {
        let folder = TempDir::new().unwrap();
        let request = told(words(shape, 1, 600), 12);
        let mut answers = Vec::new();
        for cached in [0, 599] {
            let mut peer = Peer::start_with(&testkit::shape(shape), Some(folder.path()));
            peer.load(keeping(loaded(1024, 1024))).unwrap();
            let answer = peer.generate(request.clone());
            assert_eq!(answer.finished.reason, FinishReason::MaxTokens);
            assert_eq!(answer.cached(), cached, "{}", shape.name());
            answers.push(answer);
            peer.hang_up();
        }
        assert!(distance(&answers[0], &answers[1]) < NEAR, "{}", shape.name());
    }
}

/// Files of stored prefixes.
fn files(folder: &TempDir) -> usize {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().metadata().unwrap().len() > 0).count()
}
