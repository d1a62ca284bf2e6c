//! A daemon on a port of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::home::Home;
use super::http::{Said, get, post};

/// A `tieline serve` on a port of its own.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    stderr: Option<std::thread::JoinHandle<String>>,
}

impl Daemon {
    /// Starts it and waits until it says where it listens.
    pub(crate) fn start(home: &Home, runner: &Path, args: &[&str]) -> Self {
        Self::with(home, runner, (args, &[]))
    }

    /// One that starts its runners from the build in use.
    pub(crate) fn of_builds(home: &Home, args: &[&str]) -> Self {
        Self::with(home, Path::new(""), (args, &[]))
    }

    /// The same with more in its environment.
    pub(crate) fn with(
        home: &Home,
        runner: &Path,
        (args, more): (&[&str], &[(&str, &str)]),
    ) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tieline"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--threads", "1"]);
        command.args(args).envs(home.environment()).env("TIELINE_RUNNER", runner);
        if runner.as_os_str().is_empty() {
            command.env_remove("TIELINE_RUNNER");
        }
        if args.contains(&"--policy") {
            // What a policy may reach is asked, also where it stands for another machine.
            command.env_remove("TIELINE_OFFLINE");
        }
        command.envs(more.iter().copied());
        Self::begun(command)
    }

    /// One of this program, which has no runner beside it.
    pub(crate) fn bare(home: &Home, program: &Path, policy: &Path) -> Self {
        Self::bare_with(home, program, policy, &[])
    }

    /// The same with more in its environment.
    pub(crate) fn bare_with(
        home: &Home,
        program: &Path,
        policy: &Path,
        more: &[(&str, &str)],
    ) -> Self {
        let mut command = Command::new(program);
        command.args(["serve", "--listen", "127.0.0.1:0", "--json", "--policy"]).arg(policy);
        command.envs(home.environment());
        command.env_remove("TIELINE_RUNNER").env_remove("TIELINE_OFFLINE");
        command.envs(more.iter().copied());
        Self::begun(command)
    }

    fn begun(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            panic!("{line}{}", stderr.join().unwrap())
        };
        let address = said["listening"][0].as_str().unwrap();
        let address = address.strip_prefix("http://").unwrap().parse().unwrap();
        Self { child, address, stderr: Some(stderr) }
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Said {
        post(self.address, path, body)
    }

    pub(crate) fn get(&self, path: &str) -> Said {
        get(self.address, path)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Has it end in good order; gives what it said.
    pub(crate) fn end(mut self) -> String {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        };
        let said = self.stderr.take().unwrap().join().unwrap();
        assert!(status.success(), "{status}: {said}");
        said
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
