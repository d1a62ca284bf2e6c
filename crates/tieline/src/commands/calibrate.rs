//! `tieline calibrate`

use std::fs;

use serde::{Deserialize, Serialize};
use tieline_router::carry::commit::seen;
use tieline_router::quality::{Calibration, Features, LabelledAnswer, calibrate as fit};
use tieline_store::profiles::{CalibrationRow, Outcomes};
use tieline_store::{DbError, Store};
use tieline_types::{
    Digest, FinishReason, LoadParams, Message, Prompt, Request, Role, Sampling, Tokens,
};

use crate::answer::{self, Answer};
use crate::app::App;
use crate::args::Calibrate;
use crate::bars;
use crate::failure::{Failure, with_causes};

/// Bytes of a file of examples at most.
const MOST_BYTES: u64 = 64 << 20;
/// Decides the folds.
const SEED: u64 = 1;

/// One line of the examples.
#[derive(Deserialize)]
struct Example {
    prompt: String,
    expected: String,
}

/// What is kept, and printed for programs.
#[derive(Serialize)]
struct Report<'a> {
    model: &'a str,
    digest: Digest,
    task: &'a str,
    max_tokens: Tokens,
    right: usize,
    /// Whether it is kept: one of too few answers does not replace one that says something.
    kept: bool,
    #[serde(flatten)]
    calibration: &'a Calibration,
}

pub(super) fn calibrate(app: &App, args: &Calibrate) -> Result<(), Failure> {
    let examples = examples(args)?;
    let model = app.installed_or_pulled(&args.model)?;
    let loaded = app.load(&model, (LoadParams::default(), None), None)?;
    let bar =
        bars::counted(app.output, format!("calibrating {}", model.name), examples.len() as u64);
    let mut answers = Vec::with_capacity(examples.len());
    for example in &examples {
        let answer = answer::ask(app, &loaded, request(example, args.max_tokens), |_| Ok(()))?;
        if answer.is_cut_short() {
            return Err(Failure::interrupted("interrupted while calibrating: nothing is kept"));
        }
        answers.extend(labelled(&answer, &example.expected));
        bar.inc(1);
    }
    bar.finish_and_clear();
    loaded.end(app);
    let calibration = fit(&answers, SEED);
    let right = answers.iter().filter(|answer| answer.correct > 0.5).count();
    let (model, digest, task) = (model.name.as_str(), model.digest, args.task.as_str());
    let max_tokens = Tokens(args.max_tokens);
    let stays = match calibration.map {
        Some(_) => None,
        None => fitted_before(&app.store, digest, task)
            .map_err(|error| Failure::ours(with_causes(&error)))?,
    };
    let (kept, calibration) = (stays.is_none(), &calibration);
    let report = Report { model, digest, task, max_tokens, right, kept, calibration };
    if kept {
        keep(app, &report)?;
    }
    if let Some(path) = &args.out {
        let text = serde_json::to_string_pretty(&report);
        let text = text.map_err(|error| Failure::ours(format!("cannot write JSON: {error}")))?;
        fs::write(path, text).map_err(|error| {
            Failure::user(format!("cannot write the calibration to {}: {error}", path.display()))
        })?;
    }
    if app.output.is_json() {
        return app.output.value(&report);
    }
    app.output.line(&text(&report, stays))
}

/// The answers of an older calibration of the model at this task, where there were enough of them.
fn fitted_before(store: &Store, digest: Digest, task: &str) -> Result<Option<usize>, DbError> {
    let rows = store.calibrations()?;
    let row = rows.iter().find(|row| row.digest == digest && row.task == task);
    // What cannot be read is used by nobody.
    let older: Option<Calibration> =
        row.and_then(|row| serde_json::from_str(&row.calibration).ok());
    Ok(older.filter(|older| older.map.is_some()).map(|older| older.labels))
}

