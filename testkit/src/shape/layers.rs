//! The tensors of each shape: names and lengths as llama.cpp's loader asks for them (`src/models` in its
//! source), values random.

use super::file::Draft;
use super::vocabulary::{Kind, SIZE};
use super::{ENCODER_CONTEXT, Shape};

pub(super) const LAYERS: u32 = 4;
pub(super) const EMBEDDING: u32 = 64;
pub(super) const HEADS: u32 = 4;
pub(super) const KV_HEADS: u32 = 2;
const HEAD: u32 = EMBEDDING / HEADS;
pub(super) const FEED_FORWARD: u32 = 128;
pub(super) const EXPERTS: u32 = 8;
pub(super) const EXPERTS_USED: u32 = 2;
/// Lengths of the recurrent layers.
pub(super) const CONVOLUTION: u32 = 4;
pub(super) const STATE: u32 = 16;
pub(super) const STEP_RANK: u32 = 4;
const INNER: u32 = 2 * EMBEDDING;

/// Whether a layer keeps a state instead of looking back.
pub(super) fn is_recurrent(shape: Shape, layer: u32) -> bool {
    match shape {
        Shape::Mamba => true,
        Shape::Jamba => layer.is_multiple_of(2),
        _ => false,
    }
}

/// Whether a layer looks back over a window only.
pub(super) fn has_window(shape: Shape, layer: u32) -> bool {
    match shape {
        Shape::Gemma3 | Shape::Gemma3Wide => layer != 2,
        Shape::GptOss => layer.is_multiple_of(2),
        _ => false,
    }
}

/// Whether any layer does.
pub(super) fn has_windows(shape: Shape) -> bool {
    (0..LAYERS).any(|layer| has_window(shape, layer))
}

pub(super) fn is_gemma(shape: Shape) -> bool {
    matches!(shape, Shape::Gemma3 | Shape::Gemma3Wide)
}

/// Writes all tensors of a shape.
pub(super) fn write(shape: Shape, draft: &mut Draft) {
    let mut weights = Weights { draft, seed: super::hash(shape.name().as_bytes()), layer: None };
    if Kind::of(shape) == Kind::Words {
        return encoder(shape, &mut weights);
    }
    // Gemma multiplies it by the root of its length.
    let scale = if is_gemma(shape) { 0.125 } else { 1.0 };
    weights.normal("token_embd.weight", &[EMBEDDING, SIZE], scale);
    weights.about("output_norm.weight", &[EMBEDDING], 1.0, 0.2);
    output(shape, &mut weights);
    for layer in 0..LAYERS {
        weights.layer = Some(layer);
        weights.about("attn_norm.weight", &[EMBEDDING], 1.0, 0.2);
        if is_recurrent(shape, layer) {
            recurrent(shape, &mut weights);
        } else {
            attention(shape, &mut weights);
        }
        match shape {
            Shape::Mamba => {}
            Shape::Qwen3Moe => {
                weights.about("ffn_norm.weight", &[EMBEDDING], 1.0, 0.2);
                experts(&mut weights);
            }
            Shape::GptOss => {
                weights.about("post_attention_norm.weight", &[EMBEDDING], 1.0, 0.2);
                experts(&mut weights);
                expert_biases(&mut weights);
            }
            _ => feed_forward(shape, &mut weights),
        }
    }
}

/// Words are likely; control tokens and single bytes are not, so that a greedy answer is text and goes on.
/// What was just read is unlikely to come again: else one word would follow itself for ever.
fn output(shape: Shape, weights: &mut Weights<'_>) {
    let mut values = weights.random("output.weight", SIZE * EMBEDDING, 0.3);
    let read = weights.random("token_embd.weight", SIZE * EMBEDDING, 0.3);
    values.iter_mut().zip(read).for_each(|(value, read)| *value -= read);
    let words = Kind::of(shape).words();
    let silent = usize::try_from(words.start * EMBEDDING).unwrap_or(0);
    values[..silent].iter_mut().for_each(|value| *value *= 0.01);
    weights.put("output.weight", &[EMBEDDING, SIZE], values);
}

