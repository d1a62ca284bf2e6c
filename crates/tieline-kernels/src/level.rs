//! Which instructions multiply.

use crate::format::Format;

/// An instruction set that a tile is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Level {
    /// No instructions of a certain processor: the reference that the others are tested against.
    Portable,
    /// AVX2: pairs of products of bytes in each of 16 lanes of 16 bits.
    Avx2,
    /// AVX2 with VNNI: four products of bytes in each of 8 lanes at once.
    AvxVnni,
    /// AVX-512 with VNNI: four products of bytes in each of 16 lanes at once.
    Avx512Vnni,
    /// ARM's NEON with `dotprod`: four products of bytes in each of four lanes at once.
    NeonDot,
    /// ARM's NEON with `i8mm`: eight products of bytes in each of four lanes at once.
    NeonI8mm,
}

impl Level {
    /// All of them, worst first.
    pub const ALL: [Self; 6] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512Vnni,
        Self::NeonDot,
        Self::NeonI8mm,
    ];

    /// The best that this processor has.
    #[must_use]
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|level| level.available()).unwrap_or(Self::Portable)
    }

    /// Whether this processor has it.
    #[must_use]
    pub fn available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => {
                is_x86_feature_detected!("avx2")
                    && is_x86_feature_detected!("fma")
                    && is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => Self::Avx2.available() && is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => {
                Self::Avx2.available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni => false,
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => {
                Self::NeonDot.available() && std::arch::is_aarch64_feature_detected!("i8mm")
            }
            #[cfg(not(target_arch = "aarch64"))]
            Self::NeonDot | Self::NeonI8mm => false,
        }
    }

    /// Whether attention is written for it; elsewhere it is only the slow reference.
    #[must_use]
    pub fn attends(self) -> bool {
        matches!(self, Self::Avx2 | Self::AvxVnni | Self::Avx512Vnni)
    }

    /// From how many tokens on a product of this format is worth taking from ggml; `None` where it never is. This and
    /// [`few`](Self::few) are what to do where nobody has measured.
    ///
    /// With fewer, unpacking a matrix takes longer than it saves.
    #[must_use]
    pub fn tokens(self, format: Format) -> Option<usize> {
        match (self, format) {
            (Self::Portable, _) => None,
            (Self::Avx512Vnni, _) => tokens_avx512(format),
            (Self::NeonDot | Self::NeonI8mm, _) => tokens_neon(format),
            (Self::Avx2 | Self::AvxVnni, _) => tokens_narrow(format),
        }
    }

    /// From how many tokens for each expert of a mixture on, on average, the products of this format are worth taking from
    /// ggml by the kernel for many tokens; `None` where they never are. With fewer, the kernel for few tokens takes them
    /// where there [is](Self::thin) one.
    #[must_use]
    pub fn mixture(self, format: Format) -> Option<usize> {
        match self {
            _ if format.is_float() => None,
            Self::Avx512Vnni => mixture_avx512(format),
            // ggml's products of experts are at most as fast as those of one matrix.
            _ => self.tokens(format),
        }
    }

    /// Whether matrices of this format that ggml laid out anew, eight rows [side by side](crate::Matrix::in_eights), can be
    /// multiplied. Not on ARM, where ggml lays them out otherwise or tiles take other panels.
    #[must_use]
    pub fn takes_eights(self, format: Format) -> bool {
        format.in_eights() && !matches!(self, Self::NeonDot | Self::NeonI8mm)
    }

    /// As [`tokens`](Self::tokens), of what ggml laid out anew.
    #[must_use]
    pub fn tokens_in_eights(self, format: Format) -> Option<usize> {
        match (self, format) {
            _ if !self.takes_eights(format) => None,
            (Self::Avx512Vnni, _) => Some(2),
            (Self::AvxVnni | Self::Avx2, _) => Some(8),
            _ => None,
        }
    }

    /// As [`few`](Self::few), of what ggml laid out anew: by the kernel for many tokens, since unpacking takes little.
    #[must_use]
    pub fn few_in_eights(self, format: Format, tokens: usize) -> bool {
        tokens <= Self::FEW && self.tokens_in_eights(format).is_some_and(|least| tokens >= least)
    }

    /// As [`mixture`](Self::mixture), of what ggml laid out anew.
    #[must_use]
    pub fn mixture_in_eights(self, format: Format) -> Option<usize> {
        // Measured with AVX-512; elsewhere, ggml's products of experts are at most as fast as those of one matrix.
        self.tokens_in_eights(format)
    }

    /// The most tokens that are few.
    pub const FEW: usize = crate::thin::FEW;

    /// Whether the kernel for few tokens is written for this format.
    #[must_use]
    pub fn thin(self, format: Format) -> bool {
        match self {
            Self::Avx512Vnni => {
                let not = matches!(format, Format::Q2K | Format::Iq4Nl | Format::Mxfp4);
                !not && !format.is_float()
            }
            // ggml has kernels for several tokens of the other formats of 32.
            Self::Avx2 | Self::AvxVnni => matches!(format, Format::Q4_1 | Format::Q5_1),
            _ => false,
        }
    }

    /// Whether so many tokens are worth taking from ggml, if no graph is split for them.
    #[must_use]
    pub fn few(self, format: Format, tokens: usize) -> bool {
        let least = match format {
            Format::Q5_1 if self != Self::Avx512Vnni => 2,
            _ if format.block_weights() == 32 => 1,
            _ => 2,
        };
        self.thin(format) && (least..=Self::FEW).contains(&tokens)
    }

    /// Whether the kernel for few tokens multiplies so many faster than the one for many, which takes its time to unpack, and
    /// then half of the other's for each token. Measured on an Intel Xeon and, with AVX2, an AMD Zen 3 (docs/kernels.md).
    #[must_use]
    pub fn by_few(self, format: Format, tokens: usize) -> bool {
        let most = match format {
            _ if self != Self::Avx512Vnni => 3,
            Format::Q4_1 => 7,
            Format::Q5_1 => 6,
            Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => 3,
            _ => 2,
        };
        self.thin(format) && tokens <= most
    }

    /// Its name, for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "AVX2",
            Self::AvxVnni => "AVX-VNNI",
            Self::Avx512Vnni => "AVX512-VNNI",
            Self::NeonDot => "NEON-DOTPROD",
            Self::NeonI8mm => "NEON-I8MM",
        }
    }
}

