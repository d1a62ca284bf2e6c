//! Paths: none but those below the folder of the cache.

use std::os::fd::OwnedFd;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus,
    PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

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

/// Forbids this thread, and those that it starts, every path but those below `cache`; and TCP, and
/// signals and abstract sockets of other processes.
pub(super) fn forbid(cache: Option<&OwnedFd>) -> Result<String, String> {
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

fn restrict(cache: Option<&OwnedFd>) -> Result<landlock::RestrictionStatus, RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))?
        .handle_access(AccessNet::from_all(ABI_WANTED))?
        .scope(Scope::from_all(ABI_WANTED))?
        .create()?;
    if let Some(cache) = cache {
        rules = rules.add_rule(PathBeneath::new(cache, cache_access()))?;
    }
    rules.restrict_self()
}
