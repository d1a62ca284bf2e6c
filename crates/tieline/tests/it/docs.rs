//! What is made of the arguments' own definitions: help, completions, manual, reference.

use super::home::Home;

const COMMANDS: [&str; 18] = [
    "engine",
    "would-leave",
    "policy",
    "cost",
    "pull",
    "list",
    "show",
    "rm",
    "run",
    "replay",
    "certify",
    "plan",
    "ps",
    "quarantine",
    "doctor",
    "bench",
    "completions",
    "man",
];

#[test]
fn help_and_version_are_answers() {
    let home = Home::empty();
    let version = home.tieline(["--version"]).text();
    assert_eq!(version, format!("tieline {}\n", env!("CARGO_PKG_VERSION")));
    for command in COMMANDS {
        let help = home.tieline([command, "--help"]).text();
        assert!(help.contains(&format!("Usage: tieline {command}")), "{help}");
        assert_eq!(help, home.tieline(["help", command]).text());
    }
    // None of these made a store.
    assert!(!home.path().exists());
}

#[test]
fn each_shell_has_completions() {
    let home = Home::empty();
    let beginnings =
        [("bash", "_tieline() {"), ("zsh", "#compdef tieline"), ("fish", "complete -c tieline")];
    for (shell, beginning) in beginnings {
        let text = home.tieline(["completions", shell]).text();
        assert!(text.contains(beginning), "{text}");
        for command in COMMANDS {
            assert!(text.contains(command), "{shell} lacks {command}");
        }
        for flag in ["max-tokens", "flash-attention", "json"] {
            assert!(text.contains(flag), "{shell} lacks --{flag}");
        }
    }
}

#[test]
fn the_completions_are_good_bash() {
    let home = Home::empty();
    let script = home.tieline(["completions", "bash"]).text();
    let question =
        "COMP_WORDS=(tieline do) COMP_CWORD=1; _tieline tieline do tieline; echo ${COMPREPLY[@]}";
    let mut bash = assert_cmd::Command::new("bash");
    let output = bash.write_stdin(format!("{script}\n{question}\n")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "doctor\n");
}

#[test]
fn the_manual_names_each_command() {
    let manual = Home::empty().tieline(["man"]).text();
    assert!(manual.contains(".TH tieline 1"));
    for command in COMMANDS.map(|command| command.replace('-', "\\-")) {
        assert!(
            manual.contains(&format!("tieline {command}"))
                || manual.contains(&format!("tieline\\-{command}")),
            "{command}"
        );
    }
    assert!(!manual.contains("reference"));
}

#[test]
fn the_reference_in_the_tree_is_fresh() {
    let path = testkit::root().join("docs/cli.md");
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let reference = Home::empty().tieline(["reference"]).text();
    assert!(
        written == reference,
        "{} is not what the program says: run `make docs`",
        path.display()
    );
    for command in COMMANDS {
        assert!(reference.contains(&format!("## tieline {command}\n")), "{command}");
    }
}
