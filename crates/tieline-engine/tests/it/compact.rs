//! A conversation that does not fit, on the small model with a context of 512.

use tieline_engine::{EngineConfig, LocalModel};
use tieline_types::{
    Backend, BackendError, Compacted, ErrorKind, Event, Finished, Message, Overflow, Prompt,
    Request, Role, Sampling, Started, Tokens, ToolCall,
};

use super::{next, start};

/// About so many tokens of talk about a number of its own.
fn talk(role: Role, number: u32, tokens: u32) -> Message {
    let sentence = format!("On day {number} we sold fish and bread at the harbour. ");
    // A digit and a word take a token each.
    Message::new(role, sentence.repeat(usize::try_from(tokens.div_ceil(13)).unwrap()))
}

/// Instructions and a first question, `turns` of the user with their answers, and a last question.
fn conversation(turns: u32, each: u32) -> Vec<Message> {
    let mut messages = vec![
        Message::new(Role::System, "You keep the books of a shop."),
        Message::new(Role::User, "We open a shop at the harbour."),
        Message::new(Role::Assistant, "Good. What did you sell?"),
    ];
    for turn in 0..turns {
        messages.push(talk(Role::User, turn, each));
        messages.push(talk(Role::Assistant, turn, each / 2));
    }
    messages.push(Message::new(Role::User, "What do we sell?"));
    messages
}

fn request(messages: Vec<Message>) -> Request {
    Request {
        sampling: Sampling::greedy(),
        max_tokens: Some(Tokens(24)),
        ignore_eog: true,
        overflow: Overflow::Compact,
        ..Request::new(Prompt::Chat(messages))
    }
}

/// How an answer began and ended.
async fn whole(model: &LocalModel, request: Request) -> Result<(Started, Finished), BackendError> {
    let mut stream = model.run(request).await?;
    let mut began = None;
    loop {
        match next(&mut stream).await.unwrap()? {
            Event::Started(started) => assert!(began.replace(started).is_none()),
            Event::Finished(finished) => {
                assert!(next(&mut stream).await.is_none());
                return Ok((began.unwrap(), *finished));
            }
            _ => {}
        }
    }
}

async fn count(model: &LocalModel, messages: Vec<Message>) -> u32 {
    model.count(request(messages)).await.unwrap().0
}

#[tokio::test]
async fn the_middle_becomes_a_summary() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let messages = conversation(4, 80);
    let length = count(&model, messages.clone()).await;
    assert!(length > 512, "{length}: the test needs another conversation");
    let (started, finished) = whole(&model, request(messages.clone())).await.unwrap();
    let compacted = started.compacted.unwrap();
    // The first answer goes with whole turns after it.
    assert!(compacted.messages >= 3 && compacted.messages % 2 == 1, "{compacted:?}");
    // A summary gets an eighth of the context, and what goes is read in two parts at most.
    assert!((1..=2 * 64).contains(&compacted.written_tokens.0), "{compacted:?}");
    // What stays is there whole, and the summary beside it.
    let left = usize::try_from(compacted.messages).unwrap();
    let stays = [&messages[..2], &messages[2 + left..]].concat();
    let stays = count(&model, stays).await;
    assert!(started.prompt_tokens.0 > stays && started.prompt_tokens.0 <= 512 - 24);
    assert!(started.dropped_tokens.0 > 0 && started.dropped_tokens.0 < length - stays);
    // Nothing that was computed is hidden.
    let usage = finished.usage;
    assert_eq!(usage.prompt_tokens.0, started.prompt_tokens.0 + compacted.read_tokens.0);
    assert_eq!(usage.completion_tokens.0, 24 + compacted.written_tokens.0);
    model.shutdown().await;
}

#[tokio::test]
async fn what_is_read_in_the_end_is_scored_and_the_summary_is_not() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let scored = |request| Request { prompt_logprobs: Some(0), ..request };
    let mut stream = model.run(scored(request(conversation(4, 80)))).await.unwrap();
    let (mut prompt, mut entries) = (0, 0);
    loop {
        match next(&mut stream).await.unwrap().unwrap() {
            Event::Started(started) => {
                assert!(started.compacted.is_some());
                prompt = usize::try_from(started.prompt_tokens.0).unwrap();
            }
            Event::PromptLogprobs(told) => entries += told.len(),
            Event::Finished(_) => break,
            _ => {}
        }
    }
    assert_eq!(entries + 1, prompt);
    model.shutdown().await;
}

#[tokio::test]
async fn an_agents_turn_is_cut_between_calls() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let mut messages = vec![Message::new(Role::User, "Read the books and add them up.")];
    for call in 0..8 {
        let id = call.to_string();
        let mut asks = Message::new(Role::Assistant, "I look.");
        let arguments = "{}".into();
        asks.tool_calls.push(ToolCall { id: id.clone(), name: "read".to_owned(), arguments });
        let result = talk(Role::Tool, call, 48);
        messages.extend([asks, Message { tool_call_id: Some(id), ..result }]);
    }
    let (started, _) = whole(&model, request(messages)).await.unwrap();
    // Calls with their results, two messages each.
    let compacted = started.compacted.unwrap();
    assert!(compacted.messages >= 2 && compacted.messages % 2 == 0, "{compacted:?}");
    model.shutdown().await;
}

