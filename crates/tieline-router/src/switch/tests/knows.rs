//! What is asked of what is known.

use std::time::Duration;

use tieline_store::profiles::Bench;
use tieline_types::{
    Constraint, Digest, HostStatus, Picture, PictureKind, PictureSource, Tool, ToolChoice,
};

use super::*;
use crate::carry::{Attempt, Ended};
use crate::choose::{OutputForecast, explain};
use crate::quality::task::lines;
use crate::switch::memory::{Like, Memory, session_of};

const HELD_OUT: &str = include_str!("../../../testdata/tasks-held-out.tsv");

fn attempt(name: &str, decode_tps: u32) -> Attempt {
    Attempt {
        name: name.to_owned(),
        seat: 0,
        zone: Zone::Host,
        ended: Ended::Answered,
        error: None,
        first_token: Some(Duration::from_millis(1500)),
        total: Duration::from_secs(3),
        timing: Some(Timing {
            queue: Duration::from_millis(200),
            prefill: Duration::from_secs(1),
            decode: Duration::from_secs(1),
        }),
        usage: Usage {
            prompt_tokens: Tokens(600),
            cached_tokens: Tokens(100),
            completion_tokens: Tokens(decode_tps + 1),
            ..Usage::default()
        },
        usage_told: true,
        accepted: true,
    }
}

fn digest() -> Digest {
    Digest([7; 32])
}

/// Sees it in memory, as a decision does, and answers so often.
fn answers(memory: &Memory, digest: Digest, count: usize, decode_tps: u32) {
    for _ in 0..count {
        memory.speeds().local("mock", digest, Some(Duration::from_secs(2)));
        memory.learn(&attempt("mock", decode_tps), None, 5);
    }
}

fn figures(memory: &Memory, digest: Digest, bench: Option<(&Bench, bool)>) -> Figures {
    let mut speeds = memory.speeds();
    Figures::of(speeds.local("mock", digest, Some(Duration::from_secs(2))), bench)
}

#[test]
fn answers_count_once_there_are_some_and_until_then_what_was_measured_by_hand() {
    let bench = Bench {
        digest: digest(),
        build: String::new(),
        context: Tokens(512),
        prefill_tps: Some(1000.0),
        decode_tps: Some(10.0),
        load_s: None,
        first_token_s: None,
        joules_per_prompt_token: Some(0.01),
        joules_per_token: Some(0.5),
        samples: 5,
        at_unix_ms: 1,
    };
    let memory = Memory::default();
    let decode = |own: bool| figures(&memory, digest(), Some((&bench, own))).decode_tps.unwrap();
    let told = decode(true);
    assert_eq!((told.value, told.by, told.source), (10.0, "bench", Source::Measured));
    assert_eq!(decode(false).source, Source::Estimated, "another build's");
    answers(&memory, digest(), 2, 30);
    assert_eq!(decode(true).value, 10.0);
    answers(&memory, digest(), 1, 30);
    let told = decode(true);
    assert_eq!((told.value, told.by, told.samples), (30.0, "answers", Some(3)));
    let all = figures(&memory, digest(), None);
    // 500 fresh tokens in a second; of the 1.5 s until the first token 0.2 were the queue and one the reading.
    assert_eq!(all.prefill_tps.unwrap().value, 500.0);
    assert!((all.first_token_s.unwrap().value - 0.3).abs() < 1e-9);
    assert_eq!(all.load_s.unwrap().value, 2.0);
    // Another content under the same name is another model.
    assert_eq!(figures(&memory, Digest([8; 32]), None).decode_tps, None);
}

#[test]
fn what_was_learned_outlives_a_restart() {
    let memory = Memory::default();
    answers(&memory, digest(), 5, 30);
    memory.learn(&Attempt { timing: None, ..attempt("cloud/big", 30) }, Some(1000.0), 6);
    let like = Like::of("key", "auto", ("code", TaskHow::Guessed));
    (1..=10).for_each(|length| memory.wrote(like, Tokens(length), 7));
    let rows = memory.learned();
    assert!(memory.learned().is_empty(), "nothing new");
    let again = Memory::default();
    again.recall(&rows);
    let kept = |memory: &Memory| Figures { load_s: None, ..figures(memory, digest(), None) };
    assert_eq!(kept(&again), kept(&memory));
    // It had to be loaded again.
    assert_eq!(figures(&again, digest(), None).load_s.unwrap().samples, Some(2));
    let vendors = |memory: &Memory| Figures::of(memory.speeds().remote("cloud/big"), None);
    assert_eq!(vendors(&again), vendors(&memory));
    // 1.5 s until the first token, of which 500 fresh tokens took half a second as far as is believed.
    assert_eq!(vendors(&again).first_token_s.unwrap().value, 1.0);
    let forecast = OutputForecast { p50: Tokens(5), p90: Tokens(9) };
    assert_eq!(again.length(like), Some(forecast));
    // Other keys and tasks go by the name alone; other names by nothing.
    assert_eq!(again.length(Like { key: "other", task: "math", ..like }), Some(forecast));
    assert_eq!(again.length(Like { asked: "other", ..like }), None);
    // Rows that nobody wrote.
    let broken = rows.iter().map(|row| Learned { seen: "{".to_owned(), ..row.clone() });
    Memory::default().recall(&broken.collect::<Vec<_>>());
}

