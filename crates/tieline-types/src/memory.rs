//! What a model takes of memory: as it is planned before anything is loaded, and as it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{Bytes, KvType, Tokens};

/// What lies in memory of one kind: of one device, in one layout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferUse {
    /// Its name for llama.cpp: `CPU`, `CPU_REPACK`, `CUDA0`, …
    pub name: String,
    /// The device whose own memory it is; `None` is the machine's.
    pub device: Option<String>,
    /// Whether a GPU computes with it: one with memory of its own, or one that uses the machine's.
    pub gpu: bool,
    /// The model's weights.
    pub weights: Bytes,
    /// The KV cache, and the state of models that have one.
    pub kv: Bytes,
    /// What a step computes with, at its largest.
    pub compute: Bytes,
}

impl BufferUse {
    /// All of it.
    pub fn total(&self) -> Bytes {
        Bytes(self.weights.0.saturating_add(self.kv.0).saturating_add(self.compute.0))
    }
}

/// What a loaded model takes, as llama.cpp accounts for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryUse {
    /// By kind of memory. Planned, each weight counts once; of a mapped file, all of it does.
    pub buffers: Vec<BufferUse>,
    /// Rows of logits or embeddings, at their most, in the machine's memory.
    pub output: Bytes,
    /// A second, smaller model that guesses ahead, where there is one.
    #[serde(default)]
    pub draft: Option<Box<Self>>,
    /// Copies of what cannot be cut of the state, at most: none is there at first, and the runner keeps no
    /// more. In the machine's memory.
    #[serde(default)]
    pub copies: Bytes,
}

impl MemoryUse {
    /// What it takes of a device's memory, or of the machine's.
    pub fn on(&self, device: Option<&str>) -> Bytes {
        let buffers = self.buffers.iter().filter(|buffer| buffer.device.as_deref() == device);
        let buffers = buffers.fold(0u64, |sum, buffer| sum.saturating_add(buffer.total().0));
        let draft = self.draft.as_ref().map_or(Bytes(0), |draft| draft.on(device));
        let buffers = buffers.saturating_add(draft.0);
        let ours = [self.output, self.copies].into_iter();
        let ours = ours.filter(|_| device.is_none());
        Bytes(ours.fold(buffers, |sum, bytes| sum.saturating_add(bytes.0)))
    }

    /// What it takes of each device's own memory, by the device's name.
    pub fn on_devices(&self) -> Vec<OnDevice> {
        let names: BTreeSet<&str> = self.names().collect();
        let part = |name: &str| OnDevice { name: name.to_owned(), bytes: self.on(Some(name)) };
        names.into_iter().map(part).filter(|part| part.bytes.0 > 0).collect()
    }

    fn names(&self) -> Box<dyn Iterator<Item = &str> + '_> {
        let draft = self.draft.iter().flat_map(|draft| draft.names());
        Box::new(self.buffers.iter().filter_map(|buffer| buffer.device.as_deref()).chain(draft))
    }

    /// One part of it over all kinds of memory.
    pub fn sum(&self, part: impl Fn(&BufferUse) -> Bytes) -> Bytes {
        Bytes(self.buffers.iter().fold(0u64, |sum, buffer| sum.saturating_add(part(buffer).0)))
    }
}

/// What is taken of a device's own memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnDevice {
    /// The device's name.
    pub name: String,
    /// So much of it.
    pub bytes: Bytes,
}

/// What a process has of memory now, as the system counts it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ProcessMemory {
    /// Private memory that it has allocated, touched or not, and the stacks of its threads: what the limit is about.
    #[serde(rename = "allocated_bytes")]
    pub allocated: Bytes,
    /// The most that it may allocate; `None`: as much as there is.
    #[serde(rename = "limit_bytes")]
    pub limit: Option<Bytes>,
}

/// The settings that decide how much memory a model takes, as they come out of what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedSettings {
    /// The longest request.
    pub context: Tokens,
    /// Tokens that the KV cache holds.
    pub kv_tokens: Tokens,
    /// Number format of cached keys.
    pub type_k: KvType,
    /// Number format of cached values.
    pub type_v: KvType,
    /// Most requests at once.
    pub parallel: u32,
    /// Most tokens computed at once.
    pub ubatch: Tokens,
    /// Whether the file is mapped rather than read.
    pub mmap: bool,
}

/// A device with memory of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceMemory {
    /// Its name.
    pub name: String,
    /// What it says to have free now.
    pub free: Bytes,
    /// All that it has.
    pub total: Bytes,
}

/// What a model would take, by a runner that has loaded nothing of it but the header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPlan {
    /// The model's architecture, by its file: `llama`, `qwen3`, …
    pub architecture: String,
    /// The context length that it was trained for: the longest that it can be loaded with.
    pub trained_context: Tokens,
    /// Its layers, and one for its output: the most that can be put on a GPU.
    pub layers: u32,
    /// What was planned.
    pub settings: PlannedSettings,
    /// What it would take.
    pub memory: MemoryUse,
    /// Weights that llama.cpp copies out of the mapped file into a faster layout. The file's pages stay
    /// until the system wants them for something else: they are held, not needed.
    pub copied: Bytes,
    /// What the planning runner has really taken of `memory` while it planned.
    pub allocated: Bytes,
    /// Devices with memory of their own.
    pub devices: Vec<DeviceMemory>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buffer(device: Option<&str>, weights: u64, kv: u64, compute: u64) -> BufferUse {
        BufferUse {
            name: "buffer".to_owned(),
            device: device.map(str::to_owned),
            gpu: device.is_some(),
            weights: Bytes(weights),
            kv: Bytes(kv),
            compute: Bytes(compute),
        }
    }

    #[test]
    fn each_memory_is_counted_apart() {
        let memory = MemoryUse {
            buffers: vec![
                buffer(None, 1, 2, 3),
                buffer(None, 10, 0, 0),
                buffer(Some("G"), 7, 8, 9),
            ],
            output: Bytes(100),
            draft: Some(Box::new(MemoryUse {
                buffers: vec![buffer(None, 900, 0, 0), buffer(Some("GPU0"), 0, 0, 5000)],
                output: Bytes(100),
                ..MemoryUse::default()
            })),
            copies: Bytes(10_000),
        };
        assert_eq!(memory.on(None), Bytes(11_116));
        assert_eq!(memory.on(Some("G")), Bytes(24));
        assert_eq!(memory.on(Some("H")), Bytes(0));
        assert_eq!(memory.sum(|buffer| buffer.weights), Bytes(18));
        let on = |name: &str, bytes| OnDevice { name: name.to_owned(), bytes: Bytes(bytes) };
        assert_eq!(memory.on_devices(), [on("G", 24), on("GPU0", 5000)]);
    }

    #[test]
    fn absurd_sizes_do_not_overflow() {
        let memory = MemoryUse {
            buffers: vec![buffer(None, u64::MAX, 1, 1), buffer(None, u64::MAX, 0, 0)],
            ..MemoryUse::default()
        };
        assert_eq!(memory.on(None), Bytes(u64::MAX));
    }
}
