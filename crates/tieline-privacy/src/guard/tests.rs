use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;
use tieline_types::{
    BackendError, Constraint, ErrorKind, Hint, Message, Owner, Picture, PictureKind, PictureSource,
    Private, Retry, Role, Tool, ToolCall, ToolChoice,
};

use super::*;
use crate::detect::{Entity, Finding};
use crate::outbound::{Part, SurfaceEgress, Why};

const SECRET: &str = "CANARY";

fn find(text: &str) -> Vec<Finding> {
    let found =
        |(at, word): (usize, &str)| Finding { range: at..at + word.len(), entity: Entity::Term };
    text.match_indices(SECRET).map(found).collect()
}

fn guard() -> Guard {
    Guard::finding(Box::new(find), RootKey::new([7; 32]), GuardLimits::default())
}

fn release(treatment: Treatment) -> Release {
    Release { treatment, rule: "rule".to_owned(), session: Session::named("test") }
}

fn text(text: &str) -> Request {
    Request::new(Prompt::Text(text.into()))
}

/// A request with the secret wherever text can be replaced.
fn everywhere() -> Request {
    let say = |what: &str| format!("{what} {SECRET}!");
    let json = |what: &str| format!("{{\"{what}\":\"{SECRET}\"}}");
    let mut message = Message::new(Role::Assistant, say("content"));
    message.reasoning = Some(say("reasoning").into());
    message.name = Some(say("name"));
    message.tool_calls = vec![ToolCall {
        id: say("id"),
        name: "tool".to_owned(),
        arguments: json("arguments").into(),
    }];
    let mut result = Message::new(Role::Tool, json("result"));
    result.tool_call_id = Some(say("id"));
    result.name = Some("tool".to_owned());
    let mut request = Request::new(Prompt::Chat(vec![message, result]));
    request.tools = vec![Tool {
        name: "tool".to_owned(),
        description: say("description"),
        parameters: json("description"),
    }];
    request.stop = vec![say("stop")];
    request.constraint = Some(Constraint::JsonSchema(json("title")));
    request.owner = Owner(say("owner"));
    request
}

#[track_caller]
fn refused(request: Request, want: Refusal) {
    let refusal = guard().prepare(request, &release(Treatment::Redacted));
    assert_eq!(refusal.err(), Some(want));
}

#[test]
fn nothing_that_was_found_leaves_by_any_surface() {
    let infill = Prompt::Infill { prefix: SECRET.into(), suffix: SECRET.into() };
    for request in [everywhere(), Request::new(infill), text(SECRET)] {
        let before = serde_json::to_string(&request).unwrap();
        assert!(before.contains(SECRET));
        let prepared = guard().prepare(request, &release(Treatment::Redacted)).unwrap();
        let sent = serde_json::to_string(prepared.outbound.request()).unwrap();
        assert!(!sent.contains(SECRET) && sent.contains("TLX_TERM_"), "{sent}");
        assert!(prepared.vault.is_some());
    }
}

#[test]
fn rules_that_are_no_json_are_redacted_too() {
    for constraint in [Constraint::Regex, Constraint::Lark, Constraint::Gbnf] {
        let mut request = text("x");
        request.constraint = Some(constraint(format!("a{SECRET}b")));
        let prepared = guard().prepare(request, &release(Treatment::Redacted)).unwrap();
        let sent = prepared.outbound.request().constraint.as_ref().unwrap().source().to_owned();
        assert!(sent.starts_with("aTLX_TERM_") && sent.ends_with('b'), "{sent}");
    }
}

#[test]
fn the_account_covers_every_byte_once() {
    let prepared = guard().prepare(everywhere(), &release(Treatment::Redacted)).unwrap();
    let egress = prepared.egress;
    assert_eq!(egress.replaced[&Entity::Term], 11);
    let mut bytes = 0;
    for SurfaceEgress { surface, parts } in &egress.surfaces {
        assert_eq!(parts[0].start, 0, "{surface}");
        assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start), "{surface}");
        bytes += u64::try_from(parts.last().unwrap().end).unwrap();
    }
    assert_eq!(egress.bytes, bytes);
    let json = serde_json::to_string(&egress).unwrap();
    assert!(json.starts_with("{\"rule\":\"rule\",\"bytes\":"), "{json}");
    let content = "{\"surface\":\"messages[0].content\",\"parts\":[\
                   {\"start\":0,\"end\":8,\"why\":\"rule\"},\
                   {\"start\":8,\"end\":27,\"why\":{\"pseudonym\":\"term\"}},\
                   {\"start\":27,\"end\":28,\"why\":\"rule\"}]}";
    assert!(json.contains(content), "{json}");
    assert!(!json.contains(SECRET));
}

