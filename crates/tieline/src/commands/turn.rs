//! One turn, alone or in a conversation: what is asked of the model, and what was measured.

use tieline_engine::LocalModel;
use tieline_store::Model;
use tieline_types::{Prompt, Request, Sampling, Tokens};

use crate::answer::{Answer, Figures};
use crate::args::{self, Run};
use crate::failure::Failure;

/// How tokens are chosen, by the flags; checked.
pub(super) fn sampling(args: &args::Sampling) -> Result<Sampling, Failure> {
    let default = Sampling::default();
    let sampling = Sampling {
        temperature: if args.greedy {
            0.0
        } else {
            args.temperature.unwrap_or(default.temperature)
        },
        top_k: args.top_k.unwrap_or(default.top_k),
        top_p: args.top_p.unwrap_or(default.top_p),
        min_p: args.min_p.unwrap_or(default.min_p),
        repeat_penalty: args.repeat_penalty.unwrap_or(default.repeat_penalty),
        presence_penalty: args.presence_penalty.unwrap_or(default.presence_penalty),
        frequency_penalty: args.frequency_penalty.unwrap_or(default.frequency_penalty),
        penalty_window: default.penalty_window,
        seed: args.seed,
    };
    sampling.validate()?;
    Ok(sampling)
}

/// The request for one turn, with all limits and no messages but these.
pub(super) fn request_for(args: &Run, sampling: Sampling, prompt: Prompt) -> Request {
    Request {
        sampling,
        max_tokens: args.sampling.max_tokens.map(Tokens),
        stop: args.sampling.stop.clone(),
        logprobs: args.logprobs,
        ignore_eog: args.sampling.ignore_end,
        ..Request::new(prompt)
    }
}

/// What was measured, for people. Every figure is of this answer on this machine.
pub(super) fn figures(model: &Model, local: &LocalModel, answer: &Answer) -> String {
    let (build, loaded, finished) = (local.build(), local.loaded(), &answer.finished);
    let figures = Figures::new(answer, loaded.load_time);
    let rate = |rate: Option<f64>| {
        rate.map_or_else(|| "not measured".to_owned(), |r| format!("{r:.1} tokens/s"))
    };
    let cached = match finished.usage.cached_tokens {
        Tokens(0) => String::new(),
        tokens => format!(", {tokens} of them kept from before"),
    };
    [
        String::new(),
        format!("load     {:.0} ms", figures.load_ms),
        format!(
            "first    {} after the request",
            figures.ttft_ms.map_or_else(|| "no token".to_owned(), |ms| format!("token {ms:.0} ms"))
        ),
        format!("prefill  {}, {}{cached}", rate(figures.prefill_tps), finished.usage.prompt_tokens),
        format!("decode   {}, {}", rate(figures.decode_tps), finished.usage.completion_tokens),
        format!(
            "memory   {} at most",
            finished.peak_memory.map_or_else(|| "unknown".to_owned(), |peak| peak.to_string())
        ),
        format!("context  {}, seed {}, {} threads", loaded.context, finished.seed, loaded.threads),
        format!("kernels  {} (llama.cpp {})", build.kernels.join(" "), build.llama_cpp),
        format!("model    {}, {}", model.name, model.digest),
        format!("source   {}", model.source),
    ]
    .join("\n")
}
