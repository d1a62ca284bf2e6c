//! The number formats of tensors and how large their blocks are.
//!
//! The numbers are ggml's own; a removed format keeps its number for ever, so it is refused by name.

/// A number format of tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorType {
    id: u32,
    name: &'static str,
    block_elements: u64,
    block_bytes: u64,
}

impl TensorType {
    /// The format with ggml's number `id`, unless it is unknown or was removed.
    pub fn from_id(id: u32) -> Option<Self> {
        TYPES.iter().find(|row| row.0 == id).map(|&(id, name, block_elements, block_bytes)| Self {
            id,
            name,
            block_elements,
            block_bytes,
        })
    }

    /// ggml's number.
    pub fn id(self) -> u32 {
        self.id
    }

    /// The usual name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.name
    }

    /// How many values one block holds; a row is a whole number of blocks.
    pub fn block_elements(self) -> u64 {
        self.block_elements
    }

    /// How many bytes one block takes.
    pub fn block_bytes(self) -> u64 {
        self.block_bytes
    }
}

/// Number, name, values in a block, bytes of a block.
const TYPES: [(u32, &str, u64, u64); 35] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
];

/// Name of a whole file's quantisation, by llama.cpp's number.
pub(super) fn file_type_name(id: u64) -> Option<&'static str> {
    FILE_TYPES.iter().find(|row| row.0 == id).map(|row| row.1)
}

const FILE_TYPES: [(u64, &str); 36] = [
    (0, "F32"),
    (1, "F16"),
    (2, "Q4_0"),
    (3, "Q4_1"),
    (7, "Q8_0"),
    (8, "Q5_0"),
    (9, "Q5_1"),
    (10, "Q2_K"),
    (11, "Q3_K_S"),
    (12, "Q3_K_M"),
    (13, "Q3_K_L"),
    (14, "Q4_K_S"),
    (15, "Q4_K_M"),
    (16, "Q5_K_S"),
    (17, "Q5_K_M"),
    (18, "Q6_K"),
    (19, "IQ2_XXS"),
    (20, "IQ2_XS"),
    (21, "Q2_K_S"),
    (22, "IQ3_XS"),
    (23, "IQ3_XXS"),
    (24, "IQ1_S"),
    (25, "IQ4_NL"),
    (26, "IQ3_S"),
    (27, "IQ3_M"),
    (28, "IQ2_S"),
    (29, "IQ2_M"),
    (30, "IQ4_XS"),
    (31, "IQ1_M"),
    (32, "BF16"),
    (36, "TQ1_0"),
    (37, "TQ2_0"),
    (38, "MXFP4_MOE"),
    (39, "NVFP4"),
    (40, "Q1_0"),
    (41, "Q2_0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removed_and_unknown_numbers_are_no_type() {
        for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(TensorType::from_id(id), None, "{id}");
        }
    }

    #[test]
    fn every_number_is_listed_once_and_in_order() {
        assert!(TYPES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(FILE_TYPES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
