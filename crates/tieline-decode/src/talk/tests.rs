//! Transcripts of each format, whole, in every two pieces, and cut off at each character.

use proptest::prelude::*;
use tieline_types::{Tool, ToolCallStep, ToolChoice};

use super::*;

const FORMATS: [Format; 10] = [
    Format::Hermes,
    Format::QwenCoder,
    Format::Llama3,
    Format::Mistral,
    Format::Gemma,
    Format::DeepSeek,
    Format::Granite,
    Format::Harmony,
    Format::Generic,
    Format::Plain,
];

fn tools() -> Vec<Tool> {
    let tool = |name: &str, parameters: &str| Tool {
        name: name.to_owned(),
        description: String::new(),
        parameters: parameters.to_owned(),
    };
    let typed = r#"{"type":"object","properties":{"city":{"type":"string"},"days":{"type":"integer"},
        "metric":{"type":"boolean"},"extra":{"type":"object"}}}"#;
    vec![tool("weather", typed), tool("now", "")]
}

/// All that was said, neighbours joined, in a form that is easy to read in a test:
/// `answer`, `(thought)`, `«name arguments»`, `«name arguments…` for a call without end, `!` for a warning.
fn shown(said: &[Said]) -> String {
    let mut shown = String::new();
    let mut thinking = false;
    for said in said {
        if thinking && !matches!(said, Said::Reasoning(_)) {
            shown.push(')');
            thinking = false;
        }
        match said {
            Said::Text(text) => shown.push_str(text),
            Said::Reasoning(text) => {
                if !thinking {
                    shown.push('(');
                }
                thinking = true;
                shown.push_str(text);
            }
            Said::Call(ToolCallStep::Begin { name, .. }) => shown.push_str(&format!("«{name} ")),
            Said::Call(ToolCallStep::Arguments { text, .. }) => shown.push_str(text.expose()),
            Said::Call(ToolCallStep::End { .. }) => shown.push('»'),
            Said::Warning(_) => shown.push('!'),
        }
    }
    if thinking {
        shown.push(')');
    }
    shown
}

fn run(mut talk: Talk, pieces: &[&str]) -> Vec<Said> {
    let mut said: Vec<Said> = pieces.iter().flat_map(|piece| talk.push(piece)).collect();
    said.extend(talk.finish());
    assert_eq!(talk.finish(), vec![], "nothing comes after the end");
    said
}

fn talk(format: Format) -> Talk {
    Talk::new(format, &tools(), &ToolChoice::Auto, false, "x")
}

/// Calls begin, go on and end in order; an ended call's arguments are one JSON object.
#[track_caller]
fn check_steps(said: &[Said]) {
    let mut open: Option<(u32, String)> = None;
    let mut ids = Vec::new();
    for said in said {
        let Said::Call(step) = said else { continue };
        match step {
            ToolCallStep::Begin { index, id, name } => {
                assert_eq!(*index as usize, ids.len());
                assert!(id.len() == 9 && id.chars().all(|c| c.is_ascii_alphanumeric()), "{id}");
                assert!(!ids.contains(id), "{id} came twice");
                assert!(tools().iter().any(|tool| &tool.name == name));
                ids.push(id.clone());
                open = Some((*index, String::new()));
            }
            ToolCallStep::Arguments { index, text } => {
                let (now, arguments) = open.as_mut().unwrap();
                assert_eq!(now, index);
                arguments.push_str(text.expose());
            }
            ToolCallStep::End { index } => {
                let (now, arguments) = open.take().unwrap();
                assert_eq!(now, *index);
                let arguments: serde_json::Value = serde_json::from_str(&arguments).unwrap();
                assert!(arguments.is_object());
            }
        }
    }
}

/// `input` is understood as `want`, however it is cut; and cut off anywhere it breaks no rule.
#[track_caller]
fn check(format: Format, input: &str, want: &str) {
    check_with(|| talk(format), input, want);
}

