//! The runner that a canary compares with: the one in use as it begins, held still until it ends.

use std::fs::File;

use tieline_engine::EngineConfig;
use tieline_store::{Engines, OpenRunner};
use tieline_types::Digest;

use crate::app::App;
use crate::failure::Failure;
use crate::runner::{self, Chosen, Why};

/// What is compared with.
pub(super) struct Incumbent {
    chosen: Chosen,
    /// Its content.
    pub(super) digest: Digest,
    held: Held,
}

enum Held {
    /// A build, which nobody can remove meanwhile.
    Build(OpenRunner),
    /// A program outside, open: it is what is started, whatever lies at its place by then.
    Outside(File),
}

impl Incumbent {
    /// The runner in use.
    pub(super) fn of(app: &App, candidate: &str) -> Result<Self, Failure> {
        let (engines, chosen) = (app.store.engines(), app.chosen()?);
        let Why::Pinned(name) = &chosen.why else {
            let digest = engines.content(&chosen.path)?;
            let file = File::open(&chosen.path).map_err(|error| {
                Failure::user(format!("cannot read {}: {error}", chosen.path.display()))
            })?;
            return Ok(Self { chosen, digest, held: Held::Outside(file) });
        };
        if name == candidate {
            return Err(Failure::user(format!(
                "{candidate} is in use: there is nothing to compare it with"
            ))
            .with_hint("name the runner to compare it with: --runner FILE"));
        }
        let open = engines.lease(name)?;
        Ok(Self { digest: open.digest, held: Held::Build(open), chosen })
    }

    /// How it is started, whatever is in use by then.
    pub(super) fn config(&self, app: &App) -> Result<EngineConfig, Failure> {
        let source = match &self.held {
            Held::Build(open) => runner::source_of(app.store.engines(), open.name.clone()),
            Held::Outside(file) => runner::source_of_file(
                self.chosen.path.clone(),
                file.try_clone().map_err(|error| {
                    Failure::ours(format!("cannot hold {}: {error}", self.chosen.path.display()))
                })?,
            ),
        };
        let runner = self.chosen.path.clone();
        Ok(EngineConfig { runner, source: Some(source), ..app.engine()? })
    }

    /// Refuses what was compared with something that changed meanwhile. The files of a build were looked at before
    /// each start.
    pub(super) fn unchanged(&self, engines: &Engines) -> Result<(), Failure> {
        if matches!(self.held, Held::Outside(_))
            && engines.content(&self.chosen.path)? != self.digest
        {
            return Err(Failure::user(format!(
                "{} changed while it was compared: what was found is of no runner",
                self.chosen.path.display()
            ))
            .with_hint("run the canary again"));
        }
        Ok(())
    }

    /// What it is, for people.
    pub(super) fn words(&self) -> String {
        format!("{} ({})", self.chosen.path.display(), self.chosen.why)
    }
}
