//! `run` with a rule for the answer.

use serde_json::Value;

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
