//! Where a conversation can be cut: what stands before a cut can go, in a summary or for good.
//!
//! A cut stands where the user begins a turn, so turns stay whole; but for the last one, since an agent's may be longer
//! than any context: in it the assistant's messages can be cut apart. No cut parts a call from its results.

use std::collections::HashMap;

use crate::{Message, Role};

/// The places of all cuts, in order. At a place stands the first message that stays.
pub fn cuts(messages: &[Message]) -> Vec<usize> {
    let last_user = messages.iter().rposition(|message| message.role == Role::User);
    let begins = |at: usize| match messages[at].role {
        Role::User => true,
        // The first answer to the user has nothing of its turn before it.
        Role::Assistant => last_user.is_none_or(|last| at > last + 1),
        _ => false,
    };
    let parted = parted(messages);
    (0..messages.len()).filter(|&at| begins(at) && !parted[at]).collect()
}

/// For each place, whether a cut there would part a call from one of its results.
fn parted(messages: &[Message]) -> Vec<bool> {
    let mut calls: HashMap<&str, usize> = HashMap::new();
    let (mut last_call, mut last_spoken) = (None, None);
    // How many stretches from a call to its result begin or end there.
    let mut edges = vec![0_isize; messages.len() + 1];
    for (at, message) in messages.iter().enumerate() {
        if message.role == Role::Tool {
            let id = message.tool_call_id.as_deref().filter(|id| !id.is_empty());
            let named = id.and_then(|id| calls.get(id).copied());
            // A result whose call is not known belongs to whoever spoke last.
            let call = named.or_else(|| last_call.filter(|_| id.is_none())).or(last_spoken);
            edges[call.map_or(0, |call| call + 1)] += 1;
            edges[at + 1] -= 1;
        }
        if message.role == Role::Assistant {
            last_spoken = Some(at);
        }
        for call in &message.tool_calls {
            last_call = Some(at);
            calls.insert(&call.id, at);
        }
    }
    let mut open = 0;
    let is_open = edges.into_iter().map(|edge| {
        open += edge;
        open > 0
    });
    is_open.take(messages.len()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ToolCall;

    fn message(role: Role) -> Message {
        Message::new(role, "text")
    }

    fn call(id: &str) -> Message {
        let (id, name) = (id.to_owned(), "look".to_owned());
        let call = ToolCall { id, name, arguments: "{}".into() };
        Message { tool_calls: vec![call], ..message(Role::Assistant) }
    }

    fn result(id: Option<&str>) -> Message {
        Message { tool_call_id: id.map(str::to_owned), ..message(Role::Tool) }
    }

    #[test]
    fn turns_stay_whole_but_for_the_last() {
        let (user, assistant) = (message(Role::User), message(Role::Assistant));
        let talk = [
            message(Role::System),
            user.clone(),
            assistant.clone(),
            assistant.clone(),
            user,
            assistant.clone(),
            assistant,
        ];
        assert_eq!(cuts(&talk), [1, 4, 6]);
        assert!(cuts(&[]).is_empty());
    }

    #[test]
    fn no_cut_parts_a_call_from_its_result() {
        let agent =
            [message(Role::User), call("a"), result(Some("a")), call("b"), result(Some("b"))];
        assert_eq!(cuts(&agent), [0, 3]);
        // A result that names nothing belongs to the last call, one that names no call to who spoke last.
        let unnamed = [message(Role::User), call("a"), result(None), call("b"), result(Some("?"))];
        assert_eq!(cuts(&unnamed), [0, 3]);
        // The first call's result comes after the second call's.
        let late = [
            message(Role::User),
            call("a"),
            call("b"),
            result(Some("b")),
            result(Some("a")),
            call("c"),
        ];
        assert_eq!(cuts(&late), [0, 5]);
        // The next question came before the result.
        let asked = [call("a"), message(Role::User), result(Some("a")), message(Role::User)];
        assert_eq!(cuts(&asked), [3]);
    }
}
