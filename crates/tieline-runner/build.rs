//! Compiles the one file of C++ that is ours: see `src/llama/memory.cpp`.

/// `gguf_kv_to_str(gguf_context const *, int)` of llama.cpp, as compilers on Linux name it.
const WRITES_OUT: &str = "_Z14gguf_kv_to_strB5cxx11PK12gguf_contexti";

fn main() {
    println!("cargo:rerun-if-changed=src/llama/memory.cpp");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("src/llama/memory.cpp");
    // The bindings link the standard library, one for both.
    build.cpp_link_stdlib(None);
    // Elsewhere, and where llama.cpp may be a shared library, it is left as it is.
    let is = |name: &str, value: &str| std::env::var(name).is_ok_and(|found| found == value);
    let shared = std::env::var_os("CARGO_FEATURE_DYNAMIC_BACKENDS").is_some();
    println!("cargo:rustc-check-cfg=cfg(arrays_left_out)");
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") && !shared {
        build.define("TIELINE_ARRAYS_LEFT_OUT", None);
        println!("cargo:rustc-link-arg=-Wl,--wrap={WRITES_OUT}");
        println!("cargo:rustc-cfg=arrays_left_out");
    }
    build.compile("tieline_memory");
}
