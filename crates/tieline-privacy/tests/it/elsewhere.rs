//! Values that were found once, where they stand without what tells of them.

use std::sync::Arc;

use tieline_privacy::{Detectors, Guard, Treatment};
use tieline_types::{Message, Prompt, Request, Role, Texts, Tool, ToolCall};

use crate::mirror::{Mirror, ask, guard, release};

const DATE: &str = "14 March 1985";

fn chat(said: &[(Role, &str)]) -> Request {
    let messages = said.iter().map(|(role, text)| Message::new(*role, *text)).collect();
    Request::new(Prompt::Chat(messages))
}

/// What leaves of the messages.
async fn sent(guard: &Arc<Guard>, request: Request) -> Vec<Message> {
    let mirror = Mirror::new(|text| vec![text.to_owned()]);
    ask(&mirror, guard, Treatment::Redacted, request).await.unwrap();
    let got = mirror.got.lock().unwrap().pop().unwrap();
    let Prompt::Chat(messages) = serde_json::from_str::<Request>(&got).unwrap().prompt else {
        panic!("a conversation")
    };
    messages
}

/// The pseudonyms in a text.
fn tokens(text: &str) -> Vec<&str> {
    let is_part = |sign: char| sign.is_ascii_alphanumeric() || sign == '_';
    let token = |(at, _)| text[at..].split(|sign| !is_part(sign)).next();
    text.match_indices("TLX_").filter_map(token).collect()
}

#[tokio::test]
async fn a_value_of_the_turn_before_leaves_as_its_pseudonym() {
    let guard = guard(Detectors::default());
    let first = (Role::User, "My wife was born on 14 March 1985");
    let told = sent(&guard, chat(&[first])).await;
    let token = tokens(told[0].content.expose());
    assert_eq!(token.len(), 1);

    // The answer came back restored, and the caller sends it with the next question.
    let answer = (Role::Assistant, "With 14 March 1985 she is 41.");
    let told = sent(&guard, chat(&[first, answer, (Role::User, "And in 14 March 1985?")])).await;
    for message in &told {
        let text = message.content.expose();
        assert!(!text.contains("1985"), "{text}");
        assert_eq!(tokens(text), token);
    }
    // The turn that told of it may be gone.
    let told = sent(&guard, chat(&[answer])).await;
    assert_eq!(told[0].content.expose(), format!("With {} she is 41.", token[0]));
}

#[tokio::test]
async fn a_value_is_hidden_wherever_it_stands_in_a_request() {
    let mut called = Message::new(Role::Assistant, format!("{DATE}, then."));
    called.reasoning = Some(format!("So {DATE}").into());
    called.tool_calls = vec![ToolCall {
        id: "call_1".to_owned(),
        name: "age".to_owned(),
        arguments: r#"{"day":"on:\n14 March 1985","other":"14 \u004darch 1985"}"#.into(),
    }];
    let mut result = Message::new(Role::Tool, r#"{"day":"at\t14 March 1985"}"#);
    result.tool_call_id = Some("call_1".to_owned());
    let asked = Message::new(Role::User, format!("She was born on {DATE}. {DATE} was a Thursday."));
    // What comes before the words that tell is hidden too.
    let system = Message::new(Role::System, format!("Of {DATE} we speak."));
    let mut request = Request::new(Prompt::Chat(vec![system, called, result, asked]));
    request.tools = vec![Tool {
        name: "age".to_owned(),
        description: format!("Such as {DATE}"),
        parameters: r#"{"type":"object","description":"14 March 1985"}"#.to_owned(),
    }];
    request.stop = vec![DATE.to_owned()];

    let mirror = Mirror::new(|text| vec![text.to_owned()]);
    ask(&mirror, &guard(Detectors::default()), Treatment::Redacted, request).await.unwrap();
    let got = mirror.got.lock().unwrap().pop().unwrap();
    assert!(!got.contains("1985"), "{got}");
    let mut found = tokens(&got);
    assert_eq!(found.len(), 11, "{got}");
    found.dedup();
    assert_eq!(found.len(), 1, "{got}");
}

#[tokio::test]
async fn a_value_is_not_seen_in_a_longer_word() {
    let guard = guard(Detectors::default());
    let said = "The files are in /home/annika. Mannika, annikas, annika7 and annika_old; annika!";
    let told = sent(&guard, chat(&[(Role::User, said)])).await;
    let text = told[0].content.expose();
    let token = tokens(text)[0];
    let want = said.replace("/annika.", &format!("/{token}."));
    let want = want.replace(" annika_", &format!(" {token}_"));
    assert_eq!(text, want.replace(" annika!", &format!(" {token}!")));
}

#[tokio::test]
async fn another_session_does_not_know_the_value() {
    let guard = guard(Detectors::default());
    sent(&guard, chat(&[(Role::User, "born on 14 March 1985")])).await;
    guard.forget(release(Treatment::Redacted).session);
    let told = sent(&guard, chat(&[(Role::User, "On 14 March 1985.")])).await;
    assert_eq!(told[0].content.expose(), "On 14 March 1985.");
}

#[tokio::test]
async fn a_tool_whose_name_is_a_known_value_is_refused() {
    let asked = async |name: &str| {
        let mut request = chat(&[(Role::User, "The files are in /home/annika.")]);
        let (description, parameters) = (String::new(), "{}".to_owned());
        request.tools = vec![Tool { name: name.to_owned(), description, parameters }];
        let mirror = Mirror::new(|text| vec![text.to_owned()]);
        ask(&mirror, &guard(Detectors::default()), Treatment::Redacted, request).await
    };
    assert!(asked("annika").await.unwrap_err().to_string().contains("tools[0].name"));
    // Names are made of ordinary words: a part of one tells nothing.
    asked("ask-annika").await.unwrap();
}

#[tokio::test]
async fn what_becomes_a_vector_depends_on_its_own_text_alone() {
    let guard = guard(Detectors::default());
    let inputs = ["born on 14 March 1985; 14 March 1985.", "On 14 March 1985."];
    let release = release(Treatment::Redacted);
    let request = Request::new(Prompt::Texts(Texts::new(inputs)));
    let preview = tieline_privacy::would_leave(&request, &release, &guard).unwrap();
    let shown: Vec<_> = preview.surfaces.iter().map(|(_, text)| text.expose()).collect();
    assert!(!shown[0].contains("1985"), "{}", shown[0]);
    assert_eq!(shown[1], "On 14 March 1985.");
}
