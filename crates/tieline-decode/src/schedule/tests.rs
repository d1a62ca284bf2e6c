use super::*;

fn limits() -> Limits {
    Limits { slots: 4, queue: 8, batch: 512, step: 0.15 }
}

fn job(id: u64) -> Job {
    Job {
        id: RequestId(id),
        class: Class::Interactive,
        owner: Owner::default(),
        alone: false,
        prompt: 100,
        answer: 50,
    }
}

#[test]
fn a_long_prompt_is_cut_while_answers_run() {
    let mut scheduler = Scheduler::new(limits());
    scheduler.submit(job(1)).unwrap();
    scheduler.submit(job(2)).unwrap();
    assert!(scheduler.admit(RequestId(1), 1));
    assert!(scheduler.admit(RequestId(2), 3000));
    // Learns: 10 ms a decoding step, 3 ms a prompt token.
    scheduler.pace.note(1, 0, 0.010);
    scheduler.pace.note(0, 512, 1.536);
    let plan = scheduler.plan();
    assert_eq!(plan[0], Share { id: RequestId(1), tokens: 1, decodes: true });
    assert_eq!(plan[1], Share { id: RequestId(2), tokens: 32, decodes: false });
}
