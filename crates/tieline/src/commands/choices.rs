//! Several answers to one prompt: `tieline run --n` and `--best-of`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::time::Instant;

use futures_core::Stream;
use serde::Serialize;
use tieline_store::Model;
use tieline_types::{
    Bytes, ChoiceEvent, ChoicePlan, Choices, Digest, Event, FinishReason, Request, TokenLogprob,
    Tokens, Usage,
};

use crate::answer::{Answer, Figures, Heard, Shown};
use crate::app::{App, Loaded};
use crate::args;
use crate::failure::Failure;
use crate::screen::Screen;

/// Several answers with all that they depend on, for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    source: &'a str,
    choices: Vec<Choice<'a>>,
    /// Answers made, of which those above are the best.
    candidates: u32,
    warnings: &'a [String],
    /// Of all candidates together; the prompt counts once.
    usage: Usage,
    context_tokens: Tokens,
    threads: u32,
    llama_cpp: &'a str,
    kernels: &'a [String],
}

/// One of them.
#[derive(Serialize)]
struct Choice<'a> {
    index: u32,
    answer: &'a str,
    reasoning: Option<&'a str>,
    warnings: &'a [String],
    /// This and what follows: `None` for one that failed.
    finish_reason: Option<&'a FinishReason>,
    usage: Option<Usage>,
    timing: Option<Figures>,
    seed: Option<u32>,
    peak_memory_bytes: Option<Bytes>,
    /// Where the best were asked for: what they were chosen by.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_logprob: Option<f64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    prompt_logprobs: &'a [TokenLogprob],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    logprobs: &'a [TokenLogprob],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// One answer, whole or failed.
type Outcome = Result<Answer, Failure>;

/// How many answers the user wants; `None` for one, as usual.
pub(super) fn plan(args: &args::Choices, request: &Request) -> Result<Option<ChoicePlan>, Failure> {
    if args.n.is_none() && args.best_of.is_none() {
        return Ok(None);
    }
    let plan = ChoicePlan { n: args.n.unwrap_or(1), best_of: args.best_of };
    plan.validate(request.max_tokens)?;
    Ok(Some(plan))
}

pub(super) fn several(
    app: &App,
    model: &Model,
    loaded: &Loaded,
    request: Request,
    (plan, stats): (ChoicePlan, bool),
) -> Result<(), Failure> {
    request.validate()?;
    let output = app.output;
    let mut warnings = Vec::new();
    if request.sampling.temperature == 0.0 && plan.candidates() > 1 {
        let text = "all answers will be the same: each takes the likeliest tokens (--temperature)";
        output.warn(text);
        warnings.push(text.to_owned());
    }
    let (outcomes, choices) = app.block_on(async {
        let asked = Instant::now();
        let choices = tieline_types::choices(&loaded.model, request, plan).await?;
        Listener { choices, asked, plan, shown: Ordered::new(app, plan.n) }.listen().await
    })?;
    if output.is_json() {
        report(app, (model, loaded), (&outcomes, &choices), (plan, &warnings))?;
    } else if stats {
        outcomes.iter().enumerate().for_each(|(at, one)| output.talk(&line(at, one, loaded)));
    }
    let interrupted = |one: &Outcome| one.as_ref().is_ok_and(Answer::is_cut_short);
    if outcomes.iter().any(interrupted) {
        return Err(Failure::interrupted("interrupted"));
    }
    outcomes.into_iter().try_for_each(|one| one.map(drop))
}

/// What was measured of one answer, for people.
fn line(at: usize, outcome: &Outcome, loaded: &Loaded) -> String {
    let number = at + 1;
    match outcome {
        Ok(answer) if !answer.is_cut_short() => {
            let usage = &answer.finished.usage;
            let figures = Figures::new(answer, loaded.model.loaded().load_time);
            let decode = figures.decode_tps.map_or_else(String::new, |r| format!(", {r} tokens/s"));
            format!(
                "answer {number}: {}{decode}, {} of {} of prompt kept from before, seed {}",
                usage.completion_tokens,
                usage.cached_tokens.0,
                usage.prompt_tokens,
                answer.finished.seed
            )
        }
        _ => format!("answer {number}: not whole"),
    }
}

struct Listener<'a> {
    choices: Choices,
    asked: Instant,
    plan: ChoicePlan,
    shown: Ordered<'a>,
}

impl Listener<'_> {
    /// Hears all to their ends, or to Ctrl-C, which ends all.
    async fn listen(mut self) -> Result<(Vec<Outcome>, Choices), Failure> {
        let mut heard: Vec<Heard> = (0..self.plan.n).map(|_| Heard::default()).collect();
        let mut ends: Vec<Option<Outcome>> = (0..self.plan.n).map(|_| None).collect();
        let mut interrupt = pin!(tokio::signal::ctrl_c());
        loop {
            let step = tokio::select! {
                biased;
                _ = &mut interrupt => break,
                step = next(&mut self.choices) => step,
            };
            let Some(ChoiceEvent { index, event }) = step else { break };
            let at = usize::try_from(index).unwrap_or(usize::MAX);
            let (Some(one), Some(end)) = (heard.get_mut(at), ends.get_mut(at)) else { continue };
            match event {
                Ok(Event::Finished(finished)) => {
                    *end = Some(Ok(std::mem::take(one).answer(*finished)));
                }
                Ok(event) => {
                    let shown = &mut self.shown;
                    one.hear(event, self.asked, &mut |step| shown.show(at, step))?;
                }
                Err(error) => *end = Some(Err(error.into())),
            }
            self.shown.go_on(&heard, &ends)?;
        }
        let outcomes = ends.into_iter().zip(heard);
        let outcomes = outcomes.map(|(end, heard)| end.unwrap_or_else(|| Ok(heard.cut_short())));
        Ok((outcomes.collect(), self.choices))
    }
}

