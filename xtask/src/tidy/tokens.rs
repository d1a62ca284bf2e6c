//! Looks for words of the language, not for text: comments and strings do not count.

use proc_macro2::{TokenStream, TokenTree};

pub(super) fn unsafe_faults(path: &str, text: &str) -> Vec<String> {
    // A file that has no tokens is reported once, where it is parsed.
    let Ok(stream) = text.parse::<TokenStream>() else { return Vec::new() };
    let mut lines = Vec::new();
    find(stream, "unsafe", &mut lines);
    lines
        .into_iter()
        .map(|line| format!("{path}:{line}: unsafe outside the runner and its kernels"))
        .collect()
}

fn find(stream: TokenStream, word: &str, lines: &mut Vec<usize>) {
    for token in stream {
        match token {
            TokenTree::Group(group) => find(group.stream(), word, lines),
            TokenTree::Ident(ident) if ident == word => lines.push(ident.span().start().line),
            TokenTree::Ident(_) | TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #[track_caller]
    fn check(text: &str, want: &[&str]) {
        assert_eq!(super::unsafe_faults("a.rs", text), want);
    }

    #[test]
    fn a_block_a_function_and_a_macro_count() {
        check(
            "fn f() {\n    unsafe { g() }\n}",
            &["a.rs:2: unsafe outside the runner and its kernels"],
        );
        check("unsafe fn f() {}", &["a.rs:1: unsafe outside the runner and its kernels"]);
        check("m! { unsafe }", &["a.rs:1: unsafe outside the runner and its kernels"]);
    }

    #[test]
    fn comments_strings_and_the_lint_do_not() {
        check("#![forbid(unsafe_code)]\n/// unsafe\nconst A: &str = \"unsafe\"; // unsafe", &[]);
    }
}
