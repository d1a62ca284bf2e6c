//! LoRA adapters with random weights, and models with the same change in their own weights: what a base says
//! with an adapter, the merged model must say without one.

use super::file::{Draft, Tensor, Value};
use super::{Shape, draft, hash, layers};

/// The rank of the adapters.
const RANK: u32 = 4;
/// Their change is multiplied by this over the rank: by two.
const ALPHA: f32 = 8.0;

/// What an adapter of SmolLM2-135M changes: names, and lengths of the input and the output.
const SMOLLM2: [(&str, u32, u32); 4] = [
    ("attn_q.weight", 576, 576),
    ("attn_v.weight", 576, 192),
    ("attn_output.weight", 576, 576),
    ("ffn_down.weight", 1536, 576),
];
const SMOLLM2_LAYERS: u32 = 30;

/// An adapter's file for [`Shape::Llama`]: it changes every matrix of every layer, and the output.
#[must_use]
pub fn adapter(seed: u32) -> Vec<u8> {
    file("llama", changes(seed).into_iter())
}

/// An adapter's file for the real model [`crate::smollm2`].
#[must_use]
pub fn smollm2_adapter(seed: u32) -> Vec<u8> {
    let names = (0..SMOLLM2_LAYERS).flat_map(|layer| {
        SMOLLM2.map(|(name, input, output)| (format!("blk.{layer}.{name}"), input, output))
    });
    let strong = |(name, input, output)| {
        let mut change = Change::new(seed, name, input, output);
        // What was trained is not moved by as little as what is random.
        change.b.iter_mut().for_each(|value| *value *= 4.0);
        change
    };
    file("llama", names.map(strong))
}

/// The beginning of the file of an adapter of the real model [`crate::smollm2`], of this rank, and how long the file is.
/// Zeros follow: it changes nothing, and takes as much memory as one that does.
#[must_use]
pub fn hollow_smollm2_adapter(rank: u32) -> (Vec<u8>, u64) {
    let mut file = begun("llama");
    for layer in 0..SMOLLM2_LAYERS {
        for (name, input, output) in SMOLLM2 {
            for (part, dimensions) in [("a", vec![input, rank]), ("b", vec![rank, output])] {
                let name = format!("blk.{layer}.{name}.lora_{part}");
                file.tensors.push(Tensor { name, dimensions, values: Vec::new(), rounded: false });
            }
        }
    }
    file.hollow()
}

/// An adapter's file that names another architecture.
#[must_use]
pub fn foreign_adapter() -> Vec<u8> {
    file("qwen3", changes(1).into_iter())
}

/// An adapter's file whose matrices are for a narrower model.
#[must_use]
pub fn narrow_adapter() -> Vec<u8> {
    file("llama", [Change::new(1, "blk.0.attn_q.weight".to_owned(), 32, 32)].into_iter())
}

/// The file of [`Shape::Llama`] with the changes of the adapters of these seeds, each by its scale, in its
/// weights.
#[must_use]
pub fn merged(adapters: &[(u32, f32)]) -> Vec<u8> {
    let mut model = draft(Shape::Llama);
    for (seed, scale) in adapters {
        for change in changes(*seed) {
            let tensor = model.tensors.iter_mut().find(|tensor| tensor.name == change.name);
            tensor.into_iter().for_each(|tensor| change.add_to(tensor, *scale));
        }
    }
    model.bytes()
}

fn changes(seed: u32) -> Vec<Change> {
    let model = draft(Shape::Llama);
    let is_changed = |tensor: &&Tensor| {
        let matrix = tensor.dimensions.len() == 2 && tensor.name != "token_embd.weight";
        matrix && tensor.name.ends_with(".weight")
    };
    let changed = model.tensors.iter().filter(is_changed);
    changed
        .map(|tensor| {
            Change::new(seed, tensor.name.clone(), tensor.dimensions[0], tensor.dimensions[1])
        })
        .collect()
}

fn file(architecture: &str, changes: impl Iterator<Item = Change>) -> Vec<u8> {
    let mut file = begun(architecture);
    for Change { name, input, output, a, b } in changes {
        file.tensor(format!("{name}.lora_a"), vec![input, RANK], a);
        file.tensor(format!("{name}.lora_b"), vec![RANK, output], b);
    }
    file.bytes()
}

fn begun(architecture: &str) -> Draft {
    let mut file = Draft::default();
    let text = |text: &str| Value::Text(text.to_owned());
    file.key("general.type", text("adapter"));
    file.key("general.architecture", text(architecture));
    file.key("general.name", text("Tiny adapter"));
    file.key("adapter.type", text("lora"));
    file.key("adapter.lora.alpha", Value::F32(ALPHA));
    file
}

/// What is added to a matrix: the product of two narrow ones.
struct Change {
    name: String,
    input: u32,
    output: u32,
    /// [`RANK`] rows of the input's length.
    a: Vec<f32>,
    /// As many rows as the output is long, of [`RANK`] values.
    b: Vec<f32>,
}

impl Change {
    fn new(seed: u32, name: String, input: u32, output: u32) -> Self {
        let random = |part: &str, count: u32, deviation: f32| {
            let state = u64::from(seed) ^ hash(format!("{name}.{part}").as_bytes());
            layers::random(state, count, deviation)
        };
        let length = f32::from(u16::try_from(input).unwrap_or(u16::MAX));
        // About a third of what the matrix itself does: enough that other words are said.
        let a = random("lora_a", input * RANK, 1.0 / length.sqrt());
        let b = random("lora_b", RANK * output, 0.15);
        Self { name, input, output, a, b }
    }

    fn add_to(&self, tensor: &mut Tensor, scale: f32) {
        let length = |length: u32| usize::try_from(length).unwrap_or(0);
        let (input, rank) = (length(self.input), length(RANK));
        let factor = f64::from(scale * ALPHA / 4.0);
        for (row, b) in tensor.values.chunks_exact_mut(input).zip(self.b.chunks_exact(rank)) {
            for (at, value) in row.iter_mut().enumerate() {
                let products = b
                    .iter()
                    .enumerate()
                    .map(|(k, b)| f64::from(*b) * f64::from(self.a[k * input + at]));
                #[expect(clippy::cast_possible_truncation, reason = "the nearest 32-bit float")]
                let sum = (f64::from(*value) + factor * products.sum::<f64>()) as f32;
                *value = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seed_is_another_adapter_and_the_same_each_time() {
        assert_eq!(adapter(1), adapter(1));
        assert_ne!(adapter(1), adapter(2));
    }

    #[test]
    fn what_is_merged_by_nothing_is_the_base() {
        assert_eq!(merged(&[(1, 0.0)]), draft(Shape::Llama).bytes());
        assert_ne!(merged(&[(1, 1.0)]), merged(&[(1, 0.5)]));
    }
}
