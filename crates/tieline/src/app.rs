//! The parts of Tieline, put together for one command.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use etcetera::{BaseStrategy, choose_base_strategy};
use tieline_engine::{CacheConfig, EngineConfig, JailPolicy, LocalModel, Planner};
use tieline_store::{Catalogue, Environment, Lease, Model, PullOptions, Pulled, Store};
use tieline_types::{Bytes, Composed, Digest, LoadParams, ModelFile, ModelRef};
use tokio::runtime::Runtime;

use crate::args::{self, Global};
use crate::bars::{self, PullBar};
use crate::commands::kv_cost;
use crate::composed::{self, Found};
use crate::crashes;
use crate::env;
use crate::failure::Failure;
use crate::names;
use crate::output::Output;
use crate::planning::{self, Planned};
use crate::prompts::{self, Quota};
use crate::runner::{self, Chosen, Gpu};
use crate::sessions::{Record, Session};

/// The file in the home that keeps which kernels runners chose.
pub(crate) const KERNEL_CHOICES: &str = "kernels.json";
/// How fast models decoded, in Tieline's home.
const PACES: &str = "paces.json";

/// How long threads may take to finish after the command did.
const PATIENCE: Duration = Duration::from_millis(500);

/// What commands work with.
pub(crate) struct App {
    pub(crate) home: PathBuf,
    /// Where what was computed of prompts is kept.
    pub(crate) prompts: PathBuf,
    pub(crate) store: Store,
    pub(crate) catalogue: Catalogue,
    pub(crate) output: Output,
    /// The policy's file, where the user named one.
    pub(crate) policy: Option<PathBuf>,
    /// Whether nobody outside this machine may be asked.
    pub(crate) offline: bool,
    environment: Environment,
    runner: Option<PathBuf>,
    /// Which of the runners beside this program.
    gpu: Gpu,
    jail: JailPolicy,
    runtime: Runtime,
}

/// A model that answers, and what keeps it so.
pub(crate) struct Loaded {
    pub(crate) model: LocalModel,
    /// What it was planned to take, where it could be planned.
    pub(crate) planned: Option<Planned>,
    of: Model,
    _session: Session,
    _leases: Vec<Lease>,
}

impl App {
    pub(crate) fn new(global: Global, output: Output) -> Result<Self, Failure> {
        let prompts = prompts_folder(global.home.as_deref())?;
        let home = home(global.home)?;
        let store = Store::open(&home)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime =
            runtime.map_err(|error| Failure::ours(format!("cannot start threads: {error}")))?;
        Ok(Self {
            home,
            prompts,
            store,
            catalogue: catalogue()?,
            output,
            policy: global.policy,
            offline: global.offline,
            environment: environment(global.offline),
            runner: global.runner,
            gpu: global.gpu,
            jail: policy(global.jail),
            runtime,
        })
    }

    /// Leaves the work of other threads behind: hashing that was interrupted may have seconds to go.
    pub(crate) fn end(self) {
        self.runtime.shutdown_timeout(PATIENCE);
    }

