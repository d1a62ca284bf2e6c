//! Rules followed at random, broken on purpose, and made too deep.

use proptest::prelude::*;
use serde_json::Value;

use super::*;

mod corpus;
mod refused;

/// The end of an answer in the test vocabulary.
const END: u32 = 0;
/// Another end, as many chat models have.
const OTHER_END: u32 = 1;
/// A control token, `[CALL]`.
const CALL: u32 = 2;
/// A run of spaces longer than the tree holds.
const LONG: u32 = 3;

/// All bytes and some hundred longer tokens, as a trained vocabulary has them.
fn vocabulary() -> Vocabulary {
    let control = |name: &str| TokenBytes::Control(name.to_owned());
    let mut tokens = vec![control("<|im_end|>"), control("<|eot|>"), control("[CALL]")];
    tokens.push(TokenBytes::Text(vec![b' '; 1024]));
    tokens.extend((0..=u8::MAX).map(|byte| TokenBytes::Text(vec![byte])));
    let marks = "{\" \": \", \"} \"}\n [{ }] {\n ,\n :\" \"\" \\\" \\u \\n \": [ ]} }, }} <tool_call> </tool_call>\n ::=";
    let words = "name age city type null true false arguments date -01- 00 12 2026 10 99 100 -1 .5 e+ the an \
                 in er on at hello world ab abc red green blue é ü 漢字 🙂 \u{301} get_weather kind items";
    let mut longer: Vec<Vec<u8>> = marks.split(' ').map(|mark| mark.as_bytes().to_vec()).collect();
    longer.extend(
        ["\"a\"", "\": ", ", ", ",\n  ", "  ", "\n    ", "\n\n", "😀".split_at(0).1]
            .map(|text| text.as_bytes().to_vec()),
    );
    for word in words.split_whitespace() {
        longer.extend(
            [word.to_owned(), format!(" {word}"), format!("\"{word}"), format!("{word}\"")]
                .map(String::into_bytes),
        );
    }
    // A part of a character and a duplicate, both of which occur.
    longer.extend([b"\xf0\x9f".to_vec(), b"name".to_vec()]);
    tokens.extend(longer.into_iter().map(TokenBytes::Text));
    tokens.extend([TokenBytes::Unused, TokenBytes::Text(Vec::new())]);
    Vocabulary::new(tokens, &[END, OTHER_END]).unwrap()
}

/// Whether a text keeps to a rule.
fn check(constraint: &Constraint, text: &str) -> Result<(), RuleError> {
    Check::new(constraint)?.text(text)
}

fn rules() -> Rules {
    Rules::new(&vocabulary()).unwrap()
}

/// The bytes that a token adds; asked of the tree itself.
fn bytes(rules: &Rules, token: u32) -> Vec<u8> {
    rules.vocabulary.env().tok_trie().token(token).to_vec()
}

/// A small generator: the same seed, the same walk.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// Takes random allowed tokens up to an end. After `patience` tokens it prefers to end, then to close.
fn walk(rules: &Rules, rule: &mut Rule, dice: &mut Dice, patience: usize) -> (Vec<u32>, String) {
    let mut tokens = Vec::new();
    let mut text = Vec::new();
    for step in 0..4000 {
        let allowed: Vec<u32> = rule.mask().unwrap().tokens().collect();
        assert_eq!(allowed.contains(&END), rule.may_end());
        assert_eq!(allowed.iter().all(|token| rules.vocabulary.ends(*token)), rule.is_complete());
        let closing = |token: &&u32| {
            matches!(bytes(rules, **token).as_slice(), b"\"" | b"}" | b"]" | b"}}" | b"\"}" | b"]}")
        };
        let token = match (step > patience, allowed.contains(&END)) {
            (true, true) => END,
            (true, false) if dice.below(4) > 0 => {
                let closing: Vec<u32> = allowed.iter().filter(closing).copied().collect();
                let from = if closing.is_empty() { &allowed } else { &closing };
                from[dice.below(from.len())]
            }
            _ => allowed[dice.below(allowed.len())],
        };
        rule.accept(token).unwrap();
        if token == END || token == OTHER_END {
            assert!(rule.is_complete());
            return (tokens, String::from_utf8(text).unwrap());
        }
        tokens.push(token);
        text.extend(bytes(rules, token));
    }
    panic!("no end after {} bytes", text.len());
}

