//! Crates that only one of ours may use, as `deny.toml` names them.

use crate::metadata::Package;
use crate::policy::Ban;

pub(super) fn faults(packages: &[Package], bans: &[Ban]) -> Vec<String> {
    let mut faults = Vec::new();
    for package in packages {
        for dependency in &package.dependencies {
            let Some(ban) = bans.iter().find(|ban| ban.name == dependency.name) else { continue };
            if !ban.wrappers.contains(&package.name) {
                faults.push(format!("{}: may not use {} (see deny.toml)", package.name, ban.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::metadata::Metadata;
    use crate::policy::Policy;

    #[track_caller]
    fn check(package: &str, dependency: &str, allowed: bool) {
        // The real file: a room that is lost there must fail here.
        let policy: Policy = toml::from_str(include_str!("../../../deny.toml")).unwrap();
        let json = format!(
            r#"{{"packages":[{{"name":"{package}","version":"0.1.0","manifest_path":"x",
            "dependencies":[{{"name":"{dependency}","kind":null}}]}}]}}"#
        );
        let metadata: Metadata = serde_json::from_str(&json).unwrap();
        let fault = format!("{package}: may not use {dependency} (see deny.toml)");
        let want = if allowed { Vec::new() } else { vec![fault] };
        assert_eq!(super::faults(&metadata.packages, &policy.bans.deny), want);
    }

    #[test]
    fn each_room_is_open_to_its_own_crate() {
        check("tieline-server", "axum", true);
        check("tieline-store", "rusqlite", true);
        check("tieline-runner", "llama-cpp-sys-2", true);
        check("tieline", "clap", true);
        check("tieline-store", "reqwest", true);
        check("tieline-providers", "reqwest", true);
    }

    #[test]
    fn each_room_is_closed_to_the_others() {
        for room in ["axum", "rusqlite", "llama-cpp-sys-2", "clap", "reqwest", "openssl-sys"] {
            check("tieline-lab", room, false);
        }
        check("tieline", "rusqlite", false);
        check("tieline-runner", "llama-cpp-2", false);
    }

    #[test]
    fn any_other_crate_passes() {
        check("tieline-lab", "serde", true);
    }
}
