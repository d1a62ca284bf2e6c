//! Turns texts into vectors.

use tieline_types::wire::{Failure, FailureKind, Reply};
use tieline_types::{Private, Tokens};

use crate::control::Control;
use crate::prompt;
use crate::session::{Session, failure, failure_with};

/// One vector for each of `texts`.
pub(crate) fn embed(
    session: &mut Session<'_>,
    texts: &[Private],
    normalise: bool,
    control: &Control,
) -> Result<Reply, Failure> {
    if session.params.embeddings.is_none() {
        return Err(failure_with(
            FailureKind::Unsupported,
            "the model is loaded for generating text",
            "load it for embeddings",
        ));
    }
    let mut vectors = Vec::with_capacity(texts.len());
    let mut read = 0u32;
    for (index, text) in texts.iter().enumerate() {
        if control.is_aborted() {
            return Err(failure(FailureKind::Busy, "cancelled"));
        }
        let (vector, tokens) = embed_one(session, index, text)?;
        vectors.push(if normalise { unit(vector) } else { vector });
        read += tokens;
    }
    Ok(Reply::Embeddings { vectors, prompt_tokens: Tokens(read) })
}

fn embed_one(
    session: &mut Session<'_>,
    index: usize,
    text: &Private,
) -> Result<(Vec<f32>, u32), Failure> {
    let mut tokens = prompt::tokenize(session.model, text.expose(), true, false)?;
    // A pooled text must be one batch; the context may be a little longer.
    let length = session.settings.batch;
    let count = match u32::try_from(tokens.len()) {
        Ok(0) => {
            return Err(failure(FailureKind::InvalidRequest, format!("text {index} is empty")));
        }
        Ok(count) if count <= length => count,
        _ => {
            return Err(failure_with(
                FailureKind::ContextExceeded,
                format!("text {index} has {} tokens and {length} is the limit", tokens.len()),
                "split the text, or ask for a longer context",
            ));
        }
    };
    session.clear();
    session.context.decode(&mut tokens).map_err(|error| {
        failure(FailureKind::Internal, format!("llama.cpp failed on text {index}: {error:?}"))
    })?;
    let vector = session.context.embedding().map(<[f32]>::to_vec);
    let vector =
        vector.ok_or_else(|| failure(FailureKind::Internal, "llama.cpp gave no embedding"))?;
    Ok((vector, count))
}

/// `vector` scaled to length 1; a zero vector stays as it is.
fn unit(mut vector: Vec<f32>) -> Vec<f32> {
    let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
    if length > 0.0 {
        vector.iter_mut().for_each(|x| *x /= length);
    }
    vector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_get_length_one() {
        assert_eq!(unit(vec![3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(unit(vec![0.0, 0.0]), [0.0, 0.0]);
    }
}