#[track_caller]
fn check_with(talk: impl Fn() -> Talk, input: &str, want: &str) {
    let whole = run(talk(), &[input]);
    assert_eq!(shown(&whole), want, "{input}");
    check_steps(&whole);
    let single: Vec<String> = input.chars().map(String::from).collect();
    let single: Vec<&str> = single.iter().map(String::as_str).collect();
    assert_eq!(shown(&run(talk(), &single)), want, "{input}");
    for (cut, _) in input.char_indices() {
        let (before, after) = input.split_at(cut);
        assert_eq!(shown(&run(talk(), &[before, after])), want, "{input} cut at {cut}");
        check_steps(&run(talk(), &[before]));
    }
}

#[test]
fn hermes() {
    let check = |input: &str, want: &str| check(Format::Hermes, input, want);
    check("Just text.\n", "Just text.\n");
    check(
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}\n</tool_call>",
        "«weather {\"city\": \"Bern\"}»",
    );
    check(
        "<think>\nSunny?\n</think>\n\nI look.\n<tool_call>\n{\"name\":\"weather\",\"arguments\":{}}\n\
         </tool_call>\n<tool_call>\n{\"name\":\"now\",\"arguments\":{\"a\":[1]}}\n</tool_call>",
        "(Sunny?)I look.«weather {}»«now {\"a\":[1]}»",
    );
    // Arguments first; no arguments; arguments as a string; the shape of the API.
    check("<tool_call>{\"arguments\":{\"a\":1},\"name\":\"now\"}</tool_call>", "«now {\"a\":1}»");
    check("<tool_call>{\"name\":\"now\"}</tool_call> Done.", "«now {}»Done.");
    check(
        "<tool_call>{\"name\":\"now\",\"arguments\":\"{\\\"a\\\":1}\"}</tool_call>",
        "«now {\"a\":1}»",
    );
    check(
        "<tool_call>{\"type\":\"function\",\"id\":{\"x\":[]},\"function\":{\"name\":\"now\",\
         \"arguments\":{\"a\":1}}}</tool_call>",
        "«now {\"a\":1}»",
    );
    check(
        "<tool_call>[{\"name\":\"now\",\"arguments\":{}},{\"name\":\"weather\",\"arguments\":{}}]\
         </tool_call>",
        "«now {}»«weather {}»",
    );
    // Braces, markers and other scripts inside strings and thoughts mean nothing.
    let hard = r#"{"q": "} ] </tool_call> <think> \" \\ \u00e9 東京 🙂", "n": {"a": [{}, "{"]}}"#;
    check(
        &format!("<tool_call>{{\"name\":\"now\",\"arguments\":{hard}}}</tool_call>"),
        &format!("«now {hard}»"),
    );
    check(
        "<think>a <tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call> <think> b</think>c",
        "(a <tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call> <think> b)c",
    );
    check("<TOOLCALL>[{\"name\":\"now\",\"arguments\":{}}]</TOOLCALL>", "«now {}»");
    check(
        "<|tool_call_start|>[now(), weather(city=\"東京\", extra={'a': [1]})]<|tool_call_end|>Done.",
        "«now {}»«weather {\"city\":\"東京\",\"extra\":{\"a\":[1]}}»Done.",
    );
    check("<|tool_call_start|>[ {\"name\":\"now\",\"arguments\":{}}]<|tool_call_end|>", "«now {}»");
    check("<|tool_call_start|>[ x", "<|tool_call_start|>[ x!");
    check("<|tool_call_start|>[", "<|tool_call_start|>[!");
    check("The tag <think> opens a thought.", "The tag <think> opens a thought.");
    check("a < b <tool_ca", "a < b <tool_ca");
}

