//! The wait for an answer's head, and whose fault it is that none comes.

use async_trait::async_trait;
use tieline_types::EventStream;

use super::*;
use crate::carry::breaker::Key;

fn key(host: &str, model: &str) -> Key {
    Key { host: host.into(), model: model.into(), key: "k".into(), turn: 0 }
}

/// A host that nobody can connect to.
#[derive(Debug)]
struct Away(&'static str);

#[async_trait]
impl Backend for Away {
    fn name(&self) -> &str {
        self.0
    }

    fn zone(&self) -> Zone {
        Zone::Cloud
    }

    async fn run(&self, _: Request) -> Result<EventStream, BackendError> {
        let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        Err(BackendError::new(ErrorKind::Upstream, "no connection").with_source(cause))
    }
}

/// It loads for 25 s and reads the prompt for 10 s before it says anything at all.
#[tokio::test(start_paused = true)]
async fn a_head_that_comes_before_the_first_token_has_to_is_waited_for() {
    for zone in [Zone::Lan, Zone::Cloud] {
        for (after, want) in [(35, ANSWERED), (59, ANSWERED), (121, "refused: <Timeout>")] {
            let one = Flaky::new("one", zone, [hi().after(seconds(after))]);
            let (watch, _) = watched();
            let usual = Candidate::new(Arc::clone(&one) as Arc<dyn Backend>);
            let attempts = Attempts::new(vec![usual], Limits::default(), watch);
            assert_eq!(heard(&attempts).await, want, "{zone:?} {after}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_is_silent_before_the_head_or_says_that_it_was_slow_is_a_model_that_fails() {
    let silent = || Script::answers(Vec::new()).after(seconds(100));
    for script in [silent(), refuses(ErrorKind::Timeout), refuses(ErrorKind::Unavailable)] {
        let one = Flaky::new("one", Zone::Cloud, [script]);
        let (watch, _) = watched();
        let first = Candidate { breaker: Some(key("h", "m")), ..candidate(&one) };
        let attempts = Attempts::new(vec![first], Limits::default(), watch.clone());
        for _ in 0..5 {
            heard(&attempts).await;
        }
        let now = Instant::now().into_std();
        let breakers = watch.breakers.lock().unwrap();
        assert_eq!(breakers.open(now)[0].scope.reason(), "model_failing");
        assert!(breakers.allows(&key("h", "other"), now).is_ok());
        assert!(watch.network.lock().unwrap().allows(now));
    }
}

#[tokio::test(start_paused = true)]
async fn who_cannot_be_connected_to_is_a_host_that_is_away() {
    let (watch, log) = watched();
    let away = |name: &'static str| {
        let backend: Arc<dyn Backend> = Arc::new(Away(name));
        Candidate { breaker: Some(key(name, "m")), ..Candidate::new(backend) }
    };
    let attempts = Attempts::new(vec![away("one"), away("two")], Limits::default(), watch.clone());
    assert_eq!(heard(&attempts).await, "refused: <Upstream>");
    assert!(!watch.network.lock().unwrap().allows(Instant::now().into_std()));
    for _ in 0..4 {
        heard(&attempts).await;
    }
    assert_eq!(log.lock().unwrap().len(), 10);
    let open = watch.breakers.lock().unwrap().open(Instant::now().into_std());
    assert!(open.iter().all(|one| one.scope.reason() == "host_unreachable"), "{open:?}");
    // Whoever refuses is there.
    let there = Flaky::new("one", Zone::Cloud, [refuses(ErrorKind::Busy)]);
    heard(&Attempts::new(vec![candidate(&there)], Limits::default(), watch.clone())).await;
    assert!(watch.network.lock().unwrap().allows(Instant::now().into_std()));
}
