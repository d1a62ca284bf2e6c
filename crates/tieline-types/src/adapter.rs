//! LoRA adapters: small files that change what a base model says. How a user names a base with adapters, and
//! how a request does.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::model_ref::{ModelRef, ParseModelRefError};
use crate::{Bytes, Digest};

/// How much of an adapter's change is applied: 1 is all of it, 0 none, a negative number its opposite.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "f32", into = "f32")]
pub struct Scale(f32);

// Never NaN, and zero has one sign.
impl Eq for Scale {}

impl Scale {
    /// All of the change.
    pub const FULL: Self = Self(1.0);
    /// The farthest from zero.
    pub const MAX: f32 = 10.0;

    /// `None` for a number that is none, or farther from zero than [`Scale::MAX`].
    pub fn new(scale: f32) -> Option<Self> {
        // `+ 0.0` turns the negative zero into the other.
        (scale.abs() <= Self::MAX).then_some(Self(scale + 0.0))
    }

    /// The number.
    pub fn get(self) -> f32 {
        self.0
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::FULL
    }
}

impl From<Scale> for f32 {
    fn from(scale: Scale) -> Self {
        scale.0
    }
}

impl TryFrom<f32> for Scale {
    type Error = String;

    fn try_from(scale: f32) -> Result<Self, Self::Error> {
        Self::new(scale).ok_or_else(|| {
            format!("{scale} is no scale of an adapter: expected a number from -10 to 10")
        })
    }
}

impl fmt::Display for Scale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An adapter that a request asks for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Adapter {
    /// What its file holds.
    pub digest: Digest,
    /// How much of its change is applied.
    #[serde(default)]
    pub scale: Scale,
    /// Where its file is: for the engine, which sends the bytes to the runner. No frame holds it.
    #[serde(skip)]
    pub file: Option<AdapterFile>,
}

/// Where an adapter's file lies.
#[derive(Clone, Debug)]
pub struct AdapterFile {
    /// Its path.
    pub path: PathBuf,
    /// How long it is: what it takes in memory.
    pub bytes: Bytes,
}

/// Where the file lies makes no other adapter of it.
impl PartialEq for Adapter {
    fn eq(&self, other: &Self) -> bool {
        (self.digest, self.scale) == (other.digest, other.scale)
    }
}

impl Eq for Adapter {}

/// The adapters of one request, in an order of their own: two sets of the same adapters are equal, however they
/// were named. One whose scale is zero changes nothing and is in none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Adapter>", into = "Vec<Adapter>")]
pub struct Adapters(Vec<Adapter>);

/// Adapters that cannot be applied together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AdaptersError {
    /// More than [`Adapters::MOST`].
    #[error("{0} adapters are asked for at once: expected at most {most}", most = Adapters::MOST)]
    TooMany(usize),
    /// It would be applied once, by either scale.
    #[error("the adapter {digest} is named twice", digest = .0)]
    Twice(Digest),
}

impl Adapters {
    /// The most adapters of one request.
    pub const MOST: usize = 4;

    /// A set of these.
    ///
    /// # Errors
    /// They are too many, or one is named twice.
    pub fn new(adapters: impl IntoIterator<Item = Adapter>) -> Result<Self, AdaptersError> {
        let mut all: Vec<Adapter> = adapters.into_iter().collect();
        if all.len() > Self::MOST {
            return Err(AdaptersError::TooMany(all.len()));
        }
        all.sort_by_key(|adapter| adapter.digest);
        if let Some(pair) = all.windows(2).find(|pair| pair[0].digest == pair[1].digest) {
            return Err(AdaptersError::Twice(pair[0].digest));
        }
        all.retain(|adapter| adapter.scale.get() != 0.0);
        Ok(Self(all))
    }

    /// The adapters, by digest.
    pub fn iter(&self) -> impl Iterator<Item = &Adapter> {
        self.0.iter()
    }

    /// Whether the base is asked for as it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What those whose files are known take in memory.
    pub fn sizes(&self) -> impl Iterator<Item = HeldAdapter> {
        self.iter().filter_map(|one| {
            Some(HeldAdapter { digest: one.digest, bytes: one.file.as_ref()?.bytes })
        })
    }

    /// Names the set and nothing else: `sha256:…@0.5+sha256:…@1`. Empty for none.
    pub fn key(&self) -> String {
        // A float's `Display` is the shortest text that reads back the same.
        let one = |adapter: &Adapter| format!("{}@{}", adapter.digest, adapter.scale);
        self.0.iter().map(one).collect::<Vec<_>>().join("+")
    }
}

impl TryFrom<Vec<Adapter>> for Adapters {
    type Error = AdaptersError;

    fn try_from(all: Vec<Adapter>) -> Result<Self, Self::Error> {
        Self::new(all)
    }
}

impl From<Adapters> for Vec<Adapter> {
    fn from(adapters: Adapters) -> Self {
        adapters.0
    }
}

/// An adapter that a runner holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldAdapter {
    /// What its file holds.
    pub digest: Digest,
    /// How much memory its file's bytes take.
    pub bytes: Bytes,
}

/// A name of a base with adapters: `base+adapter`, `base+adapter@0.5`, `base+one@0.5+two`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    /// The base's name.
    pub base: ModelRef,
    /// The adapters' names and scales, as they were named.
    pub adapters: Vec<(ModelRef, Scale)>,
}

