//! The loader of real models: a runner process for each.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use tieline_types::{BackendError, ErrorKind, LoadParams, ModelFile};

use super::{Loader, Resident};
use crate::config::EngineConfig;
use crate::local::LocalModel;

/// Starts a runner for each model that is asked for.
#[derive(Debug)]
pub struct Runners {
    config: EngineConfig,
    models: HashMap<String, (ModelFile, LoadParams)>,
}

impl Runners {
    /// A loader of these models, by their names in the pool.
    pub fn new(config: EngineConfig, models: HashMap<String, (ModelFile, LoadParams)>) -> Self {
        Self { config, models }
    }
}

#[async_trait]
impl Loader for Runners {
    async fn load(&self, name: &str) -> Result<Arc<dyn Resident>, BackendError> {
        let (file, params) = self.models.get(name).cloned().ok_or_else(|| {
            let text = format!("nothing is known of a model {name:?}");
            BackendError::new(ErrorKind::Internal, text)
        })?;
        let start = LocalModel::start(self.config.clone(), name.to_owned(), file, params, |_| {});
        Ok(Arc::new(Box::pin(start).await?))
    }
}
