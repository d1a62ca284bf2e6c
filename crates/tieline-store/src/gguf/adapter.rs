//! LoRA adapters: what a file must say to be one, and which model it fits.
//!
//! The engine asks for values by a type without looking whether they have it, and multiplies matrices whose
//! lengths it has not compared: what would end it there is refused here.

use std::collections::BTreeMap;

use super::error::GgufError;
use super::value::Value;
use super::{Gguf, Tensor};

const TYPE: &str = "general.type";
const KIND: &str = "adapter.type";
const ALPHA: &str = "adapter.lora.alpha";
/// Tokens that switch an adapter on half-way through a prompt.
const INVOCATION: &str = "adapter.alora.invocation_tokens";
/// The embedding's two matrices stand the other way round.
const EMBEDDING: &str = "token_embd.weight";
/// What the engine leaves out of an adapter.
const NORM: &str = "_norm.weight";
/// ggml's numbers of the formats that adapters are written in: F32, F16, Q8_0, BF16.
const FORMATS: [u32; 4] = [0, 1, 8, 30];

/// Why an adapter does not go with a model.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Misfit {
    /// It is of another architecture.
    #[error("it is for {adapter} models, and this is a {base} model")]
    Architecture {
        /// The adapter's.
        adapter: String,
        /// The model's.
        base: String,
    },
    /// It changes a matrix that the model has not.
    #[error("it changes {0:?}, which the model does not have")]
    Missing(String),
    /// It changes a matrix of other lengths.
    #[error("it changes {name:?} as a matrix of {adapter}, and the model's is one of {base}")]
    Lengths {
        /// Which.
        name: String,
        /// For which lengths it was made.
        adapter: String,
        /// Which the model's has.
        base: String,
    },
}

/// The two matrices whose product is added to one of the model's.
#[derive(Clone, Copy, Default)]
struct Pair<'t> {
    a: Option<&'t Tensor>,
    b: Option<&'t Tensor>,
}

impl Gguf {
    /// Whether it is an adapter and no model.
    pub fn is_adapter(&self) -> bool {
        self.text(TYPE) == Some("adapter")
    }

    /// The rank of an adapter's largest matrices; `None` where it is none.
    pub fn adapter_rank(&self) -> Option<u64> {
        let pairs = self.is_adapter().then(|| pairs(&self.tensors))?;
        pairs.iter().filter_map(|(name, pair)| lengths(name, *pair).map(|(_, rank)| rank)).max()
    }

    /// Whether this adapter can be applied to that model.
    ///
    /// # Errors
    /// It cannot, and why.
    pub fn fits(&self, base: &Self) -> Result<(), Misfit> {
        let architecture = |gguf: &Self| gguf.architecture().unwrap_or("unknown").to_owned();
        let (ours, theirs) = (architecture(self), architecture(base));
        if ours != theirs {
            return Err(Misfit::Architecture { adapter: ours, base: theirs });
        }
        let there: BTreeMap<&str, &Tensor> =
            base.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        for (name, pair) in pairs(&self.tensors) {
            let Some(tensor) = there.get(name) else {
                return Err(Misfit::Missing(name.to_owned()));
            };
            let Some((wanted, _)) = lengths(name, pair) else { continue };
            if wanted != tensor.dimensions {
                let (adapter, base) = (words(&wanted), words(&tensor.dimensions));
                return Err(Misfit::Lengths { name: name.to_owned(), adapter, base });
            }
        }
        Ok(())
    }
}

fn words(lengths: &[u64]) -> String {
    lengths.iter().map(u64::to_string).collect::<Vec<_>>().join(" x ")
}

/// Refuses an adapter that the engine must not see. Says nothing of models.
pub(super) fn check(gguf: &Gguf) -> Result<(), GgufError> {
    if !gguf.is_adapter() {
        return Ok(());
    }
    check_keys(gguf)?;
    let pairs = pairs(&gguf.tensors);
    if pairs.is_empty() {
        return Err(malformed("the adapter", "it changes nothing"));
    }
    let stray = gguf.tensors.iter().find(|tensor| part(&tensor.name).is_none());
    if let Some(stray) = stray.filter(|tensor| !tensor.name.ends_with(NORM)) {
        return Err(malformed(&stray.place(), "it is no part of an adapter: .lora_a or .lora_b"));
    }
    pairs.iter().try_for_each(|(name, pair)| check_pair(name, *pair))
}

