//! Who speaks this dialect, and what each of them takes.
//!
//! From the vendors' public documentation. Where a vendor refuses a member that it does not know, a wrong row is a
//! refusal and no wrong answer.

use std::fmt::Write as _;

use super::effort::STEPS;

/// A parameter that not every vendor takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// `top_k`.
    TopK,
    /// `min_p`.
    MinP,
    /// The penalty that divides.
    RepeatPenalty,
    /// How many tokens the penalties look at.
    PenaltyWindow,
    /// `presence_penalty`.
    PresencePenalty,
    /// `frequency_penalty`.
    FrequencyPenalty,
    /// The seed.
    Seed,
    /// `logprobs` and `top_logprobs`.
    Logprobs,
    /// llama.cpp's GBNF.
    Grammar,
    /// A gap to fill, by the older completions.
    Infill,
    /// Tools.
    Tools,
    /// The older completions, for text to go on from.
    Text,
    /// Pictures.
    Pictures,
    /// Pictures that it fetches.
    PictureLinks,
    /// `stream_options.include_usage`. Who does not take it tells the usage unasked.
    UsageOption,
}

/// How thinking is switched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thinking {
    /// It cannot be.
    None,
    /// `reasoning_effort`: the words for on and off.
    Effort(&'static str, &'static str),
    /// `reasoning: {enabled}`.
    Enabled,
    /// `reasoning: {enabled}`, `{effort}` or `{max_tokens}`.
    Reasoning,
    /// `thinking: {type}`.
    Type,
    /// `chat_template_kwargs: {enable_thinking, reasoning_effort}`: the words for how much.
    Template(&'static [&'static str]),
}

/// What becomes of a JSON Schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// It is kept to where it is of the strict kind, else it is a wish.
    Strict,
    /// It is kept to.
    Kept,
    /// It is a wish.
    Wish,
    /// Only "any JSON object" can be asked for.
    ObjectOnly,
    /// Nothing can be asked for.
    None,
}

/// How vectors of texts are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VectorWords {
    /// The most texts at once.
    pub texts: usize,
    /// Whether it gives them as base64, which is a third of the length and exact.
    pub base64: bool,
    /// Its word for how many numbers a vector has.
    pub dimensions: Option<&'static str>,
    /// Its word for whether they have length 1. Who has none gives them as it likes.
    pub normalise: Option<&'static str>,
    /// Its word for how they are made of tokens.
    pub pooling: Option<&'static str>,
}

/// One vendor's way.
#[derive(Debug, PartialEq, Eq)]
pub struct Flavour {
    /// The vendor's name in the configuration.
    pub name: &'static str,
    /// Where it is, where that is always the same.
    pub base_url: Option<&'static str>,
    /// What the limit of the answer's tokens is called.
    pub limit: &'static str,
    /// What it takes, and its own word for it.
    pub takes: &'static [(Parameter, &'static str)],
    /// The most stop texts.
    pub stops: usize,
    /// How thinking is switched.
    pub thinking: Thinking,
    /// The member in which it wants earlier thoughts back.
    pub thoughts_back: Option<&'static str>,
    /// What becomes of a JSON Schema.
    pub schema: Schema,
    /// Ids of calls must be nine letters or digits.
    pub short_ids: bool,
    /// How vectors are asked for; `None`: it makes none.
    pub vectors: Option<VectorWords>,
    /// Whether it scores documents by a query, at `/rerank`.
    pub ranks: bool,
}

impl Flavour {
    /// Its word for a parameter, where it takes it.
    pub fn word(&self, parameter: Parameter) -> Option<&'static str> {
        let found = self.takes.iter().find(|(taken, _)| *taken == parameter);
        found.map(|(_, word)| *word)
    }

    /// Whether it takes a parameter.
    pub fn takes(&self, parameter: Parameter) -> bool {
        self.word(parameter).is_some()
    }
}

/// The flavour of this name.
pub fn flavour(name: &str) -> Option<&'static Flavour> {
    FLAVOURS.iter().find(|flavour| flavour.name == name)
}

