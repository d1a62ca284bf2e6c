//! A pull in a process of its own: this test binary, started again.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tieline_store::{Catalogue, Progress, PullEvent, PullOptions, Store};

use crate::world::{environment, reference, run};

const ROOT: &str = "TIELINE_PROBE_ROOT";
const WHAT: &str = "TIELINE_PROBE_REFERENCE";

/// A process that will pull.
pub(crate) struct Probe(Command);

impl Probe {
    pub(crate) fn new(root: &Path, what: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["probe::the_probe_itself", "--exact", "--nocapture", "--test-threads=1"])
            .env(ROOT, root)
            .env(WHAT, what)
            .env_remove("SSL_CERT_FILE")
            .env_remove("SSL_CERT_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        Self(command)
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.0.env(name, value);
        self
    }

    /// As nobody, where root would be allowed everything.
    pub(crate) fn unprivileged(mut self) -> Self {
        self.0.uid(65_534).gid(65_534).current_dir("/");
        self
    }

    pub(crate) fn start(mut self) -> Child {
        self.0.spawn().unwrap()
    }

    /// What it says, at its end.
    pub(crate) fn run(self) -> String {
        said(self.start())
    }
}

pub(crate) fn said(child: Child) -> String {
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

struct Said;

impl Progress for Said {
    fn event(&self, event: PullEvent) {
        if matches!(event, PullEvent::Waiting | PullEvent::Resumed { .. }) {
            println!("EVENT {event:?}");
        }
    }
}

/// Does nothing unless a test started it as a process.
#[test]
fn the_probe_itself() {
    let (Ok(root), Ok(what)) = (std::env::var(ROOT), std::env::var(WHAT)) else { return };
    let store = match Store::open(Path::new(&root)) {
        Ok(store) => store,
        Err(error) => return println!("ERR open: {error}"),
    };
    let catalogue = Catalogue::default();
    let environment = environment();
    let options = PullOptions {
        catalogue: &catalogue,
        expected: None,
        name: None,
        environment: &environment,
        progress: &Said,
    };
    match run(store.pull(&reference(&what), options)) {
        Ok(pulled) => println!("OK {} already_here={}", pulled.model.digest, pulled.already_here),
        Err(error) => println!("ERR {error}"),
    }
}