/// Every text of a rule keeps to it.
fn check_walks(constraint: &Constraint) {
    let rules = rules();
    for seed in 1..=12 {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut rule = rules.compile(constraint).unwrap();
        let (_, text) = walk(&rules, &mut rule, &mut dice, 5 * usize::try_from(seed).unwrap());
        check(constraint, &text)
            .unwrap_or_else(|error| panic!("{error}: {text:?} of {constraint:?}"));
    }
}

#[test]
fn random_answers_keep_to_their_schema() {
    for schema in corpus::SCHEMAS {
        check_walks(&Constraint::JsonSchema((*schema).to_owned()));
    }
    check_walks(&Constraint::JsonObject);
}

#[test]
fn random_answers_keep_to_their_regex() {
    for regex in corpus::REGEXES {
        check_walks(&Constraint::Regex((*regex).to_owned()));
    }
}

#[test]
fn random_answers_keep_to_their_grammar() {
    for grammar in corpus::LARK {
        check_walks(&Constraint::Lark((*grammar).to_owned()));
    }
    for grammar in corpus::GBNF {
        check_walks(&Constraint::Gbnf((*grammar).to_owned()));
    }
}

#[test]
fn texts_are_told_apart() {
    for (constraint, good, bad) in corpus::texts() {
        for text in good {
            assert_eq!(check(&constraint, text), Ok(()), "{text:?} of {constraint:?}");
        }
        for text in bad {
            let found = check(&constraint, text);
            assert!(
                matches!(found, Err(RuleError::Broken { .. })),
                "{found:?}: {text:?} of {constraint:?}"
            );
        }
    }
}

#[test]
fn the_first_wrong_byte_is_told() {
    let constraint = Constraint::Regex("[0-9]{3}".to_owned());
    let broken = |kept| Err(RuleError::Broken { what: "regular expression", kept });
    assert_eq!(check(&constraint, "12x"), broken(2));
    assert_eq!(check(&constraint, "12"), broken(2));
    assert_eq!(check(&constraint, "1234"), broken(3));
}