fn check_keys(gguf: &Gguf) -> Result<(), GgufError> {
    if gguf.architecture().is_none() {
        return Err(malformed("general.architecture", "an adapter must name one"));
    }
    match gguf.text(KIND) {
        Some("lora") => {}
        kind => {
            let problem = format!("{kind:?} is no kind of adapter that is known: lora is");
            return Err(malformed(KIND, &problem));
        }
    }
    match gguf.metadata.get(ALPHA) {
        None => {}
        Some(Value::F32(alpha)) if alpha.is_finite() => {}
        Some(value) => {
            return Err(malformed(ALPHA, &format!("{value:?} is no finite 32-bit float")));
        }
    }
    match gguf.metadata.get(INVOCATION) {
        None => Ok(()),
        Some(_) => {
            let problem = "adapters that begin at a certain token are not applied by this version";
            Err(malformed(INVOCATION, problem))
        }
    }
}

fn check_pair(name: &str, pair: Pair<'_>) -> Result<(), GgufError> {
    let place = format!("the adapter's part for {name:?}");
    let (Some(a), Some(b)) = (pair.a, pair.b) else {
        return Err(malformed(&place, "one of .lora_a and .lora_b is missing"));
    };
    if let Some(odd) = [a, b].into_iter().find(|one| !FORMATS.contains(&one.kind.id())) {
        let problem = format!("adapters are not stored as {}", odd.kind.name());
        return Err(malformed(&odd.place(), &problem));
    }
    match lengths(name, pair) {
        Some(_) => Ok(()),
        None => {
            let problem = format!(
                "matrices of {} and {} have no product",
                words(&a.dimensions),
                words(&b.dimensions)
            );
            Err(malformed(&place, &problem))
        }
    }
}

/// The lengths of the matrix that a pair changes, and the pair's rank; `None` where it can change none.
fn lengths(name: &str, pair: Pair<'_>) -> Option<(Vec<u64>, u64)> {
    let (a, b) = (&pair.a?.dimensions[..], &pair.b?.dimensions[..]);
    match (a, b) {
        ([rank, output], [same, input]) if name.ends_with(EMBEDDING) && rank == same => {
            Some((vec![*input, *output], *rank))
        }
        _ if name.ends_with(EMBEDDING) => None,
        ([input, rank], [same, output]) if rank == same => Some((vec![*input, *output], *rank)),
        // One for each expert.
        ([input, rank, count], [same, output, all]) if rank == same && count == all => {
            Some((vec![*input, *output, *count], *rank))
        }
        _ => None,
    }
}

fn pairs(tensors: &[Tensor]) -> BTreeMap<&str, Pair<'_>> {
    let mut pairs = BTreeMap::<&str, Pair<'_>>::new();
    for tensor in tensors {
        let Some((name, is_a)) = part(&tensor.name) else { continue };
        let pair = pairs.entry(name).or_default();
        *if is_a { &mut pair.a } else { &mut pair.b } = Some(tensor);
    }
    pairs
}

/// What a tensor is part of, and whether it is the first of the two. The engine takes every mark out of a name: a
/// second one would make another name of it.
fn part(name: &str) -> Option<(&str, bool)> {
    let a = name.strip_suffix(".lora_a").map(|name| (name, true));
    let part = a.or_else(|| name.strip_suffix(".lora_b").map(|name| (name, false)))?;
    (!part.0.is_empty() && !part.0.contains(".lora_")).then_some(part)
}

