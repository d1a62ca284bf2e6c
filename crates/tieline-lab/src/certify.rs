//! Finds out what changes a model's answers on this machine.
//!
//! One deterministic greedy answer is the baseline. Then the model is loaded, or asked, under one
//! variation after another, and each answer is compared with the baseline: logits bit by bit where the
//! variation can run deterministically, tokens, and how far the probabilities moved. Nothing is promised
//! by it beyond this machine, this build, this model and this text.

mod compare;
mod kv_cost;
pub(crate) mod listen;

use serde::Serialize;
use tieline_engine::{EngineConfig, LocalModel};
use tieline_types::{
    BackendError, Digest, ErrorKind, FlashAttention, KvType, LoadParams, ModelFile, Prompt,
    Request, RunnerBuild, Sampling, Speculation, Tokens,
};

pub use compare::Difference;
use compare::difference;
pub(crate) use compare::divergence;
pub use kv_cost::{KvCost, KvCostPlan, KvCostRow, kv_cost};
use listen::Heard;

/// The context of the baseline: room for the text and the longest answer.
const CONTEXT: u32 = 1024;

/// What the model goes on from. Written for this purpose; about a hundred tokens.
const TEXT: &str = "The harbour lies at the end of a long valley, where the river slows down and turns to \
    the sea. In the morning the fishing boats come in, one after another, and the women on the quay count \
    the baskets and call out the prices. An old man sits on a coil of rope and mends a net. He has seen \
    the great storm, the year without fish, and the day when the first steamer came round the headland. \
    When children ask him about it he puts down his needle, looks out over the water, and says:";

/// What others ask meanwhile.
const COMPANIONS: [&str; 3] = [
    "A recipe for bread with nothing but flour, water, salt and time begins like this:",
    "There are three reasons why the railway was built along the coast and not through the hills. First,",
    "Dear Madam, I write to you about the clock that you left with me for repair last week. It",
];

/// What to certify.
#[derive(Clone, Debug)]
pub struct CertifyPlan {
    /// How runners are started.
    pub config: EngineConfig,
    /// The model's name, for messages.
    pub name: String,
    /// The model.
    pub file: ModelFile,
    /// Tokens to answer with under each variation.
    pub tokens: Tokens,
    /// Threads of the baseline; the variation of one thread is measured beside it.
    pub threads: u32,
}

/// What one variation did to the answer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What was varied.
    pub name: String,
    /// How the answer differs; `None` where the variation could not be measured.
    pub difference: Option<Difference>,
    /// Why it could not.
    pub error: Option<String>,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Certificate {
    /// The runner.
    pub build: RunnerBuild,
    /// How the model was loaded for the baseline.
    pub params: LoadParams,
    /// Length of the text.
    pub prompt_tokens: Tokens,
    /// Length of each answer.
    pub answer_tokens: Tokens,
    /// SHA-256 of the baseline's logits.
    pub logits: Digest,
    /// Each variation.
    pub rows: Vec<Row>,
}

impl Certificate {
    /// Names of the variations that changed nothing, of those that did, and of those not measured.
    pub fn verdict(&self) -> [Vec<&str>; 3] {
        let names = |want: Option<bool>| {
            let is_wanted =
                |row: &&Row| row.difference.as_ref().map(Difference::changes_nothing) == want;
            self.rows.iter().filter(is_wanted).map(|row| row.name.as_str()).collect()
        };
        [names(Some(true)), names(Some(false)), names(None)]
    }
}

/// How an answer is asked for under a variation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Deterministically.
    Fixed,
    /// Deterministically, after the same once before in the same process.
    FixedAgain,
    /// As usual, alone and from nothing.
    Usual,
    /// As usual, after the same once before, so that the prompt is cached.
    Cached,
    /// As usual, alone, in the sequence and the cells that others' prompts leave free.
    BesideIdle,
    /// As usual, with tokens guessed ahead wherever there is a guess.
    Guessing,
    /// As usual, with others in the same batches.
    InCompany,
}

/// A variation: its name, how the model is loaded and how it is asked.
#[derive(Clone, Debug)]
struct Variation {
    name: String,
    params: LoadParams,
    way: Way,
}

