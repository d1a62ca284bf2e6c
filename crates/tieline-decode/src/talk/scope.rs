//! Where the rule of an answer holds: for its text, and neither for thoughts before it nor for calls in its place; or for the
//! calls that a model makes of its own accord.

use super::{Format, Talk};

/// Where an answer with a rule stands.
#[derive(Clone, Debug)]
pub struct Scope {
    rule: For,
    state: State,
}

/// What a rule is for.
#[derive(Clone, Debug)]
enum For {
    /// The text. These begin a thought, or a call where one may stand in the text's place.
    Text(Vec<&'static str>),
    /// Calls, if the model makes any: this marker begins the first.
    Calls(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing of the text has come.
    Before,
    /// The model began a thought or a call instead.
    Elsewhere,
    /// The rule holds.
    Within,
}

impl Scope {
    /// Of an answer in which the model may think before the text, or call instead of it.
    pub fn new(format: Format, may_think: bool, may_call: bool) -> Self {
        let opens = |marker: &&str| may_call || may_think && format.is_of_thoughts(marker);
        let openers = format.markers().iter().copied().filter(|marker| !marker.contains('/'));
        Self { rule: For::Text(openers.filter(opens).collect()), state: State::Before }
    }

    /// Of an answer in which the model may call as it likes, with a rule for calls that begin so; a marker of the format's comes
    /// first in it.
    pub fn of_calls(format: Format, begin: &'static str) -> Self {
        let marker = format.markers().iter().copied().find(|marker| begin.starts_with(marker));
        Self { rule: For::Calls(marker.unwrap_or(begin)), state: State::Before }
    }

    /// Whether the model's free choice decides what comes next.
    pub fn is_open(&self, talk: &Talk) -> bool {
        let may_differ = !matches!(&self.rule, For::Text(openers) if openers.is_empty());
        self.state == State::Before && may_differ && !talk.in_reasoning()
    }

    /// The model would like to say `text` next, while the scope [is open](Self::is_open); `allowed` says whether the rule may
    /// begin so. Of a rule for the text: if that begins a thought or a call, it may, which is `true`; what only may become one is
    /// left to the rule where that allows it.
    pub fn consider(&mut self, text: &str, mut allowed: impl FnMut() -> bool) -> bool {
        let text = text.trim_start();
        let begins = |opener: &&str| text.starts_with(opener);
        let may_begin = |opener: &&str| !text.is_empty() && opener.starts_with(text);
        self.state = match &self.rule {
            For::Text(all) if all.iter().any(begins) => State::Elsewhere,
            For::Text(all) if all.iter().any(may_begin) && !allowed() => State::Elsewhere,
            For::Calls(begin) if text.starts_with(begin) && allowed() => State::Within,
            _ => State::Before,
        };
        self.state == State::Elsewhere
    }

    /// Whether the rule says what may come next.
    pub fn holds(&self, talk: &Talk) -> bool {
        let holds = match (&self.rule, self.state) {
            (_, State::Within) | (For::Text(_), State::Before) => true,
            (_, State::Elsewhere) | (For::Calls(_), State::Before) => false,
        };
        holds && !talk.in_reasoning()
    }

    /// What comes next is chosen by the rule.
    pub fn enter(&mut self) {
        self.state = State::Within;
    }

    /// The rule is at its end: of calls, another may follow some time.
    pub fn complete(&mut self) -> bool {
        let calls = matches!(self.rule, For::Calls(_));
        if calls {
            self.state = State::Before;
        }
        calls
    }

    /// Whether something of the text was chosen by the rule.
    pub fn is_within(&self) -> bool {
        self.state == State::Within
    }

    /// After `talk` heard what the model said: where a thought is over, or was none, the text comes. After a call it need not.
    pub fn follow(&mut self, talk: &Talk) {
        if self.state == State::Elsewhere && talk.is_answering() && !talk.called() {
            self.state = State::Before;
        }
    }
}

#[cfg(test)]
mod tests {
    use tieline_types::{Tool, ToolChoice};

    use super::*;

    /// What the model would like to say, by what it then says: `Free` as it likes, `Ruled` by the rule.
    #[derive(Debug, PartialEq, Eq)]
    enum Spoke {
        Free(&'static str),
        Ruled(&'static str),
    }
    use Spoke::{Free, Ruled};

    fn tool() -> Tool {
        Tool { name: "look".into(), description: String::new(), parameters: String::new() }
    }

    /// Lets a model that thinks have its wishes; the rule allows texts that begin as `starts` says.
    fn speak(
        format: Format,
        (prompt_thinks, tools): (bool, &[Tool]),
        starts: &str,
        wishes: &[&'static str],
    ) -> Vec<Spoke> {
        let mut talk = Talk::new(format, tools, &ToolChoice::Auto, prompt_thinks, "1");
        let mut scope = Scope::new(format, true, !tools.is_empty());
        let mut spoken = Vec::new();
        for wish in wishes {
            if scope.is_open(&talk) {
                scope.consider(wish, || wish.starts_with(starts));
            }
            spoken.push(if scope.holds(&talk) {
                scope.enter();
                Ruled(wish)
            } else {
                Free(wish)
            });
            talk.push(wish);
            scope.follow(&talk);
        }
        spoken
    }

    #[test]
    fn the_rule_holds_after_a_thought_that_the_model_began() {
        let wishes = ["<think>", "a", "</think>", "\n", "{", "}"];
        let want =
            [Free("<think>"), Free("a"), Free("</think>"), Ruled("\n"), Ruled("{"), Ruled("}")];
        assert_eq!(speak(Format::Hermes, (false, &[]), "{", &wishes), want);
        assert_eq!(speak(Format::Hermes, (false, &[tool()]), "{", &wishes), want);
        // Of a marker in pieces.
        let wishes = ["<", "think", ">", "a", "</", "think", ">", "{"];
        let spoken = speak(Format::DeepSeek, (false, &[]), "{", &wishes);
        assert!(spoken[..7].iter().all(|spoke| matches!(spoke, Free(_))), "{spoken:?}");
        assert_eq!(spoken[7], Ruled("{"));
        // Of nothing.
        let want = [Free("<think>"), Free("</think>"), Ruled("{")];
        assert_eq!(speak(Format::Hermes, (false, &[]), "{", &["<think>", "</think>", "{"]), want);
    }

    #[test]
    fn the_rule_holds_after_a_thought_that_the_prompt_began() {
        let want = [Free("a"), Free("</think>"), Ruled("{")];
        assert_eq!(speak(Format::Hermes, (true, &[]), "{", &["a", "</think>", "{"]), want);
    }

    #[test]
    fn what_may_begin_a_marker_is_the_texts_where_its_rule_allows_it() {
        let want = [Ruled("["), Ruled("1"), Ruled("]")];
        assert_eq!(speak(Format::Mistral, (false, &[]), "[", &["[", "1", "]"]), want);
        // The whole marker is one, whatever the rule says.
        let want = [Free("[THINK]"), Free("a"), Free("[/THINK]"), Ruled("[")];
        let wishes = ["[THINK]", "a", "[/THINK]", "["];
        assert_eq!(speak(Format::Mistral, (false, &[]), "[", &wishes), want);
        // What turns out to be none is text outside the rule; what follows is not.
        let want = [Free("<"), Free("b"), Ruled("{")];
        assert_eq!(speak(Format::Hermes, (false, &[]), "{", &["<", "b", "{"]), want);
    }

    #[test]
    fn the_rule_holds_in_the_final_channel() {
        let header = ["<|channel|>", "final", "<|message|>"];
        let spoken = speak(Format::Harmony, (false, &[]), "{", &[&header[..], &["{"]].concat());
        assert_eq!(spoken, [Free(header[0]), Free(header[1]), Free(header[2]), Ruled("{")]);
        let thought = ["<|channel|>", "analysis", "<|message|>", "a", "<|end|>"];
        let wishes = [&thought[..], &["<|start|>", "assistant"], &header[..], &["{"]].concat();
        let spoken = speak(Format::Harmony, (false, &[]), "{", &wishes);
        let (last, before) = spoken.split_last().unwrap();
        assert!(before.iter().all(|spoke| matches!(spoke, Free(_))), "{spoken:?}");
        assert_eq!(*last, Ruled("{"));
    }

    #[test]
    fn calls_that_the_model_likes_to_make_keep_to_their_rule() {
        let mut talk = Talk::new(Format::Hermes, &[tool()], &ToolChoice::Auto, false, "1");
        let mut scope = Scope::of_calls(Format::Hermes, "<tool_call>\n");
        let mut step = |wish: &str, allowed: bool| {
            if scope.is_open(&talk) {
                assert!(!scope.consider(wish, || allowed), "it has nowhere else to go");
            }
            let holds = scope.holds(&talk);
            if holds {
                scope.enter();
            }
            talk.push(wish);
            scope.follow(&talk);
            holds
        };
        for (wish, allowed, holds) in [
            ("<think>", false, false),
            ("<tool_call>", true, false),
            ("</think>", false, false),
            ("Well", false, false),
            // In pieces it may be anything yet.
            ("<", true, false),
            ("b>", false, false),
            ("<tool_call>", false, false),
            ("<tool_call>", true, true),
            ("\n", true, true),
            ("x", false, true),
        ] {
            assert_eq!(step(wish, allowed), holds, "{wish}");
        }
        assert!(scope.complete());
        assert!(!scope.holds(&talk), "what follows is free");
        // Of a text there is one.
        let mut scope = Scope::new(Format::Hermes, true, true);
        scope.enter();
        assert!(!scope.complete() && scope.is_within());
    }

    #[test]
    fn nothing_need_follow_a_call() {
        let wishes = ["<tool_call>", r#"{"name": "look", "arguments": {}}"#, "</tool_call>", "end"];
        let spoken = speak(Format::Hermes, (false, &[tool()]), "{", &wishes);
        assert!(spoken.iter().all(|spoke| matches!(spoke, Free(_))), "{spoken:?}");
        // Where none may be made, it is no opener.
        let spoken = speak(Format::Hermes, (false, &[]), "{", &wishes[..1]);
        assert_eq!(spoken, [Ruled("<tool_call>")]);
    }
}
