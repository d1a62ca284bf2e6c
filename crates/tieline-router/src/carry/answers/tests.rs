use futures_util::StreamExt;
use testkit::flaky::{Flaky, Script};
use testkit::scripted::{Step, finished, piece, started, text};
use tieline_types::{Backend, ErrorKind, Message, Owner, Picture, PictureSource, Tool, Zone};

use super::*;

fn answers(limits: AnswersLimits) -> Arc<Answers> {
    Arc::new(Answers::new([7; 32], limits))
}

fn request() -> Request {
    Request { sampling: Sampling::greedy(), ..Request::new(Prompt::Text("CANARY".into())) }
}

fn name(answers: &Answers, change: impl FnOnce(&mut Request)) -> Option<Name> {
    let mut request = request();
    change(&mut request);
    answers.name("m", DataClass::Internal, &request)
}

fn origin() -> Origin {
    Origin { by: "m".to_owned(), cost: Some(MicroUsd(7)), source: Source::Reported }
}

async fn keep(answers: &Arc<Answers>, name: Name, steps: Vec<Step>) {
    let backend = Flaky::new("one", Zone::Host, [Script::answers(steps)]);
    let stream = backend.run(request()).await.unwrap();
    answers.keep(name, stream, || Some(origin())).count().await;
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[tokio::test(start_paused = true)]
async fn the_same_request_has_the_same_answer_for_a_while() {
    let answers = answers(AnswersLimits::default());
    let same = name(&answers, |_| {}).unwrap();
    assert!(answers.find(same, now()).is_none());
    keep(&answers, same, text(&["a", "b"])).await;
    let found = answers.find(same, now()).unwrap();
    assert_eq!(found.origin, origin());
    let events: Vec<_> = found.stream.map(Result::unwrap).collect().await;
    let [Event::Started(_), Event::Piece(a), Event::Piece(b), Event::Finished(end)] =
        events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((a.text.expose(), b.text.expose()), ("a", "b"));
    assert_eq!((end.usage, end.usage.completion_tokens.0), (found.usage, 2));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert!(answers.find(same, now()).is_none());
    assert_eq!(answers.size(), (0, 0));
}

#[test]
fn whatever_changes_an_answer_changes_its_name() {
    let answers = answers(AnswersLimits::default());
    let same = name(&answers, |_| {});
    assert_eq!(same, name(&answers, |request| request.deadline = Some(Duration::from_secs(1))));
    let others = [
        name(&answers, |request| request.owner = Owner("o".to_owned())),
        name(&answers, |request| request.prompt = Prompt::Text("other".into())),
        name(&answers, |request| request.sampling.seed = Some(1)),
        name(&answers, |request| request.stop = vec!["x".to_owned()]),
        name(&answers, |request| request.thinking = Some(true)),
        name(&answers, |request| request.constraint = Some(Constraint::JsonObject)),
        answers.name("other", DataClass::Internal, &request()),
        answers.name("m", DataClass::Private, &request()),
        Answers::new([8; 32], AnswersLimits::default()).name("m", DataClass::Internal, &request()),
    ];
    for other in others {
        assert!(other.is_some() && other != same);
    }
    assert!(!format!("{same:?} {answers:?}").contains("CANARY"));
}

#[test]
fn what_may_differ_the_next_time_has_no_name() {
    let answers = answers(AnswersLimits::default());
    let tool = Tool { name: "f".to_owned(), description: String::new(), parameters: String::new() };
    let result = Message::new(Role::Tool, "x");
    assert!(name(&answers, |request| request.sampling.temperature = 0.1).is_none());
    assert!(name(&answers, |request| request.tools = vec![tool]).is_none());
    assert!(name(&answers, |request| request.prompt = Prompt::Chat(vec![result])).is_none());
    assert!(name(&answers, |request| request.cache = false).is_none());
    // Its bytes are no part of the text that a name is made of.
    let source = PictureSource::Link("https://a.example/1.png".into());
    let mut seen = Message::new(Role::User, "What is this?");
    seen.pictures = vec![Picture { source, at: 0, detail: None }];
    assert!(name(&answers, |request| request.prompt = Prompt::Chat(vec![seen])).is_none());
    assert!(name(&answers, |request| request.deterministic = true).is_none());
    assert!(name(&answers, |request| request.ignore_eog = true).is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_whole_is_not_kept() {
    let warning = || Step::Say(Event::Warning("escalated".to_owned()));
    let end = || finished(FinishReason::EndOfTurn, 1);
    for steps in [
        vec![started(), piece("a"), Step::Fail(ErrorKind::Upstream, "it broke")],
        vec![started(), piece("a"), finished(FinishReason::Filtered, 1)],
        vec![started(), piece("a"), finished(FinishReason::Cancelled, 1)],
        vec![started(), piece("a"), finished(FinishReason::MaxTokens, 1)],
        vec![started(), piece("a"), finished(FinishReason::Deadline, 1)],
        vec![started(), warning(), piece("a"), end()],
        vec![started(), piece(&"a".repeat(300 << 10)), end()],
    ] {
        let answers = answers(AnswersLimits::default());
        let same = name(&answers, |_| {}).unwrap();
        keep(&answers, same, steps).await;
        assert!(answers.find(same, now()).is_none());
        // Whoever leaves before the end keeps nothing either.
        let backend = Flaky::new("one", Zone::Host, [Script::answers(text(&["a"]))]);
        let stream = backend.run(request()).await.unwrap();
        answers.keep(same, stream, || Some(origin())).next().await.unwrap().unwrap();
        let backend = Flaky::new("one", Zone::Host, [Script::answers(text(&["a"]))]);
        let stream = backend.run(request()).await.unwrap();
        answers.keep(same, stream, || None).count().await;
        assert_eq!(answers.size(), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_least_used_one_makes_room() {
    let limits = AnswersLimits { bytes: 5000, one: 2500, ..AnswersLimits::default() };
    let answers = answers(limits);
    let names: Vec<_> = (0..20)
        .map(|seed| name(&answers, |request| request.sampling.seed = Some(seed)).unwrap())
        .collect();
    for &one in &names {
        keep(&answers, one, text(&["a"])).await;
        assert!(answers.find(names[0], now()).is_some(), "the one in use stays");
        assert!(answers.size().1 <= limits.bytes);
    }
    assert!(answers.find(names[1], now()).is_none());
    assert!(answers.find(names[19], now()).is_some());
    answers.clear();
    assert_eq!(answers.size(), (0, 0));
}
