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
    let value = if magnitude < 0x400 {
        // Multiples of 2⁻²⁴. A product with the denormal number itself takes a processor a hundred cycles and more, and
        // the block scales of 3-bit and 6-bit weights are that small in most models.
        magnitude as f32 * f32::from_bits((127 - 24) << 23)
    } else {
        // The exponent's bias differs by 112.
        f32::from_bits((magnitude << 13) + (112 << 23))
    };
    f32::from_bits(value.to_bits() | sign)
}

/// The nearest value that an IEEE half can hold, even where two are as near; infinite beyond them.
#[inline(always)]
pub(crate) fn nearest(value: f32) -> f32 {
    // 2⁻¹⁴: below, halves are whole multiples of 2⁻²⁴, as what is added to one half in an `f32` is.
    const NORMAL: u32 = 0x3880_0000;
    /// 65,520: half a step above the largest.
    const BEYOND: u32 = 0x477f_f000;
    let (sign, size) = (value.to_bits() & 0x8000_0000, value.to_bits() & 0x7fff_ffff);
    let near = if size > f32::INFINITY.to_bits() {
        f32::NAN.to_bits()
    } else if size >= BEYOND {
        f32::INFINITY.to_bits()
    } else if size < NORMAL {
        (f32::from_bits(size) + 0.5 - 0.5).to_bits()
    } else {
        (size + 0xfff + ((size >> 13) & 1)) & !0x1fff
    };
    f32::from_bits(near | sign)
}

/// The nearest value whose lower 16 bits are zero, even where two are as near.
#[inline(always)]
pub(crate) fn brain_nearest(value: f32) -> f32 {
    let bits = value.to_bits();
    if value.is_nan() {
        return f32::NAN;
    }
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}

/// The value of the upper half of an `f32`.
#[inline(always)]
pub(crate) fn brain_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The half that starts at `at`.
#[inline(always)]
pub(crate) fn at(bytes: &[u8], at: usize) -> f32 {
    to_f32(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

#[cfg(test)]
mod tests {
    use super::{brain_nearest, brain_to_f32, nearest, to_f32};

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

    /// A half is a whole number of 2⁻²⁴, twice as large for each step of its exponent.
    #[test]
    fn every_half_is_what_its_bits_say() {
        for bits in 0..0x7c00u16 {
            let (exponent, fraction) = (i32::from(bits >> 10), f64::from(bits & 0x3ff));
            let whole = if exponent == 0 { fraction } else { fraction + 1024.0 };
            let want = whole * 2f64.powi(exponent.max(1) - 25);
            assert_eq!(f64::from(to_f32(bits)), want, "{bits:#06x}");
            assert_eq!(f64::from(to_f32(bits | 0x8000)), -want, "{bits:#06x}");
        }
    }

    /// Every half is its own nearest; between two neighbours the nearer counts, in the middle the even one.
    #[test]
    fn values_go_to_the_nearest_half() {
        for bits in 0..0x7bffu16 {
            let (low, high) = (to_f32(bits), to_f32(bits + 1));
            let middle = f32::midpoint(low, high);
            let even = if bits % 2 == 0 { low } else { high };
            for sign in [1.0, -1.0] {
                assert_eq!(nearest(sign * low), sign * low);
                assert_eq!(nearest(sign * middle), sign * even, "{bits:#06x}");
                assert_eq!(nearest(sign * middle.next_down()), sign * low, "{bits:#06x}");
                assert_eq!(nearest(sign * middle.next_up()), sign * high, "{bits:#06x}");
            }
        }
        assert_eq!(nearest(65519.99), 65504.0);
        assert_eq!(nearest(-65520.0), f32::NEG_INFINITY);
        assert!(nearest(f32::NAN).is_nan());
    }

    #[test]
    fn values_go_to_the_nearest_upper_half() {
        for bits in (0..0x7f7fu16).step_by(7) {
            let (low, high) = (brain_to_f32(bits), brain_to_f32(bits + 1));
            let middle = f32::from_bits((u32::from(bits) << 16) + 0x8000);
            let even = if bits % 2 == 0 { low } else { high };
            for sign in [1.0, -1.0] {
                assert_eq!(brain_nearest(sign * low), sign * low);
                assert_eq!(brain_nearest(sign * middle), sign * even, "{bits:#06x}");
                assert_eq!(brain_nearest(sign * middle.next_down()), sign * low);
                assert_eq!(brain_nearest(sign * middle.next_up()), sign * high);
            }
        }
        assert_eq!(brain_nearest(f32::MAX), f32::INFINITY);
        assert!(brain_nearest(f32::from_bits(0x7fff_ffff)).is_nan());
    }
}
