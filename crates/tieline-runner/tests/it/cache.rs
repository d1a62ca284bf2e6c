//! The cache of prefixes in memory: what is found, what is told, and whose it is.

use tieline_types::{LoadParams, Message, Miss, MissReason, Owner, Prompt, Request, Role, Tokens};

use crate::peer::{Answer, Peer, going_on, question, some_tokens};

fn of(owner: &str, request: Request) -> Request {
    Request { owner: Owner(owner.to_owned()), ..request }
}

#[track_caller]
fn missed(answer: &Answer, position: u32, reason: MissReason) {
    let miss = answer.started.as_ref().unwrap().miss;
    assert_eq!(miss, Some(Miss { position: Tokens(position), reason }));
}

#[track_caller]
fn found(answer: &Answer, cached: u32) {
    assert_eq!((answer.cached(), answer.started.as_ref().unwrap().miss), (cached, None));
}

#[test]
fn the_caller_is_told_what_was_cached_and_what_parted() {
    let mut peer = Peer::ready();
    let tokens = some_tokens(1, 200);
    let cold = peer.generate(going_on(tokens.clone(), 2));
    assert_eq!(cold.cached(), 0);
    missed(&cold, 0, MissReason::Cold);
    found(&peer.generate(going_on(tokens.clone(), 2)), 199);
    let mut other = tokens.clone();
    other[120] += 1;
    let differs = peer.generate(going_on(other.clone(), 2));
    assert_eq!(differs.cached(), 120);
    missed(&differs, 120, MissReason::Differs);
    // Both are there now.
    found(&peer.generate(going_on(tokens.clone(), 2)), 199);
    found(&peer.generate(going_on(other, 2)), 199);
    // What only goes on was not missed.
    let longer = [&tokens[..], &some_tokens(2, 40)].concat();
    let answer = peer.generate(going_on(longer, 2));
    assert!(answer.cached() >= 200, "{}", answer.cached());
}

#[test]
fn who_wants_no_cache_uses_none_and_leaves_nothing() {
    let mut peer = Peer::ready();
    let without = || Request { cache: false, ..going_on(some_tokens(1, 100), 2) };
    let first = peer.generate(without());
    assert_eq!(first.cached(), 0);
    missed(&first, 0, MissReason::Off);
    let with = peer.generate(going_on(some_tokens(1, 100), 2));
    assert_eq!(with.cached(), 0);
    missed(&with, 0, MissReason::Cold);
    let again = peer.generate(without());
    assert_eq!(again.cached(), 0);
    missed(&again, 0, MissReason::Off);
    found(&peer.generate(going_on(some_tokens(1, 100), 2)), 99);
}

#[test]
fn a_cancelled_answer_leaves_its_prompt_and_a_cacheless_one_nothing() {
    let mut peer = Peer::ready();
    for (seed, cache, cached) in [(1, true, 99), (2, false, 0)] {
        let id = peer.begin(Request { cache, ..going_on(some_tokens(seed, 100), 300) });
        peer.until(id, |event| matches!(event, tieline_types::Event::Piece(_)));
        peer.send(&tieline_types::wire::ToRunner::Cancel(id));
        peer.rest(id);
        assert_eq!(peer.generate(going_on(some_tokens(seed, 100), 1)).cached(), cached);
    }
}

#[test]
fn owners_share_nothing() {
    // Room for four owners' prompts: 154 tokens each are more than one context.
    let (context, kv_tokens) = (Some(Tokens(512)), Some(Tokens(1024)));
    let mut peer = Peer::ready_with(LoadParams { context, kv_tokens, ..LoadParams::default() });
    let request = || going_on(some_tokens(1, 150), 4);
    assert_eq!(peer.generate(of("ann", request())).cached(), 0);
    for owner in ["ben", "", "ann "] {
        let answer = peer.generate(of(owner, request()));
        assert_eq!(answer.cached(), 0, "{owner:?}");
        missed(&answer, 0, MissReason::Cold);
    }
    found(&peer.generate(of("ann", request())), 149);
    found(&peer.generate(of("ben", request())), 149);
    // Nor while both are at work: the second neither waits for the first nor reads what it computes.
    let request = || going_on(some_tokens(2, 150), 4);
    let both = peer.together([of("ann", request()), of("ben", request())]);
    assert!(both.iter().all(|answer| answer.cached() == 0));
}

