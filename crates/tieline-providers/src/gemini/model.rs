//! What a model of this vendor can do, by its name.

/// What decides how a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// The version that the name tells, such as (2, 5); `None` where it is no name of Gemini's.
    version: Option<(u32, u32)>,
    pro: bool,
}

impl Model {
    /// Reads `gemini-2.5-flash` and `models/gemini-3-pro-preview`. A name of Gemini's without a version, such as
    /// `gemini-flash-latest`, is one of the newest.
    pub(super) fn of(name: &str) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name);
        let pro = name.contains("-pro");
        let Some(rest) = name.strip_prefix("gemini-") else { return Self { version: None, pro } };
        let number = rest.split('-').next().unwrap_or_default();
        let mut parts = number.split('.').map(|part| part.parse::<u32>().ok());
        let version = match (parts.next().flatten(), parts.next().flatten()) {
            (Some(major), minor) => (major, minor.unwrap_or(0)),
            (None, _) => (u32::MAX, 0),
        };
        Self { version: Some(version), pro }
    }

    fn is_from(self, version: (u32, u32)) -> bool {
        self.version.is_some_and(|own| own >= version)
    }

    /// Refuses calls in a conversation that bring no signature along.
    pub(super) fn wants_signatures(self) -> bool {
        self.is_from((3, 0))
    }

    /// Takes tools and a schema together.
    pub(super) fn takes_tools_with_schema(self) -> bool {
        self.version.is_none() || self.is_from((3, 0))
    }

    /// Thinks.
    pub(super) fn thinks(self) -> bool {
        self.is_from((2, 5))
    }

    /// Takes a level of thinking rather than a number of tokens.
    pub(super) fn has_levels(self) -> bool {
        self.is_from((3, 0))
    }

    /// Those levels, from the least up.
    pub(super) fn levels(self) -> &'static [&'static str] {
        match self.pro {
            false => &["minimal", "low", "medium", "high"],
            true if self.is_from((3, 1)) => &["low", "medium", "high"],
            true => &["low", "high"],
        }
    }

    /// The most tokens that it can be told to think with.
    pub(super) fn most_thinking(self) -> u32 {
        if self.pro { 32_768 } else { 24_576 }
    }

    /// The fewest tokens that it thinks with.
    pub(super) fn least_thinking(self) -> u32 {
        if self.pro { 128 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, want: Option<(u32, u32)>) {
        assert_eq!(Model::of(name).version, want, "{name}");
    }

    #[test]
    fn names_tell_versions() {
        check("gemini-2.5-flash", Some((2, 5)));
        check("models/gemini-1.5-pro-002", Some((1, 5)));
        check("gemini-3-pro-preview", Some((3, 0)));
        check("gemini-3.1-flash-lite", Some((3, 1)));
        check("gemini-flash-latest", Some((u32::MAX, 0)));
        check("gemma-3-27b-it", None);
    }
}
