//! Shuts the runner in: what the system will not do for it, whatever a model makes of it.
//!
//! In two steps. [`before`] runs first of all, while there is one thread and nothing hostile has been
//! read: it lets go of what was inherited and is not ours, and of all rights. [`lock`] runs before the
//! first order: from then on no path is open but the cache's folder, and the system does only what
//! [`calls`] lists for loading. [`seal`] runs when the model is loaded, and leaves what answering needs.
//! None of it can be undone by this process.
//!
//! A layer that cannot be had is no reason to stop here: the engine hears of it in the hello and decides,
//! before it says which model to load.
//!
//! On macOS and Windows the steps are the same and what they take away is less: see `macos.rs` and `windows.rs`.
#![expect(unsafe_code, reason = "descriptors, namespaces, signals and tokens have no safe door")]

#[cfg(all(feature = "attacks", target_os = "linux"))]
pub(crate) mod attacks;
#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod names;
#[cfg(target_os = "linux")]
mod paths;
#[cfg(target_os = "linux")]
mod rights;

#[cfg(target_os = "linux")]
pub(crate) use linux::{before, lock, seal};

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::{before, lock, seal};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{before, lock, seal};

#[cfg(target_os = "linux")]
mod linux {

    use tieline_decode::disk::OpenFolder;
    use tieline_types::{Jail, JailLayer};

    use super::calls::Stage;
    use super::{filter, paths, rights};

    /// Lets go of what was inherited and of all rights. First of all: there must be one thread.
    pub(crate) fn before() -> Jail {
        #[cfg(feature = "attacks")]
        if super::attacks::is_unjailed() {
            return Jail::none("asked to do without");
        }
        let mut jail = Jail::none("not done");
        rights::close_the_unknown();
        // While the process's own files are its own.
        let ends_first = rights::ends_first();
        let namespaces = rights::own_namespaces();
        let own_namespaces = namespaces.is_ok();
        jail.note(JailLayer::Namespaces, namespaces);
        jail.note(JailLayer::Capabilities, rights::no_capabilities());
        jail.note(JailLayer::NoNewPrivileges, rights::no_new_privileges());
        jail.note(JailLayer::Limits, rights::limits(own_namespaces, &ends_first));
        jail
    }

    /// Forbids all paths but those below `cache`, and all system calls but those of loading and answering.
    pub(crate) fn lock(jail: &mut Jail, cache: Option<&OpenFolder>) {
        #[cfg(feature = "attacks")]
        if super::attacks::is_unjailed() {
            return;
        }
        jail.note(JailLayer::Files, paths::forbid(cache));
        jail.note(JailLayer::SystemCalls, filter::install(Stage::Load, cache.is_some()));
    }

    /// Forbids what only loading needed, for every thread there is and will be.
    pub(crate) fn seal(jail: &mut Jail, has_cache: bool) {
        let locked = jail.held.iter().any(|note| note.layer == JailLayer::SystemCalls);
        if locked {
            jail.note(JailLayer::SystemCalls, filter::install(Stage::Always, has_cache));
        }
    }
}
