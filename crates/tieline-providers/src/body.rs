//! What the vendors' bodies have in common: the conversation as turns, and what no vendor can express.

use std::iter;

use serde_json::{Map, Value};
use tieline_types::{
    BackendError, Constraint, Effort, ErrorKind, Message, Overflow, Picture, PictureKind,
    PictureSource, Prompt, Request, Role, Sampling, Tool, ToolCall,
};

use crate::errors;

/// A part of a turn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part<'a> {
    /// What is said. Never empty.
    Text(&'a str),
    /// Instructions from later in the conversation than its beginning, where the vendor takes them there.
    System(&'a str),
    /// A picture that the person shows.
    Picture(&'a Picture),
    /// A call that the assistant made.
    Call(&'a ToolCall),
    /// The result of a call.
    Result {
        /// The call that this answers.
        call: &'a ToolCall,
        /// The call's place among those of its turn.
        place: usize,
        /// What came of it.
        text: &'a str,
        /// And the pictures in it.
        pictures: &'a [Picture],
    },
}

/// What one side says until the other speaks. Results of calls stand before texts, in the order of the calls.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    /// Whether the model speaks, or the person and the tools.
    pub(crate) assistant: bool,
    /// What is said. Never empty.
    pub(crate) parts: Vec<Part<'a>>,
}

/// A conversation whose sides alternate.
#[derive(Debug, Default)]
pub(crate) struct Talk<'a> {
    /// The instructions above the conversation.
    pub(crate) system: Vec<&'a str>,
    /// The turns.
    pub(crate) turns: Vec<Turn<'a>>,
    /// Whether instructions stood later in the conversation than at its beginning.
    pub(crate) moved: bool,
    /// Whether a turn brought thoughts along.
    pub(crate) thoughts: bool,
    /// Whether a speaker has a name.
    pub(crate) names: bool,
}

/// The vendor cannot express what the request needs.
pub(crate) fn unsupported(vendor: &str, what: &str) -> BackendError {
    errors::unsupported(what, vendor)
}

fn invalid(what: &str) -> BackendError {
    BackendError::new(ErrorKind::InvalidRequest, what)
}

/// The request's conversation.
pub(crate) fn messages<'a>(
    request: &'a Request,
    vendor: &str,
) -> Result<&'a [Message], BackendError> {
    let what = match &request.prompt {
        Prompt::Chat(messages) if messages.is_empty() => {
            return Err(invalid("the conversation is empty"));
        }
        Prompt::Chat(messages) => return Ok(messages),
        Prompt::Text(_) => "a text to go on from",
        Prompt::Tokens(_) | Prompt::Rendered(_) => "a prompt of tokens",
        Prompt::Infill { .. } => "a gap to fill",
        Prompt::Texts(_) => "an answer to texts that are to become vectors",
    };
    Err(unsupported(vendor, what))
}

/// Refuses what only a model at hand can do: the answer would be another than the one asked for.
pub(crate) fn refuse_local(request: &Request, vendor: &str) -> Result<(), BackendError> {
    let grammar = match &request.constraint {
        Some(Constraint::Regex(_) | Constraint::Lark(_) | Constraint::Gbnf(_)) => true,
        Some(Constraint::JsonObject | Constraint::JsonSchema(_)) | None => false,
    };
    let refused = [
        (request.prompt_logprobs.is_some(), "log-probabilities of the prompt"),
        (!request.sampling.logit_bias.is_empty(), "biases of our token numbers"),
        (request.ignore_eog, "going on past the end of an answer"),
        (request.deterministic, "an answer that can be made again with a receipt"),
        (grammar, "a grammar or regular expression"),
    ];
    match refused.into_iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(unsupported(vendor, what)),
        None => Ok(()),
    }
}

/// Refuses log-probabilities, where the vendor does not tell them or no model's that is asked.
pub(crate) fn refuse_logprobs(request: &Request, vendor: &str) -> Result<(), BackendError> {
    match request.logprobs {
        Some(_) => Err(unsupported(vendor, "log-probabilities")),
        None => Ok(()),
    }
}

