//! `tieline run`

use std::io::{self, IsTerminal, Read};

use serde::Serialize;
use tieline_engine::LocalModel;
use tieline_store::Model;
use tieline_types::{
    Bytes, Digest, FinishReason, LoadParams, Message, Prompt, Request, Role, Sampling,
    TokenLogprob, Tokens, Usage,
};

use super::chat;
use super::turn::{figures, request_for, sampling};
use crate::answer::{self, Answer, Figures};
use crate::app::App;
use crate::args::Run;
use crate::failure::Failure;

/// The largest prompt read from a file or standard input: what fits a frame to the runner.
const MAX_PROMPT: u64 = 8 * 1024 * 1024;

/// One answer with all that it depends on, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    source: &'a str,
    answer: &'a str,
    finish_reason: &'a FinishReason,
    /// This and the next two: `None` for an answer cut short, of which nothing was measured.
    usage: Option<Usage>,
    timing: Option<Figures>,
    seed: Option<u32>,
    context_tokens: Tokens,
    threads: u32,
    peak_memory_bytes: Option<Bytes>,
    llama_cpp: &'a str,
    kernels: &'a [String],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    logprobs: &'a [TokenLogprob],
}

pub(super) fn run(app: &App, args: &Run) -> Result<(), Failure> {
    let sampling = sampling(&args.sampling)?;
    let prompt = prompt(args)?;
    let params = LoadParams::from(&args.load);
    let model = app.installed_or_pulled(&args.model)?;
    let loaded = app.load(&model, params)?;
    let result = match prompt {
        Some(prompt) => {
            let request = request(args, sampling, &prompt);
            once(app, &model, &loaded, request, args.stats)
        }
        None if args.raw || app.output.is_json() => {
            Err(Failure::user("a prompt is needed with --raw and --json"))
        }
        None => chat::chat(app, &model, &loaded, args, &sampling),
    };
    loaded.end(app);
    result
}

fn request(args: &Run, sampling: Sampling, prompt: &str) -> Request {
    let prompt = if args.raw {
        Prompt::Text(prompt.into())
    } else {
        let system = args.system.iter().map(|text| Message::new(Role::System, text.as_str()));
        Prompt::Chat(system.chain([Message::new(Role::User, prompt)]).collect())
    };
    request_for(args, sampling, prompt)
}

fn once(
    app: &App,
    model: &Model,
    loaded: &crate::app::Loaded,
    request: Request,
    stats: bool,
) -> Result<(), Failure> {
    let output = app.output;
    request.validate()?;
    let shown = !output.is_json();
    let answer =
        answer::ask(app, loaded, request, |text| if shown { output.piece(text) } else { Ok(()) })?;
    if !shown {
        report(app, model, &loaded.model, &answer)?;
    } else if !answer.text.ends_with('\n') {
        output.line("")?;
    }
    if stats && shown && !answer.is_cut_short() {
        output.talk(&figures(model, &loaded.model, &answer));
    }
    match answer.finished.reason {
        FinishReason::Cancelled => Err(Failure::interrupted("interrupted")),
        FinishReason::ContextFull => {
            output.warn(&format!(
                "the context of {} is full; --ctx asks for more",
                loaded.model.loaded().context
            ));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn report(app: &App, model: &Model, local: &LocalModel, answer: &Answer) -> Result<(), Failure> {
    let (build, loaded) = (local.build(), local.loaded());
    let whole = !answer.is_cut_short();
    app.output.value(&Report {
        model: &model.name,
        digest: model.digest,
        source: &model.source,
        answer: &answer.text,
        finish_reason: &answer.finished.reason,
        usage: whole.then_some(answer.finished.usage),
        timing: whole.then(|| Figures::new(answer, loaded.load_time)),
        seed: whole.then_some(answer.finished.seed),
        context_tokens: loaded.context,
        threads: loaded.threads,
        peak_memory_bytes: answer.finished.peak_memory,
        llama_cpp: &build.llama_cpp,
        kernels: &build.kernels,
        logprobs: &answer.logprobs,
    })
}

/// The prompt, or `None` for a conversation.
fn prompt(args: &Run) -> Result<Option<String>, Failure> {
    let text = match (&args.prompt, &args.file) {
        (Some(prompt), _) if prompt != "-" => prompt.clone(),
        (_, Some(path)) => {
            let what = path.display().to_string();
            let file = std::fs::File::open(path).map_err(|error| {
                Failure::user(format!("cannot read the prompt from {what}: {error}"))
            })?;
            read(file, &what)?
        }
        (None, None) if io::stdin().is_terminal() => return Ok(None),
        _ => read(io::stdin().lock(), "standard input")?,
    };
    if text.trim().is_empty() {
        return Err(Failure::user("the prompt is empty"));
    }
    Ok(Some(text))
}

fn read(from: impl Read, what: &str) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    from.take(MAX_PROMPT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::user(format!("cannot read the prompt from {what}: {error}")))?;
    if bytes.len() as u64 > MAX_PROMPT {
        return Err(Failure::user(format!(
            "the prompt from {what} is longer than {}",
            Bytes(MAX_PROMPT)
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::user(format!(
            "the prompt from {what} is no UTF-8 text: byte {at} begins no character"
        ))
    })
}
