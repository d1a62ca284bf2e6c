//! Which messages of a conversation go. Pure: it counts nothing and asks nobody.
//!
//! A cut is a place in the conversation. What stands at it and after it stays whole; of what stands before
//! it, the system's messages and the first and the last message of the user stay. So calls and their results
//! go together or stay together: no cut parts them.

use tieline_types::turns;
use tieline_types::{Message, Role};

/// The places at which a conversation can be cut, from the one that leaves out least.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cuts {
    places: Vec<usize>,
    first_user: Option<usize>,
    last_user: Option<usize>,
}

impl Cuts {
    pub(crate) fn of(messages: &[Message]) -> Self {
        let is_user = |message: &Message| message.role == Role::User;
        let first_user = messages.iter().position(is_user);
        let last_user = messages.iter().rposition(is_user);
        let mut cuts = Self { places: Vec::new(), first_user, last_user };
        let goes = (0..messages.len()).find(|&at| !cuts.keeps(messages, usize::MAX, at));
        cuts.places = turns::cuts(messages);
        // One before which all stays leaves out nothing.
        cuts.places.retain(|&at| goes.is_some_and(|goes| goes < at));
        cuts
    }

    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// The place of a cut by its number.
    pub(crate) fn at(&self, number: usize) -> usize {
        self.places.get(number).copied().unwrap_or(usize::MAX)
    }

    fn keeps(&self, messages: &[Message], cut: usize, at: usize) -> bool {
        let user = Some(at) == self.first_user || Some(at) == self.last_user;
        at >= cut || user || messages[at].role == Role::System
    }

    /// What a cut leaves out.
    pub(crate) fn gone<'m>(&self, messages: &'m [Message], cut: usize) -> Vec<&'m Message> {
        (0..messages.len())
            .filter(|&at| !self.keeps(messages, cut, at))
            .map(|at| &messages[at])
            .collect()
    }

    /// What a cut leaves, with `summary` in the place of what goes.
    pub(crate) fn with_summary(
        &self,
        messages: &[Message],
        cut: usize,
        summary: &str,
    ) -> Vec<Message> {
        let kept: Vec<usize> =
            (0..messages.len()).filter(|&at| self.keeps(messages, cut, at)).collect();
        let count = messages.len() - kept.len();
        let text = format!("[Summary of {count} earlier messages, which did not fit: {summary}]");
        let mut left: Vec<Message> = kept.iter().map(|&at| messages[at].clone()).collect();
        let first = self.first_user.filter(|&first| self.keeps(messages, cut, first));
        let Some(place) = first.and_then(|first| kept.iter().position(|&at| at == first)) else {
            // Without a user nobody else can have said it.
            let place = left.iter().take_while(|message| message.role == Role::System).count();
            left.insert(place, Message::new(Role::User, text));
            return left;
        };
        let next = left[place + 1..].iter().find(|message| message.role != Role::System);
        if next.is_some_and(|next| next.role == Role::User) {
            left.insert(place + 1, Message::new(Role::Assistant, text));
        } else {
            // Many templates want user and assistant by turns.
            let said = format!("{}\n\n{text}", left[place].content.expose());
            left[place].content = said.into();
        }
        left
    }
}

/// Finds by halving the first of some numbers that fits, where all after one that fits do too.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Search {
    low: usize,
    high: usize,
}

impl Search {
    pub(crate) fn over(count: usize) -> Self {
        Self { low: 0, high: count }
    }

    /// The number to try next; the last one tried that fits is the first that does.
    pub(crate) fn next(self) -> Option<usize> {
        (self.low < self.high).then(|| usize::midpoint(self.low, self.high))
    }