/// What a vendor's sampling knows besides temperature and `top_p`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Knows {
    pub(crate) top_k: bool,
    pub(crate) penalties: bool,
    pub(crate) seed: bool,
}

/// Says what of the sampling and of the context's rules is left out. A value that is our default was not chosen
/// by the caller, so it is neither sent nor missed; nor is one that is off, where the vendor has no such thing.
pub(crate) fn warn_left_out(request: &Request, knows: Knows, warnings: &mut Vec<String>) {
    let (asked, usual) = (&request.sampling, Sampling::default());
    let penalties = differs(asked.presence_penalty, usual.presence_penalty)
        || differs(asked.frequency_penalty, usual.frequency_penalty);
    let left_out = [
        (!knows.top_k && asked.top_k != usual.top_k, "top_k"),
        (asked.min_p > 0.0 && differs(asked.min_p, usual.min_p), "min_p"),
        (differs(asked.repeat_penalty, usual.repeat_penalty), "repeat_penalty"),
        (!knows.penalties && penalties, "presence_penalty and frequency_penalty"),
        (asked.penalty_window != usual.penalty_window, "window of penalties"),
        (!knows.seed && asked.seed.is_some(), "seed, so the answer is not repeatable"),
    ];
    let said = left_out.into_iter().filter(|(missed, _)| *missed);
    warnings.extend(said.map(|(_, what)| format!("left out: the vendor has no {what}")));
    if request.overflow != Overflow::Error {
        warnings.push("the vendor refuses a prompt that is too long: it drops nothing".to_owned());
    }
}

/// Says what of the conversation is left out or elsewhere.
pub(crate) fn warn_talk(talk: &Talk<'_>, warnings: &mut Vec<String>) {
    let said = [
        (talk.moved, "instructions from later in the conversation were moved to its beginning"),
        (
            talk.thoughts,
            "left out: earlier reasoning, which the vendor takes only with its signature",
        ),
        (talk.names, "left out: the names of speakers"),
    ];
    warnings.extend(said.into_iter().filter(|(is, _)| *is).map(|(_, what)| what.to_owned()));
}

/// Whether two settings are not the same.
pub(crate) fn differs(asked: f32, usual: f32) -> bool {
    (asked - usual).abs() > f32::EPSILON
}

/// The number as its shortest decimal says it: 0.7, not 0.699999988.
pub(crate) fn decimal(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// A call's arguments as the JSON object that they have to be.
pub(crate) fn arguments(call: &ToolCall) -> Result<Map<String, Value>, BackendError> {
    let text = call.arguments.expose().trim();
    if text.is_empty() {
        return Ok(Map::new());
    }
    // The parser's own words may repeat the text.
    serde_json::from_str(text).map_err(|_| {
        let what = "the arguments of a call in the conversation are no JSON object";
        errors::inexpressible(what)
            .with_hint("a vendor that takes arguments as text may answer this")
    })
}

/// Refuses tools whose names the vendor would refuse.
pub(crate) fn check_names(
    tools: &[Tool],
    vendor: &str,
    (allowed, longest): (fn(char) -> bool, usize),
) -> Result<(), BackendError> {
    if let Some(tool) = tools.iter().find(|tool| !tool.name.chars().all(allowed)) {
        return Err(unsupported(vendor, &format!("a tool named {:?}", tool.name)));
    }
    if tools.iter().any(|tool| tool.name.len() > longest) {
        let what = format!("a tool whose name is longer than {longest} characters");
        return Err(unsupported(vendor, &what));
    }
    Ok(())
}

/// Where instructions go that stand later in the conversation than at its beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Later {
    /// To the others, since the vendor has one place for them.
    Moves,
    /// They stay.
    Stays,
}

