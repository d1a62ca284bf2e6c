use super::*;

fn limits() -> Limits {
    Limits { slots: 4, queue: 8, batch: 512, rows: 32, step: 0.15 }
}

fn job(id: u64) -> Job {
    Job {
        id: RequestId(id),
        class: Class::Interactive,
        owner: Owner::default(),
        group: Group(0),
        alone: false,
        scored: false,
        prompt: 100,
        answer: 50,
    }
}

fn nobody(_: RequestId) -> bool {
    false
}

#[test]
fn a_long_prompt_is_cut_while_answers_run() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(job(1)).unwrap();
    scheduler.submit(job(2)).unwrap();
    assert!(scheduler.admit(RequestId(1), 1, nobody));
    assert!(scheduler.admit(RequestId(2), 3000, nobody));
    // Learns: 10 ms a decoding step, 3 ms a prompt token.
    scheduler.pace.note(1, Reading { tokens: 0, depth: 0.0 }, 0.010);
    scheduler.pace.note(0, Reading { tokens: 512, depth: 0.0 }, 1.536);
    let plan = scheduler.plan();
    assert_eq!(plan[0], Share { id: RequestId(1), tokens: 1, decodes: true });
    assert_eq!(plan[1], Share { id: RequestId(2), tokens: 63, decodes: false });
}

/// Reads a prompt of `prompt` tokens, where a token takes 0.3 ms and 0.2 µs for each before it, and a step with
/// an answer 10 ms more. The longest step.
fn longest_step(scheduler: &mut Scheduler, id: u64, prompt: usize) -> f64 {
    scheduler.submit(Job { prompt, ..job(id) }).unwrap();
    assert!(scheduler.admit(RequestId(id), prompt, nobody));
    let (mut read, mut longest) = (0, 0.0_f64);
    while read < prompt {
        let plan = scheduler.plan();
        let piece = plan.iter().find(|share| !share.decodes).map_or(1, |share| share.tokens);
        let deep = Reading::of(piece, read);
        let answers = plan.iter().filter(|share| share.decodes && share.id.0 != id).count();
        let took =
            as_f64(piece) * (0.3e-3 + 0.2e-6 * deep.depth) + if answers > 0 { 0.010 } else { 0.0 };
        scheduler.stepped(&plan, took);
        plan.iter().filter(|share| share.id.0 != id).for_each(|s| scheduler.set_remaining(s.id, 1));
        read += piece;
        longest = longest.max(took);
    }
    scheduler.remove(RequestId(id));
    longest
}

#[test]
fn a_step_is_no_longer_where_a_prompt_is_deep() {
    let mut scheduler = Scheduler::new(limits());
    longest_step(&mut scheduler, 1, 3000);
    // Beside an answer.
    scheduler.submit(job(2)).unwrap();
    assert!(scheduler.admit(RequestId(2), 1, nobody));
    scheduler.stepped(&[Share { id: RequestId(2), tokens: 1, decodes: true }], 0.010);
    scheduler.set_remaining(RequestId(2), 1);
    for (id, prompt) in [(3, 3000), (4, 6000), (5, 1000)] {
        let longest = longest_step(&mut scheduler, id, prompt);
        assert!(longest < 0.150 * 1.25, "{prompt} tokens: a step of {longest} s");
    }
}

/// Reads a prompt beside `answers` answers, on a machine on which a step of answers takes 30 ms and a prompt's token
/// 3 ms, both as many times longer as `slower` says of the step. How many steps it took.
fn steps_beside(
    scheduler: &mut Scheduler,
    (id, prompt): (u64, usize),
    mut slower: impl FnMut(usize) -> f64,
) -> usize {
    scheduler.submit(Job { prompt, ..job(id) }).unwrap();
    assert!(scheduler.admit(RequestId(id), prompt, nobody));
    let (mut steps, mut read) = (0, 0);
    while read < prompt {
        let plan = scheduler.plan();
        let piece: usize = plan.iter().filter(|share| share.id.0 == id).map(|s| s.tokens).sum();
        let others = plan.iter().filter(|share| share.id.0 != id);
        scheduler.stepped(&plan, (0.030 + 0.003 * as_f64(piece)) * slower(steps));
        others.for_each(|share| scheduler.set_remaining(share.id, 1));
        (read, steps) = (read + piece, steps + 1);
    }
    scheduler.remove(RequestId(id));
    steps
}

#[test]
fn a_machine_that_was_busy_is_soon_trusted_again() {
    let mut scheduler = running(&[(1, Class::Interactive, 1)]);
    let quiet = steps_beside(&mut scheduler, (2, 3000), |_| 1.0);
    assert!(quiet <= 50, "{quiet} steps");
    let busy = steps_beside(&mut scheduler, (3, 3000), |step| if step < 60 { 12.0 } else { 1.0 });
    assert!(busy > 60, "{busy} steps: no busy machine");
    let after = steps_beside(&mut scheduler, (4, 3000), |_| 1.0);
    assert!(after <= quiet + 10, "{after} steps after {quiet}");
}

