//! The forms in which models write thoughts and calls, and what marks them.

/// How a model marks its thoughts and its calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// Hermes, Qwen 2.5 and 3, Granite 4 and most ChatML models: `<tool_call>{"name":…}</tool_call>`.
    /// Also Nemotron (`<TOOLCALL>[…]</TOOLCALL>`) and LFM2 (`<|tool_call_start|>[name(key=…)]…`).
    Hermes,
    /// Qwen3-Coder: `<tool_call><function=name><parameter=key>…`.
    QwenCoder,
    /// Llama 3: the whole answer is `{"name":…,"parameters":…}`.
    Llama3,
    /// Mistral: `[TOOL_CALLS][{"name":…}]` or `[TOOL_CALLS]name[ARGS]{…}`; `[THINK]…[/THINK]`.
    Mistral,
    /// Gemma 3 (fenced JSON), FunctionGemma (`<start_function_call>call:…`), Gemma 4 (`<|tool_call>call:…`).
    Gemma,
    /// DeepSeek V3, R1 and V3.1: `<｜tool▁call▁begin｜>…`.
    DeepSeek,
    /// Granite 3 and Phi-4-mini: `<|tool_call|>[{"name":…}]`.
    Granite,
    /// gpt-oss: channels and recipients.
    Harmony,
    /// No marks of its own: a call is an answer that is JSON and names a tool.
    Generic,
    /// All is text.
    Plain,
}

/// Where a marker counts as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// Before any text of the answer, and after a call.
    Start,
    /// Anywhere in the answer.
    Answer,
    /// In thoughts.
    Thinking,
}

/// What follows a call's marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A JSON object or a list of them.
    Json,
    /// The same in a code fence, which may hold any other JSON as well.
    FencedJson,
    /// JSON, or a call or a list of calls as Python writes them.
    PythonOrJson,
    /// The same, of which the bracket of a list is read.
    PythonOrJsonList,
    /// JSON, or `<function=name>…`.
    JsonOrXml,
    /// `<function=name>…`, of which so many bytes are read.
    Tag(usize),
    /// `name>…`.
    Xml,
    /// JSON, or a name and then JSON.
    NameOrJson,
    /// A name and then JSON.
    Name,
    /// Gemma's own form.
    Quoted {
        /// What stands around strings.
        quote: &'static str,
        /// What stands after the call.
        close: &'static str,
    },
}

/// What a marker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// A thought begins.
    Think,
    /// A thought ends.
    Answer,
    /// A call begins; after it, one of the texts may stand.
    Call(Shape, &'static [&'static str]),
    /// It means nothing.
    Drop,
    /// It means nothing where there are tools.
    DropWithTools,
    /// The answer is wrapped from here on; it means nothing else.
    Wrap,
    /// What wraps the answer ends.
    Unwrap,
    /// A harmony header begins.
    Header,
}

/// A text that is not said but means something.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marker {
    pub(super) text: &'static str,
    pub(super) when: When,
    pub(super) action: Action,
}

const fn marker(text: &'static str, when: When, action: Action) -> Marker {
    Marker { text, when, action }
}

