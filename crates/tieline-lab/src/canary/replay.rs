//! One start of one build: loads the model, reads the prompts for their probabilities, times them.

use tieline_engine::{EngineConfig, LocalModel};
use tieline_types::{
    BackendError, Message, Prompt, Request, Role, Sampling, Speculation, TokenLogprob,
};

use super::{CanaryPlan, CanaryPrompt, PromptReport, Start};
use crate::certify::divergence;
use crate::certify::listen::{self, Heard};

/// A prompt's probabilities and its answer, by one build.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    /// Each token of the prompt but the first.
    pub(super) prompt: Vec<TokenLogprob>,
    answer: Vec<TokenLogprob>,
}

/// Speeds over all prompts, in tokens per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Timed {
    pub(super) prefill_tps: f64,
    pub(super) decode_tps: f64,
}

impl Reading {
    /// How another build's reading differs; `None` where it read other tokens.
    #[expect(clippy::cast_precision_loss, reason = "some thousand places")]
    pub(super) fn beside(&self, other: &Self, name: &str) -> Option<PromptReport> {
        let tokens =
            |list: &[TokenLogprob]| list.iter().map(|entry| entry.token).collect::<Vec<_>>();
        if tokens(&self.prompt) != tokens(&other.prompt) {
            return None;
        }
        let (ours, theirs) = (tokens(&self.answer), tokens(&other.answer));
        // The first token that differs was still chosen after the same text.
        let parting = ours.iter().zip(&theirs).position(|(ours, theirs)| ours != theirs);
        let alike = parting.map_or(usize::MAX, |at| at + 1);
        let pairs = self.prompt.iter().zip(&other.prompt);
        let pairs = pairs.chain(self.answer.iter().zip(&other.answer).take(alike));
        let kl: Vec<f64> = pairs.map(|(ours, theirs)| between(ours, theirs)).collect();
        Some(PromptReport {
            name: name.to_owned(),
            kl_nats: kl.iter().sum::<f64>() / kl.len() as f64,
            kl_worst: kl.iter().copied().fold(0.0, f64::max),
            places: kl.len(),
            same_text: ours == theirs,
        })
    }
}

fn between(ours: &TokenLogprob, theirs: &TokenLogprob) -> f64 {
    divergence(&ours.alternatives, &theirs.alternatives)
}

/// Starts a build once. Probabilities are compared only where they are `read`.
pub(super) async fn start(
    plan: &CanaryPlan,
    config: &EngineConfig,
    read: bool,
) -> Result<(Start, Vec<Reading>), BackendError> {
    let (name, file, params) = (plan.name.clone(), plan.file.clone(), plan.params.clone());
    let model = LocalModel::start(config.clone(), name, file, params, |_| {}).await?;
    let done = replay(plan, &model, read).await;
    let load_s = model.loaded().load_time.as_secs_f64();
    model.shutdown().await;
    let (timed, memory_bytes, readings) = done?;
    Ok((Start { load_s, memory_bytes, timed }, readings))
}

async fn replay(
    plan: &CanaryPlan,
    model: &LocalModel,
    read: bool,
) -> Result<(Timed, f64, Vec<Reading>), BackendError> {
    // The first faults in the weights and builds the graphs.
    listen::one(model, request(&plan.prompts[0], plan)).await?;
    let mut heard = Vec::new();
    for prompt in &plan.prompts {
        heard.push(listen::one(model, request(prompt, plan)).await?);
    }
    let timed = timed(&heard);
    // Before probabilities are asked for: they take memory of their own.
    let memory = heard.last().and_then(|heard| heard.finished.peak_memory);
    let mut readings = Vec::new();
    for prompt in plan.prompts.iter().filter(|_| read) {
        let request = Request {
            logprobs: Some(Request::MAX_LOGPROBS),
            prompt_logprobs: Some(Request::MAX_LOGPROBS),
            ..request(prompt, plan)
        };
        let Heard { prompt, tokens, .. } = listen::one(model, request).await?;
        readings.push(Reading { prompt, answer: tokens });
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    let memory = memory.map_or(0.0, |bytes| bytes.0 as f64);
    Ok((timed, memory, readings))
}

/// Greedy, from nothing, without guesses, and of fixed length: what is compared is computing.
fn request(prompt: &CanaryPrompt, plan: &CanaryPlan) -> Request {
    let text = prompt.text.clone();
    let read = match prompt.chat {
        true => Prompt::Chat(vec![Message::new(Role::User, text)]),
        false => Prompt::Text(text.into()),
    };
    Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(plan.tokens),
        ignore_eog: true,
        cache: false,
        speculation: Speculation::Off,
        ..Request::new(read)
    }
}

fn timed(heard: &[Heard]) -> Timed {
    let ends = || heard.iter().map(|heard| &heard.finished);
    let rate = |tokens: u32, seconds: f64| {
        if seconds > 0.0 { f64::from(tokens) / seconds } else { 0.0 }
    };
    let prompt = ends().map(|end| end.usage.prompt_tokens.0).sum();
    let decoded = ends().map(|end| end.usage.completion_tokens.0.saturating_sub(1)).sum();
    Timed {
        prefill_tps: rate(prompt, ends().map(|end| end.timing.prefill.as_secs_f64()).sum()),
        decode_tps: rate(decoded, ends().map(|end| end.timing.decode.as_secs_f64()).sum()),
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::Alternative;

    use super::*;

    fn tokens(list: &[(u32, f32)]) -> Vec<TokenLogprob> {
        let entry = |&(token, p): &(u32, f32)| TokenLogprob {
            token,
            bytes: Vec::new(),
            logprob: p.ln(),
            alternatives: vec![Alternative { token, bytes: Vec::new(), logprob: p.ln() }],
        };
        list.iter().map(entry).collect()
    }

    #[test]
    fn places_after_the_answers_part_do_not_count() {
        let one = Reading { prompt: tokens(&[(1, 0.5)]), answer: tokens(&[(2, 0.5), (3, 0.5)]) };
        let same = one.beside(&one.clone(), "a").unwrap();
        assert!(same.same_text && same.places == 3 && same.kl_nats < 1e-9, "{same:?}");
        let moved = Reading { prompt: tokens(&[(1, 0.25)]), ..one.clone() };
        let want = 0.5 * (0.5_f64 / 0.25).ln() + 0.5 * (0.5_f64 / 0.75).ln();
        let found = one.beside(&moved, "a").unwrap();
        assert!(found.same_text && (found.kl_nats - want / 3.0).abs() < 1e-6, "{found:?}");
        assert!((found.kl_worst - want).abs() < 1e-6);
        let parted = Reading { answer: tokens(&[(9, 0.5), (3, 0.1)]), ..one.clone() };
        let found = one.beside(&parted, "a").unwrap();
        assert!(!found.same_text && found.places == 2, "{found:?}");
        let other = Reading { prompt: tokens(&[(7, 0.5)]), ..one.clone() };
        assert_eq!(one.beside(&other, "a"), None);
    }
}
