//! Our matrix kernels on real weights, beside ggml's.

use std::collections::HashMap;
use std::sync::LazyLock;

use tieline_types::{KernelChoice, LoadParams, Private, Prompt, Receipt, Request, Tokens};

use crate::peer::{Peer, going_on, some_tokens};

/// The likeliest tokens that are compared.
const LIKELIEST: u8 = Request::MAX_LOGPROBS;
/// Texts that are read, and letters of each: about 300 tokens.
const PASSAGES: usize = 5;
const LETTERS: usize = 1200;

/// The logarithms of the likeliest tokens' probabilities at one position.
pub(crate) type Position = HashMap<u32, f64>;

/// English in the length of a prompt.
fn passages() -> impl Iterator<Item = String> {
    let text = [include_str!("../../../../ARCHITECTURE.md"), include_str!("../../../../README.md")];
    let letters: Vec<char> = text.concat().chars().collect();
    let passages: Vec<String> = letters.chunks_exact(LETTERS).map(String::from_iter).collect();
    passages.into_iter().take(PASSAGES)
}

/// What the model expects at every position of the passages.
fn expected(peer: &mut Peer) -> Vec<Position> {
    let prompts = passages().map(|text| Prompt::Text(Private::from(text)));
    expected_after(peer, prompts)
}

/// What the model expects at every position of these prompts.
pub(crate) fn expected_after(
    peer: &mut Peer,
    prompts: impl Iterator<Item = Prompt>,
) -> Vec<Position> {
    let read = |prompt: Prompt| {
        let request = Request { prompt, prompt_logprobs: Some(LIKELIEST), ..going_on(vec![], 1) };
        peer.generate(request).scores
    };
    let scores = prompts.flat_map(read);
    let position = |score: tieline_types::TokenLogprob| -> Position {
        score.alternatives.iter().map(|one| (one.token, f64::from(one.logprob))).collect()
    };
    scores.map(position).filter(|position| !position.is_empty()).collect()
}

/// The Kullback-Leibler divergence of `other` from `reference` in nats, of the tokens that both list and, as one,
/// all the rest. Without the rest it would be mostly the sign of an error, and could be below nothing.
pub(crate) fn divergence(reference: &Position, other: &Position) -> f64 {
    let (mut sum, mut rest, mut others) = (0.0, 1.0, 1.0);
    for (token, log) in reference {
        if let Some(other) = other.get(token) {
            sum += log.exp() * (log - other);
            rest -= log.exp();
            others -= other.exp();
        }
    }
    if rest > 1e-6 && others > 1e-6 { sum + rest * (rest / others).ln() } else { sum }
}

/// The mean of some numbers, and its standard error.
pub(crate) fn mean(numbers: &[f64]) -> (f64, f64) {
    let count = f64::from(u32::try_from(numbers.len()).unwrap());
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    (mean, (squares / (count - 1.0) / count).sqrt())
}

/// What float weights expect there, computed once for all tests.
static FLOATS: LazyLock<Vec<Position>> = LazyLock::new(|| expected(&mut Peer::exact()));

/// Reads prompts in steps of `step` tokens.
fn quantised(own_kernels: bool, step: u32) -> (Peer, Vec<String>) {
    let mut peer = Peer::start(testkit::smollm2());
    let (context, ubatch) = (Some(Tokens(1024)), Tokens(step));
    let params = LoadParams { context, own_kernels, ubatch, ..LoadParams::default() };
    let loaded = peer.load(params).unwrap();
    (peer, loaded.kernels)
}

/// Both round activations to 8 bits, each its own way, and ours keep more of the scales: over some thousand
/// positions they must not be farther from float weights, by more than chance.
#[test]
fn they_are_as_near_to_float_weights_as_ggmls_own() {
    as_near_in_steps_of(512);
}

/// The kernel for few tokens.
#[test]
fn few_tokens_are_as_near_to_float_weights_as_ggmls_own() {
    as_near_in_steps_of(3);
}

/// The kernel for many within ggml's own graph, where rooms of rounded tokens are filled again and again.
#[test]
fn steps_that_cut_no_graph_are_as_near_to_float_weights_as_ggmls_own() {
    as_near_in_steps_of(9);
    as_near_in_steps_of(24);
}

