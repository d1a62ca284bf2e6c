//! `tieline replay`: makes an answer again and compares all that came out.

use serde::Serialize;
use tieline_engine::Inspected;
use tieline_store::Model;
use tieline_types::{
    Adapter, AdapterFile, Adapters, Digest, Hint, LoadParams, ModelRef, Receipt, Request,
    RunnerBuild, Tokens,
};

use super::receipt;
use crate::answer;
use crate::app::App;
use crate::args::Replay;
use crate::failure::Failure;

/// What came out, for programs.
#[derive(Debug, Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    same: bool,
    #[serde(flatten)]
    comparison: &'a Comparison,
    /// What the runner is built otherwise; empty without `--anyway`.
    build_differences: &'a [String],
}

/// How one list parts from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Difference {
    /// Counted from 0.
    position: usize,
    /// What the receipt has there; `None` past its end.
    receipt: Option<u32>,
    /// What came now.
    now: Option<u32>,
}

/// A receipt beside that of its replay.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Comparison {
    answer_tokens: usize,
    batches: usize,
    first_token: Option<Difference>,
    first_batch: Option<Difference>,
    same_logits: bool,
    logits: Digest,
}

pub(super) fn replay(app: &App, args: &Replay) -> Result<(), Failure> {
    let receipt = receipt::read(&args.receipt)?;
    if receipt.answer.is_empty() {
        return Err(Failure::user("the receipt has no answer: there is nothing to make again"));
    }
    let model = model(app, &receipt)?;
    let adapters = adapters(app, &receipt)?;
    let config = app.engine()?;
    let Inspected { build, .. } =
        app.block_on(tieline_engine::inspect_with(&config)).map_err(|error| {
            let hint =
                error.hint().unwrap_or_else(|| "build the runner again: make runner".to_owned());
            Failure::ours(error.to_string()).with_hint(hint)
        })?;
    let differences = build_differences(&receipt.build, &as_loaded(&build, &receipt.params));
    if !differences.is_empty() && !args.anyway {
        let problem = format!("this runner is not the receipt's: {}", differences.join("; "));
        let hint = "replay with that runner (--runner), or see with --anyway what comes out";
        return Err(Failure::user(problem).with_hint(hint));
    }
    // A runner without a GPU refuses layers, which older ones took and left where they were.
    let gpu_layers = receipt.params.gpu_layers.filter(|_| build.has_gpu());
    let params = LoadParams { gpu_layers, ..receipt.params.clone() };
    let again = again(app, (&model, params), &receipt, adapters)?;
    let comparison = compare(&receipt, &again);
    print(app, &model, &comparison, &differences)?;
    if comparison.is_same() {
        return Ok(());
    }
    Err(Failure::user("the answer is not the receipt's"))
}

/// The model of the receipt, where it is here.
fn model(app: &App, receipt: &Receipt) -> Result<Model, Failure> {
    let Some(digest) = receipt.model else {
        return Err(Failure::user("the receipt names no model"));
    };
    if let Some(model) = app.store.find(&ModelRef::Digest(digest))? {
        return Ok(model);
    }
    let failure = Failure::user(format!("the receipt's model, {digest}, is not here"));
    Err(match app.catalogue.by_digest(digest) {
        Some(entry) => failure.with_hint(format!("tieline pull {}", entry.name)),
        None => failure.with_hint(format!("tieline pull MODEL --digest {digest}")),
    })
}

/// The receipt's adapters with their files, where they are here.
fn adapters(app: &App, receipt: &Receipt) -> Result<Adapters, Failure> {
    let one = |adapter: &Adapter| {
        let digest = adapter.digest;
        let Some(model) = app.store.find(&ModelRef::Digest(digest))? else {
            return Err(Failure::user(format!("the receipt's adapter, {digest}, is not here"))
                .with_hint(format!("tieline pull ADAPTER --digest {digest}")));
        };
        let file = AdapterFile { path: app.store.open_model(&model)?.path, bytes: model.size };
        Ok(Adapter { file: Some(file), ..adapter.clone() })
    };
    let all = receipt.adapters.iter().map(one).collect::<Result<Vec<_>, Failure>>()?;
    Adapters::new(all).map_err(|error| Failure::user(format!("the receipt is damaged: {error}")))
}

/// A build as it is once it loaded a model so: without kernels of our own where it was to use ggml's.
fn as_loaded(build: &RunnerBuild, params: &LoadParams) -> RunnerBuild {
    let mut build = build.clone();
    build.kernels.retain(|kernel| params.own_kernels || !kernel.starts_with("TIELINE-"));
    build
}

/// What the two are made of otherwise, in words.
fn build_differences(receipt: &RunnerBuild, here: &RunnerBuild) -> Vec<String> {
    let fields = [
        ("version", receipt.version.clone(), here.version.clone()),
        ("llama.cpp", receipt.llama_cpp.clone(), here.llama_cpp.clone()),
        ("kernels", receipt.kernels.join(" "), here.kernels.join(" ")),
        ("devices", receipt.devices.join(" "), here.devices.join(" ")),
    ];
    let differing = fields.into_iter().filter(|(_, receipt, here)| receipt != here);
    differing
        .map(|(name, receipt, here)| format!("{name} {here} here, {receipt} in the receipt"))
        .collect()
}

