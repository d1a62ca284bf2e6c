//! One turn, alone or in a conversation: what is asked of the model, and what was measured.

use tieline_engine::LocalModel;
use tieline_store::Model;
use tieline_types::{Miss, Overflow, Prompt, Request, Sampling, Speculation, Tokens, Usage};

use super::load_params::chosen;
use super::rule;

use crate::answer::{Answer, Figures};
use crate::args::{self, Run};
use crate::failure::Failure;

/// How tokens are chosen, by the flags and where they say nothing as usual; checked.
fn sampling(args: &args::Sampling, usual: &Sampling) -> Result<Sampling, Failure> {
    let sampling = Sampling {
        temperature: if args.greedy { 0.0 } else { args.temperature.unwrap_or(usual.temperature) },
        top_k: args.top_k.unwrap_or(usual.top_k),
        top_p: args.top_p.unwrap_or(usual.top_p),
        min_p: args.min_p.unwrap_or(usual.min_p),
        repeat_penalty: args.repeat_penalty.unwrap_or(usual.repeat_penalty),
        presence_penalty: args.presence_penalty.unwrap_or(usual.presence_penalty),
        frequency_penalty: args.frequency_penalty.unwrap_or(usual.frequency_penalty),
        seed: args.seed.or(usual.seed),
        ..usual.clone()
    };
    sampling.validate()?;
    Ok(sampling)
}

/// What each turn asks for, with all limits and an empty prompt; checked but for the prompt.
pub(super) fn template(args: &Run) -> Result<Request, Failure> {
    let answer = &args.answer;
    let thinks = answer.think || answer.no_think || answer.effort.is_some();
    let request = Request {
        sampling: sampling(&args.sampling, &args.usual)?,
        max_tokens: args.sampling.max_tokens.map(Tokens),
        stop: args.sampling.stop.clone(),
        logprobs: args.logprobs,
        prompt_logprobs: args.prompt_logprobs,
        ignore_eog: args.sampling.ignore_end,
        thinking: thinks.then_some(!answer.no_think),
        effort: answer.effort,
        constraint: rule::constraint(answer)?,
        overflow: match answer.overflow {
            args::Overflow::Error => Overflow::Error,
            args::Overflow::DropOldest => Overflow::DropOldest,
            args::Overflow::Compact => Overflow::Compact,
        },
        speculation: match answer.speculation {
            args::Speculation::Auto => Speculation::Auto,
            args::Speculation::Always => Speculation::Always,
            args::Speculation::Off => Speculation::Off,
        },
        cache: !args.cache.no_cache,
        deterministic: args.deterministic,
        ..Request::new(Prompt::Text("".into()))
    };
    request.validate()?;
    Ok(request)
}

/// What was kept of a prompt, and why no more; empty where nothing was and nothing is known.
fn cached(usage: &Usage, miss: Option<Miss>) -> String {
    let kept = match usage.cached_tokens {
        Tokens(0) => String::new(),
        tokens => format!(", {} of them kept from before", tokens.0),
    };
    let why = match miss {
        None => String::new(),
        Some(Miss { position: Tokens(0), reason }) => format!("; {}", reason.as_str()),
        Some(Miss { position, reason }) => {
            format!("; {} from token {} on", reason.as_str(), position.0)
        }
    };
    kept + &why
}

/// How well tokens were guessed ahead; empty where none were.
fn guessed(usage: &Usage) -> String {
    let by_model = match (usage.model_drafted_tokens, usage.model_accepted_tokens) {
        (Tokens(0), _) => String::new(),
        (drafted, accepted) => format!(", {} of {} of the draft model's", accepted.0, drafted.0),
    };
    match (usage.drafted_tokens, usage.accepted_tokens) {
        (Tokens(0), _) => String::new(),
        (drafted, accepted) => format!(", {} of {} guesses right{by_model}", accepted.0, drafted.0),
    }
}

