//! How often a key may ask: a bucket that fills evenly over a minute.

use std::time::Duration;

use tokio::time::Instant;

/// Requests that are left, and since when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    most: f64,
    left: f64,
    since: Instant,
}

impl Bucket {
    /// Full.
    pub(crate) fn new(per_minute: u32, now: Instant) -> Self {
        let most = f64::from(per_minute.max(1));
        Self { most, left: most, since: now }
    }

    /// Takes one.
    ///
    /// # Errors
    /// None is left: after so long there will be one.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let per_second = self.most / 60.0;
        let passed = now.saturating_duration_since(self.since).as_secs_f64();
        self.left = (self.left + passed * per_second).min(self.most);
        self.since = now;
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / per_second));
        }
        self.left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_as_many_as_it_holds_and_fills_again() {
        let now = Instant::now();
        let mut bucket = Bucket::new(3, now);
        for _ in 0..3 {
            bucket.take(now).unwrap();
        }
        assert_eq!(bucket.take(now), Err(Duration::from_secs(20)));
        assert!(bucket.take(now + Duration::from_millis(19_900)).is_err());
        bucket.take(now + Duration::from_millis(20_100)).unwrap();
        // However long nobody asks, it holds no more than its most.
        let later = now + Duration::from_secs(3600);
        (0..3).for_each(|_| bucket.take(later).unwrap());
        assert!(bucket.take(later).is_err());
    }
}