#[test]
fn what_is_idle_gives_way_and_everybody_is_answered() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(512)),
        kv_tokens: Some(Tokens(512)),
        ..LoadParams::default()
    });
    // 300 and 300 do not fit into 512.
    for (seed, reason) in [(1, MissReason::Cold), (2, MissReason::Cold), (1, MissReason::Evicted)] {
        let answer = peer.generate(going_on(some_tokens(seed, 300), 3));
        answer.is_whole(3);
        assert_eq!(answer.cached(), 0);
        missed(&answer, 0, reason);
    }
    // Many at once that fit only one after the other.
    let answers = peer.together((3..9).map(|seed| going_on(some_tokens(seed, 300), 3)));
    answers.iter().for_each(|answer| answer.is_whole(3));
    // One that needs all there is.
    peer.generate(going_on(some_tokens(9, 500), 12)).is_whole(12);
}

#[test]
fn what_all_begin_with_outlives_their_ends() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(512)),
        kv_tokens: Some(Tokens(512)),
        ..LoadParams::default()
    });
    let shared = some_tokens(1, 200);
    for seed in 2..9 {
        let tokens = [&shared[..], &some_tokens(seed, 120)].concat();
        let answer = peer.generate(going_on(tokens, 2));
        answer.is_whole(2);
        if seed > 2 {
            assert_eq!(answer.cached(), 200, "{seed}");
        }
    }
}

#[test]
fn more_prefixes_than_sequences_are_no_trouble() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(512)),
        kv_tokens: Some(Tokens(4096)),
        parallel: 2,
        ..LoadParams::default()
    });
    for seed in 0..40 {
        peer.generate(going_on(some_tokens(seed, 20), 2)).is_whole(2);
    }
    found(&peer.generate(going_on(some_tokens(39, 20), 2)), 19);
    assert_eq!(peer.generate(going_on(some_tokens(0, 20), 2)).cached(), 0);
}

#[test]
fn a_header_for_somebodys_accounting_does_not_break_the_prefix() {
    let mut peer = Peer::ready();
    let ask = |system: String| {
        let mut request = question("What is the capital of France?");
        let Prompt::Chat(messages) = &mut request.prompt else { panic!() };
        messages[0] = Message::new(Role::System, system);
        request
    };
    let header = |cch: &str| {
        format!("x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch={cch};")
    };
    let plain = peer.generate(ask("You answer in one short English sentence.".to_owned()));
    for cch in ["fa690", "0b1c2"] {
        let answer =
            peer.generate(ask(header(cch) + "\nYou answer in one short English sentence."));
        assert_eq!(answer.usage().prompt_tokens, plain.usage().prompt_tokens);
        found(&answer, plain.usage().prompt_tokens.0 - 1);
    }
    // Elsewhere it is text like any other.
    let answer = peer
        .generate(ask(format!("You answer in one short English sentence.\n{}", header("fa690"))));
    assert!(answer.usage().prompt_tokens > plain.usage().prompt_tokens);
}

#[test]
fn by_default_the_cache_holds_one_context_and_more_where_it_is_asked_for() {
    // Two prompts that take turns: how much is known of the first when it comes again.
    let again = |kv_tokens: Option<u32>, length: u32| {
        let kv_tokens = kv_tokens.map(Tokens);
        let mut peer = Peer::start(testkit::smollm2());
        let context = Some(Tokens(512));
        let loaded = peer.load(LoadParams { context, kv_tokens, ..LoadParams::default() }).unwrap();
        assert_eq!(loaded.kv_tokens, kv_tokens.unwrap_or(Tokens(512)));
        [1, 2, 1].map(|seed| peer.generate(going_on(some_tokens(seed, length), 2)).cached())[2]
    };
    assert_eq!(again(None, 200), 199);
    assert_eq!(again(None, 300), 0);
    assert_eq!(again(Some(1024), 300), 299);
}
