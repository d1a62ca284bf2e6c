//! How much harm a request does outside.

use serde::{Deserialize, Serialize};
use tieline_privacy::Entity;
use tieline_types::DataClass;

use super::glob::Glob;
use super::{Classify, Policy};
use crate::choose::Asked;

/// What gave a request its class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassSource {
    /// Nothing did: it is the policy's default.
    Default,
    /// Whoever asked.
    Declared,
    /// A `[[classify]]` of the policy.
    Rule,
    /// What the detectors found.
    Found,
}

/// One reason for a class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassWhy {
    /// The class that it asks for.
    pub class: DataClass,
    /// Who asks for it.
    pub source: ClassSource,
    /// The rule's name, or what was found; empty where neither is it.
    pub rule: String,
}

impl Policy {
    /// The class of a request, and all that asked for one. The highest wins; the default counts where no rule
    /// fits. What was found in the text asks for its own class, unless a rule names that kind of thing: then the
    /// rule is the policy's word on it. A rule that asks for more than the find is none, nor is one that does not fit
    /// and would only have raised the class. A caller's own word raises the class; it lowers the default only where the
    /// policy trusts it.
    pub fn classify(&self, asked: &Asked) -> (DataClass, Vec<ClassWhy>) {
        let mut why: Vec<ClassWhy> = self
            .classify
            .iter()
            .filter(|rule| rule.fits(asked))
            .map(|rule| ClassWhy {
                class: rule.class,
                source: ClassSource::Rule,
                rule: rule.name.clone(),
            })
            .collect();
        let trusted = self.trust_declared && asked.declared_class.is_some();
        if why.is_empty() && !trusted {
            why.push(ClassWhy {
                class: self.default_class,
                source: ClassSource::Default,
                rule: String::new(),
            });
        }
        why.extend(self.found(asked));
        if let Some(class) = asked.declared_class {
            why.push(ClassWhy { class, source: ClassSource::Declared, rule: String::new() });
        }
        let highest = why.iter().map(|why| why.class).max();
        (highest.unwrap_or(DataClass::Secret), why)
    }

    fn found<'a>(&'a self, asked: &'a Asked) -> impl Iterator<Item = ClassWhy> + 'a {
        let said = |entity: &Entity| {
            let mut about = self.classify.iter().filter(|rule| rule.is_about(entity));
            about.any(|rule| rule.fits(asked) || rule.class <= entity.class())
        };
        let found = asked.found.iter().filter(move |(entity, count)| **count > 0 && !said(entity));
        found.map(|(entity, _)| ClassWhy {
            class: entity.class(),
            source: ClassSource::Found,
            rule: entity.as_str().to_owned(),
        })
    }
}

impl Classify {
    /// Whether it is the policy's word on this kind of thing, wherever that is found.
    fn is_about(&self, entity: &Entity) -> bool {
        let elsewhere = self.path.is_empty()
            && self.key.is_empty()
            && self.label.is_empty()
            && self.project.is_empty();
        elsewhere && self.entity.contains(entity)
    }

    /// Whether all that the rule says holds.
    fn fits(&self, asked: &Asked) -> bool {
        let one = |globs: &[Glob], text: &Option<String>| {
            globs.is_empty()
                || text.as_ref().is_some_and(|text| globs.iter().any(|glob| glob.fits(text)))
        };
        let key = self.key.is_empty() || asked.is_by_key(&self.key);
        let label =
            self.label.is_empty() || self.label.iter().any(|label| asked.labels.contains(label));
        let found = |entity| asked.found.get(entity).copied().unwrap_or_default();
        let entity = self.entity.is_empty()
            || self.entity.iter().map(found).fold(0, u32::saturating_add) >= self.at_least.max(1);
        one(&self.path, &asked.path) && one(&self.project, &asked.project) && key && label && entity
    }
}