impl Composed {
    /// Reads such a name; `None` where `text` names no adapters.
    ///
    /// Only names and digests are composed: places on the internet and paths may hold a `+` of their own.
    ///
    /// # Errors
    /// A part is missing or no name, a scale no number, or the adapters are too many.
    pub fn parse(text: &str) -> Result<Option<Self>, ParseModelRefError> {
        let place = |scheme: &str| text.starts_with(scheme);
        if !text.contains('+')
            || ["hf:", "pypi:", "file:", "http:", "https:"].into_iter().any(place)
            || text.contains('/')
        {
            return Ok(None);
        }
        let wrong = |problem| ParseModelRefError::new(text, problem);
        let mut parts = text.split('+');
        let base = parts.next().unwrap_or_default();
        let base =
            base.parse().map_err(|_| wrong("before the first \"+\" stands a model's name"))?;
        let adapters: Vec<_> = parts.map(adapter).collect::<Result<_, _>>().map_err(wrong)?;
        if adapters.len() > Adapters::MOST {
            return Err(wrong("at most four adapters can be applied at once"));
        }
        Ok(Some(Self { base, adapters }))
    }
}

/// `name` or `name@scale`.
fn adapter(part: &str) -> Result<(ModelRef, Scale), &'static str> {
    let (name, scale) = match part.split_once('@') {
        Some((name, scale)) => (name, Some(scale)),
        None => (part, None),
    };
    let name = name.parse().map_err(|_| "after each \"+\" stands an adapter's name")?;
    let number = scale.map_or(Some(Scale::FULL), |scale| Scale::new(scale.parse().ok()?));
    let scale = number.ok_or("after \"@\" stands an adapter's scale, a number from -10 to 10")?;
    Ok((name, scale))
}

impl fmt::Display for Composed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.base.fmt(f)?;
        self.adapters.iter().try_for_each(|(name, scale)| match *scale {
            Scale::FULL => write!(f, "+{name}"),
            scale => write!(f, "+{name}@{scale}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn use_of(number: u8, scale: f32) -> Adapter {
        Adapter { digest: Digest([number; 32]), scale: Scale::new(scale).unwrap(), file: None }
    }

    #[track_caller]
    fn check(text: &str, want: Option<&str>) {
        let parsed = Composed::parse(text).unwrap();
        assert_eq!(parsed.map(|name| name.to_string()).as_deref(), want, "{text}");
    }

    #[track_caller]
    fn refused(text: &str, problem: &str) {
        let error = Composed::parse(text).unwrap_err();
        assert!(error.problem().contains(problem), "{text}: {error}");
    }

    #[test]
    fn names_are_taken_apart() {
        check("smollm2", None);
        check("qwen3:0.6b+law", Some("qwen3:0.6b+law"));
        check("Base+Law@0.50+b@1.0", Some("base+law@0.5+b"));
        check("a+b@-0", Some("a+b@0"));
        let digest = format!("sha256:{}", "0a".repeat(32));
        check(&format!("{digest}+{digest}@2"), Some(&format!("{digest}+{digest}@2")));
    }

    #[test]
    fn a_plus_in_a_place_is_the_places_own() {
        check("pypi:a==1+cpu:m.gguf", None);
        check("hf:o/r:a+b.gguf", None);
        check("https://example.org/a+b.gguf", None);
        check("file:a+b.gguf", None);
    }

    #[test]
    fn what_is_wrong_is_said() {
        refused("+a", "before the first");
        refused("a+", "after each");
        refused("a++b", "after each");
        refused("a+b@", "scale");
        refused("a+b@x", "scale");
        refused("a+b@nan", "scale");
        refused("a+b@11", "scale");
        refused("a+b+c+d+e+f", "four");
    }

    #[test]
    fn sets_of_the_same_adapters_are_equal() {
        let set = |all: &[Adapter]| Adapters::new(all.to_vec()).unwrap();
        let (one, two) = (use_of(1, 0.5), use_of(2, 1.0));
        assert_eq!(set(&[one.clone(), two.clone()]), set(&[two.clone(), one.clone()]));
        assert_ne!(set(std::slice::from_ref(&one)), set(&[use_of(1, 0.25)]));
        assert_ne!(set(std::slice::from_ref(&one)).key(), set(&[use_of(1, 0.25)]).key());
        // What changes nothing is not there.
        assert!(set(&[use_of(1, 0.0), use_of(2, -0.0)]).is_empty());
        assert_eq!(set(&[]).key(), "");
        let digest = Digest([1; 32]);
        let twice = Adapters::new([use_of(1, 1.0), use_of(1, 0.0)]);
        assert_eq!(twice, Err(AdaptersError::Twice(digest)));
        let many = (0..5).map(|number| use_of(number, 1.0));
        assert_eq!(Adapters::new(many), Err(AdaptersError::TooMany(5)));
    }

    #[test]
    fn sets_and_scales_that_cannot_be_do_not_decode() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let read = |text: String| serde_json::from_str::<Adapters>(&text);
        assert!(read(format!(r#"[{{"digest":"{digest}"}}]"#)).is_ok_and(|set| !set.is_empty()));
        assert!(read(format!(r#"[{{"digest":"{digest}","scale":1e9}}]"#)).is_err());
        let one = format!(r#"{{"digest":"{digest}","scale":1}}"#);
        assert!(read(format!("[{one},{one}]")).is_err());
        let bad = postcard::to_allocvec(&[f32::NAN]).unwrap();
        assert!(postcard::from_bytes::<[Scale; 1]>(&bad).is_err());
    }

    proptest! {
        #[test]
        fn reading_what_was_written_gives_the_same(text in "[a-z+@.0-9:-]{0,30}") {
            if let Ok(Some(first)) = Composed::parse(&text) {
                let again = Composed::parse(&first.to_string());
                prop_assert_eq!(again, Ok(Some(first)));
            }
        }
    }
}
