//! The jail where the system has less to offer, and a runner that is like a release.
#![cfg(target_os = "linux")]
#![expect(unsafe_code, reason = "a filter is installed between fork and exec")]

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use tieline_types::{Jail, JailLayer, JailLevel, LoadParams, Tokens};

use crate::peer::Peer;

/// A runner on a system that does not know these calls.
fn without(calls: &[i64]) -> Peer {
    let rules = calls.iter().map(|&call| (call, Vec::new())).collect();
    let unknown = SeccompAction::Errno(libc::ENOSYS.cast_unsigned());
    let processor = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, unknown, processor).unwrap();
    let filter: BpfProgram = filter.try_into().unwrap();
    let mut model = tempfile::NamedTempFile::new().unwrap();
    model.write_all(&testkit::tiny()).unwrap();
    let prepare = |command: &mut Command| {
        let install = move || {
            seccompiler::apply_filter(&filter).map_err(|_| std::io::ErrorKind::Unsupported.into())
        };
        // SAFETY: makes two system calls, of a program that is made already, and allocates nothing.
        unsafe { command.pre_exec(install) };
    };
    Peer::start_by(prepare, model.path(), None)
}

fn why_not(jail: &Jail, layer: JailLayer) -> &str {
    &jail.missing.iter().find(|note| note.layer == layer).unwrap().detail
}

#[test]
fn without_namespaces_a_runner_is_sealed_and_says_what_is_missing() {
    let mut peer = without(&[libc::SYS_unshare]);
    assert_eq!(peer.jail.level(), JailLevel::Sealed, "{:?}", peer.jail);
    let why = why_not(&peer.jail, JailLayer::Namespaces);
    assert!(why.contains("allows no namespaces"), "{why}");
    let params = LoadParams { context: Some(Tokens(64)), ..LoadParams::default() };
    assert_eq!(peer.load(params).unwrap().jail.level(), JailLevel::Sealed);
}

#[test]
fn without_landlock_a_runner_is_not_sealed_and_says_why() {
    let peer = without(&[libc::SYS_landlock_create_ruleset]);
    assert_eq!(peer.jail.level(), JailLevel::Partial, "{:?}", peer.jail);
    assert_eq!(why_not(&peer.jail, JailLayer::Files), "this kernel has no Landlock");
}

/// A runner can try its own jail, or do without one, only where it was built for that.
#[test]
fn a_release_has_no_attack_in_it_and_no_way_around_its_jail() {
    let runner = env!("CARGO_BIN_EXE_tieline-runner");
    let program = fs::read(runner).unwrap();
    let marks = ["no such attack", "block the signal of the jail", "asked to do without"];
    for mark in marks {
        let found = program.windows(mark.len()).any(|bytes| bytes == mark.as_bytes());
        assert_eq!(found, cfg!(feature = "attacks"), "{mark}");
    }
    let output = Command::new(runner).arg("--attacks").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.success(), cfg!(feature = "attacks"));
}
