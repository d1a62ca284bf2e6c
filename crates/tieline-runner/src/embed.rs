//! Turns texts into vectors, or scores them, several at a time.

use tieline_types::wire::{Failure, FailureKind, FrameError, FromRunner, Input, Reply, Work};
use tieline_types::{Private, RequestId, Tokens};

use crate::control::Control;
use crate::desk::Line;
use crate::grammar::Grammar;
use crate::llama::{ActualPooling, Batch, DecodeError, Model};
use crate::pipe::Order;
use crate::prompt::{self, Prompts};
use crate::session::{Session, failure, failure_with};
use crate::template::Template;

const NO_ADAPTERS: &str = "this version applies adapters to models that generate text alone";

/// Serves a model that is loaded for embeddings until the orders end: one order at a time.
pub(crate) fn serve(mut session: Session<'_>, line: Line<'_>) -> Result<(), FrameError> {
    let template = session.model.chat_template().map(Template::new);
    let prompts = Prompts { model: session.model, template, grammar: Grammar::default() };
    while let Ok(order) = line.orders.recv() {
        if let Order::Adapter((digest, _)) = order {
            let failure = failure(FailureKind::Unsupported, NO_ADAPTERS);
            line.writer.send(&FromRunner::Adapter(digest, Err(failure)))?;
            continue;
        }
        let Order::Work { id, work, .. } = order else { continue };
        line.control.begin_step(vec![id]);
        let reply = work_on(&mut session, &prompts, line.control, id, work);
        line.control.end_step();
        line.control.end(id);
        line.writer.last(id, reply.unwrap_or_else(Reply::Failed))?;
    }
    Ok(())
}

fn work_on(
    session: &mut Session<'_>,
    prompts: &Prompts<'_>,
    control: &Control,
    _: RequestId,
    work: Work,
) -> Result<Reply, Failure> {
    match work {
        Work::Embed { texts, normalise } => {
            refuse_ranker(session, false)?;
            let texts = tokens_of(session, &texts)?;
            let (vectors, prompt_tokens) = vectors(session, control, &texts)?;
            let vectors =
                vectors.into_iter().map(|v| if normalise { unit(v) } else { v }).collect();
            Ok(Reply::Embeddings { vectors, prompt_tokens })
        }
        Work::Rank { query, texts } => {
            refuse_ranker(session, true)?;
            let pairs = pairs_of(session, &query, &texts)?;
            let (vectors, prompt_tokens) = vectors(session, control, &pairs)?;
            let scores = vectors.into_iter().filter_map(|v| v.first().copied()).collect();
            Ok(Reply::Scores { scores, prompt_tokens })
        }
        Work::Generate(_) | Work::Measure { .. } => Err(failure_with(
            FailureKind::Unsupported,
            "the model is loaded for embeddings",
            "load it without embeddings to generate text",
        )),
        text => prompt::text_work(prompts, text),
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

/// The tokens of each text.
fn tokens_of(session: &Session<'_>, texts: &[Input]) -> Result<Vec<Vec<i32>>, Failure> {
    let of_one = |(index, text): (usize, &Input)| {
        let tokens = match text {
            Input::Text(text) => prompt::tokenize(session.model, text.expose(), true, false)?,
            Input::Tokens(tokens) => prompt::known_tokens(session.model, tokens)?,
        };
        if tokens.is_empty() {
            return Err(failure(FailureKind::InvalidRequest, format!("text {index} is empty")));
        }
        fitting(session, index, tokens)
    };
    texts.iter().enumerate().map(of_one).collect()
}

/// For each text: BOS, query, EOS, SEP, text, EOS, each where the file asks for it. As llama.cpp's server,
/// but for the end: a pair of texts ends as a single one does, with SEP where there is no EOS.
fn pairs_of(
    session: &Session<'_>,
    query: &Private,
    texts: &[Private],
) -> Result<Vec<Vec<i32>>, Failure> {
    let model = session.model;
    let query = prompt::tokenize(model, query.expose(), false, false)?;
    let marks = Marks::of(model);
    let pair = |(index, text): (usize, &Private)| {
        let text = prompt::tokenize(model, text.expose(), false, false)?;
        fitting(session, index, marks.join(&query, &text))
    };
    texts.iter().enumerate().map(pair).collect()
}

/// The tokens around the two texts of a pair.
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

/// What the model makes of each text, and how many tokens it read.
fn vectors(
    session: &mut Session<'_>,
    control: &Control,
    texts: &[Vec<i32>],
) -> Result<(Vec<Vec<f32>>, Tokens), Failure> {
    let mut vectors = Vec::with_capacity(texts.len());
    for group in groups(texts, session.settings.batch, session.settings.sequences) {
        if control.is_aborted() {
            return Err(failure(FailureKind::Busy, "cancelled"));
        }
        vectors.extend(together(session, group)?);
    }
    let read: usize = texts.iter().map(Vec::len).sum();
    Ok((vectors, Tokens(u32::try_from(read).unwrap_or(u32::MAX))))
}

/// Cuts texts into groups of at most `texts` texts and `tokens` tokens.
fn groups(all: &[Vec<i32>], tokens: u32, texts: u16) -> impl Iterator<Item = &[Vec<i32>]> {
    let most = usize::try_from(tokens).unwrap_or(usize::MAX);
    let mut rest = all;
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = |text: &&Vec<i32>| {
            sum += text.len();
            sum <= most
        };
        let count = rest.iter().take(usize::from(texts)).take_while(fits).count();
        // One that is too long alone was refused before.
        let (group, after) = rest.split_at(count.max(1).min(rest.len()));
        rest = after;
        (!group.is_empty()).then_some(group)
    })
}

fn together(session: &mut Session<'_>, texts: &[Vec<i32>]) -> Result<Vec<Vec<f32>>, Failure> {
    session.context.clear();
    let mut batch = Batch::default();
    for (sequence, text) in (0u16..).zip(texts) {
        for (position, &token) in text.iter().enumerate() {
            batch.push(token, position, sequence, true);
        }
    }
    session.context.decode(&mut batch).map_err(|error| match error {
        DecodeError::Aborted => failure(FailureKind::Busy, "cancelled"),
        error => failure(FailureKind::Internal, format!("llama.cpp failed to embed: {error:?}")),
    })?;
    let vector = |(sequence, _)| {
        let vector = session.context.embedding(sequence).map(<[f32]>::to_vec);
        vector.ok_or_else(|| failure(FailureKind::Internal, "llama.cpp gave no embedding"))
    };
    (0u16..).zip(texts).map(vector).collect()
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

    #[test]
    fn groups_hold_what_fits() {
        let texts: Vec<Vec<i32>> = [3, 3, 3, 9, 1].map(|length| vec![0; length]).to_vec();
        let sizes: Vec<usize> = groups(&texts, 9, 16).map(<[_]>::len).collect();
        assert_eq!(sizes, [3, 1, 1]);
        let sizes: Vec<usize> = groups(&texts, 100, 2).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 2, 1]);
        assert_eq!(groups(&[], 9, 2).count(), 0);
    }
}
