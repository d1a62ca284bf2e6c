//! Judges a licence expression: names joined by `OR`, `AND` and brackets.
//!
//! Knows no licence by itself: the caller says which names are allowed.

/// Whether the expression can be met with allowed licences alone. `None`: it cannot be read.
pub(crate) fn allowed(expression: &str, is_allowed: &dyn Fn(&str) -> bool) -> Option<bool> {
    // The old form "MIT/Apache-2.0" means OR.
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut parser = Parser { words: spaced.split_whitespace().collect(), at: 0, is_allowed };
    let verdict = parser.any_of()?;
    (parser.at == parser.words.len()).then_some(verdict)
}

struct Parser<'a> {
    words: Vec<&'a str>,
    at: usize,
    is_allowed: &'a dyn Fn(&str) -> bool,
}

impl<'a> Parser<'a> {
    fn any_of(&mut self) -> Option<bool> {
        let mut verdict = self.all_of()?;
        while self.take("OR") {
            verdict |= self.all_of()?;
        }
        Some(verdict)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut verdict = self.one()?;
        while self.take("AND") {
            verdict &= self.one()?;
        }
        Some(verdict)
    }

    fn one(&mut self) -> Option<bool> {
        if self.take("(") {
            let verdict = self.any_of()?;
            return self.take(")").then_some(verdict);
        }
        let name = self.next()?;
        if matches!(name, ")" | "OR" | "AND" | "WITH") {
            return None;
        }
        if self.take("WITH") {
            let exception = self.next()?;
            return Some((self.is_allowed)(&format!("{name} WITH {exception}")));
        }
        Some((self.is_allowed)(name))
    }

    fn next(&mut self) -> Option<&'a str> {
        let word = self.words.get(self.at).copied()?;
        self.at += 1;
        Some(word)
    }

    fn take(&mut self, want: &str) -> bool {
        let found = self.words.get(self.at) == Some(&want);
        self.at += usize::from(found);
        found
    }
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check(expression: &str, want: Option<bool>) {
        let is_allowed = |name: &str| matches!(name, "MIT" | "Apache-2.0" | "ISC");
        assert_eq!(super::allowed(expression, &is_allowed), want, "{expression}");
    }

    #[test]
    fn one_name() {
        check("MIT", Some(true));
        check("GPL-3.0", Some(false));
    }

    #[test]
    fn or_needs_one_and_needs_all() {
        check("GPL-3.0 OR MIT", Some(true));
        check("MIT/GPL-3.0", Some(true));
        check("Apache-2.0 AND ISC", Some(true));
        check("MIT AND GPL-3.0", Some(false));
    }

    #[test]
    fn and_binds_tighter_and_brackets_win() {
        check("GPL-3.0 AND ISC OR MIT", Some(true));
        check("(MIT OR GPL-3.0) AND OpenSSL", Some(false));
        check("(MIT OR GPL-3.0) AND ISC", Some(true));
    }

    #[test]
    fn an_exception_is_part_of_the_name() {
        check("Apache-2.0 WITH LLVM-exception", Some(false));
        check("Apache-2.0 WITH LLVM-exception OR MIT", Some(true));
    }

    #[test]
    fn nonsense_is_not_allowed_by_accident() {
        for expression in ["", "MIT OR", "(MIT", "MIT)", "OR MIT", "MIT ISC"] {
            check(expression, None);
        }
    }
}
