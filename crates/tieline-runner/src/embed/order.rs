//! One order: its texts, read as they are wanted, and what was made of them.
//!
//! Long texts are read before, on a thread beside the one that computes.

use std::collections::VecDeque;
use std::time::Instant;
use std::vec;

use tieline_types::wire::{Failure, FailureKind, Input, Reply, Work};
use tieline_types::{Asker, RequestId, Tokens};

use crate::llama::{ActualPooling, Model};
use crate::prompt;
use crate::session::{Session, failure, failure_with};

/// An order as it comes from those who prepare texts.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) id: RequestId,
    arrived: Instant,
    asker: Asker,
    kind: Kind,
    texts: Vec<Unread>,
}

/// A text that was not computed.
#[derive(Debug)]
enum Unread {
    /// Nobody has looked at it.
    As(Input),
    /// Its own tokens.
    Tokens(Vec<i32>),
}

/// An order that has not ended.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) asker: Asker,
    arrived: Instant,
    kind: Kind,
    /// Texts that were not asked for.
    unread: vec::IntoIter<Unread>,
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

impl Prepared {
    /// Reads the query, and those texts that have more bytes than `long`, for as long as that is wanted.
    pub(crate) fn new(
        model: &Model,
        (id, work, arrived): (RequestId, Work, Instant),
        long: usize,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Self, Failure> {
        let (kind, texts, asker): (_, Vec<Input>, _) = match work {
            Work::Embed { texts, normalise, asker } => (Kind::Vectors { normalise }, texts, asker),
            Work::Rank { query, texts, asker } => {
                let query = prompt::tokenize(model, query.expose(), false, false)?;
                let texts = texts.into_iter().map(Input::Text).collect();
                (Kind::Scores { query, marks: Marks::of(model) }, texts, asker)
            }
            _ => return Err(failure(FailureKind::Internal, "this work makes no vectors")),
        };
        let read = |input: Input| match &input {
            Input::Text(text) if text.expose().len() > long => match is_wanted() {
                true => kind.read(model, &input).map(Unread::Tokens),
                false => Err(super::cancelled()),
            },
            _ => Ok(Unread::As(input)),
        };
        let texts = texts.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Self { id, arrived, asker, kind, texts })
    }
}

impl Order {
    /// An order of which none is computed yet.
    pub(super) fn new(session: &Session<'_>, prepared: Prepared) -> Result<Self, Failure> {
        let Prepared { id: _, arrived, asker, kind, texts } = prepared;
        refuse_ranker(session, matches!(kind, Kind::Scores { .. }))?;
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
            let tokens = match text {
                Unread::Tokens(tokens) => tokens,
                Unread::As(text) => self.kind.read(session.model, &text)?,
            };
            let tokens = self.kind.whole(index, tokens)?;
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
    /// A text's own tokens.
    fn read(&self, model: &Model, text: &Input) -> Result<Vec<i32>, Failure> {
        let whole = matches!(self, Self::Vectors { .. });
        match text {
            Input::Text(text) => prompt::tokenize(model, text.expose(), whole, false),
            Input::Tokens(tokens) => prompt::known_tokens(model, tokens),
        }
    }

    /// What the model reads of a text with these tokens.
    fn whole(&self, index: usize, tokens: Vec<i32>) -> Result<Vec<i32>, Failure> {
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