/// From here on, ours was never below 0.98 of ggml's speed on the same weights (docs/kernels.md). ggml multiplies several
/// formats in tiles of its own from 8 tokens on, so what was faster with 6 may not be with 32.
fn tokens_avx512(format: Format) -> Option<usize> {
    match format {
        Format::Q4_1 | Format::Mxfp4 => Some(4),
        Format::Q5_1 => Some(5),
        Format::Iq4Nl => Some(6),
        Format::Q4_0 => Some(8),
        Format::Q5_0 | Format::Q8_0 => Some(12),
        Format::Q3K | Format::Q6K => Some(16),
        Format::Q4K | Format::Q5K | Format::Iq4Xs | Format::F16 | Format::Bf16 => Some(32),
        Format::Q2K => None,
    }
}

/// As [`tokens_avx512`], on an AMD Zen 3 that has AVX2 alone (docs/kernels.md). With VNNI both are faster; not measured since
/// blocks are unpacked by the row.
fn tokens_narrow(format: Format) -> Option<usize> {
    match format {
        Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 => Some(4),
        Format::Iq4Nl | Format::Mxfp4 => Some(8),
        Format::Q8_0 => Some(12),
        Format::Bf16 => Some(64),
        Format::Q3K | Format::Q4K | Format::Q5K | Format::Q6K | Format::Iq4Xs => Some(128),
        Format::F16 | Format::Q2K => None,
    }
}

/// Not measured, so only what ggml multiplies as one dot product after another on ARM: others it lays out anew there, or
/// multiplies two rows with two tokens. From how many tokens on is what AVX2 began with before blocks were unpacked by the row.
fn tokens_neon(format: Format) -> Option<usize> {
    matches!(format, Format::Q5_0 | Format::Q5_1).then_some(32)
}

