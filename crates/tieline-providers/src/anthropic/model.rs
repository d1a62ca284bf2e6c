//! What a model of this vendor can do, by its name.

/// What decides how a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// The version that the name tells, such as (4, 5); `None` where it is no name of Claude's.
    version: Option<(u32, u32)>,
}

impl Model {
    /// Reads `claude-3-7-sonnet-20250219`, `claude-opus-4-7`, `claude-sonnet-5`, also after a vendor's prefix.
    pub(super) fn of(name: &str) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name);
        if !name.contains("claude") {
            return Self { version: None };
        }
        // Dates have eight digits, versions one or two.
        let short = |part: &str| (part.len() <= 2).then(|| part.parse::<u32>().ok()).flatten();
        let mut parts = name.split(['-', '.', '@']).skip_while(|part| short(part).is_none());
        let major = parts.next().and_then(short);
        let minor = parts.next().and_then(short).unwrap_or(0);
        Self { version: major.map(|major| (major, minor)) }
    }

    fn is_from(self, version: (u32, u32)) -> bool {
        self.version.is_some_and(|own| own >= version)
    }

    fn is_before(self, version: (u32, u32)) -> bool {
        self.version.is_some_and(|own| own < version)
    }

    /// Thinks as much as it likes, rather than up to a number of tokens.
    pub(super) fn is_adaptive(self) -> bool {
        self.is_from((4, 6))
    }

    /// Refuses temperature, `top_p` and `top_k`, and shows its thoughts only where asked.
    pub(super) fn samples_alone(self) -> bool {
        self.is_from((4, 7))
    }

    /// May think unasked.
    pub(super) fn may_think_unasked(self) -> bool {
        self.is_from((5, 0))
    }

    /// Cannot think.
    pub(super) fn cannot_think(self) -> bool {
        self.is_before((3, 7))
    }

    /// Has no structured outputs.
    pub(super) fn has_no_schema(self) -> bool {
        self.is_before((4, 5))
    }

    /// What stands for an answer without a limit: the most that the smallest model of its time can write.
    pub(super) fn usual_max_tokens(self) -> u32 {
        if self.is_from((4, 0)) { 32_000 } else { 4_096 }
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
        check("claude-3-haiku-20240307", Some((3, 0)));
        check("claude-3-7-sonnet-20250219", Some((3, 7)));
        check("claude-3-5-sonnet-latest", Some((3, 5)));
        check("claude-sonnet-4-20250514", Some((4, 0)));
        check("claude-sonnet-4-5-20250929", Some((4, 5)));
        check("claude-opus-4-7", Some((4, 7)));
        check("claude-sonnet-5", Some((5, 0)));
        check("anthropic/claude-opus-4.6", Some((4, 6)));
        check("claude-latest", None);
        check("deepseek-4-1", None);
    }

    #[test]
    fn an_unknown_name_is_asked_for_all() {
        let model = Model::of("some-model");
        assert!(!model.is_adaptive() && !model.cannot_think() && !model.has_no_schema());
        assert_eq!(model.usual_max_tokens(), 4_096);
    }
}
