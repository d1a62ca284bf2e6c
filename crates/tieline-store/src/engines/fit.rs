//! Whether a build's last canary still speaks for it: it passed, and nothing that it was run with has changed.

use tieline_types::Digest;

use super::lock::{Canary, EngineLock};

/// How things stand, for a canary to be compared with. What a canary was run with and is not known any more is no
/// evidence of anything: it counts as changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// This machine's processor.
    pub processor: String,
    /// The content of the runner beside the program, which is in use where no build is; `None`: there is none.
    pub beside: Option<Digest>,
    /// The content that the name of the canary's model means now.
    pub model: Option<Digest>,
    /// The content of the canary's prompts now.
    pub prompts: Option<Digest>,
}

/// Why the last canary of a build does not speak for its taking the place of what is in use.
pub(super) fn unfit(lock: &EngineLock, name: &str, standing: &Standing) -> Option<String> {
    match lock.builds.get(name).and_then(|build| build.canary.as_ref()) {
        None => Some("no canary was run".to_owned()),
        Some(canary) if !canary.passed => {
            Some(format!("its last canary failed: {}", canary.failed.join(", ")))
        }
        Some(canary) => processor(canary, standing)
            .or_else(|| incumbent(lock, canary, standing))
            .or_else(|| yardstick(canary, standing)),
    }
}

fn processor(canary: &Canary, standing: &Standing) -> Option<String> {
    if canary.processor.is_empty() || standing.processor.is_empty() {
        // Two that are unknown are not the same.
        return Some("nobody knows whether its last canary ran on this processor".to_owned());
    }
    (canary.processor != standing.processor)
        .then(|| format!("its last canary ran on another processor, {}", canary.processor))
}

fn incumbent(lock: &EngineLock, canary: &Canary, standing: &Standing) -> Option<String> {
    let current = lock.current.as_ref();
    let (now, what) = match current.and_then(|name| Some((lock.builds.get(name)?.digest, name))) {
        Some((digest, name)) => (digest, format!("the build {name}")),
        // Nothing is in use whose place it could take.
        None => (standing.beside?, "the runner beside this program".to_owned()),
    };
    (canary.incumbent != Some(now)).then(|| {
        format!("its last canary compared it with {}, and in use now is {what}", canary.against)
    })
}

fn yardstick(canary: &Canary, standing: &Standing) -> Option<String> {
    if standing.model != Some(canary.model) {
        return Some(format!(
            "{} is not the model any more that its last canary ran with",
            canary.model_name
        ));
    }
    (canary.prompts_digest.is_none() || standing.prompts != canary.prompts_digest)
        .then(|| format!("the prompts of its last canary have changed: {}", canary.prompts))
}
