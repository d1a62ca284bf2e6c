//! The most that a request may cost: what is reserved, and what is on record where nobody tells.

use super::*;

const ALL_REDACTED: [(&str, &str); 2] =
    [("[\"public\", \"internal\"]", "\"any\""), ("\"as-is\"", "\"redacted\"")];

#[tokio::test]
async fn what_a_vendor_writes_around_each_message_is_reserved_for() {
    let router = router(&Arc::default());
    let ask = |count| vec![(Role::User, "y"); count];
    let mut most = Vec::new();
    for count in [1, 2001] {
        answer(&router, "cloud/big", chat(&ask(count))).await.unwrap();
        most.push(last(&router).asked.as_ref().unwrap().prompt_tokens_most.unwrap().0);
    }
    // Four are the most that a vendor is known to count around one.
    assert!(most[1] - most[0] >= 2000 * (1 + 4), "{most:?}");
    let mut request = after_a_tool(&ask(1));
    answer(&router, "cloud/big", request.clone()).await.unwrap();
    let before = last(&router).asked.as_ref().unwrap().prompt_tokens_most.unwrap();
    let (name, description, parameters) = ("t".to_owned(), String::new(), "{}".to_owned());
    request.tools = vec![tieline_types::Tool { name, description, parameters }];
    answer(&router, "cloud/big", request).await.unwrap();
    let after = last(&router).asked.as_ref().unwrap().prompt_tokens_most.unwrap();
    assert_eq!(after.0 - before.0, 3 + 8, "a tool's text, and what stands around it");
}

#[tokio::test]
async fn a_text_that_grows_when_it_is_redacted_is_reserved_for_as_it_leaves() {
    use std::fmt::Write;
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let mut text = POLICY.to_owned();
    for (from, to) in ALL_REDACTED {
        text = text.replace(from, to);
    }
    router.switch().replace(Setup { policy: Policy::parse(&text).unwrap(), ..setup(&vendor) });
    let mut log = String::new();
    for number in 0..2000 {
        write!(log, "{number}@ab.de ").unwrap();
    }
    answer(&router, "cloud/big", chat(&[(Role::User, &log)])).await.unwrap();
    let record = last(&router);
    let (tried, plan) = (&record.tried[0], record.plan.as_ref().unwrap());
    assert_eq!(tried.redacted, 2000);
    assert!(tried.sent_bytes > u64::try_from(log.len()).unwrap() + 10_000);
    // A token for each byte that leaves, at a micro-dollar, and two for each of the answer's.
    let worst =
        i64::try_from(tried.sent_bytes).unwrap() + 2 * i64::from(plan.tries[0].reserve_tokens.0);
    assert!(plan.tries[0].reserve.0 >= worst, "{:?} {worst}", plan.tries[0].reserve);
}

#[tokio::test]
async fn where_nothing_is_known_to_end_an_answer_its_cost_is_at_least_so_much() {
    for (max_output, max_tokens, want) in
        [(None, None, true), (Some(Tokens(4000)), None, false), (None, Some(Tokens(50)), false)]
    {
        let vendor = Arc::new(Vendor { mute: true, ..Vendor::default() });
        let router = router(&vendor);
        let mut setup = setup(&vendor);
        setup.remotes[0].candidate.max_output = max_output;
        router.switch().replace(setup);
        let request = Request { max_tokens, ..chat(&[(Role::User, "Hi")]) };
        answer(&router, "cloud/big", request).await.unwrap();
        let tried = &last(&router).tried[0];
        assert!(tried.cost_micro_usd > Some(0));
        assert_eq!((tried.source, tried.cost_at_least), (Source::Estimated, want));
    }
    // What its vendor tells is the truth.
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let mut setup = setup(&vendor);
    setup.remotes[0].candidate.max_output = None;
    router.switch().replace(setup);
    answer(&router, "cloud/big", chat(&[(Role::User, "Hi")])).await.unwrap();
    assert!(!last(&router).tried[0].cost_at_least);
}
