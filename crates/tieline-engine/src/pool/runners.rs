//! The loader of real models: a runner process for each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tieline_types::{BackendError, Digest, ErrorKind, LoadParams, ModelFile};

use super::{Loader, Resident};
use crate::config::{Death, DeathListener, EngineConfig};
use crate::local::LocalModel;

/// Starts a runner for each model that is asked for. One whose runners died too often is not started
/// again for as long as this lives.
#[derive(Debug)]
pub struct Runners {
    config: EngineConfig,
    models: Mutex<HashMap<String, (ModelFile, LoadParams)>>,
    quarantined: Quarantined,
}

/// Why models are not started.
type Quarantined = Arc<Mutex<HashMap<Digest, String>>>;

impl Runners {
    /// A loader of these models, by their names in the pool.
    pub fn new(mut config: EngineConfig, models: HashMap<String, (ModelFile, LoadParams)>) -> Self {
        let quarantined = Quarantined::default();
        let (ours, theirs) = (Arc::clone(&quarantined), config.on_death.take());
        config.on_death = Some(DeathListener::new(move |death| {
            note(&ours, death);
            theirs.iter().for_each(|listener| listener.tell(death));
        }));
        Self { config, models: Mutex::new(models), quarantined }
    }

    /// Adds a model, or changes how one is loaded from now on.
    pub fn add(&self, name: impl Into<String>, file: ModelFile, params: LoadParams) {
        self.models().insert(name.into(), (file, params));
    }

    fn models(&self) -> MutexGuard<'_, HashMap<String, (ModelFile, LoadParams)>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a model is not started, where it is not.
    fn why_not(&self, model: Digest) -> Option<String> {
        let quarantined = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        quarantined.get(&model).cloned()
    }
}

fn note(quarantined: &Quarantined, death: &Death) {
    if let Some(reason) = &death.quarantined {
        let mut quarantined = quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        quarantined.insert(death.digest, reason.clone());
    }
}

#[async_trait]
impl Loader for Runners {
    async fn load(&self, name: &str) -> Result<Arc<dyn Resident>, BackendError> {
        let (file, params) = self.models().get(name).cloned().ok_or_else(|| {
            let text = format!("nothing is known of a model {name:?}");
            BackendError::new(ErrorKind::Internal, text)
        })?;
        if let Some(reason) = self.why_not(file.digest) {
            let text = format!("{name} is quarantined: {reason}");
            return Err(BackendError::new(ErrorKind::Quarantined, text));
        }
        let start = LocalModel::start(self.config.clone(), name.to_owned(), file, params, |_| {});
        Ok(Arc::new(Box::pin(start).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quarantined_model_is_not_started_and_others_hear_of_it() {
        let heard = Arc::new(Mutex::new(0));
        let listener = {
            let heard = Arc::clone(&heard);
            DeathListener::new(move |_| *heard.lock().unwrap() += 1)
        };
        let digest = Digest([1; 32]);
        let file = ModelFile { digest, path: "/nowhere".into() };
        let config =
            EngineConfig { on_death: Some(listener), ..EngineConfig::new("/nowhere/runner") };
        let models = HashMap::from([("m".to_owned(), (file, LoadParams::default()))]);
        let runners = Runners::new(config, models);
        let kind = async || runners.load("m").await.unwrap_err().kind;
        assert_eq!(kind().await, ErrorKind::Unavailable);
        let death = |quarantined| Death { digest, how: "it died".to_owned(), quarantined };
        let listener = runners.config.on_death.clone().unwrap();
        listener.tell(&death(None));
        assert_eq!(kind().await, ErrorKind::Unavailable);
        listener.tell(&death(Some("three died".to_owned())));
        assert_eq!(kind().await, ErrorKind::Quarantined);
        assert_eq!(*heard.lock().unwrap(), 2);
    }
}
