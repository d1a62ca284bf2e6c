//! Asks, and judges what was answered by what is answered undisturbed.
//!
//! The same text is not to be had: with quantised weights the logits of a token depend on how many are computed beside
//! it, and a greedy answer goes another way where two tokens are about as likely. So an answer with another text is
//! computed once more by a runner that nobody disturbs, as a prompt: it is right if each of its tokens is there as
//! likely as the likeliest, but for [`TOLERANCE_NATS`].

use std::sync::Arc;

use serde::Serialize;
use tieline_engine::LocalModel;
use tieline_engine::pool::Resident;
use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Backend, BackendError, ErrorKind, Event, Prompt, Request, Sampling, TokenLogprob, Tokens,
};

/// How much less likely than the likeliest a token may be, in nats. Undisturbed answers stay below (the report says how
/// far), those to another question are above it.
const TOLERANCE_NATS: f32 = 1.0;
/// What is asked: beginnings that differ, so that an answer to another of them is seen.
pub(crate) const QUESTIONS: [&str; 4] = [
    "One, two, three, four, five, six, seven,",
    "January, February, March, April, May, June,",
    "A, B, C, D, E, F, G, H, I,",
    "The sun rises in the east and sets in the",
];

/// An answer that ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    text: String,
    tokens: Vec<u32>,
    /// Another runner made it than the one that was asked.
    retried: bool,
}

/// `None` as an error: the stream ended without an end.
pub(crate) type Asked = Result<Answer, Option<Broken>>;

/// An error in the place of an answer, or of its rest.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) error: BackendError,
    /// Something of the answer was heard before.
    pub(crate) had_begun: bool,
}

/// What an answer is beside the undisturbed one.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The same text.
    Same,
    /// Another, in which no token is less likely than the likeliest by more than so much.
    AsLikely(f32),
    /// Another.
    Wrong(Box<Wrong>),
}

/// An answer that nothing explains.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Wrong {
    pub(crate) round: usize,
    want: String,
    got: String,
    /// The first token that is another.
    differs_at: usize,
    /// The token that is least likely beside the likeliest, and by how much.
    worst_at: usize,
    worst_nats: f32,
    retried: bool,
}

/// Answers from runners that nobody disturbs.
pub(crate) struct Judge {
    model: Arc<LocalModel>,
    prompts: Vec<Vec<u32>>,
    wanted: Vec<Answer>,
}

impl Judge {
    /// Asks each question once, alone.
    pub(crate) async fn new(model: Arc<LocalModel>) -> Result<Self, BackendError> {
        let mut judge = Self { model, prompts: Vec::new(), wanted: Vec::new() };
        for question in QUESTIONS {
            let text = question.to_owned().into();
            let work = Work::Tokenize { text, add_special: true, parse_special: false };
            let Reply::Tokens(tokens) = judge.model.work(work).await? else {
                return Err(broken("no tokens are the reply to a text"));
            };
            judge.prompts.push(tokens);
            let asked = judge.request(judge.wanted.len());
            let answer = ask(&judge.model, asked).await;
            judge
                .wanted
                .push(answer.map_err(|why| why.map_or_else(endless, |broken| broken.error))?);
        }
        Ok(judge)
    }

    /// A request by its number, which chooses the question, changes nothing else, and keeps it from being taken for one
    /// that was at work at two deaths.
    pub(crate) fn request(&self, number: usize) -> Request {
        asked(Prompt::Tokens(self.prompts[number % QUESTIONS.len()].clone()), number)
    }

    /// Judges the answer to the request of this number.
    pub(crate) async fn verdict(
        &self,
        answer: &Answer,
        number: usize,
        round: usize,
    ) -> Result<Verdict, BackendError> {
        let want = &self.wanted[number % QUESTIONS.len()];
        if answer.text == want.text {
            return Ok(Verdict::Same);
        }
        let (worst_at, worst_nats) = self.worst(answer, number).await?;
        if worst_nats <= TOLERANCE_NATS {
            return Ok(Verdict::AsLikely(worst_nats));
        }
        let pairs = want.tokens.iter().zip(&answer.tokens);
        Ok(Verdict::Wrong(Box::new(Wrong {
            round,
            want: want.text.clone(),
            got: answer.text.clone(),
            differs_at: pairs.take_while(|(ours, theirs)| ours == theirs).count(),
            worst_at,
            worst_nats,
            retried: answer.retried,
        })))
    }