#[tokio::test]
async fn what_no_question_holds_is_summarised_in_parts() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    // Many messages, and one that is longer than the context.
    let long = [
        conversation(0, 0),
        vec![talk(Role::User, 1, 1200), Message::new(Role::Assistant, "Good.")],
        conversation(0, 0),
    ];
    for messages in [conversation(12, 80), long.concat()] {
        let (started, finished) = whole(&model, request(messages.clone())).await.unwrap();
        let compacted = started.compacted.unwrap();
        // What went was read, all of it, in steps of which each had the context.
        assert!(compacted.read_tokens > started.dropped_tokens, "{compacted:?}");
        assert!(compacted.read_tokens > Tokens(512), "{compacted:?}");
        assert!(started.prompt_tokens <= Tokens(512 - 24));
        let usage = finished.usage;
        assert_eq!(usage.prompt_tokens.0, started.prompt_tokens.0 + compacted.read_tokens.0);
        assert_eq!(usage.completion_tokens.0, 24 + compacted.written_tokens.0);
    }
    model.shutdown().await;
}

#[tokio::test]
async fn a_summary_in_parts_goes_on_from_the_last_of_them() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let compacted = async |request| whole(&model, request).await.unwrap().0.compacted.unwrap();
    let mut messages = conversation(12, 80);
    let first = compacted(request(messages.clone())).await;
    // The last message that went says something else now: the whole summary is of another conversation.
    let last = 1 + usize::try_from(first.messages).unwrap();
    messages[last] = talk(messages[last].role, 99, 40);
    let again = compacted(request(messages.clone())).await;
    let anew = compacted(Request { cache: false, ..request(messages) }).await;
    assert_eq!(again.messages, anew.messages);
    assert!(
        again.read_tokens > Tokens(0) && again.read_tokens < anew.read_tokens,
        "{again:?} {anew:?}"
    );
    model.shutdown().await;
}

#[tokio::test]
async fn a_summary_is_written_once_and_goes_on() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let mut messages = conversation(6, 60);
    let asked = request(messages.clone());
    // Several answers at once: one of them writes it.
    let (first, second) = tokio::join!(whole(&model, asked.clone()), whole(&model, asked.clone()));
    let told = [first, second].map(|answer| answer.unwrap().0.compacted.unwrap());
    let read: Vec<Tokens> = told.iter().map(|told| told.read_tokens).collect();
    assert!(read.contains(&Tokens(0)) && read.iter().any(|&read| read > Tokens(0)), "{told:?}");
    assert_eq!(told[0].messages, told[1].messages);
    // Somebody else's is not read, nor by who wants nothing kept.
    let owner = tieline_types::Owner("another".to_owned());
    let deterministic = Request { deterministic: true, ..asked.clone() };
    let alone = Request { cache: false, ..asked.clone() };
    for own in [Request { owner, ..asked.clone() }, alone, deterministic] {
        let (started, _) = whole(&model, own).await.unwrap();
        assert!(started.compacted.unwrap().read_tokens > Tokens(0));
    }
    // The next turn goes on from the same summary, and what stands before it is not read again.
    messages.extend([talk(Role::Assistant, 7, 13), talk(Role::User, 8, 13)]);
    let (started, _) = whole(&model, request(messages.clone())).await.unwrap();
    assert_eq!(
        started.compacted.unwrap(),
        Compacted { read_tokens: Tokens(0), written_tokens: Tokens(0), ..told[0] }
    );
    // When more must go, only what is new is read, with the summary so far.
    for number in 10..16 {
        messages.extend([talk(Role::Assistant, number, 26), talk(Role::User, number, 26)]);
    }
    let (started, _) = whole(&model, request(messages.clone())).await.unwrap();
    let more = started.compacted.unwrap();
    assert!(more.messages > told[0].messages, "{more:?}");
    let (anew, _) = whole(&model, Request { cache: false, ..request(messages) }).await.unwrap();
    let anew = anew.compacted.unwrap();
    assert!(
        more.read_tokens > Tokens(0) && more.read_tokens < anew.read_tokens,
        "{more:?} {anew:?}"
    );
    model.shutdown().await;
}

#[tokio::test]
async fn what_fits_is_left_as_it_is() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let messages = conversation(1, 40);
    let length = count(&model, messages.clone()).await;
    let (started, finished) = whole(&model, request(messages)).await.unwrap();
    assert_eq!((started.compacted, started.dropped_tokens), (None, Tokens(0)));
    assert_eq!(finished.usage.prompt_tokens, Tokens(length));
    model.shutdown().await;
}

#[tokio::test]
async fn what_cannot_be_made_to_fit_is_refused_with_the_reason() {
    let Some(runner) = testkit::runner() else { return };
    let model = start(EngineConfig::new(runner)).await;
    let refused = async |messages| {
        let error = whole(&model, request(messages)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::ContextExceeded);
        error.to_string()
    };
    let newest = [conversation(1, 40), vec![talk(Role::User, 9, 600)]].concat();
    let text = refused(newest).await;
    assert!(text.contains("does not fit a context of 512 tokens: what must stay has "), "{text}");
    let text = refused(vec![talk(Role::User, 1, 600)]).await;
    assert!(text.ends_with("there is nothing to leave out"), "{text}");
    // It goes on after each of them.
    whole(&model, request(conversation(0, 0))).await.unwrap();
    let text = Request { overflow: Overflow::Compact, ..Request::new(Prompt::Text("a".into())) };
    assert_eq!(whole(&model, text).await.unwrap_err().kind, ErrorKind::InvalidRequest);
    model.shutdown().await;
}
