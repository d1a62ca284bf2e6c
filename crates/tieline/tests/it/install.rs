//! `scripts/install.sh`: what `make install` puts where, and takes away again.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs the script of this tree, for packagers: under a folder that stands for `/`.
fn install(root: &Path, args: &[&Path]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/install.sh");
    Command::new(script).args(args).env("DESTDIR", root).env("PREFIX", "/usr").output().unwrap()
}

/// A folder as a build leaves it: this test's program, and something in the runner's place.
fn built(root: &Path) -> PathBuf {
    let folder = root.join("built");
    fs::create_dir(&folder).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_tieline"), folder.join("tieline")).unwrap();
    let runner = testkit::runner().unwrap_or_else(|| PathBuf::from("/bin/true"));
    fs::copy(runner, folder.join("tieline-runner")).unwrap();
    folder
}

/// All files and links below a folder, by their names from there.
fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_installed_runs_and_goes_away_again() {
    let temporary = TempDir::new().unwrap();
    let (from, root) = (built(temporary.path()), temporary.path().join("root"));
    let done = install(&root, &[&from]);
    assert!(done.status.success(), "{done:?}");
    insta::assert_snapshot!(files(&root).join("\n"), @"
    usr/bin/tieline
    usr/lib/tieline/tieline
    usr/lib/tieline/tieline-runner
    usr/share/bash-completion/completions/tieline
    usr/share/fish/vendor_completions.d/tieline.fish
    usr/share/man/man1/tieline.1
    usr/share/zsh/site-functions/_tieline
    ");
    let page = fs::read_to_string(root.join("usr/share/man/man1/tieline.1")).unwrap();
    assert!(page.contains("tieline"), "{page}");
    if testkit::runner().is_some() {
        // Through the link: the runner is found beside the program itself.
        let home = temporary.path().join("home");
        let doctor = Command::new(root.join("usr/bin/tieline"))
            .args(["doctor", "--json", "--home"])
            .arg(&home)
            .env_remove("TIELINE_RUNNER")
            .output()
            .unwrap();
        let report = String::from_utf8(doctor.stdout).unwrap();
        assert!(report.contains("beside this program"), "{report}");
    }
    // Again over itself, as an update does, then away.
    assert!(install(&root, &[&from]).status.success());
    assert!(install(&root, &["--remove".as_ref()]).status.success());
    assert_eq!(files(&root), [""; 0]);
    assert!(install(&root, &["--remove".as_ref()]).status.success(), "nothing is there any more");
}

#[test]
fn what_was_not_built_is_not_installed() {
    let temporary = TempDir::new().unwrap();
    let root = temporary.path().join("root");
    let done = install(&root, &[temporary.path()]);
    assert!(!done.status.success());
    let said = String::from_utf8(done.stderr).unwrap();
    assert!(said.contains("run `make build` first"), "{said}");
    assert!(!root.exists(), "nothing is half there");
}
