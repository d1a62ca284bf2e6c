//! The formats of weights, as GGUF files hold them.

/// A format. Every row is a run of blocks, each of the same number of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Format {
    /// 4 bits, a scale for 32.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32.
    Q4_1,
    /// 5 bits, a scale for 32.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32.
    Q5_1,
    /// 8 bits, a scale for 32.
    Q8_0,
    /// 2 bits, 4-bit scales and minima for 16.
    Q2K,
    /// 3 bits, 6-bit scales for 16.
    Q3K,
    /// 4 bits, 6-bit scales and minima for 32.
    Q4K,
    /// 5 bits, 6-bit scales and minima for 32.
    Q5K,
    /// 6 bits, 8-bit scales for 16.
    Q6K,
    /// 4 bits that choose from 16 uneven steps, a scale for 32.
    Iq4Nl,
    /// The same steps, 6-bit scales for 32.
    Iq4Xs,
    /// 4-bit floats, a power of two for 32.
    Mxfp4,
    /// IEEE halves. They have no blocks; here 32 are one.
    F16,
    /// The upper halves of `f32`, likewise.
    Bf16,
}

/// To what activations are rounded before a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rounding {
    /// Bytes, in blocks of 32 that share a scale.
    #[default]
    Bytes,
    /// What an IEEE half can hold.
    Half,
    /// What the upper half of an `f32` can hold.
    Brain,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q2K,
        Self::Q3K,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
        Self::Iq4Nl,
        Self::Iq4Xs,
        Self::Mxfp4,
        Self::F16,
        Self::Bf16,
    ];

    /// The format of a number in ggml's `ggml_type`, which GGUF files hold; `None` for those that are not
    /// multiplied here.
    #[must_use]
    pub fn from_ggml(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.ggml() == number)
    }

    /// The number in ggml's `ggml_type`.
    #[must_use]
    pub const fn ggml(self) -> u32 {
        match self {
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q2K => 10,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Iq4Nl => 20,
            Self::Iq4Xs => 23,
            Self::Mxfp4 => 39,
            Self::F16 => 1,
            Self::Bf16 => 30,
        }
    }

    /// Weights of a block.
    #[must_use]
    pub fn block_weights(self) -> usize {
        match self {
            Self::Q4_0
            | Self::Q4_1
            | Self::Q5_0
            | Self::Q5_1
            | Self::Q8_0
            | Self::Iq4Nl
            | Self::Mxfp4
            | Self::F16
            | Self::Bf16 => 32,
            Self::Q2K | Self::Q3K | Self::Q4K | Self::Q5K | Self::Q6K | Self::Iq4Xs => 256,
        }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn block_bytes(self) -> usize {
        match self {
            Self::Q4_0 | Self::Iq4Nl => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q2K => 84,
            Self::Q3K => 110,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
            Self::Iq4Xs => 136,
            Self::Mxfp4 => 17,
            Self::F16 | Self::Bf16 => 64,
        }
    }

    /// Bytes of a row of `weights`, or `None` where they are not whole blocks.
    #[must_use]
    pub fn row_bytes(self, weights: usize) -> Option<usize> {
        let block = self.block_weights();
        weights.is_multiple_of(block).then(|| weights / block * self.block_bytes())
    }

    /// To what ggml rounds activations that are multiplied with it, and so do we.
    #[must_use]
    pub fn rounding(self) -> Rounding {
        match self {
            Self::F16 => Rounding::Half,
            Self::Bf16 => Rounding::Brain,
            _ => Rounding::Bytes,
        }
    }

    /// Whether weights are floats, which are multiplied as such.
    #[must_use]
    pub fn is_float(self) -> bool {
        self.rounding() != Rounding::Bytes
    }

    /// Whether it is known how ggml lays it out anew for itself, eight rows side by side.
    #[must_use]
    pub fn in_eights(self) -> bool {
        matches!(self, Self::Q4_0 | Self::Q4K | Self::Iq4Nl | Self::Mxfp4)
    }

    /// What is taken from every stored byte: formats without minima are symmetrical around it.
    pub(crate) fn zero(self) -> i32 {
        match self {
            Self::Q4_1 | Self::Q5_1 | Self::Q2K | Self::Q4K | Self::Q5K => 0,
            Self::Q3K => 4,
            Self::Q4_0 => 8,
            Self::Q5_0 => 16,
            Self::Q6K => 32,
            Self::Q8_0 | Self::Iq4Nl | Self::Iq4Xs | Self::Mxfp4 => 128,
            // Nothing is stored in bytes.
            Self::F16 | Self::Bf16 => 0,
        }
    }

    /// Whether blocks have a minimum.
    pub(crate) fn has_minimum(self) -> bool {
        matches!(self, Self::Q4_1 | Self::Q5_1 | Self::Q2K | Self::Q4K | Self::Q5K)
    }

    /// Whether a scale is for 16 weights; else it is for 32.
    pub(crate) fn fine(self) -> bool {
        matches!(self, Self::Q2K | Self::Q3K | Self::Q6K)
    }

    /// What stored numbers stand for, where they do not stand for themselves; 128 is nothing.
    pub(crate) fn table(self) -> Option<&'static [u8; 16]> {
        match self {
            Self::Iq4Nl | Self::Iq4Xs => Some(&UNEVEN),
            Self::Mxfp4 => Some(&FLOATS),
            _ => None,
        }
    }
}

/// ggml's `kvalues_iq4nl`, with 128 added.
pub(crate) const UNEVEN: [u8; 16] =
    [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// ggml's `kvalues_mxfp4` (4-bit floats, doubled), with 128 added.
const FLOATS: [u8; 16] =
    [128, 129, 130, 131, 132, 134, 136, 140, 128, 127, 126, 125, 124, 122, 120, 116];