    /// Runs `work` to its end.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// Runs `work` to its end or to Ctrl-C, which drops it.
    pub(crate) fn block_on_interruptible<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        interrupted: &str,
    ) -> Result<T, Failure> {
        self.block_on(async {
            tokio::select! {
                // First: who is asked second is not listening yet when the work has started its processes.
                biased;
                _ = tokio::signal::ctrl_c() => Err(Failure::interrupted(interrupted)),
                result = work => result,
            }
        })
    }

    /// Fetches a model and verifies it.
    pub(crate) fn pull(
        &self,
        reference: &ModelRef,
        name: Option<String>,
        expected: Option<Digest>,
    ) -> Result<Pulled, Failure> {
        let progress = PullBar::new(self.output);
        let options = PullOptions {
            catalogue: &self.catalogue,
            expected,
            name,
            environment: &self.environment,
            progress: &progress,
        };
        let pull = async { Ok(self.store.pull(reference, options).await?) };
        self.block_on_interruptible(
            pull,
            "interrupted: the next pull goes on where this one stopped",
        )
    }

    /// A model that is here.
    pub(crate) fn installed(&self, text: &str) -> Result<Model, Failure> {
        let reference: ModelRef = text.parse()?;
        if let Some(model) = self.find(&reference)? {
            return Ok(model);
        }
        let (message, hint) = names::missing(&self.store, &self.catalogue, text);
        Err(Failure::user(message).with_hint(hint))
    }

    fn find(&self, reference: &ModelRef) -> Result<Option<Model>, Failure> {
        Ok(names::find(&self.store, &self.catalogue, reference)?)
    }

    /// A model that is here, pulled first where it is not.
    pub(crate) fn installed_or_pulled(&self, text: &str) -> Result<Model, Failure> {
        let reference: ModelRef = text.parse()?;
        let model = match self.find(&reference)? {
            Some(model) if !model.missing => model,
            _ => self.pull(&reference, None, None)?.model,
        };
        Ok(composed::answering(model)?)
    }

    /// The model of this name that is here.
    pub(crate) fn here(&self, text: &str) -> Result<Option<Model>, Failure> {
        // A name that cannot be one names nothing.
        let Ok(reference) = text.parse::<ModelRef>() else { return Ok(None) };
        Ok(self.find(&reference)?.filter(|model| !model.missing))
    }

    /// What a name means: a model, pulled first where it is not here, or one that is here with adapters that fit.
    pub(crate) fn composed_or_pulled(&self, text: &str) -> Result<Found, Failure> {
        if Composed::parse(text)?.is_none() {
            let base = self.installed_or_pulled(text)?;
            return Ok(Found { base, adapters: Vec::new() });
        }
        self.composed(text)
    }

    /// What a name means: a model that is here, perhaps with adapters that fit.
    pub(crate) fn composed(&self, text: &str) -> Result<Found, Failure> {
        let found = composed::find(&self.store, &self.catalogue, text)?;
        found.check(&self.store)?;
        Ok(found)
    }

    /// Where prompts are kept and how much of them, by what the user said; `None` for nowhere. A folder
    /// that cannot be used is no reason not to answer.
    pub(crate) fn prompt_cache(&self, quota: Option<Quota>) -> Option<CacheConfig> {
        let quota = prompts::allowed(quota, &self.prompts)?;
        if let Err(error) = prompts::prepare(&self.prompts) {
            let folder = self.prompts.display();
            self.output
                .warn(&format!("prompts are not kept, for {folder} cannot be used: {error}"));
            return None;
        }
        Some(CacheConfig { folder: self.prompts.clone(), quota })
    }

    /// Loads a model. What is computed of prompts is kept in `cache`.
    pub(crate) fn load(
        &self,
        model: &Model,
        (params, most): (LoadParams, Option<Bytes>),
        cache: Option<CacheConfig>,
    ) -> Result<Loaded, Failure> {
        self.load_with(model, None, (params, most), cache)
    }

    /// As [`load`](Self::load), with a draft model that guesses.
    pub(crate) fn load_with(
        &self,
        model: &Model,
        draft: Option<&Model>,
        (params, most): (LoadParams, Option<Bytes>),
        cache: Option<CacheConfig>,
    ) -> Result<Loaded, Failure> {
        let models = || draft.into_iter().chain([model]);
        models().try_for_each(|model| crashes::refuse_quarantined(&self.store, model))?;
        let leases = models().map(|model| self.store.lease(model)).collect::<Result<_, _>>()?;
        let alone = draft.is_none();
        let draft = draft.map(|draft| self.store.open_model(draft)).transpose()?;
        let file = self.store.open_model(model)?;
        // Where there is plenty of room, nobody waits for the plan.
        let size = models().fold(0, |sum: u64, model| sum.saturating_add(model.size.0));
        let roomy =
            planning::is_roomy(Bytes(size), &params, most) && !runner::may_use_gpu(&self.chosen()?);
        let planner = EngineConfig { draft: draft.clone(), ..self.engine()? };
        let plans = (&planner, &file);
        let early = if roomy { None } else { self.plan_load(model, plans, (&params, most))? };
        let params = match &early {
            Some(planned) => planned.load(&params),
            None => params,
        };
        let config = EngineConfig {
            cache,
            draft,
            past_deaths: crashes::recent(&self.store, model),
            on_death: Some(crashes::listener(&self.store)),
            quarantine_hint: Some(crashes::hint(model)),
            ..self.engine()?
        };
        let types = [params.type_k, params.type_v];
        if let Some(partly) = early.as_ref().and_then(Planned::partly) {
            self.output.warn(&partly);
        }
        let late = async {
            match roomy {
                true => self.fits(model, plans, (&params, most)).await.ok().flatten(),
                false => None,
            }
        };
        let (loaded, late) = self.start((config, model, &file), params.clone(), late)?;
        if let Some(warning) = kv_cost::warning(&self.home, model, types, &loaded) {
            self.output.warn(&warning);
        }
        let planned = early.or(late);
        let record = Record::of(model, &loaded, planned.as_ref());
        let session = Session::open(&self.home, &record);
        let of = model.clone();
        // What it holds with another model beside it is no lesson about it.
        let planned = planned.filter(|_| alone);
        Ok(Loaded { model: loaded, planned, of, _session: session, _leases: leases })
    }

    /// Starts a runner and shows how far it is, beside something else.
    fn start<T>(
        &self,
        (config, model, file): (EngineConfig, &Model, &ModelFile),
        params: LoadParams,
        beside: impl Future<Output = T>,
    ) -> Result<(LocalModel, T), Failure> {
        let bar = bars::thousandths(self.output, format!("loading {}", model.name));
        let progress = |share| bar.set_position(thousandths(share));
        let start = LocalModel::start(config, model.name.clone(), file.clone(), params, progress);
        let loading = async {
            let (loaded, beside) = tokio::join!(start, beside);
            Ok((loaded?, beside))
        };
        let loaded = self.block_on_interruptible(loading, "interrupted while loading");
        bar.finish_and_clear();
        loaded
    }

    fn plan_load(
        &self,
        model: &Model,
        plans: (&EngineConfig, &ModelFile),
        params: (&LoadParams, Option<Bytes>),
    ) -> Result<Option<Planned>, Failure> {
        let plan = self.fits(model, plans, params);
        self.block_on_interruptible(plan, "interrupted while planning")
    }

    /// Plans a load and refuses what does not fit. `None`: it cannot be planned, and loading says why.
    async fn fits(
        &self,
        model: &Model,
        (config, file): (&EngineConfig, &ModelFile),
        (params, most): (&LoadParams, Option<Bytes>),
    ) -> Result<Option<Planned>, Failure> {
        let Ok(mut planner) = Planner::start(config, file).await else { return Ok(None) };
        let planned = planning::plan(self, &mut planner, (params, most)).await.ok();
        let miss = planned.as_ref().and_then(|planned| Some((planned, planned.miss.as_ref()?)));
        if let Some((planned, miss)) = miss {
            let smaller = planning::smaller(&self.store, model);
            let fits = planning::instead(config, &smaller, planner, (params, planned)).await;
            return Err(planning::refusal(model, planned, miss, &fits));
        }
        planner.end().await;
        Ok(planned)
    }

    /// How runners are started, without a cache.
    pub(crate) fn engine(&self) -> Result<EngineConfig, Failure> {
        let runner = self.chosen()?.path;
        // What was named stays; else a build that is chosen later is started later.
        let source = self.runner.is_none().then(|| runner::source(self.store.engines(), self.gpu));
        Ok(self.config(EngineConfig { source, ..EngineConfig::new(runner) }))
    }

    /// The same where there is no runner yet: each start looks for one again, and says so where there is none.
    pub(crate) fn engine_without_runner(&self) -> Result<EngineConfig, Failure> {
        let source = Some(runner::source(self.store.engines(), self.gpu));
        Ok(self.config(EngineConfig { source, ..EngineConfig::new(runner::beside()?) }))
    }

    fn config(&self, engine: EngineConfig) -> EngineConfig {
        let [kernel_choices, paces] =
            [KERNEL_CHOICES, PACES].map(|name| Some(self.home.join(name)));
        EngineConfig { jail: self.jail, kernel_choices, paces, ..engine }
    }

    /// What must hold a runner.
    pub(crate) fn jail(&self) -> JailPolicy {
        self.jail
    }

    /// The runner program: the one named, else the build in use, else the one beside this program.
    pub(crate) fn chosen(&self) -> Result<Chosen, Failure> {
        runner::choose(self.runner.as_deref(), &self.store.engines(), self.gpu)
    }

    /// Which of the runners beside this program is used.
    pub(crate) fn gpu(&self) -> Gpu {
        self.gpu
    }

    /// Whether the user named a runner.
    pub(crate) fn named_runner(&self) -> bool {
        self.runner.is_some()
    }

    /// What pulls may use of the world outside.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The Python whose pip fetches models.
    pub(crate) fn python(&self) -> &Path {
        &self.environment.python
    }
}