#[test]
fn many_answers_leave_a_prompt_its_piece() {
    for answers in 1..=40 {
        let mut scheduler = Scheduler::new(Limits { slots: 64, queue: 64, ..limits() });
        for id in 0..=answers {
            scheduler.submit(job(id)).unwrap();
            let remaining = if id == answers { 3000 } else { 1 };
            assert!(scheduler.admit(RequestId(id), remaining, nobody));
        }
        for fit in [0, 1, 4, 8, 11, 12, 15, 16] {
            let token = 0.120 / (as_f64(fit) + 0.5);
            scheduler.pace = Pace::default();
            scheduler.pace.note(usize::try_from(answers).unwrap(), Reading::default(), 0.030);
            scheduler.pace.note(0, Reading::of(512, 0), 512.0 * token);
            let plan = scheduler.plan();
            let piece = plan.iter().find(|share| !share.decodes).unwrap().tokens;
            assert!(piece >= PIECE, "{piece} tokens beside {answers} answers, {fit} fit");
        }
    }
}

mod fair;
mod groups;
mod random;
mod runner;

fn running(jobs: &[(u64, Class, usize)]) -> Scheduler {
    let mut scheduler = Scheduler::new(limits());
    for (id, class, remaining) in jobs {
        scheduler.submit(Job { class: *class, ..job(*id) }).unwrap();
        assert!(scheduler.admit(RequestId(*id), *remaining, nobody));
    }
    scheduler
}

#[test]
fn both_classes_get_of_the_smallest_budget() {
    use Class::{Batch, Interactive};
    let mut scheduler = running(&[(1, Interactive, 1), (2, Interactive, 3000), (3, Batch, 3000)]);
    // So slow that only the shortest piece is allowed.
    scheduler.pace.note(0, Reading { tokens: 512, depth: 0.0 }, 512.0);
    let tokens: Vec<usize> = scheduler.plan().iter().map(|s| s.tokens).collect();
    assert_eq!(tokens, [1, 8, 8]);
}

#[test]
fn what_one_class_leaves_the_other_gets() {
    use Class::{Batch, Interactive};
    let of = |jobs| running(jobs).plan().iter().map(|s| s.tokens).collect::<Vec<_>>();
    assert_eq!(of(&[(1, Interactive, 20), (2, Batch, 3000)]), [20, 492]);
    assert_eq!(of(&[(1, Interactive, 3000), (2, Batch, 5)]), [507, 5]);
    assert_eq!(of(&[(1, Interactive, 3000), (2, Batch, 3000)]), [448, 64]);
}

#[test]
fn nobody_gives_way_to_who_would_not_take_the_slot() {
    let batch = |id| (id, Class::Batch, 100);
    let mut scheduler = running(&[batch(1), batch(2), batch(3), batch(4)]);
    scheduler.submit(job(5)).unwrap();
    let last = Some(RequestId(4));
    assert_eq!(scheduler.gives_way(|_| false), last);
    // It waits for what another reads.
    let waits = |id| id == RequestId(5);
    assert_eq!((scheduler.gives_way(waits), scheduler.gives_room(waits)), (None, None));
    // One behind it does not.
    scheduler.submit(job(6)).unwrap();
    assert_eq!((scheduler.gives_way(waits), scheduler.gives_room(waits)), (last, last));
}

#[test]
fn a_prompt_that_is_cached_to_the_end_still_computes_its_last_token() {
    let scheduler = running(&[(1, Class::Interactive, 0)]);
    assert_eq!(scheduler.plan(), [Share { id: RequestId(1), tokens: 1, decodes: true }]);
}

/// Requests at work, by class, tokens that are not computed, and whether they are scored.
fn scored(jobs: &[(Class, usize, bool)]) -> Scheduler {
    let mut scheduler = Scheduler::new(limits());
    for (id, (class, remaining, scored)) in (1..).zip(jobs) {
        scheduler.submit(Job { class: *class, scored: *scored, ..job(id) }).unwrap();
        assert!(scheduler.admit(RequestId(id), *remaining, nobody));
    }
    scheduler
}

#[track_caller]
fn shares(jobs: &[(Class, usize, bool)], want: &[(u64, usize)]) {
    let plan = scored(jobs).plan();
    let got: Vec<(u64, usize)> = plan.iter().map(|share| (share.id.0, share.tokens)).collect();
    assert_eq!(got, want, "{jobs:?}");
}

