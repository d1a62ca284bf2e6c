//! What a policy means, and what it decides, without asking anybody.

use std::path::Path;

use serde_json::Value;

use super::home::{Home, Tieline};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/policy/demo.toml");
const SECRET: &str = "sk-CANARY";

/// With the vendor's key in the environment, and the network there for whoever would use it.
fn asked(home: &Home, policy: &str, args: &[&str]) -> Tieline {
    let args: Vec<&str> = ["--policy", policy].into_iter().chain(args.iter().copied()).collect();
    home.tieline(args).env("OPENAI_API_KEY", SECRET).env("TIELINE_OFFLINE", "false")
}

fn json(home: &Home, policy: &str, args: &[&str]) -> Value {
    let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
    let text = asked(home, policy, &args).text();
    assert!(!text.contains("CANARY"), "{text}");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_policy_says_what_it_means_and_whether_it_can_be_used() {
    let home = Home::with_model();
    let checked = json(&home, DEMO, &["policy", "check"]);
    assert_eq!(checked["passed"], true);
    assert_eq!(checked["models"][0], "openai/gpt-5-mini");
    assert_eq!(checked["left_out"].as_array().unwrap().len(), 0);
    let meaning = checked["meaning"].to_string();
    assert!(meaning.contains("private stays on this machine"), "{meaning}");
    let verdict = checked["verdict"].as_str().unwrap();
    assert!(verdict.starts_with("the policy can be used; its ") && verdict.ends_with("passed"));
    // Without its key the vendor is left out, by name.
    let text = home.tieline(["policy", "check", DEMO]).env("OPENAI_API_KEY", "").text();
    assert!(text.contains("left out: the key of backend \"openai\""), "{text}");
    assert!(text.ends_with("passed, without what was left out\n"), "{text}");
    let bare = home.file("bare.toml", "default_class = \"public\"\n");
    let text = home.tieline(["policy", "check", bare.to_str().unwrap()]).text();
    assert!(text.ends_with("\nthe policy can be used; it has no tests\n"), "{text}");
    let text = home.tieline(["policy", "check"]).text();
    assert_eq!(text, "there is no policy: nothing leaves this machine\n");
    let none = home.tieline(["policy", "check", "--json"]).json();
    assert_eq!((&none["policy"], &none["passed"]), (&Value::Null, &true.into()));
    assert_eq!(none["verdict"], "there is no policy: nothing leaves this machine");
}

#[test]
fn a_policy_with_faults_or_failing_tests_is_for_its_user_to_mend() {
    let home = Home::with_model();
    let failing =
        "[[test]]\nname = \"n\"\nrequest = { model = \"auto\" }\nexpect = { class = \"public\" }\n";
    for (text, part) in [("zoen = 1\n", "line 1, column 1"), (failing, "tests of the policy")] {
        let path = home.file("p.toml", text);
        let output = home.tieline(["policy", "check", path.to_str().unwrap()]).output();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(part), "{said}");
    }
    assert!(!Path::new("/no/such/policy").exists());
    let output = asked(&home, "/no/such/policy", &["route", "explain", "Hi"]).output();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_card_number_stays_and_a_harmless_prompt_may_go() {
    let home = Home::with_model();
    let decided = |prompt: &str| json(&home, DEMO, &["route", "explain", prompt]);
    let card = decided("her card 4111 1111 1111 1111 is blocked");
    assert_eq!((&card["tries"][0]["name"], &card["class"]), (&"smollm2".into(), &"private".into()));
    assert_eq!(card["rejections"][0]["reason"], "zone_not_allowed");
    assert!(!card.to_string().contains("4111"));
    let harmless = decided("Prove it.");
    assert_eq!(harmless["tries"][0]["name"], "openai/gpt-5-mini");
    // The policy has no price: it is the table's.
    assert!(harmless["scores"][0]["forecast"]["cost_p50"].as_i64().unwrap() > 0);
    let secret = json(&home, DEMO, &["route", "explain", "Prove it.", "--class", "secret"]);
    assert_eq!(secret["tries"][0]["zone"], "host");
    let text = asked(&home, DEMO, &["route", "explain", "Prove it."]).text();
    assert!(text.starts_with("openai/gpt-5-mini answers (cloud, as-is"), "{text}");
    // With nobody outside to be asked it is answered here, and says so.
    let text = asked(&home, DEMO, &["--offline", "route", "explain", "Prove it."]).text();
    assert!(text.starts_with("smollm2 answers") && text.contains("offline"), "{text}");
}

#[test]
fn who_the_user_is_for_git_leaves_redacted_where_the_policy_says_so() {
    let home = Home::with_model();
    let rule = "\n[[rule]]\nname = \"redacted\"\nclass = \"private\"\nzone = \"cloud\"\nas = \"redacted\"\n";
    let rules = std::fs::read_to_string(DEMO).unwrap() + rule;
    let plain = home.file("plain.toml", &rules);
    let policy = home.file("p.toml", format!("git_identity = true\n{rules}"));
    let letter = home.file("letter.txt", "Jane-Roe reviewed it.");
    let folder = letter.parent().unwrap().to_owned();
    let args = ["would-leave", letter.to_str().unwrap(), "--model", "openai/gpt-5-mini", "--json"];
    let run = |policy: &Path| {
        let asked = asked(&home, policy.to_str().unwrap(), &args);
        asked.env("HOME", &folder).env("XDG_CONFIG_HOME", folder.join("none"))
    };
    let refused = run(&policy).output();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("git knows no name of yours"));
    home.file(".gitconfig", "[user]\n\tname = Jane Roe\n\temail = jane@example.org\n");
    let shown = run(&policy).json();
    assert_eq!(shown["egress"]["replaced"]["term"], 1, "{shown}");
    assert!(!shown["surfaces"].to_string().contains("Roe"), "{shown}");
    assert!(run(&plain).json()["surfaces"].to_string().contains("Jane-Roe"));
    home.file(".gitconfig", "[user\nname = x\n");
    let refused = String::from_utf8(run(&policy).output().stderr).unwrap();
    assert!(refused.contains("line 1: a section's head has no end"), "{refused}");
}