#[test]
fn a_request_without_findings_leaves_as_it_is_but_for_its_owner() {
    let mut request = text("nothing");
    request.logprobs = Some(2);
    request.owner = Owner("somebody".to_owned());
    let want = Request { owner: Owner::default(), ..request.clone() };
    for treatment in [Treatment::AsIs, Treatment::Redacted] {
        let prepared = guard().prepare(request.clone(), &release(treatment)).unwrap();
        assert_eq!(prepared.outbound.request(), &want);
        assert!(prepared.vault.is_none());
        let parts = vec![Part { start: 0, end: 7, why: Why::Rule }];
        let surfaces = vec![SurfaceEgress { surface: Surface::Text, parts }];
        assert_eq!((prepared.egress.bytes, prepared.egress.surfaces), (7, surfaces));
    }
}

fn shown(sources: Vec<PictureSource>) -> Request {
    let pictures = sources.into_iter().map(|source| Picture { at: 0, source, detail: None });
    let message = Message { pictures: pictures.collect(), ..Message::new(Role::User, "Look") };
    Request::new(Prompt::Chat(vec![message]))
}

#[test]
fn a_picture_leaves_as_it_is_or_not_at_all() {
    let bytes = PictureSource::Bytes { kind: PictureKind::Png, base64: "iVBORw0KGgo=".into() };
    let link = PictureSource::Link(format!("https://example.org/{SECRET}.png").into());
    for sources in [vec![bytes.clone()], vec![link.clone()]] {
        let refused = guard().prepare(shown(sources), &release(Treatment::Redacted));
        let refusal = refused.err().unwrap();
        assert_eq!(refusal, Refusal::Picture);
        let error = BackendError::from(refusal);
        assert_eq!((error.kind, error.retry), (ErrorKind::Denied, Retry::Elsewhere));
    }
    let request = shown(vec![bytes, link]);
    let prepared = guard().prepare(request.clone(), &release(Treatment::AsIs)).unwrap();
    assert_eq!(prepared.outbound.request(), &request);
    // What is said, the link, and the base64.
    let link = 24 + u64::try_from(SECRET.len()).unwrap();
    assert_eq!(prepared.egress.bytes, 4 + link + 12);
    let surfaces = prepared.egress.surfaces.iter().map(|one| one.surface.to_string());
    let want = ["messages[0].content", "messages[0].pictures[1]", "messages[0].pictures[0]"];
    assert!(surfaces.eq(want));
}

#[test]
fn log_probabilities_are_not_asked_for_where_they_would_show_pseudonyms() {
    let mut request = text(SECRET);
    (request.logprobs, request.prompt_logprobs) = (Some(2), Some(0));
    let prepared = guard().prepare(request, &release(Treatment::Redacted)).unwrap();
    let sent = prepared.outbound.into_request();
    assert_eq!((sent.logprobs, sent.prompt_logprobs), (None, None));
}

#[test]
fn names_of_tools_that_hold_a_finding_are_refused() {
    let tool =
        || Tool { name: SECRET.to_owned(), description: String::new(), parameters: String::new() };
    let mut request = text("x");
    request.tools = vec![tool()];
    refused(request, Refusal::ToolName(Surface::ToolName(0)));
    let mut request = text("x");
    request.tool_choice = ToolChoice::Named(SECRET.to_owned());
    refused(request, Refusal::ToolName(Surface::ToolChoice));
    let mut request = everywhere();
    let Prompt::Chat(messages) = &mut request.prompt else { panic!("a conversation") };
    messages[0].tool_calls[0].name = SECRET.to_owned();
    refused(request, Refusal::ToolName(Surface::CallName(0, 0)));
    let mut request = everywhere();
    let Prompt::Chat(messages) = &mut request.prompt else { panic!("a conversation") };
    messages[1].name = Some(SECRET.to_owned());
    refused(request, Refusal::ToolName(Surface::CallName(1, 0)));
}

