use super::*;
use crate::requests::RequestRow;

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, store)
}

fn grounds(candidates: &str) -> Arc<Grounds> {
    Arc::new(Grounds {
        policy: Some(Digest([7; 32])),
        program: "1.2.3".to_owned(),
        format: 1,
        candidates: candidates.to_owned(),
    })
}

fn row(id: &str, at_unix_ms: i64, grounds: &Arc<Grounds>) -> DecisionRow {
    DecisionRow {
        id: id.to_owned(),
        at_unix_ms,
        key: "k".to_owned(),
        grounds: Arc::clone(grounds),
        facts: format!("{{\"plan\":{{\"asked\":\"auto\"}},\"id\":\"{id}\"}}"),
    }
}

fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.db.run("count", |db| db.query_row(&sql, [], first)).unwrap()
}

fn ids(store: &Store, span: (i64, i64)) -> Vec<String> {
    let mut ids = Vec::new();
    store.decisions_between(span, |row| ids.push(row.unwrap().id)).unwrap();
    ids
}

#[test]
fn a_decision_comes_back_as_it_was_written_after_a_restart_too() {
    let (folder, store) = store();
    let here = Arc::new(Grounds { policy: None, ..grounds("[]").as_ref().clone() });
    let rows = [row("a", 5, &grounds("[1]")), row("b", 6, &grounds("[2]")), row("c", 7, &here)];
    store.record(&[RequestRow::default()], &rows).unwrap();
    drop(store);
    let store = Store::open(folder.path()).unwrap();
    for row in &rows {
        assert_eq!(store.decision(&row.id).unwrap().unwrap().as_ref(), Ok(row));
    }
    assert_eq!(store.decision("d").unwrap(), None);
    // With the rows of its request, or not at all.
    assert_eq!(store.latest_requests(9).unwrap().len(), 1);
}

#[test]
fn grounds_are_kept_once() {
    let (_folder, store) = store();
    let shared = grounds("[1]");
    for id in ["a", "b"] {
        store.record(&[], &[row(id, 5, &shared), row(id, 5, &grounds("[1]"))]).unwrap();
    }
    assert_eq!((count(&store, "decisions"), count(&store, "grounds")), (4, 1));
    let other = |change: fn(&mut Grounds)| {
        let mut other = shared.as_ref().clone();
        change(&mut other);
        store.record(&[], &[row("c", 5, &Arc::new(other))]).unwrap();
        count(&store, "grounds")
    };
    assert_eq!(other(|grounds| grounds.policy = None), 2);
    assert_eq!(other(|grounds| grounds.program.push('0')), 3);
    assert_eq!(other(|grounds| grounds.format = 2), 4);
    assert_eq!(other(|grounds| grounds.candidates.push(' ')), 5);
}

#[test]
fn the_latest_come_first_and_a_span_has_its_own() {
    let (_folder, store) = store();
    let shared = grounds("[]");
    let mut rows: Vec<_> = (1..=5_i64).map(|at| row(&format!("r{at}"), at, &shared)).collect();
    rows[3].key = "other".to_owned();
    store.record(&[], &rows).unwrap();
    assert_eq!(ids(&store, (2, 5)), ["r2", "r3", "r4"]);
    let latest = |key: Option<&str>, most: usize| {
        let mut seen = Vec::new();
        let each = |row: Result<DecisionRow, Damaged>| {
            seen.push(row.unwrap().id);
            seen.len() < most
        };
        store.latest_decisions(key, each).unwrap();
        seen
    };
    assert_eq!(latest(None, 2), ["r5", "r4"]);
    assert_eq!(latest(Some("k"), 2), ["r5", "r3"]);
    assert_eq!(latest(Some("nobody"), 2), [""; 0]);
    // Of several answers to one call the last one is meant.
    let again = DecisionRow { facts: "{}".to_owned(), ..row("r1", 1, &shared) };
    store.record(&[], std::slice::from_ref(&again)).unwrap();
    assert_eq!(store.decision("r1").unwrap().unwrap(), Ok(again));
}

#[test]
fn a_row_that_is_damaged_is_told_and_the_others_are_read() {
    let (_folder, store) = store();
    let (one, other) = (grounds("[1]"), grounds("[2]"));
    let rows = [row("a", 1, &one), row("b", 2, &one), row("c", 3, &other), row("d", 4, &one)];
    store.record(&[], &rows).unwrap();
    let harm = |sql: &str| store.db.run("harm", |db| db.execute(sql, []).map(drop)).unwrap();
    harm("UPDATE decisions SET body = x'00' WHERE id = 'a'");
    harm("DELETE FROM grounds WHERE number = 2");
    // One bit in the middle.
    let sql = "SELECT body FROM decisions WHERE id = 'd'";
    let mut body: Vec<u8> =
        store.db.run("read", |db| db.query_row(sql, [], |row| row.get(0))).unwrap();
    let middle = body.len() / 2;
    body[middle] ^= 4;
    let sql = "UPDATE decisions SET body = ?1 WHERE id = 'd'";
    store.db.run("harm", |db| db.execute(sql, [body]).map(drop)).unwrap();
    let mut seen = Vec::new();
    store.decisions_between((0, 9), |row| seen.push(row.map(|row| row.id))).unwrap();
    let damaged = |id: &str| Err(Damaged { id: id.to_owned() });
    assert_eq!(seen, [damaged("a"), Ok("b".to_owned()), damaged("c"), damaged("d")]);
    assert_eq!(store.decision("c").unwrap(), Some(Err(Damaged { id: "c".to_owned() })));
}

