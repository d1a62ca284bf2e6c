//! Whatever the backends do: one end, one candidate's text, and nothing left running.

use proptest::prelude::*;
use testkit::flaky::Script;

use super::*;

/// What a candidate does, its text made of its own letter.
fn script(letter: char) -> impl Strategy<Value = Script> {
    let delay = prop_oneof![Just(0u64), 0..3000u64];
    let kind = prop_oneof![
        Just(ErrorKind::Upstream),
        Just(ErrorKind::Busy),
        Just(ErrorKind::Denied),
        Just(ErrorKind::InvalidRequest),
        Just(ErrorKind::Crashed),
    ];
    let origin = prop_oneof![Just(Origin::Caller), Just(Origin::Here), Just(Origin::Upstream)];
    let retry = prop_oneof![
        Just(Retry::No),
        Just(Retry::Elsewhere),
        (0..20u64).prop_map(|wait| Retry::After(seconds(wait)))
    ];
    let refusal = proptest::option::weighted(0.3, (kind, origin, retry));
    let step = prop_oneof![
        4 => (0..100u32).prop_map(move |number| piece(&format!("{letter}{number} "))),
        2 => (0..2500u64).prop_map(|wait| Step::Wait(Duration::from_millis(wait))),
        1 => Just(started()),
        1 => Just(Step::Say(Event::Warning("w".to_owned()))),
        1 => Just(Step::Say(Event::Queued { position: 1, expected_wait: None })),
    ];
    let end = prop_oneof![
        3 => Just(finished(FinishReason::EndOfTurn, 1)),
        1 => Just(Step::Fail(ErrorKind::Upstream, "it broke")),
        1 => Just(Step::Fail(ErrorKind::InvalidRequest, "it broke")),
        1 => Just(Step::Hang),
    ];
    (delay, refusal, proptest::collection::vec(step, 0..8), end).prop_map(
        |(delay, refusal, mut steps, end)| {
            steps.push(end);
            Script { after: Duration::from_millis(delay), refusal, steps }
        },
    )
}

fn said(script: &Script) -> String {
    let pieces = script.steps.iter().map(|step| match step {
        Step::Say(Event::Piece(piece)) => piece.text.expose(),
        _ => "",
    });
    pieces.collect()
}

#[derive(Clone, Copy, Debug)]
enum Way {
    Plain,
    Hedged,
    Cascade(bool, bool),
}

fn backend(way: Way, flaky: &[Arc<Flaky>], watch: &Watch) -> Arc<dyn Backend> {
    let candidates: Vec<_> = flaky.iter().map(candidate).collect();
    let attempts = |candidates| Attempts::new(candidates, Limits::default(), watch.clone());
    match way {
        Way::Plain => Arc::new(attempts(candidates)),
        Way::Hedged => {
            let hedge = candidates
                .get(1)
                .map(|second| hedge(Duration::from_millis(700), second.clone(), true));
            let attempts = attempts(candidates);
            Arc::new(match hedge {
                Some(hedge) => attempts.hedged(hedge),
                None => attempts,
            })
        }
        Way::Cascade(whole, keep) => {
            let mut candidates = candidates.into_iter();
            let first = candidates.next().unwrap();
            let hold = Hold { tokens: 3, time: Duration::from_millis(500), whole };
            let verdict = if keep { Verdict::Keep } else { Verdict::Escalate };
            let gate: Gate = Arc::new(move |_: &Features| verdict);
            Arc::new(Cascade::new(first, &attempts(candidates.collect()), Some(hold), gate))
        }
    }
}

fn way() -> impl Strategy<Value = Way> {
    let cascade = (any::<bool>(), any::<bool>());
    prop_oneof![
        Just(Way::Plain),
        Just(Way::Hedged),
        cascade.prop_map(|(whole, keep)| Way::Cascade(whole, keep)),
    ]
}

/// All that the caller sees; he leaves after `most` events.
async fn listen(backend: &dyn Backend, most: usize) -> (Vec<Event>, Option<ErrorKind>, bool) {
    let mut stream = match backend.run(request()).await {
        Ok(stream) => stream,
        Err(error) => return (Vec::new(), Some(error.kind), true),
    };
    let mut events = Vec::new();
    while events.len() < most {
        match stream.next().await {
            Some(Ok(event)) => events.push(event),
            Some(Err(error)) => {
                assert!(stream.next().await.is_none(), "something follows an error");
                return (events, Some(error.kind), true);
            }
            None => return (events, None, true),
        }
    }
    (events, None, false)
}

fn check_log(log: &[Attempt], runs: usize, answered: bool, over: bool) {
    let asked = log.iter().filter(|attempt| attempt.ended != Ended::Skipped).count();
    assert_eq!(asked, runs, "each attempt is told once: {log:?}");
    let answers = log.iter().filter(|attempt| attempt.ended == Ended::Answered).count();
    assert!(answers <= 1, "{log:?}");
    if over {
        assert_eq!(answers == 1, answered, "{log:?}");
        assert!(log.iter().all(|attempt| attempt.ended != Ended::Cancelled), "{log:?}");
    }
}

fn check_events(events: &[Event], scripts: &[Script], (way, failed): (Way, bool)) {
    let text: String = events
        .iter()
        .map(|event| match event {
            Event::Piece(piece) => piece.text.expose(),
            _ => "",
        })
        .collect();
    if matches!(way, Way::Cascade(_, false)) {
        assert!(!text.contains('a'), "the first one's text was to reach nobody: {text}");
    }
    let ends = events.iter().filter(|event| matches!(event, Event::Finished(_))).count();
    assert!(ends <= 1 && !(failed && ends > 0));
    if ends == 1 {
        assert!(matches!(events.last(), Some(Event::Finished(_))));
        assert!(scripts.iter().any(|script| said(script) == text), "{text}");
    } else {
        assert!(scripts.iter().any(|script| said(script).starts_with(&text)), "{text}");
    }
}

proptest! {
    #[test]
    fn one_end_one_text_and_nothing_left(
        scripts in (1..5usize).prop_flat_map(|count| {
            "abcd".chars().take(count).map(script).collect::<Vec<_>>()
        }),
        way in way(),
        most in prop_oneof![3 => Just(usize::MAX), 1 => 0..12usize],
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let named = |(index, script): (usize, &Script)| {
                Flaky::new(&index.to_string(), Zone::Cloud, [script.clone()])
            };
            let flaky: Vec<_> = scripts.iter().enumerate().map(named).collect();
            let (watch, log) = watched();
            let backend = backend(way, &flaky, &watch);
            let (events, error, over) = listen(&*backend, most).await;
            check_events(&events, &scripts, (way, error.is_some()));
            let answered = matches!(events.last(), Some(Event::Finished(_)));
            assert!(!over || answered != error.is_some(), "exactly one end");
            assert!(flaky.iter().all(|one| one.alive() == 0), "something still runs");
            let runs = flaky.iter().map(|one| one.runs()).sum();
            check_log(&log.lock().unwrap(), runs, answered, over);
        });
    }
}
