//! What a summary is written of, in parts that can be read one after another.

use std::collections::VecDeque;

use tieline_types::{Message, Role};

/// Shorter texts are not halved, in bytes.
const SHORTEST: usize = 64;

/// Transcripts of messages, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    texts: VecDeque<Text>,
    /// How many messages were taken to their ends.
    ended: usize,
    /// Whether a message was taken in part.
    torn: bool,
}

/// A message, or a piece of one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Text {
    text: String,
    /// Whether its message ends with it.
    ends: bool,
}

impl Parts {
    pub(crate) fn of(messages: &[&Message]) -> Self {
        let whole = |message: &&Message| Text { text: transcript(message), ends: true };
        Self { texts: messages.iter().map(whole).collect(), ended: 0, torn: false }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// How many messages were taken, where what is left begins with another.
    pub(crate) fn messages_taken(&self) -> Option<usize> {
        Some(self.ended).filter(|&ended| ended > 0 && !self.torn)
    }

    /// How many of the first have so many bytes together at most; one at least, where there is any.
    pub(crate) fn within(&self, bytes: usize) -> usize {
        let mut sum = 0_usize;
        let fits = |part: &&str| {
            sum = sum.saturating_add(part.len());
            sum <= bytes
        };
        self.iter().take_while(fits).count().max(1).min(self.texts.len())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|part| part.text.as_str())
    }

    /// The text of the first `count`.
    pub(crate) fn first(&self, count: usize) -> String {
        self.iter().take(count).collect::<Vec<_>>().join("\n")
    }

    /// Removes the first `count`.
    pub(crate) fn take(&mut self, count: usize) {
        for part in self.texts.drain(..count.min(self.texts.len())) {
            self.ended += usize::from(part.ends);
            self.torn = !part.ends;
        }
    }

    /// Makes two of the first, parted at a line or a word where its middle has one. Says whether that could be done.
    pub(crate) fn halve_first(&mut self) -> bool {
        let is_long = |first: &mut Text| first.text.len() >= SHORTEST;
        let Some(Text { text: first, ends }) = self.texts.pop_front_if(is_long) else {
            return false;
        };
        let middle = first.floor_char_boundary(first.len() / 2);
        let head = &first[..middle];
        let at = ['\n', ' '].iter().find_map(|&end| head.rfind(end).filter(|&at| at > middle / 2));
        let (front, back) = first.split_at(at.map_or(middle, |at| at + 1));
        self.texts.push_front(Text { text: back.to_owned(), ends });
        self.texts.push_front(Text { text: front.to_owned(), ends: false });
        true
    }
}

/// A message as the summary's writer reads it.
fn transcript(message: &Message) -> String {
    let who = match message.role {
        Role::User => "User",
        Role::Assistant => "Assistant",
        Role::Tool => "Result of a tool",
        _ => "Instructions",
    };
    let mut text = format!("{who}: {}", message.content.expose());
    for call in &message.tool_calls {
        text += &format!("\nAssistant called {}: {}", call.name, call.arguments.expose());
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(texts: &[&str]) -> Parts {
        let whole = |text: &&str| Text { text: (*text).to_owned(), ends: true };
        Parts { texts: texts.iter().map(whole).collect(), ended: 0, torn: false }
    }

    #[test]
    fn messages_are_counted_where_they_end() {
        let long = "word ".repeat(20);
        let mut parts = parts(&["a", &long, "c"]);
        assert_eq!(parts.messages_taken(), None);
        parts.take(1);
        assert_eq!(parts.messages_taken(), Some(1));
        assert!(parts.halve_first());
        parts.take(1);
        assert_eq!(parts.messages_taken(), None, "in the middle of the second");
        parts.take(1);
        assert_eq!(parts.messages_taken(), Some(2));
        parts.take(9);
        assert_eq!(parts.messages_taken(), Some(3));
    }

    #[test]
    fn who_spoke_is_told() {
        let said = Message::new(Role::Tool, "14 fish");
        let parts = Parts::of(&[&Message::new(Role::User, "How many?"), &said]);
        assert_eq!(parts.first(9), "User: How many?\nResult of a tool: 14 fish");
        assert_eq!(parts.first(1), "User: How many?");
    }

    #[test]
    fn only_as_many_are_tried_as_may_fit() {
        let parts = parts(&["aaa", "bb", "c"]);
        for (bytes, want) in [(0, 1), (3, 1), (4, 1), (5, 2), (6, 3), (usize::MAX, 3)] {
            assert_eq!(parts.within(bytes), want, "{bytes}");
        }
        assert_eq!(Parts::of(&[]).within(9), 0);
    }

    #[test]
    fn a_long_one_is_parted_at_a_line_or_a_word() {
        let lines = format!("{}\n{}", "a ".repeat(40), "b ".repeat(50));
        for (text, first) in [(lines, 81 + 6), ("word ".repeat(40), 101), ("x".repeat(194), 100)] {
            let mut parts = Parts::of(&[&Message::new(Role::User, text.as_str())]);
            let whole = parts.first(1);
            assert!(parts.halve_first());
            assert_eq!((parts.texts.len(), parts.texts[0].text.len()), (2, first));
            assert_eq!(parts.iter().collect::<String>(), whole);
        }
    }

    proptest! {
        #[test]
        fn halving_ends_and_loses_nothing(text in "(a|é|語| |\n){0,400}") {
            let mut parts = parts(&[&text]);
            let mut read = String::new();
            while !parts.is_empty() {
                if !parts.halve_first() {
                    read += &parts.first(1);
                    parts.take(1);
                }
            }
            prop_assert_eq!(read, text);
        }
    }
}