#[test]
fn what_is_old_and_what_is_too_much_goes_the_oldest_first() {
    let (_folder, store) = store();
    let (old, new) = (grounds("[1]"), grounds("[2]"));
    store.record(&[], &[row("a", 1, &old), row("b", 2, &old)]).unwrap();
    store.record(&[], &[row("c", 3, &new), row("d", 4, &new), row("e", 5, &new)]).unwrap();
    assert!(!store.forget_decisions(9).unwrap());
    assert_eq!(count(&store, "decisions"), 5);
    store.forget_decisions(KEPT_MS + 3).unwrap();
    assert_eq!(ids(&store, (0, 9)), ["c", "d", "e"]);
    assert_eq!(count(&store, "grounds"), 1);
    let taken = store.decisions_bytes().unwrap();
    store.forget_decisions_beyond(0, taken).unwrap();
    assert_eq!(ids(&store, (0, 9)), ["d", "e"]);
    store.forget_decisions_beyond(0, Bytes(0)).unwrap();
    assert_eq!((count(&store, "decisions"), count(&store, "grounds")), (0, 1));
    // Grounds whose decisions are gone serve the next ones, and go with them.
    store.record(&[], &[row("f", 6, &new)]).unwrap();
    store.record(&[], &[row("g", 7, &old)]).unwrap();
    store.forget_decisions_beyond(7, Bytes(1 << 20)).unwrap();
    assert_eq!((ids(&store, (0, 9)), count(&store, "grounds")), (vec!["g".to_owned()], 1));
}

#[test]
fn what_is_kept_is_bounded_however_much_is_written() {
    let (_folder, store) = store();
    let shared = grounds("[]");
    let most = Bytes(50_000);
    for batch in 0..20_i64 {
        let rows: Vec<_> = (0..50).map(|_| row("x", batch, &shared)).collect();
        store.record(&[], &rows).unwrap();
        assert!(!store.forget_decisions_beyond(0, most).unwrap());
    }
    let left = store.decisions_bytes().unwrap();
    assert!(left <= most && left.0 > most.0 / 2, "{left:?}");
    // The newest are those that stay.
    let kept = i64::try_from(ids(&store, (0, 99)).len()).unwrap();
    assert_eq!(ids(&store, (20 - kept / 50, 99)).len(), usize::try_from(kept / 50 * 50).unwrap());
}

#[test]
fn rows_from_before_stay_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let old = Connection::open(folder.path().join("store.sqlite")).unwrap();
    for step in [
        include_str!("../../migrations/0001_models.sql"),
        include_str!("../../migrations/0002_ledger.sql"),
        include_str!("../../migrations/0003_overlays.sql"),
        include_str!("../../migrations/0004_keys.sql"),
        include_str!("../../migrations/0005_money.sql"),
        "INSERT INTO requests (id, at_unix_ms, key, dialect, operation, model, reason, outcome, total_us,
            cost_micro_usd) VALUES ('old', 1, '', 'openai', 'chat', 'big', 'chosen', 'answered', 9, 740)",
    ] {
        old.execute_batch(step).unwrap();
    }
    old.pragma_update(None, "user_version", 5).unwrap();
    drop(old);
    let store = Store::open(folder.path()).unwrap();
    let request = store.latest_requests(1).unwrap().remove(0);
    assert_eq!((request.id.as_str(), request.cost), ("old", Some(tieline_types::MicroUsd(740))));
    assert_eq!(store.decision("old").unwrap(), None);
    let row = row("new", 2, &grounds("[]"));
    store.record(&[request], std::slice::from_ref(&row)).unwrap();
    assert_eq!(store.decision("new").unwrap(), Some(Ok(row)));
}

#[test]
fn what_is_no_text_is_damaged_alone() {
    for change in [
        "UPDATE decisions SET id = CAST(x'ff' AS TEXT) WHERE id = 'a'",
        "UPDATE decisions SET key = CAST(x'ff' AS TEXT) WHERE id = 'a'",
        "UPDATE decisions SET body = x'00' WHERE id = 'a'",
        "UPDATE decisions SET grounds = 99 WHERE id = 'a'",
        "UPDATE grounds SET program = CAST(x'ff' AS TEXT) WHERE number = 1",
        "UPDATE grounds SET body = x'00' WHERE number = 1",
    ] {
        let (_folder, store) = store();
        store.record(&[], &[row("a", 5, &grounds("[1]")), row("b", 6, &grounds("[2]"))]).unwrap();
        store.db.run("damage", |db| db.execute(change, [])).unwrap();
        let mut read = Vec::new();
        store.decisions_between((0, 9), |row| read.push(row.map(|row| row.id))).unwrap();
        let [Err(Damaged { .. }), Ok(sound)] = &read[..] else { panic!("{change}: {read:?}") };
        assert_eq!(sound, "b", "{change}");
    }
}

#[test]
fn a_reading_of_many_grounds_remembers_few_of_them() {
    let (_folder, store) = store();
    let rows: Vec<_> = (0..100).map(|at| row("a", at, &grounds(&format!("[{at}]")))).collect();
    store.record(&[], &rows).unwrap();
    store
        .db
        .run("read", |db| {
            let mut reader = Reader::new(db);
            let mut statement = db.prepare(SELECT)?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                assert!(reader.read(row)?.is_ok() && reader.known.len() <= KNOWN);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn packing_many_grounds_remembers_few_of_them() {
    let mut packing = Packing::default();
    for at in 0..20 {
        packing.pack(row("a", at, &grounds(&format!("[{at}]")))).unwrap();
        assert!(packing.known.len() <= PACKERS);
    }
}