#[test]
fn what_would_leave_is_shown_as_it_would_leave() {
    let home = Home::with_model();
    let rule = "\n[[rule]]\nname = \"redacted\"\nclass = \"private\"\nzone = \"cloud\"\nas = \"redacted\"\n";
    let policy = home.file("p.toml", std::fs::read_to_string(DEMO).unwrap() + rule);
    let policy = policy.to_str().unwrap();
    let letter = home.file("letter.txt", "Write to anna.muster@example.org, please.");
    let letter = letter.to_str().unwrap();
    let args = ["would-leave", letter, "--model", "openai/gpt-5-mini"];
    let shown = json(&home, policy, &args);
    assert_eq!((&shown["leaves"], &shown["as"]), (&true.into(), &"redacted".into()));
    assert!(shown.to_string().contains("TLX_EMAIL_") && !shown.to_string().contains("muster"));
    assert_eq!(shown["egress"]["replaced"]["email"], 1);
    let stays = json(&home, DEMO, &args);
    assert_eq!(stays["leaves"], false);
    let card = home.file("card.txt", "her card 4111 1111 1111 1111");
    let stays = json(&home, DEMO, &["would-leave", card.to_str().unwrap()]);
    assert_eq!((&stays["leaves"], &stays["class"]), (&false.into(), &"private".into()));
    let text = asked(&home, DEMO, &["--quiet", "would-leave", card.to_str().unwrap()]).text();
    assert!(text.contains("private (card in the text)"), "{text}");
    let input = asked(&home, DEMO, &["--quiet", "would-leave", "-"]).input("Hello there").text();
    assert_eq!(input, "Hello there\n");
    // A name that nobody has is no proof that nothing leaves.
    let typo = asked(&home, DEMO, &["would-leave", letter, "--model", "openai/gpt-typo"]).output();
    assert_eq!(typo.status.code(), Some(1));
    assert!(home.said(&typo).contains("no model or alias of the name"), "{}", home.said(&typo));
    let output = asked(&home, DEMO, &["would-leave", "/no/such/file"]).output();
    assert_eq!(output.status.code(), Some(1));
}