    /// Whether that fits.
    pub(crate) fn tell(&mut self, fits: bool) {
        let tried = usize::midpoint(self.low, self.high);
        if fits {
            self.high = tried;
        } else {
            self.low = tried + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tieline_types::ToolCall;

    use super::*;

    /// A conversation in letters: `s`ystem, `u`ser, `a`ssistant, `c`alls, `t`ool's result of the call
    /// before. Each message says its own place.
    fn conversation(letters: &str) -> Vec<Message> {
        let mut calls = 0;
        let message = |(at, letter): (usize, char)| {
            let role = match letter {
                's' => Role::System,
                'u' => Role::User,
                't' => Role::Tool,
                _ => Role::Assistant,
            };
            let mut message = Message::new(role, at.to_string());
            if letter == 'c' {
                calls += 1;
                let arguments = "{}".into();
                let call = ToolCall { id: calls.to_string(), name: "look".into(), arguments };
                message.tool_calls.push(call);
            }
            if letter == 't' {
                message.tool_call_id = Some(calls.to_string());
            }
            message
        };
        letters.chars().enumerate().map(message).collect()
    }

    /// The places of the messages that go, for each cut.
    fn gone(letters: &str) -> Vec<String> {
        let messages = conversation(letters);
        let cuts = Cuts::of(&messages);
        let places = |number| {
            let gone = cuts.gone(&messages, cuts.at(number));
            gone.iter().map(|message| message.content.expose()).collect::<Vec<_>>().join(" ")
        };
        (0..cuts.len()).map(places).collect()
    }

    #[test]
    fn the_middle_goes_turn_by_turn() {
        assert_eq!(gone("suauaua"), ["2", "2 3 4"]);
        // The newest turn is cut only where all before it is gone.
        assert_eq!(gone("suauacta"), ["2", "2 4", "2 4 5 6"]);
        assert_eq!(gone("sua"), [""; 0]);
        assert_eq!(gone("su"), [""; 0]);
        assert_eq!(gone(""), [""; 0]);
    }

    #[test]
    fn an_agents_turn_goes_call_by_call_with_the_results() {
        assert_eq!(gone("suctcttct"), ["2 3", "2 3 4 5 6"]);
    }

    #[test]
    fn a_late_result_holds_its_call() {
        assert_eq!(gone("uauctuau"), ["1", "1 2 3 4", "1 2 3 4 5 6"]);
        // A result after the next question: nothing between may be a cut.
        let mut messages = conversation("uaucuta");
        messages[5].tool_call_id = Some("1".to_owned());
        let cuts = Cuts::of(&messages);
        assert_eq!((0..cuts.len()).map(|n| cuts.at(n)).collect::<Vec<_>>(), [2, 6]);
    }

    #[test]
    fn the_summary_stands_where_templates_can_bear_it() {
        let said = |letters: &str, cut: usize| {
            let messages = conversation(letters);
            let left = Cuts::of(&messages).with_summary(&messages, cut, "x");
            left.iter()
                .map(|message| format!("{}:{}", message.role.as_str(), message.content.expose()))
                .collect::<Vec<_>>()
                .join("|")
        };
        let summary = "[Summary of 1 earlier messages, which did not fit: x]";
        assert_eq!(said("suau", 3), format!("system:0|user:1|assistant:{summary}|user:3"));
        let summary = "[Summary of 2 earlier messages, which did not fit: x]";
        assert_eq!(said("suctct", 4), format!("system:0|user:1\n\n{summary}|assistant:4|tool:5"));
        assert_eq!(said("saaa", 3), format!("system:0|user:{summary}|assistant:3"));
    }

    proptest! {
        #[test]
        fn what_must_stay_stays_and_nothing_is_torn(letters in "s{0,2}[usact]{0,24}") {
            let messages = conversation(&letters);
            let cuts = Cuts::of(&messages);
            let mut before = 0;
            for number in 0..cuts.len() {
                let cut = cuts.at(number);
                let gone = cuts.gone(&messages, cut);
                prop_assert!(gone.iter().all(|message| message.role != Role::System));
                // Later cuts leave out more, and each leaves out something.
                prop_assert!(gone.len() >= before.max(1));
                before = gone.len();
                // The newest message stays, and so do the first and last of the user.
                let users: Vec<&Message> =
                    messages.iter().filter(|message| message.role == Role::User).collect();
                let must = [users.first().copied(), users.last().copied(), messages.last()];
                for kept in must.into_iter().flatten() {
                    prop_assert!(!gone.contains(&kept));
                }
                // A result goes with its call and stays with it.
                for (at, result) in messages.iter().enumerate().filter(|(_, m)| m.role == Role::Tool) {
                    let call = messages[..at].iter().rfind(|message| {
                        message.tool_calls.iter().any(|c| Some(&c.id) == result.tool_call_id.as_ref())
                    });
                    if let Some(call) = call {
                        prop_assert_eq!(gone.contains(&call), gone.contains(&result));
                    }
                }
                let left = cuts.with_summary(&messages, cut, "");
                prop_assert!(left.len() + gone.len() <= messages.len() + 1);
            }
        }

        #[test]
        fn the_search_finds_the_first_that_fits_or_says_that_none_does(count in 0usize..200, first in 0usize..220) {
            let mut search = Search::over(count);
            let mut found = None;
            let mut tries = 0;
            while let Some(number) = search.next() {
                search.tell(number >= first);
                found = if number >= first { Some(number) } else { found };
                tries += 1;
                prop_assert!(tries <= 9);
            }
            prop_assert_eq!(found, (first < count).then_some(first));
        }
    }
}
