//! Paths: none but those below the folder of the cache.

use std::fs;
use std::path::PathBuf;

use super::calls::HAS_GPU;
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};
use tieline_decode::disk::OpenFolder;

/// What is forbidden, as far as the kernel knows it.
const ABI_WANTED: ABI = ABI::V6;

/// What the cache does below its folder: no link, no folder, no device, no program.
fn cache_access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile
        | AccessFs::ReadDir
        | AccessFs::WriteFile
        | AccessFs::MakeReg
        | AccessFs::RemoveFile
        | AccessFs::Truncate
}

/// Whether a build for a GPU opens this below `/dev`. Only `dri` is tested, with a driver that is none.
fn is_device(name: &str) -> bool {
    let of_nvidia = |rest: &str| {
        matches!(rest, "ctl" | "-uvm" | "-caps")
            || !rest.is_empty() && rest.bytes().all(|digit| digit.is_ascii_digit())
    };
    matches!(name, "dri" | "kfd" | "dxg") || name.strip_prefix("nvidia").is_some_and(of_nvidia)
}

/// Devices that a build for a GPU opens, of those that are here.
fn devices() -> Vec<PathBuf> {
    let here = fs::read_dir("/dev").into_iter().flatten().flatten();
    here.filter(|entry| is_device(&entry.file_name().to_string_lossy()))
        .map(|entry| entry.path())
        .collect()
}

/// What drivers read of the system, and the libraries that they load late.
const FACTS: &[&str] = &[
    "/proc/driver/nvidia",
    "/proc/self/maps",
    "/proc/devices",
    "/proc/cpuinfo",
    "/sys/devices",
    "/sys/bus/pci",
    "/sys/class/drm",
    "/sys/class/kfd",
    "/usr/lib",
    "/usr/share/vulkan",
    "/etc/vulkan",
];

fn device_access() -> BitFlags<AccessFs> {
    read_access() | AccessFs::WriteFile | AccessFs::IoctlDev
}

fn read_access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir
}

/// Forbids this thread, and those that it starts, every path but those below `cache`; and TCP, and
/// signals and abstract sockets of other processes.
pub(super) fn forbid(cache: Option<&OpenFolder>) -> Result<String, String> {
    let status = restrict(cache).map_err(|error| format!("landlock: {error}"))?;
    let abi = match status.landlock {
        LandlockStatus::NotImplemented => return Err("this kernel has no Landlock".to_owned()),
        LandlockStatus::NotEnabled => return Err("Landlock is off in this kernel".to_owned()),
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            kernel_abi.unwrap_or(effective_abi as i32)
        }
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => Ok(format!("Landlock ABI {abi}")),
        RulesetStatus::PartiallyEnforced => {
            Ok(format!("Landlock ABI {abi}, which covers files and less of the rest"))
        }
        RulesetStatus::NotEnforced => Err("Landlock enforces nothing here".to_owned()),
    }
}

fn restrict(cache: Option<&OpenFolder>) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))?
        .handle_access(AccessNet::from_all(ABI_WANTED))?
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?;
    if let Some(cache) = cache {
        rules = rules.add_rule(PathBeneath::new(cache, cache_access()))?;
    }
    if HAS_GPU {
        let facts = FACTS.iter().map(PathBuf::from).collect();
        for (paths, access) in [(devices(), device_access()), (facts, read_access())] {
            // What is not there needs no rule.
            for folder in paths.iter().filter_map(|path| PathFd::new(path).ok()) {
                rules = rules.add_rule(PathBeneath::new(folder, access))?;
            }
        }
    }
    rules.restrict_self()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_those_of_gpus() {
        let opened =
            ["nvidia0", "nvidia11", "nvidiactl", "nvidia-uvm", "nvidia-caps", "dri", "dxg"];
        opened.iter().for_each(|name| assert!(is_device(name), "{name}"));
        let others = ["nvidia", "nvidia-modeset", "nvidia0x", "sda", "mem", "kvm", "dri0", ""];
        others.iter().for_each(|name| assert!(!is_device(name), "{name}"));
    }
}
