//! Takes out of a prompt what a client changes in every request and no model needs to see.
//!
//! One such text is known. Claude Code begins its system prompt with a line for its maker's accounting,
//! with a value, `cch`, that differs each time:
//!
//! ```text
//! x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;
//! ```
//!
//! Since a prefix cache ends at the first token that differs, nothing of such a conversation would ever
//! be found in it. So the line is left out, and with it what else of it changes: the end of `cc_version`
//! depends on the conversation. Nothing else of a prompt is changed. The user is told so in the docs.

use std::borrow::Cow;

const HEADER: &str = "x-anthropic-billing-header:";

/// A field longer than this is not one.
const FIELD_LIMIT: usize = 256;

/// Leaves out the accounting header that the text of a system message begins with.
///
/// Only for the start of the first system message: a header anywhere else is something that somebody
/// writes about. What is left out is the header's name, its fields – `cc…=value;`, where the last may end
/// with the line instead of a semicolon – and the line breaks after them. What follows the fields in the
/// same line stays: clients that send the header as a block of its own have it joined to the next block
/// without a line break. A header without a field that can be read as one is left as it is.
pub fn normalise(text: &str) -> Cow<'_, str> {
    let mut rest = text;
    while let Some(after) = without_header(rest) {
        rest = after;
    }
    Cow::Borrowed(rest)
}

/// What follows the header and its line breaks; `None` if there is none.
fn without_header(text: &str) -> Option<&str> {
    let start = text.trim_start();
    let name = start.get(..HEADER.len())?;
    if !name.eq_ignore_ascii_case(HEADER) {
        return None;
    }
    let fields = &start[HEADER.len()..];
    let mut rest = without_field(fields)?;
    while let Some(after) = without_field(rest) {
        rest = after;
    }
    let line_end = rest.trim_start_matches([' ', '\t']);
    Some(if line_end.starts_with(['\r', '\n']) || line_end.is_empty() {
        line_end.trim_start_matches(['\r', '\n'])
    } else {
        rest
    })
}

/// What follows one `cc…=value` and its semicolon.
fn without_field(text: &str) -> Option<&str> {
    let field = text.trim_start_matches([' ', '\t']);
    let end = field.find([';', '\r', '\n']).unwrap_or(field.len());
    let (name, value) = field.get(..end)?.split_once('=')?;
    let is_name = name.starts_with("cc")
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let is_value = !value.contains(char::is_whitespace);
    if !is_name || !is_value || end > FIELD_LIMIT {
        return None;
    }
    let rest = &field[end..];
    Some(rest.strip_prefix(';').unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        assert_eq!(normalise(text), want);
    }

    const LINE: &str =
        "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;";

    #[test]
    fn a_line_of_its_own_goes() {
        check(&format!("{LINE}\nYou are Claude Code."), "You are Claude Code.");
        check(&format!("{LINE}\r\n\r\nYou are Claude Code."), "You are Claude Code.");
        check(&format!("{LINE} \n\nYou are\n\nClaude Code."), "You are\n\nClaude Code.");
        check(&format!("\n{LINE}\nYou are Claude Code."), "You are Claude Code.");
        check(LINE, "");
        check(&format!("{LINE}\n"), "");
    }

    #[test]
    fn what_follows_in_the_same_line_stays() {
        check(&format!("{LINE}You are Claude Code."), "You are Claude Code.");
        check(&format!("{LINE}\u{e4}\u{1f600} a=b;"), "\u{e4}\u{1f600} a=b;");
        check(&format!("{LINE}count=3; is a loop"), "count=3; is a loop");
    }

    #[test]
    fn other_shapes_of_the_header() {
        let header = "x-anthropic-billing-header:";
        check(
            &format!("{header} cc_version=2.1.177.01c; cc_entrypoint=sdk-cli; cch=36ee5;\nA"),
            "A",
        );
        check(&format!("{header} cc_version=9.9.9; cc_entrypoint=sdk-cli;\nA"), "A");
        check(&format!("{header}cc_version=2.1;cc_entrypoint=cli;cch=0aaa9;A"), "A");
        check(&format!("{header} cc_version=2.1; cch=0aaa9; cc_workload=cron;\nA"), "A");
        check(&format!("{header} cch=0123456789abcdef\nA"), "A");
        check(&format!("{header} cch=0123456789abcdef"), "");
        check("X-Anthropic-Billing-Header: cch=1;\nA", "A");
    }

    #[test]
    fn two_turns_of_a_conversation_become_equal() {
        let turn = |cch: &str| {
            format!("x-anthropic-billing-header: cc_version=2.1.117.48f; cch={cch};\nYou are")
        };
        assert_ne!(turn("71fea"), turn("eb6c6"));
        assert_eq!(normalise(&turn("71fea")), normalise(&turn("eb6c6")));
    }

    #[test]
    fn what_only_mentions_the_header_is_untouched() {
        for text in [
            "",
            "You are Claude Code.",
            &format!("You are Claude Code.\n{LINE}\nMore."),
            &format!("The line {LINE} is volatile."),
            "x-anthropic-billing-header",
            "x-anthropic-billing-header: is what the client sends; cch=1;",
            "x-anthropic-billing-header: cch=what a value;",
            "x-anthropic-billing-header:\ncch=1;",
            "x-anthropic-other: cch=1;",
            "x-anthropic-billing-heade\u{e4}: cch=1;",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn a_field_has_an_end() {
        let long = format!("x-anthropic-billing-header: cch={};\nA", "f".repeat(1000));
        check(&long, &long);
    }

    proptest! {
        #[test]
        fn only_a_start_is_left_out_and_all_of_it(text in "(x-anthropic-billing-header:)?[ c=;a\n\u{e4}]{0,40}(cch=1;)?\\PC{0,10}") {
            let once = normalise(&text).into_owned();
            prop_assert!(text.ends_with(&once));
            prop_assert_eq!(normalise(&once), once.as_str());
            if !text.trim_start().starts_with(HEADER) {
                prop_assert_eq!(&once, &text);
            }
        }
    }
}
