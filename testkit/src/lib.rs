//! What tests share: real weights, models of many shapes, and the built runner. Never part of a release.

pub mod canaries;
pub mod flaky;
mod float;
pub mod scripted;
mod shape;
mod tiny;
pub mod vendor;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{LazyLock, OnceLock};

pub use shape::{
    CONTEXT, ENCODER_CONTEXT, Shape, WIDE_WINDOW, WINDOW, lora, shape, shape_of_rounded_experts,
};

/// SHA-256 of [`smollm2`].
pub const SMOLLM2_DIGEST: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// SmolLM2-135M-Instruct Q4_1, a real small model: from the cache of test models, or fetched into it by
/// `scripts/fetch_test_model.py`, which checks the digest.
///
/// # Panics
/// The model cannot be had.
pub fn smollm2() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| fetched("scripts/fetch_test_model.py"))
}

/// all-MiniLM-L6-v2, a real small model for embeddings, with its own 32-bit floats: from the cache of test
/// models, or made in it by `scripts/fetch_embedding_model.py`, which checks the digests.
///
/// # Panics
/// The model cannot be had.
pub fn minilm() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| fetched("scripts/fetch_embedding_model.py"))
}

/// The path that a script prints.
fn fetched(script: &str) -> PathBuf {
    let script = root().join(script);
    let output = Command::new("python3").arg(&script).output();
    let output = output.unwrap_or_else(|error| fail(&format!("cannot start python3: {error}")));
    if !output.status.success() {
        fail(&format!("{}: {}", script.display(), String::from_utf8_lossy(&output.stderr)));
    }
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim())
}

/// [`smollm2`] with the same weights as 16-bit floats, whose answers do not depend on the shape of batches:
/// made once, beside it, and kept only if it is bit for bit what it should be.
///
/// # Panics
/// The model cannot be had.
pub fn smollm2_f16() -> &'static Path {
    /// Of the file made of the one with [`SMOLLM2_DIGEST`].
    const SHAPE: float::Shape = float::Shape { length: 270_885_952, hash: 0x7af0_828a_922a_a90a };
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let model = smollm2().with_file_name(format!("{SMOLLM2_DIGEST}.f16.gguf"));
        // It was checked before it got this name. Others who make it meanwhile make the same.
        if !model.metadata().is_ok_and(|metadata| metadata.len() == SHAPE.length) {
            let made = float::convert(smollm2(), &model, SHAPE);
            made.unwrap_or_else(|error| fail(&format!("cannot make {}: {error}", model.display())));
        }
        model
    })
}

/// The bytes of a whole model of some kilobytes, the same each time: it loads in a moment and answers
/// nonsense.
///
/// # Panics
/// Never: writing to memory does not fail.
pub fn tiny() -> Vec<u8> {
    tiny::model(&tiny::Lies::default())
        .unwrap_or_else(|error| fail(&format!("cannot write the tiny model: {error}")))
}

/// Models made to attack what reads them, most after a public report of a hole in llama.cpp or in a program
/// built on it; with what each does.
///
/// # Panics
/// Never: writing to memory does not fail.
pub fn hostile() -> Vec<(&'static str, Vec<u8>)> {
    use tiny::Lies;

    let lies = [
        // CVE-2026-7482: a tensor was read beyond the end of the file, and memory with it.
        ("a tensor beyond the file", Lies { offset: Some(1 << 40), ..Lies::default() }),
        // CVE-2026-33298: the size of a tensor wrapped to less than was written.
        (
            "dimensions whose product wraps",
            Lies { dimensions: Some([1 << 33, 1 << 31]), ..Lies::default() },
        ),
        // CVE-2025-49847: the length of a token was taken for a signed number.
        ("a token without end", Lies { token_length: Some(u64::MAX - 7), ..Lies::default() }),
        // ggml-org/llama.cpp#25969: a byte token of minus one wrote before a table.
        (
            "a byte token below zero",
            Lies { tokenizer: Some("plamo2"), byte_token: Some("<0x-1>"), ..Lies::default() },
        ),
        // ggml-org/llama.cpp#25821: more layers than a table had room for.
        ("more layers than any model has", Lies { blocks: Some(600), ..Lies::default() }),
        // After no report: a remainder by it would be a division by zero.
        ("an alignment of nothing", Lies { alignment: Some(0), ..Lies::default() }),
        // ggml-org/llama.cpp#19086: a template that calls itself exhausted the stack.
        (
            "a template that calls itself",
            Lies {
                template: Some("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
                ..Lies::default()
            },
        ),
    ];
    let write = |lies| {
        tiny::model(&lies).unwrap_or_else(|error| fail(&format!("cannot write a model: {error}")))
    };
    lies.map(|(name, lies)| (name, write(lies))).into()
}

/// The built runner, named by `TIELINE_RUNNER`; `None`, said aloud, where that is unset: building it needs
/// C++, and `cargo test` alone must not.
///
/// # Panics
/// `TIELINE_RUNNER` names no file.
pub fn runner() -> Option<PathBuf> {
    let Some(runner) = std::env::var_os("TIELINE_RUNNER").map(PathBuf::from) else {
        say("skipped: TIELINE_RUNNER is not set; `make test` sets it");
        return None;
    };
    if !runner.is_file() {
        fail(&format!(
            "TIELINE_RUNNER is {}, which is no file: run `make runner`",
            runner.display()
        ));
    }
    Some(runner)
}

/// The folder of test models: outside the tree, so that clones share it. As `scripts/fetch_test_model.py`.
fn cache() -> PathBuf {
    let named = |name: &str| std::env::var_os(name).filter(|path| !path.is_empty());
    let home = || named("HOME").map(|home| Path::new(&home).join(".cache"));
    let cache = named("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    cache.unwrap_or_else(std::env::temp_dir).join("tieline/test-models")
}

/// The top of the source tree.
pub fn root() -> &'static Path {
    // Where the tests run, not where this was compiled: clones share what they build, and another may be gone.
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let tested = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
        let top = tested.ancestors().find(|top| top.join("testkit/Cargo.toml").is_file());
        top.or(Path::new(env!("CARGO_MANIFEST_DIR")).parent()).unwrap_or(Path::new("/")).to_owned()
    });
    &ROOT
}

#[expect(clippy::print_stderr, reason = "a test that does nothing must say so")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::panic, reason = "a test that cannot run has failed")]
fn fail(text: &str) -> ! {
    panic!("{text}")
}
