//! A draft model guesses: the answers stay the same, whatever it guesses and whatever happens meanwhile.
//!
//! The target has 16-bit floats as weights, so that texts can be compared; the draft model has the same weights in
//! 4 bits, so that its guesses are mostly right. It is no faster, so nothing is said of time here: requests ask
//! for guesses always.
//!
//! With such weights a batch of another shape moves a log-probability by some thousandths: activations are rounded
//! to 16 bits, the KV cache too. Texts are the same token for token up to a tie: where they part, what was chosen
//! was as likely as what was not, and from there on they are two answers.

use std::path::Path;

use tieline_types::wire::{Failure, FailureKind, FromRunner, Reply, ToRunner, Work};
use tieline_types::{
    Bytes, Class, Constraint, Digest, Event, FinishReason, LoadParams, MemoryUse, Message, Pooling,
    Prompt, Request, RequestId, Role, Sampling, Speculation, Tokens, Tool, ToolCallStep,
    ToolChoice,
};

use crate::peer::{Answer, Peer, Random, exact, going_on, keeping, question, some_tokens};

/// The draft model's name in these tests.
const DRAFT: Digest = Digest([2; 32]);

fn params() -> LoadParams {
    LoadParams { model: Some(Digest([1; 32])), draft: Some(DRAFT), ..exact() }
}

/// A runner with a draft model.
fn drafting() -> Peer {
    drafting_with(params())
}

fn drafting_with(params: LoadParams) -> Peer {
    let mut peer = Peer::start_drafting(testkit::smollm2_f16(), None, Some(testkit::smollm2()));
    peer.load(params).unwrap();
    peer
}

/// What both models take is planned as it is loaded.
#[test]
fn a_draft_model_is_in_the_plan() {
    let start = || Peer::start_drafting(testkit::smollm2_f16(), None, Some(testkit::smollm2()));
    let params = LoadParams { threads: Some(1), copies: Bytes(0), ..params() };
    let mut planner = start();
    planner.send(&ToRunner::Plan(Box::new(params.clone())));
    let Some(FromRunner::Planned(Ok(plan))) = planner.frame() else { panic!("no plan") };
    let loaded = start().load(params.clone()).unwrap();
    let parts = |memory: &MemoryUse| {
        let draft = memory.draft.as_deref().unwrap();
        [memory, draft]
            .map(|one| (one.sum(|part| part.kv), one.sum(|part| part.compute), one.output))
    };
    assert_eq!(parts(&plan.memory), parts(&loaded.memory));
    // 98 MB of weights at least, and a cache that is as long as the target's.
    let draft = plan.memory.draft.as_ref().unwrap();
    assert!(draft.on(None) > Bytes(98_000_000));
    // It tells one token of an answer at a time, where the target scores prompts.
    assert!(draft.output.0 * 2 < plan.memory.output.0, "{draft:?}");
    // The next plan of the same runner may be without, and is as if it had never been.
    planner.send(&ToRunner::Plan(Box::new(LoadParams { draft: None, ..params })));
    let Some(FromRunner::Planned(Ok(alone))) = planner.frame() else { panic!("no plan") };
    assert_eq!(alone.memory, MemoryUse { draft: None, ..plan.memory });
}

#[test]
fn what_cannot_guess_is_refused_by_a_plan_too() {
    let mut planner = Peer::start_drafting(testkit::smollm2_f16(), None, Some(testkit::minilm()));
    planner.send(&ToRunner::Plan(Box::new(params())));
    let Some(FromRunner::Planned(Err(failure))) = planner.frame() else { panic!("planned") };
    assert!(failure.message.contains("draft model"), "{}", failure.message);
}

/// Guessed ahead by whoever can.
fn guessed(request: &Request) -> Request {
    Request { speculation: Speculation::Always, ..request.clone() }
}

/// Computed alone from an empty cache, a token a step.
fn plain(request: &Request) -> Request {
    Request { cache: false, speculation: Speculation::Off, ..request.clone() }
}

fn questions() -> Vec<Request> {
    let texts = [
        "What is the capital of France?",
        "Why is the sky blue?",
        "Name three animals that live in the sea.",
        "Write a sentence about a dog.",
        "How do you boil an egg?",
        "What is two plus two?",
        "Describe a tree in winter.",
        "Who wrote Faust?",
    ];
    texts.map(asked).into()
}

/// A question whose answer tells how likely its tokens were.
fn asked(text: &str) -> Request {
    Request { logprobs: Some(1), ..question(text) }
}

