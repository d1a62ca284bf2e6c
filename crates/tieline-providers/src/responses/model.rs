//! What a model of this vendor can do, by its name.

/// What decides how a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Model {
    /// `o1`, `o3`, `o4-mini`: thinks, whatever it is told.
    AlwaysThinks,
    /// `gpt-5`: thinks at least a little.
    ThinksALittle,
    /// `gpt-5.1` and later: thinks or not.
    ThinksIfAsked,
    /// `gpt-4o` and the like: cannot think.
    NeverThinks,
    /// No name that is known here: asked for all that is wished.
    Unknown,
}

impl Model {
    /// Reads the name, also after a vendor's prefix.
    pub(super) fn of(name: &str) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name);
        if ["o1", "o3", "o4"].iter().any(|family| is_family(name, family)) {
            return Self::AlwaysThinks;
        }
        match version(name) {
            None => Self::Unknown,
            Some(_) if name.contains("-chat") => Self::NeverThinks,
            Some((0..=4, _)) => Self::NeverThinks,
            Some((5, 0)) => Self::ThinksALittle,
            Some(_) => Self::ThinksIfAsked,
        }
    }

    /// Refuses temperature, `top_p` and log-probabilities.
    pub(super) fn samples_alone(self, thinking: Option<bool>) -> bool {
        match self {
            Self::AlwaysThinks | Self::ThinksALittle => true,
            Self::ThinksIfAsked => thinking != Some(false),
            Self::NeverThinks | Self::Unknown => false,
        }
    }
}

/// Whether a model takes options for the vendor's cache, by which it is switched off.
pub(super) fn has_cache_options(name: &str) -> bool {
    version(name.rsplit('/').next().unwrap_or(name)).is_some_and(|version| version >= (5, 6))
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
        check("gpt-5-chat-latest", Model::NeverThinks);
        check("openai/gpt-5.1", Model::ThinksIfAsked);
        check("gpt-6", Model::ThinksIfAsked);
        check("gpt-4o-mini", Model::NeverThinks);
        check("gpt-4.1", Model::NeverThinks);
        check("gpt-oss-20b", Model::Unknown);
        check("o300-something", Model::Unknown);
    }
}