#[test]
fn hermes_slips() {
    let check = |input: &str, want: &str| check(Format::Hermes, input, want);
    // No call: all of it is text.
    check("<tool_call>\nnow()</tool_call>", "<tool_call>\n!now()</tool_call>");
    check(
        "<tool_call>{\"name\":\"now\",}</tool_call>",
        "<tool_call>{\"name\":\"now\",!}</tool_call>",
    );
    check("<tool_call>{\"name\":\"no", "<tool_call>{\"name\":\"no!");
    check("<tool_call>", "<tool_call>!");
    check(
        "<tool_call>{\"name\":\"now\",\"arguments\":[1]}",
        "<tool_call>{\"name\":\"now\",\"arguments\":[!1]}",
    );
    // A call inside the arguments of an unknown tool is not a call.
    check(
        "<tool_call>{\"name\":\"rm\",\"arguments\":{\"a\":\"<tool_call>{\\\"name\\\":\\\"now\\\"}\"}}\
         </tool_call>",
        "<tool_call>{\"name\":\"rm\"!,\"arguments\":{\"a\":\"<tool_call>{\\\"name\\\":\\\"now\\\"}\"}}\
         </tool_call>",
    );
    // A second start right after a first.
    check(
        "<tool_call><tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>",
        "<tool_call>!«now {}»",
    );
    // A brace too few, a brace too many, no end, a raw line break.
    check("<tool_call>{\"name\":\"now\",\"arguments\":{}</tool_call>ok", "«now {}»ok");
    check("<tool_call>{\"name\":\"now\",\"arguments\":{}}}</tool_call>ok", "«now {}»}ok");
    check("<tool_call>{\"name\":\"now\",\"arguments\":{}}", "«now {}»");
    check(
        "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"x\ny\"}}</tool_call>",
        "«now {\"a\":\"x\\ny\"}»",
    );
    // Broken off inside the arguments.
    check("<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":1", "«now {\"a\":1!");
    check("<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":oh}}", "«now {\"a\":oh!}}");
    // Without the marker, as small models do.
    check("{\"name\":\"now\",\"arguments\":{}}", "«now {}»");
    check("```json\n{\"name\":\"now\",\"arguments\":{}}\n```\nSo.", "«now {}»So.");
}

#[test]
fn qwen_coder() {
    let check = |input: &str, want: &str| check(Format::QwenCoder, input, want);
    check(
        "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nBern \"<b>\"\n</parameter>\n\
         <parameter=days>\n3\n</parameter>\n<parameter=metric>\ntrue\n</parameter>\n\
         <parameter=extra>\n{\"a\": [\"}\"]}\n</parameter>\n</function>\n</tool_call>",
        "I look.«weather {\"city\":\"Bern \\\"<b>\\\"\",\"days\":3,\"metric\":true,\
         \"extra\":{\"a\":[\"}\"]}}»",
    );
    check("<tool_call>\n<function=now>\n</function>\n</tool_call>", "«now {}»");
    check("<function=now></function></tool_call>so", "«now {}»so");
    check("<tool_call><function=now>\n</tool_call>\nso", "«now {}»so");
    check(
        "<tool_call><function=now></function></tool_call>\n\
         <tool_call><function=weather><parameter=city>東京 {</parameter></function></tool_call>",
        "«now {}»«weather {\"city\":\"東京 {\"}»",
    );
    check("<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>", "«now {}»");
    // Unknown tool, no tag, cut off before and after the first parameter.
    check(
        "<tool_call><function=rm><parameter=a><function=now></function> b",
        "<tool_call><function=rm>!<parameter=a><function=now></function> b",
    );
    check("<tool_call><function=now>text", "<tool_call><function=now>t!ext");
    check("<tool_call><func(now)", "<tool_call>!<func(now)");
    check("<tool_call><function=now><parameter=a>1", "<tool_call><function=now><parameter=a>1!");
    check(
        "<function=now><parameter=a>1</parameter><parameter=b>2",
        "«now {\"a\":\"1\"!<parameter=b>2",
    );
}

