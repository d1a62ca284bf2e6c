//! The jail of a runner that is like a release, and of one that is not.

use std::fs;
use std::process::{Command, Stdio};

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
