//! Numbers that look random and are the same on every machine.

/// xorshift64*, by Marsaglia and Vigna.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let mixed = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(mixed).unwrap_or(0) % limit.max(1)
    }

    pub(crate) fn within(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    pub(crate) fn pick<'t, T: ?Sized>(&mut self, all: &[&'t T]) -> &'t T {
        all[self.below(all.len())]
    }

    /// One of the words that `|` parts.
    pub(crate) fn word<'t>(&mut self, words: &'t str) -> &'t str {
        let all: Vec<&str> = words.split('|').collect();
        self.pick(&all)
    }

    pub(crate) fn digit(&mut self) -> u32 {
        u32::try_from(self.below(10)).unwrap_or(0)
    }

    /// `#` as a digit, `&` as one that is not 0, `?` as a small letter, `@` as a great one, `*` as any letter or
    /// digit, `%` as a hexadecimal digit.
    pub(crate) fn fill(&mut self, form: &str) -> String {
        const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
        let letter = |place: usize| char::from(LETTERS[place]);
        let mut out = String::with_capacity(form.len());
        for sign in form.chars() {
            out.push(match sign {
                '#' => char::from_digit(self.digit(), 10).unwrap_or('0'),
                '&' => char::from_digit(1 + self.digit() % 9, 10).unwrap_or('1'),
                '?' => letter(self.below(26)),
                '@' => letter(self.below(26)).to_ascii_uppercase(),
                '%' => {
                    char::from_digit(u32::try_from(self.below(16)).unwrap_or(0), 16).unwrap_or('0')
                }
                '*' => match self.below(3) {
                    0 => char::from_digit(self.digit(), 10).unwrap_or('0'),
                    1 => letter(self.below(26)),
                    _ => letter(self.below(26)).to_ascii_uppercase(),
                },
                other => other,
            });
        }
        out
    }
}