/// A question with `numbers` numbers to read before it, others for another `seed`. The answer has none of them,
/// so that little of it is found in the prompt.
fn long(seed: u64, numbers: u32) -> Request {
    let mut random = Random(seed);
    let list: Vec<String> = (0..numbers).map(|_| (1000 + random.below(9000)).to_string()).collect();
    asked(&format!("Forget these: {}. Why is the sky blue?", list.join(" ")))
}

/// How much nearer to each other two log-probabilities cannot be told apart: three times the most that was seen, which is
/// 0.027 for one token of many answers at once, and 0.007 otherwise. That token moves with the batch: by 0.021 too with a
/// KV cache in 32-bit floats and without flash attention.
const TIE: f32 = 0.08;

/// The figures agree with each other.
#[track_caller]
fn is_sound(answer: &Answer) {
    let usage = answer.usage();
    assert!(usage.accepted_tokens <= usage.drafted_tokens, "{usage:?}");
    assert!(usage.model_accepted_tokens <= usage.model_drafted_tokens, "{usage:?}");
    assert!(usage.model_drafted_tokens <= usage.drafted_tokens, "{usage:?}");
    assert!(usage.model_accepted_tokens <= usage.accepted_tokens, "{usage:?}");
    assert!(usage.accepted_tokens < usage.completion_tokens, "{usage:?}");
}

/// The same answer, of whose tokens the draft model guessed some right.
#[track_caller]
fn is_same(answer: &Answer, want: &Answer) -> bool {
    is_sound(answer);
    assert!(answer.usage().model_accepted_tokens > Tokens(0), "{:?}", answer.usage());
    answer.is_equal(want, TIE)
}

#[test]
fn greedy_text_is_the_same_token_for_token() {
    let mut peer = drafting();
    let (mut drafted, mut accepted, mut whole) = (0, 0, 0);
    for request in questions() {
        let want = peer.generate(plain(&request));
        assert_eq!(want.usage().drafted_tokens, Tokens(0));
        let answer = peer.generate(guessed(&request));
        whole += u32::from(is_same(&answer, &want));
        drafted += answer.usage().model_drafted_tokens.0;
        accepted += answer.usage().model_accepted_tokens.0;
    }
    // The same weights, but for their rounding: eight guesses in a row, and most of them right.
    assert!(accepted * 2 > drafted, "{accepted} of {drafted}");
    // Ties are rare.
    assert!(whole >= 6, "{whole} of 8");
}

#[test]
fn guesses_are_checked_by_the_biased_logits() {
    let mut peer = drafting();
    let (mut accepted, mut whole) = (0, 0);
    for mut request in questions() {
        // What the draft model guesses too, since it knows of no bias.
        let forbidden = peer.generate(plain(&request)).logprobs[0].token;
        request.sampling.logit_bias = vec![(forbidden, -100.0)];
        let want = peer.generate(plain(&request));
        let answer = peer.generate(guessed(&request));
        assert!(answer.logprobs.iter().all(|entry| entry.token != forbidden));
        is_sound(&answer);
        whole += u32::from(answer.is_equal(&want, TIE));
        accepted += answer.usage().model_accepted_tokens.0;
    }
    assert!(accepted > 0 && whole >= 6, "{accepted} accepted, {whole} of 8 the same");
}

#[test]
fn a_seed_gives_the_same_text() {
    // Not always: a draw can fall where rounding decides. A rule that prefers what was guessed would change most.
    let mut peer = drafting();
    let mut same = 0;
    for seed in 0..16 {
        let sampling = Sampling { seed: Some(seed), temperature: 1.0, ..Sampling::default() };
        let request =
            Request { sampling, max_tokens: Some(Tokens(6)), ..question("Write a sentence.") };
        let answer = peer.generate(guessed(&request));
        is_sound(&answer);
        same += u32::from(answer.text == peer.generate(plain(&request)).text);
    }
    assert!(same >= 11, "{same} of 16");
}

#[test]
fn eight_at_once() {
    let mut peer = drafting();
    let want: Vec<Answer> =
        questions().iter().map(|request| peer.generate(plain(request))).collect();
    for cache in [false, true] {
        let requests = questions();
        let requests = requests.iter().map(|request| Request { cache, ..guessed(request) });
        let answers = peer.together(requests);
        for (answer, want) in answers.iter().zip(&want) {
            is_sound(answer);
            answer.is_equal(want, TIE);
        }
        // Who ends while others are still let in is guessed nothing for.
        let none = Tokens(0);
        let guessed = answers.iter().filter(|one| one.usage().model_accepted_tokens > none);
        assert!(guessed.count() >= 4);
    }
}

