//! `run` with a rule for the answer.

use serde_json::{Value, json};

use super::daemon::Daemon;
use super::home::{Home, check};

#[test]
fn an_answer_keeps_to_its_schema() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let schema =
        r#"{"type":"array","items":{"type":"string","maxLength":12},"minItems":3,"maxItems":3}"#;
    let file = home.file("three.json", schema);
    let ask = |schema: &str| home.run(&runner, &["Name colours.", "--json-schema", schema]).text();
    let answer = ask(schema);
    let colours: Vec<String> = serde_json::from_str(&answer).unwrap();
    assert_eq!(colours.len(), 3, "{answer}");
    assert!(colours.iter().all(|colour| colour.chars().count() <= 12), "{answer}");
    assert_eq!(ask(file.to_str().unwrap()), answer);
}

#[test]
fn an_answer_keeps_to_its_expression_or_grammar() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let ask = |args: &[&str]| home.run(&runner, &["Is fire hot?"]).args(args).text();
    let year = ask(&["--regex", "[0-9]{4}"]);
    assert!(year.len() == 5 && year.trim_end().bytes().all(|byte| byte.is_ascii_digit()), "{year}");
    let gbnf = home.file("answer.gbnf", "root ::= \"perhaps\" | \"never\"");
    let lark = home.file("answer.lark", "start: \"sometimes\" | \"seldom\"");
    let said = ask(&["--grammar", gbnf.to_str().unwrap()]);
    assert!(["perhaps\n", "never\n"].contains(&said.as_str()), "{said}");
    let said = ask(&["--grammar", lark.to_str().unwrap()]);
    assert!(["sometimes\n", "seldom\n"].contains(&said.as_str()), "{said}");
}

#[test]
fn a_server_takes_every_kind_of_rule() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::with_model();
    let daemon = Daemon::start(&home, &runner, &["--ctx", "512"]);
    let chat = |rules: &Value| {
        let mut body = json!({ "model": "smollm2", "max_tokens": 40, "temperature": 0,
            "messages": [{ "role": "user", "content": "Is fire hot?" }] });
        for (name, rule) in rules.as_object().unwrap() {
            body[name] = rule.clone();
        }
        daemon.post("/v1/chat/completions", &body)
    };
    let said = |rules: Value| {
        let answer = chat(&rules).is(200);
        answer["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
    };
    let year = said(json!({ "regex": "[0-9]{4}" }));
    assert!(year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit()), "{year}");
    let lark = said(json!({ "lark": "start: \"sometimes\" | \"seldom\"" }));
    assert!(["sometimes", "seldom"].contains(&lark.as_str()), "{lark}");
    let native = json!({ "prompt": "Fire is", "regex": "[a-c]{3}", "n_predict": 9 });
    let native =
        daemon.post("/completion", &native).is(200)["content"].as_str().unwrap().to_owned();
    assert!(
        native.len() == 3 && native.bytes().all(|byte| (b'a'..=b'c').contains(&byte)),
        "{native}"
    );
    let two = chat(&json!({ "regex": "a", "grammar": "root ::= \"a\"" })).is(400);
    assert!(
        two["error"]["message"].as_str().unwrap().contains("grammar and regex exclude each other")
    );
    let bad = chat(&json!({ "regex": "[" })).is(400);
    assert_eq!(bad["error"]["type"], "invalid_request_error", "{bad}");
}

#[test]
fn an_answer_that_is_cut_says_so() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let output = home.run(&runner, &["hi", "--regex", "[a-z]{40}", "-n", "3", "--json"]).output();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let warning = "the answer was cut, and what there is does not keep to the regular expression";
    assert_eq!(report["warnings"], serde_json::json!([warning]));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, format!("warning: {warning}\n"));
    assert_eq!(report["finish_reason"], "max_tokens");
    let answer = report["answer"].as_str().unwrap();
    assert!(!answer.is_empty() && answer.bytes().all(|byte| byte.is_ascii_lowercase()), "{answer}");
}

#[test]
fn what_cannot_be_a_rule_is_an_error() {
    let Some(runner) = testkit::runner() else { return };
    let home = Home::shared();
    let ask = |args: &[&str]| home.run(&runner, &["hi"]).args(args);
    check!(home, ask(&["--json-schema", r#"{"$ref":"https://example.org/a.json"}"#]), @"
    exit 1
    --- stderr
    error: invalid JSON schema: a $ref leads out of the schema; only those that begin with # are followed
    ");
    let output = ask(&["--regex", "[a-"]).output();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.starts_with("error: invalid regular expression: "), "{said}");
}
