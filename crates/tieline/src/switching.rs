//! Puts the parts of a policy together: reads it, fetches its keys, and makes its backends speak.

mod checks;
mod git;
mod keys;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_privacy::{Detectors, Dictionary, Guard, GuardLimits, Guarded, RootKey};
use tieline_providers::{Endpoint, Secret, Speaker, Transport};
use tieline_router::carry::Checker;
use tieline_router::choose::Candidate;
use tieline_router::policy::{BackendPolicy, Policy};
use tieline_router::prices::{PriceSource, Priced, Prices, Target};
use tieline_router::switch::Known;
use tieline_router::{RemoteModel, Setup};
use tieline_store::Store;
use tieline_store::budget::Till;
use tieline_types::{Price, Tokens};

use crate::app::App;
use crate::commands::prices;
use crate::failure::{Failure, with_causes};
use crate::runner::Gpu;
use checks::Checks;

pub(crate) use watch::{HangUp, Watch, keep};

/// How long a request may be looked through before it leaves. The longest that may be takes half a second on a
/// machine with nothing else to do.
const LONGEST_LOOK: Duration = Duration::from_secs(10);

/// The policy's name in the folder of models and state.
const FILE: &str = "policy.toml";

/// Where a policy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) path: PathBuf,
    /// Whether the user named it: then it must be there.
    named: bool,
}

impl Place {
    /// What the user named, else the usual place.
    pub(crate) fn of(app: &App) -> Self {
        match &app.policy {
            Some(path) => Self { path: path.clone(), named: true },
            None => Self { path: app.home.join(FILE), named: false },
        }
    }

    /// Another file, where one is named.
    pub(crate) fn or(self, file: Option<&Path>) -> Self {
        file.map_or(self, |path| Self { path: path.to_owned(), named: true })
    }

    /// The text of it; `None` where there is none and none has to be.
    pub(crate) fn read(&self) -> Result<Option<String>, Failure> {
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.named => Ok(None),
            Err(error) => {
                let path = self.path.display();
                Err(Failure::user(format!("cannot read the policy {path}: {error}")))
            }
        }
    }

    /// The policy; the one that lets nothing leave where there is none.
    pub(crate) fn policy(&self) -> Result<Policy, Failure> {
        self.read()?.map_or_else(|| Ok(Policy::default()), |text| parse(&text, &self.path))
    }
}

/// Reads a policy.
pub(crate) fn parse(text: &str, path: &Path) -> Result<Policy, Failure> {
    Policy::parse(text).map_err(|error| {
        let path = path.display();
        Failure::user(format!("the policy {path} cannot be used:\n{error}"))
            .with_hint("docs/policy.md says what a policy may hold")
    })
}

/// What outlives a policy: whose keys and prices are known, and where money is.
#[derive(Clone)]
pub(crate) struct Workshop {
    transport: Arc<Transport>,
    root: [u8; 32],
    money: Option<(Till, Store)>,
    offline: bool,
    store: Store,
    checks: Arc<Checks>,
    /// Which of the runners beside this program.
    gpu: Gpu,
}

impl Workshop {
    /// With a secret of its own for pseudonyms; `money`: where it is reserved.
    pub(crate) fn new(app: &App, money: Option<(Till, Store)>) -> Result<Self, Failure> {
        let mut root = [0; 32];
        getrandom::fill(&mut root)
            .map_err(|error| Failure::ours(format!("the system gives no random bytes: {error}")))?;
        Ok(Self {
            transport: Arc::default(),
            root,
            money,
            offline: app.offline,
            store: app.store.clone(),
            checks: Arc::default(),
            gpu: app.gpu(),
        })
    }

    /// Puts a policy's parts together. A backend that cannot be used is left out, with the reason: the others
    /// can be asked all the same.
    pub(crate) fn setup(&self, mut policy: Policy) -> Result<(Setup, Vec<Failure>), Failure> {
        checks::find_all(&mut policy)?;
        let detectors = Arc::new(detectors(&policy)?);
        let limits = GuardLimits::default();
        let guard = Guard::new(Arc::clone(&detectors), RootKey::new(self.root), limits)
            .with_stopwatch(Arc::new(|| {
                let since = Instant::now();
                Box::new(move || since.elapsed() > LONGEST_LOOK)
            }));
        let guard = Arc::new(guard);
        let prices = prices::with_policy(&self.store, &policy)?;
        let (mut remotes, mut left_out) = (Vec::new(), Vec::new());
        for (name, backend) in &policy.backends {
            match self.backend((name, backend), &policy, (&guard, &prices)) {
                Ok(models) => remotes.extend(models),
                Err(failure) => left_out.push(failure),
            }
        }
        let (money, offline) = (self.money.clone(), self.offline);
        let known = Arc::new(self.known()?);
        let checker = Some(Arc::clone(&self.checks) as Arc<dyn Checker>);
        let setup = Setup { policy, remotes, detectors, guard, money, offline, known, checker };
        Ok((setup, left_out))
    }

