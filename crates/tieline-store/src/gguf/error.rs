//! What is wrong with a file that should be GGUF.

use std::io;

use tieline_types::{Bytes, Hint};

/// Why a file is no model that we accept. Each names the place, so that a damaged file can be told
/// from a hostile one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// The disk failed.
    #[error("cannot read the model's file")]
    Io(#[source] io::Error),
    /// No byte at all.
    #[error("the file is empty")]
    Empty,
    /// The file ends inside the header.
    #[error("the file ends at {length} while reading {what}: it is truncated")]
    Truncated {
        /// What was being read.
        what: String,
        /// The file's length.
        length: Bytes,
    },
    /// The file ends before its last tensor does.
    #[error(
        "tensor {name:?} needs bytes up to {needed}, but the file has {length}: it is truncated"
    )]
    TensorOutside {
        /// The tensor.
        name: String,
        /// Where it would end.
        needed: u128,
        /// The file's length.
        length: u64,
    },
    /// Another kind of file.
    #[error("the file starts with {found:?} and not with \"GGUF\": it is no GGUF model")]
    WrongMagic {
        /// The first four bytes.
        found: String,
    },
    /// Written for a big-endian machine.
    #[error("the file is a big-endian GGUF model, which this program cannot run")]
    BigEndian,
    /// A version before 2 or after 3.
    #[error("the file is GGUF version {0}: this program reads versions 2 and 3")]
    Version(u32),
    /// A count or length that no real model has, or that the file cannot hold.
    #[error("the file declares {count} {what}, more than the {limit} that are allowed or can fit")]
    TooMany {
        /// What is counted.
        what: String,
        /// As declared.
        count: u64,
        /// The most.
        limit: u64,
    },
    /// The header breaks a rule of the format.
    #[error("{place} is malformed: {problem}")]
    Malformed {
        /// Which key, tensor or field.
        place: String,
        /// Which rule.
        problem: String,
    },
}

impl Hint for GgufError {
    fn hint(&self) -> Option<String> {
        let text = match self {
            Self::Io(_) => return None,
            Self::Empty | Self::Truncated { .. } | Self::TensorOutside { .. } => {
                "the download or copy was cut short: get the file again"
            }
            Self::WrongMagic { .. } => "look for a file ending in .gguf at the same place",
            Self::BigEndian => "get the little-endian file of the same model",
            Self::Version(version) if *version < 2 => {
                "convert it again with a current llama.cpp, or get a newer file"
            }
            Self::Version(_) => "a newer version of this program may read it",
            Self::TooMany { .. } | Self::Malformed { .. } => {
                "the file is damaged or made to do harm: do not use it"
            }
        };
        Some(text.to_owned())
    }
}