/// What was measured, for people. Every figure is of this answer on this machine.
pub(super) fn figures(model: &Model, local: &LocalModel, answer: &Answer) -> String {
    let (build, loaded, finished) = (local.build(), local.loaded(), &answer.finished);
    let figures = Figures::new(answer, loaded.load_time);
    let rate = |rate: Option<f64>| {
        rate.map_or_else(|| "not measured".to_owned(), |r| format!("{r:.1} tokens/s"))
    };
    let cached = cached(&finished.usage, answer.started.as_ref().and_then(|start| start.miss));
    let guessed = guessed(&finished.usage);
    [
        String::new(),
        format!("load     {:.0} ms", figures.load_ms),
        format!(
            "first    {} after the request",
            figures.ttft_ms.map_or_else(|| "no token".to_owned(), |ms| format!("token {ms:.0} ms"))
        ),
        format!("prefill  {}, {}{cached}", rate(figures.prefill_tps), finished.usage.prompt_tokens),
        format!(
            "decode   {}, {}{guessed}",
            rate(figures.decode_tps),
            finished.usage.completion_tokens
        ),
        format!(
            "memory   {} at most",
            finished.peak_memory.map_or_else(|| "unknown".to_owned(), |peak| peak.to_string())
        ),
        format!("context  {}, seed {}, {} threads", loaded.context, finished.seed, loaded.threads),
        format!("kernels  {} (llama.cpp {})", build.kernels.join(" "), build.llama_cpp),
        format!("chosen   {}", chosen(&loaded.kernel_choices)),
        format!("model    {}, {}", model.name, model.digest),
        format!("source   {}", model.source),
    ]
    .join("\n")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;
    use tieline_types::{Effort, MissReason};

    use super::*;
    use crate::args::{Args, Command};

    #[test]
    fn what_was_kept_is_told_with_the_reason_for_the_rest() {
        let usage = |tokens| Usage { cached_tokens: Tokens(tokens), ..Usage::default() };
        let miss = |position, reason| Some(Miss { position: Tokens(position), reason });
        assert_eq!(cached(&usage(0), None), "");
        assert_eq!(cached(&usage(9), None), ", 9 of them kept from before");
        assert_eq!(cached(&usage(0), miss(0, MissReason::Cold)), "; nothing was cached");
        assert_eq!(
            cached(&usage(9), miss(9, MissReason::Differs)),
            ", 9 of them kept from before; the text differs from token 9 on"
        );
    }

    #[test]
    fn an_effort_is_asked_for_and_has_the_model_think() {
        let asked = |flags: &[&str]| {
            let args = Args::try_parse_from(["tieline", "run", "m", "Hi"].iter().chain(flags));
            args.map(|args| match args.command {
                Command::Run(args) => {
                    let request = template(&args).unwrap();
                    (request.thinking, request.effort)
                }
                other => panic!("{other:?}"),
            })
            .map_err(|error| error.kind())
        };
        assert_eq!(asked(&[]), Ok((None, None)));
        assert_eq!(asked(&["--no-think"]), Ok((Some(false), None)));
        assert_eq!(asked(&["--effort", "low"]), Ok((Some(true), Some(Effort::Low))));
        assert_eq!(asked(&["--effort", "xhigh"]), Ok((Some(true), Some(Effort::XHigh))));
        assert_eq!(asked(&["--effort", "most"]), Err(ErrorKind::InvalidValue));
        for other in ["--no-think", "--raw"] {
            assert_eq!(asked(&["--effort", "low", other]), Err(ErrorKind::ArgumentConflict));
        }
    }

    #[test]
    fn guesses_are_counted() {
        let usage = |drafted, accepted| Usage {
            drafted_tokens: Tokens(drafted),
            accepted_tokens: Tokens(accepted),
            ..Usage::default()
        };
        assert_eq!(guessed(&usage(0, 0)), "");
        assert_eq!(guessed(&usage(6, 5)), ", 5 of 6 guesses right");
        let usage = Usage {
            model_drafted_tokens: Tokens(4),
            model_accepted_tokens: Tokens(3),
            ..usage(6, 5)
        };
        assert_eq!(guessed(&usage), ", 5 of 6 guesses right, 3 of 4 of the draft model's");
    }
}