#[test]
fn llama() {
    let check = |input: &str, want: &str| check(Format::Llama3, input, want);
    check(
        "{\"name\": \"weather\", \"parameters\": {\"city\": \"Bern\"}}",
        "«weather {\"city\": \"Bern\"}»",
    );
    check("<|python_tag|>{\"name\": \"now\", \"parameters\": {}}", "«now {}»");
    check(
        "{\"name\": \"now\", \"parameters\": {}}; {\"name\": \"weather\", \"parameters\": {}};",
        "«now {}»«weather {}»",
    );
    check("{\"type\": \"function\", \"name\": \"now\", \"parameters\": {}}", "«now {}»");
    // Answers in JSON are answers.
    check("{\"city\": \"Bern\", \"name\": \"now\"}", "{\"city\": \"Bern\", \"name\": \"now\"}");
    check("{\"name\": \"Bern\", \"a\": [1]}", "{\"name\": \"Bern\", \"a\": [1]}");
    check("{\"name\": \"now\"}", "{\"name\": \"now\"}");
    check("[1, 2] and {\"name\": \"now\"}", "[1, 2] and {\"name\": \"now\"}");
    check("[link](url)", "[link](url)");
    check(
        "A; {\"name\": \"now\", \"parameters\": {}}",
        "A; {\"name\": \"now\", \"parameters\": {}}",
    );
    check("<|python_tag|>weather.call(city='Bern')", "«weather {\"city\":\"Bern\"}»");
    check("<|python_tag|>print(1)", "<|python_tag|>print(1)!");
    check("<|python_tag|>x = 1", "<|python_tag|>x! = 1");
}

#[test]
fn mistral() {
    let check = |input: &str, want: &str| check(Format::Mistral, input, want);
    check(
        "[TOOL_CALLS] [{\"name\": \"now\", \"arguments\": {}, \"id\": \"abc\"}, \
         {\"name\": \"weather\", \"arguments\": {\"city\": \"]\"}}]",
        "«now {}»«weather {\"city\": \"]\"}»",
    );
    check(
        "So.[TOOL_CALLS]now[ARGS]{}[TOOL_CALLS]weather[CALL_ID]a1[ARGS]{\"days\": 2}",
        "So.«now {}»«weather {\"days\": 2}»",
    );
    check("[{\"name\": \"now\", \"arguments\": {}}]", "«now {}»");
    check("[1] is a source.", "[1] is a source.");
    check("[TOOL_CALLS]now{\"a\":1}", "«now {\"a\":1}»");
    check("[THINK]Hm [TOOL_CALLS].[/THINK]Yes [1].", "(Hm [TOOL_CALLS].)Yes [1].");
    check(
        "[TOOL_CALLS]rm[ARGS]{\"a\":\"[TOOL_CALLS]now{}\"} x",
        "[TOOL_CALLS]rm[ARGS]!{\"a\":\"[TOOL_CALLS]now{}\"} x",
    );
    check("[TOOL_CALLS]now[AR", "[TOOL_CALLS]now[AR!");
    check("[TOOL_CALLS][]", "[TOOL_CALLS][]!");
    check(
        "[TOOL_CALLS][{\"name\":\"now\",\"arguments\":{}},{\"name\":1}]",
        "«now {}»,{\"name\":1}!]",
    );
}

