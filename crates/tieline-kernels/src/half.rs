//! 16-bit floats, as block scales are stored.

/// The value of an IEEE half.
#[inline(always)]
pub(crate) fn to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    if magnitude >= 0x7c00 {
        // Infinity and not-a-number keep their payload.
        return f32::from_bits(sign | 0x7f80_0000 | ((magnitude & 0x3ff) << 13));
    }
    // The exponent's bias differs by 112; the product also makes denormals right.
    let value = f32::from_bits(magnitude << 13) * f32::from_bits((127 + 112) << 23);
    f32::from_bits(value.to_bits() | sign)
}

/// The half that starts at `at`.
#[inline(always)]
pub(crate) fn at(bytes: &[u8], at: usize) -> f32 {
    to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

#[cfg(test)]
mod tests {
    use super::to_f32;

    #[track_caller]
    fn check(bits: u16, want: f32) {
        assert_eq!(to_f32(bits).to_bits(), want.to_bits(), "{bits:#06x}");
    }

    #[test]
    fn halves_are_exact() {
        check(0x0000, 0.0);
        check(0x8000, -0.0);
        check(0x3c00, 1.0);
        check(0xc000, -2.0);
        check(0x7bff, 65504.0);
        check(0x0001, 2.0f32.powi(-24));
        check(0x83ff, -1023.0 * 2.0f32.powi(-24));
        check(0x7c00, f32::INFINITY);
        check(0xfc00, f32::NEG_INFINITY);
        assert!(to_f32(0x7e00).is_nan());
    }
}
