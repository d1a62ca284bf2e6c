//! What cannot be a rule is refused with a reason: no panic, no overflow, no endless work.

use super::*;

/// Makes a rule of a source.
type Kind = fn(String) -> Constraint;

const JSON: Kind = Constraint::JsonSchema;
const REGEX: Kind = Constraint::Regex;
const LARK: Kind = Constraint::Lark;
const GBNF: Kind = Constraint::Gbnf;

/// The rule is the caller's mistake, and the message has these words.
#[track_caller]
fn check_invalid(kind: Kind, source: &str, words: &str) {
    let constraint = kind(source.to_owned());
    let error = rules().compile(&constraint).map(|_| ()).unwrap_err();
    let what = constraint.as_str();
    assert!(
        matches!(&error, RuleError::Invalid { what: found, .. } if *found == what),
        "{error:?}"
    );
    check_message(&error, words);
}

#[track_caller]
fn check_large(kind: Kind, source: &str, words: &str) {
    let error = rules().compile(&kind(source.to_owned())).map(|_| ()).unwrap_err();
    assert!(matches!(error, RuleError::TooLarge { .. }), "{error:?}");
    check_message(&error, words);
}

#[track_caller]
fn check_message(error: &RuleError, words: &str) {
    let message = error.to_string();
    assert!(message.contains(words), "{message:?} has no {words:?}");
    assert!(
        !message.contains('\n') && !message.ends_with('.') && message.len() < 400,
        "{message:?}"
    );
}

/// Compiles or refuses, but comes back.
fn survive(kind: Kind, source: String) -> Result<Rule, RuleError> {
    rules().compile(&kind(source))
}

