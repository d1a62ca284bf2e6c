use proptest::prelude::*;

use super::*;

fn key(model: &str, key: &str) -> Key {
    Key { host: "h".to_owned(), model: model.to_owned(), key: key.to_owned(), turn: 0 }
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[track_caller]
fn check(kind: ErrorKind, origin: Origin, accepted: bool, want: Option<Fault>) {
    let error = BackendError::new(kind, "it failed").of(origin, Retry::After(seconds(7)));
    assert_eq!(attribute(&error, accepted), want);
}

#[test]
fn faults_are_counted_against_whose_they_are() {
    use Origin::{Caller, Here, Upstream};
    check(ErrorKind::Timeout, Upstream, false, Some(Fault::Model));
    check(ErrorKind::Unavailable, Upstream, false, Some(Fault::Model));
    check(ErrorKind::Timeout, Upstream, true, Some(Fault::Model));
    check(ErrorKind::Upstream, Upstream, false, Some(Fault::Model));
    check(ErrorKind::Crashed, Here, true, Some(Fault::Model));
    check(ErrorKind::Upstream, Here, false, Some(Fault::Key));
    check(ErrorKind::Denied, Upstream, false, Some(Fault::Key));
    check(ErrorKind::OverBudget, Upstream, false, Some(Fault::Key));
    check(ErrorKind::Denied, Here, false, None);
    check(ErrorKind::Busy, Upstream, false, Some(Fault::Limited(Some(seconds(7)))));
    check(ErrorKind::Busy, Here, false, None);
    check(ErrorKind::ContextExceeded, Upstream, false, None);
    for kind in [ErrorKind::InvalidRequest, ErrorKind::Timeout, ErrorKind::Upstream] {
        check(kind, Caller, false, None);
    }
    for kind in [ErrorKind::Upstream, ErrorKind::Timeout, ErrorKind::Unavailable] {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = BackendError::new(kind, "no connection").with_source(refused);
        let error = error.of(Upstream, Retry::Elsewhere);
        assert_eq!(attribute(&error, false), Some(Fault::Host));
        assert_eq!(attribute(&error, true), Some(Fault::Model), "it was there");
        let broke = io::Error::from(io::ErrorKind::ConnectionReset);
        let error = BackendError::new(kind, "it broke").with_source(broke);
        let error = error.of(Upstream, Retry::Elsewhere);
        assert_eq!(attribute(&error, false), Some(Fault::Model), "whoever breaks it is there");
        assert!(!is_connection(&error));
    }
}

/// So many faults in a row.
fn faults(breakers: &mut Breakers, key: &Key, fault: Fault, count: usize, now: Instant) {
    for _ in 0..count {
        breakers.record(key, Outcome::Fault(fault), now);
    }
}

#[test]
fn a_model_that_fails_closes_neither_its_host_nor_others() {
    let now = Instant::now();
    let mut breakers = Breakers::default();
    faults(&mut breakers, &key("m", "k"), Fault::Model, 4, now);
    assert!(breakers.allows(&key("m", "k"), now).is_ok());
    faults(&mut breakers, &key("m", "k"), Fault::Model, 1, now);
    let open = breakers.allows(&key("m", "k"), now).unwrap_err();
    assert_eq!((open.scope.reason(), open.until), ("model_failing", now + seconds(5)));
    assert!(breakers.allows(&key("m", "other"), now).is_err());
    assert!(breakers.allows(&key("other", "k"), now).is_ok());
}

#[test]
fn a_host_a_key_and_a_limit_close_what_is_theirs() {
    let now = Instant::now();
    let mut breakers = Breakers::default();
    faults(&mut breakers, &key("m", "k"), Fault::Host, 5, now);
    assert!(breakers.allows(&key("other", "other"), now).is_err());

    let mut breakers = Breakers::default();
    faults(&mut breakers, &key("m", "k"), Fault::Key, 1, now);
    assert!(breakers.allows(&key("other", "k"), now).is_err());
    assert!(breakers.allows(&key("m", "other"), now).is_ok());

    let mut breakers = Breakers::default();
    faults(&mut breakers, &key("m", "k"), Fault::Limited(Some(seconds(20))), 1, now);
    assert!(breakers.allows(&key("m", "other"), now).is_ok());
    assert!(breakers.allows(&key("other", "k"), now).is_ok());
    let open = breakers.allows(&key("m", "k"), now).unwrap_err();
    assert_eq!((open.scope.reason(), open.until), ("rate_limited", now + seconds(20)));
    // A success of before does not shorten what the vendor said.
    breakers.record(&key("m", "k"), Outcome::Success, now);
    assert!(breakers.allows(&key("m", "k"), now + seconds(19)).is_err());
    assert!(breakers.allows(&key("m", "k"), now + seconds(20)).is_ok());
}

#[test]
fn a_host_that_refuses_a_key_or_limits_it_is_there() {
    let now = Instant::now();
    for answer in [Fault::Key, Fault::Limited(None)] {
        let mut breakers = Breakers::default();
        for _ in 0..3 {
            faults(&mut breakers, &key("m", "k"), Fault::Host, 4, now);
            faults(&mut breakers, &key("m", "k"), answer, 1, now);
        }
        assert!(breakers.allows(&key("m", "other"), now).is_ok());
        faults(&mut breakers, &key("m", "k"), Fault::Host, 5, now);
        assert!(breakers.allows(&key("m", "other"), now).is_err());
    }
}

#[test]
fn a_silent_host_is_found_out_by_who_asks_one_after_the_other() {
    let mut now = Instant::now();
    let mut breakers = Breakers::default();
    for _ in 0..5 {
        // As long as the usual time to the first token, and an answer by another.
        now += seconds(65);
        faults(&mut breakers, &key("m", "k"), Fault::Model, 1, now);
    }
    assert!(breakers.allows(&key("m", "k"), now).is_err());
}

#[test]
fn faults_far_apart_are_no_row() {
    let mut now = Instant::now();
    let mut breakers = Breakers::default();
    for _ in 0..20 {
        faults(&mut breakers, &key("m", "k"), Fault::Model, 1, now);
        now += seconds(601);
    }
    assert!(breakers.allows(&key("m", "k"), now).is_ok());
}

#[test]
fn one_probe_decides() {
    let mut now = Instant::now();
    let mut breakers = Breakers::default();
    let key = key("m", "k");
    faults(&mut breakers, &key, Fault::Model, 5, now);
    now += seconds(5);
    assert!(breakers.admit(&key, now).is_ok());
    assert!(breakers.admit(&key, now).is_err(), "one at a time");
    breakers.record(&key, Outcome::Fault(Fault::Model), now);
    assert_eq!(breakers.allows(&key, now).unwrap_err().until, now + seconds(10));
    now += seconds(10);
    assert!(breakers.admit(&key, now).is_ok());
    breakers.record(&key, Outcome::Neutral, now);
    assert!(breakers.admit(&key, now).is_ok(), "the probe was cancelled: another one");
    assert!(breakers.admit(&key, now + seconds(120)).is_ok(), "the probe is lost: another one");
    breakers.record(&key, Outcome::Success, now);
    assert!(breakers.is_empty());
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::Host),
        Just(Fault::Model),
        Just(Fault::Key),
        (0..1000u64).prop_map(|wait| Fault::Limited(Some(seconds(wait)))),
        Just(Fault::Limited(None)),
    ]
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        1 => Just(Outcome::Success),
        1 => Just(Outcome::Neutral),
        3 => fault().prop_map(Outcome::Fault),
    ]
}

