//! Many requests at once: who is served when, who gives way, and that nobody is lost.

use std::collections::HashSet;
use std::time::Duration;

use tieline_types::wire::{FailureKind, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Class, Constraint, Event, FinishReason, LoadParams, Owner, Request, RequestId, Speculation,
    Tokens, Tool, ToolCallStep, ToolChoice,
};

use crate::peer::{Answer, Peer, Random, going_on, question, some_tokens};

fn parallel(parallel: u32) -> Peer {
    Peer::ready_with(LoadParams { context: Some(Tokens(512)), parallel, ..LoadParams::default() })
}

/// A short prompt of its own, and an answer of so many tokens, one a step.
fn short(seed: u32, answer: u32) -> Request {
    Request { speculation: Speculation::Off, ..going_on(some_tokens(seed, 20), answer) }
}

fn batch(request: Request) -> Request {
    Request { class: Class::Batch, ..request }
}

#[test]
fn eight_at_once_get_all_their_tokens() {
    let mut peer = Peer::ready();
    for (answer, tokens) in peer.together((1..9).map(|n| short(n, 10 + n))).iter().zip(11..) {
        answer.is_whole(tokens);
        assert!(answer.started.is_some() && answer.queued.is_empty());
    }
}

#[test]
fn they_are_served_side_by_side() {
    let mut peer = Peer::ready();
    let first = peer.begin(short(1, 200));
    peer.until(first, |event| matches!(event, Event::Piece(_)));
    // A shorter one that comes later ends first.
    let second = peer.begin(short(2, 5));
    peer.until(second, |event| matches!(event, Event::Finished(_)));
    peer.rest(first).is_whole(200);
}

fn tokenize(text: &str) -> Work {
    Work::Tokenize { text: text.into(), add_special: false, parse_special: false }
}

/// Megabytes of text are read beside the steps, and beside shorter texts.
#[test]
fn a_large_text_holds_up_nobody() {
    let mut peer = Peer::ready();
    let first = peer.begin(short(1, 400));
    peer.until(first, |event| matches!(event, Event::Piece(_)));
    let large =
        peer.order(tokenize(&"The quick brown fox jumps over the lazy dog. ".repeat(90_000)));
    let small = peer.order(tokenize("The quick brown fox."));
    let (mut pieces, mut told) = (0, Vec::new());
    while told.len() < 2 {
        match peer.frame().expect("the runner went away") {
            FromRunner::Reply(id, Reply::Tokens(_)) => told.push(id),
            FromRunner::Reply(_, Reply::Event(Event::Piece(_))) => pieces += 1,
            _ => {}
        }
    }
    assert_eq!(told, [small, large]);
    assert!(pieces >= 10, "{pieces} tokens meanwhile");
}

