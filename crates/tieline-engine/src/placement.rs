//! Whether a model is computed where it was asked for: a processor that silently does a GPU's work is many times slower, and
//! looks like a bad model.

use tieline_types::{ErrorKind, LoadedModel, RunnerBuild};

use crate::supervisor::Failed;

/// How to ask for the processor.
const ASK: &str = "--gpu-layers 0 asks for the processor";

/// Refuses, before anything is loaded, a runner that has no device for what was asked. `layers`: how many on a GPU; `None`: as many
/// as go there.
///
/// # Errors
/// Layers were asked for that the build can put nowhere, or it was built for a GPU and finds none.
pub(crate) fn before(build: &RunnerBuild, layers: Option<u32>) -> Result<(), Failed> {
    let asks = layers.is_some_and(|layers| layers > 0);
    if layers == Some(0) || build.has_gpu() || build.gpus.is_empty() && !asks {
        return Ok(());
    }
    let (message, hint) = match &build.gpus[..] {
        [] => (
            "layers were asked for on a GPU, and the runner was built for the processor alone"
                .to_owned(),
            format!(
                "choose a runner that was built for the GPU (`tieline doctor` says which is used); {ASK}"
            ),
        ),
        gpus => (
            format!(
                "the runner was built for {} and finds no such device here",
                gpus.join(" and ")
            ),
            format!("see that the device's driver is there and that this user may open it; {ASK}"),
        ),
    };
    Err(Failed { kind: ErrorKind::Unavailable, message, hint: Some(hint) })
}

/// Refuses what was loaded without a GPU although there is one and it was not asked for.
///
/// # Errors
/// No weight of the model lies where a GPU computes with it.
pub(crate) fn after(
    build: &RunnerBuild,
    layers: Option<u32>,
    loaded: &LoadedModel,
) -> Result<(), Failed> {
    let used = loaded.memory.buffers.iter().any(|buffer| buffer.gpu && buffer.weights.0 > 0);
    if layers == Some(0) || used || !build.has_gpu() {
        return Ok(());
    }
    Err(Failed {
        kind: ErrorKind::Unavailable,
        message: format!(
            "the model was to be put on a GPU ({}), and llama.cpp put nothing there",
            build.devices.join(", ")
        ),
        hint: Some(ASK.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(gpus: &[&str], devices: &[&str]) -> RunnerBuild {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        RunnerBuild { gpus: texts(gpus), devices: texts(devices), ..RunnerBuild::default() }
    }

    #[track_caller]
    fn check(build: &RunnerBuild, layers: Option<u32>, want: Option<&str>) {
        let refused = before(build, layers).err().map(|failed| failed.message);
        assert_eq!(refused.is_some(), want.is_some(), "{refused:?}");
        assert!(refused.unwrap_or_default().contains(want.unwrap_or_default()));
    }

    #[test]
    fn a_processor_does_a_gpus_work_only_where_asked_to() {
        let plain = build(&[], &["CPU"]);
        let blind = build(&["vulkan"], &["CPU"]);
        let whole = build(&["vulkan"], &["Vulkan0", "CPU"]);
        for build in [&plain, &blind, &whole] {
            check(build, Some(0), None);
        }
        check(&plain, None, None);
        check(&plain, Some(9), Some("built for the processor alone"));
        check(&blind, None, Some("built for vulkan and finds no such device"));
        check(&blind, Some(9), Some("built for vulkan and finds no such device"));
        check(&whole, None, None);
        check(&whole, Some(9), None);
    }
}
