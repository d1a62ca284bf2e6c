//! A server whose policy knows a backend of every protocol, each of them a vendor that says what it got.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use testkit::scripted::Scripted;
use testkit::vendor::{Captured, Script, Vendor};
use tieline_privacy::{Detectors, Dictionary, Guard, GuardLimits, Guarded, RootKey};
use tieline_providers::anthropic::Anthropic;
use tieline_providers::gemini::Gemini;
use tieline_providers::ollama::Ollama;
use tieline_providers::openai::{FLAVOURS, OpenAi, flavour};
use tieline_providers::protocol::Protocol;
use tieline_providers::responses::Responses;
use tieline_providers::{Endpoint, Speaker, Transport};
use tieline_router::carry::breaker::Key;
use tieline_router::{Policy, RemoteModel, Router, Setup};
use tieline_server::{App, Config, Ledger, Library, Listener};
use tieline_store::{Catalogue, Environment, Store};
use tieline_types::Zone;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Who is asked: the backend's name in the policy, and its model there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Backend {
    pub(crate) name: &'static str,
    pub(crate) model: &'static str,
    pub(crate) speech: Speech,
}

/// In whose words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speech {
    OpenAi,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
}

impl Backend {
    /// What callers ask for.
    pub(crate) fn asked(&self) -> String {
        format!("{}/{}", self.name, self.model)
    }

    fn protocol(&self) -> Arc<dyn Protocol> {
        match self.speech {
            Speech::OpenAi => Arc::new(OpenAi::new(flavour(self.name).unwrap())),
            Speech::Responses => Arc::new(Responses),
            Speech::Anthropic => Arc::new(Anthropic),
            Speech::Gemini => Arc::new(Gemini::default()),
            Speech::Ollama => Arc::new(Ollama::new(None)),
        }
    }
}

/// Every protocol, and OpenAI's in every flavour. The model's name says what it can.
pub(crate) fn backends() -> Vec<Backend> {
    let flavours = FLAVOURS.iter().map(|flavour| Backend {
        name: flavour.name,
        model: match flavour.name {
            "openai" => "gpt-4.1",
            "groq" => "qwen/qwen3-32b",
            _ => "big",
        },
        speech: Speech::OpenAi,
    });
    let others = [
        ("responses", "gpt-5.1", Speech::Responses),
        ("anthropic", "claude-sonnet-4-5", Speech::Anthropic),
        ("gemini", "gemini-2.5-flash", Speech::Gemini),
        ("ollama", "big", Speech::Ollama),
    ];
    let others = others.map(|(name, model, speech)| Backend { name, model, speech });
    flavours.chain(others).collect()
}

/// How the policy treats what leaves.
pub(crate) struct Terms {
    /// The rules and all that follows the backends.
    pub(crate) rules: &'static str,
    /// The user's own words.
    pub(crate) terms: Vec<String>,
}

const AS_IT_IS: &str = "[[rule]]\nname = \"all\"\nclass = [\"public\", \"internal\", \"private\", \
    \"secret\"]\nzone = \"cloud\"\nas = \"as-is\"\n";

/// The server, and the vendor behind all of its backends.
pub(crate) struct Town {
    pub(crate) address: SocketAddr,
    pub(crate) vendor: Vendor,
    pub(crate) app: App,
    setup: Setup,
    stop: CancellationToken,
    pub(crate) home: tempfile::TempDir,
    ledger: Ledger,
    works: Mutex<JoinSet<()>>,
    runtime: Runtime,
}

impl Town {
    /// Where all leaves as it is.
    pub(crate) fn new() -> Self {
        Self::with(Terms { rules: AS_IT_IS, terms: Vec::new() })
    }

    pub(crate) fn with(terms: Terms) -> Self {
        let runtime = Runtime::new().unwrap();
        let guard = runtime.enter();
        let vendor = runtime.block_on(Vendor::start(Script::text(&["Hello"])));
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let (sink, ledger) = Ledger::start(&store).unwrap();
        let library = Library {
            store,
            catalogue: Arc::new(Catalogue::embedded().unwrap()),
            environment: Arc::new(Environment::new("http://127.0.0.1:9".to_owned())),
        };
        let router = Router::new(Arc::new(Scripted::hello()), Some(sink));
        let app = App::new(router, library, Config::default());
        let setup = setup(terms, &vendor.url);
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let stop = CancellationToken::new();
        let listeners = vec![Listener::tcp(socket).unwrap()];
        let serving = tieline_server::serve(listeners, app.clone(), stop.clone());
        drop(guard);
        let works = Mutex::default();
        let town = Self { address, vendor, app, setup, stop, home, ledger, works, runtime };
        town.beside(async move { serving.await.unwrap() });
        town.renew(0);
        town
    }