/// Who sends many has some refused, and all are answered.
#[test]
fn large_texts_have_a_queue_that_ends() {
    let mut peer = Peer::ready();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(1_600);
    let sent = 80;
    (0..sent).for_each(|_| {
        peer.order(tokenize(&text));
    });
    let (mut read, mut refused) = (0, 0);
    while read + refused < sent {
        match peer.frame().expect("the runner went away") {
            FromRunner::Reply(_, Reply::Tokens(_)) => read += 1,
            FromRunner::Reply(_, Reply::Failed(why)) if why.kind == FailureKind::Busy => {
                refused += 1
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(read >= 64, "{read}");
    assert_eq!(peer.generate(short(2, 3)).usage().completion_tokens, Tokens(3));
}

/// Who leaves while others' texts are read has nothing read.
#[test]
fn a_large_text_that_nobody_waits_for_is_not_read() {
    let mut peer = Peer::ready();
    let text = "The quick brown fox jumps over the lazy dog. ".repeat(90_000);
    let ids = [(); 2].map(|()| peer.order(tokenize(&text)));
    peer.send(&ToRunner::Cancel(ids[1]));
    assert!(matches!(peer.reply(ids[0]), Reply::Tokens(_)));
    let reply = peer.reply(ids[1]);
    assert!(matches!(&reply, Reply::Failed(why) if why.kind == FailureKind::Busy), "{reply:?}");
}

/// The end may come while a text is read, and is an end like any other.
#[test]
fn a_large_text_may_be_left_unread() {
    let mut peer = Peer::ready();
    peer.order(tokenize(&"The quick brown fox jumps over the lazy dog. ".repeat(300_000)));
    peer.order(tokenize("The quick brown fox."));
    while !matches!(peer.frame(), Some(FromRunner::Reply(_, Reply::Tokens(_)))) {}
    assert!(peer.hang_up().success());
}

#[test]
fn those_without_a_slot_wait_and_are_told_their_place() {
    let mut peer = parallel(2);
    let answers = peer.together((0..12).map(|n| short(n, 12)));
    answers.iter().for_each(|answer| answer.is_whole(12));
    let falls = |answer: &&Answer| answer.queued.is_sorted_by(|a, b| a > b);
    assert!(answers.iter().all(|answer| falls(&answer)));
    // Two have slots at once; ten are told that they wait, though the first of them perhaps not for long.
    let waited: Vec<&Answer> = answers.iter().filter(|answer| !answer.queued.is_empty()).collect();
    assert!(waited.len() >= 9, "{}", waited.len());
    let last = &answers[11].queued;
    // Two may be let in together, so it may never stand at 0.
    assert!(last.len() > 3 && last.last().is_some_and(|place| *place < 2), "{last:?}");
}

#[test]
fn a_person_goes_before_a_program() {
    let mut peer = parallel(1);
    let program = peer.begin(batch(short(1, 150)));
    peer.until(program, |event| matches!(event, Event::Piece(_)));
    let person = peer.begin(short(2, 5));
    let mut ends = Vec::new();
    while ends.len() < 2 {
        if let (id, Event::Finished(finished)) = peer.event() {
            ends.push((id, finished.usage.completion_tokens));
        }
    }
    // The program lost its slot and no token.
    assert_eq!(ends, [(person, Tokens(5)), (program, Tokens(150))]);
}

#[test]
fn what_gave_way_goes_on_where_it_was() {
    let mut peer = Peer::start(testkit::smollm2_f16());
    peer.load(LoadParams { context: Some(Tokens(512)), parallel: 1, ..LoadParams::default() })
        .unwrap();
    let want = peer.generate(Request { cache: false, ..short(1, 30) });
    let program = peer.begin(batch(short(1, 30)));
    let mut text = String::new();
    let mut persons = Vec::new();
    loop {
        match peer.event() {
            (id, Event::Piece(piece)) if id == program => {
                text += piece.text.expose();
                if persons.len() < 2 {
                    persons.push(peer.begin(short(2, 3)));
                }
            }
            (id, Event::Started(_)) if id == program => assert!(text.is_empty(), "started twice"),
            (id, Event::Finished(_)) if id == program => break,
            _ => {}
        }
    }
    assert_eq!(text, want.text);
}

#[test]
fn a_program_is_not_kept_waiting_for_ever() {
    let mut peer = parallel(1);
    let first = peer.begin(short(0, 40));
    let program = peer.begin(batch(short(1, 2)));
    let persons: Vec<RequestId> = (2..47).map(|n| peer.begin(short(n, 1))).collect();
    let mut ends = Vec::new();
    while ends.len() < 47 {
        if let (id, Event::Finished(_)) = peer.event() {
            ends.push(id);
        }
    }
    assert!(ends.contains(&first) && persons.iter().all(|id| ends.contains(id)));
    // Eight persons go before it. With a single slot it then gives way three times more, to eight each.
    let before = ends.iter().position(|id| *id == program).unwrap();
    assert!(before <= 1 + 4 * 8, "{before} went before it");
}

#[test]
fn owners_take_turns() {
    let mut peer = parallel(1);
    let of = |owner: &str, seed| Request { owner: Owner(owner.to_owned()), ..short(seed, 4) };
    let blocker = peer.begin(short(0, 30));
    let many: Vec<RequestId> = (1..11).map(|n| peer.begin(of("many", n))).collect();
    let one = peer.begin(of("one", 20));
    let mut ends = Vec::new();
    while ends.len() < 12 {
        if let (id, Event::Finished(_)) = peer.event() {
            ends.push(id);
        }
    }
    let place = |id| ends.iter().position(|end| *end == id).unwrap();
    assert_eq!(place(blocker), 0);
    assert!(place(one) < place(many[3]), "{}", place(one));
}

#[test]
fn two_hundred_that_are_cancelled_at_random_leave_nothing_behind() {
    let mut peer = parallel(4);
    let mut random = Random(7);
    let mut open = Vec::new();
    for seed in 0..200 {
        let request = short(seed % 50, 1 + random.below(30));
        let class = if random.below(4) == 0 { Class::Batch } else { Class::Interactive };
        open.push(peer.begin(Request { class, cache: random.below(3) > 0, ..request }));
        while random.below(2) == 0 && !open.is_empty() {
            let at = random.below(u32::try_from(open.len()).unwrap());
            let id = open.swap_remove(usize::try_from(at).unwrap());
            peer.send(&ToRunner::Cancel(id));
        }
    }
    for id in open {
        peer.send(&ToRunner::Cancel(id));
    }
    // Each ends exactly once.
    let mut ended = HashSet::new();
    while ended.len() < 200 {
        match peer.frame().expect("the runner went away") {
            FromRunner::Reply(id, Reply::Event(Event::Finished(_)) | Reply::Failed(_)) => {
                assert!(ended.insert(id), "ended twice");
            }
            FromRunner::Reply(id, _) => assert!(!ended.contains(&id), "an event after the end"),
            other => panic!("unexpected: {other:?}"),
        }
    }
    // All slots are free, and so is the whole cache.
    for answer in peer.together((0..4).map(|n| short(n, 10))) {
        answer.is_whole(10);
        assert_eq!(answer.queued, <[u32; 0]>::default());
    }
    peer.generate(going_on(some_tokens(1, 500), 12)).is_whole(12);
}

#[test]
fn a_prompt_is_cancelled_while_others_are_read() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(1024)),
        ubatch: Tokens(64),
        ..LoadParams::default()
    });
    let ids: Vec<RequestId> =
        (0..3).map(|n| peer.begin(going_on(some_tokens(n, 500), 5))).collect();
    peer.until(ids[1], |event| matches!(event, Event::Started(_)));
    peer.send(&ToRunner::Cancel(ids[1]));
    let mut ends = Vec::new();
    while ends.len() < 3 {
        if let (id, Event::Finished(finished)) = peer.event() {
            ends.push((id, finished.reason, finished.usage.completion_tokens));
        }
    }
    assert_eq!(ends[0], (ids[1], FinishReason::Cancelled, Tokens(0)));
    for id in [ids[0], ids[2]] {
        assert!(ends.contains(&(id, FinishReason::MaxTokens, Tokens(5))));
    }
}

