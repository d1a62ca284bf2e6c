use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use tieline_store::{DecisionRow, Store};
use tieline_types::{Source, Tokens, Usage, Zone};

use super::*;
use crate::choose;
use crate::choose::tests::properties::{a_policy, a_request, candidates};
use crate::choose::{Candidate, Decision, decide};
use crate::plan;
use crate::record::{Filed, Outcome, Record};

/// A record of what this policy decides.
fn filed(policy: &crate::Policy, asked: &choose::Asked, candidates: &[Candidate]) -> Filed {
    let decision = decide(policy, asked, candidates);
    let record = Record {
        id: "r".to_owned(),
        at_unix_ms: 5,
        key: String::new(),
        dialect: "openai",
        operation: "chat",
        decision: plan::Decision { model: decision.asked.clone(), reason: "chosen" },
        plan: Some(Arc::new(decision)),
        asked: Some(asked.clone()),
        tried: Vec::new(),
        digest: None,
        outcome: Outcome::Answered,
        error: None,
        usage: Some(Usage { prompt_tokens: Tokens(7), ..Usage::default() }),
        first_token_us: Some(1),
        total_us: 2,
        trace_parent: None,
    };
    Filed { record: Arc::new(record), candidates: Some(Arc::new(candidates.to_vec())) }
}

fn row(filed: &Filed) -> DecisionRow {
    Keeper::default().row(filed).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_decision_is_made_again_from_the_store(
        policy in a_policy(), asked in a_request(), candidates in candidates()
    ) {
        static STORE: LazyLock<(tempfile::TempDir, Store)> = LazyLock::new(|| {
            let folder = tempfile::tempdir().unwrap();
            let store = Store::open(folder.path()).unwrap();
            (folder, store)
        });
        let store = &STORE.1;
        let filed = filed(&policy, &asked, &candidates);
        store.record(&[], &[row(&filed)]).unwrap();
        let read = Kept::read(&store.decision("r").unwrap().unwrap().unwrap()).unwrap();
        let made = read.made.unwrap();
        prop_assert_eq!(&made.candidates, &candidates);
        prop_assert_eq!(&made.asked, &asked);
        let again = decide(&policy, &made.asked, &made.candidates);
        prop_assert_eq!(&again, filed.record.plan.as_deref().unwrap());
        let text = |decision: &Decision| serde_json::to_string(decision).unwrap();
        prop_assert_eq!(text(&again), text(&made.decision));
    }
}

#[test]
fn what_was_measured_stands_beside_the_decision_and_the_rest_is_shared() {
    let policy = crate::Policy::default();
    let candidate = |tps: f64, loaded: bool| {
        let figure = |value, source| Some(choose::Figure { value, source });
        let profile = choose::Profile {
            prefill_tps: figure(900.0, Source::Reported),
            decode_tps: figure(tps, Source::Measured),
            ..choose::Profile::default()
        };
        Candidate {
            name: "here".to_owned(),
            local: true,
            zone: Zone::Host,
            abilities: choose::Abilities::default(),
            context: None,
            max_output: None,
            price: None,
            licence: None,
            profile,
            state: choose::State { loaded, verified: true, ..choose::State::default() },
        }
    };
    let asked = choose::Asked { asked: "auto".to_owned(), ..choose::Asked::default() };
    let mut keeper = Keeper::default();
    let (slow, fast) = ([candidate(3.0, false)], [candidate(40.0, true)]);
    let one = keeper.row(&filed(&policy, &asked, &slow)).unwrap();
    let other = keeper.row(&filed(&policy, &asked, &fast)).unwrap();
    assert!(Arc::ptr_eq(&one.grounds, &other.grounds));
    assert!(!one.grounds.candidates.contains("40") && one.grounds.candidates.contains("900"));
    for (row, was) in [(one, slow), (other, fast)] {
        assert_eq!(Kept::read(&row).unwrap().made.unwrap().candidates, was);
    }
    // Another policy has grounds of its own, and so has a request that none decided.
    let named = crate::Policy { digest: tieline_types::Digest([1; 32]), ..policy.clone() };
    let of_other = keeper.row(&filed(&named, &asked, &[candidate(3.0, false)])).unwrap();
    assert_eq!(of_other.grounds.policy, Some(named.digest));
    let record =
        Record { plan: None, asked: None, ..filed(&policy, &asked, &[]).record.as_ref().clone() };
    let named = keeper.row(&Filed { record: Arc::new(record), candidates: None }).unwrap();
    assert_eq!((named.grounds.policy, named.grounds.candidates.as_str()), (None, "[]"));
    assert!(Kept::read(&named).unwrap().made.is_none());
}

#[test]
fn a_row_reads_as_the_record_that_it_was_made_of() {
    let policy = crate::Policy::default();
    let asked = choose::Asked { asked: "auto".to_owned(), ..choose::Asked::default() };
    let filed = filed(&policy, &asked, &[]);
    let record = serde_json::to_value(filed.record.as_ref()).unwrap();
    assert_eq!(kept::record(&row(&filed)).unwrap(), record);
}

#[test]
fn what_cannot_be_read_says_why() {
    let policy = crate::Policy::default();
    let asked = choose::Asked { asked: "auto".to_owned(), ..choose::Asked::default() };
    let good = row(&filed(&policy, &asked, &[]));
    let why = |change: fn(&mut DecisionRow)| {
        let mut row = good.clone();
        change(&mut row);
        Kept::read(&row).unwrap_err()
    };
    let newer = why(|row| Arc::make_mut(&mut row.grounds).format = 2);
    assert!(matches!(newer, Unreadable::Newer(2)), "{newer:?}");
    let broken = why(|row| row.facts.truncate(30));
    assert!(matches!(broken, Unreadable::Broken(_)), "{broken:?}");
    let grounds = why(|row| Arc::make_mut(&mut row.grounds).candidates.push('x'));
    assert!(matches!(grounds, Unreadable::Broken(_)), "{grounds:?}");
    let more = why(|row| row.facts = row.facts.replace("\"now\":[]", "\"now\":[{\"state\":{}}]"));
    assert!(matches!(more, Unreadable::Incomplete), "{more:?}");
    let half = why(|row| {
        let from = row.facts.find("\"asked\":{").unwrap();
        let to = row.facts.find(",\"tried\"").unwrap();
        row.facts.replace_range(from..to, "\"asked\":null");
    });
    assert!(matches!(half, Unreadable::Incomplete), "{half:?}");
    let mut newer = good;
    Arc::make_mut(&mut newer.grounds).format = 2;
    assert!(kept::record(&newer).is_err());
}
