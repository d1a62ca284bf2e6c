//! The environment of a runner: which GPUs it may see, and nothing else of this process's own.

use std::env;

/// Which devices to use, as drivers and llama.cpp name them.
const VISIBLE: [&str; 4] = [
    "CUDA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "GGML_VK_VISIBLE_DEVICES",
];
/// Numbers and names of some dozens of devices.
const LONGEST: usize = 1024;

/// Drivers are told to keep no compiled kernels on disk: a runner may open no folder of theirs, and one that tried would be ended.
const NO_CACHES: [(&str, &str); 3] = [
    ("MESA_SHADER_CACHE_DISABLE", "true"),
    ("__GL_SHADER_DISK_CACHE", "0"),
    ("CUDA_CACHE_DISABLE", "1"),
];

/// All variables, with lists of devices where they are set.
pub(crate) fn variables() -> impl Iterator<Item = (&'static str, String)> {
    let set = VISIBLE.into_iter().filter_map(|name| Some((name, env::var(name).ok()?)));
    let fixed = NO_CACHES.into_iter().map(|(name, value)| (name, value.to_owned()));
    set.filter(|(_, value)| is_list(value)).chain(fixed)
}

/// Whether it is numbers or names of devices, and nothing else that a library might make something of.
fn is_list(value: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b",-/.:_ ".contains(&byte);
    value.len() <= LONGEST && value.bytes().all(is_part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_devices_are_told_from_all_else() {
        for list in ["0", "0,1", "0, 1", "-1", "", "GPU-8932f937-d72c", "MIG-GPU-8932f937/1/0"] {
            assert!(is_list(list), "{list}");
        }
        for other in ["0;1", "$(id)", "a\nb", "é", &"0".repeat(LONGEST + 1)] {
            assert!(!is_list(other), "{other}");
        }
    }
}
