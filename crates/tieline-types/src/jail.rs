//! How far a runner is shut in, layer by layer.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that keeps a runner from doing what it need not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailLayer {
    /// No program that it starts could get more rights than it has.
    NoNewPrivileges,
    /// The system opens no path to it but those below the folder of its cache.
    Files,
    /// The system does only what a list names.
    SystemCalls,
    /// No core dump, few descriptors, bounded files; it dies with its parent, and no process of the same
    /// user looks into it.
    Limits,
    /// It has none of root's rights, whoever started it.
    Capabilities,
    /// It sees a network without devices, and no other user's objects of interprocess communication.
    Namespaces,
}

impl JailLayer {
    /// What a jail must have to count as [`JailLevel::Sealed`].
    pub const REQUIRED: [Self; 3] = [Self::NoNewPrivileges, Self::Files, Self::SystemCalls];

    /// All layers.
    pub const ALL: [Self; 6] = [
        Self::NoNewPrivileges,
        Self::Files,
        Self::SystemCalls,
        Self::Limits,
        Self::Capabilities,
        Self::Namespaces,
    ];

    /// The name, as users read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoNewPrivileges => "no new privileges",
            Self::Files => "files",
            Self::SystemCalls => "system calls",
            Self::Limits => "limits",
            Self::Capabilities => "capabilities",
            Self::Namespaces => "namespaces",
        }
    }
}

/// What is to be said of one layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerNote {
    /// Which layer.
    pub layer: JailLayer,
    /// How it is held, or why it is not.
    pub detail: String,
}

/// What holds a runner, as it says itself before it reads a byte of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jail {
    /// The layers in force.
    pub held: Vec<LayerNote>,
    /// Those that are not, each with the reason.
    pub missing: Vec<LayerNote>,
}

/// How good a jail is, from worst to best.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JailLevel {
    /// Nothing holds the runner.
    None,
    /// Something does, written for a system on which nobody has run it.
    Untested,
    /// Something does, but not all of [`JailLayer::REQUIRED`].
    Partial,
    /// All of [`JailLayer::REQUIRED`] are in force.
    Sealed,
    /// Every layer is.
    Full,
}

impl JailLevel {
    /// The name, as users read it and as JSON has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Untested => "untested",
            Self::Partial => "partial",
            Self::Sealed => "sealed",
            Self::Full => "full",
        }
    }
}

impl fmt::Display for JailLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Jail {
    /// No jail at all, for this reason.
    #[must_use]
    pub fn none(reason: &str) -> Self {
        let note = |layer| LayerNote { layer, detail: reason.to_owned() };
        Self { held: Vec::new(), missing: JailLayer::ALL.map(note).into() }
    }

    /// Notes what became of a layer: how it is held, or why it is not.
    pub fn note(&mut self, layer: JailLayer, outcome: Result<String, String>) {
        self.held.retain(|note| note.layer != layer);
        self.missing.retain(|note| note.layer != layer);
        match outcome {
            Ok(detail) => self.held.push(LayerNote { layer, detail }),
            Err(detail) => self.missing.push(LayerNote { layer, detail }),
        }
    }

    /// How good it is. A layer of which nothing is said is not in force. Of a system that is not Linux it is never
    /// more than [`JailLevel::Untested`].
    #[must_use]
    pub fn level(&self) -> JailLevel {
        self.level_where(cfg!(target_os = "linux"))
    }

    fn level_where(&self, tested: bool) -> JailLevel {
        let holds = |layer: &JailLayer| self.held.iter().any(|note| note.layer == *layer);
        if !tested && !self.held.is_empty() {
            JailLevel::Untested
        } else if JailLayer::ALL.iter().all(holds) {
            JailLevel::Full
        } else if JailLayer::REQUIRED.iter().all(holds) {
            JailLevel::Sealed
        } else if self.held.is_empty() {
            JailLevel::None
        } else {
            JailLevel::Partial
        }
    }

    /// Why it is no better, in one line; empty where it is full.
    #[must_use]
    pub fn shortcomings(&self) -> String {
        let said = |note: &LayerNote| format!("{}: {}", note.layer.as_str(), note.detail);
        self.missing.iter().map(said).collect::<Vec<_>>().join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(held: &[JailLayer], want: JailLevel) {
        let mut jail = Jail::none("unknown");
        held.iter().for_each(|layer| jail.note(*layer, Ok(String::new())));
        assert_eq!(jail.level_where(true), want, "{held:?}");
        let elsewhere = if held.is_empty() { JailLevel::None } else { JailLevel::Untested };
        assert_eq!(jail.level_where(false), elsewhere, "{held:?}");
        assert!(elsewhere < JailLevel::Sealed);
        assert_eq!(jail.held.len() + jail.missing.len(), JailLayer::ALL.len());
    }

    #[test]
    fn the_level_is_what_the_layers_make_it() {
        check(&[], JailLevel::None);
        check(&[JailLayer::Limits], JailLevel::Partial);
        check(&[JailLayer::Files, JailLayer::SystemCalls], JailLevel::Partial);
        check(&JailLayer::REQUIRED, JailLevel::Sealed);
        check(&JailLayer::ALL[..5], JailLevel::Sealed);
        check(&JailLayer::ALL, JailLevel::Full);
    }

    #[test]
    fn a_layer_of_which_nothing_is_said_is_not_in_force() {
        assert_eq!(Jail::default().level(), JailLevel::None);
    }

    #[test]
    fn a_layer_that_fails_later_counts_no_more() {
        let mut jail = Jail::default();
        JailLayer::ALL.iter().for_each(|layer| jail.note(*layer, Ok("held".to_owned())));
        jail.note(JailLayer::SystemCalls, Err("the kernel refuses".to_owned()));
        assert_eq!(jail.level_where(true), JailLevel::Partial);
        assert_eq!(jail.shortcomings(), "system calls: the kernel refuses");
    }
}
