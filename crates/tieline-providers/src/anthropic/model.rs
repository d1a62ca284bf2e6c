//! What a model of this vendor can do, by its name.

/// What decides how a request is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Model {
    /// The version that the name tells, such as (4, 5); `None` where it is no name of Claude's.
    version: Option<(u32, u32)>,
    family: Family,
}

/// Families that differ in more than their version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Sonnet,
    /// Fable, and Mythos, which is the same with other rules of use.
    Fable,
    Other,
}

/// What a model does that is told not to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quiet {
    /// It does not think unasked.
    Unasked,
    /// It does not think where it is told so.
    Disabled,
    /// It thinks between calls alone.
    BetweenTools,
    /// It thinks a little.
    Little,
}

impl Model {
    /// Reads `claude-3-7-sonnet-20250219`, `claude-opus-4-7`, `claude-sonnet-5`, also after a vendor's prefix.
    pub(super) fn of(name: &str) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name);
        let family = match () {
            () if name.contains("sonnet") => Family::Sonnet,
            () if name.contains("fable") || name.contains("mythos") => Family::Fable,
            () => Family::Other,
        };
        if !name.contains("claude") {
            return Self { version: None, family: Family::Other };
        }
        // Dates have eight digits, versions one or two.
        let short = |part: &str| (part.len() <= 2).then(|| part.parse::<u32>().ok()).flatten();
        let mut parts = name.split(['-', '.', '@']).skip_while(|part| short(part).is_none());
        let major = parts.next().and_then(short);
        let minor = parts.next().and_then(short).unwrap_or(0);
        // The first of Mythos has no number.
        let least = (family == Family::Fable).then_some((5, 0));
        Self { version: major.map(|major| (major, minor)).or(least), family }
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

    /// How much it can be told to think, from the least up; none where it is told by a number of tokens.
    pub(super) fn efforts(self) -> &'static [&'static str] {
        match self.family {
            _ if self.is_from((4, 7)) => &["low", "medium", "high", "xhigh", "max"],
            Family::Other | Family::Fable if self.is_from((4, 6)) => {
                &["low", "medium", "high", "max"]
            }
            _ if self.is_from((4, 6)) => &["low", "medium", "high"],
            _ => &[],
        }
    }

    /// Refuses temperature, `top_p` and `top_k`, and shows its thoughts only where asked.
    pub(super) fn samples_alone(self) -> bool {
        self.is_from((4, 7))
    }

    /// What it does that is told not to think.
    pub(super) fn quiet(self) -> Quiet {
        match self.family {
            Family::Fable => Quiet::Little,
            Family::Sonnet if self.is_from((5, 5)) => Quiet::BetweenTools,
            Family::Other if self.is_from((5, 5)) => Quiet::Little,
            Family::Sonnet | Family::Other if self.is_from((5, 0)) => Quiet::Disabled,
            Family::Sonnet | Family::Other => Quiet::Unasked,
        }
    }

    /// Refuses to be made to call.
    pub(super) fn is_never_forced(self) -> bool {
        let since = if self.family == Family::Fable { (5, 1) } else { (5, 5) };
        self.is_from(since)
    }

    /// Does not think where a call is required.
    pub(super) fn thinks_or_is_forced(self) -> bool {
        !self.is_from((5, 0))
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
        check("claude-fable-5-1", Some((5, 1)));
        check("claude-mythos-preview", Some((5, 0)));
        check("claude-latest", None);
        check("deepseek-4-1", None);
    }

    #[test]
    fn newer_models_do_not_always_obey() {
        let quiet = |name| Model::of(name).quiet();
        assert_eq!(quiet("claude-opus-4-8"), Quiet::Unasked);
        assert_eq!(quiet("claude-opus-5"), Quiet::Disabled);
        assert_eq!(quiet("claude-opus-5-5"), Quiet::Little);
        assert_eq!(quiet("claude-sonnet-5-5"), Quiet::BetweenTools);
        assert_eq!(quiet("claude-fable-5"), Quiet::Little);
        assert_eq!(quiet("other"), Quiet::Unasked);
        let forced = |name| !Model::of(name).is_never_forced();
        assert!(forced("claude-opus-5") && forced("claude-fable-5") && forced("other"));
        assert!(!forced("claude-opus-5-5") && !forced("claude-mythos-5-1"));
    }

    #[test]
    fn an_unknown_name_is_asked_for_all() {
        let model = Model::of("some-model");
        assert!(!model.is_adaptive() && !model.cannot_think() && !model.has_no_schema());
        assert_eq!(model.usual_max_tokens(), 4_096);
    }
}