#[test]
fn tokens_leave_only_as_they_are_and_are_counted() {
    for prompt in [Prompt::Tokens(vec![1, 2]), Prompt::Rendered(vec![1, 2])] {
        refused(Request::new(prompt.clone()), Refusal::Tokens);
        let released = release(Treatment::AsIs);
        let prepared = guard().prepare(Request::new(prompt), &released).unwrap();
        assert_eq!(prepared.egress.tokens, 2);
    }
}

#[test]
fn what_cannot_be_looked_through_is_refused() {
    let limits = GuardLimits { bytes: 4, ..GuardLimits::default() };
    let small = Guard::finding(Box::new(find), RootKey::new([7; 32]), limits);
    let released = release(Treatment::Redacted);
    assert!(small.prepare(text("four"), &released).is_ok());
    assert_eq!(small.prepare(text("five!"), &released).err(), Some(Refusal::TooLarge));

    let none = VaultLimits { values: 0, ..VaultLimits::default() };
    let limits = GuardLimits { vaults: none, ..GuardLimits::default() };
    let full = Guard::finding(Box::new(find), RootKey::new([7; 32]), limits);
    let refusal = full.prepare(text(SECRET), &released).err();
    assert_eq!(refusal, Some(Refusal::VaultFull(VaultFull)));

    let panics = |text: &str| -> Vec<Finding> { panic!("{} bytes", text.len()) };
    let broken = Guard::finding(Box::new(panics), RootKey::new([7; 32]), GuardLimits::default());
    assert_eq!(broken.prepare(text("x"), &released).err(), Some(Refusal::Defect));
}

#[test]
fn time_that_ends_before_or_during_the_redaction_is_a_refusal() {
    // Each look is one more; the request has one text, which is looked through, replaced, and then done.
    for allowed in 0..4 {
        let stopwatch: Stopwatch = Arc::new(move || {
            let looks = AtomicU32::new(0);
            Box::new(move || looks.fetch_add(1, Ordering::Relaxed) >= allowed)
        });
        let guard = guard().with_stopwatch(stopwatch);
        let refusal = guard.prepare(text("x"), &release(Treatment::Redacted)).err();
        assert_eq!(refusal, (allowed < 3).then_some(Refusal::Expired), "{allowed}");
    }
}

#[test]
fn refusals_are_typed_and_say_what_to_do() {
    let all = [
        Refusal::Tokens,
        Refusal::ToolName(Surface::ToolChoice),
        Refusal::TooLarge,
        Refusal::Expired,
        Refusal::VaultFull(VaultFull),
        Refusal::LeftOver,
        Refusal::Defect,
    ];
    for refusal in all {
        let error = BackendError::from(refusal);
        assert_eq!((error.kind, error.origin), (ErrorKind::Denied, Origin::Here));
        assert_eq!(error.retry, Retry::Elsewhere);
        assert!(error.hint().is_some(), "{refusal}");
    }
}

#[test]
fn a_preview_is_what_leaves() {
    let guard = guard();
    let released = release(Treatment::Redacted);
    let preview = would_leave(&everywhere(), &released, &guard).unwrap();
    let prepared = guard.prepare(everywhere(), &released).unwrap();
    assert_eq!(preview.egress, prepared.egress);
    let Prompt::Chat(messages) = &prepared.outbound.request().prompt else {
        panic!("a conversation");
    };
    assert_eq!(preview.surfaces[0], (Surface::Content(0), messages[0].content.clone()));
    let bytes: usize = preview.surfaces.iter().map(|(_, text)| text.expose().len()).sum();
    assert_eq!(u64::try_from(bytes).unwrap(), preview.egress.bytes);
    assert!(preview.surfaces.iter().all(|(_, text)| !text.expose().contains(SECRET)));
    assert!(!format!("{preview:?}").contains("TLX_"));

    let refusal = would_leave(&Request::new(Prompt::Tokens(vec![1])), &released, &guard);
    assert_eq!(refusal.unwrap_err().kind, ErrorKind::Denied);
}

