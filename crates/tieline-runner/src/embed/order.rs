//! One order: its texts, read as they are wanted, and what was made of them.

use std::collections::VecDeque;
use std::time::Instant;
use std::vec;

use tieline_types::wire::{Failure, FailureKind, Input, Reply, Work};
use tieline_types::{Asker, Tokens};

use crate::llama::{ActualPooling, Model};
use crate::prompt;
use crate::session::{Session, failure, failure_with};

/// An order that has not ended.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) asker: Asker,
    arrived: Instant,
    kind: Kind,
    /// Texts that nobody has looked at.
    unread: vec::IntoIter<Input>,
    /// The tokens of those that were read and not taken.
    read: VecDeque<Vec<i32>>,
    /// Texts taken.
    taken: usize,
    /// How many there are.
    pub(super) all: usize,
    /// What was made, in the order of the texts.
    made: Vec<Vec<f32>>,
    /// Tokens of what was made.
    tokens: usize,
}

#[derive(Debug)]
enum Kind {
    Vectors { normalise: bool },
    Scores { query: Vec<i32>, marks: Marks },
}

impl Order {
    /// An order as it came; none of its texts is read yet.
    pub(super) fn new(
        session: &Session<'_>,
        work: Work,
        arrived: Instant,
    ) -> Result<Self, Failure> {
        let (kind, texts, asker): (_, Vec<Input>, _) = match work {
            Work::Embed { texts, normalise, asker } => {
                refuse_ranker(session, false)?;
                (Kind::Vectors { normalise }, texts, asker)
            }
            Work::Rank { query, texts, asker } => {
                refuse_ranker(session, true)?;
                let query = prompt::tokenize(session.model, query.expose(), false, false)?;
                let marks = Marks::of(session.model);
                let texts = texts.into_iter().map(Input::Text).collect();
                (Kind::Scores { query, marks }, texts, asker)
            }
            _ => return Err(failure(FailureKind::Internal, "this work makes no vectors")),
        };
        let (all, unread) = (texts.len(), texts.into_iter());
        let (read, made) = (VecDeque::new(), Vec::new());
        Ok(Self { asker, arrived, kind, unread, read, taken: 0, all, made, tokens: 0 })
    }

    /// Whether its deadline passed.
    pub(super) fn is_late(&self) -> bool {
        self.asker.deadline.is_some_and(|deadline| self.arrived.elapsed() > deadline)
    }

    /// How many tokens a text has that is not taken yet: reads up to it.
    pub(super) fn length(
        &mut self,
        session: &Session<'_>,
        number: usize,
    ) -> Result<usize, Failure> {
        while self.taken + self.read.len() <= number {
            let index = self.taken + self.read.len();
            let Some(text) = self.unread.next() else {
                return Err(failure(FailureKind::Internal, format!("there is no text {index}")));
            };
            let tokens = self.kind.tokens(session.model, index, &text)?;
            self.read.push_back(fitting(session, index, tokens)?);
        }
        Ok(self.read.get(number - self.taken).map_or(0, Vec::len))
    }

    /// The tokens of the next text.
    pub(super) fn take(&mut self) -> Vec<i32> {
        self.taken += 1;
        self.read.pop_front().unwrap_or_default()
    }

    /// What the model made of the next text, of so many tokens.
    pub(super) fn make(&mut self, made: Vec<f32>, tokens: usize) {
        self.tokens += tokens;
        self.made.push(match self.kind {
            Kind::Vectors { normalise: true } => unit(made),
            Kind::Vectors { normalise: false } | Kind::Scores { .. } => made,
        });
    }

    /// Whether all is made.
    pub(super) fn is_done(&self) -> bool {
        self.made.len() == self.all
    }

    /// All that was made.
    pub(super) fn reply(self) -> Reply {
        let prompt_tokens = Tokens(u32::try_from(self.tokens).unwrap_or(u32::MAX));
        match self.kind {
            Kind::Vectors { .. } => Reply::Embeddings { vectors: self.made, prompt_tokens },
            Kind::Scores { .. } => {
                let scores = self.made.into_iter().filter_map(|v| v.first().copied()).collect();
                Reply::Scores { scores, prompt_tokens }
            }
        }
    }
}

impl Kind {
    /// The tokens that the model reads of a text.
    fn tokens(&self, model: &Model, index: usize, text: &Input) -> Result<Vec<i32>, Failure> {
        let whole = matches!(self, Self::Vectors { .. });
        let tokens = match text {
            Input::Text(text) => prompt::tokenize(model, text.expose(), whole, false)?,
            Input::Tokens(tokens) => prompt::known_tokens(model, tokens)?,
        };
        match self {
            Self::Vectors { .. } if tokens.is_empty() => {
                Err(failure(FailureKind::InvalidRequest, format!("text {index} is empty")))
            }
            Self::Vectors { .. } => Ok(tokens),
            Self::Scores { query, marks } => Ok(marks.join(query, &tokens)),
        }
    }
}

/// Rankers give scores and no vectors; the others the other way round.
fn refuse_ranker(session: &Session<'_>, ranks: bool) -> Result<(), Failure> {
    let is_ranker = session.context.pooling() == ActualPooling::Rank;
    match (is_ranker, ranks) {
        (true, false) => Err(failure_with(
            FailureKind::Unsupported,
            "this model ranks texts and gives no vectors",
            "use an embedding model, or ask it to rank",
        )),
        (false, true) => Err(failure_with(
            FailureKind::Unsupported,
            "this model gives vectors and ranks no texts",
            "use a reranker, or compare vectors",
        )),
        _ => Ok(()),
    }
}

/// The tokens around the two texts of a pair: BOS, query, EOS, SEP, text, EOS, each where the file asks for it. As
/// llama.cpp's server, but for the end: a pair of texts ends as a single one does, with SEP where there is no EOS.
#[derive(Clone, Debug)]
struct Marks {
    begin: Option<i32>,
    between: Vec<i32>,
    end: Option<i32>,
}

impl Marks {
    fn of(model: &Model) -> Self {
        let separator = model.separator();
        let end = model.eos().or(separator);
        let asked = model.adds_eos() || model.adds_separator();
        // A file that asks for neither says nothing of pairs: then both stand between.
        let eos = end.filter(|_| model.adds_eos() || !asked);
        let separator = separator.filter(|_| model.adds_separator() || !asked);
        Self {
            begin: model.bos().filter(|_| model.adds_bos()),
            between: eos.into_iter().chain(separator).collect(),
            end,
        }
    }

    fn join(&self, query: &[i32], text: &[i32]) -> Vec<i32> {
        let begin = self.begin.iter().chain(query).chain(&self.between);
        begin.chain(text).chain(self.end.iter()).copied().collect()
    }
}

/// A pooled text must be one batch.
fn fitting(session: &Session<'_>, index: usize, tokens: Vec<i32>) -> Result<Vec<i32>, Failure> {
    let length = session.settings.batch;
    if u32::try_from(tokens.len()).is_ok_and(|count| count <= length) {
        return Ok(tokens);
    }
    Err(failure_with(
        FailureKind::ContextExceeded,
        format!("text {index} has {} tokens and {length} is the limit", tokens.len()),
        "split the text, or ask for a longer context",
    ))
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
