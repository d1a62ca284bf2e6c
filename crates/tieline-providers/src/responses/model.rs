//! What a model of this vendor can do, by its name. The vendor's chat completions go by it too.

use tieline_types::Effort;

/// What decides how a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// `o1`, `o3`, `o4-mini`, `gpt-5-codex`: thinks, whatever it is told.
    AlwaysThinks,
    /// `gpt-5`: thinks at least a little.
    ThinksALittle,
    /// `gpt-5-pro`, `gpt-5.2-chat-latest`: thinks as much as it likes, and takes no word for less.
    ThinksAlone,
    /// `gpt-5.1`: thinks or not.
    ThinksIfAsked,
    /// `gpt-5.2` and later: thinks or not, and more than others.
    ThinksMore,
    /// `gpt-4o` and the like: cannot think.
    NeverThinks,
    /// No name that is known here: asked for all that is wished.
    Unknown,
}

/// How much a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// This much.
    Word(&'static str),
    /// This much, since it has no word for what was asked.
    Nearest(&'static str),
    /// This much, since it cannot be told not to.
    Least(&'static str),
    /// Nothing is said, and it thinks.
    Unsaid,
    /// Nothing is said, and it does not think.
    Cannot,
}

/// The warning where a model was told not to think and thinks.
pub(crate) const THINKS_ALL_THE_SAME: &str = "the model thinks a little: it cannot be told not to";

impl Model {
    /// Reads the name, also after a vendor's prefix, and that of a fine-tuned model by what it was tuned from.
    pub(crate) fn of(name: &str) -> Self {
        let name = base(name);
        if ["o1", "o3", "o4"].iter().any(|family| is_family(name, family)) {
            return Self::AlwaysThinks;
        }
        match version(name) {
            None if name.starts_with("chatgpt-") => Self::NeverThinks,
            None => Self::Unknown,
            Some((0..=4, _)) => Self::NeverThinks,
            Some((5, 0)) if name.contains("-chat") => Self::NeverThinks,
            Some(_) if name.contains("-chat") || name.contains("-pro") => Self::ThinksAlone,
            Some((5, 0)) if name.contains("-codex") => Self::AlwaysThinks,
            Some((5, 0)) => Self::ThinksALittle,
            Some((5, 1)) if !name.contains("-codex-max") => Self::ThinksIfAsked,
            Some(_) => Self::ThinksMore,
        }
    }

    /// Refuses temperature, `top_p` and log-probabilities.
    pub(crate) fn samples_alone(self, thinking: Option<bool>) -> bool {
        match self {
            Self::AlwaysThinks | Self::ThinksALittle | Self::ThinksAlone => true,
            Self::ThinksIfAsked | Self::ThinksMore => thinking != Some(false),
            Self::NeverThinks | Self::Unknown => false,
        }
    }

    /// What is said to one that is to think, and how much, or not to.
    pub(crate) fn told(self, thinks: bool, effort: Option<Effort>) -> Told {
        match (self, thinks) {
            (Self::NeverThinks, _) => Told::Cannot,
            (Self::ThinksAlone, _) => Told::Unsaid,
            (_, true) => Told::to_think(effort, self.words()),
            (Self::AlwaysThinks, false) => Told::Least("low"),
            (Self::ThinksALittle, false) => Told::Least("minimal"),
            (Self::ThinksIfAsked | Self::ThinksMore | Self::Unknown, false) => Told::Word("none"),
        }
    }

    /// How much it can be told to think, from the least up.
    fn words(self) -> &'static [&'static str] {
        match self {
            Self::ThinksALittle => &["minimal", "low", "medium", "high"],
            Self::ThinksMore => &["low", "medium", "high", "xhigh"],
            Self::Unknown => &["minimal", "low", "medium", "high", "xhigh"],
            Self::AlwaysThinks | Self::ThinksIfAsked | Self::ThinksAlone | Self::NeverThinks => {
                &["low", "medium", "high"]
            }
        }
    }
}

impl Told {
    /// What is said to a model that is to think and takes these words.
    pub(crate) fn to_think(effort: Option<Effort>, words: &'static [&'static str]) -> Self {
        match effort.and_then(|effort| effort.among(words)) {
            None => Self::Word("medium"),
            Some((word, true)) => Self::Word(word),
            Some((word, false)) => Self::Nearest(word),
        }
    }
}

