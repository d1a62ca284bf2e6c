//! Checks every dependency against `deny.toml`: licence, source, denied crates.
//!
//! A stand-in for the parts of cargo-deny that need no advisory database.

use std::path::Path;

use anyhow::Result;

use crate::metadata::{self, Package};
use crate::policy::{self, Licenses, Policy};
use crate::spdx;

pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let policy = policy::read(root)?;
    let metadata = metadata::everything(root)?;
    Ok(metadata.packages.iter().flat_map(|package| faults(package, &policy)).collect())
}

fn faults(package: &Package, policy: &Policy) -> Vec<String> {
    let tag = format!("{} {}", package.name, package.version);
    [licence_fault(package, &policy.licenses), source_fault(package), ban_fault(package, policy)]
        .into_iter()
        .flatten()
        .map(|fault| format!("{tag}: {fault}"))
        .collect()
}

fn licence_fault(package: &Package, licenses: &Licenses) -> Option<String> {
    let Some(expression) = &package.license else {
        return Some("names no licence".to_owned());
    };
    let is_allowed = |name: &str| {
        let exceptions = licenses.exceptions.iter().filter(|e| e.name == package.name);
        licenses.allow.iter().chain(exceptions.flat_map(|e| &e.allow)).any(|allow| allow == name)
    };
    match spdx::allowed(expression, &is_allowed) {
        Some(true) => None,
        Some(false) => Some(format!("licence {expression:?} is not allowed")),
        None => Some(format!("licence {expression:?} cannot be read")),
    }
}

/// Everything is ours or from the public registry of crates.
fn source_fault(package: &Package) -> Option<String> {
    let source = package.source.as_ref()?;
    let is_public = source.starts_with("registry+") && source.ends_with("/crates.io-index");
    (!is_public).then(|| format!("source {source} is not allowed"))
}

/// A crate that nobody may use. Those with wrappers are `tidy`'s business.
fn ban_fault(package: &Package, policy: &Policy) -> Option<String> {
    let ban = policy.bans.deny.iter().find(|ban| ban.name == package.name)?;
    ban.wrappers.is_empty().then(|| "is denied".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT"]
        exceptions = [{ crate = "odd", allow = ["Zlib"] }]
        [bans]
        deny = [{ crate = "openssl-sys" }, { crate = "clap", wrappers = ["tieline"] }]
    "#;

    #[track_caller]
    fn check(name: &str, license: Option<&str>, source: Option<&str>, want: &[&str]) {
        let policy: Policy = toml::from_str(POLICY).unwrap();
        let package = Package {
            name: name.to_owned(),
            version: "1.0.0".to_owned(),
            license: license.map(str::to_owned),
            source: source.map(str::to_owned),
            manifest_path: "Cargo.toml".into(),
            dependencies: Vec::new(),
        };
        assert_eq!(faults(&package, &policy), want);
    }

    #[test]
    fn a_good_package_passes() {
        check("a", Some("MIT"), Some("registry+https://registry.example/crates.io-index"), &[]);
        check("ours", Some("MIT OR GPL-3.0"), None, &[]);
    }

    #[test]
    fn a_licence_off_the_list_fails() {
        check("a", Some("MPL-2.0"), None, &["a 1.0.0: licence \"MPL-2.0\" is not allowed"]);
        check("a", Some("MIT AND"), None, &["a 1.0.0: licence \"MIT AND\" cannot be read"]);
        check("a", None, None, &["a 1.0.0: names no licence"]);
    }

    #[test]
    fn an_exception_is_for_one_package() {
        check("odd", Some("Zlib"), None, &[]);
        check("even", Some("Zlib"), None, &["even 1.0.0: licence \"Zlib\" is not allowed"]);
    }

    #[test]
    fn a_foreign_source_fails() {
        for source in ["git+https://git.example/a", "registry+https://registry.example/index"] {
            let want = format!("a 1.0.0: source {source} is not allowed");
            check("a", Some("MIT"), Some(source), &[&want]);
        }
    }

    #[test]
    fn a_denied_crate_fails_and_a_wrapped_one_does_not() {
        check("openssl-sys", Some("MIT"), None, &["openssl-sys 1.0.0: is denied"]);
        check("clap", Some("MIT"), None, &[]);
    }
}