const TOP_K: (Parameter, &str) = (Parameter::TopK, "top_k");
const MIN_P: (Parameter, &str) = (Parameter::MinP, "min_p");
const REPEAT: (Parameter, &str) = (Parameter::RepeatPenalty, "repeat_penalty");
const REPETITION: (Parameter, &str) = (Parameter::RepeatPenalty, "repetition_penalty");
const WINDOW: (Parameter, &str) = (Parameter::PenaltyWindow, "repeat_last_n");
const PRESENCE: (Parameter, &str) = (Parameter::PresencePenalty, "presence_penalty");
const FREQUENCY: (Parameter, &str) = (Parameter::FrequencyPenalty, "frequency_penalty");
const SEED: (Parameter, &str) = (Parameter::Seed, "seed");
const LOGPROBS: (Parameter, &str) = (Parameter::Logprobs, "logprobs");
const GRAMMAR: (Parameter, &str) = (Parameter::Grammar, "grammar");
const INFILL: (Parameter, &str) = (Parameter::Infill, "suffix");
const TOOLS: (Parameter, &str) = (Parameter::Tools, "tools");
const TEXT: (Parameter, &str) = (Parameter::Text, "/completions");
const PICTURES: (Parameter, &str) = (Parameter::Pictures, "image_url");
const LINKS: (Parameter, &str) = (Parameter::PictureLinks, "links of pictures");
const USAGE: (Parameter, &str) = (Parameter::UsageOption, "stream_options");

/// Vectors as most servers make them.
const VECTORS: VectorWords = VectorWords {
    texts: 128,
    base64: true,
    dimensions: Some("dimensions"),
    normalise: None,
    pooling: None,
};

/// A row whose members are the commonest.
const COMMON: Flavour = Flavour {
    name: "",
    base_url: None,
    limit: "max_tokens",
    takes: &[],
    stops: 16,
    thinking: Thinking::None,
    thoughts_back: None,
    schema: Schema::Kept,
    short_ids: false,
    vectors: None,
    ranks: false,
};

/// All flavours.
pub const FLAVOURS: &[Flavour] = &[
    Flavour {
        name: "openai",
        base_url: Some("https://api.openai.com/v1"),
        limit: "max_completion_tokens",
        takes: &[PRESENCE, FREQUENCY, SEED, LOGPROBS, TOOLS, TEXT, USAGE, PICTURES, LINKS],
        stops: 4,
        thinking: Thinking::Effort("medium", "none"),
        schema: Schema::Strict,
        vectors: Some(VectorWords { texts: 512, ..VECTORS }),
        ..COMMON
    },
    Flavour {
        name: "groq",
        base_url: Some("https://api.groq.com/openai/v1"),
        limit: "max_completion_tokens",
        takes: &[SEED, TOOLS, USAGE, PICTURES, LINKS],
        stops: 4,
        thinking: Thinking::Effort("default", "none"),
        schema: Schema::Strict,
        ..COMMON
    },
    Flavour {
        name: "together",
        base_url: Some("https://api.together.xyz/v1"),
        takes: &[
            TOP_K, MIN_P, REPETITION, PRESENCE, FREQUENCY, SEED, TOOLS, TEXT, USAGE, PICTURES,
            LINKS,
        ],
        thinking: Thinking::Enabled,
        vectors: Some(VectorWords { base64: false, dimensions: None, ..VECTORS }),
        ranks: true,
        ..COMMON
    },
    Flavour {
        name: "openrouter",
        base_url: Some("https://openrouter.ai/api/v1"),
        takes: &[
            TOP_K, MIN_P, REPETITION, PRESENCE, FREQUENCY, SEED, LOGPROBS, TOOLS, TEXT, USAGE,
            PICTURES, LINKS,
        ],
        stops: 4,
        thinking: Thinking::Reasoning,
        thoughts_back: Some("reasoning"),
        schema: Schema::Strict,
        vectors: Some(VectorWords { base64: false, ..VECTORS }),
        ..COMMON
    },
    Flavour {
        name: "mistral",
        base_url: Some("https://api.mistral.ai/v1"),
        takes: &[PRESENCE, FREQUENCY, (Parameter::Seed, "random_seed"), TOOLS, PICTURES, LINKS],
        schema: Schema::Strict,
        short_ids: true,
        vectors: Some(VectorWords {
            base64: false,
            dimensions: Some("output_dimension"),
            ..VECTORS
        }),
        ..COMMON
    },
    Flavour {
        name: "deepseek",
        base_url: Some("https://api.deepseek.com"),
        takes: &[PRESENCE, FREQUENCY, LOGPROBS, TOOLS, USAGE],
        thinking: Thinking::Type,
        thoughts_back: Some("reasoning_content"),
        schema: Schema::ObjectOnly,
        ..COMMON
    },
    Flavour {
        name: "vllm",
        takes: &[
            TOP_K, MIN_P, REPETITION, PRESENCE, FREQUENCY, SEED, LOGPROBS, TOOLS, TEXT, USAGE,
            PICTURES, LINKS,
        ],
        thinking: Thinking::Template(STEPS),
        thoughts_back: Some("reasoning_content"),
        vectors: Some(VECTORS),
        ranks: true,
        ..COMMON
    },
    Flavour {
        name: "nim",
        base_url: Some("https://integrate.api.nvidia.com/v1"),
        takes: &[PRESENCE, FREQUENCY, SEED, LOGPROBS, TOOLS, USAGE, PICTURES],
        thinking: Thinking::Template(STEPS),
        schema: Schema::Wish,
        vectors: Some(VectorWords { base64: false, ..VECTORS }),
        ..COMMON
    },
    Flavour {
        name: "lmstudio",
        base_url: Some("http://127.0.0.1:1234/v1"),
        takes: &[TOP_K, REPEAT, PRESENCE, FREQUENCY, SEED, TOOLS, TEXT, USAGE, PICTURES],
        vectors: Some(VectorWords { base64: false, dimensions: None, ..VECTORS }),
        ..COMMON
    },
    Flavour {
        name: "llama-server",
        base_url: Some("http://127.0.0.1:8080/v1"),
        takes: &[
            TOP_K, MIN_P, REPEAT, WINDOW, PRESENCE, FREQUENCY, SEED, LOGPROBS, GRAMMAR, TOOLS,
            TEXT, USAGE, PICTURES, LINKS,
        ],
        thinking: Thinking::Template(STEPS),
        thoughts_back: Some("reasoning_content"),
        vectors: Some(VectorWords { dimensions: None, ..VECTORS }),
        ranks: true,
        ..COMMON
    },
    Flavour {
        name: "replicate",
        base_url: Some("https://openai-proxy.replicate.com/v1"),
        takes: &[PRESENCE, FREQUENCY, SEED],
        schema: Schema::None,
        ..COMMON
    },
    Flavour {
        name: "tieline",
        takes: &[
            TOP_K, MIN_P, REPEAT, PRESENCE, FREQUENCY, SEED, LOGPROBS, GRAMMAR, INFILL, TOOLS,
            TEXT, USAGE, PICTURES, LINKS,
        ],
        thinking: Thinking::Template(&["minimal", "low", "medium", "high", "xhigh", "max"]),
        thoughts_back: Some("reasoning_content"),
        vectors: Some(VectorWords {
            normalise: Some("normalize"),
            pooling: Some("pooling"),
            ..VECTORS
        }),
        ranks: true,
        ..COMMON
    },
];

