//! Finds stop texts in a stream, and holds back what may still become one.

/// Watches text for the first of several stop texts.
#[derive(Debug)]
pub(crate) struct StopMatcher {
    stops: Vec<String>,
    held: String,
}

/// What became of some text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// This much is safe to show; the rest is held.
    Go(String),
    /// The text before the stop text, and which it was.
    Stop { before: String, stop: String },
}

impl StopMatcher {
    /// `stops` must not hold an empty text.
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self { stops, held: String::new() }
    }

    /// Takes more text.
    pub(crate) fn push(&mut self, text: &str) -> Step {
        self.held.push_str(text);
        if let Some((at, stop)) = self.first_match() {
            let before = self.held[..at].to_owned();
            self.held.clear();
            return Step::Stop { before, stop };
        }
        let keep = self.longest_possible_start();
        let rest = self.held.split_off(self.held.len() - keep);
        Step::Go(std::mem::replace(&mut self.held, rest))
    }

    /// What was held, now that no more text comes.
    pub(crate) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The leftmost match; of several at one place, the longest.
    fn first_match(&self) -> Option<(usize, String)> {
        self.stops
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)))
            .min_by_key(|(at, stop)| (*at, usize::MAX - stop.len()))
            .map(|(at, stop)| (at, stop.clone()))
    }

    /// Length of the longest end of the held text that is a proper start of a stop text.
    fn longest_possible_start(&self) -> usize {
        self.stops.iter().map(|stop| overlap(&self.held, stop)).max().unwrap_or(0)
    }
}

fn overlap(text: &str, stop: &str) -> usize {
    let longest = text.len().min(stop.len() - 1);
    (1..=longest)
        .rev()
        .find(|length| text.as_bytes().ends_with(&stop.as_bytes()[..*length]))
        // Bytes may match inside a character; a match that starts there can never be completed.
        .filter(|length| text.is_char_boundary(text.len() - length))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Feeds `pieces` and returns all text shown and the stop found.
    fn run(stops: &[&str], pieces: &[&str]) -> (String, Option<String>) {
        let mut matcher = StopMatcher::new(stops.iter().map(|&s| s.to_owned()).collect());
        let mut shown = String::new();
        for piece in pieces {
            match matcher.push(piece) {
                Step::Go(text) => shown += &text,
                Step::Stop { before, stop } => return (shown + &before, Some(stop)),
            }
        }
        (shown + &matcher.finish(), None)
    }

    #[track_caller]
    fn check(stops: &[&str], pieces: &[&str], shown: &str, stop: Option<&str>) {
        assert_eq!(run(stops, pieces), (shown.to_owned(), stop.map(str::to_owned)));
    }

    #[test]
    fn a_stop_across_pieces_is_found() {
        check(&["STOP"], &["one S", "TO", "P two"], "one ", Some("STOP"));
    }

    #[test]
    fn a_false_start_is_shown() {
        check(&["STOP"], &["ST", "ATE"], "STATE", None);
        check(&["aab"], &["aa", "ab"], "a", Some("aab"));
    }

    #[test]
    fn what_is_held_at_the_end_is_shown() {
        check(&["STOP"], &["wait ST"], "wait ST", None);
    }

    #[test]
    fn the_leftmost_stop_wins_then_the_longest() {
        check(&["b", "ab", "abc"], &["xabc"], "x", Some("abc"));
    }

    #[test]
    fn text_is_shown_as_soon_as_it_is_safe() {
        let mut matcher = StopMatcher::new(vec!["##".to_owned()]);
        assert_eq!(matcher.push("a#"), Step::Go("a".to_owned()));
        assert_eq!(matcher.push("b"), Step::Go("#b".to_owned()));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "[ab→é]{0,24}",
            stops in prop::collection::vec("[ab→é]{1,4}", 0..3),
            cuts in prop::collection::vec(0usize..24, 0..6),
        ) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut places: Vec<usize> =
                cuts.into_iter().filter(|&at| at <= text.len() && text.is_char_boundary(at)).collect();
            places.extend([0, text.len()]);
            places.sort_unstable();
            let pieces: Vec<&str> = places.windows(2).map(|w| &text[w[0]..w[1]]).collect();
            let (shown, stop) = run(&stops, &pieces);
            let whole = run(&stops, &[&text]);
            // Pieces may find an earlier-ending stop before a longer one is complete, but never
            // another place, and they lose nothing.
            prop_assert_eq!(stop.is_some(), whole.1.is_some());
            if stop.is_none() { prop_assert_eq!(&shown, &text); }
            prop_assert!(text.starts_with(&shown));
            prop_assert!(stops.iter().all(|s| !shown.contains(s)));
        }
    }
}
