//! What a model would take, what it takes, and what is said where that does not fit.

use super::home::{Home, check, keys};

#[test]
fn a_plan_says_what_a_model_takes() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let plan = |args: &[&str]| {
        let mut all = vec!["plan", "smollm2", "--json"];
        all.extend(args);
        home.tieline(all).runner(&runner).json()
    };
    let short = plan(&["--ctx", "1024"]);
    insta::assert_snapshot!(keys(&short).join(" "), @"model digest fits free_bytes adapters_bytes planned_bytes needed_bytes learned_bytes held_bytes copies_bytes error_bytes base_bytes loads instead plan");
    assert_eq!(short["fits"], true);
    // Two bytes for each value of each key and value head of each layer.
    let kv =
        |plan: &serde_json::Value| plan["plan"]["memory"]["buffers"][0]["kv"].as_u64().unwrap();
    assert_eq!(kv(&short), 1024 * 30 * 2 * 3 * 64 * 2);
    assert_eq!(kv(&plan(&["--ctx", "2048"])), 2 * kv(&short));
    assert_eq!(kv(&plan(&["--ctx", "1024", "--kv", "q8_0"])), kv(&short) * 17 / 32);
    // Nothing was loaded.
    assert_eq!(home.tieline(["ps", "--json"]).text(), "[]\n");
}

#[test]
fn what_does_not_fit_is_refused_with_what_would() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let hint = |args: &[&str]| {
        let output = home.tieline(args.iter().copied()).runner(&runner).output();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("smollm2 with a context of 8192 tokens needs"), "{said}");
        let hint = said.lines().find_map(|line| line.strip_prefix("hint: ")).unwrap();
        hint.to_owned()
    };
    let fits = hint(&["run", "smollm2", "Hi", "--memory", "350MB"]);
    assert!(fits.contains("--kv q8_0 (") && fits.contains("--ctx "), "{fits}");
    assert!(hint(&["plan", "smollm2", "--memory", "350MB"]).contains("--kv q8_0 ("));
    let nothing = hint(&["run", "smollm2", "Hi", "--memory", "1MB"]);
    assert_eq!(nothing, "end other programs, or use a smaller model");
    // What is offered does fit.
    let context = fits.split("--ctx ").nth(1).unwrap().split(' ').next().unwrap();
    let args = ["plan", "smollm2", "--memory", "350MB", "--ctx", context, "--json"];
    assert_eq!(home.tieline(args).runner(&runner).json()["fits"], true);
}

#[test]
fn a_load_is_kept_beside_its_plan() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let args = ["run", "smollm2", "Hi", "--threads", "1", "--ctx", "512", "-n", "2", "--json"];
    let memory = home.tieline(args).runner(&runner).json()["memory"].clone();
    let bytes = |name: &str| memory[name].as_i64().unwrap();
    assert_eq!(bytes("error_bytes"), bytes("held_bytes") - bytes("planned_bytes"));
    assert!(bytes("held_bytes") > 90_000_000, "{memory}");
    let plan = home.tieline(["plan", "smollm2", "--ctx", "700", "--json"]).runner(&runner).json();
    assert_eq!(plan["loads"], 1);
    // Another kind of load has learned nothing from it.
    let args = ["plan", "smollm2", "--kv", "q8_0", "--json"];
    assert_eq!(home.tieline(args).runner(&runner).json()["loads"], 0);
}

#[test]
fn a_size_that_is_none_is_refused() {
    let home = Home::shared();
    check!(home, home.tieline(["plan", "smollm2", "--memory", "much"]), @"
    exit 1
    --- stderr
    error: invalid value 'much' for '--memory <SIZE>': expected a size such as 2GB or 500MB

    For more information, try '--help'.
    ");
}
