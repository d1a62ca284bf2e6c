//! Deterministic answers: alone, in batches of fixed shape, with a receipt.

use tieline_types::{
    Constraint, Digest, LoadParams, Receipt, Request, Sampling, Tokens, Tool, ToolChoice,
};

use crate::peer::{Answer, Peer, going_on, question, some_tokens};

fn params() -> LoadParams {
    LoadParams {
        context: Some(Tokens(512)),
        model: Some(Digest([1; 32])),
        ubatch: Tokens(64),
        ..LoadParams::default()
    }
}

fn request() -> Request {
    // A greedy choice needs no seed, but the receipt has one, drawn where none is given.
    let sampling = Sampling { seed: Some(1), ..Sampling::greedy() };
    Request { deterministic: true, sampling, ..going_on(some_tokens(1, 150), 20) }
}

fn receipt(answer: &Answer) -> &Receipt {
    answer.finished.receipt.as_ref().expect("no receipt")
}

#[test]
fn a_receipt_says_what_was_computed() {
    let mut peer = Peer::start(testkit::smollm2());
    let loaded = peer.load(params()).unwrap();
    let answer = peer.generate(request());
    answer.is_whole(20);
    let receipt = receipt(&answer);
    assert_eq!(receipt.model, Some(Digest([1; 32])));
    assert_eq!(receipt.build, peer.build);
    assert_eq!(receipt.prompt, some_tokens(1, 150));
    assert_eq!(receipt.answer.len(), 20);
    // The prompt in pieces, then a token each; the last chosen is not computed.
    assert_eq!(receipt.batches.iter().sum::<u32>(), 150 + 19);
    assert!(receipt.batches.iter().all(|&batch| batch <= 64));
    assert_eq!(receipt.batches[receipt.batches.len() - 19..], [1; 19]);
    assert_eq!(receipt.sampling.seed, Some(answer.finished.seed));
    assert_eq!(receipt.params.threads, Some(1));
    assert_eq!(receipt.params.context, Some(Tokens(512)));
    // As it really is, whatever later versions take without being asked.
    assert_eq!(receipt.params.kv_tokens, Some(loaded.kv_tokens));
    assert_eq!((receipt.constraint.as_ref(), receipt.chat), (None, false));
    assert_eq!((answer.usage().drafted_tokens, answer.cached()), (Tokens(0), 0));
    // Others have none.
    assert_eq!(peer.generate(question("Hi")).finished.receipt, None);
}

#[test]
fn the_same_again_whatever_came_before_and_waits_behind() {
    let mut peer = Peer::ready_with(params());
    let want = peer.generate(request());
    let want = receipt(&want);
    assert_eq!(receipt(&peer.generate(request())), want);
    // After the same prompt was cached, and others were answered.
    peer.together([
        going_on(some_tokens(1, 150), 5),
        going_on(some_tokens(2, 100), 5),
        question("Why is the sky blue?"),
    ]);
    assert_eq!(receipt(&peer.generate(request())), want);
    // Between others: some run before it, some wait for it.
    let among = |seed| going_on(some_tokens(seed, 60), 8);
    let answers = peer.together([among(3), among(4), request(), among(5), request(), among(6)]);
    for at in [2, 4] {
        assert_eq!(receipt(&answers[at]), want);
    }
    for at in [0, 1, 3, 5] {
        answers[at].is_whole(8);
    }
    peer.hang_up();
    assert_eq!(receipt(&Peer::ready_with(params()).generate(request())), want);
}

#[test]
fn the_seed_decides() {
    let mut peer = Peer::ready_with(params());
    let mut ask = |seed| {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        let answer = peer.generate(Request { sampling, ..request() });
        receipt(&answer).clone()
    };
    let first = ask(Some(7));
    assert_eq!(first.sampling.seed, Some(7));
    assert_eq!(ask(Some(7)), first);
    assert_ne!(ask(Some(8)).answer, first.answer);
    // One that was drawn is in the receipt, and repeats the answer.
    let drawn = ask(None);
    let again = ask(drawn.sampling.seed);
    assert_eq!((again.answer, again.logits), (drawn.answer, drawn.logits));
}