#[test]
fn schemas_that_are_none() {
    check_invalid(JSON, "", "empty");
    check_invalid(JSON, "{\"type\":", "not JSON");
    check_invalid(JSON, "[1]", "neither an object nor true");
    check_invalid(JSON, "false", "allows nothing");
    check_invalid(JSON, r#"{"type":"strin"}"#, "strin");
    check_invalid(JSON, r#"{"type":"string","pattern":"("}"#, "");
    check_invalid(JSON, r#"{"not":{"type":"string"}}"#, "not");
    check_invalid(JSON, r#"{"type":"integer","minimum":5,"maximum":3}"#, "");
    check_invalid(JSON, r#"{"type":"array","minItems":3,"maxItems":1}"#, "");
    check_invalid(JSON, r#"{"type":"object","properties":{"a":false},"required":["a"]}"#, "");
    check_invalid(JSON, r#"{"allOf":[{"type":"string"},{"type":"integer"}]}"#, "");
}

#[test]
fn references_stay_in_the_schema() {
    check_invalid(JSON, r#"{"$ref":"https://example.org/schema"}"#, "leads out of the schema");
    check_invalid(JSON, r#"{"$ref":"file:///etc/passwd"}"#, "leads out of the schema");
    check_invalid(JSON, r#"{"items":{"$ref":"other.json#/a"}}"#, "leads out of the schema");
    check_invalid(JSON, r##"{"$ref":"#/$defs/none"}"##, "leads nowhere");
    check_invalid(JSON, r##"{"$ref":"#anchor"}"##, "leads nowhere");
}

#[test]
fn a_caller_cannot_set_the_engines_options() {
    let source =
        r#"{"type":"object","x-guidance":{"whitespace_pattern":"(x+)+","item_separator":";"}}"#;
    let constraint = Constraint::JsonSchema(source.to_owned());
    assert_eq!(check(&constraint, "{\"a\":1,\"b\":2}"), Ok(()));
    assert!(check(&constraint, "{\"a\":1;\"b\":2}").is_err());
}

#[test]
fn regular_expressions_that_are_none() {
    check_invalid(REGEX, " \n", "empty");
    check_invalid(REGEX, "(", "");
    check_invalid(REGEX, "[z-a]", "");
    check_invalid(REGEX, "a{3,1}", "");
    check_invalid(REGEX, r"(a)\1", "");
    check_invalid(REGEX, "a(?=b)", "");
}

#[test]
fn lark_grammars_that_are_none() {
    check_invalid(LARK, "", "empty");
    check_invalid(LARK, "a: \"b\"", "start");
    check_invalid(LARK, "start: other", "other");
    check_invalid(LARK, "start: \"open", "never closed");
    check_invalid(LARK, "start: /open", "never closed");
    check_invalid(LARK, "start: <|im_end|>", "special tokens");
    check_invalid(LARK, "start: \"a\" <[0]>", "special tokens");
    check_invalid(LARK, "start: a\na[max_tokens=3]: /x+/", "max_tokens");
    check_invalid(LARK, "start: a\na[stop=\"x\"]: /x+/", "stop");
    check_invalid(LARK, "%llguidance {\"allow_invalid_utf8\": true}\nstart: \"a\"", "UTF-8");
    check_invalid(LARK, "start: %json {\"$ref\":\"http://x\"}", "leads out");
    check_invalid(LARK, "start: %json", "%json");
    check_invalid(LARK, "start: @other", "");
}

#[test]
fn gbnf_grammars_that_are_none() {
    check_invalid(GBNF, "", "empty");
    check_invalid(GBNF, "# nothing\n", "no rule root");
    check_invalid(GBNF, "item ::= \"a\"", "no rule root");
    check_invalid(GBNF, "root ::= itme", "\"itme\", which is not defined");
    check_invalid(GBNF, "root ::= \"a", "line 1: a \" is never closed");
    check_invalid(GBNF, "root ::= (\"a\"", "( is never closed");
    check_invalid(GBNF, "root ::= [a", "[ is never closed");
    check_invalid(GBNF, "root ::= \"a\"{2", "{ is never closed");
    check_invalid(GBNF, "root ::= \"a\"{3,2}", "repetitions");
    check_invalid(GBNF, "root ::= \"a\"{9999}", "repetitions");
    check_invalid(GBNF, "root ::= [z-a]", "backwards");
    check_invalid(GBNF, "root ::= []", "no characters");
    check_invalid(GBNF, "root ::= \"\\q\"", "escape");
    check_invalid(GBNF, "root ::= \"\\ud800\"", "digits");
    check_invalid(GBNF, "root = \"a\"", "::=");
    check_invalid(
        GBNF,
        "root ::= \"a\"\n\nroot ::= \"b\"",
        "line 3: rule \"root\" is defined twice",
    );
    check_invalid(GBNF, "root ::= \"a\" )", "not expected");
    check_invalid(
        GBNF,
        "root ::= expr\nexpr ::= expr \"+\" expr | \"1\"",
        "rule expr can begin with itself",
    );
    check_invalid(
        GBNF,
        "root ::= a \"x\"\na ::= \"\" b\nb ::= c? a | \"y\"\nc ::= \"c\"",
        "can begin with itself",
    );
}

/// The server that fell over 60,000 brackets was another; ours says no.
#[test]
fn sixty_thousand_brackets_are_too_deep() {
    const DEEP: usize = 60_000;
    let open = "(".repeat(DEEP);
    check_large(REGEX, &open, "nested");
    check_large(REGEX, &format!("{}a{}", "(".repeat(30_000), ")".repeat(30_000)), "nested");
    check_large(REGEX, &"[".repeat(DEEP), "nested");
    check_large(REGEX, &"(?:".repeat(20_000), "nested");
    check_large(LARK, &format!("start: {open}"), "nested");
    check_large(LARK, &format!("start: /{open}/"), "nested");
    check_large(LARK, &format!("start: {}", "[".repeat(DEEP)), "nested");
    check_large(LARK, &format!("start: %json {}", "{\"a\":".repeat(10_000)), "nested");
    check_large(LARK, &format!("start: {}", "%lark {".repeat(5_000)), "nested");
    check_large(GBNF, &format!("root ::= {open}"), "nested");
    check_large(JSON, &"[".repeat(DEEP), "nested");
    check_large(JSON, &"{\"items\":".repeat(7_000), "nested");
    // Right as JSON and short enough, but as deep.
    check_large(
        JSON,
        &format!("{{\"const\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000)),
        "nested",
    );
    check_large(
        GBNF,
        &format!("root ::= {}\"a\"{}", "(".repeat(30_000), ")".repeat(30_000)),
        "nested",
    );
}

#[test]
fn nesting_just_below_the_bound_compiles() {
    let deep = limits::MAX_DEPTH;
    let brackets = format!("{}a{}", "(".repeat(deep), ")".repeat(deep));
    survive(REGEX, brackets).unwrap();
    // The engine reads Lark, into which GBNF is turned, only so deep.
    let deep_lark = 25;
    let brackets = format!("{}\"a\"{}", "(".repeat(deep_lark), ")".repeat(deep_lark));
    survive(GBNF, format!("root ::= {brackets}")).unwrap();
    survive(LARK, format!("start: {brackets}")).unwrap();
    let schema =
        format!("{}{{\"type\":\"null\"}}{}", "{\"items\":".repeat(deep - 1), "}".repeat(deep - 1));
    survive(JSON, schema).unwrap();
    let any_of =
        format!("{}{{}}{}", "{\"anyOf\":[".repeat(deep / 2 - 1), "]}".repeat(deep / 2 - 1));
    survive(JSON, any_of).unwrap();
}

#[test]
fn chains_of_names_are_bounded() {
    let chain =
        |length: usize, line: fn(usize) -> String| (0..length).map(line).collect::<String>();
    let lark = |length| {
        format!(
            "start: r0\n{}r{length}: \"a\"\n",
            chain(length, |at| format!("r{at}: r{}\n", at + 1))
        )
    };
    check_large(LARK, &lark(4000), "chain");
    survive(LARK, lark(limits::MAX_CHAIN - 4)).unwrap();
    let tokens = lark(limits::MAX_CHAIN - 4).replace('r', "R").replace("staRt", "start");
    survive(LARK, tokens).unwrap();
    let ignored = lark(4000).replace("start: r0", "start: \"x\"\n%ignore R0").replace('r', "R");
    check_large(LARK, &ignored.replace("staRt", "start").replace("ignoRe", "ignore"), "chain");
    // Inside brackets a line may end, and the next name is no definition.
    let hidden = chain(2500, |at| format!("r{at}: (\n r{} [x])\n", at + 1));
    check_large(LARK, &format!("start: r0\nx: \"x\"\n{hidden}r2500: \"a\"\n"), "chain");
    let gbnf = |length| {
        format!(
            "root ::= r0\n{}r{length} ::= \"a\"\n",
            chain(length, |at| format!("r{at} ::= r{}\n", at + 1))
        )
    };
    check_large(GBNF, &gbnf(900), "chain");
    check_large(GBNF, &gbnf(3000), "rules");
    survive(GBNF, gbnf(limits::MAX_CHAIN - 8)).unwrap();
    let refs = |length| {
        let defs = chain(length, |at| format!("\"d{at}\":{{\"$ref\":\"#/$defs/d{}\"}},", at + 1));
        format!(
            "{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{defs}\"d{length}\":{{\"type\":\"null\"}}}}}}"
        )
    };
    check_large(JSON, &refs(1500), "too deep into each other");
    survive(JSON, refs(limits::MAX_CHAIN - 8)).unwrap();
    // Each entered by the one before, with more around it.
    let nested = chain(400, |at| {
        format!(
            "\"d{at}\":{{\"properties\":{{\"a\":{{\"items\":{{\"$ref\":\"#/$defs/d{}\"}}}}}}}},",
            at + 1
        )
    });
    check_large(
        JSON,
        &format!("{{\"$ref\":\"#/$defs/d0\",\"$defs\":{{{nested}\"d400\":{{}}}}}}"),
        "too deep into each other",
    );
}

#[test]
fn long_sources_are_refused() {
    let long = "a".repeat(Constraint::MAX_BYTES + 1);
    for kind in [JSON, REGEX, LARK, GBNF] {
        check_large(kind, &long, "bytes");
    }
}

/// None of these may take the stack, the memory or the day; whether they compile is up to the engine.
#[test]
fn hard_work_is_bounded() {
    let hard: Vec<(Kind, String)> = vec![
        (REGEX, "((a{1000}){1000}){1000}".to_owned()),
        (REGEX, "(a|aa|aaa|[ab]*c){500}(x?){500}x{500}".to_owned()),
        (REGEX, "[ab]".repeat(10_000)),
        (REGEX, "a".repeat(60_000)),
        (REGEX, "(a|b)*a(a|b){40}".to_owned()),
        (REGEX, "a|".repeat(20_000)),
        (REGEX, "a?".repeat(20_000)),
        (REGEX, "*".repeat(60_000)),
        (REGEX, format!("a{}", "?".repeat(60_000))),
        (GBNF, "root ::= ((((\"a\"{2000}){2000}){2000}){2000})".to_owned()),
        (GBNF, "root ::= ((((r{2000}){2000}){2000}){2000})\nr ::= \"a\" r | \"b\"".to_owned()),
        (GBNF, format!("root ::= {}", "\"a\" ".repeat(10_000))),
        (GBNF, format!("root ::= {} \"b\"", "\"a\" | ".repeat(8_000))),
        (GBNF, "root ::= root2*\nroot2 ::= (\"\" | \"a\" root2?)*".to_owned()),
        (LARK, "start: start start | \"a\"".to_owned()),
        (LARK, "start: start | \"\"".to_owned()),
        (LARK, "start: start".to_owned()),
        (LARK, format!("start: {}\"a\"", "~".repeat(50_000))),
        (LARK, "start: A\nA: A \"a\"".to_owned()),
        (LARK, "start: ((a{5000}){5000}){5000}\na: \"x\" a | \"y\"".to_owned()),
        (JSON, r#"{"type":"array","minItems":1000000,"maxItems":1000000000}"#.to_owned()),
        (JSON, r#"{"type":"string","minLength":100000,"maxLength":1000000000}"#.to_owned()),
        (JSON, format!("{{\"enum\":[{}0]}}", (0..8000).map(|n| format!("{n},")).collect::<String>())),
        (JSON, r##"{"$ref":"#"}"##.to_owned()),
        (JSON, r##"{"$ref":"#/$defs/a","$defs":{"a":{"$ref":"#/$defs/b"},"b":{"$ref":"#/$defs/a"}}}"##.to_owned()),
        (JSON, r##"{"allOf":[{"$ref":"#"},{"type":"object"}]}"##.to_owned()),
        (JSON, format!("{{\"allOf\":[{}{{}}]}}", r#"{"anyOf":[{"minLength":1},{"maxLength":9},{"type":"integer"},{"pattern":"a"}]},"#.repeat(30))),
        (JSON, format!("{{\"type\":\"object\",\"properties\":{{{}\"z\":{{}}}}}}", (0..1500).map(|n| format!("\"p{n}\":{{}},")).collect::<String>())),
        (JSON, r#"{"type":"string","pattern":"(a|b)*a(a|b){60}$"}"#.to_owned()),
        (JSON, r#"{"type":"object","minProperties":100000}"#.to_owned()),
    ];
    for (kind, source) in hard {
        if let Ok(mut rule) = survive(kind, source) {
            let token = rule.mask().unwrap().tokens().next().unwrap();
            // So many choices that the next step passes a bound is an answer too.
            let next = rule.accept(token);
            assert!(matches!(next, Ok(()) | Err(RuleError::TooLarge { .. })), "{next:?}");
        }
    }
}

#[test]
fn calls_that_cannot_be() {
    let rules = rules();
    let refuse = |tools: &[Tool], choice: &ToolChoice, words: &str| {
        let error = rules.compile_calls(tools, HERMES, choice).map(|_| ()).unwrap_err();
        check_message(&error, words);
    };
    refuse(&[], &ToolChoice::Required, "no tool");
    refuse(&tools(), &ToolChoice::Named("other".to_owned()), "no tool \"other\"");
    refuse(&tools(), &ToolChoice::Auto, "must be made");
    refuse(&[tool("a", "{")], &ToolChoice::Required, "not JSON");
    refuse(&[tool("a", "[]")], &ToolChoice::Required, "not an object");
    refuse(&[tool("a", &"[".repeat(60_000))], &ToolChoice::Required, "nested");
    refuse(&[tool("a", r#"{"$ref":"http://x"}"#)], &ToolChoice::Required, "leads out");
    refuse(&vec![tool("a", ""); 257], &ToolChoice::Required, "257 tools");
    refuse(&vec![tool(&"a".repeat(5000), ""); 100], &ToolChoice::Required, "bytes");
}
