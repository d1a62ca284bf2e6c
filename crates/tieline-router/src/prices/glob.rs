//! Names with `*` for any text.

/// Whether the pattern names this.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
        return false;
    };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// How many characters it fixes: the more, the more exact.
pub(super) fn exactness(pattern: &str) -> usize {
    pattern.chars().filter(|&c| c != '*').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text_and_all_else_itself() {
        let check =
            |pattern, name, want| assert_eq!(matches(pattern, name), want, "{pattern} {name}");
        check("gpt-4o", "gpt-4o", true);
        check("gpt-4o", "gpt-4o-mini", false);
        check("gpt-4o-20*", "gpt-4o-2024-08-06", true);
        check("*", "", true);
        check("*", "all", true);
        check("a*b*c", "a-b-c", true);
        check("a*b*c", "a-c-b", false);
        check("a*a", "a", false);
        check("a*a", "aa", true);
        check("*é", "caf\u{e9}", true);
        check("", "", true);
        check("", "x", false);
        assert!(exactness("gpt-4o") < exactness("gpt-4o-20*"));
    }
}