/// Runs `plan`, telling `progress` how many of how many runs are done.
///
/// # Errors
/// The baseline cannot be run. What goes wrong under a variation is in its row.
pub async fn certify(
    plan: &CertifyPlan,
    mut progress: impl FnMut(usize, usize) + Send,
) -> Result<Certificate, BackendError> {
    let params = baseline(plan);
    let variations = variations(&params);
    let total = variations.len() + 1;
    let model = load(plan, params.clone()).await?;
    let (build, answer) = (model.build().clone(), ask(&model, Way::Fixed, plan.tokens).await);
    model.shutdown().await;
    let answer = answer?;
    let no_receipt = || BackendError::new(ErrorKind::Internal, "the runner gave no receipt");
    let receipt = answer.finished.receipt.as_deref().ok_or_else(no_receipt)?;
    progress(1, total);
    let mut rows = Vec::new();
    for variation in variations {
        rows.push(row(plan, &answer, variation).await);
        progress(rows.len() + 1, total);
    }
    Ok(Certificate {
        build,
        params: receipt.params.clone(),
        prompt_tokens: answer.finished.usage.prompt_tokens,
        answer_tokens: answer.finished.usage.completion_tokens,
        logits: receipt.logits,
        rows,
    })
}

fn baseline(plan: &CertifyPlan) -> LoadParams {
    LoadParams {
        context: Some(Tokens(CONTEXT)),
        threads: Some(plan.threads),
        // The number of threads is one of the variations.
        adapt_threads: false,
        parallel: 1,
        ..LoadParams::default()
    }
}

/// Every variation, those that should change nothing first.
fn variations(base: &LoadParams) -> Vec<Variation> {
    let vary = |name: &str, way: Way, change: &dyn Fn(&mut LoadParams)| {
        let mut params = base.clone();
        change(&mut params);
        Variation { name: name.to_owned(), params, way }
    };
    let threads = if base.threads == Some(1) { 2 } else { 1 };
    let room_for_others = |params: &mut LoadParams| {
        let together = u32::try_from(COMPANIONS.len()).unwrap_or(0) + 1;
        params.parallel = together;
        params.kv_tokens = Some(Tokens(together * CONTEXT));
    };
    let mut variations = vec![
        vary("rerun", Way::FixedAgain, &|_| {}),
        vary("new process", Way::Fixed, &|_| {}),
        Variation {
            name: format!("threads {threads}"),
            params: LoadParams {
                threads: Some(threads),
                threads_batch: Some(threads),
                ..base.clone()
            },
            way: Way::Fixed,
        },
        vary("context 2048", Way::Fixed, &|params| params.context = Some(Tokens(2 * CONTEXT))),
    ];
    for ubatch in [128, 32, 8] {
        let params = LoadParams { ubatch: Tokens(ubatch), ..base.clone() };
        variations.push(Variation { name: format!("ubatch {ubatch}"), params, way: Way::Fixed });
    }
    variations.extend([
        vary("ggml's kernels", Way::Fixed, &|params| params.own_kernels = false),
        vary("flash attention on", Way::Fixed, &|p| p.flash_attention = FlashAttention::On),
        vary("flash attention off", Way::Fixed, &|p| p.flash_attention = FlashAttention::Off),
        vary("KV cache q8_0", Way::Fixed, &|p| (p.type_k, p.type_v) = (KvType::Q8_0, KvType::Q8_0)),
        vary("KV cache q4_0", Way::Fixed, &|p| (p.type_k, p.type_v) = (KvType::Q4_0, KvType::Q4_0)),
        vary("usual mode", Way::Usual, &|_| {}),
        vary("prefix reused", Way::Cached, &|_| {}),
        vary("guessing ahead", Way::Guessing, &|_| {}),
        vary("beside idle prompts", Way::BesideIdle, &room_for_others),
        vary("in company", Way::InCompany, &room_for_others),
    ]);
    variations
}

async fn load(plan: &CertifyPlan, params: LoadParams) -> Result<LocalModel, BackendError> {
    let (config, name, file) = (plan.config.clone(), plan.name.clone(), plan.file.clone());
    LocalModel::start(config, name, file, params, |_| {}).await
}

