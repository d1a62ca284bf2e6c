//! Who answers. Pure: it asks nobody and reads no clock.

use std::fmt;

use serde::Serialize;
use tieline_types::{BackendError, ErrorKind};

/// What is known when a request comes.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The model's name, as the caller wrote it.
    pub asked: &'a str,
    /// The models that the caller may ask; `None`: all.
    pub allowed: Option<&'a [String]>,
}

/// Who answers, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The model's name.
    pub model: String,
    /// Why this one: a word for programs.
    pub reason: &'static str,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; reason={}", self.model, self.reason)
    }
}

/// Decides.
///
/// # Errors
/// The caller may not ask for this model. It looks like a model that is not here, so that nobody learns what
/// others use.
pub fn plan(facts: Facts<'_>) -> Result<Decision, BackendError> {
    let Facts { asked, allowed } = facts;
    let bare = asked.strip_suffix(":latest").unwrap_or(asked);
    if allowed.is_some_and(|allowed| !allowed.iter().any(|name| name == bare)) {
        return Err(BackendError::new(ErrorKind::NotFound, format!("no model {asked:?} is here"))
            .with_hint("this key may use other models only: GET /v1/models lists them"));
    }
    Ok(Decision { model: bare.to_owned(), reason: "named" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(asked: &str, allowed: Option<&[&str]>, want: Option<&str>) {
        let allowed =
            allowed.map(|all| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        let decision = plan(Facts { asked, allowed: allowed.as_deref() });
        assert_eq!(decision.ok().map(|decision| decision.model).as_deref(), want);
    }

    #[test]
    fn the_named_model_answers() {
        check("smollm2", None, Some("smollm2"));
        check("smollm2:latest", None, Some("smollm2"));
        check("smollm2", Some(&["smollm2"]), Some("smollm2"));
        check("smollm2:latest", Some(&["smollm2"]), Some("smollm2"));
    }

    #[test]
    fn a_key_reaches_its_own_models_alone() {
        check("smollm2", Some(&["other"]), None);
        check("smollm2", Some(&[]), None);
    }
}
