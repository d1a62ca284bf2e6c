//! Where the rule of an answer holds: for its text, and neither for thoughts before it nor for calls in its place.

use super::{Format, Talk};

/// Where an answer with a rule stands.
#[derive(Clone, Debug)]
pub struct Scope {
    /// What begins a thought, or a call where one may stand in the text's place.
    openers: Vec<&'static str>,
    state: State,
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
        Self { openers: openers.filter(opens).collect(), state: State::Before }
    }

    /// Whether the model's free choice decides what comes next.
    pub fn is_open(&self, talk: &Talk) -> bool {
        self.state == State::Before && !self.openers.is_empty() && !talk.in_reasoning()
    }

    /// The model would like to say `text` next, while the scope [is open](Self::is_open): if that begins a thought or a call, it
    /// may, which is `true`. What only may become one is left to the rule where `allowed` says that the text may begin so.
    pub fn consider(&mut self, text: &str, allowed: impl FnOnce() -> bool) -> bool {
        let text = text.trim_start();
        let begins = |opener: &&str| text.starts_with(opener);
        let may_begin = |opener: &&str| !text.is_empty() && opener.starts_with(text);
        let all = &self.openers;
        let elsewhere = all.iter().any(begins) || all.iter().any(may_begin) && !allowed();
        if elsewhere {
            self.state = State::Elsewhere;
        }
        elsewhere
    }

    /// Whether the rule says what may come next.
    pub fn holds(&self, talk: &Talk) -> bool {
        self.state != State::Elsewhere && !talk.in_reasoning()
    }

    /// What comes next is chosen by the rule, so that `talk` must say all of it: space at its start too, which a text that
    /// follows a thought has not else.
    pub fn enter(&mut self, talk: &mut Talk) {
        if self.state != State::Within {
            self.state = State::Within;
            talk.keep_space();
        }
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
                scope.enter(&mut talk);
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
        let wishes = ["<|channel>", "thought", "a", "<channel|>", "{"];
        let spoken = speak(Format::Gemma, (false, &[]), "{", &wishes);
        assert!(spoken[..4].iter().all(|spoke| matches!(spoke, Free(_))), "{spoken:?}");
        assert_eq!(spoken[4], Ruled("{"));
        // Of nothing.
        let want = [Free("<think>"), Free("</think>"), Ruled("{")];
        assert_eq!(speak(Format::Hermes, (false, &[]), "{", &["<think>", "</think>", "{"]), want);
    }

    /// What an answer whose thought is free and whose text is ruled says.
    fn said(prompt_thinks: bool, pieces: &[&str]) -> String {
        let mut talk = Talk::new(Format::Hermes, &[], &ToolChoice::Auto, prompt_thinks, "1");
        let mut scope = Scope::new(Format::Hermes, true, false);
        let mut said = Vec::new();
        for piece in pieces {
            if scope.is_open(&talk) {
                scope.consider(piece, || !piece.starts_with('<'));
            }
            if scope.holds(&talk) {
                scope.enter(&mut talk);
            }
            said.extend(talk.push(piece));
            scope.follow(&talk);
        }
        said.extend(talk.finish());
        let text = |said| if let crate::talk::Said::Text(text) = said { Some(text) } else { None };
        said.into_iter().filter_map(text).collect()
    }

    #[test]
    fn space_that_the_rule_chose_is_said() {
        assert_eq!(said(false, &["<think>", "a", "</think>", "\n", " {", "}", "\n"]), "\n {}\n");
        assert_eq!(said(true, &["a", "</think>", "\n", "\n"]), "\n\n");
        assert_eq!(said(false, &["\n", "{"]), "\n{");
        // What came with the thought's end was nobody's choice.
        assert_eq!(said(true, &["a\n", "</think>\n\n", "\n", "{", "}"]), "\n{}");
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
    fn nothing_need_follow_a_call() {
        let wishes = ["<tool_call>", r#"{"name": "look", "arguments": {}}"#, "</tool_call>", "end"];
        let spoken = speak(Format::Hermes, (false, &[tool()]), "{", &wishes);
        assert!(spoken.iter().all(|spoke| matches!(spoke, Free(_))), "{spoken:?}");
        // Where none may be made, it is no opener.
        let spoken = speak(Format::Hermes, (false, &[]), "{", &wishes[..1]);
        assert_eq!(spoken, [Ruled("<tool_call>")]);
    }
}
