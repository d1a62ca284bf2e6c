//! Text that somebody else wrote, made harmless for a terminal.

/// `text` without the characters that steer a terminal or turn the direction of reading: a model's answer,
/// a file's name or a server's words must not move the cursor, set the clipboard or hide what they say.
pub(crate) fn plain(text: &str) -> String {
    text.chars()
        .filter(|&c| matches!(c, '\n' | '\t') || !(c.is_control() || turns_direction(c)))
        .collect()
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_dropped_and_the_rest_stays() {
        assert_eq!(plain("a\tb\nNaïve → 😀"), "a\tb\nNaïve → 😀");
        assert_eq!(plain("\u{1b}]52;c;ZXZpbA==\u{7}x\r\u{9b}2J\u{202e}y"), "]52;c;ZXZpbA==x2Jy");
    }
}