#[test]
fn few_answers_say_nothing_of_the_next_ones_length_and_odd_tasks_are_none() {
    let memory = Memory::default();
    let odd = Like::of("", "auto", ("CANARY", TaskHow::Declared));
    (0..7).for_each(|_| memory.wrote(odd, Tokens(3), 7));
    assert_eq!(memory.length(odd), None);
    memory.wrote(odd, Tokens(3), 7);
    assert_eq!(memory.length(odd).unwrap().p90, Tokens(3));
    assert!(!format!("{:?}", memory.learned()).contains("CANARY"));
    let own = Like::of("", "auto", ("sql", TaskHow::Alias));
    assert_eq!(own.task, "sql", "the policy's own word");
}

#[tokio::test]
async fn who_wrote_nothing_says_nothing_of_the_next_answers_length() {
    for (mute, want) in [(true, None), (false, Some(Tokens(8)))] {
        let router = router(&Arc::new(Vendor { mute, ..Vendor::default() }));
        for _ in 0..8 {
            answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap();
        }
        let like = Like { key: "", asked: "auto", task: "any" };
        let length = router.switch().shared.memory.length(like);
        assert_eq!(length.map(|length| length.p90), want);
    }
}

#[tokio::test]
async fn what_is_no_word_is_no_task_and_is_not_kept() {
    let router = router(&Arc::default());
    for (task, want) in [("CANARY of somebody", None), ("", None), ("math", Some("math"))] {
        let hints = Hints { task: Some(task.to_owned()), ..Hints::default() };
        let request = chat(&[(Role::User, "Hi")]);
        let routed = router.decide(Call { hints, ..call("auto") }, &request).await.unwrap();
        drop(routed.run(request).await.unwrap());
        let record = last(&router);
        assert_eq!(record.asked.as_ref().unwrap().task.as_deref(), want);
        assert!(!serde_json::to_string(&record).unwrap().contains("CANARY"));
    }
}

#[test]
fn another_picture_begins_another_conversation() {
    let about = |base64: &str| {
        let mut message = Message::new(Role::User, "What is this?");
        let source = PictureSource::Bytes { kind: PictureKind::Png, base64: base64.into() };
        message.pictures = vec![Picture { at: 0, source, detail: None }];
        session_of(&call("auto"), &Request::new(Prompt::Chat(vec![message])))
    };
    assert_eq!(about("AAAA"), about("AAAA"));
    assert_ne!(about("AAAA"), about("AAAB"));
}

async fn plan(router: &Router, request: &Request) -> Arc<Planned> {
    let setup = router.switch().current().unwrap();
    let planned = router.switch().plan(setup, router.host(), (&call("auto"), request)).await;
    Arc::new(planned.unwrap())
}

/// What a client sends in `tools` may name somebody: the task is kept, and not the name.
#[tokio::test]
async fn the_tools_that_may_be_called_say_what_the_task_is() {
    let mut own = setup(&Arc::default());
    let tasks = "[[task]]\nname = \"sql\"\ntool = [\"*_query\"]\n";
    own.policy = Policy::parse(&format!("{POLICY}{tasks}")).unwrap();
    let router = router(&Arc::default());
    router.switch().replace(own);
    let tool = |name: &str| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: String::new(),
    };
    let offered = Request {
        tools: vec![tool("search"), tool("canary_query")],
        ..chat(&[(Role::User, "Summarise this text: the tree is green.")])
    };
    let planned = plan(&router, &offered).await;
    let decision = planned.decision();
    assert_eq!((decision.task.as_str(), decision.task_how), ("sql", TaskHow::Tool));
    assert_eq!(planned.asked().guess, None, "nobody has to guess");
    assert!(!serde_json::to_string(planned.asked()).unwrap().contains("canary"));
    // What the model may not call says nothing.
    for choice in [ToolChoice::None, ToolChoice::Named("search".to_owned())] {
        let request = Request { tool_choice: choice, ..offered.clone() };
        let planned = plan(&router, &request).await;
        assert_eq!(planned.decision().task_how, TaskHow::Guessed);
    }
    let choice = ToolChoice::Named("canary_query".to_owned());
    let planned = plan(&router, &Request { tool_choice: choice, ..offered }).await;
    assert_eq!(planned.decision().task, "sql");
}