#[test]
fn where_it_pays_or_not_at_all() {
    let mut peer = drafting();
    for request in questions().into_iter().take(4) {
        let want = peer.generate(plain(&request));
        assert_eq!(want.usage().drafted_tokens, Tokens(0));
        // Whether it pays is a matter of the machine; the text is not.
        let answer = peer.generate(request);
        is_sound(&answer);
        answer.is_equal(&want, TIE);
    }
}

#[test]
fn what_was_said_before_is_guessed_from_it_and_not_by_the_model() {
    let mut peer = drafting();
    let repeated = going_on(some_tokens(1, 6).repeat(30), 60);
    let request = Request { logprobs: Some(1), ..repeated };
    let want = peer.generate(plain(&request));
    let answer = peer.generate(guessed(&request));
    is_sound(&answer);
    answer.is_equal(&want, TIE);
    let usage = answer.usage();
    assert!(usage.drafted_tokens > usage.model_drafted_tokens, "{usage:?}");
}

#[test]
fn a_long_prompt_is_read_in_pieces_beside_a_running_answer() {
    let mut peer = drafting();
    let (stream, long) = (questions().swap_remove(1), long(1, 100));
    let want = [peer.generate(plain(&stream)), peer.generate(plain(&long))];
    let answers = peer.together([guessed(&stream), guessed(&long)]);
    for (answer, want) in answers.iter().zip(&want) {
        is_same(answer, want);
    }
}

#[test]
fn what_it_has_read_serves_the_next_of_the_same_owner() {
    let mut peer = drafting();
    let request = long(3, 50);
    let want = peer.generate(plain(&request));
    for _ in 0..2 {
        let again = peer.generate(guessed(&request));
        is_same(&again, &want);
    }
    // What begins alike and goes on otherwise.
    let Prompt::Chat(messages) = &request.prompt else { panic!("no conversation") };
    let mut messages = messages.clone();
    messages.push(Message::new(Role::Assistant, "Animals are kind."));
    messages.push(Message::new(Role::User, "And what of plants?"));
    let other = Request { prompt: Prompt::Chat(messages), ..request };
    let want = peer.generate(plain(&other));
    let answer = peer.generate(guessed(&other));
    assert!(answer.cached() > 200, "{}", answer.cached());
    is_same(&answer, &want);
}

#[test]
fn the_cache_on_disk_is_the_targets_alone() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let (target, draft) = (testkit::smollm2_f16(), testkit::smollm2());
        let mut peer = Peer::start_drafting(target, Some(folder.path()), Some(draft));
        peer.load(keeping(params())).unwrap();
        peer
    };
    let request = guessed(&long(4, 50));
    let mut peer = start();
    let want = peer.generate(request.clone());
    assert_eq!(want.cached(), 0);
    peer.hang_up();
    let again = start().generate(request.clone());
    assert_eq!(again.cached(), again.usage().prompt_tokens.0 - 1);
    is_same(&again, &want);
    // Who has no draft model finds it too: it is the target's alone.
    let mut peer = Peer::with_cache(folder.path());
    let alone = peer.generate(Request { speculation: Speculation::Off, ..request });
    assert_eq!(alone.cached(), again.cached());
    alone.is_equal(&want, TIE);
}

#[test]
fn a_cancelled_answer_leaves_nothing_behind() {
    let mut peer = drafting();
    let request = asked("Why is the sky blue?");
    let want = peer.generate(plain(&request));
    for after in [1, 2, 7] {
        let endless =
            Request { max_tokens: Some(Tokens(900)), ignore_eog: true, ..request.clone() };
        let id = peer.begin(guessed(&endless));
        (0..after).for_each(|_| peer.until(id, |event| matches!(event, Event::Piece(_))));
        peer.send(&ToRunner::Cancel(id));
        let cut = peer.rest(id);
        assert_eq!(cut.finished.reason, FinishReason::Cancelled);
        is_same(&peer.generate(guessed(&request)), &want);
    }
    // In the middle of the draft model's reading, too, and beside others.
    let ids: Vec<RequestId> = (0..6).map(|n| peer.begin(guessed(&long(n, 50)))).collect();
    peer.until(ids[0], |event| matches!(event, Event::Piece(_)));
    ids[1..].iter().for_each(|id| peer.send(&ToRunner::Cancel(*id)));
    let mut open = ids.len();
    while open > 0 {
        if let (_, Event::Finished(_)) = peer.event() {
            open -= 1;
        }
    }
    is_same(&peer.generate(guessed(&request)), &want);
}