/// Keeps the calibration, for the gates of cascades, and how often the model was right.
fn keep(app: &App, report: &Report<'_>) -> Result<(), Failure> {
    let Report { digest, task, right, calibration, .. } = report;
    let at_unix_ms = jiff::Timestamp::now().as_millisecond();
    let text = serde_json::to_string(calibration);
    let text = text.map_err(|error| Failure::ours(format!("cannot write JSON: {error}")))?;
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let (digest, task) = (*digest, (*task).to_owned());
    let row = CalibrationRow { digest, task: task.clone(), calibration: text, at_unix_ms };
    let outcomes = Outcomes {
        model: digest.hex(),
        task,
        origin: "calibrate".to_owned(),
        correct: f64::from(count(*right)),
        answers: count(calibration.labels),
        at_unix_ms,
    };
    let kept = app.store.keep_calibration(&row, &outcomes);
    kept.map_err(|error| Failure::ours(with_causes(&error)))
}

/// The calibration that stays on so many answers, where this one is not kept.
fn text(report: &Report<'_>, stays: Option<usize>) -> String {
    let Report { model, calibration, right, .. } = report;
    let head = format!("{model}: {right} of {} answers right", calibration.labels);
    let more = match calibration.ece.zip(calibration.brier) {
        Some((ece, brier)) => format!(
            "calibration error {:.3}, 95 % interval {:.3} to {:.3}; Brier score {brier:.3}; both outside of the fit",
            ece.value, ece.low, ece.high
        ),
        None => "uncalibrated: at least 50 answers are needed".to_owned(),
    };
    let more = match stays {
        Some(labels) => format!("{more}; nothing is kept, and the calibration on {labels} stays"),
        None => more,
    };
    format!("{head}\n{more}")
}