#[test]
fn it_runs_alone() {
    let mut peer = Peer::ready_with(params());
    let ids: Vec<_> = [request(), going_on(some_tokens(2, 40), 5), request()]
        .into_iter()
        .map(|request| peer.begin(request))
        .collect();
    // No event of another between its start and its end, but that the other waits.
    let mut alone = None;
    let mut ends = 0;
    while ends < 3 {
        let (id, event) = peer.event();
        match event {
            tieline_types::Event::Queued { .. } => continue,
            tieline_types::Event::Started(_) => {
                assert_eq!(alone, None, "{id:?} started beside another");
                alone = Some(id);
            }
            tieline_types::Event::Finished(_) => {
                assert_eq!(alone, Some(id));
                alone = None;
                ends += 1;
            }
            _ => assert_eq!(alone, Some(id)),
        }
    }
    assert!(ids.iter().all(|id| id.0 > 0));
}

/// Makes the answer of a conversation under a rule, and makes it again from the receipt alone.
#[track_caller]
fn again(peer: &mut Peer, change: impl FnOnce(&mut Request)) -> Receipt {
    let sampling = Sampling { temperature: 1.2, seed: Some(3), ..Sampling::default() };
    let mut request = Request { deterministic: true, sampling, ..question("Name a colour.") };
    request.max_tokens = Some(Tokens(24));
    change(&mut request);
    let first = peer.generate(request.clone());
    let want = receipt(&first).clone();
    assert_eq!((&want.constraint, &want.tools), (&request.constraint, &request.tools));
    assert!(want.chat);
    let replayed = peer.generate(want.request());
    assert_eq!(receipt(&replayed), &want);
    want
}

#[test]
fn a_rule_is_part_of_the_receipt() {
    let mut peer = Peer::ready_with(params());
    // Rules that end by themselves, whatever the model would rather say.
    let schema = r#"{"type":"object","properties":{"colour":{"type":"string","maxLength":8}},"required":["colour"],"additionalProperties":false}"#;
    let rules = [
        Constraint::JsonSchema(schema.to_owned()),
        Constraint::Regex("(red|green|blue)( (and|or) (red|green|blue)){2}".to_owned()),
        Constraint::Lark("start: /[a-z]{3,9}/ \".\"".to_owned()),
        Constraint::Gbnf("root ::= [A-Z] [a-z] [a-z]? [a-z]? \"!\"".to_owned()),
        Constraint::JsonSchema(
            r#"{"type":"array","items":{"enum":[1,2]},"maxItems":3}"#.to_owned(),
        ),
    ];
    let mut answers = Vec::new();
    for rule in rules {
        let receipt = again(&mut peer, |request| {
            request.constraint = Some(rule);
            request.max_tokens = Some(Tokens(256));
        });
        answers.push(receipt.answer);
    }
    // The rules decided: without them all would begin alike.
    answers.sort();
    answers.dedup();
    assert_eq!(answers.len(), 5);
}

#[test]
fn a_bias_is_part_of_the_receipt() {
    let mut peer = Peer::ready_with(params());
    let free = again(&mut peer, |_| ());
    let bias = vec![(free.answer[0], -100.0)];
    let biased = again(&mut peer, |request| request.sampling.logit_bias = bias.clone());
    assert_eq!(biased.sampling.logit_bias, bias);
    assert!(!biased.answer.contains(&free.answer[0]));
    assert_ne!(biased.answer, free.answer);
}

#[test]
fn a_call_that_had_to_be_made_is_made_again() {
    let mut peer = Peer::ready_with(params());
    let parameters = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":6}},"required":["name"],"additionalProperties":false}"#;
    let tool = Tool {
        name: "paint".to_owned(),
        description: "Paints.".to_owned(),
        parameters: parameters.to_owned(),
    };
    let receipt = again(&mut peer, |request| {
        request.tools = vec![tool];
        request.tool_choice = ToolChoice::Required;
        // Room for as many as may be made: a call that is cut is no call.
        request.max_tokens = Some(Tokens(400));
    });
    assert_eq!(receipt.tool_choice, ToolChoice::Required);
    // Without the tools the same prompt is answered otherwise.
    let free = Request { tools: Vec::new(), tool_choice: ToolChoice::Auto, ..receipt.request() };
    let free = peer.generate(free);
    assert_ne!(self::receipt(&free).answer, receipt.answer);
}
