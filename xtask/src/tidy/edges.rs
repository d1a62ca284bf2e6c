//! Which of our crates may use which.

use crate::metadata::{Kind, Package};

/// A crate and those of ours that it may use. A crate without a row may not exist.
const TABLE: &[(&str, &[&str])] = &[
    ("tieline-types", &[]),
    ("tieline-store", &["tieline-types"]),
    ("tieline-decode", &["tieline-types"]),
    ("tieline-kernels", &[]),
    ("tieline-runner", &["tieline-types", "tieline-decode", "tieline-kernels"]),
    ("tieline-engine", &["tieline-types"]),
    ("tieline-lab", &["tieline-types", "tieline-store", "tieline-engine"]),
    ("tieline-privacy", &["tieline-types"]),
    ("tieline-providers", &["tieline-types", "tieline-privacy"]),
    ("tieline-router", &["tieline-types", "tieline-privacy", "tieline-store"]),
    ("tieline-server", &["tieline-types", "tieline-store", "tieline-router"]),
    (
        "tieline",
        &[
            "tieline-types",
            "tieline-store",
            "tieline-engine",
            "tieline-lab",
            "tieline-privacy",
            "tieline-providers",
            "tieline-router",
            "tieline-server",
        ],
    ),
    ("xtask", &[]),
    ("testkit", &["tieline-types"]),
];

/// Crates that tests, and nothing but tests, may use.
const FOR_TESTS: &[&str] = &["testkit"];

pub(super) fn faults(packages: &[Package]) -> Vec<String> {
    let ours = |name: &str| packages.iter().any(|package| package.name == name);
    let mut faults = Vec::new();
    for package in packages {
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == package.name) else {
            let table = "xtask/src/tidy/edges.rs";
            faults.push(format!("{}: has no row in the table of edges ({table})", package.name));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|d| ours(&d.name)) {
            let name = dependency.name.as_str();
            let for_tests = dependency.kind == Some(Kind::Dev) && FOR_TESTS.contains(&name);
            if !for_tests && !allowed.contains(&name) {
                faults.push(format!("{}: may not depend on {name}", package.name));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use crate::metadata::Metadata;

    #[track_caller]
    fn check(package: &str, dependency: &str, kind: &str, want: &[&str]) {
        let others: String = ["tieline-types", "tieline-store", "tieline-runner", "testkit"]
            .iter()
            .filter(|name| **name != package)
            .map(|name| {
                format!(
                    r#"{{"name":"{name}","version":"0.1.0","manifest_path":"x","dependencies":[]}},"#
                )
            })
            .collect();
        let json = format!(
            r#"{{"packages":[{others}{{"name":"{package}","version":"0.1.0","manifest_path":"x",
            "dependencies":[{{"name":"serde","kind":null}},{{"name":"{dependency}","kind":{kind}}}]}}]}}"#
        );
        let metadata: Metadata = serde_json::from_str(&json).unwrap();
        assert_eq!(super::faults(&metadata.packages), want);
    }

    #[test]
    fn an_edge_of_the_table_passes() {
        check("tieline-engine", "tieline-types", "null", &[]);
        check("tieline", "tieline-store", "null", &[]);
    }

    #[test]
    fn any_other_edge_fails_whatever_it_is_for() {
        for kind in ["null", "\"build\"", "\"dev\""] {
            let want = ["tieline-engine: may not depend on tieline-store"];
            check("tieline-engine", "tieline-store", kind, &want);
        }
        check("tieline", "tieline-runner", "null", &["tieline: may not depend on tieline-runner"]);
    }

    #[test]
    fn only_tests_use_the_test_kit() {
        check("tieline-engine", "testkit", "\"dev\"", &[]);
        check("tieline-engine", "testkit", "null", &["tieline-engine: may not depend on testkit"]);
    }

    #[test]
    fn a_new_crate_needs_a_row() {
        let want = ["tieline-utils: has no row in the table of edges (xtask/src/tidy/edges.rs)"];
        check("tieline-utils", "tieline-types", "null", &want);
    }
}
