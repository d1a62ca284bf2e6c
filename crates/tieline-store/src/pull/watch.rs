//! Looks at work from time to time while it runs.

use std::time::Duration;

const EVERY: Duration = Duration::from_millis(200);

/// Runs `work` to its end, calling `look` now and then.
pub(crate) async fn watch<T>(work: impl Future<Output = T>, mut look: impl FnMut()) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        match tokio::time::timeout(EVERY, &mut work).await {
            Ok(done) => return done,
            Err(_) => look(),
        }
    }
}
