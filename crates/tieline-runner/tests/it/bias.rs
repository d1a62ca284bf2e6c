//! Tokens whose logits are biased.

use tieline_types::wire::{FailureKind, Work};
use tieline_types::{Constraint, FinishReason, Request, Speculation, Tokens};

use crate::peer::{Peer, question};

/// How much nearer to each other two log-probabilities cannot be told apart.
const TIE: f32 = 0.02;

/// A question, computed the same way each time.
fn asked(logit_bias: Vec<(u32, f32)>) -> Request {
    let mut request = Request {
        logprobs: Some(3),
        cache: false,
        speculation: Speculation::Off,
        ..question("What is the capital of France?")
    };
    request.sampling.logit_bias = logit_bias;
    request
}

#[test]
fn a_high_bias_makes_a_token_and_log_probabilities_stay_raw() {
    let mut peer = Peer::ready();
    let free = peer.generate(asked(vec![]));
    let paris = free.logprobs.iter().find(|entry| entry.bytes == b" Paris").unwrap().token;
    let mut request = asked(vec![(paris, 100.0)]);
    request.max_tokens = Some(Tokens(3));
    let answer = peer.generate(request.clone());
    assert_eq!(answer.text, " Paris Paris Paris");
    let (first, want) = (&answer.logprobs[0], &free.logprobs[0]);
    assert_eq!((first.token, &first.alternatives), (paris, &want.alternatives));
    assert!(first.logprob < want.logprob);
    // Also where tokens are drawn.
    request.sampling.temperature = 1.0;
    assert_eq!(peer.generate(request).text, " Paris Paris Paris");
}

#[test]
fn a_low_bias_forbids_the_likeliest_token() {
    let mut peer = Peer::ready();
    let free = peer.generate(asked(vec![]));
    let [first, second, _] = &free.logprobs[0].alternatives[..] else { panic!("not three") };
    let answer = peer.generate(asked(vec![(first.token, -100.0)]));
    assert_eq!(answer.logprobs[0].token, second.token);
    assert!(answer.logprobs.iter().all(|entry| entry.token != first.token));
    // A token that is named twice gets both.
    let both = peer.generate(asked(vec![(first.token, -100.0), (first.token, 100.0)]));
    assert_eq!(both.logprobs[0].token, first.token);
}

#[test]
fn what_no_model_has_is_refused() {
    let mut peer = Peer::ready();
    for token in [49_152, u32::MAX] {
        let failure = peer.failure(Work::Generate(Box::new(asked(vec![(5, 1.0), (token, 1.0)]))));
        assert_eq!(failure.kind, FailureKind::InvalidRequest);
        assert_eq!(failure.message, format!("token {token} is not in the vocabulary of 49152"));
    }
    let failure = peer.failure(Work::Generate(Box::new(asked(vec![(5, 101.0)]))));
    assert_eq!(failure.message, "logit_bias is 101: expected a number from -100 to 100");
    peer.generate(asked(vec![(49_151, -100.0)]));
}

#[test]
fn others_in_the_batch_are_not_biased() {
    let mut peer = Peer::exact();
    let want = peer.generate(asked(vec![]));
    let token = want.logprobs[0].token;
    let requests = [asked(vec![]), asked(vec![(token, -100.0)]), asked(vec![])];
    let answers = peer.together(requests);
    answers[0].is_equal(&want, TIE);
    answers[2].is_equal(&want, TIE);
    assert!(answers[1].logprobs.iter().all(|entry| entry.token != token));
}

#[test]
fn the_end_of_a_rule_is_not_ignored() {
    let mut peer = Peer::ready();
    let ruled = |rule: &str| Request {
        constraint: Some(Constraint::Regex(rule.to_owned())),
        ignore_eog: true,
        max_tokens: None,
        ..asked(vec![])
    };
    for deterministic in [false, true] {
        let request = Request { deterministic, ..ruled("red|green|blue") };
        let answer = peer.generate(request);
        assert_eq!(answer.finished.reason, FinishReason::EndOfTurn);
        assert!(["red", "green", "blue"].contains(&answer.text.as_str()), "{}", answer.text);
    }
    // As long as the rule allows more, it goes on.
    let open = Request { max_tokens: Some(Tokens(24)), ..ruled("(The|[a-zA-Z .])*") };
    let answer = peer.generate(open);
    answer.is_whole(24);
    assert_eq!(answer.logprobs.iter().filter(|entry| entry.bytes.is_empty()).count(), 0);
}

#[test]
fn a_rule_is_stronger_than_a_bias() {
    let mut peer = Peer::ready();
    let ruled = |logit_bias| Request {
        constraint: Some(Constraint::Regex("red|green|blue".to_owned())),
        ..asked(logit_bias)
    };
    let free = peer.generate(ruled(vec![]));
    let token = free.logprobs[0].token;
    let other = peer.generate(ruled(vec![(token, -100.0)]));
    assert_ne!(other.logprobs[0].token, token);
    // A token that the rule never allows.
    let outside = peer.generate(asked(vec![])).logprobs[0].token;
    let pushed = peer.generate(ruled(vec![(outside, 100.0)]));
    for answer in [&free, &other, &pushed] {
        assert!(["red", "green", "blue"].contains(&answer.text.as_str()), "{}", answer.text);
    }
    assert_eq!(pushed.text, free.text);
}