/// The name without a vendor's prefix; `gpt-4o` of `ft:gpt-4o:org::id`.
fn base(name: &str) -> &str {
    let name = name.rsplit('/').next().unwrap_or(name);
    let tuned = name.strip_prefix("ft:").and_then(|rest| rest.split(':').next());
    tuned.unwrap_or(name)
}

/// Whether a model takes options for the vendor's cache, by which it is switched off.
pub(crate) fn has_cache_options(name: &str) -> bool {
    version(base(name)).is_some_and(|version| version >= (5, 6))
}

fn version(name: &str) -> Option<(u32, u32)> {
    let number = name.strip_prefix("gpt-")?.split('-').next()?;
    let mut parts = number.split('.');
    // `4o` is a 4.
    let digits = |part: &str| part.trim_end_matches('o').parse::<u32>().ok();
    let major = parts.next().and_then(digits)?;
    Some((major, parts.next().and_then(digits).unwrap_or(0)))
}

fn is_family(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: Model) {
        assert_eq!(Model::of(name), want, "{name}");
    }

    #[test]
    fn newer_models_take_options_for_the_cache() {
        assert!(has_cache_options("openai/gpt-5.6-mini") && has_cache_options("gpt-6"));
        assert!(!has_cache_options("gpt-5.5") && !has_cache_options("o3"));
    }

    #[test]
    fn how_much_is_told_in_words_that_the_model_takes() {
        let told = |name: &str, effort| Model::of(name).told(true, effort);
        assert_eq!(told("o3", None), Told::Word("medium"));
        assert_eq!(told("o3", Some(Effort::Own)), Told::Word("medium"));
        assert_eq!(told("o3", Some(Effort::High)), Told::Word("high"));
        assert_eq!(told("o3", Some(Effort::Minimal)), Told::Nearest("low"));
        assert_eq!(told("gpt-5", Some(Effort::Minimal)), Told::Word("minimal"));
        assert_eq!(told("gpt-5", Some(Effort::XHigh)), Told::Nearest("high"));
        assert_eq!(told("gpt-5.4", Some(Effort::XHigh)), Told::Word("xhigh"));
        assert_eq!(told("gpt-5.4", Some(Effort::Max)), Told::Nearest("xhigh"));
        assert_eq!(told("gpt-5-pro", Some(Effort::Low)), Told::Unsaid);
        assert_eq!(told("gpt-4o", Some(Effort::Low)), Told::Cannot);
    }

    #[test]
    fn names_tell_what_thinks() {
        check("o3", Model::AlwaysThinks);
        check("o4-mini-2025-04-16", Model::AlwaysThinks);
        check("gpt-5", Model::ThinksALittle);
        check("gpt-5-mini", Model::ThinksALittle);
        check("gpt-5-codex", Model::AlwaysThinks);
        check("gpt-5-chat-latest", Model::NeverThinks);
        check("gpt-5.2-chat-latest", Model::ThinksAlone);
        check("gpt-5-pro-2025-10-06", Model::ThinksAlone);
        check("gpt-5.4-pro", Model::ThinksAlone);
        check("o1-pro", Model::AlwaysThinks);
        check("chatgpt-4o-latest", Model::NeverThinks);
        check("ft:gpt-4o-2024-08-06:org:name:id", Model::NeverThinks);
        check("ft:gpt-4o:org::id", Model::NeverThinks);
        check("ft:o4-mini-2025-04-16:org::id", Model::AlwaysThinks);
        check("openai/gpt-5.1", Model::ThinksIfAsked);
        check("gpt-5.1-codex-max", Model::ThinksMore);
        check("gpt-5.2", Model::ThinksMore);
        check("gpt-6", Model::ThinksMore);
        check("gpt-4o-mini", Model::NeverThinks);
        check("gpt-4.1", Model::NeverThinks);
        check("gpt-oss-20b", Model::Unknown);
        check("o300-something", Model::Unknown);
    }
}