#[test]
fn members_come_in_the_order_of_the_schema() {
    let constraint = Constraint::JsonSchema(corpus::SCHEMAS[0].to_owned());
    assert_eq!(check(&constraint, r#"{"name": "a", "age": 3}"#), Ok(()));
    assert!(check(&constraint, r#"{"age": 3, "name": "a"}"#).is_err());
}

#[test]
fn white_space_is_bounded() {
    let rules = rules();
    let mut rule = rules.compile(&Constraint::JsonObject).unwrap();
    rule.accept(4 + u32::from(b'{')).unwrap();
    let (line, space) = (4 + u32::from(b'\n'), 4 + u32::from(b' '));
    assert_eq!(rule.valid_prefix(&[line, line]), 1);
    assert_eq!(rule.valid_prefix(&[space, space]), 1);
    assert_eq!(rule.valid_prefix(&[vec![line], vec![space; 60]].concat()), 41);
}

#[test]
fn forbidden_logits_go_to_minus_infinity_and_no_others() {
    let rules = rules();
    let mut rule = rules.compile(&Constraint::Regex("[a-z]+".to_owned())).unwrap();
    let mask = rule.mask().unwrap().clone();
    let mut logits = vec![1.0; rules.vocabulary.len() + 77];
    rule.apply(&mut logits).unwrap();
    for (token, logit) in (0_u32..).zip(&logits) {
        let want = if mask.allows(token) { 1.0 } else { f32::NEG_INFINITY };
        assert_eq!(logit.total_cmp(&want), std::cmp::Ordering::Equal, "token {token}");
    }
    assert_eq!(usize::try_from(mask.count()).unwrap(), mask.tokens().count());
    assert!(mask.allows(4 + u32::from(b'a')) && !mask.allows(END) && !mask.allows(LONG));
    // Fewer logits than tokens is no reason to fail.
    rule.apply(&mut [0.0; 3]).unwrap();
}

#[test]
fn both_ends_end_and_nothing_comes_after() {
    let rules = rules();
    for end in [END, OTHER_END] {
        let mut rule = rules.compile(&Constraint::Regex("a|ab".to_owned())).unwrap();
        assert!(!rule.may_end());
        assert!(matches!(rule.accept(end), Err(RuleError::Refused { .. })));
        rule.accept(4 + u32::from(b'a')).unwrap();
        assert!(rule.may_end() && !rule.is_complete());
        assert_eq!(rule.valid_prefix(&[end, end]), 1);
        rule.accept(end).unwrap();
        assert!(rule.is_complete());
        assert!(matches!(rule.accept(4 + u32::from(b'b')), Err(RuleError::Refused { .. })));
        assert_eq!(rule.mask(), Err(RuleError::Stuck { what: "regular expression" }));
        assert_eq!(rule.valid_prefix(&[end]), 0);
    }
}

#[test]
fn a_complete_answer_allows_only_its_ends() {
    let rules = rules();
    let mut rule = rules.compile(&Constraint::Regex("ab".to_owned())).unwrap();
    for byte in b"ab" {
        rule.accept(4 + u32::from(*byte)).unwrap();
    }
    assert!(rule.is_complete() && rule.may_end());
    assert_eq!(rule.mask().unwrap().tokens().collect::<Vec<_>>(), [END, OTHER_END]);
    assert_eq!((rule.valid_prefix(&[OTHER_END]), rule.valid_prefix(&[9])), (1, 0));
}

#[test]
fn a_refused_token_changes_nothing() {
    let rules = rules();
    let mut rule = rules.compile(&Constraint::Regex("[0-9]+".to_owned())).unwrap();
    let before = rule.mask().unwrap().clone();
    for token in [4 + u32::from(b'x'), CALL, 1_000_000, u32::MAX] {
        assert!(matches!(rule.accept(token), Err(RuleError::Refused { .. })), "{token}");
        assert_eq!(rule.valid_prefix(&[token]), 0);
    }
    assert_eq!(rule.mask().unwrap(), &before);
    rule.accept(4 + u32::from(b'1')).unwrap();
}

#[test]
fn what_must_come_is_told() {
    let rules = rules();
    let schema = r#"{"type":"object","properties":{"name":{"const":"hello world"}},"required":["name"],"additionalProperties":false}"#;
    let mut rule = rules.compile(&Constraint::JsonSchema(schema.to_owned())).unwrap();
    for byte in b"{\"name\":\"" {
        rule.accept(4 + u32::from(*byte)).unwrap();
    }
    assert_eq!(rule.forced_text(), b"hello world\"");
    let forced = rule.forced();
    assert!(!forced.is_empty());
    assert_eq!(rule.valid_prefix(&forced), forced.len());
    let mut free = rules.compile(&Constraint::Regex("[a-z]+".to_owned())).unwrap();
    assert_eq!((free.forced(), free.forced_text()), (vec![], vec![]));
    // Looking ahead moves nothing.
    assert_eq!(rule.forced(), forced);
    assert!(!rule.may_end());
}

#[test]
fn rules_go_to_other_threads_and_say_no_text() {
    fn is_send<T: Send>(_: &T) {}
    let rules = rules();
    let rule = rules.compile(&Constraint::Regex("secret".to_owned())).unwrap();
    is_send(&rules);
    is_send(&rule);
    let said = format!("{rules:?} {rule:?}");
    assert!(!said.contains("secret"), "{said}");
}

fn tool(name: &str, parameters: &str) -> Tool {
    Tool { name: name.to_owned(), description: String::new(), parameters: parameters.to_owned() }
}

const HERMES: CallMarks<'static> =
    CallMarks { begin: "<tool_call>\n", end: "\n</tool_call>", between: "\n" };

fn tools() -> Vec<Tool> {
    let weather = r##"{"type":"object","properties":{"city":{"type":"string"},"days":{"$ref":"#/$defs/days"}},"required":["city"],
        "$defs":{"days":{"type":"integer","minimum":1,"maximum":9}},"additionalProperties":false}"##;
    vec![
        tool("get_weather", weather),
        tool("no\"thing \u{7f}", ""),
        tool("odd", r#"{"properties":{"x":{"type":"string","format":"int32"}},"not":{}}"#),
    ]
}

/// Walks calls and gives each call's JSON.
fn calls(choice: &ToolChoice, marks: CallMarks<'_>, seed: u64) -> Vec<Value> {
    let rules = rules();
    let mut rule = rules.compile_calls(&tools(), marks, choice).unwrap();
    let (tokens, text) = walk(&rules, &mut rule, &mut Dice(seed), 10);
    let [begin, end] = [marks.begin, marks.end].map(|mark| mark.replace("[CALL]", ""));
    if marks.begin.contains("[CALL]") {
        assert_eq!(tokens[0], CALL);
    }
    let cut = format!("{end}{}", marks.between);
    let parts: Vec<&str> = if cut.is_empty() { vec![&text] } else { text.split(&cut).collect() };
    let parts = parts.into_iter().map(|part| part.strip_suffix(&end).unwrap_or(part));
    parts.map(|part| serde_json::from_str(part.strip_prefix(&begin).unwrap()).unwrap()).collect()
}

#[test]
fn a_call_that_must_be_made_is_one_of_the_tools() {
    for seed in 1..20 {
        let found = calls(&ToolChoice::Required, HERMES, seed);
        assert!((1..=8).contains(&found.len()));
        for call in found {
            assert!(tools().iter().any(|tool| call["name"] == tool.name), "{call}");
            assert!(call["arguments"].is_object());
        }
    }
}

#[test]
fn a_named_tool_is_called_once() {
    for seed in 1..10 {
        let found = calls(&ToolChoice::Named("get_weather".to_owned()), HERMES, seed);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["name"], "get_weather");
        assert!(found[0]["arguments"]["city"].is_string());
        assert_eq!(found[0].as_object().unwrap().keys().collect::<Vec<_>>(), ["name", "arguments"]);
    }
}

#[test]
fn control_tokens_around_a_call_are_tokens() {
    let marks = CallMarks { begin: "[CALL]", end: "", between: "" };
    let found = calls(&ToolChoice::Named("get_weather".to_owned()), marks, 5);
    assert_eq!(found[0]["name"], "get_weather");
}

#[test]
fn vocabularies_that_cannot_be() {
    let text = || vec![TokenBytes::Text(b"a".to_vec()); 3];
    assert!(matches!(Vocabulary::new(text(), &[]), Err(RuleError::Invalid { .. })));
    assert!(matches!(Vocabulary::new(text(), &[3]), Err(RuleError::Invalid { .. })));
    assert!(matches!(Vocabulary::new(Vec::new(), &[0]), Err(RuleError::Invalid { .. })));
    let large = vec![TokenBytes::Text(vec![b'a'; 1000]); 5000];
    assert!(matches!(Vocabulary::new(large, &[0]), Err(RuleError::TooLarge { .. })));
    let good = Vocabulary::new(text(), &[2]).unwrap();
    assert_eq!((good.len(), good.is_empty(), good.ends(2), good.ends(1)), (3, false, true, false));
    assert_eq!(vocabulary().control("[CALL]"), Some(CALL));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_valid_prefix_is_what_is_accepted(which in 0..corpus::SCHEMAS.len(), seed in 1..u64::MAX, noise in 0..8_usize) {
        let rules = rules();
        let constraint = Constraint::JsonSchema(corpus::SCHEMAS[which].to_owned());
        let mut dice = Dice(seed);
        let (mut draft, _) = walk(&rules, &mut rules.compile(&constraint).unwrap(), &mut dice, 20);
        draft.push(END);
        for _ in 0..noise {
            let at = dice.below(draft.len());
            draft[at] = u32::try_from(dice.below(rules.vocabulary.len() + 2)).unwrap();
        }
        let mut rule = rules.compile(&constraint).unwrap();
        let valid = rule.valid_prefix(&draft);
        let accepted = draft.iter().take_while(|token| rule.accept(**token).is_ok()).count();
        prop_assert_eq!(valid, accepted);
    }

    #[test]
    fn no_text_makes_it_panic(source in "[ -~\\n]{0,60}|(root ::= |start: )?[a-z\\[\\](){}|*+?\"/\\\\:0-9 \\n]{0,50}") {
        let rules = rules();
        for constraint in [Constraint::JsonSchema, Constraint::Regex, Constraint::Lark, Constraint::Gbnf] {
            if let Ok(mut rule) = rules.compile(&constraint(source.clone())) {
                let first = rule.mask().unwrap().tokens().next().unwrap();
                prop_assert!(rule.accept(first).is_ok());
            }
        }
    }
}

#[test]
fn a_message_says_what_is_wrong_and_not_only_that_something_is() {
    let announced = "regex parse error:\n    [a-\n    ^\nerror: unclosed character class";
    assert_eq!(first_line(announced), "unclosed character class");
    assert_eq!(first_line("Bad rule.\nplace 1\nerror: more"), "bad rule");
}
