//! Texts that are to become vectors or scores: what is asked of whoever makes them, in the place of a prompt to answer.

use crate::wire::{Input, Work};
use crate::{Asker, BackendError, ErrorKind, Pooling, Private};

/// Texts, and what is wanted of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Texts {
    /// The texts, in order. Tokens are those of one model of this machine.
    pub inputs: Vec<Input>,
    /// What each is scored by, as a document that may answer it; `None`: they become vectors.
    pub query: Option<Private>,
    /// How many numbers a vector has; `None`: as many as the model makes.
    pub dimensions: Option<u32>,
    /// Whether each is scaled to length 1.
    pub normalise: bool,
    /// How one vector is made of a text's token vectors; `None`: as the model's file says.
    pub pooling: Option<Pooling>,
}

impl Texts {
    /// Texts whose vectors are as the model makes them, at length 1.
    pub fn new(texts: impl IntoIterator<Item = impl Into<Private>>) -> Self {
        let inputs = texts.into_iter().map(Input::from).collect();
        Self { inputs, query: None, dimensions: None, normalise: true, pooling: None }
    }

    /// How a model of this machine is loaded for them.
    pub fn loaded(&self) -> Pooling {
        self.pooling.unwrap_or(Pooling::Model)
    }

    /// Documents that are scored by a query.
    pub fn scored(query: Private, texts: Vec<Private>) -> Self {
        Self { query: Some(query), ..Self::new(texts) }
    }

    /// The work that a runner is given. It makes vectors of their full length.
    ///
    /// # Errors
    /// A document is tokens: it is read beside its query as one text.
    pub fn into_work(self, asker: Asker) -> Result<Work, BackendError> {
        let Self { inputs, query, normalise, dimensions: _, pooling: _ } = self;
        let Some(query) = query else {
            return Ok(Work::Embed { texts: inputs, normalise, asker });
        };
        let text = |input| match input {
            Input::Text(text) => Ok(text),
            Input::Tokens(_) => {
                let why = "documents of tokens cannot be scored";
                Err(BackendError::new(ErrorKind::Unsupported, why))
            }
        };
        let texts = inputs.into_iter().map(text).collect::<Result<_, _>>()?;
        Ok(Work::Rank { query, texts, asker })
    }

    /// Whether any of them is tokens.
    pub fn has_tokens(&self) -> bool {
        self.inputs.iter().any(|input| matches!(input, Input::Tokens(_)))
    }

    /// How many tokens are among them.
    pub fn tokens(&self) -> usize {
        let count = |input: &Input| match input {
            Input::Tokens(tokens) => tokens.len(),
            Input::Text(_) => 0,
        };
        self.inputs.iter().map(count).sum()
    }

    /// The bytes of the longest text, with the query that it is read beside; tokens have none.
    pub fn longest(&self) -> usize {
        let bytes = |input: &Input| match input {
            Input::Text(text) => text.expose().len(),
            Input::Tokens(_) => 0,
        };
        let query = self.query.as_ref().map_or(0, |query| query.expose().len());
        query + self.inputs.iter().map(bytes).max().unwrap_or(0)
    }
}

/// Scales a vector to length 1. One of nothing has no direction and stays.
pub fn normalise(vector: &mut [f32]) {
    let length = length(vector);
    if length > 0.0 {
        vector.iter_mut().for_each(|number| *number /= length);
    }
}

/// The length of a vector.
pub fn length(vector: &[f32]) -> f32 {
    vector.iter().map(|number| number * number).sum::<f32>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_of_nothing_stays() {
        let mut vectors = [[3.0, 4.0], [0.0, 0.0]];
        vectors.iter_mut().for_each(|vector| normalise(vector));
        assert_eq!(vectors, [[0.6, 0.8], [0.0, 0.0]]);
    }

    #[test]
    fn texts_and_tokens_are_told_apart() {
        let mut texts = Texts::new(["a", "four"]);
        assert_eq!((texts.has_tokens(), texts.tokens(), texts.longest()), (false, 0, 4));
        texts.inputs.push(Input::Tokens(vec![1, 2, 3]));
        assert_eq!((texts.has_tokens(), texts.tokens(), texts.longest()), (true, 3, 4));
        let scored = Texts::scored("why".into(), vec!["a".into(), "four".into()]);
        assert_eq!((scored.inputs.len(), scored.longest()), (2, 7));
    }
}