const SEVERAL: &str = r#"
default_class = "public"
[backends.near]
protocol = "openai"
url = "http://192.168.0.7:8000/v1"
zone = "lan"
models.a = { quality = 0.9, price = { input = 0, output = 0 } }
[backends.far]
protocol = "openai"
url = "https://far.example/v1"
zone = "cloud"
key = { env = "FAR_KEY" }
models.b = { quality = 0.8, price = { input = 1, output = 1 } }
[[classify]]
name = "ours"
class = "private"
label = ["ours"]
[[rule]]
name = "veiled"
class = "public"
zone = "lan"
as = "redacted"
[[rule]]
name = "open"
class = "public"
zone = "cloud"
as = "as-is"
key = ["ci"]
[preferences]
fallbacks = 0
"#;

#[test]
fn every_way_out_is_shown_also_of_those_whose_key_is_elsewhere() {
    let home = Home::empty();
    let policy = home.file("p.toml", SEVERAL);
    let letter = home.file("letter.txt", "Write to anna.muster@example.org, please.");
    let run = |more: &[&str]| {
        let args = ["--policy", policy.to_str().unwrap(), "would-leave", letter.to_str().unwrap()];
        home.tieline(args).args(&["--class", "public"]).args(more).env("TIELINE_OFFLINE", "false")
    };
    let classed = std::fs::read_to_string(&policy).unwrap()
        + "[[classify]]\nname = \"mail\"\nclass = \"public\"\nentity = [\"email\"]\n";
    std::fs::write(&policy, classed).unwrap();
    // What is missing here is warned of beside the answer.
    let parsed = |run: Tieline| -> Value { serde_json::from_slice(&run.output().stdout).unwrap() };
    let shown = parsed(run(&["--json", "--key", "ci"]));
    let ways = shown["ways"].as_array().unwrap();
    assert_eq!(ways.len(), 2, "{shown}");
    let told = |at: usize| {
        ["when", "zone", "as", "rule"].map(|name| ways[at][name].as_str().unwrap().to_owned())
    };
    assert_eq!(told(0), ["first", "lan", "redacted", "veiled"]);
    assert_eq!(told(1), ["others_fail", "cloud", "as-is", "open"]);
    assert_eq!((&shown["to"], &shown["zone"]), (&"near/a".into(), &"lan".into()));
    // What the policy goes by besides, and was not told.
    assert_eq!(shown["untold"], serde_json::json!(["--label"]));
    assert_eq!(parsed(run(&["--json"]))["untold"], serde_json::json!(["--key", "--label"]));
    assert_eq!(ways[1]["no_key_here"], serde_json::json!(["far/b"]));
    assert!(!ways[0]["surfaces"].to_string().contains("muster"));
    assert!(ways[1]["surfaces"].to_string().contains("muster"));
    let output = run(&["--key", "ci"]).output();
    let said = home.said(&output);
    assert!(said.contains("only if others fail: 41 bytes would leave to far/b (its key"), "{said}");
    // Without the key that the rule names it goes no farther than this network; a label keeps it here.
    assert_eq!(parsed(run(&["--json"]))["ways"].as_array().unwrap().len(), 1);
    assert_eq!(parsed(run(&["--json", "--key", "ci", "--label", "ours"]))["leaves"], false);
    let unknown = run(&["--key", "ic"]).output();
    assert_eq!(unknown.status.code(), Some(1));
    let args = ["--policy", policy.to_str().unwrap(), "route", "explain", "Hi", "--key", "ci"];
    let explained = home.tieline(args).args(&["--json"]).env("TIELINE_OFFLINE", "false");
    let explained = parsed(explained);
    assert_eq!(explained["no_key_here"], serde_json::json!(["far/b"]));
    let names = explained["scores"].as_array().unwrap().iter().map(|one| one["name"].clone());
    assert_eq!(names.collect::<Vec<_>>().len(), 2, "{explained}");
}
