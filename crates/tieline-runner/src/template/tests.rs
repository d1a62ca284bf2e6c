use tieline_types::{Effort, Message, Role, ToolCall};

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
    let ask = Ask {
        messages: &messages,
        tools: &[],
        thinking: None,
        effort: None,
        bos: "<s>",
        eos: "</s>",
    };
    Template::new(source.to_owned()).render(&ask)
}

#[test]
fn a_template_that_reads_how_much_to_think_is_told() {
    let source = "{{ reasoning_effort | default('medium') }}";
    let told = |effort| {
        let ask = Ask {
            messages: &conversation(),
            tools: &[],
            thinking: None,
            effort,
            bos: "<s>",
            eos: "</s>",
        };
        Template::new(source.to_owned()).render(&ask).unwrap()
    };
    for (effort, want) in [
        (None, "medium"),
        (Some(Effort::Own), "medium"),
        (Some(Effort::Minimal), "low"),
        (Some(Effort::High), "high"),
        (Some(Effort::Max), "high"),
    ] {
        assert_eq!(told(effort), want, "{effort:?}");
    }
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
    let cases = cases(include_str!("../../tests/templates/golden.txt"));
    for (name, source, want) in &cases {
        assert_eq!(&render(source).unwrap(), want, "{name}");
    }
    assert!(cases.len() >= 8, "only {} golden templates", cases.len());
}

/// Name, template and text.
fn cases(golden: &str) -> Vec<(&str, &str, &str)> {
    let case = |case| -> Option<(&str, &str, &str)> {
        let (name, rest) = str::split_once(case, '\n')?;
        let (source, rest) = rest.split_once("\n-----OUTPUT\n")?;
        Some((name, source, rest.strip_suffix("\n-----END\n")?))
    };
    golden.split("=====CASE ").skip(1).map(|text| case(text).unwrap()).collect()
}

/// The tools of `scripts/tool_templates.py`.
fn tools() -> Vec<Tool> {
    let tool = |name: &str, description: &str, parameters: &str| Tool {
        name: name.to_owned(),
        description: description.to_owned(),
        parameters: parameters.to_owned(),
    };
    let city = r#"{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}"#;
    vec![tool("weather", "Tells the weather.", city), tool("now", "Tells the time.", "")]
}

fn call(id: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.to_owned(), name: "weather".to_owned(), arguments: arguments.into() }
}

fn gave(id: &str, content: &str) -> Message {
    Message {
        tool_call_id: Some(id.to_owned()),
        name: Some("weather".to_owned()),
        ..Message::new(Role::Tool, content)
    }
}