/// Makes the sides of a conversation alternate, and brings results and calls together.
///
/// A result finds its call by its id, else by the tool's name, else by order, among the calls of the turn before.
///
/// # Errors
/// A result answers no call, or a call has no result though the conversation goes on.
pub(crate) fn talk(messages: &[Message], later: Later) -> Result<Talk<'_>, BackendError> {
    let mut talk = Talk::default();
    let mut open: Vec<Option<&ToolCall>> = Vec::new();
    for message in messages {
        talk.thoughts |= message.reasoning.is_some();
        match message.role {
            Role::System => {
                talk.instruct(message, later);
                continue;
            }
            Role::Tool => {
                let (place, call) = answered(message, &mut open)?;
                let (text, pictures) = (message.content.expose(), message.pictures.as_slice());
                talk.push(false, iter::once(Part::Result { call, place, text, pictures }));
                continue;
            }
            Role::User | Role::Assistant => talk.names |= message.name.is_some(),
            other => return Err(invalid(&format!("no vendor knows the role {}", other.as_str()))),
        }
        if open.iter().any(Option::is_some) {
            return Err(invalid("a call in the conversation has no result, though it goes on"));
        }
        let assistant = message.role == Role::Assistant;
        let calls = if assistant { message.tool_calls.as_slice() } else { &[] };
        open = calls.iter().map(Some).collect();
        talk.push(assistant, said(message).into_iter().chain(calls.iter().map(Part::Call)));
    }
    talk.turns.iter_mut().for_each(order_results);
    if talk.turns.is_empty() {
        return Err(invalid("the conversation has no turn that says anything"));
    }
    Ok(talk)
}

fn text(message: &Message) -> impl Iterator<Item = &str> {
    Some(message.content.expose()).filter(|text| !text.is_empty()).into_iter()
}

/// What a message says and shows, each picture at its place.
pub(crate) fn said(message: &Message) -> Vec<Part<'_>> {
    let text = message.content.expose();
    let mut parts = Vec::with_capacity(1 + 2 * message.pictures.len());
    let mut from = 0;
    for picture in &message.pictures {
        let until = picture.at.clamp(from, text.len());
        // A place within a letter is none: the picture stands before all of the text that is left.
        if let Some(before) = text.get(from..until) {
            parts.extend(Some(before).filter(|before| !before.is_empty()).map(Part::Text));
            from = until;
        }
        parts.push(Part::Picture(picture));
    }
    let rest = text.get(from..).unwrap_or_default();
    parts.extend(Some(rest).filter(|rest| !rest.is_empty()).map(Part::Text));
    parts
}

/// Refuses pictures in results of calls, where the vendor has no place for them.
pub(crate) fn refuse_result_pictures(talk: &Talk<'_>, vendor: &str) -> Result<(), BackendError> {
    let mut parts = talk.turns.iter().flat_map(|turn| &turn.parts);
    match parts.any(|part| matches!(part, Part::Result { pictures: [_, ..], .. })) {
        true => Err(unsupported(vendor, "a picture in a tool's result")),
        false => Ok(()),
    }
}

/// The bytes of a picture and their media type, where the vendor fetches none and takes it.
pub(crate) fn inline<'a>(
    picture: &'a Picture,
    vendor: &str,
) -> Result<(PictureKind, &'a str), BackendError> {
    match &picture.source {
        PictureSource::Bytes { kind, base64 } => Ok((*kind, base64.expose())),
        PictureSource::Link(_) => Err(unsupported(vendor, "a picture behind a link")),
    }
}

/// Which of these words, from the least up, tells a model that is to think how much; where none is what was asked, the
/// nearest, and that is said. `None`: it does not think, or nobody says how much.
pub(crate) fn effort(
    request: &Request,
    words: &[&'static str],
    warnings: &mut Vec<String>,
) -> Option<&'static str> {
    let thinks = request.thinks() == Some(true);
    let (word, exact) = request.effort.filter(|_| thinks)?.among(words)?;
    if !exact {
        warn_effort(request, word, warnings);
    }
    Some(word)
}

