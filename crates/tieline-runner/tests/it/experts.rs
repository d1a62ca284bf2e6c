//! Our kernels in mixtures of experts, beside ggml's.

use testkit::Shape;
use tieline_types::{LoadParams, Prompt, Tokens};

use crate::kernels::{Position, divergence, expected_after, mean};
use crate::peer::Peer;
use crate::shapes::words;

/// Prompts, and tokens of each.
const PROMPTS: u32 = 6;
const LENGTH: u32 = 200;

/// What a model expects at every position of some prompts, read in steps of `step` tokens.
fn read(peer: &mut Peer, shape: Shape) -> Vec<Position> {
    let prompts = (0..PROMPTS).map(|seed| Prompt::Tokens(words(shape, seed, LENGTH)));
    expected_after(peer, prompts)
}

fn loaded(path: &std::path::Path, own_kernels: bool, step: u32) -> (Peer, Vec<String>) {
    let mut peer = Peer::start(path);
    let context = Some(Tokens(512));
    let params = LoadParams { context, own_kernels, ubatch: Tokens(step), ..LoadParams::default() };
    let loaded = peer.load(params).unwrap();
    (peer, loaded.kernels)
}

/// Only the experts' matrices are quantised, so only they can differ: from the same weights as floats they must lie no
/// farther than ggml's do, by more than chance.
#[track_caller]
#[expect(clippy::print_stdout, clippy::print_stderr, reason = "figures for people, of a test")]
fn as_near_as_ggmls(shape: Shape, step: u32) {
    let rounded = testkit::shape_of_rounded_experts(shape);
    let (mut own, names) = loaded(&rounded, true, step);
    if !names.iter().any(|name| name == "TIELINE-AVX512-VNNI") {
        eprintln!("skipped: this processor has none of the instructions that these are for");
        return;
    }
    let reference = read(&mut loaded(&testkit::shape(shape), false, step).0, shape);
    let from = |peer: &mut Peer| -> Vec<f64> {
        let positions = read(peer, shape);
        assert_eq!(positions.len(), reference.len());
        reference.iter().zip(&positions).map(|(one, other)| divergence(one, other)).collect()
    };
    let (ours, ggmls) = (from(&mut own), from(&mut loaded(&rounded, false, step).0));
    assert_ne!(ours, ggmls, "the kernels were not used");
    let apart: Vec<f64> = ours.iter().zip(&ggmls).map(|(ours, ggmls)| ours - ggmls).collect();
    let ((ours, _), (ggmls, _), (apart, chance)) = (mean(&ours), mean(&ggmls), mean(&apart));
    println!(
        "{}, steps of {step}: nats from float weights at {} positions: ours {ours:.7}, ggml's {ggmls:.7}, \
         apart {apart:.7} ± {chance:.7}",
        shape.name(),
        reference.len()
    );
    assert!(reference.len() > 1000, "too few to tell");
    assert!(apart < 3.0 * chance && ours < 0.01, "ours {ours}, ggml's {ggmls}");
}

#[test]
fn a_mixture_is_as_near_to_float_weights_as_ggmls() {
    as_near_as_ggmls(Shape::Qwen3Moe, 128);
}

/// The kernel for few tokens, cutting the graph and within it.
#[test]
fn a_mixture_in_short_steps_is_as_near_to_float_weights_as_ggmls() {
    as_near_as_ggmls(Shape::Qwen3Moe, 30);
    as_near_as_ggmls(Shape::Qwen3Moe, 5);
}

/// Biases of experts are added to what ours multiplied.
#[test]
fn a_mixture_with_biases_is_as_near_to_float_weights_as_ggmls() {
    as_near_as_ggmls(Shape::GptOss, 128);
    as_near_as_ggmls(Shape::GptOss, 5);
}