#[test]
fn a_session_that_was_forgotten_gets_the_same_pseudonyms() {
    let guard = guard();
    let sent = || {
        let prepared = guard.prepare(text(SECRET), &release(Treatment::Redacted)).unwrap();
        prepared.outbound.into_request().prompt
    };
    let first = sent();
    guard.forget(Session::named("test"));
    assert_eq!(sent(), first);
    assert_ne!(first, Prompt::Text(Private::new(SECRET)));
}

/// What leaves of a conversation in which these are said, plain and by a tool.
fn leaves(guard: &Guard, said: &[String]) -> Result<Vec<String>, BackendError> {
    let message = |(at, text): (usize, &String)| match at % 2 {
        0 => Message::new(Role::User, text.as_str()),
        _ => {
            let mut called = Message::new(Role::Assistant, text.as_str());
            let arguments = serde_json::json!({ "text": text }).to_string().into();
            let (id, name) = ("1".to_owned(), "t".to_owned());
            called.tool_calls = vec![ToolCall { id, name, arguments }];
            called
        }
    };
    let request = Request::new(Prompt::Chat(said.iter().enumerate().map(message).collect()));
    let preview = would_leave(&request, &release(Treatment::Redacted), guard)?;
    let text = |(surface, text): (Surface, Private)| match surface {
        Surface::CallArguments(..) => {
            let json: serde_json::Value = serde_json::from_str(text.expose()).unwrap();
            json["text"].as_str().unwrap().to_owned()
        }
        _ => text.into_inner(),
    };
    Ok(preview.surfaces.into_iter().map(text).collect())
}

/// A text with one letter in the place of each of its pseudonyms, which go on over a border as letters do.
fn without_pseudonyms(text: &str) -> String {
    let mut parts = text.split("TLX_");
    let mut left = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let kind = part.find('_').unwrap();
        left.push('Z');
        left.push_str(&part[kind + 11..]);
    }
    left
}

/// Whether a value stands in a text with no letter or figure beside one of its own.
fn stands(text: &str, value: &str) -> bool {
    let goes_on = |sign: Option<char>| sign.is_some_and(char::is_alphanumeric);
    text.match_indices(value).any(|(at, _)| {
        let (before, after) = (&text[..at], &text[at + value.len()..]);
        let into = goes_on(before.chars().next_back()) && goes_on(value.chars().next());
        let out = goes_on(value.chars().next_back()) && goes_on(after.chars().next());
        !into && !out
    })
}

fn said() -> impl Strategy<Value = Vec<String>> {
    let parts = proptest::sample::select(vec![
        "born on ",
        "14 March 1985",
        "1990-01-02",
        "/home/annika",
        "annika",
        "password: ",
        "Qx7-kd9fQ2p",
        "4111 1111 1111 1111",
        "1111 1111",
        "tel. ",
        "+49 30 901820",
        "901820",
        "\u{e9}t\u{e9}",
        "\\u00e9",
        "%20",
        "x",
        " ",
        " ",
        ", ",
        "\n",
        "TLX_TERM_7",
    ]);
    let text = proptest::collection::vec(parts, 0..9).prop_map(|parts| parts.concat());
    proptest::collection::vec(text, 1..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_value_that_the_session_knows_leaves(turns in proptest::collection::vec(said(), 1..3)) {
        let limits = GuardLimits::default();
        let guard = Guard::new(Arc::default(), RootKey::new([7; 32]), limits);
        for turn in turns {
            let Ok(texts) = leaves(&guard, &turn) else { continue };
            let values = lock(&guard.vaults.of(Session::named("test"))).values();
            for value in values.iter().filter(|value| crate::known::is_telling(value)) {
                let shown = texts.iter().find(|text| stands(&without_pseudonyms(text), value));
                prop_assert!(shown.is_none(), "{value:?} in {shown:?}");
            }
        }
    }
}
