//! What a model of this vendor can do, by its name. The vendor's chat completions go by it too.

/// What decides how a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    /// `o1`, `o3`, `o4-mini`, `gpt-5-codex`: thinks, whatever it is told.
    AlwaysThinks,
    /// `gpt-5`: thinks at least a little.
    ThinksALittle,
    /// `gpt-5-pro`, `gpt-5.2-chat-latest`: thinks as much as it likes, and takes no word for less.
    ThinksAlone,
    /// `gpt-5.1` and later: thinks or not.
    ThinksIfAsked,
    /// `gpt-4o` and the like: cannot think.
    NeverThinks,
    /// No name that is known here: asked for all that is wished.
    Unknown,
}

/// How much a model is told to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// This much.
    Word(&'static str),
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
            Some(_) => Self::ThinksIfAsked,
        }
    }

    /// Refuses temperature, `top_p` and log-probabilities.
    pub(crate) fn samples_alone(self, thinking: Option<bool>) -> bool {
        match self {
            Self::AlwaysThinks | Self::ThinksALittle | Self::ThinksAlone => true,
            Self::ThinksIfAsked => thinking != Some(false),
            Self::NeverThinks | Self::Unknown => false,
        }
    }

    /// What is said to one that is to think, or not to.
    pub(crate) fn effort(self, thinks: bool) -> Effort {
        match (self, thinks) {
            (Self::NeverThinks, _) => Effort::Cannot,
            (Self::ThinksAlone, _) => Effort::Unsaid,
            (
                Self::AlwaysThinks | Self::ThinksALittle | Self::ThinksIfAsked | Self::Unknown,
                true,
            ) => Effort::Word("medium"),
            (Self::AlwaysThinks, false) => Effort::Least("low"),
            (Self::ThinksALittle, false) => Effort::Least("minimal"),
            (Self::ThinksIfAsked | Self::Unknown, false) => Effort::Word("none"),
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
        check("gpt-6", Model::ThinksIfAsked);
        check("gpt-4o-mini", Model::NeverThinks);
        check("gpt-4.1", Model::NeverThinks);
        check("gpt-oss-20b", Model::Unknown);
        check("o300-something", Model::Unknown);
    }
}