const fn call(text: &'static str, shape: Shape, closers: &'static [&'static str]) -> Marker {
    marker(text, When::Answer, Action::Call(shape, closers))
}

const fn code(text: &'static str) -> Marker {
    marker(text, When::Start, Action::Call(Shape::PythonOrJson, &["```"]))
}

const fn fence(text: &'static str) -> Marker {
    marker(text, When::Start, Action::Call(Shape::FencedJson, &["```"]))
}

const THINK: Marker = marker("<think>", When::Start, Action::Think);
const THINK_END: Marker = marker("</think>", When::Thinking, Action::Answer);
const TOOL_CALL: Marker = call("<tool_call>", Shape::JsonOrXml, &["</tool_call>"]);
const FUNCTION_GEMMA: Shape = Shape::Quoted { quote: "<escape>", close: "<end_function_call>" };
const GEMMA_4: Shape = Shape::Quoted { quote: "<|\"|>", close: "<tool_call|>" };

const HERMES: &[Marker] = &[
    THINK,
    THINK_END,
    TOOL_CALL,
    call("<TOOLCALL>", Shape::Json, &["</TOOLCALL>"]),
    call("<|tool_call_start|>", Shape::PythonOrJson, &["<|tool_call_end|>"]),
    fence("```json"),
];
const QWEN_CODER: &[Marker] =
    &[THINK, THINK_END, TOOL_CALL, call("<function=", Shape::Xml, &["</tool_call>"])];
const LLAMA_3: &[Marker] =
    &[THINK, THINK_END, call("<|python_tag|>", Shape::PythonOrJson, &[";"]), fence("```json")];
const MISTRAL: &[Marker] = &[
    THINK,
    THINK_END,
    marker("[THINK]", When::Start, Action::Think),
    marker("[/THINK]", When::Thinking, Action::Answer),
    call("[TOOL_CALLS]", Shape::NameOrJson, &[]),
];
const GEMMA: &[Marker] = &[
    marker("<|channel>thought", When::Start, Action::Think),
    marker("<channel|>", When::Thinking, Action::Answer),
    call("<start_function_call>", FUNCTION_GEMMA, &[]),
    call("<|tool_call>", GEMMA_4, &[]),
    // Gemma 4 may call out of a thought, which that ends.
    marker("<|tool_call>", When::Thinking, Action::Call(GEMMA_4, &[])),
    fence("```json"),
    code("```tool_code"),
    code("```tool_call"),
];
const DEEP_SEEK: &[Marker] = &[
    THINK,
    THINK_END,
    call("<｜tool▁call▁begin｜>", Shape::Name, &["```"]),
    marker("<｜tool▁calls▁begin｜>", When::Answer, Action::DropWithTools),
    marker("<｜tool▁call▁end｜>", When::Answer, Action::DropWithTools),
    marker("<｜tool▁calls▁end｜>", When::Answer, Action::DropWithTools),
];
const GRANITE: &[Marker] = &[
    THINK,
    THINK_END,
    // Granite 3.2 says in words what 3.3 says in tags.
    marker("Here is my thought process:", When::Start, Action::Think),
    marker("Here's my thought process:", When::Start, Action::Think),
    marker("Here is my response:", When::Thinking, Action::Answer),
    marker("Here's my response:", When::Thinking, Action::Answer),
    marker("<response>", When::Start, Action::Wrap),
    marker("</response>", When::Answer, Action::Unwrap),
    call("<|tool_call|>", Shape::Json, &["<|/tool_call|>"]),
    TOOL_CALL,
];
const HARMONY: &[Marker] = &[
    marker("<|channel|>", When::Answer, Action::Header),
    marker("<|start|>", When::Answer, Action::Header),
    marker("<|end|>", When::Answer, Action::Drop),
    marker("<|return|>", When::Answer, Action::Drop),
    marker("<|call|>", When::Answer, Action::Drop),
    marker("<|channel|>", When::Thinking, Action::Header),
    marker("<|start|>", When::Thinking, Action::Header),
    marker("<|end|>", When::Thinking, Action::Drop),
    marker("<|return|>", When::Thinking, Action::Drop),
    marker("<|call|>", When::Thinking, Action::Drop),
    // The prompt ends with `<|start|>assistant`, so a recipient may come first.
    marker("to=", When::Start, Action::Header),
];
const GENERIC: &[Marker] = &[THINK, THINK_END, fence("```json")];

const GEMMA_TOKENS: &[&str] = &[
    "<start_function_call>",
    "<end_function_call>",
    "<escape>",
    "<|tool_call>",
    "<tool_call|>",
    "<|\"|>",
    "<|channel>",
    "<channel|>",
];

const HERMES_TOKENS: &[&str] = &[
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<TOOLCALL>",
    "</TOOLCALL>",
    "<|tool_call_start|>",
    "<|tool_call_end|>",
];

const DEEP_SEEK_TOKENS: &[&str] = &[
    "<think>",
    "</think>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
];

impl Format {
    pub(super) fn table(self) -> &'static [Marker] {
        match self {
            Self::Hermes => HERMES,
            Self::QwenCoder => QWEN_CODER,
            Self::Llama3 => LLAMA_3,
            Self::Mistral => MISTRAL,
            Self::Gemma => GEMMA,
            Self::DeepSeek => DEEP_SEEK,
            Self::Granite => GRANITE,
            Self::Harmony => HARMONY,
            Self::Generic => GENERIC,
            Self::Plain => &[],
        }
    }

    /// Whether a call may stand without any marker, as the start of the answer. Small models of the
    /// families that have markers forget them.
    pub(super) fn knows_bare_calls(self) -> bool {
        match self {
            // Mistral's template asks for a bare list, though its models were taught a marker. DeepSeek's before V3.1
            // show no tools, so that they are told of in words that ask for this.
            Self::Hermes
            | Self::Llama3
            | Self::Mistral
            | Self::Gemma
            | Self::DeepSeek
            | Self::Granite
            | Self::Generic => true,
            Self::QwenCoder | Self::Harmony | Self::Plain => false,
        }
    }

    /// Whether this one of its [markers](Self::markers) may begin a thought, or what leads to one.
    pub(super) fn is_of_thoughts(self, marker: &str) -> bool {
        match self {
            Self::Harmony => matches!(marker, "<|channel|>" | "<|start|>"),
            Self::Gemma => marker == "<|channel>",
            _ => marker.to_lowercase().contains("think"),
        }
    }

    /// The special tokens that this format's parser must see as text. A runner prints these and no
    /// others.
    pub fn markers(self) -> &'static [&'static str] {
        match self {
            Self::Hermes => HERMES_TOKENS,
            Self::QwenCoder => &["<think>", "</think>", "<tool_call>", "</tool_call>"],
            Self::Llama3 => &["<think>", "</think>", "<|python_tag|>"],
            Self::Mistral => &[
                "<think>",
                "</think>",
                "[THINK]",
                "[/THINK]",
                "[TOOL_CALLS]",
                "[ARGS]",
                "[CALL_ID]",
            ],
            Self::Gemma => GEMMA_TOKENS,
            Self::DeepSeek => DEEP_SEEK_TOKENS,
            Self::Granite => &[
                "<think>",
                "</think>",
                "<|tool_call|>",
                "<|/tool_call|>",
                "<tool_call>",
                "</tool_call>",
            ],
            Self::Harmony => &[
                "<|start|>",
                "<|end|>",
                "<|message|>",
                "<|channel|>",
                "<|constrain|>",
                "<|return|>",
                "<|call|>",
            ],
            Self::Generic => &["<think>", "</think>"],
            Self::Plain => &[],
        }
    }
}

