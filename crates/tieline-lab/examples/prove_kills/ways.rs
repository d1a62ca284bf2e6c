//! The ways to die.

use std::process::{Command, Stdio};

use serde::Serialize;

/// How a runner is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Way {
    /// A signal, by the name that `kill` has for it.
    Signal(&'static str),
    /// It may not take another page of memory: whatever asks for one next is refused by the system.
    Memory,
}

/// In turns.
pub(crate) const WAYS: [Way; 7] = [
    Way::Signal("KILL"),
    Way::Signal("SEGV"),
    Way::Signal("ABRT"),
    Way::Memory,
    Way::Signal("ILL"),
    Way::Signal("FPE"),
    Way::Signal("STOP"),
];

impl Way {
    /// Does it. One that is gone already was killed by its own end.
    pub(crate) fn take(self, pid: u32) {
        run(&match self {
            // Rust's own handler takes the first for a fault that comes again, and lets it go on; two that come before
            // it runs are one.
            Self::Signal("SEGV") => {
                format!("for i in 1 2 3 4 5 6 7 8; do kill -SEGV {pid}; sleep 0.02; done")
            }
            Self::Signal(signal) => format!("kill -{signal} {pid}"),
            // The soft limit alone, so that it can be lifted.
            Self::Memory => format!("prlimit --pid {pid} --as=4096:"),
        });
    }

    /// Takes it back from one that lived through it.
    pub(crate) fn undo(self, pid: u32) {
        if self == Self::Memory {
            run(&format!("prlimit --pid {pid} --as=unlimited:"));
        }
    }
}

fn run(script: &str) {
    let _ = Command::new("sh").args(["-c", script]).stderr(Stdio::null()).status();
}
