//! Vendors on this machine, each with a script of its own, and a daemon whose policy may ask them all.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};
use testkit::vendor::{Script, Truth, Vendor};
use tieline_store::{RequestRow, Store};
use tieline_types::Usage;
use tokio::runtime::Runtime;

use super::daemon::Daemon;
use super::home::Home;
use super::http::{Said, begin, send};

/// Dollars for a million tokens, which are micro-dollars for one: fresh, cached, written to the cache, of the answer.
const PRICE: &str = "{ input = 10, cached_input = 1, cache_write = 12.5, output = 20 }";

/// Vendors that are called so, or so and `-` and more, speak so; all others speak OpenAI's older protocol.
pub(crate) const PROTOCOLS: [&str; 5] = ["openai", "responses", "anthropic", "gemini", "ollama"];

/// One vendor: its name, how good it is said to be, and what it says.
pub(crate) type Stall = (&'static str, &'static str, Script);

/// The vendors, the daemon and its home.
pub(crate) struct Market {
    pub(crate) vendors: BTreeMap<&'static str, Vendor>,
    pub(crate) runtime: Runtime,
    pub(crate) home: Home,
    pub(crate) policy: PathBuf,
    pub(crate) daemon: Option<Daemon>,
    runner: PathBuf,
}

/// What the vendor will bill for this, in micro-dollars.
pub(crate) fn price(truth: Truth) -> i64 {
    let Truth { prompt, cached, cache_write, completion, .. } = truth;
    let fresh = prompt - cached - cache_write;
    let tenths = [(fresh, 100), (cached, 10), (cache_write, 125), (completion, 200)];
    let sum: i64 = tenths.into_iter().map(|(tokens, each)| i64::from(tokens) * each).sum();
    (sum + 5) / 10
}

pub(crate) fn used(truth: Truth) -> Usage {
    use tieline_types::Tokens;
    Usage {
        prompt_tokens: Tokens(truth.prompt),
        cached_tokens: Tokens(truth.cached),
        cache_write_tokens: Tokens(truth.cache_write),
        completion_tokens: Tokens(truth.completion),
        reasoning_tokens: Tokens(truth.reasoning),
        ..Usage::default()
    }
}

impl Market {
    /// `None`: there is no runner. Each vendor has a model `m`; `more` is the rest of the policy.
    pub(crate) fn open(home: Home, stalls: Vec<Stall>, more: &str) -> Option<Self> {
        let runner = testkit::runner()?;
        let runtime = Runtime::new().unwrap();
        let (mut vendors, mut policy) = (BTreeMap::new(), format!("{more}\n"));
        for (name, quality, script) in stalls {
            let vendor = runtime.block_on(Vendor::start(script));
            let url = &vendor.url;
            let speaks =
                PROTOCOLS.iter().find(|protocol| Some(**protocol) == name.split('-').next());
            let speaks = speaks.unwrap_or(&"openai");
            write!(
                policy,
                "[backends.{name}]\nprotocol = \"{speaks}\"\nurl = \"{url}/v1\"\nzone = \"cloud\"\n\
                 [backends.{name}.models.m]\ncontext = 100_000\nmax_output = 4000\ntools = true\n\
                 quality = {{ any = {quality} }}\nprice = {PRICE}\nprefill_tps = 4000\ndecode_tps = 80\n"
            )
            .unwrap();
            vendors.insert(name, vendor);
        }
        policy += "[[rule]]\nname = \"work\"\nclass = \"any\"\nzone = \"cloud\"\nas = \"as-is\"\n";
        let path = home.path().join("policy.toml");
        fs::create_dir_all(home.path()).unwrap();
        fs::write(&path, policy).unwrap();
        let mut market = Self { vendors, runtime, home, policy: path, daemon: None, runner };
        market.start();
        Some(market)
    }

    /// Starts a daemon in this home.
    pub(crate) fn start(&mut self) {
        let args = ["--policy", self.policy.to_str().unwrap()];
        self.daemon = Some(Daemon::start(&self.home, &self.runner, &args));
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().unwrap()
    }

    /// Kills the daemon, as a power cut would.
    pub(crate) fn kill(&mut self) {
        drop(self.daemon.take());
    }

    /// Has the daemon end in good order: then all is written.
    pub(crate) fn end(&mut self) {
        self.daemon.take().unwrap().end();
    }

    pub(crate) fn chat(&self, model: &str, prompt: &str, more: &Value) -> Said {
        self.chat_with(model, (prompt, more), &[])
    }

    pub(crate) fn chat_with(
        &self,
        model: &str,
        (prompt, more): (&str, &Value),
        headers: &[(&str, &str)],
    ) -> Said {
        let mut all = vec![("content-type", "application/json")];
        all.extend(headers);
        let line = ("POST", "/v1/chat/completions");
        send(self.daemon().address, line, &all, &body(model, prompt, more).to_string())
    }

    /// Asks for a stream, and leaves after its first line.
    pub(crate) fn leave(&self, model: &str, prompt: &str) {
        use std::io::BufRead;
        let (line, more) = (("POST", "/v1/chat/completions"), json!({ "stream": true }));
        let head = [("content-type", "application/json")];
        let text = body(model, prompt, &more).to_string();
        let reader = begin(self.daemon().address, line, &head, &text);
        let first = reader.lines().map_while(Result::ok).find(|line| line.contains("From "));
        assert!(first.is_some(), "nothing came before it left");
    }

    pub(crate) fn decision(&self, said: &Said) -> Value {
        let id = said.header("x-request-id").unwrap();
        self.daemon().get(&format!("/tieline/v1/decisions/{id}")).is(200)
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.home.path()).unwrap()
    }

    /// What the ledger says, the oldest first.
    pub(crate) fn rows(&self) -> Vec<RequestRow> {
        let mut rows = Vec::new();
        self.store().requests_since(0, |row| rows.push(row.clone())).unwrap();
        rows
    }

    /// How many requests a vendor got.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.vendors[name].captured().len()
    }

    /// Waits until a vendor is done with so many.
    pub(crate) fn ended(&self, name: &str, count: usize) {
        let ended = self.vendors[name].ended(count);
        let limit = std::time::Duration::from_secs(60);
        self.runtime.block_on(async { tokio::time::timeout(limit, ended).await }).unwrap();
    }

    /// What a vendor will bill, in micro-dollars.
    pub(crate) fn truth(&self, name: &str) -> i64 {
        self.vendors[name].ledger().iter().map(|entry| price(entry.usage)).sum()
    }
}

fn body(model: &str, prompt: &str, more: &Value) -> Value {
    let mut body = json!({ "model": model, "temperature": 0, "max_tokens": 800,
        "messages": [{ "role": "user", "content": prompt }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}
