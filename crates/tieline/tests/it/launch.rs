//! Tools are pointed at whatever the server answers to.

use testkit::lora;

use super::home::Home;

const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "https://cloud.example/v1"
zone = "cloud"
models = { big = {} }

[models.fast]
candidates = ["cloud/*"]
"#;

#[track_caller]
fn check(home: &Home, args: &[&str], want: Result<&str, &str>) {
    let mut all = vec!["launch", "claude", "--print", "--json"];
    all.extend(args);
    let output = home.tieline(all).output();
    let said = home.said(&output);
    match want {
        Ok(model) => {
            let start: serde_json::Value =
                serde_json::from_slice(&output.stdout).unwrap_or_default();
            assert_eq!(start["arguments"], serde_json::json!(["--model", model]), "{said}");
        }
        Err(words) => assert!(!output.status.success() && said.contains(words), "{said}"),
    }
}

#[test]
fn a_tool_may_ask_for_what_the_policy_names() {
    let home = Home::empty();
    check(&home, &[], Err("no model is here"));
    check(&home, &["--model", "auto"], Err("no model is here"));
    check(&home, &["--model", "cloud/big"], Err("cloud/big"));
    std::fs::create_dir_all(home.path()).unwrap();
    std::fs::write(home.path().join("policy.toml"), POLICY).unwrap();
    for name in ["auto", "fast", "cloud/big"] {
        check(&home, &["--model", name], Ok(name));
    }
    check(&home, &[], Ok("auto"));
    check(&home, &["--model", "cloud/small"], Err("cloud/small"));
}

#[test]
fn an_adapter_is_no_second_model() {
    let home = Home::with_model();
    let file = home.file("law.gguf", lora::smollm2_adapter(1));
    let reference = format!("file:{}", file.display());
    assert!(home.tieline(["pull", &reference, "--name", "law"]).output().status.success());
    check(&home, &[], Ok("smollm2"));
}

#[test]
fn what_another_server_answers_to_is_not_looked_for_here() {
    let home = Home::empty();
    check(&home, &["--model", "theirs"], Err("theirs"));
    check(&home, &["--model", "theirs", "--server", "127.0.0.1:9"], Ok("theirs"));
    let args = ["launch", "claude", "--model", "theirs", "--server", "127.0.0.1:9"];
    let said = home.said(&home.tieline(args).output());
    assert!(said.contains("no server answers at 127.0.0.1:9"), "{said}");
}
