//! What a runner is told of its kernels and of the model's pace, and what is kept of what it says.

use std::time::{Duration, SystemTime};

use tieline_types::{LoadParams, LoadedModel};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::life::Life;
use crate::choices::{self, Chooser};
use crate::paces::{self, Setting};
use crate::probe;

/// How long the disk may take to tell or to keep something: a model is not worth waiting for that.
const PATIENCE: Duration = Duration::from_secs(5);

impl Life<'_> {
    /// How to load: with what earlier loads found out. Where no choice of kernels can be kept, none is measured, or they might
    /// be others at every start.
    pub(super) async fn choose(&mut self) -> LoadParams {
        let mut params = self.supervisor.params.clone();
        let measures = std::mem::take(&mut params.measure_kernels);
        let Some(chooser) = self.chooser().await else { return params };
        let (choices, paces) =
            (self.supervisor.config.kernel_choices.clone(), self.supervisor.config.paces.clone());
        let choices = choices.filter(|_| measures);
        let setting =
            Setting::new(chooser.clone(), &self.build, &params).filter(|_| paces.is_some());
        let asked = (chooser.clone(), setting.clone());
        let know = move || {
            let ((chooser, setting), now) = (asked, SystemTime::now());
            let choices = choices.map(|path| choices::known(&path, &chooser, now));
            let paces =
                paces.zip(setting).map(|(path, setting)| paces::known(&path, &setting, now));
            (choices, paces.unwrap_or_default())
        };
        // A disk that does not tell is not asked to keep anything either.
        if let Ok(Ok((choices, paces))) = timeout(PATIENCE, spawn_blocking(know)).await {
            if let Some(choices) = choices {
                (params.kernel_choices, params.measure_kernels) = (choices, true);
                self.chooser = Some(chooser);
            }
            params.paces = paces;
            self.setting = setting;
        }
        params
    }

    /// Who it is that chooses and measures; `None` where nobody keeps it, or it cannot be told.
    async fn chooser(&mut self) -> Option<Chooser> {
        let content = timeout(PATIENCE, self.child.content()).await.ok()??;
        let kernels = self.build.kernels.clone();
        let chooser = move || {
            let processor = probe::machine().processor;
            Chooser { runner: content.hex(), processor, kernels }
        };
        timeout(PATIENCE, spawn_blocking(chooser)).await.ok()?.ok()
    }

    /// Keeps what the runner chose, before anybody computes by it. What cannot be kept is measured again.
    pub(super) async fn keep_choices(&mut self, loaded: &LoadedModel) {
        let path = self.supervisor.config.kernel_choices.clone();
        if let (Some(path), Some(chooser)) = (path, self.chooser.take()) {
            let chosen = loaded.kernel_choices.clone();
            let keep = move || choices::keep(&path, chooser, &chosen, SystemTime::now());
            // Nobody can do anything about it.
            drop(timeout(PATIENCE, spawn_blocking(keep)).await);
        }
    }

    /// Keeps what the runner measured, for which nobody waits.
    pub(super) fn keep_paces(&mut self, loaded: &LoadedModel) {
        let (path, setting) = (self.supervisor.config.paces.clone(), self.setting.take());
        if let (Some(path), Some(setting), false) = (path, setting, loaded.paces.is_empty()) {
            let paces = (loaded.paces.clone(), loaded.paces_disturbed);
            let keep = move || paces::keep(&path, setting, paces, SystemTime::now());
            drop(spawn_blocking(keep));
        }
    }
}