fn attention(shape: Shape, weights: &mut Weights<'_>) {
    let (queries, keys) = (HEADS * HEAD, KV_HEADS * HEAD);
    weights.matrix("attn_q.weight", &[EMBEDDING, queries], 2.0);
    weights.matrix("attn_k.weight", &[EMBEDDING, keys], 2.0);
    // What is seen weighs more than what is there: else an answer would hardly depend on its prompt.
    weights.matrix("attn_v.weight", &[EMBEDDING, keys], 3.0);
    weights.matrix("attn_output.weight", &[queries, EMBEDDING], 3.0);
    if is_gemma(shape) || matches!(shape, Shape::Qwen3 | Shape::Qwen3Moe) {
        // Sharp: else each token would see the mean of all, and all alike.
        weights.about("attn_q_norm.weight", &[HEAD], 2.0, 0.2);
        weights.about("attn_k_norm.weight", &[HEAD], 2.0, 0.2);
    }
    if is_gemma(shape) {
        weights.about("post_attention_norm.weight", &[EMBEDDING], 1.0, 0.2);
    }
    if shape == Shape::GptOss {
        weights.normal("attn_q.bias", &[queries], 0.1);
        weights.normal("attn_k.bias", &[keys], 0.1);
        weights.normal("attn_v.bias", &[keys], 0.1);
        weights.normal("attn_output.bias", &[EMBEDDING], 0.1);
        weights.normal("attn_sinks.weight", &[HEADS], 1.0);
    }
}

fn feed_forward(shape: Shape, weights: &mut Weights<'_>) {
    weights.about("ffn_norm.weight", &[EMBEDDING], 1.0, 0.2);
    weights.matrix("ffn_gate.weight", &[EMBEDDING, FEED_FORWARD], 1.0);
    weights.matrix("ffn_up.weight", &[EMBEDDING, FEED_FORWARD], 1.0);
    weights.matrix("ffn_down.weight", &[FEED_FORWARD, EMBEDDING], 1.0);
    if is_gemma(shape) {
        weights.about("post_ffw_norm.weight", &[EMBEDDING], 1.0, 0.2);
    }
}

fn experts(weights: &mut Weights<'_>) {
    let inner = FEED_FORWARD / 2;
    weights.matrix("ffn_gate_inp.weight", &[EMBEDDING, EXPERTS], 2.0);
    weights.matrix("ffn_gate_exps.weight", &[EMBEDDING, inner, EXPERTS], 1.0);
    weights.matrix("ffn_up_exps.weight", &[EMBEDDING, inner, EXPERTS], 1.0);
    weights.matrix("ffn_down_exps.weight", &[inner, EMBEDDING, EXPERTS], 1.0);
}

fn expert_biases(weights: &mut Weights<'_>) {
    let inner = FEED_FORWARD / 2;
    weights.normal("ffn_gate_inp.bias", &[EXPERTS], 0.1);
    weights.normal("ffn_gate_exps.bias", &[inner, EXPERTS], 0.1);
    weights.normal("ffn_up_exps.bias", &[inner, EXPERTS], 0.1);
    weights.normal("ffn_down_exps.bias", &[EMBEDDING, EXPERTS], 0.1);
}

fn recurrent(shape: Shape, weights: &mut Weights<'_>) {
    weights.matrix("ssm_in.weight", &[EMBEDDING, 2 * INNER], 1.0);
    weights.matrix("ssm_conv1d.weight", &[CONVOLUTION, INNER], 1.0);
    weights.normal("ssm_conv1d.bias", &[INNER], 0.1);
    weights.matrix("ssm_x.weight", &[INNER, STEP_RANK + 2 * STATE], 2.0);
    if shape == Shape::Jamba {
        weights.about("ssm_dt_norm.weight", &[STEP_RANK], 1.0, 0.2);
        weights.about("ssm_b_norm.weight", &[STATE], 1.0, 0.2);
        weights.about("ssm_c_norm.weight", &[STATE], 1.0, 0.2);
    }
    weights.matrix("ssm_dt.weight", &[STEP_RANK, INNER], 0.5);
    // Softplus of −3 is a step of 0.05, and of a state of −0.2 remain 37 % after a hundred of them: what
    // stands far back in a prompt is felt at its end.
    weights.about("ssm_dt.bias", &[INNER], -3.0, 0.5);
    weights.about("ssm_a", &[STATE, INNER], -0.2, 0.05);
    weights.about("ssm_d", &[INNER], 1.0, 0.2);
    weights.matrix("ssm_out.weight", &[INNER, EMBEDDING], 2.0);
}