fn malformed(place: &str, problem: &str) -> GgufError {
    GgufError::Malformed { place: place.to_owned(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;
    use testkit::{Shape, lora};

    use super::super::write::{Draft, DraftTensor};
    use super::*;

    fn draft() -> Draft {
        let text = |text: &str| Value::String(text.to_owned());
        let tensor = |name: &str, dimensions: [u64; 2], offset| DraftTensor {
            name: name.to_owned(),
            dimensions: dimensions.to_vec(),
            kind: 0,
            offset,
        };
        Draft {
            metadata: vec![
                (TYPE.to_owned(), text("adapter")),
                ("general.architecture".to_owned(), text("llama")),
                (KIND.to_owned(), text("lora")),
                (ALPHA.to_owned(), Value::F32(8.0)),
            ],
            tensors: vec![
                tensor("output.weight.lora_a", [32, 4], 0),
                tensor("output.weight.lora_b", [4, 32], 512),
            ],
            data_bytes: 1024,
            ..Draft::default()
        }
    }

    fn read(bytes: &[u8]) -> Result<Gguf, GgufError> {
        Gguf::read(Cursor::new(bytes))
    }

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Draft), want: &str) {
        let mut draft = draft();
        change(&mut draft);
        let error = read(&draft.bytes()).unwrap_err();
        assert!(error.to_string().contains(want), "{error}");
    }

    fn set(draft: &mut Draft, key: &str, value: Option<Value>) {
        draft.metadata.retain(|(known, _)| known != key);
        draft.metadata.extend(value.map(|value| (key.to_owned(), value)));
    }

    #[test]
    fn an_adapter_is_known_and_says_its_rank() {
        let gguf = read(&draft().bytes()).unwrap();
        assert!(gguf.is_adapter());
        assert_eq!(gguf.adapter_rank(), Some(4));
        let model = read(&Draft::sample(4096).bytes()).unwrap();
        assert!(!model.is_adapter());
        assert_eq!(model.adapter_rank(), None);
        assert_eq!(read(&lora::adapter(1)).unwrap().adapter_rank(), Some(4));
    }

    #[test]
    fn keys_of_another_type_are_refused() {
        let text = |text: &str| Some(Value::String(text.to_owned()));
        refused(|draft| set(draft, KIND, None), "no kind of adapter");
        refused(|draft| set(draft, KIND, Some(Value::U32(1))), "no kind of adapter");
        refused(|draft| set(draft, KIND, text("ia3")), "no kind of adapter");
        refused(|draft| set(draft, "general.architecture", None), "must name one");
        refused(|draft| set(draft, "general.architecture", Some(Value::U8(1))), "must name one");
        refused(|draft| set(draft, ALPHA, text("8")), "no finite 32-bit float");
        refused(|draft| set(draft, ALPHA, Some(Value::F64(8.0))), "no finite 32-bit float");
        refused(|draft| set(draft, ALPHA, Some(Value::F32(f32::NAN))), "no finite 32-bit float");
        let tokens = Value::Array(vec![Value::U32(1)]);
        refused(|draft| set(draft, INVOCATION, Some(tokens)), "not applied by this version");
    }

    #[test]
    fn matrices_that_cannot_be_multiplied_are_refused() {
        refused(|draft| drop(draft.tensors.pop()), "is missing");
        refused(|draft| draft.tensors.clear(), "changes nothing");
        refused(|draft| draft.tensors[1].dimensions = vec![8, 16], "have no product");
        refused(|draft| draft.tensors[1].dimensions = vec![128], "have no product");
        refused(|draft| draft.tensors[1].dimensions = vec![4, 16, 2], "have no product");
        refused(|draft| draft.tensors[1].kind = 26, "not stored as I32");
        refused(
            |draft| draft.tensors[1].name = "output.weight".to_owned(),
            "no part of an adapter",
        );
        refused(|draft| draft.tensors[1].name = "a.lora_a.lora_b".to_owned(), "no part");
        let embedding = |draft: &mut Draft| {
            draft.tensors[0].name = "token_embd.weight.lora_a".to_owned();
            draft.tensors[1].name = "token_embd.weight.lora_b".to_owned();
        };
        refused(embedding, "have no product");
        let mut flipped = draft();
        embedding(&mut flipped);
        flipped.tensors[0].dimensions = vec![4, 32];
        assert!(read(&flipped.bytes()).is_ok());
    }

    #[test]
    fn an_adapter_fits_what_it_was_made_for() {
        let open = |shape| Gguf::read(std::fs::File::open(testkit::shape(shape)).unwrap()).unwrap();
        let base = open(Shape::Llama);
        let adapter = |bytes: &[u8]| read(bytes).unwrap();
        assert_eq!(adapter(&lora::adapter(1)).fits(&base), Ok(()));
        let words = |bytes: &[u8], base| adapter(bytes).fits(base).unwrap_err().to_string();
        let foreign = words(&lora::foreign_adapter(), &base);
        assert_eq!(foreign, "it is for qwen3 models, and this is a llama model");
        let narrow = words(&lora::narrow_adapter(), &base);
        assert!(
            narrow.contains("a matrix of 32 x 32, and the model's is one of 64 x 64"),
            "{narrow}"
        );
        let real = words(&lora::smollm2_adapter(1), &base);
        assert!(
            real.contains("which the model does not have") || real.contains("a matrix"),
            "{real}"
        );
    }

    proptest! {
        /// Whatever is damaged: an answer, and no panic.
        #[test]
        fn damage_does_no_harm(at in 0usize..700, byte: u8) {
            let mut bytes = draft().bytes();
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
            if let Ok(gguf) = read(&bytes) {
                let _ = (gguf.adapter_rank(), gguf.fits(&gguf));
            }
        }
    }
}
