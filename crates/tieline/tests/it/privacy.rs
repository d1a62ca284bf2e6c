//! What the user says goes to the model and nowhere else.

use std::process::Command;

use super::home::Home;

const CANARY: &str = "CANARY-xyz";

/// Every file below the home that holds the canary.
fn hits(home: &Home) -> Vec<String> {
    let mut grep = Command::new("grep");
    let output = grep.args(["-rlaF", CANARY]).arg(home.path()).output().unwrap();
    let files = String::from_utf8(output.stdout).unwrap();
    let home = format!("{}/", home.path().display());
    files.lines().map(|line| line.replace(&home, "")).collect()
}

#[test]
fn a_prompt_reaches_no_file_and_no_message() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let prompt = format!("Repeat after me: {CANARY}");
    let file = home.file("prompt.txt", &prompt);
    let long = format!("{prompt} ").repeat(200);
    let short = ["-n", "24"];
    let runs = [
        home.run(&runner, &[&prompt, "--stats"]).args(&short),
        home.run(&runner, &[&prompt, "--raw", "--json", "--logprobs", "1"]).args(&short),
        home.run(&runner, &["--system", &prompt, &prompt]).args(&short),
        home.run(&runner, &["--file", file.to_str().unwrap()]).args(&short),
        home.run(&runner, &["-"]).args(&short).input(prompt.as_str()),
        home.run(&runner, &["-"]).input(long.as_str()),
        home.run(&runner, &["-", "--json"]).input(long.as_str()),
        home.run(&runner, &[&prompt, "--stop", CANARY, "--top-p", "2"]),
        home.run("/bin/true".as_ref(), &[&prompt]),
    ];
    let mut answers = String::new();
    for run in runs {
        let output = run.output();
        answers += &String::from_utf8(output.stdout).unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains(CANARY), "{said}");
    }
    // The model did read it.
    assert!(answers.contains(CANARY), "{answers}");
    assert_eq!(hits(&home), [""; 0]);
}

/// The one place: what the user typed, for the user's own arrow keys.
#[cfg(unix)]
#[test]
fn a_conversation_is_kept_in_the_history_alone() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let typed = format!("/system {CANARY}\r");
    let steps = [
        ("see", ">>> "),
        ("type", typed.as_str()),
        ("see", "instructions set"),
        ("see", ">>> "),
        ("type", "/exit\r"),
    ];
    let output = super::terminal::converse(&home, &runner, &steps);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(hits(&home), ["history"]);
}
