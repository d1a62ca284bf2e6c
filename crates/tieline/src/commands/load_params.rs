//! From the loading flags to how a model is loaded.

use tieline_types::{FlashAttention, KernelChoice, KvType, LoadParams, Tokens};

use crate::args::{Flash, Kv, Load};

impl From<&Load> for LoadParams {
    fn from(load: &Load) -> Self {
        Self {
            context: load.ctx.map(Tokens),
            type_k: load.kv.into(),
            type_v: load.kv.into(),
            threads: load.threads,
            threads_batch: load.threads_batch,
            batch: Tokens(load.batch),
            ubatch: Tokens(load.ubatch),
            flash_attention: load.flash_attention.into(),
            embeddings: None,
            mmap: !load.no_mmap,
            gpu_layers: load.gpu_layers,
            own_kernels: !load.ggml_kernels,
            measure_kernels: !load.ggml_kernels && !load.kernel_table,
            adapt_threads: !load.no_adapt_threads,
            // One user, one answer at a time: a runner takes at least the context.
            parallel: load.parallel.unwrap_or(1),
            kv_tokens: Some(Tokens(load.kv_tokens.unwrap_or(1))),
            ..Self::default()
        }
    }
}

/// Which products are Tieline's, for people.
pub(super) fn chosen(choices: &[KernelChoice]) -> String {
    let choices: Vec<String> = choices.iter().map(ToString::to_string).collect();
    match choices.as_slice() {
        [] => "by table".to_owned(),
        choices => format!("tokens by weights, as measured here: {}", choices.join("; ")),
    }
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F32 => Self::F32,
            Kv::F16 => Self::F16,
            Kv::Bf16 => Self::Bf16,
            Kv::Q8_0 => Self::Q8_0,
            Kv::Q5_1 => Self::Q5_1,
            Kv::Q5_0 => Self::Q5_0,
            Kv::Q4_1 => Self::Q4_1,
            Kv::Q4_0 => Self::Q4_0,
        }
    }
}

impl From<Flash> for FlashAttention {
    fn from(flash: Flash) -> Self {
        match flash {
            Flash::Auto => Self::Auto,
            Flash::On => Self::On,
            Flash::Off => Self::Off,
        }
    }
}