    /// Whether it finds the answer to each question wrong as one to another.
    pub(crate) async fn can_fail(&self) -> Result<bool, BackendError> {
        for (at, answer) in self.wanted.iter().enumerate() {
            if self.worst(answer, at + 1).await?.1 <= TOLERANCE_NATS {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The token of an answer that is least likely beside the likeliest, and by how much, in nats.
    pub(crate) async fn worst(
        &self,
        answer: &Answer,
        number: usize,
    ) -> Result<(usize, f32), BackendError> {
        let prompt = &self.prompts[number % QUESTIONS.len()];
        let text = [&prompt[..], &answer.tokens].concat();
        let request = Request {
            prompt_logprobs: Some(1),
            max_tokens: Some(Tokens(1)),
            ..asked(Prompt::Tokens(text), number)
        };
        let mut stream = self.model.run(request).await?;
        let mut read = Vec::new();
        while let Some(event) =
            std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
        {
            if let Event::PromptLogprobs(more) = event? {
                read.extend(more);
            }
        }
        if read.len() < answer.tokens.len() {
            return Err(broken("not all of a prompt has probabilities"));
        }
        let computed = &read[read.len() - answer.tokens.len()..];
        let below = computed.iter().map(|one| likeliest(one) - one.logprob).enumerate();
        Ok(below.max_by(|a, b| a.1.total_cmp(&b.1)).unwrap_or((0, f32::INFINITY)))
    }
}

fn likeliest(place: &TokenLogprob) -> f32 {
    place.alternatives.iter().map(|one| one.logprob).fold(place.logprob, f32::max)
}

fn broken(what: &str) -> BackendError {
    BackendError::new(ErrorKind::Internal, what)
}

fn endless() -> BackendError {
    broken("an answer has no end")
}

/// Asks beside others.
pub(crate) fn asking(model: &Arc<LocalModel>, request: Request) -> tokio::task::JoinHandle<Asked> {
    let model = Arc::clone(model);
    let tasks = tokio_util::task::TaskTracker::new();
    tasks.spawn(async move { ask(&model, request).await })
}

async fn ask(model: &LocalModel, request: Request) -> Asked {
    let asked = model.pid();
    let ended = |error, had_begun| Some(Broken { error, had_begun });
    let mut stream = model.run(request).await.map_err(|error| ended(error, false))?;
    let mut answer = Answer::default();
    let mut finished = false;
    while let Some(event) = std::future::poll_fn(|context| stream.as_mut().poll_next(context)).await
    {
        match event.map_err(|error| ended(error, !answer.tokens.is_empty()))? {
            Event::Piece(piece) => {
                answer.retried |= answer.tokens.is_empty() && model.pid() != asked;
                answer.text += piece.text.expose();
                answer.tokens.extend(piece.logprobs.iter().map(|one| one.token));
            }
            Event::Finished(_) => finished = true,
            _ => {}
        }
    }
    if finished { Ok(answer) } else { Err(None) }
}

/// One that asks for more memory than any before: megabytes of text, far longer than the context.
pub(crate) fn hungry(number: usize) -> Request {
    asked(Prompt::Text("hungry ".repeat(500_000).into()), number)
}

fn asked(prompt: Prompt, number: usize) -> Request {
    Request {
        sampling: Sampling { seed: u32::try_from(number).ok(), ..Sampling::greedy() },
        max_tokens: Some(Tokens(24)),
        deterministic: false,
        cache: false,
        logprobs: Some(0),
        ..Request::new(prompt)
    }
}
