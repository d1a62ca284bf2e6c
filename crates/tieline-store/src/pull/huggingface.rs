//! Gets a file of a Hugging Face repository: chooses it, pins the commit, learns the digest.

use reqwest::Url;
use reqwest::header::HeaderMap;
use tieline_types::Digest;

use super::download;
use super::error::MirrorError;
use super::http::{self, Question};
use super::job::{Fetched, Job};
use super::plan::{is_gguf, is_part, refuse_part};

/// A reference, taken apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Repository<'a> {
    pub(crate) owner: &'a str,
    pub(crate) repo: &'a str,
    pub(crate) revision: Option<&'a str>,
    pub(crate) selector: Option<&'a str>,
}

pub(crate) async fn fetch(
    job: &Job<'_>,
    repository: Repository<'_>,
) -> Result<Fetched, MirrorError> {
    let Repository { owner, repo, .. } = repository;
    let revision = repository.revision.unwrap_or("main");
    let (revision, file) = match repository.selector {
        Some(file) if is_gguf(file) => {
            refuse_part(file)?;
            (revision.to_owned(), file.to_owned())
        }
        _ => choose(job, repository, revision).await?,
    };
    let steps = [owner, repo, "resolve", &revision].into_iter().chain(file.split('/'));
    let question = question(job, steps)?;
    let announced = announced(job, &question).await?;
    let commit = announced.commit.as_deref().unwrap_or(&revision);
    let source = format!("hf:{owner}/{repo}@{commit}:{file}");
    if let (Some(expected), Some(found)) = (job.expected, announced.digest)
        && expected != found
    {
        return Err(MirrorError::WrongDigest { expected, found });
    }
    let mut fetched = Fetched { announced: announced.digest, ..Fetched::from(&source) };
    if announced.digest.is_some_and(|digest| job.layout.blob(digest).exists()) {
        fetched.is_here = true;
        return Ok(fetched);
    }
    download::download(job, &source, &question).await?;
    Ok(fetched)
}

/// The hub's path for `steps`, with the user's token.
fn question<'s>(
    job: &Job<'_>,
    steps: impl Iterator<Item = &'s str>,
) -> Result<Question, MirrorError> {
    let hub = &job.environment.hugging_face;
    let mut url = http::parse_url(&hub.endpoint)?;
    extend(&mut url, steps)?;
    Ok(Question { url, headers: http::plain_headers(), token: hub.token.clone() })
}

fn extend<'s>(url: &mut Url, steps: impl Iterator<Item = &'s str>) -> Result<(), MirrorError> {
    let shown = http::show(url);
    let Ok(mut path) = url.path_segments_mut() else {
        let problem = "it is no address of a hub".to_owned();
        return Err(MirrorError::Nonsense { url: shown, problem });
    };
    path.pop_if_empty().extend(steps);
    Ok(())
}

struct Announced {
    commit: Option<String>,
    digest: Option<Digest>,
}