    /// Forgets which backends failed.
    pub(crate) fn renew(&self, number: usize) {
        let mut setup = self.setup.clone();
        for remote in &mut setup.remotes {
            remote.circuit.host = format!("{number}");
        }
        self.app.router().switch().replace(setup);
    }

    /// What the vendor got, from this request on.
    pub(crate) fn got(&self, from: usize) -> Vec<Captured> {
        self.vendor.captured().split_off(from)
    }

    /// Has this done beside the test.
    pub(crate) fn beside(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.works.lock().unwrap().spawn_on(work, self.runtime.handle());
    }

    /// Ends it and all that is done beside; what is on its disk then is all that it wrote.
    pub(crate) fn end(self) -> tempfile::TempDir {
        let Self { home, app, ledger, works, runtime, stop, .. } = self;
        stop.cancel();
        runtime.block_on(app.close());
        drop(app);
        let mut works = works.into_inner().unwrap();
        let ended = async { while works.join_next().await.is_some() {} };
        runtime.block_on(async {
            tokio::time::timeout(Duration::from_secs(60), ended).await.unwrap()
        });
        ledger.finish().unwrap();
        home
    }
}

fn setup(terms: Terms, url: &str) -> Setup {
    let policy = Policy::parse(&policy(terms.rules, url)).unwrap_or_else(|error| panic!("{error}"));
    let detectors = Arc::new(Detectors::new(&Dictionary { terms: terms.terms }).unwrap());
    let root = RootKey::new([7; 32]);
    let guard = Arc::new(Guard::new(Arc::clone(&detectors), root, GuardLimits::default()));
    let transport = Transport::new();
    let candidates = policy.remote_candidates();
    let remotes = candidates.into_iter().map(|candidate| {
        let known = backends().into_iter().find(|one| one.asked() == candidate.name);
        // A test's own is asked as vLLM is.
        let backend = known.unwrap_or(Backend { name: "vllm", model: "m", speech: Speech::OpenAi });
        let endpoint = Endpoint {
            name: candidate.name.clone(),
            zone: Zone::Cloud,
            base_url: policy.backends[backend.name].url.clone(),
            key: None,
            model: backend.model.to_owned(),
            headers: Vec::new(),
            connect: Duration::from_secs(5),
        };
        let speaker = Speaker::new(endpoint, backend.protocol(), &transport).unwrap();
        let key = String::new();
        RemoteModel {
            candidate,
            guarded: Guarded::new(Arc::new(speaker), Arc::clone(&guard)),
            price: None,
            vendor: backend.name.to_owned(),
            circuit: Key { host: url.to_owned(), model: backend.asked(), key, turn: 0 },
        }
    });
    let remotes = remotes.collect();
    let known = Arc::default();
    Setup { policy, remotes, detectors, guard, money: None, offline: false, known, checker: None }
}

fn policy(rules: &str, url: &str) -> String {
    let backends = backends().into_iter().map(|backend| {
        let (protocol, base) = match backend.speech {
            Speech::OpenAi => ("openai", "/v1"),
            Speech::Responses => ("responses", "/v1"),
            Speech::Anthropic => ("anthropic", "/v1"),
            Speech::Gemini => ("gemini", "/v1beta"),
            Speech::Ollama => ("ollama", ""),
        };
        let Backend { name, model, .. } = backend;
        format!(
            "[backends.{name}]\nprotocol = \"{protocol}\"\nurl = \"{url}{base}\"\nzone = \"cloud\"\n\
             [backends.{name}.models.\"{model}\"]\ncontext = 200000\nmax_output = 8000\n\
             tools = true\nvision = true\njson_schema = true\nreasoning = true\nlogprobs = true\n\
             price = {{ input = 0, output = 0 }}\n"
        )
    });
    format!("{rules}{}", backends.collect::<String>())
}

/// All bytes of the files in a folder.
pub(crate) fn bytes(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(bytes(&path));
        } else {
            all.extend(std::fs::read(&path).unwrap());
        }
    }
    all
}