    /// What the store knows of models now.
    fn known(&self) -> Result<Known, Failure> {
        let now_unix_s = jiff::Timestamp::now().as_second();
        Known::read(&self.store, now_unix_s).map_err(|error| Failure::ours(with_causes(&error)))
    }

    fn backend(
        &self,
        (name, backend): (&str, &BackendPolicy),
        policy: &Policy,
        (guard, prices): (&Arc<Guard>, &Prices),
    ) -> Result<Vec<RemoteModel>, Failure> {
        let key = backend.key.as_ref().map(|source| keys::read(name, source)).transpose()?;
        let prefix = format!("{name}/");
        let candidates = policy.remote_candidates();
        let own = candidates.into_iter().filter(|one| one.name.starts_with(&prefix));
        own.map(|mut candidate| {
            let model = candidate.name[prefix.len()..].to_owned();
            let vendor = vendor(backend);
            let speaker = self.speaker(&candidate.name, &model, (backend, policy), key.clone())?;
            let target = Target { backend: name, vendor: &vendor, model: &model };
            let price = priced(candidate.price, target, prices);
            candidate.set_tariff(price.as_ref().map(Priced::tariff));
            let circuit = tieline_router::carry::breaker::Key {
                host: backend.url.clone(),
                model: model.clone(),
                key: name.to_owned(),
                turn: 0,
            };
            let guarded = Guarded::new(Arc::new(speaker), Arc::clone(guard));
            Ok(RemoteModel { candidate, guarded, price, vendor, circuit })
        })
        .collect()
    }

    fn speaker(
        &self,
        name: &str,
        model: &str,
        (backend, policy): (&BackendPolicy, &Policy),
        key: Option<Secret>,
    ) -> Result<Speaker, Failure> {
        let endpoint = Endpoint {
            name: name.to_owned(),
            zone: backend.zone,
            base_url: backend.url.clone(),
            key,
            model: model.to_owned(),
            headers: Vec::new(),
            connect: policy.deadlines.connect,
        };
        let context: Option<Tokens> = backend.models.get(model).and_then(|known| known.context);
        let protocol = protocol::of(backend, context)?;
        Speaker::new(endpoint, protocol, &self.transport)
            .map_err(|error| Failure::user(format!("backend of {name}: {error}")))
    }
}

/// What looks for all that this policy calls private.
fn detectors(policy: &Policy) -> Result<Detectors, Failure> {
    let mut terms = policy.terms.clone();
    if let Some(projects) = &policy.git_identity {
        terms.extend(git::identities(projects)?);
    }
    Detectors::new(&Dictionary { terms }).map_err(|error| {
        Failure::user(format!("`terms` or `git_identity` of the policy cannot be used: {error}"))
    })
}

/// Whether all that a backend lacks is its key: a server that can read it asks it.
pub(crate) fn lacks_key((name, backend): (&str, &BackendPolicy)) -> bool {
    let unread = |source| keys::read(name, source).is_err();
    backend.key.as_ref().is_some_and(unread) && protocol::of(backend, None).is_ok()
}

/// A policy's models with their prices, whether or not their keys can be read.
pub(crate) fn candidates(policy: &Policy, prices: &Prices) -> Vec<(Candidate, Option<Priced>)> {
    let price_of = |candidate: &Candidate| {
        let (name, model) = candidate.name.split_once('/')?;
        let vendor = vendor(policy.backends.get(name)?);
        priced(candidate.price, Target { backend: name, vendor: &vendor, model }, prices)
    };
    let priced = |mut candidate: Candidate| {
        let priced = price_of(&candidate);
        candidate.set_tariff(priced.as_ref().map(Priced::tariff));
        (candidate, priced)
    };
    policy.remote_candidates().into_iter().map(priced).collect()
}

/// The policy's price, else the table's.
fn priced(said: Option<Price>, target: Target<'_>, prices: &Prices) -> Option<Priced> {
    let said = said.map(|price| {
        let source = PriceSource::Policy { date: None };
        Priced { price, above: None, source }
    });
    said.or_else(|| prices.find(target).cloned())
}