#[tokio::test]
async fn the_task_is_guessed_by_what_the_user_said_last_and_the_plan_says_how_sure() {
    let router = router(&Arc::default());
    let talk = [
        (Role::User, "Translate 'tree' to German"),
        (Role::Assistant, "Baum"),
        (Role::User, "Summarise this text in two sentences: the tree is green."),
    ];
    let planned = plan(&router, &chat(&talk)).await;
    let decision = planned.decision();
    assert_eq!((decision.task.as_str(), decision.task_how), ("summarise", TaskHow::Guessed));
    assert_eq!(decision.task_sure, Some(0.9));
    assert!(explain(decision).contains("task summarise: it looks so, 0.90 sure"));
    // What is declared is no guess.
    let declared = Hints { task: Some("math".to_owned()), ..Hints::default() };
    let asked = Call { hints: declared, ..call("auto") };
    let setup = router.switch().current().unwrap();
    let planned = router.switch().plan(setup, router.host(), (&asked, &chat(&talk))).await.unwrap();
    assert_eq!(planned.asked().guess, None);
    assert_eq!(planned.decision().task_sure, None);
    // Tokens say nothing, and a text that is long is looked at at its beginning alone.
    let tokens = Request::new(Prompt::Tokens(vec![1, 2]));
    assert_eq!(crate::switch::facts::guess(&tokens, None), None);
    let long = format!("{}ü{}", "a ".repeat(1023) + "b", "x".repeat(1 << 20));
    crate::switch::facts::guess(&chat(&[(Role::User, &long)]), None);
    let schema = Request {
        constraint: Some(Constraint::JsonSchema("{}".into())),
        ..chat(&[(Role::User, "")])
    };
    assert_eq!(crate::switch::facts::guess(&schema, None).unwrap().task, "extract");
}

#[tokio::test]
async fn a_conversation_is_remembered_by_who_answered_it_as_long_as_that_is_likely() {
    let vendor = Arc::new(Vendor { away: true, ..Vendor::default() });
    let router = router(&vendor);
    let talk = [(Role::System, "Be brief."), (Role::User, "What is the time?")];
    let planned = plan(&router, &chat(&talk)).await;
    let facts = |planned: &Planned| {
        let score = planned.decision().scores.iter().find(|one| one.name == "mock").unwrap();
        score.forecast.cached_tokens
    };
    assert_eq!(facts(&planned), Tokens(0));
    // The vendor is away, so that this machine answers.
    answer(&router, "auto", chat(&talk)).await.unwrap();
    let planned = plan(&router, &chat(&talk)).await;
    assert!(facts(&planned) > Tokens(0), "{:?}", planned.decision().scores);
    let other = [(Role::System, "Be wordy."), (Role::User, "What is the time?")];
    assert_eq!(facts(&*plan(&router, &chat(&other)).await), Tokens(0));
}

#[tokio::test]
async fn profiles_tell_figures_samples_and_where_they_are_from() {
    let router = router(&Arc::default());
    for _ in 0..4 {
        answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap();
    }
    let all = router.switch().profiles(router.host()).await.unwrap();
    let of = |name: &str| all.iter().find(|one| one.name == name).unwrap();
    let big = of("cloud/big");
    let told = big.figures.first_token_s.unwrap();
    assert_eq!((told.by, told.samples), ("answers", Some(4)));
    assert!(told.at_unix_ms.is_some());
    let said = big.figures.prefill_tps.unwrap();
    assert_eq!((said.by, said.source, said.samples), ("policy", Source::Reported, None));
    assert_eq!((of("mock").local, of("mock").loaded), (true, Some(true)));
    assert_eq!(of("mock").quality["any"].mean, 0.2);
}