/// Says by which word the vendor is told how much to think, where it has none for what was asked.
pub(crate) fn warn_effort(request: &Request, word: &str, warnings: &mut Vec<String>) {
    if let Some(effort) = request.effort {
        warnings.push(format!("to think for {effort} was asked, and {word} is what could be said"));
    }
}

/// Says that the vendor cannot be told how much to think.
pub(crate) fn warn_no_effort(request: &Request, warnings: &mut Vec<String>) {
    if request.thinks() == Some(true) && request.effort.is_some_and(|effort| effort != Effort::Own)
    {
        warnings.push("left out: how much to think".to_owned());
    }
}

/// Says that the vendor cannot be told how closely to look.
pub(crate) fn warn_detail(request: &Request, warnings: &mut Vec<String>) {
    if request.pictures().any(|picture| picture.detail.is_some()) {
        warnings.push("left out: how closely to look at pictures".to_owned());
    }
}

/// Takes the call that a result answers from those that wait.
fn answered<'a>(
    message: &Message,
    open: &mut [Option<&'a ToolCall>],
) -> Result<(usize, &'a ToolCall), BackendError> {
    let fits = |call: &ToolCall| match (&message.tool_call_id, &message.name) {
        (Some(id), _) => call.id == *id,
        (None, Some(name)) => call.name == *name,
        (None, None) => true,
    };
    let slot = open.iter_mut().enumerate().find(|(_, slot)| slot.is_some_and(fits));
    slot.and_then(|(place, slot)| Some((place, slot.take()?)))
        .ok_or_else(|| invalid("a tool's result in the conversation answers no call before it"))
}

impl<'a> Talk<'a> {
    fn instruct(&mut self, message: &'a Message, later: Later) {
        match (self.turns.is_empty(), later) {
            (false, Later::Stays) => self.push(false, text(message).map(Part::System)),
            (first, Later::Stays | Later::Moves) => {
                self.moved |= !first;
                self.system.extend(text(message));
            }
        }
    }

    fn push(&mut self, assistant: bool, parts: impl Iterator<Item = Part<'a>>) {
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return;
        }
        match self.turns.last_mut() {
            Some(turn) if turn.assistant == assistant => turn.parts.extend(parts),
            Some(_) | None => self.turns.push(Turn { assistant, parts: parts.collect() }),
        }
    }

    /// The calls of a turn.
    pub(crate) fn calls(&self, turn: usize) -> Vec<&'a ToolCall> {
        let parts = self.turns.get(turn).map(|turn| turn.parts.as_slice()).unwrap_or_default();
        let call = |part: &Part<'a>| match part {
            Part::Call(call) => Some(*call),
            Part::Text(_) | Part::System(_) | Part::Picture(_) | Part::Result { .. } => None,
        };
        parts.iter().filter_map(call).collect()
    }

    /// The instructions as one text; `None` where there are none.
    pub(crate) fn instructions(&self) -> Option<String> {
        (!self.system.is_empty()).then(|| self.system.join("\n\n"))
    }
}

/// Results before texts, in the order of their calls.
fn order_results(turn: &mut Turn<'_>) {
    if turn.assistant {
        return;
    }
    turn.parts.sort_by_key(|part| match part {
        Part::Result { place, .. } => *place,
        Part::Text(_) | Part::System(_) | Part::Picture(_) | Part::Call(_) => usize::MAX,
    });
}

#[cfg(test)]
mod tests {
    use tieline_types::Retry;

    use super::*;
    use crate::replay;

    #[track_caller]
    fn refused(change: impl FnOnce(&mut Vec<Message>), want: &str) {
        let mut messages = replay::agent();
        change(&mut messages);
        let error = talk(&messages, Later::Moves).unwrap_err();
        assert_eq!((error.kind, error.to_string().as_str()), (ErrorKind::InvalidRequest, want));
    }

