//! Tools and calls in conversations, by a model whose template knows neither.

use tieline_types::wire::{Reply, Work};
use tieline_types::{
    Event, Message, Private, Prompt, Request, Role, Tokens, Tool, ToolCall, ToolCallStep,
    ToolChoice,
};

use crate::peer::{Peer, question};

fn weather() -> Tool {
    Tool {
        name: "weather".to_owned(),
        description: "Tells the weather".to_owned(),
        parameters: r#"{"type":"object","properties":{"city":{"type":"string","enum":["Bern","Rome"]}},"required":["city"],"additionalProperties":false}"#
            .to_owned(),
    }
}

/// A question that must be answered by calls.
fn forced() -> Request {
    let mut request = question("What is the weather in Bern?");
    request.max_tokens = Some(Tokens(400));
    request.tool_choice = ToolChoice::Required;
    request.tools = vec![weather()];
    request
}

/// Id and arguments of each call.
fn calls(peer: &mut Peer, request: Request) -> Vec<ToolCall> {
    let id = peer.order(Work::Generate(Box::new(request)));
    let mut calls: Vec<ToolCall> = Vec::new();
    loop {
        match peer.reply(id) {
            Reply::Event(Event::ToolCall(ToolCallStep::Begin { id, name, .. })) => {
                calls.push(ToolCall { id, name, arguments: Private::new("") });
            }
            Reply::Event(Event::ToolCall(ToolCallStep::Arguments { text, .. })) => {
                let call = calls.last_mut().unwrap();
                call.arguments = format!("{}{}", call.arguments.expose(), text.expose()).into();
            }
            Reply::Event(Event::Finished(_)) => return calls,
            Reply::Event(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
}

fn ids(calls: &[ToolCall]) -> Vec<String> {
    calls.iter().map(|call| call.id.clone()).collect()
}

/// A model that was unloaded and loaded again begins its requests' numbers anew.
#[test]
fn ids_of_calls_come_once_and_again_only_in_a_replay() {
    let replayed = Request { deterministic: true, ..forced() };
    let mut all = Vec::new();
    let mut same = Vec::new();
    for _ in 0..2 {
        let mut peer = Peer::ready();
        all.extend(ids(&calls(&mut peer, forced())));
        same.push(ids(&calls(&mut peer, replayed.clone())));
    }
    assert!(all.len() >= 2 && all.iter().all(|id| id.len() == 9), "{all:?}");
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count);
    assert!(!same[0].is_empty());
    assert_eq!(same[0], same[1]);
}

#[test]
fn a_model_whose_template_leaves_out_tools_is_told_of_them() {
    let mut peer = Peer::ready();
    let mut messages = vec![Message::new(Role::User, "What is the weather in Bern?")];
    let mut render = |messages: &[Message]| {
        let work = Work::Render { messages: messages.to_vec(), tools: vec![weather()] };
        match peer.ask(work) {
            Reply::Text(text) => text.into_inner(),
            other => panic!("unexpected: {other:?}"),
        }
    };
    let text = render(&messages);
    let tool = r#"{"name": "weather", "description": "Tells the weather", "parameters": {"type""#;
    assert!(text.starts_with("<|im_start|>system\nYou can call these tools"), "{text}");
    assert!(text.contains(tool), "{text}");
    // What it called and what came of it stay in the conversation.
    let call = ToolCall {
        id: "call_1_0".to_owned(),
        name: "weather".to_owned(),
        arguments: r#"{"city": "Bern"}"#.into(),
    };
    messages.push(Message { tool_calls: vec![call], ..Message::new(Role::Assistant, "") });
    let id = Some("call_1_0".to_owned());
    messages.push(Message { tool_call_id: id, ..Message::new(Role::Tool, "It rains.") });
    let text = render(&messages);
    let end = "<|im_start|>assistant\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bern\"}}<|im_end|>\n\
               <|im_start|>tool\nIt rains.<|im_end|>\n<|im_start|>assistant\n";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn what_tells_of_tools_counts_and_the_turn_after_a_call_is_answered() {
    let mut peer = Peer::ready();
    let count = |peer: &mut Peer, request: &Request| match peer
        .ask(Work::Count(Box::new(request.clone())))
    {
        Reply::Count(count) => count.0,
        other => panic!("unexpected: {other:?}"),
    };
    let bare = Request { tools: Vec::new(), tool_choice: ToolChoice::Auto, ..forced() };
    let none = Request { tool_choice: ToolChoice::None, ..forced() };
    let told = forced();
    assert_eq!(count(&mut peer, &none), count(&mut peer, &bare));
    assert!(count(&mut peer, &told) > count(&mut peer, &bare) + 50);
    let calls = calls(&mut peer, told.clone());
    let Prompt::Chat(mut messages) = told.prompt.clone() else { panic!("no conversation") };
    let results = calls.iter().map(|call| Message {
        tool_call_id: Some(call.id.clone()),
        ..Message::new(Role::Tool, "It rains.")
    });
    let results: Vec<Message> = results.collect();
    messages.push(Message { tool_calls: calls, ..Message::new(Role::Assistant, "") });
    messages.extend(results);
    let then = Request {
        prompt: Prompt::Chat(messages),
        tool_choice: ToolChoice::Auto,
        max_tokens: Some(Tokens(8)),
        ..told
    };
    let answer = peer.generate(then);
    assert!(answer.usage().prompt_tokens.0 > 50);
}