#[test]
fn gemma() {
    let check = |input: &str, want: &str| check(Format::Gemma, input, want);
    check(
        "<start_function_call>call:weather{city:<escape>Bern, {}<end_function_call><escape>,days:2}\
         <end_function_call><start_function_call>call:now{}<end_function_call>",
        "«weather {\"city\":\"Bern, {}<end_function_call>\",\"days\":2}»«now {}»",
    );
    check(
        "<|channel>thought\n推理<channel|>Yes.<|tool_call>call:weather{city:<|\"|>東京<|\"|>}<tool_call|>",
        "(推理)Yes.«weather {\"city\":\"東京\"}»",
    );
    check("<|channel>thought\nHm<|tool_call>call:now{}<tool_call|>", "(Hm)«now {}»");
    check("```tool_code\n{\"name\": \"now\", \"arguments\": {}}\n```", "«now {}»");
    check("```json\n{\"a\": 1}\n```\n", "```json\n{\"a\": 1}\n```\n");
    check("```json\n", "```json\n");
    check(
        "```tool_code\nweather(city=\"Bern, )\", days=2)\n```\n",
        "«weather {\"city\":\"Bern, )\",\"days\":2}»",
    );
    check("```tool_code\nprint(1)\n```", "```tool_code\nprint(1)!\n```");
    check("```tool_code\nrm(a=1)\n```", "```tool_code\nrm(a=1)!\n```");
    check(
        "<start_function_call>call:rm{a:1}<end_function_call>",
        "<start_function_call>call:rm{a:1}<end_function_call>!",
    );
    check(
        "<start_function_call>now()<end_function_call> x",
        "<start_function_call>now()<end_function_call>! x",
    );
    check("<start_function_call>call:now{", "<start_function_call>call:now{!");
}