/// The format that a chat template's source text shows.
pub fn detect(template: &str) -> Format {
    let has = |text: &str| template.contains(text);
    if template.trim().is_empty() {
        Format::Plain
    } else if has("<|channel|>") && has("<|message|>") {
        Format::Harmony
    } else if has("<｜tool▁call▁begin｜>") || has("<｜Assistant｜>") {
        Format::DeepSeek
    } else if has("[TOOL_CALLS]") || has("[THINK]") {
        Format::Mistral
    } else if has("<function=") && has("<parameter=") {
        Format::QwenCoder
    } else if has("<|tool_call|>") {
        Format::Granite
    } else if has("<start_of_turn>") || has("<start_function_call>") || has("<|tool_call>") {
        Format::Gemma
    } else if has("<tool_call>")
        || has("<TOOLCALL>")
        || has("<|tool_call_start|>")
        || has("<|tool_list_start|>")
    {
        Format::Hermes
    } else if has("<|python_tag|>") || has("<|start_header_id|>") {
        Format::Llama3
    } else {
        Format::Generic
    }
}

/// Whether a rendered prompt ends inside a thought, so that the answer begins in it.
pub fn opens_thinking(rendered_prompt: &str) -> bool {
    let end = rendered_prompt.trim_end();
    ["<think>", "[THINK]", "<|channel>thought", "<|channel|>analysis<|message|>"]
        .iter()
        .any(|opener| end.ends_with(opener))
}
