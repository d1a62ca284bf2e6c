//! Has the linker put the code that a server uses side by side.
//!
//! A request runs through some three thousand of the program's functions, which else lie scattered over 20 MB: each
//! page of them is mapped, and looked up, for the one function that is used (bench/RESULTS.md, "Where code lies"). `layout.ld`
//! lists them; `scripts/code_layout.py` writes it. What it lists and the program lacks does no harm.

use std::env;

/// Linkers that know no scripts of this kind.
const OTHERS: [&str; 3] = ["mold", "wild", "gold"];

fn main() {
    println!("cargo::rerun-if-changed=layout.ld");
    println!("cargo::rerun-if-env-changed=TIELINE_CODE_LAYOUT");
    let of = |name: &str| env::var(name).unwrap_or_default();
    let linker = of("CARGO_ENCODED_RUSTFLAGS") + &of("RUSTC_LINKER");
    let is_known = !OTHERS.iter().any(|other| linker.contains(other));
    let is_wanted = of("TIELINE_CODE_LAYOUT") != "off" && of("OPT_LEVEL") == "3";
    if is_wanted && is_known && of("CARGO_CFG_TARGET_OS") == "linux" {
        let folder = of("CARGO_MANIFEST_DIR");
        println!("cargo::rustc-link-arg-bin=tieline=-T");
        println!("cargo::rustc-link-arg-bin=tieline={folder}/layout.ld");
    }
}