#[test]
fn deep_seek() {
    let check = |input: &str, want: &str| check(Format::DeepSeek, input, want);
    check(
        "I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n\
         {\"city\": \"Bern\"}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n\
         ```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "I look.«weather {\"city\": \"Bern\"}»«now {}»",
    );
    check(
        "<think>a</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>now<｜tool▁sep｜>{\"a\":\"```\"}\
         <｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "(a)«now {\"a\":\"```\"}»",
    );
    check(
        "<｜tool▁call▁begin｜>rm<｜tool▁sep｜>{\"a\":1}<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>rm<｜tool▁sep｜>!{\"a\":1}",
    );
    check("<｜tool▁call▁begin｜>now", "<｜tool▁call▁begin｜>now!");
    let open = || Talk::new(Format::DeepSeek, &tools(), &ToolChoice::Auto, true, "x");
    check_with(open, "\nFirst, </thin\n</think>\n\nYes.", "(First, </thin)Yes.");
    check_with(open, "no end", "(no end)");
    // Told of tools in words.
    let bare = "{\"name\": \"now\", \"arguments\": {}}";
    check(&format!("<think>a</think>\n\n{bare}\n{bare}"), "(a)«now {}»«now {}»");
    check("{\"city\": \"Bern\"}", "{\"city\": \"Bern\"}");
}

#[test]
fn granite() {
    let check = |input: &str, want: &str| check(Format::Granite, input, want);
    check("<|tool_call|>[{\"name\": \"now\", \"arguments\": {\"a\": 1}}]", "«now {\"a\": 1}»");
    check("<think>a</think><response>b</response>", "(a)b");
    check("<think>a</think>\n\n<response>\nb\n</response>\n", "(a)b");
    // What was not begun so is the answer's own.
    let own = "<a> <response>x </response> </a>";
    check(own, own);
    check("x\n</response>\n", "x\n</response>\n");
    check(&format!("<response>{own}"), "<a> <response>x</a>");
    check("<response>b</response>, </response>", "b, </response>");
    check("Here is my thought process:\na\n\nHere's my response:\nb", "(a)b");
    check("Here is my response: b", "Here is my response: b");
    check("<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>", "«now {}»");
    check("<|tool_call|>[{\"name\":\"now\",\"arguments\":{}}]<|/tool_call|>", "«now {}»");
    check("<|tool_call|>now", "<|tool_call|>!now");
}

#[test]
fn harmony() {
    let check = |input: &str, want: &str| check(Format::Harmony, input, want);
    check(
        "<|channel|>analysis<|message|>Need to look. <|end|><|start|>assistant<|channel|>final<|message|>\
         Yes. <|return|>",
        "(Need to look. )Yes. ",
    );
    check(
        "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary \
         to=functions.weather <|constrain|>json<|message|>{\"city\":\"<|call|>\"}<|call|>",
        "(a)«weather {\"city\":\"<|call|>\"}»",
    );
    check(
        "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.now\
         <|channel|>commentary json<|message|>{}<|call|>",
        "I look.«now {}»",
    );
    check("to=functions.now<|channel|>commentary<|message|>{}<|call|>", "«now {}»");
    check(
        "<|channel|>commentary to=functions.rm<|message|>{}<|call|>",
        "<|channel|>commentary to=functions.rm<|message|>!{}",
    );
    check(
        "<|channel|>commentary to=functions.now<|message|>no<|call|>",
        "<|channel|>commentary to=functions.now<|message|>!no",
    );
    check("<|channel|>fin", "<|channel|>fin!");
    check("<|channel|>final<|message|>a to=b", "a to=b");
}

#[test]
fn generic() {
    let check = |input: &str, want: &str| check(Format::Generic, input, want);
    check("{\"name\": \"now\", \"arguments\": {}}", "«now {}»");
    check(
        "{\"tool_calls\": [{\"name\": \"now\", \"arguments\": {}}, {\"function\": {\"name\": \
         \"weather\", \"arguments\": {}}}]}",
        "«now {}»«weather {}»",
    );
    check("{\"name\": \"rm\", \"arguments\": {}}", "{\"name\": \"rm\", \"arguments\": {}}");
    check("```json\n{\"name\": \"now\", \"parameters\": {}}\n```", "«now {}»");
    check("<think>a</think>b", "(a)b");
    check(
        "Call {\"name\": \"now\", \"arguments\": {}}",
        "Call {\"name\": \"now\", \"arguments\": {}}",
    );
}

#[test]
fn without_tools_only_thoughts_are_told_apart() {
    let call = "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>";
    for (tools, choice) in [(vec![], ToolChoice::Auto), (tools(), ToolChoice::None)] {
        let talk = || Talk::new(Format::Hermes, &tools, &choice, false, "x");
        check_with(talk, &format!("<think>a</think>{call}"), &format!("(a){call}"));
        let talk = || Talk::new(Format::Harmony, &tools, &choice, false, "x");
        check_with(talk, "<|channel|>commentary to=functions.now<|message|>{}<|call|>", "{}");
    }
}

#[test]
fn a_forced_call_needs_no_marker() {
    for choice in [ToolChoice::Required, ToolChoice::Named("now".to_owned())] {
        let talk = || Talk::new(Format::QwenCoder, &tools(), &choice, false, "x");
        check_with(talk, "{\"name\":\"now\",\"arguments\":{}}", "«now {}»");
    }
}

#[test]
fn what_is_certain_is_said_at_once() {
    let mut talk = talk(Format::Hermes);
    let mut say = |text: &str| shown(&talk.push(text));
    assert_eq!(say("Hello wor"), "Hello wor");
    assert_eq!(say("ld <tool"), "ld");
    assert_eq!(say("box> <tool_call>{\"name\":\"now\",\"arguments\""), " <toolbox>");
    assert_eq!(say(":{\"a\""), "«now {\"a\"");
    assert_eq!(say(":1}"), ":1}»");
    assert_eq!(say("}"), "");
    assert!(talk.called() && !talk.in_reasoning());
}

#[test]
fn arguments_and_held_text_have_an_end() {
    let mut talk = talk(Format::Hermes);
    let long = "a".repeat(json::MAX_ARGUMENTS);
    let mut said = talk.push("<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":\"");
    said.extend(talk.push(&long));
    said.extend(talk.push("\"}}"));
    said.extend(talk.finish());
    assert!(shown(&said).contains('!') && !talk.called());
    let deep = "[".repeat(64);
    check(
        Format::Hermes,
        &format!("<tool_call>{{\"name\":\"now\",\"arguments\":{{\"a\":{deep}"),
        &format!("«now {{\"a\":{}![", "[".repeat(63)),
    );
}

#[test]
fn debug_shows_no_text() {
    let said = run(talk(Format::Hermes), &["CANARY<tool_call>{\"name\":\"CANARY\""]);
    assert!(!format!("{said:?} {:?}", talk(Format::Hermes)).contains("CANARY"));
    let warnings = said.iter().filter(|said| matches!(said, Said::Warning(_))).count();
    assert_eq!(warnings, 1);
}

#[test]
fn templates_show_their_format() {
    for (template, want) in [
        ("", Format::Plain),
        ("{{ messages }}", Format::Generic),
        ("<|im_start|>{{ tools }}<tool_call>", Format::Hermes),
        ("<tool_call>\n<function=x>\n<parameter=y>", Format::QwenCoder),
        ("<|im_start|><|tool_call_start|>", Format::Hermes),
        ("<|start_header_id|>", Format::Llama3),
        ("[INST]{{ x }}[/INST][TOOL_CALLS]", Format::Mistral),
        ("<start_of_turn>", Format::Gemma),
        ("<|turn>'<|tool_call>call:'", Format::Gemma),
        ("<｜Assistant｜><｜tool▁calls▁begin｜>", Format::DeepSeek),
        ("<|start_of_role|>assistant<|end_of_role|><|tool_call|>", Format::Granite),
        ("<|start|>assistant<|channel|>final<|message|>", Format::Harmony),
    ] {
        assert_eq!(detect(template), want, "{template}");
    }
    assert!(opens_thinking("<｜Assistant｜><think>\n"));
    assert!(opens_thinking("[THINK]"));
    assert!(!opens_thinking("<think>\n\n</think>\n\n"));
}

#[test]
fn a_runner_is_told_of_all_markers() {
    for format in FORMATS {
        for marker in format.table() {
            let plain = marker.text.starts_with("```")
                || marker.text.starts_with("Here")
                || ["to=", "<function=", "<response>", "</response>"].contains(&marker.text);
            let told = format.markers().iter().any(|told| marker.text.starts_with(told));
            assert!(told || plain, "{format:?}: {}", marker.text);
        }
    }
}

/// Text that is likely to hit a parser's edges.
fn noise() -> impl Strategy<Value = String> {
    let parts: Vec<String> = FORMATS
        .iter()
        .flat_map(|format| {
            let texts = format.table().iter().map(|marker| marker.text.to_owned());
            texts.chain(format.markers().iter().map(|marker| (*marker).to_owned()))
        })
        .chain(
            [
                "{\"name\":\"now\",\"arguments\":",
                "{\"name\": \"weather\", \"parameters\": {\"city\": \"Bern\"",
                "\"now\"",
                "now",
                "rm",
                "call:now{",
                "<tool_call>{\"name\":\"now\",\"arguments\":{\"a\":1}}</tool_call>",
                "<function=weather><parameter=days>3</parameter></function>",
                "[TOOL_CALLS][{\"name\":\"now\",\"arguments\":{}}]",
                "[TOOL_CALLS]now[ARGS]{}",
                "<|tool_call>call:weather{city:<|\"|>x<|\"|>}<tool_call|>",
                "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
                "<|channel|>commentary to=functions.now<|message|>{\"a\":[1]}<|call|>",
                "<|channel|>analysis<|message|>",
                "{\"name\":\"now\",\"arguments\":{}}",
                "now(a=1)",
                "functions.",
                "now(",
                "a=",
                ")",
                "'",
                "weather>",
                "<parameter=days>",
                "</parameter>",
                "</function>",
                "{",
                "}",
                "[",
                "]",
                ",",
                ":",
                ";",
                "\"",
                "\\",
                "a",
                "null",
                " ",
                "\n",
                "é🙂",
                "```",
                "```json\n",
                "\u{1}",
                "\"arguments\":",
                "{}",
            ]
            .map(str::to_owned),
        )
        .collect();
    proptest::collection::vec(proptest::sample::select(parts), 0..24)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_do_not_matter(text in noise(), format in 0..10_usize, cuts in proptest::collection::vec(0..200_usize, 0..6), thinking: bool) {
        let talk = || Talk::new(FORMATS[format], &tools(), &ToolChoice::Auto, thinking, "x");
        let whole = run(talk(), &[&text]);
        check_steps(&whole);
        let mut cuts: Vec<usize> = cuts.into_iter().filter(|&cut| text.is_char_boundary(cut)).collect();
        cuts.push(text.len());
        cuts.sort_unstable();
        let mut from = 0;
        let pieces: Vec<&str> = cuts.iter().map(|&to| { let piece = &text[from..to]; from = to; piece }).collect();
        prop_assert_eq!(shown(&run(talk(), &pieces)), shown(&whole));
        // Escapes make one byte at most six.
        let said: usize = whole.iter().map(|said| match said {
            Said::Text(text) | Said::Reasoning(text) => text.len(),
            Said::Call(ToolCallStep::Arguments { text, .. }) => text.expose().len(),
            Said::Call(_) | Said::Warning(_) => 0,
        }).sum();
        prop_assert!(said <= 6 * text.len() + 16);
    }

    #[test]
    fn plain_text_comes_back(text in noise()) {
        for thinking in [false, true] {
            let talk = Talk::new(Format::Plain, &tools(), &ToolChoice::Auto, thinking, "x");
            prop_assert_eq!(shown(&run(talk, &[&text])), text.clone());
        }
    }

    #[test]
    fn text_without_markers_comes_back(text in "[a-z<>|\n {}\\[\\]\"`]{0,60}", format in 0..10_usize) {
        prop_assume!(FORMATS[format].table().iter().all(|marker| !text.contains(marker.text)));
        let said = run(talk(FORMATS[format]), &[&text]);
        prop_assert_eq!(shown(&said), text);
    }
}

#[test]
fn space_waits_for_nothing_that_cannot_come() {
    let said = |tools: &[Tool], format, pieces: &[&str]| {
        let mut talk = Talk::new(format, tools, &ToolChoice::Auto, false, "x");
        pieces.iter().map(|piece| shown(&talk.push(piece))).collect::<Vec<_>>()
    };
    for format in [Format::Plain, Format::Generic] {
        assert_eq!(said(&[], format, &["a", "\n", "\n", "b"]), ["a", "\n", "\n", "b"]);
    }
    // A call may follow, whose space is no part of the answer.
    assert_eq!(said(&tools(), Format::Hermes, &["a", "\n", "\n", "b"]), ["a", "", "", "\n\nb"]);
    // Nor is the space before a bare call, which needs no marker but may have one.
    for choice in [ToolChoice::Auto, ToolChoice::Required] {
        let talks = FORMATS.map(|format| Talk::new(format, &tools(), &choice, false, "x"));
        assert!(talks.iter().all(|talk| !talk.bare || !talk.nothing_may_follow()));
    }
    // At the very start a thought may.
    assert_eq!(said(&[], Format::Generic, &["\n", "b", "\n"]), ["", "\nb", "\n"]);
}

/// The ids of an answer's calls.
fn ids(id_seed: &str) -> Vec<String> {
    let talk = Talk::new(Format::Hermes, &tools(), &ToolChoice::Auto, false, id_seed);
    let call = "<tool_call>{\"name\":\"now\",\"arguments\":{}}</tool_call>";
    let said = run(talk, &[&call.repeat(300)]);
    check_steps(&said);
    let ids = said.into_iter().filter_map(|said| match said {
        Said::Call(ToolCallStep::Begin { id, .. }) => Some(id),
        _ => None,
    });
    ids.collect()
}

#[test]
fn no_id_comes_twice_in_a_conversation() {
    let (one, other) = (ids("one"), ids("other"));
    assert_eq!((one.len(), other.len()), (300, 300));
    assert!(one.iter().all(|id| !other.contains(id)));
    // One that must be the same again is.
    assert_eq!(one, ids("one"));
}
