//! Rules as people write them, and texts that keep to them or do not.

use tieline_types::Constraint;

pub(super) const SCHEMAS: &[&str] = &[
    r#"{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"}},"required":["name","age"],"additionalProperties":false}"#,
    r#"{"type":"object"}"#,
    "true",
    r#"{"type":"string"}"#,
    r#"{"type":"string","minLength":2,"maxLength":5}"#,
    r#"{"type":"string","enum":["red","green","blue \"x\"","漢字"]}"#,
    r#"{"type":"integer","minimum":-5,"maximum":120}"#,
    r#"{"type":"number","exclusiveMinimum":0,"maximum":1.5}"#,
    r#"{"type":"integer","multipleOf":5,"minimum":0,"maximum":1000}"#,
    r#"{"type":"boolean"}"#,
    r#"{"type":"null"}"#,
    r#"{"const":{"kind":"a","items":[1,2,{"x":null}]}}"#,
    r#"{"enum":[1,"one",null,true,[1],{"a":1}]}"#,
    r#"{"type":"array","items":{"type":"integer","minimum":0,"maximum":99},"minItems":2,"maxItems":4}"#,
    r#"{"type":"array","items":{"type":"array","items":{"type":"boolean"},"maxItems":2},"maxItems":3}"#,
    r#"{"type":"array","prefixItems":[{"type":"string","maxLength":3},{"type":"integer"}],"items":false,"minItems":2}"#,
    r#"{"type":"array","maxItems":3}"#,
    r#"{"anyOf":[{"type":"string","maxLength":4},{"type":"integer"},{"type":"array","items":{"type":"null"},"maxItems":2}]}"#,
    r#"{"oneOf":[{"type":"object","properties":{"kind":{"const":"a"},"x":{"type":"integer"}},"required":["kind","x"],"additionalProperties":false},
        {"type":"object","properties":{"kind":{"const":"b"},"y":{"type":"string","maxLength":3}},"required":["kind"],"additionalProperties":false}]}"#,
    r#"{"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"boolean"}},"required":["b"]}],"additionalProperties":true}"#,
    r##"{"$ref":"#/$defs/node","$defs":{"node":{"type":"object","properties":{"value":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/node"},{"type":"null"}]}},"required":["value","next"],"additionalProperties":false}}}"##,
    r##"{"type":"object","properties":{"from":{"$ref":"#/definitions/point"},"to":{"$ref":"#/definitions/point"}},"required":["from","to"],"additionalProperties":false,
        "definitions":{"point":{"type":"object","properties":{"x":{"type":"number"},"y":{"type":"number"}},"required":["x","y"],"additionalProperties":false}}}"##,
    r##"{"type":"object","properties":{"children":{"type":"array","items":{"$ref":"#"},"maxItems":2}},"required":["children"],"additionalProperties":false}"##,
    r#"{"type":"string","pattern":"^[A-Z]{2}-[0-9]{3}$"}"#,
    r#"{"type":"string","pattern":"ab+"}"#,
    r#"{"type":"string","format":"date-time"}"#,
    r#"{"type":"object","properties":{"day":{"type":"string","format":"date"},"id":{"type":"string","format":"uuid"},"at":{"type":"string","format":"ipv4"}},"required":["day","id","at"],"additionalProperties":false}"#,
    r#"{"type":"string","format":"email"}"#,
    r#"{"type":"object","additionalProperties":{"type":"integer"}}"#,
    r#"{"type":"object","patternProperties":{"^x-[a-z]+$":{"type":"boolean"}},"additionalProperties":false}"#,
    r#"{"type":["string","null"],"maxLength":6}"#,
    r#"{"$schema":"https://json-schema.org/draft/2020-12/schema","title":"T","description":"d","type":"object","properties":{"größe":{"type":"string","default":"m","examples":["s"]},"🙂":{"const":"é\n\u0001"}},"required":["größe","🙂"],"additionalProperties":false}"#,
    r#"{"type":"object","properties":{"a":{"type":"object","properties":{"b":{"type":"object","properties":{"c":{"type":"array","items":{"type":"string","maxLength":2},"minItems":1,"maxItems":2}},"required":["c"],"additionalProperties":false}},"required":["b"],"additionalProperties":false}},"required":["a"],"additionalProperties":false}"#,
    r#"{"type":"object","properties":{"opt":{"type":"integer"},"req":{"type":"boolean"}},"required":["req"],"additionalProperties":false}"#,
    r#"{"type":"object","properties":{"$ref":{"type":"string","maxLength":3},"enum":{"const":{"$ref":"http://example.org"}}},"required":["$ref","enum"],"additionalProperties":false}"#,
];

pub(super) const REGEXES: &[&str] = &[
    r"[0-9]{3}-[0-9]{4}",
    r"^(yes|no|maybe)$",
    r"[a-z]+@[a-z]+\.(com|org)",
    r"(?i)hello( world)?!*",
    r"\d{1,3}(\.\d{1,3}){3}",
    "a*",
    r"[^/\n]{1,20}/[^/\n]{1,20}",
    r"\p{Greek}{2,4}|漢+",
    r"(a|b\\)+\$",
    "line\none",
];

pub(super) const LARK: &[&str] = &[
    "start: \"yes\" | \"no\"",
    "start: pair (\", \" pair)*\npair: KEY \"=\" value\nKEY: /[a-z]{1,8}/\nvalue: /[0-9]{1,5}/ | \"[\" start \"]\"\n",
    "%import common.INT\nstart: expr\nexpr: term ((\"+\" | \"-\") term)*\nterm: INT | \"(\" expr \")\" // a comment (((\n# and \"one more\n",
    "start: \"<call>\" data \"</call>\"\ndata: %json {\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\"}},\"required\":[\"a\"],\"additionalProperties\":false}\n",
    "start: \"go\" | stop | (\"a\" max_tokens)\nstop: \"stop\" temperature\ntemperature: /[0-9]{2}/\nmax_tokens: \"m\"",
    "start: WORD{1,4}\nWORD: \"ab\"i | \"(((\" \n  | /\\//\n",
];

