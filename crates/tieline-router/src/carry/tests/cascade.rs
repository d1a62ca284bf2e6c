use tieline_types::{Alternative, Constraint, Piece, TokenLogprob};

use super::*;

const HOLD: Hold = Hold { tokens: 3, time: seconds(1), whole: false };

/// One token with its two likeliest.
fn token(text: &str, logprob: f32) -> Step {
    let alternative = |logprob| Alternative { token: 1, bytes: Vec::new(), logprob };
    let entry = TokenLogprob {
        token: 1,
        bytes: text.as_bytes().to_vec(),
        logprob,
        alternatives: vec![alternative(logprob), alternative(logprob - 1.0)],
    };
    Step::Say(Event::Piece(Piece { text: text.into(), logprobs: vec![entry] }))
}

fn local(logprobs: &[f32]) -> Script {
    let tokens = logprobs.iter().map(|&logprob| token("l", logprob));
    let end = finished(FinishReason::EndOfTurn, 4);
    Script::answers([started()].into_iter().chain(tokens).chain([end]).collect())
}

struct Scene {
    local: Arc<Flaky>,
    remote: Arc<Flaky>,
    log: Arc<Mutex<Vec<Attempt>>>,
    cascade: Cascade,
}

/// A local candidate, one in the cloud, and a gate that wants a mean of -1 at least.
fn scene(local: Script, remote: Script, hold: Option<Hold>) -> Scene {
    let local = Flaky::new("local", Zone::Host, [local]);
    let remote = Flaky::new("remote", Zone::Cloud, [remote]);
    let (watch, log) = watched();
    let others = Attempts::new(vec![candidate(&remote)], Limits::default(), watch);
    let gate: Gate = Arc::new(|features: &Features| {
        if features.mean.is_some_and(|mean| mean < -1.0) {
            Verdict::Escalate
        } else {
            Verdict::Keep
        }
    });
    let cascade = Cascade::new(candidate(&local), &others, hold, gate);
    Scene { local, remote, log, cascade }
}

async fn check_cascade(scene: &Scene, want: &str, want_ends: &[(&str, Ended)]) {
    assert_eq!(heard(&scene.cascade).await, want);
    check_ends(&scene.log, want_ends);
    assert_eq!((scene.local.alive(), scene.remote.alive()), (0, 0));
}

const KEPT: &[(&str, Ended)] = &[("local", Ended::Answered)];
const ESCALATED: &[(&str, Ended)] = &[("local", Ended::Escalated), ("remote", Ended::Answered)];
const REMOTE: &str = "<started> <warning> hi <finished>";

#[tokio::test(start_paused = true)]
async fn a_sure_answer_is_handed_on_and_an_unsure_one_is_not() {
    let sure = scene(local(&[-0.1; 4]), hi(), Some(HOLD));
    check_cascade(&sure, "<started> l l l l <finished>", KEPT).await;
    assert_eq!(sure.remote.runs(), 0);
    let unsure = scene(local(&[-0.1, -2.0, -3.0, -0.1]), hi(), Some(HOLD));
    check_cascade(&unsure, REMOTE, ESCALATED).await;
    // Dropped before it was whole.
    assert_eq!(unsure.local.dropped(), 1);
    let log = unsure.log.lock().unwrap();
    assert_eq!((log[0].usage.completion_tokens, log[0].usage_told), (Tokens(3), false));
    assert_eq!((log[1].usage.completion_tokens, log[1].usage_told), (Tokens(1), true));
}

#[tokio::test(start_paused = true)]
async fn what_a_program_says_no_to_is_not_handed_on() {
    for (passes, want, ends) in
        [(true, "<started> l l l l <finished>", KEPT), (false, REMOTE, ESCALATED)]
    {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = Arc::clone(&seen);
        let check: Check = Arc::new(move |text| {
            keep.lock().unwrap().push(text.into_inner());
            Box::pin(async move { passes })
        });
        let mut scene = scene(local(&[-0.1; 4]), hi(), Some(HOLD));
        scene.cascade = scene.cascade.checked(Some(check));
        check_cascade(&scene, want, ends).await;
        // All of it, though three tokens would have been enough for the gate.
        assert_eq!(*seen.lock().unwrap(), ["llll"]);
    }
    // What is too long to be looked through as a whole is not kept for what its beginning says.
    let long = "l".repeat((1 << 20) + 1);
    let steps =
        [started(), token(&long, -0.1), token("l", -0.1), finished(FinishReason::EndOfTurn, 2)];
    let mut long = scene(Script::answers(steps.into()), hi(), Some(HOLD));
    long.cascade = long.cascade.checked(Some(Arc::new(|_| panic!("it is asked"))));
    check_cascade(&long, REMOTE, ESCALATED).await;
    // What the gate drops costs no program's time.
    let mut unsure = scene(local(&[-9.0; 4]), hi(), Some(HOLD));
    unsure.cascade = unsure.cascade.checked(Some(Arc::new(|_| panic!("it is asked"))));
    check_cascade(&unsure, REMOTE, ESCALATED).await;
}