async fn row(plan: &CertifyPlan, baseline: &Heard, variation: Variation) -> Row {
    let Variation { name, params, way } = variation;
    let heard = match load(plan, params).await {
        Ok(model) => {
            let heard = ask(&model, way, plan.tokens).await;
            model.shutdown().await;
            heard
        }
        Err(error) => Err(error),
    };
    match heard.and_then(|heard| is_as_meant(heard, way)) {
        Ok(heard) => Row { name, difference: Some(difference(baseline, &heard)), error: None },
        Err(error) => Row { name, difference: None, error: Some(error.to_string()) },
    }
}

/// A cached answer of which nothing was cached says nothing about caches, nor does one without guesses about those.
fn is_as_meant(heard: Heard, way: Way) -> Result<Heard, BackendError> {
    let usage = &heard.finished.usage;
    let lacks = match way {
        Way::Cached if usage.cached_tokens == Tokens(0) => "nothing of the prompt was cached",
        Way::Guessing if usage.drafted_tokens == Tokens(0) => "nobody had a guess",
        _ => return Ok(heard),
    };
    Err(BackendError::new(ErrorKind::Internal, lacks))
}

async fn ask(model: &LocalModel, way: Way, tokens: Tokens) -> Result<Heard, BackendError> {
    let fixed = Request { deterministic: true, cache: false, ..request(TEXT, tokens) };
    let usual = request(TEXT, tokens);
    match way {
        Way::Fixed => listen::one(model, fixed).await,
        Way::FixedAgain => {
            listen::one(model, fixed.clone()).await?;
            listen::one(model, fixed).await
        }
        Way::Usual => listen::one(model, Request { cache: false, ..usual }).await,
        Way::Cached => {
            listen::one(model, usual.clone()).await?;
            listen::one(model, usual).await
        }
        Way::BesideIdle => {
            for text in COMPANIONS {
                listen::one(model, request(text, tokens)).await?;
            }
            listen::one(model, Request { cache: false, ..usual }).await
        }
        Way::Guessing => {
            let speculation = Speculation::Always;
            listen::one(model, Request { cache: false, speculation, ..usual }).await
        }
        Way::InCompany => {
            // The others come first, so that none of the answer is computed alone.
            let others = COMPANIONS.map(|text| Request { cache: false, ..request(text, tokens) });
            let usual = Request { cache: false, ..usual };
            listen::last(model, others.into_iter().chain([usual])).await
        }
    }
}

fn request(text: &str, tokens: Tokens) -> Request {
    Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(tokens),
        logprobs: Some(Request::MAX_LOGPROBS),
        ignore_eog: true,
        // Guesses are checked in batches of their own shape.
        speculation: Speculation::Off,
        ..Request::new(Prompt::Text(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> LoadParams {
        LoadParams { threads: Some(4), context: Some(Tokens(CONTEXT)), ..LoadParams::default() }
    }

    #[test]
    fn each_variation_varies_one_thing() {
        let variations = variations(&base());
        let mut names: Vec<&str> =
            variations.iter().map(|variation| variation.name.as_str()).collect();
        assert_eq!(names.len(), 17);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), 17, "each has a name of its own");
        for Variation { name, params, way } in &variations {
            let same_load = *params == base();
            let others = [Way::BesideIdle, Way::InCompany].contains(way);
            assert!(same_load != (*way == Way::Fixed && name != "new process") || others);
        }
    }

    #[test]
    fn one_thread_is_compared_with_two() {
        let threads = |base: LoadParams| variations(&base)[2].params.threads;
        assert_eq!(threads(base()), Some(1));
        assert_eq!(threads(LoadParams { threads: Some(1), ..base() }), Some(2));
    }

    #[test]
    fn a_verdict_names_each_variation_once() {
        let difference = |same| Difference {
            bitwise: Some(same),
            same_tokens: true,
            first_difference: None,
            same_logprobs: same,
            kl_nats: Some(0.0),
            max_change_nats: Some(0.0),
            positions: 1,
        };
        let row = |name: &str, difference: Option<Difference>| Row {
            name: name.to_owned(),
            error: difference.is_none().then(|| "no".to_owned()),
            difference,
        };
        let certificate = Certificate {
            build: RunnerBuild::default(),
            params: base(),
            prompt_tokens: Tokens(1),
            answer_tokens: Tokens(1),
            logits: Digest([0; 32]),
            rows: vec![
                row("a", Some(difference(true))),
                row("b", Some(difference(false))),
                row("c", None),
            ],
        };
        assert_eq!(certificate.verdict(), [["a"], ["b"], ["c"]]);
    }
}
