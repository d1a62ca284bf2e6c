//! Models that attack: what becomes of the program that started them, and of others at work beside them.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tieline_engine::{EngineConfig, LocalModel};
use tieline_types::{
    BackendError, Digest, ErrorKind, LoadParams, Message, ModelFile, Prompt, Request, Role,
    Sampling, Tokens,
};
use tokio::time::timeout;

use super::{answer, question, start};

/// Stands in the prompt of another model's runner, and in a file beside the hostile ones.
const SECRET: &str = "the swans of Lake Umbagog";
/// So many of its letters in a row are no chance.
const TELLING: usize = 8;
/// Longer than anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether a part of the secret is in what was said.
fn tells(said: &str) -> bool {
    let letters: Vec<char> = SECRET.chars().collect();
    letters.windows(TELLING).any(|part| said.contains(&part.iter().collect::<String>()))
}

/// What became of hostile models.
#[derive(Debug, Default)]
struct Tally {
    refused: usize,
    crashed: usize,
    answered: usize,
    /// How those that crashed did.
    ends: Vec<String>,
}

impl Tally {
    fn total(&self) -> usize {
        self.refused + self.crashed + self.answered
    }

    /// How those that crashed did, and the line that `make prove-engine` reads.
    fn told(&self, prover: &str) -> String {
        let Self { refused, crashed, answered, ends } = self;
        let (models, ends) = (self.total(), ends.join("\n"));
        format!(
            r#"{ends}
PROOF {{"prover":"{prover}","models":{models},"refused":{refused},"crashed":{crashed},"answered":{answered}}}"#
        )
    }
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // Knuth's MMIX generator; its high bits are the good ones.
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}

/// A model with some of its bytes changed: mostly in the header, where they mean something.
fn mutant(model: &[u8], seed: u64) -> Vec<u8> {
    const HEADER: usize = 9_000;
    const TELLING: [u64; 10] =
        [0, 1, 2, 0x7f, 0xffff, 0x7fff_ffff, 0xffff_ffff, 1 << 33, u64::MAX >> 1, u64::MAX];
    let mut random = Random(seed);
    let mut bytes = model.to_vec();
    for _ in 0..=random.below(4) {
        let end = if random.below(10) > 0 { HEADER.min(bytes.len()) } else { bytes.len() };
        let at = random.below(end);
        match random.below(8) {
            0..3 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
            number @ 4..6 => {
                let width = if number == 4 { 4 } else { 8 };
                let telling = TELLING[random.below(TELLING.len())].to_le_bytes();
                let end = (at + width).min(bytes.len());
                bytes[at..end].copy_from_slice(&telling[..end - at]);
            }
            6 => bytes.truncate(at.max(8)),
            _ => {
                let again = bytes[at..(at + 16).min(bytes.len())].to_vec();
                bytes.splice(at..at, again);
            }
        }
    }
    bytes
}

/// Loads a model that may be anything, and asks it something. What it says or fails with is returned.
async fn try_model(runner: &Path, path: &Path) -> (Option<ErrorKind>, String) {
    let file = ModelFile { digest: Digest([7; 32]), path: path.to_owned() };
    let params =
        LoadParams { context: Some(Tokens(128)), threads: Some(1), ..LoadParams::default() };
    let config = EngineConfig::new(runner);
    let told = |error: &BackendError| (Some(error.kind), format!("{error} {error:?}"));
    let model = LocalModel::start(config, "hostile".to_owned(), file, params, |_| {}).await;
    let model = match model {
        Ok(model) => model,
        Err(error) => return told(&error),
    };
    // Its template is read where a conversation needs it.
    let prompt = match model.loaded().has_chat_template {
        true => Prompt::Chat(vec![Message::new(Role::User, "abc")]),
        false => Prompt::Text("abc".into()),
    };
    // Long enough for a good part of the secret, a letter a token.
    let (sampling, max_tokens) = (Sampling::greedy(), Some(Tokens(64)));
    let request = Request { sampling, max_tokens, ..Request::new(prompt) };
    let answered = answer(&model, request).await;
    model.shutdown().await;
    match answered {
        Ok(text) => (None, text),
        Err(error) => told(&error),
    }
}

/// Lets every one of `models` be loaded while another runner answers, and counts what became of them.
async fn beside_them(models: impl Iterator<Item = (String, Vec<u8>)>) -> Tally {
    let runner = testkit::runner().unwrap();
    let steady = Arc::new(start(EngineConfig::new(&runner)).await);
    // What is guessed ahead depends on time, and steps of another length round otherwise.
    let request = || Request { deterministic: true, ..question(&format!("What are {SECRET}?")) };
    let usual = answer(&steady, request()).await.unwrap();
    let pid = steady.pid();
    let done = Arc::new(AtomicBool::new(false));
    let others = {
        let (steady, done, usual) = (Arc::clone(&steady), Arc::clone(&done), usual.clone());
        async move {
            let mut answers = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(answer(&steady, request()).await.unwrap(), usual);
                answers += 1;
            }
            answers
        }
    };
    let attack = async {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let mut tally = Tally::default();
        for (name, bytes) in models {
            let mut file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
            file.write_all(&bytes).unwrap();
            let tried = timeout(PATIENCE, try_model(&runner, file.path())).await;
            assert!(tried.is_ok(), "{name} makes somebody wait");
            let (kind, said) = tried.unwrap();
            assert!(!tells(&said), "{name} said {said}");
            match kind {
                None => tally.answered += 1,
                Some(ErrorKind::Crashed | ErrorKind::Quarantined) => {
                    tally.crashed += 1;
                    tally.ends.push(format!("{name}: {said}"));
                }
                Some(_) => tally.refused += 1,
            }
        }
        done.store(true, Ordering::Relaxed);
        tally
    };
    let (tally, answers) = tokio::join!(attack, others);
    assert!(answers > 0);
    // The other one was asked about it and says some of it: it would be noticed.
    assert!(tells(&usual), "{usual}");
    assert_eq!(answer(&steady, request()).await.unwrap(), usual);
    assert_eq!(steady.pid(), pid, "another model's runner died too");
    tally
}

#[tokio::test]
async fn models_after_public_reports_end_no_more_than_their_runner() {
    if testkit::runner().is_none() {
        return;
    }
    let models = testkit::hostile();
    let count = models.len();
    let tally = beside_them(models.into_iter().map(|(name, bytes)| (name.to_owned(), bytes))).await;
    assert_eq!(tally.total(), count);
    // All but the odd one that is harmless by now.
    assert!(tally.refused + tally.crashed >= 5, "{tally:?}");
    println!("{}", tally.told("reports"));
}

#[tokio::test]
async fn changed_models_end_no_more_than_their_runner() {
    if testkit::runner().is_none() {
        return;
    }
    let count =
        std::env::var("TIELINE_MUTANTS").map_or(150, |text| text.parse().expect("a number"));
    let model = testkit::tiny();
    let mutants = (0..count).map(|seed| (format!("mutant {seed}"), mutant(&model, seed)));
    let tally = beside_them(mutants).await;
    assert_eq!(tally.total(), usize::try_from(count).unwrap());
    // Otherwise what was changed is nothing that matters, or everything is refused unread.
    assert!(tally.refused > 0 && tally.answered > 0, "{tally:?}");
    println!("{}", tally.told("mutants"));
}

#[tokio::test]
async fn the_tiny_model_answers() {
    let Some(runner) = testkit::runner() else { return };
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&testkit::tiny()).unwrap();
    assert_eq!(try_model(&runner, file.path()).await.0, None);
}