#[tokio::test(start_paused = true)]
async fn a_program_that_hangs_does_not_outlast_the_request() {
    let mut scene = scene(local(&[-0.1; 4]), hi(), Some(HOLD));
    scene.cascade = scene.cascade.checked(Some(Arc::new(|_| Box::pin(std::future::pending()))));
    let began = tokio::time::Instant::now();
    let stream = scene.cascade.run(request()).await.unwrap();
    let events: Vec<_> = futures_util::StreamExt::collect(stream).await;
    // Nothing of it was handed on, and nobody has time left.
    assert!(matches!(&events[..], [Err(_)]), "{events:?}");
    assert_eq!(began.elapsed(), Limits::default().total);
}

#[tokio::test(start_paused = true)]
async fn what_comes_after_the_commitment_is_not_judged() {
    let late = scene(local(&[-0.1, -0.1, -0.1, -9.0]), hi(), Some(HOLD));
    check_cascade(&late, "<started> l l l l <finished>", KEPT).await;
    let whole = Some(Hold { whole: true, ..HOLD });
    let late = scene(local(&[-0.1, -0.1, -0.1, -9.0]), hi(), whole);
    check_cascade(&late, REMOTE, ESCALATED).await;
    assert_eq!(late.log.lock().unwrap()[0].usage.completion_tokens, Tokens(4));
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_is_judged_in_time() {
    let wait = || Step::Wait(Duration::from_millis(800));
    let steps = |first| {
        let steps = [token("l", first), wait(), token("l", -0.1), wait(), token("l", -9.0)];
        Script::answers(steps.into_iter().chain([finished(FinishReason::EndOfTurn, 3)]).collect())
    };
    let sure = scene(steps(-0.1), hi(), Some(HOLD));
    let mut stream = sure.cascade.run(request()).await.unwrap();
    let start = Instant::now();
    assert_eq!(word(&stream.next().await.unwrap()), "l");
    assert_eq!(start.elapsed(), seconds(1));
    assert_eq!(
        stream.map(|event| word(&event)).collect::<Vec<_>>().await.join(" "),
        "l l <finished>"
    );
    check_cascade(&scene(steps(-5.0), hi(), Some(HOLD)), REMOTE, ESCALATED).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_broken_form_is_escalated() {
    let json = |text: &str| {
        let end = finished(FinishReason::EndOfTurn, 1);
        Script::answers(vec![started(), token(text, -0.1), end])
    };
    for (text, want) in [("{\"a\":1}", KEPT), ("{\"a\":", ESCALATED)] {
        let scene = scene(json(text), hi(), None);
        let request = Request { constraint: Some(Constraint::JsonObject), ..request() };
        scene.cascade.run(request).await.unwrap().count().await;
        check_ends(&scene.log, want);
    }
}

#[tokio::test(start_paused = true)]
async fn log_probabilities_are_for_the_gate_and_for_who_asked() {
    for (asked, want, shown) in
        [(None, 2, None), (Some(0), 2, Some(0)), (Some(1), 2, Some(1)), (Some(5), 5, Some(2))]
    {
        let scene = scene(local(&[-0.1; 4]), hi(), Some(HOLD));
        let request = Request { logprobs: asked, ..request() };
        let stream = scene.cascade.run(request).await.unwrap();
        let events: Vec<_> = stream.map(Result::unwrap).collect().await;
        let pieces = events.iter().filter_map(|event| match event {
            Event::Piece(piece) => Some(piece.logprobs.first().map(|one| one.alternatives.len())),
            _ => None,
        });
        assert_eq!(pieces.collect::<Vec<_>>(), vec![shown; 4]);
        assert_eq!(scene.local.seen()[0].logprobs, Some(want));
    }
    let scene = scene(local(&[-9.0; 4]), hi(), Some(HOLD));
    heard(&scene.cascade).await;
    assert_eq!(scene.remote.seen()[0].logprobs, None);
}

#[tokio::test(start_paused = true)]
async fn where_the_first_one_fails_the_others_answer() {
    let next = &[("local", Ended::Refused), ("remote", Ended::Answered)];
    check_cascade(&scene(refuses(ErrorKind::OutOfMemory), hi(), Some(HOLD)), ANSWERED, next).await;
    // In the midst of what was held back: nobody has seen it.
    let fail = Step::Fail(ErrorKind::Crashed, "it died");
    let broke = Script::answers(vec![started(), token("l", -0.1), fail]);
    let next = &[("local", Ended::Broke), ("remote", Ended::Answered)];
    check_cascade(&scene(broke.clone(), hi(), Some(HOLD)), ANSWERED, next).await;
    let none = &[("local", Ended::Broke), ("remote", Ended::Refused)];
    check_cascade(
        &scene(broke, refuses(ErrorKind::Upstream), Some(HOLD)),
        "refused: <Crashed>",
        none,
    )
    .await;
}