#[test]
fn many_that_give_way_and_are_cancelled_at_random() {
    let mut peer =
        drafting_with(LoadParams { parallel: 3, kv_tokens: Some(Tokens(1024)), ..params() });
    let mut random = Random(7);
    let (mut open, mut ends) = (Vec::new(), 0);
    for seed in 0..24 {
        let class = if random.below(3) == 0 { Class::Batch } else { Class::Interactive };
        let request = guessed(&going_on(some_tokens(seed % 5, 30), 1 + random.below(20)));
        open.push(peer.begin(Request { class, cache: random.below(3) > 0, ..request }));
        if random.below(3) == 0 {
            let at = random.below(u32::try_from(open.len()).unwrap());
            peer.send(&ToRunner::Cancel(open[usize::try_from(at).unwrap()]));
        }
    }
    while ends < 24 {
        match peer.event() {
            (_, Event::Finished(finished)) => {
                assert_ne!(finished.reason, FinishReason::ContextFull);
                ends += 1;
            }
            (id, _) => assert!(open.contains(&id)),
        }
    }
    let request = asked("Why is the sky blue?");
    is_same(&peer.generate(guessed(&request)), &peer.generate(plain(&request)));
}

#[test]
fn a_schema_is_kept_to() {
    let mut peer = drafting();
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":30},
        "age":{"type":"integer","minimum":0,"maximum":150},"city":{"type":"string","maxLength":30}},
        "required":["name","age","city"],"additionalProperties":false}"#;
    let request = Request {
        constraint: Some(Constraint::JsonSchema(schema.into())),
        max_tokens: Some(Tokens(120)),
        ..asked("Describe a person as JSON with name, age and city.")
    };
    let want = peer.generate(plain(&request));
    let answer = peer.generate(guessed(&request));
    is_same(&answer, &want);
    assert_eq!(answer.finished.reason, FinishReason::EndOfTurn, "{}", answer.text);
}

