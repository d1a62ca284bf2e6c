//! Paths: none but those below the folder of the cache.

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

/// Devices that a build for a GPU opens. Not tested, like all of that profile.
const DEVICES: &[&str] = &[
    "/dev/nvidia0",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-caps",
    "/dev/dri",
    "/dev/kfd",
];
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
        for (paths, access) in [(DEVICES, device_access()), (FACTS, read_access())] {
            // What is not there needs no rule.
            for folder in paths.iter().filter_map(|path| PathFd::new(path).ok()) {
                rules = rules.add_rule(PathBeneath::new(folder, access))?;
            }
        }
    }
    rules.restrict_self()
}