    #[test]
    fn results_and_calls_belong_together() {
        let no_call = "a tool's result in the conversation answers no call before it";
        refused(|messages| messages[4].tool_call_id = Some("call_9".to_owned()), no_call);
        refused(|messages| messages[3].name = Some("get_time".to_owned()), no_call);
        refused(|messages| messages.insert(2, Message::new(Role::Tool, "x")), no_call);
        let twice = |messages: &mut Vec<Message>| messages.insert(5, messages[4].clone());
        refused(twice, no_call);
        let no_result = "a call in the conversation has no result, though it goes on";
        refused(|messages| _ = messages.remove(4), no_result);
        let nothing = "the conversation has no turn that says anything";
        refused(|messages| messages.truncate(1), nothing);
    }

    #[test]
    fn results_find_their_calls_by_order_where_nothing_names_them() {
        let mut messages = replay::agent();
        (messages[3].name, messages[4].tool_call_id) = (None, None);
        let talk = talk(&messages, Later::Moves).unwrap();
        let result = |part: &Part<'_>| match part {
            Part::Result { call, text, .. } => Some(format!("{} {text}", call.name)),
            Part::Text(_) | Part::System(_) | Part::Picture(_) | Part::Call(_) => None,
        };
        let results: Vec<_> = talk.turns[2].parts.iter().filter_map(result).collect();
        assert_eq!(results, ["get_weather 12:00", "now {\"sky\":\"rain\"}"]);
        assert_eq!(talk.calls(1).len(), 2);
    }

    #[test]
    fn sides_alternate_and_the_empty_is_left_out() {
        let roles = [Role::User, Role::User, Role::Assistant, Role::User, Role::Assistant];
        let texts = ["a", "b", "", "c", "d"];
        let messages: Vec<_> =
            roles.into_iter().zip(texts).map(|(role, text)| Message::new(role, text)).collect();
        let talk = talk(&messages, Later::Moves).unwrap();
        let sizes: Vec<_> =
            talk.turns.iter().map(|turn| (turn.assistant, turn.parts.len())).collect();
        assert_eq!(sizes, [(false, 3), (true, 1)]);
    }

    #[test]
    fn pictures_stand_at_their_places() {
        let picture = |at| Picture {
            at,
            source: PictureSource::Link("https://example.org".into()),
            detail: None,
        };
        let told = |places: &[usize]| {
            let pictures = places.iter().map(|&at| picture(at)).collect();
            let message = Message { pictures, ..Message::new(Role::User, "aéb") };
            let word = |part: &Part<'_>| match part {
                Part::Text(text) => (*text).to_owned(),
                Part::Picture(_) => "*".to_owned(),
                other => panic!("{other:?}"),
            };
            said(&message).iter().map(word).collect::<Vec<_>>().join("|")
        };
        assert_eq!(told(&[]), "aéb");
        assert_eq!(told(&[0, 0, 4]), "*|*|aéb|*");
        assert_eq!(told(&[1, 3]), "a|*|é|*|b");
        // Within a letter, beyond the end, and backwards.
        assert_eq!(told(&[2]), "*|aéb");
        assert_eq!(told(&[99]), "aéb|*");
        assert_eq!(told(&[3, 1]), "aé|*|*|b");
    }

    #[test]
    fn numbers_are_the_shortest() {
        assert_eq!(decimal(0.7).to_string(), "0.7");
        assert_eq!(decimal(1.0).to_string(), "1.0");
        assert_eq!(decimal(f32::NAN), Value::Null);
    }

    #[test]
    fn arguments_that_are_no_object_are_not_repeated() {
        let call = |arguments: &str| ToolCall {
            id: "i".to_owned(),
            name: "n".to_owned(),
            arguments: arguments.into(),
        };
        let error = arguments(&call("CANARY")).unwrap_err();
        assert_eq!((error.kind, error.retry), (ErrorKind::Unsupported, Retry::Elsewhere));
        assert!(!format!("{error:?}").contains("CANARY"));
        assert!(arguments(&call("[]")).is_err());
        assert!(arguments(&call(" ")).unwrap().is_empty());
    }
}
