//! What is kept of prompts, across processes.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::home::{Home, check};

/// Instructions long enough to be worth keeping.
const SYSTEM: &str = "You are a helpful assistant. You answer in one short sentence, in plain words, and you \
    say so when you do not know something rather than guess.";

/// A question whose answer is not near a tie: a token computed alone is rounded otherwise than among others.
const CLEAR: &str = "What is the capital of France?";

/// The files that are kept.
fn kept(home: &Home) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(home.path().join("prompts")) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "kv")).collect()
}

/// Asks the standard question with a quota and long instructions.
fn ask(home: &Home, runner: &Path, quota: &str, args: &[&str]) -> Value {
    let run = home.run(runner, &["--system", SYSTEM, CLEAR, "--json", "-n", "8"]).args(args);
    run.env("TIELINE_PROMPT_CACHE", quota).json()
}

#[test]
fn a_prompt_is_computed_once() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let first = ask(&home, &runner, "1GB", &[]);
    assert_eq!(first["usage"]["cached_tokens"], 0);
    assert_eq!(first["miss"]["reason"], "cold");
    assert!(!kept(&home).is_empty());
    let second = ask(&home, &runner, "1GB", &[]);
    let (cached, all) = (&second["usage"]["cached_tokens"], &second["usage"]["prompt_tokens"]);
    assert!(cached.as_u64().unwrap() > 0 && cached.as_u64() < all.as_u64(), "{second}");
    assert_eq!(second["answer"], first["answer"]);
    // One request may do without.
    let alone = ask(&home, &runner, "1GB", &["--no-cache"]);
    assert_eq!(alone["usage"]["cached_tokens"], 0);
    assert_eq!(alone["miss"]["reason"], "off");
}

#[test]
fn what_is_kept_is_the_users_alone_and_doctor_tells_of_it() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    ask(&home, &runner, "1GB", &[]);
    let folder = home.path().join("prompts");
    #[cfg(unix)]
    {
        let mode = |path: &Path| {
            std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions()) & 0o777
        };
        assert_eq!(mode(&folder), 0o700);
        assert!(kept(&home).iter().all(|file| mode(file) & 0o077 == 0));
    }
    let checks = home.tieline(["doctor", "--json"]).runner(&runner).json();
    let check = checks.as_array().unwrap().iter().find(|check| check["name"] == "prompts");
    let detail = check.unwrap()["detail"].as_str().unwrap().to_owned();
    let beginning = format!("{}, ", folder.display());
    assert!(detail.starts_with(&beginning) && detail.ends_with(" kept of computed prompts"));
    assert!(!detail.contains(", 0 B kept"), "{detail}");
}

#[test]
fn nothing_is_kept_where_nothing_may_be() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    for _ in 0..2 {
        let report = ask(&home, &runner, "off", &[]);
        assert_eq!(report["usage"]["cached_tokens"], 0);
    }
    assert!(!home.path().join("prompts").exists());
    // A flag comes before the variable, and a request without cache leaves nothing either.
    ask(&home, &runner, "1GB", &["--prompt-cache", "off"]);
    assert!(!home.path().join("prompts").exists());
    ask(&home, &runner, "1GB", &["--no-cache"]);
    assert_eq!(kept(&home), [""; 0].map(PathBuf::from));
}

#[test]
fn a_folder_that_cannot_be_used_stops_no_answer() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    std::fs::write(home.path().join("prompts"), "no folder").unwrap();
    let run = home.run(&runner, &["--system", SYSTEM, CLEAR, "-n", "1"]);
    check!(home, run.env("TIELINE_PROMPT_CACHE", "1GB"), @"
    exit 0
    --- stdout
    The
    --- stderr
    warning: prompts are not kept, for [HOME]/prompts cannot be used: File exists (os error 17)
    ");
}

#[cfg(unix)]
#[test]
fn a_folder_that_others_may_read_is_closed_to_them() {
    use std::os::unix::fs::PermissionsExt;
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let folder = home.path().join("prompts");
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).unwrap();
    ask(&home, &runner, "1GB", &[]);
    assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
}