#[test]
fn a_scored_prompt_gets_no_more_tokens_than_there_are_rows() {
    use Class::Interactive;
    shares(&[(Interactive, 3000, true)], &[(1, 32)]);
    // The last of them is one that decodes, as any prompt's last token.
    shares(&[(Interactive, 1, true)], &[(1, 1)]);
    // An answer at work, and a prompt that may come to its end, want one row each.
    shares(&[(Interactive, 1, false), (Interactive, 3000, true)], &[(1, 1), (2, 31)]);
    shares(&[(Interactive, 3000, true), (Interactive, 100, false)], &[(2, 100), (1, 31)]);
    // Two share the rows as they would share the tokens.
    shares(&[(Interactive, 3000, true), (Interactive, 40, true)], &[(2, 16), (1, 16)]);
    shares(&[(Interactive, 3000, true), (Interactive, 10, true)], &[(2, 10), (1, 22)]);
}

#[test]
fn what_a_scored_prompt_leaves_of_a_step_the_others_get() {
    use Class::{Batch, Interactive};
    shares(&[(Interactive, 3000, true), (Interactive, 3000, false)], &[(1, 31), (2, 481)]);
    shares(&[(Interactive, 3000, true), (Batch, 3000, false)], &[(1, 31), (2, 481)]);
    shares(&[(Batch, 3000, true), (Interactive, 3000, false)], &[(2, 481), (1, 31)]);
    // A batch request's prompt is not starved of rows either.
    shares(&[(Batch, 3000, true), (Interactive, 3000, true)], &[(2, 16), (1, 16)]);
}

#[test]
fn unknown_ids_do_nothing() {
    let mut scheduler = running(&[(1, Class::Interactive, 100)]);
    scheduler.submit(job(2)).unwrap();
    let before = format!("{scheduler:?}");
    let unknown = RequestId(9);
    assert!(!scheduler.admit(unknown, 5, nobody));
    assert!(!scheduler.admit(RequestId(1), 5, nobody), "it does not wait");
    assert_eq!(scheduler.place(unknown), None);
    assert_eq!(scheduler.place(RequestId(1)), None);
    scheduler.send_back(unknown, 5);
    scheduler.send_back(RequestId(2), 5);
    scheduler.remove(unknown);
    scheduler.set_remaining(unknown, 5);
    scheduler.fetch(unknown);
    scheduler.fetch(RequestId(2));
    scheduler.fetched(unknown, 5);
    // It waits for nothing.
    scheduler.fetched(RequestId(1), 5);
    scheduler.stepped(&[Share { id: unknown, tokens: 5, decodes: true }], f64::NAN);
    assert_eq!(format!("{scheduler:?}"), before);
}

#[test]
fn an_id_is_taken_once() {
    let mut scheduler = running(&[(1, Class::Interactive, 100)]);
    scheduler.submit(job(2)).unwrap();
    scheduler.submit(job(1)).unwrap();
    assert_eq!(scheduler.submit(job(2)).unwrap().position, 0);
    assert_eq!(scheduler.waiting(), 1);
}

#[test]
fn limits_of_nothing_still_let_one_through() {
    let nothing = Limits { slots: 0, queue: 0, batch: 0, rows: 0, step: f64::NAN };
    let mut scheduler = Scheduler::new(nothing);
    assert_eq!(scheduler.submit(job(1)).unwrap(), Place { position: 0, wait: Some(0.0) });
    assert!(scheduler.submit(job(2)).is_err());
    assert!(scheduler.admit(RequestId(1), 100, nobody));
    assert_eq!(scheduler.plan(), [Share { id: RequestId(1), tokens: 1, decodes: false }]);
    assert!(scheduler.submit(job(2)).is_ok());
    assert!(!scheduler.admit(RequestId(2), 1, nobody), "the slot is taken");
}

#[test]
fn of_two_that_never_fit_together_the_older_stays() {
    let mut scheduler = running(&[(1, Class::Batch, 100), (2, Class::Interactive, 100)]);
    // The batch request is sent back for the others, but not for ever.
    for _ in 0..SENT_BACK {
        assert_eq!(scheduler.sheds(), Some(RequestId(1)));
        scheduler.send_back(RequestId(1), 100);
        assert_eq!(scheduler.sheds(), None, "never the only one");
        assert!(scheduler.admit(RequestId(1), 100, nobody));
    }
    assert_eq!(scheduler.sheds(), Some(RequestId(2)));
    for _ in 0..2 * SENT_BACK {
        scheduler.send_back(RequestId(2), 100);
        assert!(scheduler.admit(RequestId(2), 100, nobody));
        assert_eq!(scheduler.sheds(), Some(RequestId(2)));
    }
}