/// The table of flavours, for the documentation.
pub fn table() -> String {
    let mut table = String::from(
        "| vendor | URL | limit | takes besides temperature and top_p | stops | thinking | JSON Schema | vectors | scores |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for flavour in FLAVOURS {
        let takes: Vec<&str> = flavour.takes.iter().map(|(_, word)| *word).collect();
        let thinking = match flavour.thinking {
            Thinking::None => "-".to_owned(),
            Thinking::Effort(on, off) => {
                format!("`reasoning_effort` {on}, {off}, or what the model takes")
            }
            Thinking::Enabled => "`reasoning.enabled`".to_owned(),
            Thinking::Reasoning => "`reasoning`: effort, max_tokens or enabled".to_owned(),
            Thinking::Type => "`thinking.type`".to_owned(),
            Thinking::Template(words) => format!("`chat_template_kwargs`: {}", words.join(", ")),
        };
        let schema = match flavour.schema {
            Schema::Strict => "kept to where it is strict",
            Schema::Kept => "kept to",
            Schema::Wish => "a wish",
            Schema::ObjectOnly => "any object only",
            Schema::None => "-",
        };
        let vectors = match flavour.vectors {
            None => "-".to_owned(),
            Some(VectorWords { texts, dimensions: Some(word), .. }) => {
                format!("{texts} at once, `{word}`")
            }
            Some(VectorWords { texts, dimensions: None, .. }) => format!("{texts} at once"),
        };
        let scores = if flavour.ranks { "`/rerank`" } else { "-" };
        // Writing to a string does not fail.
        let _ = writeln!(
            table,
            "| {} | {} | `{}` | {} | {} | {thinking} | {schema} | {vectors} | {scores} |",
            flavour.name,
            flavour.base_url.unwrap_or("yours"),
            flavour.limit,
            takes.join(", "),
            flavour.stops,
        );
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: [&str; 2] = [
        "<!-- flavours: start, generated from crates/tieline-providers/src/openai/flavour.rs -->\n",
        "<!-- flavours: end -->",
    ];

    /// `DOCS=write` writes it anew.
    #[test]
    fn the_table_in_the_docs_is_fresh() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/backends.md");
        let page = std::fs::read_to_string(path).unwrap();
        let (head, rest) = page.split_once(MARKS[0]).unwrap();
        let (_, tail) = rest.split_once(MARKS[1]).unwrap();
        let fresh = format!("{head}{}\n{}\n{}{tail}", MARKS[0], table(), MARKS[1]);
        if std::env::var_os("DOCS").is_some_and(|word| word == "write") {
            std::fs::write(path, &fresh).unwrap();
        }
        assert_eq!(page, fresh, "DOCS=write cargo test -p tieline-providers the_table_in_the_docs");
    }
}