#[test]
fn a_deadline_ends_what_runs_and_what_waits() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(8192)),
        parallel: 1,
        ..LoadParams::default()
    });
    let within =
        |millis, request| Request { deadline: Some(Duration::from_millis(millis)), ..request };
    // At a thousand tokens a second it would take eight.
    let running = peer.begin(within(300, short(1, 8000)));
    let waiting = peer.begin(within(100, short(2, 5)));
    let answers = peer.all(&[running, waiting]);
    assert!(answers.iter().all(|answer| answer.finished.reason == FinishReason::Deadline));
    assert!(answers[0].usage().completion_tokens > Tokens(0));
    assert_eq!(answers[1].usage().completion_tokens, Tokens(0));
    let reading = peer.generate(within(50, going_on(some_tokens(3, 8000), 5)));
    assert_eq!(reading.finished.reason, FinishReason::Deadline);
    assert_eq!(reading.usage().completion_tokens, Tokens(0));
    // A deadline that is far away is none.
    peer.generate(within(600_000, short(4, 5))).is_whole(5);
}

#[test]
fn a_long_prompt_does_not_stop_a_running_answer() {
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(2048)),
        ubatch: Tokens(64),
        ..LoadParams::default()
    });
    let stream = peer.begin(short(1, 600));
    peer.until(stream, |event| matches!(event, Event::Piece(_)));
    let long = peer.begin(going_on(some_tokens(2, 1300), 2));
    peer.until(long, |event| matches!(event, Event::Started(_)));
    let mut pieces = 0;
    loop {
        match peer.event() {
            (id, Event::Piece(_)) if id == stream => pieces += 1,
            (id, Event::Piece(_)) if id == long => break,
            (id, _) if id == stream => panic!("the stream ended before the prompt was read"),
            _ => {}
        }
    }
    // A step holds at most 64 tokens, one of them the stream's: 1300 take 20 steps at least. Some tokens
    // are no whole character and come with the next.
    assert!(pieces >= 15, "{pieces} pieces");
    peer.send(&ToRunner::Cancel(stream));
    peer.until(stream, |event| matches!(event, Event::Finished(_)));
}