fn again(
    app: &App,
    (model, params): (&Model, LoadParams),
    receipt: &Receipt,
    adapters: Adapters,
) -> Result<Receipt, Failure> {
    let loaded = app.load(model, (params, None), None)?;
    let mut screen = crate::screen::Screen::new(app.output);
    let request = Request { adapters, ..receipt.request() };
    let answer = answer::ask(app, &loaded, request, |shown| match shown {
        // The answer itself is known.
        answer::Shown::Text(_) | answer::Shown::Reasoning(_) => Ok(()),
        shown => screen.show(shown),
    });
    loaded.end(app);
    let answer = answer?;
    if answer.is_cut_short() {
        return Err(Failure::interrupted("interrupted"));
    }
    let receipt = answer.finished.receipt.map(|receipt| *receipt);
    receipt.ok_or_else(|| Failure::ours("the runner gave no receipt"))
}

fn compare(receipt: &Receipt, now: &Receipt) -> Comparison {
    Comparison {
        answer_tokens: now.answer.len(),
        batches: now.batches.len(),
        first_token: first_difference(&receipt.answer, &now.answer),
        first_batch: first_difference(&receipt.batches, &now.batches),
        same_logits: receipt.logits == now.logits,
        logits: now.logits,
    }
}

fn first_difference(receipt: &[u32], now: &[u32]) -> Option<Difference> {
    let longest = receipt.len().max(now.len());
    let at = |position: usize| Difference {
        position,
        receipt: receipt.get(position).copied(),
        now: now.get(position).copied(),
    };
    (0..longest).map(at).find(|difference| difference.receipt != difference.now)
}

impl Comparison {
    fn is_same(&self) -> bool {
        self.first_token.is_none() && self.first_batch.is_none() && self.same_logits
    }

    /// What is the same, or all that is not, a line each.
    fn text(&self) -> String {
        if self.is_same() {
            let Self { answer_tokens, batches, logits, .. } = self;
            return format!(
                "same: {}, {batches} batches, logits {logits}",
                Tokens(u32::try_from(*answer_tokens).unwrap_or(u32::MAX))
            );
        }
        let part = |what: &str, difference: Option<Difference>| {
            difference.map(|Difference { position, receipt, now }| {
                let shown = |number: Option<u32>| {
                    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
                };
                let (receipt, now) = (shown(receipt), shown(now));
                format!("differs: {what} {position} is {now}, {receipt} in the receipt")
            })
        };
        let logits =
            (!self.same_logits).then(|| format!("differs: the logits, now {}", self.logits));
        let token = part("token", self.first_token);
        let batch = part("the size of batch", self.first_batch);
        [token, batch, logits].into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

fn print(
    app: &App,
    model: &Model,
    comparison: &Comparison,
    build_differences: &[String],
) -> Result<(), Failure> {
    if app.output.is_json() {
        return app.output.value(&Report {
            model: &model.name,
            digest: model.digest,
            same: comparison.is_same(),
            comparison,
            build_differences,
        });
    }
    for difference in build_differences {
        app.output.warn(&format!("the runner differs: {difference}"));
    }
    app.output.line(&comparison.text())
}

#[cfg(test)]
mod tests {
    use tieline_types::{Sampling, ToolChoice};

    use super::*;

    #[test]
    fn a_receipt_of_ggmls_kernels_is_compared_without_ours() {
        let build = |kernels: &[&str]| {
            let kernels = kernels.iter().map(|kernel| (*kernel).to_owned()).collect();
            RunnerBuild { kernels, ..RunnerBuild::default() }
        };
        let here = || build(&["AVX2", "TIELINE-AVX2"]);
        let ggml = LoadParams { own_kernels: false, ..LoadParams::default() };
        let theirs = build(&["AVX2"]);
        assert!(build_differences(&theirs, &as_loaded(&here(), &ggml)).is_empty());
        let ours = LoadParams { own_kernels: true, ..LoadParams::default() };
        assert_eq!(build_differences(&theirs, &as_loaded(&here(), &ours)).len(), 1);
    }

    fn receipt() -> Receipt {
        Receipt {
            model: None,
            adapters: Adapters::default(),
            build: RunnerBuild::default(),
            params: LoadParams::default(),
            batches: vec![3, 1],
            sampling: Sampling::greedy(),
            constraint: None,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            thinking: None,
            chat: false,
            prompt: vec![1, 2, 3],
            answer: vec![4, 5],
            logits: Digest([0; 32]),
        }
    }

    #[test]
    fn the_same_is_the_same() {
        let comparison = compare(&receipt(), &receipt());
        assert!(comparison.is_same());
        assert!(comparison.text().starts_with("same: 2 tokens, 2 batches, logits sha256:0000"));
    }

    #[test]
    fn each_difference_has_its_line() {
        let now = Receipt {
            batches: vec![2, 1, 1],
            answer: vec![4],
            logits: Digest([1; 32]),
            ..receipt()
        };
        let comparison = compare(&receipt(), &now);
        assert!(!comparison.is_same());
        let text = comparison.text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "differs: token 1 is none, 5 in the receipt");
        assert_eq!(lines[1], "differs: the size of batch 0 is 2, 3 in the receipt");
        assert!(lines[2].starts_with("differs: the logits, now sha256:0101"));
    }

    #[test]
    fn logits_alone_count() {
        let now = Receipt { logits: Digest([1; 32]), ..receipt() };
        assert!(!compare(&receipt(), &now).is_same());
    }

    #[test]
    fn builds_are_compared_field_by_field() {
        let build = RunnerBuild { version: "1".to_owned(), ..RunnerBuild::default() };
        let other = RunnerBuild { kernels: vec!["AVX2".to_owned()], ..build.clone() };
        assert_eq!(build_differences(&build, &build), [""; 0]);
        assert_eq!(build_differences(&build, &other), ["kernels AVX2 here,  in the receipt"]);
    }
}