proptest! {
    /// Whatever happens: bounded memory and waits, one probe at a time, and a way back.
    #[test]
    fn circuits_are_bounded_and_always_close_again(
        steps in proptest::collection::vec((0..4u8, 0..30u64, outcome()), 1..80),
    ) {
        let limits = BreakersLimits { most: 6, ..BreakersLimits::default() };
        let mut breakers = Breakers::new(limits);
        let mut now = Instant::now();
        let key = |number: u8| key(&format!("m{}", number / 2), &format!("k{}", number % 2));
        for (number, wait, outcome) in steps {
            now += seconds(wait);
            let key = key(number);
            let allowed = breakers.allows(&key, now);
            prop_assert_eq!(breakers.admit(&key, now).is_ok(), allowed.is_ok());
            let halves = |breakers: &Breakers| breakers.circuits.iter().filter(|(scope, circuit)| {
                Scope::all(&key).contains(scope) && matches!(circuit, Circuit::HalfOpen { .. })
            }).count();
            if allowed.is_ok() {
                // What is half open is being probed now: nobody else passes.
                prop_assert_eq!(breakers.allows(&key, now).is_err(), halves(&breakers) > 0);
                breakers.record(&key, outcome, now);
            }
            prop_assert!(breakers.len() <= limits.most);
            for open in breakers.open(now) {
                prop_assert!(open.until <= now + limits.longest.max(limits.probe));
            }
        }
        now += limits.longest;
        for number in 0..4 {
            prop_assert!(breakers.admit(&key(number), now).is_ok());
            breakers.record(&key(number), Outcome::Success, now);
        }
        prop_assert!(breakers.open(now).is_empty());
    }
}

#[test]
fn a_key_from_before_is_refused_late_and_the_new_one_is_not_to_blame() {
    let now = Instant::now();
    let mut breakers = Breakers::default();
    let old = key("m", "k");
    let new = Key { turn: breakers.forget_keys(), ..old.clone() };
    breakers.record(&old, Outcome::Fault(Fault::Key), now);
    assert!(breakers.allows(&new, now).is_ok());
    breakers.record(&new, Outcome::Fault(Fault::Key), now);
    assert_eq!(breakers.allows(&new, now).unwrap_err().scope.reason(), "key_refused");
    // What is the host's or the model's says something, whichever key was asked with.
    for _ in 0..5 {
        breakers.record(&old, Outcome::Fault(Fault::Host), now);
    }
    assert!(breakers.allows(&key("other", "other"), now).is_err());
}
