//! What a runner is told of its kernels, and what is kept of what it says.

use std::time::{Duration, SystemTime};

use tieline_types::{LoadParams, LoadedModel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::life::Life;
use crate::choices::{self, Chooser};
use crate::probe;

/// How long the disk may take to tell or to keep a choice: a model is not worth waiting for that.
const PATIENCE: Duration = Duration::from_secs(5);

impl Life<'_> {
    /// How to load: where kernels are to be measured, with what was chosen before. Where nothing can be kept, they are
    /// not measured, or they might be others at every start.
    pub(super) async fn choose(&mut self) -> LoadParams {
        let mut params = self.supervisor.params.clone();
        let path = self.supervisor.config.kernel_choices.clone().filter(|_| params.measure_kernels);
        let content = timeout(PATIENCE, self.child.content()).await.ok().flatten();
        let (Some(path), Some(content)) = (path, content) else {
            params.measure_kernels = false;
            return params;
        };
        let kernels = self.build.kernels.clone();
        let chooser = move || {
            let processor = probe::machine().processor;
            let chooser = Chooser { runner: content.hex(), processor, kernels };
            let known = choices::known(&path, &chooser, SystemTime::now());
            (chooser, known)
        };
        match timeout(PATIENCE, spawn_blocking(chooser)).await {
            Ok(Ok((chooser, known))) => {
                params.kernel_choices = known;
                self.chooser = Some(chooser);
            }
            Ok(Err(_)) | Err(_) => params.measure_kernels = false,
        }
        params
    }

    /// Keeps what the runner chose. What cannot be kept is measured again.
    pub(super) async fn keep_choices(&mut self, loaded: &LoadedModel) {
        let path = self.supervisor.config.kernel_choices.clone();
        if let (Some(path), Some(chooser)) = (path, self.chooser.take()) {
            let chosen = loaded.kernel_choices.clone();
            let keep = move || choices::keep(&path, chooser, &chosen, SystemTime::now());
            // Nobody can do anything about it.
            drop(timeout(PATIENCE, spawn_blocking(keep)).await);
        }
    }
}