/// The vendor's name in the table of prices: the flavour's where there is one, else the URL's of those who speak
/// OpenAI's protocol, else the protocol's. A server of one's own is nobody whose prices count.
fn vendor(backend: &BackendPolicy) -> String {
    use tieline_router::policy::Protocol;
    match (&backend.flavour, backend.protocol) {
        (Some(flavour), _) => flavour.clone(),
        (None, Protocol::Openai) if is_at(&backend.url, XAI) => "xai".to_owned(),
        (None, Protocol::Openai) => protocol::usual(backend).to_owned(),
        (None, Protocol::Gemini) => "google".to_owned(),
        (None, Protocol::Responses) => "openai".to_owned(),
        (None, other) => other.as_str().to_owned(),
    }
}

/// A vendor with prices and no words of its own.
const XAI: &str = "https://api.x.ai";

/// Whether an address is another one's, or below it.
fn is_at(url: &str, base: &str) -> bool {
    url.strip_prefix(base).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

mod protocol {
    //! What a backend speaks.

    use std::sync::Arc;

    use tieline_providers::anthropic::Anthropic;
    use tieline_providers::gemini::Gemini;
    use tieline_providers::ollama::Ollama;
    use tieline_providers::openai::{FLAVOURS, Flavour, OpenAi, flavour};
    use tieline_providers::protocol::Protocol;
    use tieline_providers::responses::Responses;
    use tieline_router::policy::{self, BackendPolicy};
    use tieline_types::Tokens;

    use super::is_at;
    use crate::failure::Failure;

    /// The vendor's own words where the URL is a vendor's; else those of vLLM, which most servers take.
    pub(super) fn usual(backend: &BackendPolicy) -> &'static str {
        let of = |flavour: &&Flavour| flavour.base_url.is_some_and(|url| is_at(&backend.url, url));
        FLAVOURS.iter().find(of).map_or("vllm", |flavour| flavour.name)
    }

    pub(super) fn of(
        backend: &BackendPolicy,
        context: Option<Tokens>,
    ) -> Result<Arc<dyn Protocol>, Failure> {
        let openai = |name: &str| match flavour(name) {
            Some(flavour) => Ok(Arc::new(OpenAi::new(flavour)) as Arc<dyn Protocol>),
            None => {
                Err(Failure::user(format!("no flavour {name:?} of OpenAI's protocol is known"))
                    .with_hint("docs/backends.md lists them"))
            }
        };
        Ok(match backend.protocol {
            policy::Protocol::Openai => {
                openai(backend.flavour.as_deref().unwrap_or_else(|| usual(backend)))?
            }
            policy::Protocol::Tieline => openai("tieline")?,
            policy::Protocol::Responses => Arc::new(Responses),
            policy::Protocol::Anthropic => Arc::new(Anthropic),
            policy::Protocol::Gemini => Arc::new(Gemini::default()),
            policy::Protocol::Ollama => Arc::new(Ollama::new(context)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whose prices count for a model at a URL, and whether one of them fits.
    #[track_caller]
    fn check(url: &str, more: &str, model: &str, want: (&str, bool)) {
        let text = format!(
            "[backends.b]\nprotocol = \"openai\"\nurl = {url:?}\nzone = \"lan\"\n{more}\nmodels = {{ {model:?} = {{}} }}\n"
        );
        let policy = Policy::parse(&text).unwrap();
        let backend = policy.backends.get("b").unwrap();
        let all = candidates(&policy, &Prices::builtin().unwrap());
        assert_eq!((vendor(backend).as_str(), all[0].1.is_some()), want, "{url} {more}");
    }

    #[test]
    fn prices_are_those_of_whom_the_url_names() {
        check("https://api.openai.com/v1", "", "gpt-4o", ("openai", true));
        check("https://api.deepseek.com/v1", "", "deepseek-v4-flash", ("deepseek", true));
        check("https://api.groq.com/openai/v1", "", "openai/gpt-oss-120b", ("groq", true));
        check("https://api.x.ai/v1", "", "grok-4.5", ("xai", true));
        // What only sounds like a vendor's model costs what the policy says.
        check("http://192.168.0.7:8000/v1", "", "gpt-4o", ("vllm", false));
        check("https://api.deepseek.com.example.org/v1", "", "deepseek-v4-flash", ("vllm", false));
        check("https://proxy.example.org/v1", "flavour = \"openai\"", "gpt-4o", ("openai", true));
    }
}