#[test]
fn one_prompt_asked_by_many_is_computed_once() {
    let mut peer = Peer::ready();
    let answers = peer.together((0..6).map(|_| going_on(some_tokens(1, 300), 6)));
    answers.iter().for_each(|answer| answer.is_whole(6));
    let computed: u32 = answers.iter().map(|answer| 300 - answer.cached()).sum();
    // The first computes all of it, each of the others its last token.
    assert_eq!(computed, 300 + 5);
}

#[test]
fn guesses_of_many_that_fill_the_cache_do_not_choke_it() {
    // All repeat themselves, so that all guess, and together they need more than there is.
    let mut peer = Peer::ready_with(LoadParams {
        context: Some(Tokens(256)),
        kv_tokens: Some(Tokens(256)),
        parallel: 3,
        ..LoadParams::default()
    });
    let requests = (0..3).map(|n| going_on(some_tokens(n, 6).repeat(8), 100));
    for answer in peer.together(requests) {
        answer.is_whole(100);
    }
}

#[test]
fn a_required_call_comes_as_a_call() {
    for choice in [ToolChoice::Named("weather".to_owned()), ToolChoice::Required] {
        calls_the_weather(choice, None);
    }
}

#[test]
fn a_required_call_need_not_keep_to_the_rule_of_the_text() {
    let schema = r#"{"type":"object","properties":{"mood":{"type":"string"}},"required":["mood"]}"#;
    for choice in [ToolChoice::Named("weather".to_owned()), ToolChoice::Required] {
        calls_the_weather(choice, Some(Constraint::JsonSchema(schema.to_owned())));
    }
}

/// The answer is calls of the only tool there is.
#[track_caller]
fn calls_the_weather(tool_choice: ToolChoice, constraint: Option<Constraint>) {
    let mut peer = Peer::ready();
    let most = if tool_choice == ToolChoice::Required { 8 } else { 1 };
    let mut request = question("What is the weather in Bern?");
    request.max_tokens = Some(Tokens(400));
    request.tool_choice = tool_choice;
    request.constraint = constraint;
    request.tools = vec![Tool {
        name: "weather".to_owned(),
        description: "Tells the weather".to_owned(),
        parameters: r#"{"type":"object","properties":{"city":{"type":"string","enum":["Bern","Rome"]}},"required":["city"],"additionalProperties":false}"#
            .to_owned(),
    }];
    let id = peer.order(Work::Generate(Box::new(request)));
    let (mut names, mut arguments, mut ends) = (Vec::new(), String::new(), 0);
    loop {
        match peer.reply(id) {
            Reply::Event(Event::ToolCall(ToolCallStep::Begin { name, .. })) => names.push(name),
            Reply::Event(Event::ToolCall(ToolCallStep::Arguments { text, .. })) => {
                arguments += text.expose();
            }
            Reply::Event(Event::ToolCall(ToolCallStep::End { .. })) => ends += 1,
            Reply::Event(Event::Finished(end)) => {
                assert_eq!(end.reason, FinishReason::ToolCalls);
                break;
            }
            Reply::Event(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(names.iter().all(|name| name == "weather"), "{names:?}");
    assert!((1..=most).contains(&names.len()) && ends == names.len(), "{ends}: {names:?}");
    assert!(["Bern", "Rome"].iter().any(|city| arguments.contains(city)), "{arguments}");
}