#[tokio::test]
async fn what_has_no_room_and_what_misbehaved_may_not_answer() {
    let vendor = Arc::new(Vendor::default());
    let cards = router(&vendor).host().models().await.unwrap();
    let digest = cards[0].digest;
    let setup = setup(&vendor);
    let reason = |known: &Known, status: &HostStatus| {
        let ground = Ground { status, policy: &setup.policy, known, talk: None, silent: false };
        let all = facts::local(&cards, &ground, &mut Memory::default().speeds());
        let (candidate, _) = &all[0];
        (candidate.state.memory_fits, candidate.state.quarantined)
    };
    let empty = HostStatus::default();
    assert_eq!(reason(&Known::default(), &empty), (None, false));
    let unfit = HostStatus { unfit: vec![digest], ..HostStatus::default() };
    assert_eq!(reason(&Known::default(), &unfit), (Some(false), false));
    let small = HostStatus { budget: tieline_types::Bytes(1), ..HostStatus::default() };
    assert_eq!(reason(&Known::default(), &small), (Some(false), false));
    let folder = tempfile::tempdir().unwrap();
    let store = tieline_store::Store::open(folder.path()).unwrap();
    let why = tieline_store::Quarantine { digest, reason: "it died".to_owned(), since_unix_s: 3 };
    store.quarantine(&why).unwrap();
    let known = Known::read(&store, 4).unwrap();
    assert_eq!(reason(&known, &empty), (None, true));
}

#[tokio::test]
async fn more_before_it_never_means_a_shorter_wait() {
    let router = router(&Arc::default());
    let mut residence = router.host().status().await.unwrap().models.remove(0);
    let places = usize::try_from(residence.served.as_ref().unwrap().loaded.parallel).unwrap();
    let mut wait = |busy: usize, waiting: usize| {
        (residence.busy, residence.waiting) = (busy, waiting);
        facts::queue_ms(&residence, None)
    };
    for (busy, waiting) in (0..400).map(|number| (number / 20, number % 20)) {
        let now = wait(busy, waiting);
        assert_eq!(now == 0, busy + waiting < places.max(1), "{busy} {waiting}");
        assert!(wait(busy + 1, waiting) >= now && wait(busy, waiting + 1) >= now);
    }
    // As long as an answer takes where one place is left for two.
    assert_eq!(wait(places, 0), 15_000 / u32::try_from(places.max(1)).unwrap());
}

/// Three models, each the best at something.
const THREE: &str = r#"
[backends.lab]
protocol = "openai"
url = "http://10.0.0.2:4000/v1"
zone = "lan"
models.coder = { quality = { any = 0.5, code = 0.9, math = 0.8 }, price = { input = 0, output = 0 } }
models.writer = { quality = { any = 0.5, translate = 0.9, summarise = 0.9, rewrite = 0.9 }, price = { input = 0, output = 0 } }
models.all = { quality = { any = 0.6 }, price = { input = 0, output = 0 } }
[[rule]]
name = "all"
class = "any"
zone = "lan"
as = "as-is"
"#;

/// One typo: two neighbours exchanged, one character dropped, or one said twice.
fn typo(prompt: &str, at: usize, kind: usize) -> String {
    let mut characters: Vec<char> = prompt.chars().collect();
    let at = at % (characters.len() - 1);
    match kind % 3 {
        0 => characters.swap(at, at + 1),
        1 => drop(characters.remove(at)),
        _ => characters.insert(at, characters[at]),
    }
    characters.into_iter().collect()
}

#[test]
fn a_typo_rarely_changes_who_answers() {
    let policy = Policy::parse(THREE).unwrap();
    let candidates = policy.remote_candidates();
    let first = |prompt: &str| {
        let guess = facts::guess(&chat(&[(Role::User, prompt)]), None);
        let asked = Asked { asked: "auto".to_owned(), guess, ..Asked::default() };
        decide(&policy, &asked, &candidates).tries[0].name.clone()
    };
    let (mut tried, mut flips) = (0, 0);
    let mut chosen = std::collections::BTreeSet::new();
    for (number, line) in lines(HELD_OUT).iter().enumerate() {
        let before = first(line.prompt);
        for kind in 0..20 {
            flips += usize::from(first(&typo(line.prompt, 7 * kind + 3 * number, kind)) != before);
            tried += 1;
        }
        chosen.insert(before);
    }
    assert_eq!((tried, chosen.len()), (2000, 3), "{chosen:?}");
    // 129 of 2000 in PROMISES.md.
    assert!(flips <= 140, "{flips} of {tried}");
}