fn encoder(shape: Shape, weights: &mut Weights<'_>) {
    weights.normal("token_embd.weight", &[EMBEDDING, SIZE], 1.0);
    weights.normal("token_types.weight", &[EMBEDDING, 2], 0.2);
    weights.normal("position_embd.weight", &[EMBEDDING, ENCODER_CONTEXT], 0.5);
    weights.norm("token_embd_norm");
    if shape == Shape::Reranker {
        weights.matrix("cls.weight", &[EMBEDDING, EMBEDDING], 1.0);
        weights.normal("cls.bias", &[EMBEDDING], 0.1);
        weights.matrix("cls.output.weight", &[EMBEDDING, 1], 2.0);
        weights.normal("cls.output.bias", &[1], 0.1);
    }
    for layer in 0..LAYERS {
        weights.layer = Some(layer);
        for name in ["attn_q", "attn_k", "attn_v", "attn_output"] {
            weights.matrix(&format!("{name}.weight"), &[EMBEDDING, EMBEDDING], 1.0);
            weights.normal(&format!("{name}.bias"), &[EMBEDDING], 0.1);
        }
        weights.norm("attn_output_norm");
        weights.matrix("ffn_up.weight", &[EMBEDDING, FEED_FORWARD], 1.0);
        weights.normal("ffn_up.bias", &[FEED_FORWARD], 0.1);
        weights.matrix("ffn_down.weight", &[FEED_FORWARD, EMBEDDING], 1.0);
        weights.normal("ffn_down.bias", &[EMBEDDING], 0.1);
        weights.norm("layer_output_norm");
    }
}

/// Adds random tensors to a file.
struct Weights<'d> {
    draft: &'d mut Draft,
    seed: u64,
    /// The layer that names belong to.
    layer: Option<u32>,
}

impl Weights<'_> {
    /// Values of this standard deviation around 0.
    fn normal(&mut self, name: &str, dimensions: &[u32], deviation: f32) {
        self.about(name, dimensions, 0.0, deviation);
    }

    /// Values of this standard deviation around `centre`.
    fn about(&mut self, name: &str, dimensions: &[u32], centre: f32, deviation: f32) {
        let mut values = self.random(name, dimensions.iter().product(), deviation);
        values.iter_mut().for_each(|value| *value += centre);
        self.put(name, dimensions, values);
    }

    /// A matrix that makes `gain` times as long what it is multiplied with, about.
    fn matrix(&mut self, name: &str, dimensions: &[u32], gain: f32) {
        let input = f32::from(u16::try_from(dimensions[0]).unwrap_or(u16::MAX));
        self.normal(name, dimensions, gain / input.sqrt());
    }

    /// A layer norm's factors and what it adds.
    fn norm(&mut self, name: &str) {
        self.about(&format!("{name}.weight"), &[EMBEDDING], 1.0, 0.2);
        self.normal(&format!("{name}.bias"), &[EMBEDDING], 0.1);
    }

    fn put(&mut self, name: &str, dimensions: &[u32], values: Vec<f32>) {
        self.draft.tensor(self.full(name), dimensions.to_vec(), values);
    }

    fn full(&self, name: &str) -> String {
        self.layer.map_or_else(|| name.to_owned(), |layer| format!("blk.{layer}.{name}"))
    }

    fn random(&self, name: &str, count: u32, deviation: f32) -> Vec<f32> {
        random(self.seed ^ super::hash(self.full(name).as_bytes()), count, deviation)
    }
}

/// Values of this standard deviation around 0, others for another `state`.
///
/// The sum of four uniform numbers is normal enough, and every step of it is exact: no machine's mathematics
/// library has a say.
pub(super) fn random(mut state: u64, count: u32, deviation: f32) -> Vec<f32> {
    let mut next = move || {
        let [a, b, c, d, e, f, g, h] = splitmix(&mut state).to_le_bytes();
        let parts = [[a, b], [c, d], [e, f], [g, h]];
        let sum: f32 = parts.map(|part| f32::from(u16::from_le_bytes(part))).iter().sum();
        // Of four numbers below 2¹⁶ the mean is 2·(2¹⁶ − 1), the deviation 2¹⁶/√3.
        (sum - 131_070.0) / 65536.0 * 3f32.sqrt() * deviation
    };
    (0..count).map(|_| next()).collect()
}

/// Sebastiano Vigna's SplitMix64.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_values_have_the_deviation_that_was_asked_for() {
        let mut draft = Draft::default();
        let weights = Weights { draft: &mut draft, seed: 1, layer: None };
        let values = weights.random("x", 10_000, 0.5);
        let count = 10_000.0;
        let mean = values.iter().sum::<f32>() / count;
        let deviation = (values.iter().map(|value| value * value).sum::<f32>() / count).sqrt();
        assert!(mean.abs() < 0.02, "{mean}");
        assert!((deviation - 0.5).abs() < 0.02, "{deviation}");
        assert_ne!(values, weights.random("y", 10_000, 0.5), "each tensor has its own");
    }
}