impl Loaded {
    /// What its process holds now, and its copies of states of that.
    pub(crate) fn held(&self) -> Option<(Bytes, Bytes)> {
        planning::held(&self.model)
    }

    /// Ends the runner.
    pub(crate) fn end(self, app: &App) {
        if let Some(planned) = &self.planned {
            planning::record(&app.store, &self.of, planned, self.held());
        }
        app.block_on(self.model.shutdown());
    }
}

fn policy(given: Option<args::Jail>) -> JailPolicy {
    match given {
        Some(args::Jail::Required) => JailPolicy::Required,
        Some(args::Jail::BestEffort) => JailPolicy::BestEffort,
        None => JailPolicy::default(),
    }
}

fn home(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    match given {
        Some(home) if home.as_os_str().is_empty() => {
            Err(Failure::user(format!("{} is empty: expected a folder", env::HOME)))
        }
        Some(home) => Ok(home),
        None => Ok(strategy()?.data_dir().join("tieline")),
    }
}

/// In a home that was named, else in the system's folder of what can be made again.
fn prompts_folder(home: Option<&Path>) -> Result<PathBuf, Failure> {
    let folder = match home {
        Some(home) => home.join("prompts"),
        None => strategy()?.cache_dir().join("tieline").join("prompts"),
    };
    // The runner's folder is opened by another process.
    Ok(std::path::absolute(&folder).unwrap_or(folder))
}