/// The conversation of `scripts/tool_templates.py`, as callers send it: ids of two kinds of them.
fn with_calls(said: &str) -> Vec<Message> {
    let calls =
        vec![call("call_1_0", r#"{"city": "Bern"}"#), call("toolu_01A", r#"{"city": "Rome"}"#)];
    vec![
        Message::new(Role::User, "Rain in Bern and Rome?"),
        Message { tool_calls: calls, ..Message::new(Role::Assistant, said) },
        gave("call_1_0", "wet"),
        gave("toolu_01A", "dry"),
        Message::new(Role::Assistant, "In Bern."),
        Message::new(Role::User, "Thanks."),
    ]
}

fn render_with(source: &str, messages: &[Message], tools: &[Tool]) -> Result<String, RenderError> {
    let ask = Ask { messages, tools, thinking: None, effort: None, bos: "<s>", eos: "</s>" };
    Template::new(source.to_owned()).render(&ask)
}

/// Each template with what jinja2 made of the conversation as that template takes it, written down there
/// by hand.
#[test]
fn a_conversation_with_calls_is_told_as_each_template_takes_it() {
    let cases = cases(include_str!("../../tests/templates/tools.txt"));
    let messages = with_calls("");
    for (name, source, want) in &cases {
        let turns = if name.ends_with(", then") { &messages[..4] } else { &messages };
        let text = render_with(source, turns, &tools()).map_err(|error| error.to_string());
        assert_eq!(text.as_deref(), Ok(*want), "{name}");
    }
    assert_eq!(cases.len(), 16);
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

/// The template of the first golden case with tools whose name begins so.
fn template(name: &str) -> &'static str {
    let cases = cases(include_str!("../../tests/templates/tools.txt"));
    cases.into_iter().find(|(case, ..)| case.starts_with(name)).unwrap().1
}

#[test]
fn a_template_shows_how_it_takes_calls() {
    let ways = |source: &str| find_ways(source);
    let calls = |form| Some(ways::Calls { form, single: false, apart: false });
    assert_eq!(ways(template("hermes")), Ways::default());
    let mistral = ways(template("mistral"));
    assert_eq!(mistral.calls, calls(Form { nine: true, ..Form::default() }));
    let text = Form { text: true, ..Form::default() };
    assert_eq!(ways(template("deepseek: arguments")).calls, calls(text));
    let none = Some(ways::Calls { form: Form { none: true, ..text }, single: false, apart: true });
    assert_eq!(ways(template("deepseek: calls")).calls, none);
    let llama = ways(template("llama")).calls.unwrap();
    assert_eq!((llama.form, llama.single), (Form::default(), true));
    let words = |tools, results| Ways { tools, calls: None, results };
    assert_eq!(ways(template("gemma: no tools,")), words(Tools::BySystem, false));
    assert_eq!(ways(template("gemma: no tools and")), words(Tools::ByUser, false));
    assert_eq!(ways(template("chatml")), words(Tools::BySystem, true));
    // What puts arguments into text as they are needs them as JSON; what goes through them, as an object.
    let with = |calls: &str| {
        format!(
            "{{{{ tools | tojson }}}}{{% for m in messages %}}{{{{ m.content }}}}\
             {{% for c in m.tool_calls %}}{{% set arguments = c.function.arguments %}}{calls}{{% endfor %}}{{% endfor %}}"
        )
    };
    assert_eq!(ways(&with("{{ arguments }}")).calls, calls(text));
    let tags = "{% for key, value in arguments | items %}<{{ key }}>{{ value }}{% endfor %}";
    assert_eq!(ways(&with(tags)).calls, calls(Form::default()));
    // One that takes both gets an object, as in transformers.
    let both =
        "{% if arguments is string %}{{ arguments }}{% else %}{{ arguments | tojson }}{% endif %}";
    assert_eq!(ways(&with(both)).calls, calls(Form::default()));
}

#[test]
fn of_a_template_that_writes_nothing_no_ways_are_known() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    for source in ["{{ raise_exception('no') }}", endless, "{% if %}", "{{ 'y' * 300000 }}"] {
        assert_eq!(find_ways(source), Ways::default(), "{source}");
    }
}

#[test]
fn what_stands_beside_a_call_is_lost_nowhere() {
    let then = |name, said| render_with(template(name), &with_calls(said)[..4], &[]).unwrap();
    assert_eq!(
        then("deepseek: calls", "I look."),
        "<s><｜User｜>Rain in Bern and Rome?<｜Assistant｜>I look.<｜end▁of▁sentence｜>\
         <｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n\
         ```json\n{\"city\": \"Bern\"}\n```<｜tool▁call▁end｜>\n\
         <｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Rome\"}\n\
         ```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>\
         <｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>wet<｜tool▁output▁end｜>\
         <｜tool▁output▁begin｜>dry<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
    );
    let gemma = then("gemma: no tools,", "I look.");
    assert!(gemma.contains("model\nI look.\n{\"name\": \"weather\", \"arguments\""), "{gemma}");
}

#[test]
fn results_find_their_calls_and_turns_alternate() {
    let mut messages = with_calls("");
    messages.truncate(4);
    messages.swap(2, 3);
    let llama = render_with(template("llama"), &messages, &[]).unwrap();
    let at = |what: &str| llama.find(what).unwrap();
    assert!(at("Bern\"}") < at("wet") && at("wet") < at("Rome\"}") && at("Rome\"}") < at("dry"));
    // Whose result it is, is known by its call; whoever speaks next speaks in the same turn.
    messages.iter_mut().for_each(|message| message.name = None);
    messages.push(Message::new(Role::User, "Well?"));
    let gemma = render_with(template("gemma: no tools,"), &messages, &[]).unwrap();
    let end = "<start_of_turn>user\nThe tool weather gave:\ndry\n\nThe tool weather gave:\nwet\n\nWell?\
               <end_of_turn>\n<start_of_turn>model\n";
    assert!(gemma.ends_with(end), "{gemma}");
}

#[test]
fn tools_are_told_of_after_what_the_system_says() {
    let messages = conversation();
    let chatml = render_with(template("chatml"), &messages, &tools()).unwrap();
    let start = "<|im_start|>system\nBe brief.\n\nYou can call these tools, one a line:\n\
                 {\"name\": \"weather\", \"description\"";
    assert!(chatml.starts_with(start), "{chatml}");
    // Without tools nothing is said of them.
    let bare = render_with(template("chatml"), &messages, &[]).unwrap();
    assert!(bare.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n"), "{bare}");
}