/// Asks for the first byte only, to learn what the file is before it is fetched.
async fn announced(job: &Job<'_>, question: &Question) -> Result<Announced, MirrorError> {
    let mut question = question.clone();
    let first = reqwest::header::HeaderValue::from_static("bytes=0-0");
    question.headers.insert(reqwest::header::RANGE, first);
    let url = http::show(&question.url);
    let answer = job.http.get(question).await?;
    http::success(&url, answer.response)?;
    let commit = text(&answer.announced, "x-repo-commit").filter(|text| is_commit(text));
    let etag = text(&answer.announced, "x-linked-etag").map(|text| text.trim_matches('"'));
    Ok(Announced {
        commit: commit.map(str::to_owned),
        digest: etag.and_then(|hex| format!("sha256:{hex}").parse().ok()),
    })
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The commit and the one file that is meant.
async fn choose(
    job: &Job<'_>,
    repository: Repository<'_>,
    revision: &str,
) -> Result<(String, String), MirrorError> {
    let Repository { owner, repo, selector, .. } = repository;
    let steps = ["api", "models", owner, repo, "revision", revision];
    let listing = job.http.json(question(job, steps.into_iter())?).await?;
    let files: Vec<&str> = listing["siblings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|sibling| sibling["rfilename"].as_str())
        .filter(|file| is_plain(file))
        .collect();
    let file = choose_file(&files, selector).map_err(|problem| MirrorError::Choice {
        repository: format!("{owner}/{repo}"),
        problem,
    })?;
    let commit = listing["sha"].as_str().filter(|text| is_commit(text)).unwrap_or(revision);
    Ok((commit.to_owned(), file.to_owned()))
}

fn choose_file<'f>(files: &[&'f str], selector: Option<&str>) -> Result<&'f str, String> {
    let models: Vec<&str> = files.iter().copied().filter(|file| is_model(file)).collect();
    let meant: Vec<&str> = match selector {
        Some(quant) => models.iter().copied().filter(|file| has_quant(file, quant)).collect(),
        None => models.clone(),
    };
    let shown = |files: &[&str]| match files {
        [] => "no .gguf file".to_owned(),
        files => files.iter().take(20).copied().collect::<Vec<_>>().join(", "),
    };
    match (meant.as_slice(), selector) {
        ([file], _) if is_part(file) => {
            Err(format!("{file} is one of several parts, which this version cannot join"))
        }
        ([file], _) => Ok(file),
        ([], Some(quant)) => Err(format!("no file has {quant:?}; there is {}", shown(&models))),
        ([], None) => Err("it has no .gguf file".to_owned()),
        (many, _) => Err(format!("name one of its files: {}", shown(many))),
    }
}

/// Whether a listed name is a path that a reference can name and a terminal can show: others are passed by.
fn is_plain(file: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '+' | ' ');
    let step = |step: &str| {
        !matches!(step, "" | "." | "..") && !step.starts_with('-') && step.chars().all(plain)
    };
    file.split('/').all(step)
}

/// Projectors and importance matrices lie beside models and are none.
fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
    is_gguf(&name) && !name.contains("mmproj") && !name.contains("imatrix")
}

/// Whether the quantisation stands in the file's name by itself: `Q4_K` is not in `Q4_K_M`.
fn has_quant(file: &str, quant: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
    let quant = quant.to_ascii_lowercase();
    name.match_indices(&quant).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + quant.len()..].chars().next();
        before.is_none_or(|c| "._-".contains(c)) && after.is_none_or(|c| ".-".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [&str; 8] = [
        "README.md",
        "m.Q4_K.gguf",
        "m.Q4_K_M.gguf",
        "m.IQ4_XS.gguf",
        "sub/m-Q8_0.gguf",
        "mmproj-m-F16.gguf",
        "m-BF16-00001-of-00002.gguf",
        "m-BF16-00002-of-00002.gguf",
    ];

    #[track_caller]
    fn check(files: &[&str], selector: Option<&str>, want: Result<&str, &str>) {
        let found = choose_file(files, selector);
        match want {
            Ok(file) => assert_eq!(found, Ok(file)),
            Err(part) => assert!(found.as_ref().unwrap_err().contains(part), "{found:?}"),
        }
    }

    #[test]
    fn names_that_climb_or_steer_are_passed_by() {
        assert!(is_plain("sub/m-Q8_0.gguf"));
        for name in ["../m.gguf", "a//m.gguf", "m\u{1b}[2J.gguf", "-m.gguf", "/m.gguf", ""] {
            assert!(!is_plain(name), "{name:?}");
        }
    }

    #[test]
    fn one_file_is_chosen_or_the_choice_is_shown() {
        check(&FILES, Some("q4_k_m"), Ok("m.Q4_K_M.gguf"));
        check(&FILES, Some("Q4_K"), Ok("m.Q4_K.gguf"));
        check(&FILES, Some("Q8_0"), Ok("sub/m-Q8_0.gguf"));
        check(&FILES, Some("F16"), Err("no file has \"F16\""));
        check(&FILES, Some("BF16"), Err("name one of its files"));
        check(&FILES, None, Err("name one of its files"));
        check(&FILES[..2], None, Ok("m.Q4_K.gguf"));
        check(&FILES[6..7], None, Err("several parts"));
        check(&FILES[..1], None, Err("no .gguf file"));
    }
}