fn strategy() -> Result<impl BaseStrategy, Failure> {
    choose_base_strategy().map_err(|error| {
        Failure::user(format!("cannot find your home folder: {error}"))
            .with_hint(format!("name a folder with --home or {}", env::HOME))
    })
}

fn catalogue() -> Result<Catalogue, Failure> {
    let internal = |error: tieline_store::catalogue::CatalogueError| {
        Failure::ours(format!("cannot read the built-in catalogue: {error}"))
    };
    let Some(path) = std::env::var_os(env::CATALOGUE).map(PathBuf::from) else {
        return Catalogue::embedded().map_err(internal);
    };
    let unreadable = |why: String| {
        Failure::user(format!("cannot read the catalogue {}: {why}", path.display()))
            .with_hint(format!("mend the file, or unset {}", env::CATALOGUE))
    };
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(error.to_string()))?;
    Catalogue::with_override(&text).map_err(|error| unreadable(error.to_string()))
}

fn environment(offline: bool) -> Environment {
    let text = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let endpoint = text(env::HF_ENDPOINT).unwrap_or_else(|| "https://huggingface.co".to_owned());
    let mut environment = Environment::new(endpoint);
    environment.hugging_face.token = text(env::HF_TOKEN);
    environment.offline = offline;
    if let Some(python) = text(env::PYTHON) {
        environment.python = PathBuf::from(python);
    }
    environment
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 0 and 1000 by the clamp"
)]
fn thousandths(share: f32) -> u64 {
    (share.clamp(0.0, 1.0) * 1000.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_lie_in_a_home_that_was_named_and_else_where_caches_do() {
        let folder = prompts_folder(Some(Path::new("/srv/home"))).unwrap();
        assert_eq!(folder, Path::new("/srv/home/prompts"));
        let folder = prompts_folder(None).unwrap();
        assert!(folder.ends_with("tieline/prompts") && folder.is_absolute());
        assert_ne!(folder.parent(), Some(home(None).unwrap().as_path()));
    }
}
