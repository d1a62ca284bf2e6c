//! What a model can do, as its file says.

use tieline_store::Gguf;
use tieline_store::gguf::Value;
use tieline_types::{Abilities, BackendError, ErrorKind, Prompt};

/// Architectures that read a text as a whole and write none.
const ENCODERS: [&str; 10] = [
    "bert",
    "modern-bert",
    "nomic-bert",
    "nomic-bert-moe",
    "neo-bert",
    "jina-bert-v2",
    "jina-bert-v3",
    "eurobert",
    "t5encoder",
    "gemma-embedding",
];
/// What templates say that know of thoughts.
const THOUGHTS: [&str; 6] = [
    "<think>",
    "enable_thinking",
    "reasoning_content",
    "reasoning_effort",
    "[THINK]",
    "<|channel>thought",
];
/// Tokens around a gap: of what stands before it and after it, by their names in files now and earlier.
const GAPS: [(&str, &str); 2] =
    [("fim_pre_token_id", "fim_suf_token_id"), ("prefix_token_id", "suffix_token_id")];
/// llama.cpp's number for no pooling.
const NO_POOLING: u64 = 0;
/// llama.cpp's number for a score instead of a vector.
const RANK: u64 = 4;

pub(super) fn abilities(gguf: &Gguf) -> Abilities {
    let architecture = gguf.architecture().unwrap_or_default();
    let number = |key: &str| gguf.metadata.get(key).and_then(Value::as_u64);
    let is_encoder = ENCODERS.contains(&architecture);
    let pooling = number(&format!("{architecture}.pooling_type"));
    let rerank = pooling == Some(RANK);
    let pools = pooling.is_some_and(|pooling| pooling != NO_POOLING);
    let template = gguf.chat_template();
    let says = |word: &str| template.is_some_and(|template| template.contains(word));
    let token = |name: &str| number(&format!("tokenizer.ggml.{name}")).is_some();
    let writes = !is_encoder && !rerank;
    Abilities {
        completion: writes,
        chat: writes && template.is_some(),
        tools: writes && says("tools"),
        thinking: writes && THOUGHTS.iter().any(|word| says(word)),
        insert: writes && GAPS.iter().any(|(before, after)| token(before) && token(after)),
        embedding: (is_encoder || pools) && !rerank,
        rerank,
    }
}

/// Refuses a prompt that a model cannot go on from.
pub(super) fn check(abilities: Abilities, name: &str, prompt: &Prompt) -> Result<(), BackendError> {
    let refusal = |text: String, hint: &'static str| {
        Err(BackendError::new(ErrorKind::Unsupported, text).with_hint(hint))
    };
    match prompt {
        _ if !abilities.completion => refusal(
            format!("{name} writes no text"),
            "it makes vectors or scores: ask an embedding or reranking route, or another model",
        ),
        Prompt::Chat(_) if !abilities.chat => refusal(
            format!("the file of {name} has no chat template"),
            "send the prompt as raw text, or ask another model",
        ),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Cursor;

    use testkit::Shape;
    use tieline_store::gguf::write::Draft;

    use super::*;

    /// What can be done with a file that has these entries beside a sample's.
    fn drafted(architecture: &str, template: &str, numbers: &[(&str, u32)]) -> String {
        let mut draft = Draft::sample(128);
        let text = |text: &str| Value::String(text.to_owned());
        draft
            .metadata
            .retain(|(key, _)| !key.contains("template") && !key.contains("architecture"));
        draft.metadata.push(("general.architecture".to_owned(), text(architecture)));
        if !template.is_empty() {
            draft.metadata.push(("tokenizer.chat_template".to_owned(), text(template)));
        }
        let numbers = numbers.iter().map(|(key, number)| ((*key).to_owned(), Value::U32(*number)));
        draft.metadata.extend(numbers);
        words(&Gguf::read(Cursor::new(draft.bytes())).unwrap())
    }

    fn words(gguf: &Gguf) -> String {
        let Abilities { completion, chat, tools, thinking, insert, embedding, rerank } =
            abilities(gguf);
        let all = [
            (completion, "completion"),
            (chat, "chat"),
            (tools, "tools"),
            (thinking, "thinking"),
            (insert, "insert"),
            (embedding, "embedding"),
            (rerank, "rerank"),
        ];
        let words: Vec<&str> =
            all.into_iter().filter(|(can, _)| *can).map(|(_, word)| word).collect();
        words.join(" ")
    }

    #[test]
    fn a_template_tells_of_chat_tools_and_thoughts() {
        assert_eq!(drafted("llama", "", &[]), "completion");
        assert_eq!(drafted("llama", "{{ messages }}", &[]), "completion chat");
        assert_eq!(drafted("qwen3", "{% if tools %}", &[]), "completion chat tools");
        let thinks = "{% if tools %}{% if enable_thinking %}";
        assert_eq!(drafted("qwen3", thinks, &[]), "completion chat tools thinking");
    }

    #[test]
    fn tokens_around_a_gap_tell_of_insertion() {
        let now = [("tokenizer.ggml.fim_pre_token_id", 1), ("tokenizer.ggml.fim_suf_token_id", 2)];
        let earlier =
            [("tokenizer.ggml.prefix_token_id", 1), ("tokenizer.ggml.suffix_token_id", 2)];
        assert_eq!(drafted("llama", "", &now), "completion insert");
        assert_eq!(drafted("llama", "", &earlier), "completion insert");
        assert_eq!(drafted("llama", "", &now[..1]), "completion");
    }

    #[test]
    fn encoders_and_pooling_tell_of_vectors_and_scores() {
        assert_eq!(drafted("nomic-bert", "{{ messages }}", &[]), "embedding");
        assert_eq!(drafted("qwen3", "", &[("qwen3.pooling_type", 3)]), "completion embedding");
        assert_eq!(drafted("qwen3", "", &[("qwen3.pooling_type", 0)]), "completion");
        assert_eq!(drafted("qwen3", "", &[("qwen3.pooling_type", 4)]), "rerank");
    }

    #[test]
    fn files_of_many_shapes_say_what_they_are() {
        let words = |shape| words(&Gguf::read(File::open(testkit::shape(shape)).unwrap()).unwrap());
        assert_eq!(words(Shape::Infill), "completion chat insert");
        assert_eq!(words(Shape::Bert), "embedding");
        assert_eq!(words(Shape::Reranker), "rerank");
        assert_eq!(words(Shape::Mamba), "completion chat");
    }
}
