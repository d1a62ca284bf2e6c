//! Compiles the one file of C++ that is ours: see `src/llama/memory.cpp`.

fn main() {
    println!("cargo:rerun-if-changed=src/llama/memory.cpp");
    let mut build = cc::Build::new();
    build.cpp(true).std("c++17").file("src/llama/memory.cpp");
    // The bindings link the standard library, one for both.
    build.cpp_link_stdlib(None);
    build.compile("tieline_memory");
}