async fn next(choices: &mut Choices) -> Option<ChoiceEvent> {
    poll_fn(|context| Pin::new(&mut *choices).poll_next(context)).await
}

/// Shows answers one after another, though they come side by side: the first that is not over as it comes,
/// those after it when it is their turn.
struct Ordered<'a> {
    app: &'a App,
    screen: Screen,
    count: usize,
    /// Whose turn it is.
    current: usize,
    begun: bool,
}

impl<'a> Ordered<'a> {
    fn new(app: &'a App, count: u32) -> Self {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        Self { app, screen: Screen::new(app.output), count, current: 0, begun: false }
    }

    fn show(&mut self, at: usize, shown: Shown<'_>) -> Result<(), Failure> {
        match shown {
            Shown::Warning(text) => self.app.output.warn(&format!("answer {}: {text}", at + 1)),
            // What is told of the prompt is the same of all.
            Shown::Started(_) if at > 0 => {}
            Shown::Started(_) => self.screen.show(shown)?,
            shown if at == self.current && self.current < self.count => {
                self.begin("")?;
                self.screen.show(shown)?;
            }
            _ => {}
        }
        Ok(())
    }

    /// The line above an answer, and what of it came before its turn.
    fn begin(&mut self, before: &str) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.begun, true) && !self.app.output.is_json() {
            if self.count > 1 {
                let title = format!("--- answer {} of {} ---", self.current + 1, self.count);
                self.app.output.line(&title)?;
            }
            self.screen.show(Shown::Text(before))?;
        }
        Ok(())
    }

    /// Goes on to the next answer where the current one is over.
    fn go_on(&mut self, heard: &[Heard], ends: &[Option<Outcome>]) -> Result<(), Failure> {
        while let Some(Some(end)) = ends.get(self.current) {
            let json = self.app.output.is_json();
            let text = end.as_ref().map_or("", |answer| answer.text.as_str());
            self.begin(text)?;
            self.screen = Screen::new(self.app.output);
            if let Err(failure) = end {
                let problem = format!("answer {}: {}", self.current + 1, failure.message);
                self.app.output.warn(&problem);
            }
            if !json && !text.ends_with('\n') {
                self.app.output.line("")?;
            }
            (self.current, self.begun) = (self.current + 1, false);
            let next = heard.get(self.current).map_or("", Heard::text);
            if !next.is_empty() {
                self.begin(next)?;
            }
        }
        Ok(())
    }
}

fn report(
    app: &App,
    (model, loaded): (&Model, &Loaded),
    (outcomes, choices): (&[Outcome], &Choices),
    (plan, warnings): (ChoicePlan, &[String]),
) -> Result<(), Failure> {
    let (build, local) = (loaded.model.build(), loaded.model.loaded());
    let each = (0..).zip(outcomes);
    let each = each.map(|(index, one)| choice(index, one, choices.score(index), loaded));
    app.output.value(&Report {
        model: &model.name,
        digest: model.digest,
        source: &model.source,
        choices: each.collect(),
        candidates: plan.candidates(),
        warnings,
        usage: choices.usage(),
        context_tokens: local.context,
        threads: local.threads,
        llama_cpp: &build.llama_cpp,
        kernels: &build.kernels,
    })
}

fn choice<'a>(index: u32, outcome: &'a Outcome, score: Option<f64>, loaded: &Loaded) -> Choice<'a> {
    let answer = outcome.as_ref().ok();
    let whole = answer.filter(|answer| !answer.is_cut_short());
    Choice {
        index,
        answer: answer.map_or("", |answer| &answer.text),
        reasoning: answer.map(|answer| answer.reasoning.as_str()).filter(|text| !text.is_empty()),
        warnings: answer.map_or(&[], |answer| &answer.warnings),
        finish_reason: answer.map(|answer| &answer.finished.reason),
        usage: whole.map(|answer| answer.finished.usage),
        timing: whole.map(|answer| Figures::new(answer, loaded.model.loaded().load_time)),
        seed: whole.map(|answer| answer.finished.seed),
        peak_memory_bytes: whole.and_then(|answer| answer.finished.peak_memory),
        mean_logprob: score,
        prompt_logprobs: answer.map_or(&[], |answer| &answer.prompt_logprobs),
        logprobs: answer.map_or(&[], |answer| &answer.logprobs),
        error: outcome.as_ref().err().map(|failure| failure.message.as_str()),
    }
}
