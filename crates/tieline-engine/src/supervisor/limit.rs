//! The most memory that a runner may allocate, set from outside: one that eats memory dies alone, and the machine
//! lives on.
//!
//! What the system counts is private memory that may be written, touched or not, and so the stacks of threads, of which
//! hardly a page is touched. So the bound is no plan: it is what a runner has once it is ready, when all that was planned
//! is there, and so much more. It can be raised from here, and never by the runner.

use tieline_types::{Bytes, JailLayer, LoadedModel};

use super::life::Life;
use crate::probe;

/// For texts, grammars, frames and what is computed of them.
const MORE: u64 = 1 << 30;
/// A thread's stack, where no other size is asked for.
const STACK: u64 = 8 << 20;
/// Pools of threads that a runner keeps.
const POOLS: u64 = 3;
/// An adapter comes in frames, lies there whole, and is copied into its tensors.
const ADAPTER: u64 = 3;

/// What a runner may still allocate once it is ready.
fn beyond(loaded: &LoadedModel, adapters: Bytes) -> u64 {
    let threads = u64::from(loaded.threads.max(loaded.threads_batch));
    let parts = [
        threads.saturating_mul(POOLS * STACK),
        loaded.memory.copies.0,
        adapters.0.saturating_mul(ADAPTER),
    ];
    parts.into_iter().fold(MORE, u64::saturating_add)
}

fn allocated(pid: u32) -> Option<Bytes> {
    Some(probe::process_memory(pid)?.allocated)
}

/// Whether memory of devices is mapped, which counts as what it is not.
fn has_devices(loaded: &LoadedModel) -> bool {
    loaded.memory.buffers.iter().any(|buffer| buffer.device.is_some())
}

/// How much of adapters the limit counts: those that come before they do, and those that go until the runner had the
/// time between two pings to drop them, which it does when its step has ended.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    now: Bytes,
    /// The most since the last ping.
    lately: Bytes,
    counted: Bytes,
}

impl Allowed {
    /// So much is here or comes. Whether the limit is another.
    fn take(&mut self, now: Bytes) -> bool {
        self.now = now;
        self.lately = self.lately.max(now);
        let more = now > self.counted;
        self.counted = self.counted.max(now);
        more
    }

    /// Whether the limit is another.
    fn ping(&mut self) -> bool {
        let most = std::mem::replace(&mut self.lately, self.now);
        let less = most < self.counted;
        self.counted = self.counted.min(most);
        less
    }
}

impl Life<'_> {
    /// Before it loads: no more than is free on this machine.
    pub(super) fn limit_loading(&self) {
        if !self.build.has_gpu()
            && let Some(has) = self.child.pid().and_then(allocated)
        {
            let free = probe::machine().memory_available.0;
            // What cannot be limited is killed first where memory lacks, by its own wish.
            let _ = system::limit(&self.child, has.0.saturating_add(free).saturating_add(MORE));
        }
    }

    /// Once it is ready: what it has, and so much more. Says in its jail what became of it.
    pub(super) fn limit_ready(&mut self, loaded: &mut LoadedModel) {
        let Some(has) = self.child.pid().and_then(allocated).filter(|_| !has_devices(loaded))
        else {
            return;
        };
        self.data = Some(has);
        let outcome = self.limit(loaded, Bytes(0));
        let said = loaded.jail.held.iter_mut().find(|note| note.layer == JailLayer::Limits);
        if let Some(note) = said {
            note.detail += &match outcome {
                Ok(most) => format!(", memory {most}"),
                Err(error) => format!(", memory without a limit ({error})"),
            };
        }
    }

    /// Before adapters come, or once they were told to go.
    pub(super) fn limit_with(&mut self, adapters: Bytes) {
        if self.allowed.take(adapters) {
            self.set_limit();
        }
    }

    /// To be called at each ping.
    pub(super) fn limit_less(&mut self) {
        if self.allowed.ping() {
            self.set_limit();
        }
    }

    fn set_limit(&self) {
        if let Some(loaded) = &self.loaded {
            // As it was before: an adapter that finds no memory ends the runner, and nothing else.
            let _ = self.limit(loaded, self.allowed.counted);
        }
    }

    fn limit(&self, loaded: &LoadedModel, adapters: Bytes) -> std::io::Result<Bytes> {
        let Some(has) = self.data else { return Err(std::io::ErrorKind::Unsupported.into()) };
        let most = has.0.saturating_add(beyond(loaded, adapters));
        system::limit(&self.child, most).map(|()| Bytes(most))
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::io;

    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

    use crate::child::Child;

    /// Lets it have no more. What its user may not have anyway stays the most.
    pub(super) fn limit(child: &Child, most: u64) -> io::Result<()> {
        let pid = child.pid().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        let maximum = getrlimit(Resource::Data).maximum;
        let current = Some(maximum.map_or(most, |maximum| maximum.min(most)));
        prlimit(Some(pid), Resource::Data, Rlimit { current, maximum })?;
        Ok(())
    }
}

/// No other system can be asked to from outside.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    use crate::child::Child;

    pub(super) fn limit(_: &Child, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adapters_count_before_they_come_and_until_they_must_be_gone() {
        let mut allowed = Allowed::default();
        assert!(allowed.take(Bytes(5)) && !allowed.ping());
        assert!(allowed.take(Bytes(7)));
        // One goes, another comes: what was there may still be.
        assert!(!allowed.take(Bytes(0)) && !allowed.take(Bytes(3)));
        assert!(!allowed.ping() && allowed.counted == Bytes(7), "{allowed:?}");
        assert!(allowed.ping() && allowed.counted == Bytes(3), "{allowed:?}");
        assert!(!allowed.ping() && !allowed.take(Bytes(0)));
        assert!(!allowed.ping() && allowed.ping() && allowed.counted == Bytes(0));
    }
}