#[test]
fn a_required_call_comes_as_a_call() {
    let mut peer = drafting();
    let mut request = guessed(&question("What is the weather in Bern?"));
    request.max_tokens = Some(Tokens(200));
    request.tool_choice = ToolChoice::Named("weather".to_owned());
    request.tools = vec![Tool {
        name: "weather".to_owned(),
        description: "Tells the weather".to_owned(),
        parameters: r#"{"type":"object","properties":{"city":{"enum":["Bern","Rome"]}},"required":["city"]}"#
            .to_owned(),
    }];
    let id = peer.order(Work::Generate(Box::new(request)));
    let mut arguments = String::new();
    loop {
        match peer.reply(id) {
            Reply::Event(Event::ToolCall(ToolCallStep::Arguments { text, .. })) => {
                arguments += text.expose();
            }
            Reply::Event(Event::Finished(end)) => {
                assert_eq!(end.reason, FinishReason::ToolCalls);
                break;
            }
            Reply::Event(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert!(["Bern", "Rome"].iter().any(|city| arguments.contains(city)), "{arguments}");
}

#[test]
fn a_deterministic_answer_has_no_guesses() {
    let request = Request {
        deterministic: true,
        sampling: Sampling { seed: Some(1), ..Sampling::greedy() },
        ..guessed(&going_on(some_tokens(1, 100), 20))
    };
    let mut alone = Peer::start(testkit::smollm2_f16());
    alone.load(LoadParams { draft: None, ..params() }).unwrap();
    let want = alone.generate(request.clone());
    let mut peer = drafting();
    peer.generate(guessed(&going_on(some_tokens(1, 100), 20)));
    let answer = peer.generate(request);
    assert_eq!(answer.usage().drafted_tokens, Tokens(0));
    let receipt = answer.finished.receipt.as_ref().unwrap();
    assert_eq!(receipt.params.draft, None);
    assert_eq!(answer.finished.receipt, want.finished.receipt);
}

#[test]
fn a_small_cache_is_shared_without_choking() {
    let mut peer = drafting_with(LoadParams {
        context: Some(Tokens(256)),
        kv_tokens: Some(Tokens(256)),
        parallel: 3,
        ..params()
    });
    let more = |request| Request { max_tokens: Some(Tokens(100)), ignore_eog: true, ..request };
    let requests: Vec<Request> = questions().into_iter().take(3).map(more).collect();
    let want: Vec<Answer> = requests.iter().map(|request| peer.generate(plain(request))).collect();
    for (answer, want) in peer.together(requests.iter().map(guessed)).iter().zip(&want) {
        is_sound(answer);
        // In place of an end come unlikely tokens, whose logarithms differ more.
        answer.is_equal(want, 2.0 * TIE);
    }
    // Up to the very end of the context.
    let full = peer.generate(guessed(&Request { max_tokens: None, ..requests[0].clone() }));
    assert_eq!(full.finished.reason, FinishReason::ContextFull);
    is_sound(&full);
}

/// A copy of the draft model with other bytes where `from` stands first.
fn changed(from: &[u8], to: &[u8]) -> tempfile::NamedTempFile {
    let mut bytes = std::fs::read(testkit::smollm2()).unwrap();
    let at = bytes.windows(from.len()).position(|window| window == from).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    file
}

/// A key of the file's metadata with the number that stands behind it, a `u32`, as the bytes that it is.
fn numbered(key: &str, number: u32) -> Vec<u8> {
    [key.as_bytes(), &4u32.to_le_bytes(), &number.to_le_bytes()].concat()
}

fn refused(draft: Option<&Path>, params: LoadParams) -> Failure {
    Peer::start_drafting(testkit::smollm2_f16(), None, draft).load(params).unwrap_err()
}

#[track_caller]
fn check_refused(failure: &Failure, kind: FailureKind, says: &[&str]) {
    assert_eq!(failure.kind, kind, "{failure:?}");
    for text in says {
        assert!(failure.message.contains(text), "{} lacks {text}", failure.message);
    }
}

#[test]
fn a_stranger_is_refused_with_both_names_and_the_difference() {
    let word = changed("\u{120}the".as_bytes(), "\u{120}tQZ".as_bytes());
    let failure = refused(Some(word.path()), params());
    let names = ["02020202", "01010101", "F16", "Q4_1"];
    check_refused(&failure, FailureKind::InvalidRequest, &names);
    check_refused(
        &failure,
        FailureKind::InvalidRequest,
        &["token ", "\"\u{120}tQZ", "\"\u{120}the"],
    );
    assert!(failure.hint.is_some());
}

#[test]
fn one_that_marks_texts_otherwise_is_refused() {
    let (key, adds) = ("tokenizer.ggml.add_bos_token", 7u32.to_le_bytes());
    let from = [key.as_bytes(), &adds, &[0]].concat();
    let bos = changed(&from, &[key.as_bytes(), &adds, &[1]].concat());
    let failure = refused(Some(bos.path()), params());
    check_refused(&failure, FailureKind::InvalidRequest, &["BOS", "another vocabulary"]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let draft = Some(testkit::smollm2());
    let same = refused(draft, LoadParams { draft: Some(Digest([1; 32])), ..params() });
    check_refused(&same, FailureKind::InvalidRequest, &["the model itself"]);
    let embeddings = refused(draft, LoadParams { embeddings: Some(Pooling::Mean), ..params() });
    check_refused(&embeddings, FailureKind::InvalidRequest, &["embeddings"]);
    let missing = refused(None, params());
    check_refused(&missing, FailureKind::Internal, &["the draft model's file is not open"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), [7; 4096]).unwrap();
    let broken = refused(Some(file.path()), params());
    check_refused(&broken, FailureKind::BadModel, &["the draft model does not load"]);
}

#[test]
fn one_with_a_shorter_context_guesses_as_far_as_it_reaches() {
    let short =
        changed(&numbered("llama.context_length", 8192), &numbered("llama.context_length", 100));
    let mut peer = Peer::start_drafting(testkit::smollm2_f16(), None, Some(short.path()));
    peer.load(params()).unwrap();
    let asked = asked("Why is the sky blue?");
    let request = Request { max_tokens: Some(Tokens(120)), ignore_eog: true, ..asked };
    let want = peer.generate(plain(&request));
    let answer = peer.generate(guessed(&request));
    is_same(&answer, &want);
    answer.is_whole(120);
    let answer = peer.generate(guessed(&long(1, 30)));
    assert_eq!(answer.usage().model_drafted_tokens, Tokens(0));
    answer.is_equal(&peer.generate(plain(&long(1, 30))), TIE);
}

#[test]
fn an_open_file_that_nobody_asked_for_is_left_alone() {
    let mut peer = Peer::start_drafting(testkit::smollm2_f16(), None, Some(testkit::smollm2()));
    peer.load(LoadParams { draft: None, ..params() }).unwrap();
    let answer = peer.generate(guessed(&question("Why is the sky blue?")));
    assert_eq!(answer.usage().model_drafted_tokens, Tokens(0));
}
