use tieline_types::{Message, Role};

use super::*;

fn conversation() -> Vec<Message> {
    vec![
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hi <b>&</b> \"you\""),
        Message::new(Role::Assistant, "Hello."),
        Message::new(Role::User, "Naïve → 😀?"),
    ]
}

fn render(source: &str) -> Result<String, RenderError> {
    let messages = conversation();
    let ask = Ask { messages: &messages, tools: &[], thinking: None, bos: "<s>", eos: "</s>" };
    Template::new(source.to_owned()).render(&ask)
}

#[track_caller]
fn check(source: &str, want: &str) {
    assert_eq!(render(source).unwrap(), want);
}

#[track_caller]
fn refused(source: &str, want: &str) {
    let error = render(source).unwrap_err().to_string();
    assert!(error.contains(want), "{error}");
}

/// Golden files: each template with what jinja2 made of it under the settings of transformers.
/// `scripts/render_templates.py` writes them.
#[test]
fn templates_render_as_they_do_in_transformers() {
    let cases = include_str!("../../tests/templates/golden.txt");
    let mut count = 0;
    for case in cases.split("=====CASE ").skip(1) {
        let (name, rest) = case.split_once('\n').unwrap();
        let (source, rest) = rest.split_once("\n-----OUTPUT\n").unwrap();
        let want = rest.strip_suffix("\n-----END\n").unwrap();
        assert_eq!(render(source).unwrap(), want, "{name}");
        count += 1;
    }
    assert!(count >= 8, "only {count} golden templates");
}

#[test]
fn json_is_written_as_python_writes_it() {
    check(
        "{{ {'b': [1, 2.5, true, none], 'a': '<é\"\\n>'} | tojson }}",
        r#"{"b": [1, 2.5, true, null], "a": "<é\"\n>"}"#,
    );
    check("{{ {'a': 'é😀'} | tojson(ensure_ascii=true) }}", r#"{"a": "\u00e9\ud83d\ude00"}"#);
    check(
        "{{ {'a': [1], 'b': {}} | tojson(indent=2) }}",
        "{\n  \"a\": [\n    1\n  ],\n  \"b\": {}\n}",
    );
    check(
        "{{ {'b': 1, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}",
        r#"{"a":2,"b":1}"#,
    );
}

#[test]
fn generation_marks_are_dropped() {
    check("{% generation %}a{% endgeneration %}b", "ab");
    check("x\n{%- generation -%}\n a {%- endgeneration %}", "xa");
}

#[test]
fn a_template_may_refuse() {
    refused("{{ raise_exception('roles must alternate') }}", "roles must alternate");
}

#[test]
fn endless_work_runs_out_of_fuel() {
    refused("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}", "fuel");
}

#[test]
fn a_macro_that_calls_itself_is_stopped() {
    refused("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "recursion");
}

#[test]
fn endless_output_is_stopped() {
    refused("{% set x = 'y' * 1000000 %}{% for a in range(100) %}{{ x }}{% endfor %}", "write");
}

#[test]
fn a_huge_template_is_refused() {
    refused(&"x".repeat(MAX_SOURCE + 1), "262144 is the limit");
}

#[test]
fn errors_name_the_line_and_not_the_conversation() {
    let error = render("\n{{ messages[0].content.nothing() }}").unwrap_err().to_string();
    assert!(error.contains("template line 2"), "{error}");
    assert!(!error.contains("brief"), "{error}");
}

#[test]
fn nothing_of_the_host_can_be_reached() {
    // Server-side template injection as it is tried against Jinja2 in Python: each attempt ends in an error
    // or in text that shows nothing.
    let attempts = [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__.__builtins__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].popen('id').read() }}",
        "{{ request.application.__globals__ }}",
        "{{ config.items() }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as p %}{{ p }}",
        "{% extends '/etc/passwd' %}",
        "{{ messages.__class__ }}",
        "{{ get_flashed_messages.__globals__ }}",
        "{{ namespace.__init__ }}",
    ];
    for attempt in attempts {
        if let Ok(text) = render(attempt) {
            assert_eq!(text.trim(), "", "{attempt}");
        }
    }
}