/// As [`tokens_avx512`], for the mean over all experts. What experts get is uneven, which favours ours: those that get none
/// are not unpacked. Where few tokens have a kernel of their own, from here on the one for many beats it.
fn mixture_avx512(format: Format) -> Option<usize> {
    match format {
        Format::Iq4Nl | Format::Mxfp4 => Some(4),
        Format::Q4_0 | Format::Q8_0 => Some(8),
        Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q6K => Some(12),
        Format::Q3K => Some(16),
        Format::Q4K | Format::Q5K | Format::Iq4Xs => Some(32),
        Format::Q2K | Format::F16 | Format::Bf16 => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever emulates a processor says what is right for it (`make test-arm`): tests of a level that is not found
    /// would pass unseen.
    #[test]
    fn the_level_is_the_one_expected() {
        let expected = std::env::var("TIELINE_EXPECT_LEVEL");
        assert_eq!(Level::best().name(), expected.as_deref().unwrap_or(Level::best().name()));
    }

    #[test]
    fn only_what_is_worth_it_is_taken() {
        for format in Format::ALL {
            assert_eq!(Level::Portable.tokens(format), None);
            assert_eq!(Level::Portable.mixture(format), None);
            assert_eq!(Level::Avx2.tokens(format), Level::AvxVnni.tokens(format));
        }
        assert_eq!(Level::Avx512Vnni.tokens(Format::Q4_1), Some(4));
        assert_eq!(Level::Avx512Vnni.tokens(Format::Q8_0), Some(12));
        assert_eq!(Level::Avx512Vnni.tokens(Format::Q2K), None);
        assert_eq!(Level::Avx512Vnni.mixture(Format::Q2K), None);
        assert_eq!(Level::Avx512Vnni.mixture(Format::Q6K), Some(12));
        for format in [Format::F16, Format::Bf16] {
            assert_eq!(Level::Avx512Vnni.tokens(format), Some(32));
            let least = (format == Format::Bf16).then_some(64);
            assert_eq!(Level::Avx2.tokens(format), least);
            assert!(!Level::Avx512Vnni.few(format, 1), "ggml's");
            assert!(Level::ALL.into_iter().all(|level| level.mixture(format).is_none()));
        }
        assert_eq!(Level::Avx2.tokens(Format::Q4_1), Some(4));
        assert_eq!(Level::Avx2.tokens(Format::Q8_0), Some(12));
        assert_eq!(Level::Avx2.tokens(Format::Q4K), Some(128));
        assert_eq!(Level::Avx2.tokens(Format::Q2K), None);
        for level in [Level::NeonDot, Level::NeonI8mm] {
            let taken = Format::ALL.into_iter().filter(|format| level.tokens(*format).is_some());
            assert!(taken.eq([Format::Q5_0, Format::Q5_1]));
            assert_eq!(level.mixture(Format::Q5_1), level.tokens(Format::Q5_1));
        }
    }

    #[test]
    fn of_what_is_laid_out_anew_single_tokens_are_ggmls() {
        let least = |level: Level, format| level.tokens_in_eights(format);
        for format in [Format::Q4_0, Format::Q4K, Format::Iq4Nl, Format::Mxfp4] {
            assert_eq!(least(Level::Avx512Vnni, format), Some(2));
            let few = |tokens: &usize| Level::Avx512Vnni.few_in_eights(format, *tokens);
            assert!((0..20).filter(few).eq(2..=Level::FEW));
            assert_eq!(least(Level::AvxVnni, format), Some(8));
            assert_eq!(least(Level::Avx2, format), Some(8));
            for level in [Level::Portable, Level::NeonDot, Level::NeonI8mm] {
                assert_eq!(level.mixture_in_eights(format), None);
            }
        }
        assert_eq!(least(Level::Avx512Vnni, Format::Q2K), None);
        assert_eq!(least(Level::Avx512Vnni, Format::Q8_0), None);
    }

    #[test]
    fn few_tokens_are_taken_where_they_are_worth_it() {
        for (format, counts) in
            [(Format::Q4_1, 1..=11), (Format::Q6K, 2..=11), (Format::Q2K, 0..=0)]
        {
            for tokens in 1..20 {
                assert_eq!(Level::Avx512Vnni.few(format, tokens), counts.contains(&tokens));
                let narrow = format == Format::Q4_1 && tokens <= Level::FEW;
                assert_eq!(Level::AvxVnni.few(format, tokens), narrow, "of two formats");
                assert_eq!(Level::Avx2.by_few(format, tokens), narrow && tokens <= 3);
            }
        }
        let by_few =
            |format| (1..20).filter(|&tokens| Level::Avx512Vnni.by_few(format, tokens)).count();
        let most =
            [Format::Q4_1, Format::Q5_1, Format::Q8_0, Format::Q4K, Format::Iq4Nl].map(by_few);
        assert_eq!(most, [7, 6, 3, 2, 0]);
        let fives = |level: Level| (1..20).find(|&tokens| level.few(Format::Q5_1, tokens));
        assert_eq!([Level::Avx2, Level::Avx512Vnni].map(fives), [Some(2), Some(1)]);
    }
}
