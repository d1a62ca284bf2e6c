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
async fn adapters_take_of_their_models_device() {
    let pool = with_devices(vec![on("a", 60, 0), on("b", 0, 60)]).await;
    for name in ["a", "b"] {
        ask(&pool, name).await.unwrap();
    }
    ask_with(&pool, "a", &[(1, 30)]).await.unwrap();
    let taken = |overview: &Overview| {
        let devices = overview.devices.iter().map(|one| (one.name.clone(), one.taken.0));
        (overview.taken.0, devices.collect::<Vec<_>>())
    };
    let overview = pool.overview().await.unwrap();
    let own = |device: &str, bytes| (device.to_owned(), bytes);
    assert_eq!(taken(&overview), (50, vec![own("G0", 90), own("G1", 60)]));
    let parts = overview.members.iter().flat_map(|member| &member.devices);
    let parts: Vec<_> = parts.map(|one| (one.name.clone(), one.bytes.0)).collect();
    assert_eq!(parts, [own("G0", 60), own("G1", 60)], "as planned");
    // Another one's room is that of the first, which nobody uses; the model of the other device stays.
    ask_with(&pool, "a", &[(2, 40)]).await.unwrap();
    let overview = pool.overview().await.unwrap();
    assert_eq!(taken(&overview), (60, vec![own("G0", 100), own("G1", 60)]));
    assert!(overview.evictions.is_empty(), "{:?}", overview.evictions);
    let error = ask_with(&pool, "a", &[(3, 41)]).await.unwrap_err();
    let want = "a with the adapters asked for needs 101 B of G0, and the models' budget leaves 100 B for it";
    assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::OutOfMemory, want));
    pool.shutdown().await;
}