#[track_caller]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "figures for people, of a test")]
fn as_near_in_steps_of(step: u32) {
    let (mut own, names) = quantised(true, step);
    if !names.iter().any(|name| name.starts_with("TIELINE-")) {
        eprintln!("skipped: this processor has none of the instructions that the kernels are for");
        return;
    }
    assert!(!names.iter().any(|name| name.starts_with("TIELINE-OFF")), "{names:?}");
    let reference = &*FLOATS;
    let from = |peer: &mut Peer| -> Vec<f64> {
        let positions = expected(peer);
        assert_eq!(positions.len(), reference.len());
        reference.iter().zip(&positions).map(|(one, other)| divergence(one, other)).collect()
    };
    let (ours, ggmls) = (from(&mut own), from(&mut quantised(false, step).0));
    assert_ne!(ours, ggmls, "the kernels were not used");
    let apart: Vec<f64> = ours.iter().zip(&ggmls).map(|(ours, ggmls)| ours - ggmls).collect();
    let ((ours, _), (ggmls, _), (apart, chance)) = (mean(&ours), mean(&ggmls), mean(&apart));
    println!(
        "nats from float weights at {} positions: ours {ours:.6}, ggml's {ggmls:.6}, apart {apart:.6} ± {chance:.6}",
        reference.len()
    );
    assert!(reference.len() > 1000, "too few to tell");
    assert!(apart < 3.0 * chance && ours < 0.02, "ours {ours}, ggml's {ggmls}");
}

/// Loads as told and computes; what was chosen, and the receipt.
fn chosen_by(params: &LoadParams) -> (Vec<KernelChoice>, Receipt) {
    let mut peer = Peer::start(testkit::smollm2());
    let params = LoadParams { context: Some(Tokens(512)), ..params.clone() };
    let chosen = peer.load(params).unwrap().kernel_choices;
    let request = Request { deterministic: true, ..going_on(some_tokens(1, 150), 8) };
    let receipt = peer.generate(request).finished.receipt.unwrap();
    (chosen, *receipt)
}

#[test]
fn what_is_measured_is_told_and_what_is_told_is_computed_with() {
    let measure = LoadParams { measure_kernels: true, ..LoadParams::default() };
    let (chosen, receipt) = chosen_by(&measure);
    if !receipt.build.kernels.iter().any(|name| name.starts_with("TIELINE-")) {
        assert_eq!(chosen, []);
        return;
    }
    let kinds: Vec<(&str, u32)> =
        chosen.iter().map(|choice| (choice.format.as_str(), choice.width)).collect();
    assert_eq!(kinds.len(), 3, "{chosen:?}");
    for kind in [("Q4_1", 576), ("Q4_1", 1536), ("Q8_0", 576)] {
        assert!(kinds.contains(&kind), "{chosen:?}");
    }
    assert_eq!(receipt.params.kernel_choices, chosen);
    assert!(!receipt.params.measure_kernels, "a receipt names all that was measured");
    // By the receipt, the same again.
    let (again, same) = chosen_by(&receipt.params);
    assert_eq!((again, same.logits), (chosen.clone(), receipt.logits));
    // What is known is not measured again, and others compute otherwise: all of ours, and ggml's.
    let of = |few: u16, many: Option<u32>| {
        let change = |choice: &KernelChoice| KernelChoice { few, many, ..choice.clone() };
        let kernel_choices: Vec<KernelChoice> = chosen.iter().map(change).collect();
        let (chosen, receipt) = chosen_by(&LoadParams { kernel_choices, ..measure.clone() });
        assert!(chosen.iter().all(|choice| (choice.few, choice.many) == (few, many)));
        receipt.logits
    };
    let (ours, few, ggmls) = (of(u16::MAX, Some(1)), of(u16::MAX, None), of(0, None));
    assert!(ours != few && few != ggmls && ours != ggmls, "a choice chooses nothing");
}

#[test]
fn without_being_asked_nothing_is_measured() {
    assert_eq!(chosen_by(&LoadParams::default()).0, []);
}

/// Computed by other kernels, a prompt is not the same.
#[test]
fn what_other_kernels_computed_is_not_found_on_disk() {
    let folder = tempfile::tempdir().unwrap();
    let cached = |few: u16| {
        let choice = |format: &str, width: u32| {
            let format = format.to_owned();
            KernelChoice { format, width, few, many: None, settled: true }
        };
        let kernel_choices = vec![choice("Q4_1", 576), choice("Q4_1", 1536)];
        let params = LoadParams { kernel_choices, ..crate::peer::exact() };
        let mut peer = Peer::start_with(testkit::smollm2(), Some(folder.path()));
        let names = peer.load(crate::peer::keeping(params)).unwrap().kernels;
        let cached = peer.generate(going_on(some_tokens(1, 300), 2)).cached();
        peer.hang_up();
        (cached, names.iter().any(|name| name.starts_with("TIELINE-")))
    };
    assert_eq!(cached(0).0, 0);
    assert_eq!(cached(0).0, 299, "the same kernels");
    let (found, ours) = cached(2);
    assert!(found == 0 || !ours, "others find {found}");
}

#[test]
fn they_are_left_out_where_asked() {
    let (_, names) = quantised(false, 512);
    assert!(!names.iter().any(|name| name.starts_with("TIELINE-")), "{names:?}");
}
