//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use tieline_engine::{CacheConfig, EngineConfig};
use tieline_types::{Bytes, Digest, LoadParams, ModelFile, Tokens};

use crate::AnyError;

const USAGE: &str = "\
--runner PATH --model FILE [--digest HEX] [--ctx N] [--threads N] [--threads-batch N] [--batch N]
[--ubatch N] [--parallel N] [--kv-tokens N] [--step-ms N] [--no-adapt] [--cache-dir DIR] [--cache-mib N] [--kernels FILE]
With --kernels, which kernels are faster is measured at load and kept there; else it goes by their table.
The digest may be left out where the file is named by it.";

/// How much may lie in the folder of `--cache-dir`.
const CACHE: Bytes = Bytes(4 << 30);

/// What was asked on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    runner: PathBuf,
    file: ModelFile,
    params: LoadParams,
    cache_dir: Option<PathBuf>,
    kernels: Option<PathBuf>,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, AnyError> {
        let (mut runner, mut model, mut digest, mut cache_dir) = (None, None, None, None);
        let (mut params, mut cache, mut kernels) = (LoadParams::default(), CACHE, None);
        let mut arguments = arguments;
        while let Some(flag) = arguments.next() {
            if flag == "--no-adapt" {
                params.adapt_threads = false;
                continue;
            }
            let value = arguments.next().ok_or_else(|| format!("{flag}: {USAGE}"))?;
            match flag.as_str() {
                "--runner" => runner = Some(std::path::absolute(value)?),
                "--model" => model = Some(std::path::absolute(value)?),
                "--digest" => digest = Some(value),
                "--cache-dir" => cache_dir = Some(std::path::absolute(value)?),
                "--cache-mib" => cache = Bytes(value.parse::<u64>()? << 20),
                "--kernels" => kernels = Some(std::path::absolute(value)?),
                "--ctx" => params.context = Some(Tokens(value.parse()?)),
                "--threads" => params.threads = Some(value.parse()?),
                "--threads-batch" => params.threads_batch = Some(value.parse()?),
                "--batch" => params.batch = Tokens(value.parse()?),
                "--ubatch" => params.ubatch = Tokens(value.parse()?),
                "--parallel" => params.parallel = value.parse()?,
                "--kv-tokens" => params.kv_tokens = Some(Tokens(value.parse()?)),
                "--step-ms" => params.step = Duration::from_millis(value.parse()?),
                _ => return Err(format!("unknown {flag}: {USAGE}").into()),
            }
        }
        let (Some(runner), Some(path)) = (runner, model) else { return Err(USAGE.into()) };
        let digest = match digest {
            Some(hex) => hex,
            None => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        };
        let digest: Digest = format!("sha256:{}", digest.trim_start_matches("sha256:")).parse()?;
        params.model = Some(digest);
        params.measure_kernels = kernels.is_some();
        params.disk_cache = cache_dir.as_ref().map(|_| cache);
        Ok(Self { runner, file: ModelFile { digest, path }, params, cache_dir, kernels })
    }

    /// What the engine needs to start.
    pub(crate) fn engine(self) -> (EngineConfig, ModelFile, LoadParams) {
        let Self { runner, file, params, cache_dir, kernels } = self;
        let mut config = EngineConfig::new(runner);
        let folder_and_quota = cache_dir.zip(params.disk_cache);
        config.cache = folder_and_quota.map(|(folder, quota)| CacheConfig { folder, quota });
        config.kernel_choices = kernels;
        (config, file, params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, AnyError> {
        Options::parse(words.iter().map(ToString::to_string))
    }

    #[test]
    fn flags_become_load_parameters() {
        let digest = "ab".repeat(32);
        let words = [
            "--runner",
            "/r",
            "--model",
            "/m",
            "--digest",
            &digest,
            "--ctx",
            "64",
            "--threads",
            "2",
            "--no-adapt",
            "--kv-tokens",
            "128",
            "--step-ms",
            "50",
        ];
        let (config, file, params) = parse(&words).unwrap().engine();
        assert_eq!(config.runner, PathBuf::from("/r"));
        assert_eq!(file, ModelFile { digest: Digest([0xab; 32]), path: "/m".into() });
        let want = LoadParams {
            context: Some(Tokens(64)),
            threads: Some(2),
            adapt_threads: false,
            kv_tokens: Some(Tokens(128)),
            step: Duration::from_millis(50),
            model: Some(Digest([0xab; 32])),
            ..LoadParams::default()
        };
        assert_eq!(params, want);
    }

    #[test]
    fn a_file_may_be_named_by_its_digest() {
        let model = format!("/models/{}.gguf", "cd".repeat(32));
        let (_, file, _) = parse(&["--runner", "/r", "--model", &model]).unwrap().engine();
        assert_eq!(file.digest, Digest([0xcd; 32]));
        assert!(parse(&["--runner", "/r", "--model", "/models/a.gguf"]).is_err());
    }

    #[test]
    fn kernels_are_measured_where_there_is_a_file_for_it() {
        let model = format!("/models/{}.gguf", "cd".repeat(32));
        let words = ["--runner", "/r", "--model", &model, "--kernels", "/k"];
        let (config, _, params) = parse(&words).unwrap().engine();
        assert_eq!((config.kernel_choices, params.measure_kernels), (Some("/k".into()), true));
        let (config, _, params) = parse(&words[..4]).unwrap().engine();
        assert_eq!((config.kernel_choices, params.measure_kernels), (None, false));
    }

    #[test]
    fn an_unknown_flag_or_one_without_its_value_is_an_error() {
        for words in [&["--what", "1"][..], &["--ctx"], &["--ctx", "x"], &[]] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }
}