/// Reads all lines before the model is loaded, so that a mistake costs no time. No error repeats a line.
fn examples(args: &Calibrate) -> Result<Vec<Example>, Failure> {
    let path = args.data.display();
    let unreadable =
        |why: String| Failure::user(format!("cannot read the examples in {path}: {why}"));
    let size = fs::metadata(&args.data).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MOST_BYTES {
        return Err(unreadable(format!("it is longer than {MOST_BYTES} bytes")));
    }
    let text = fs::read_to_string(&args.data).map_err(|error| unreadable(error.to_string()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let examples = lines.map(|(index, line)| {
        let example: Option<Example> = serde_json::from_str(line).ok();
        let example = example.filter(|example| !words(&example.expected).is_empty());
        example.ok_or_else(|| {
            unreadable(format!("line {} has no \"prompt\" and \"expected\"", index + 1))
                .with_hint(r#"each line is {"prompt": "…", "expected": "…"}"#)
        })
    });
    let examples: Vec<Example> = examples.collect::<Result<_, _>>()?;
    if examples.is_empty() { Err(unreadable("it is empty".to_owned())) } else { Ok(examples) }
}

fn request(example: &Example, max_tokens: u32) -> Request {
    let message = Message::new(Role::User, example.prompt.as_str());
    Request {
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        max_tokens: Some(Tokens(max_tokens)),
        logprobs: Some(2),
        ..Request::new(Prompt::Chat(vec![message]))
    }
}

/// `None`: the answer has no token, so nothing was seen of it.
fn labelled(answer: &Answer, expected: &str) -> Option<LabelledAnswer> {
    let tokens: Vec<_> = answer.logprobs.iter().map(seen).collect();
    let reason = &answer.finished.reason;
    let truncated = matches!(reason, FinishReason::MaxTokens | FinishReason::ContextFull);
    // As much as a cascade sees before it judges.
    let features = Features::head(&tokens, truncated)?;
    Some(LabelledAnswer {
        features,
        correct: if is_right(&answer.text, expected) { 1.0 } else { 0.0 },
    })
}

/// Whether the expected words stand in the answer, one after another; case and marks aside, but for a number's sign.
fn is_right(answer: &str, expected: &str) -> bool {
    let (answer, expected) = (words(answer), words(expected));
    !expected.is_empty() && answer.windows(expected.len()).any(|some| some == expected)
}

/// Of a script without spaces each character is one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    // Whether the last one goes on.
    let mut open = false;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let is_number = characters.peek().is_some_and(|next| next.is_numeric());
        if !open && is_number && matches!(character, '-' | '−') {
            words.push("-".to_owned());
            open = true;
            continue;
        }
        if !character.is_alphanumeric() {
            open = false;
            continue;
        }
        let alone = is_unspaced(character);
        match words.last_mut() {
            Some(word) if open && !alone => word.extend(character.to_lowercase()),
            Some(_) | None => words.push(character.to_lowercase().collect()),
        }
        open = !alone;
    }
    words
}

/// Whether words of the character's script stand side by side without a space: Thai, Lao, Burmese, Khmer, kana, Han.
fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{e00}'..='\u{eff}'
        | '\u{1000}'..='\u{109f}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{3005}'..='\u{3007}'
        | '\u{3040}'..='\u{30ff}'
        | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{ff66}'..='\u{ff9f}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_expected_words_must_stand_together() {
        let check =
            |answer, expected, want| assert_eq!(is_right(answer, expected), want, "{answer}");
        check("The capital is Paris.", "paris", true);
        check("It is 42, I think", "42", true);
        check("It is 420", "42", false);
        check("New old York", "New York", false);
        check("", "x", false);
    }

    #[test]
    fn words_of_a_script_without_spaces_stand_within_a_sentence() {
        let check =
            |answer, expected, want| assert_eq!(is_right(answer, expected), want, "{answer}");
        check("法国的首都是巴黎。", "巴黎", true);
        check("法国的首都是伦敦。", "巴黎", false);
        check("フランスの首都はパリです", "パリ", true);
        check("เมืองหลวงคือปารีสครับ", "ปารีส", true);
        check("一共15个", "15", true);
        check("一共15个", "5", false);
        check("是-5。", "-5", true);
    }

    #[test]
    fn a_sign_belongs_to_its_number() {
        let check =
            |answer, expected, want| assert_eq!(is_right(answer, expected), want, "{answer}");
        check("5", "-5", false);
        check("It is -5.", "5", false);
        check("It is −5.", "-5", true);
        check("x=-5", "-5", true);
        // That is a hyphen.
        check("pages 3-5", "3 5", true);
        check("COVID-19", "covid 19", true);
    }

    #[test]
    fn too_few_answers_replace_no_calibration_on_enough() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let digest = Digest([7; 32]);
        let keep = |task: &str, labels: u8| {
            let answer = |number: u8| LabelledAnswer {
                features: Features::head(&[(1, -f64::from(number), None); 4], false).unwrap(),
                correct: f64::from(number % 2),
            };
            let answers: Vec<_> = (0..labels).map(answer).collect();
            let calibration = serde_json::to_string(&fit(&answers, SEED)).unwrap();
            let task = task.to_owned();
            let (row, model) = (task.clone(), digest.hex());
            let row = CalibrationRow { digest, task: row, calibration, at_unix_ms: 1 };
            let (correct, answers, origin) = (1.0, u32::from(labels), String::new());
            let outcomes = Outcomes { model, task, origin, correct, answers, at_unix_ms: 1 };
            store.keep_calibration(&row, &outcomes).unwrap();
        };
        keep("any", 60);
        keep("math", 30);
        let before = |task: &str| fitted_before(&store, digest, task).unwrap();
        assert_eq!((before("any"), before("math"), before("code")), (Some(60), None, None));
    }

    #[test]
    fn a_line_that_is_wrong_is_named_but_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("examples.jsonl");
        let read = |text: &str| {
            fs::write(&data, text).unwrap();
            let (model, out, task) = (String::new(), None, String::new());
            examples(&Calibrate { model, data: data.clone(), out, task, max_tokens: 9 })
        };
        let good = r#"{"prompt": "2+2?", "expected": "4"}"#;
        assert_eq!(read(&format!("{good}\n\n{good}\n")).unwrap().len(), 2);
        let failure = read(&format!("{good}\nsecret\n")).err().unwrap();
        assert!(failure.message.ends_with(r#"line 2 has no "prompt" and "expected""#));
        assert!(read("").err().unwrap().message.ends_with("it is empty"));
    }
}
