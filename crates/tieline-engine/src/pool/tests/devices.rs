//! Models on devices with memory of their own.

use super::*;

fn on(name: &str, first: u64, second: u64) -> (Member, Duration) {
    let mut member = member(name, 10);
    (member.devices[0], member.devices[1]) = (Bytes(first), Bytes(second));
    (member, SECOND)
}

async fn with_devices(members: Vec<(Member, Duration)>) -> Pool {
    let (pool, _) = pool(100, members);
    let budget = |name: &str| DeviceBudget { name: name.to_owned(), bytes: Bytes(100) };
    pool.devices(["G0", "G1"].map(budget).to_vec()).await.unwrap();
    pool
}

#[tokio::test(start_paused = true)]
async fn a_model_leaves_for_another_on_the_same_device_alone() {
    let members = vec![on("a", 60, 0), on("b", 0, 60), on("c", 60, 0), on("large", 0, 101)];
    let pool = with_devices(members).await;
    for name in ["a", "b", "c"] {
        ask(&pool, name).await.unwrap();
    }
    let overview = pool.overview().await.unwrap();
    let left: Vec<_> = overview.evictions.iter().map(|one| one.model.as_str()).collect();
    assert_eq!((overview.taken, left), (Bytes(20), vec!["a"]));
    let error = ask(&pool, "large").await.unwrap_err();
    let want = "large needs 101 B of G1, and the models' budget leaves 100 B for it";
    assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::OutOfMemory, want));
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_placed_otherwise_has_another_size() {
    let pool = with_devices(vec![on("a", 60, 0), on("b", 60, 0)]).await;
    let mut smaller = size(30);
    smaller.devices[0] = Bytes(40);
    assert!(pool.resize("b", smaller).await.unwrap());
    for name in ["a", "b"] {
        ask(&pool, name).await.unwrap();
    }
    let overview = pool.overview().await.unwrap();
    assert_eq!((overview.taken, overview.evictions.len()), (Bytes(40), 0));
    pool.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn adapters_take_nothing_of_a_device() {
    let pool = with_devices(vec![on("a", 60, 0)]).await;
    ask(&pool, "a").await.unwrap();
    let begun = Instant::now();
    ask_with(&pool, "a", &[(1, 50)]).await.unwrap();
    assert!(begun.elapsed() < 5 * SECOND, "it waited for room: {:?}", begun.elapsed());
    assert_eq!(pool.overview().await.unwrap().taken, Bytes(60));
    pool.shutdown().await;
}