pub(super) const GBNF: &[&str] = &[
    // JSON, as llama.cpp ships it.
    r#"root   ::= object
value  ::= object | array | string | number | ("true" | "false" | "null") ws

object ::=
  "{" ws (
            string ":" ws value
    ("," ws string ":" ws value)*
  )? "}" ws

array  ::=
  "[" ws (
            value
    ("," ws value)*
  )? "]" ws

string ::=
  "\"" (
    [^"\\\x7F\x00-\x1F] |
    "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) # escapes
  )* "\"" ws

number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws

# Optional space: by convention, applied in this grammar after literal chars when allowed
ws ::= | " " | "\n" [ \t]{0,20}
"#,
    // Arithmetic.
    r#"root  ::= (expr "=" ws term "\n")+
expr  ::= term ([-+*/] term)*
term  ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num   ::= [0-9]+ ws
ws    ::= [ \t\n]*
"#,
    // A list.
    r#"root ::= item+

# Excludes various line break characters
item ::= "- " [^\r\n\x0b\x0c\x85\u2028\u2029]+ "\n"
"#,
    // Chess.
    r#"root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")+
move ::= (pawn | nonpawn | castle) [+#]?

# piece type, optional file/rank, optional capture, dest file & rank
nonpawn ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]

# optional file & capture, dest file & rank, optional promotion
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?

castle ::= "O-O" "-O"?
"#,
    // Japanese text.
    r#"root   ::= jp-char+ ([ \t\n] jp-char+)*
jp-char ::= hiragana | katakana | punctuation | cjk
hiragana ::= [ぁ-ゟ]
katakana ::= [ァ-ヿ]
punctuation ::= [、-〾]
cjk ::= [一-鿿]
"#,
    // Repetitions, any character, classes with signs of their own.
    "root ::= a{2} (\"x\" | \"y\"){1,3} . [\\]\\-^a-c/]{2,} b?\na ::= \"a\\t\\\"\\x41\\u00e9\\U0001f642\"\nb ::= [^^-] | \"(\" b \")\"\n",
];

type Texts = (Constraint, &'static [&'static str], &'static [&'static str]);

/// Each rule, texts that keep to it, texts that do not.
pub(super) fn texts() -> Vec<Texts> {
    let schema = |at: usize| Constraint::JsonSchema(SCHEMAS[at].to_owned());
    let regex = |at: usize| Constraint::Regex(REGEXES[at].to_owned());
    let gbnf = |at: usize| Constraint::Gbnf(GBNF[at].to_owned());
    vec![
        (
            Constraint::JsonObject,
            &["{}", "{\"a\":[1,{\"b\":null}]}", "{\n  \"a\": 1\n}"],
            &["", "[]", "{", "{\"a\":1}x", "{\"a\":01}", "{,}"],
        ),
        (schema(4), &["\"ab\"", "\"é漢🙂\"", "\"\\n\\\"\""], &["\"a\"", "\"abcdef\"", "ab"]),
        (schema(6), &["-5", "0", "120"], &["-6", "121", "1.0", "+1"]),
        (schema(13), &["[1,2]", "[0, 99, 5, 7]"], &["[1]", "[1,2,3,4,5]", "[1,100]", "[1,2,]"]),
        (
            schema(18),
            &["{\"kind\":\"a\",\"x\":1}", "{\"kind\": \"b\"}"],
            &["{\"kind\":\"a\"}", "{\"kind\":\"c\"}"],
        ),
        (
            schema(20),
            &["{\"value\":1,\"next\":{\"value\":2,\"next\":null}}"],
            &["{\"value\":1}", "{\"value\":1,\"next\":{}}"],
        ),
        (schema(25), &["\"2026-11-21T09:30:00Z\""], &["\"2026-13-21T09:30:00Z\"", "\"today\""]),
        (regex(0), &["123-4567"], &["123-456", "123-45678", "x"]),
        (regex(1), &["yes", "maybe"], &["", "^yes$", "yesno"]),
        (regex(5), &["", "aaa"], &["b", "ab"]),
        (regex(8), &["ab\\a$"], &["ab\\a", "$"]),
        (
            gbnf(0),
            &["{}", "{\"a\": [1, true, {\"b\": \"\\u00e9\"}]}", "{ }\n  "],
            &["[]", "{\"a\"}", "{\"a\":tru}", "{}x"],
        ),
        (gbnf(1), &["x=1\n", "a+(b*2)=c\n", "1 = 2\ny=3\n"], &["x=1", "=1\n", "(x=1\n"]),
        (gbnf(2), &["- a\n", "- a b\n- c\n"], &["a\n", "- \n", "- a"]),
        (
            gbnf(3),
            &["1. e4 e5\n2. Nf3 Nc6\n", "1. O-O-O exd8=Q+\n12. a1 b2#\n"],
            &["1. e4 e5\n", "1. e9 e5\n2. a1 a1\n"],
        ),
        (gbnf(4), &["こんにちは", "漢字 カタカナ"], &["hello", ""]),
        (
            gbnf(5),
            &["a\t\"Aé🙂a\t\"Aé🙂x?]-", "a\t\"Aé🙂a\t\"Aé🙂xyx\n^/a((x))"],
            &["a\t\"Aé🙂x?]-", "a\t\"Aé🙂a\t\"Aé🙂x?]"],
        ),
    ]
}
