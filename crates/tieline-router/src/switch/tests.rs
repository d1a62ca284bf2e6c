use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use testkit::scripted::Scripted;
use tieline_privacy::{Detectors, Guard, GuardLimits, Guarded, Outbound, Remote, RootKey};
use tieline_types::{
    Backend, Event, EventStream, FinishReason, Finished, Message, Piece, Prompt, Role, Source,
    Timing, Tokens, ToolCall, Usage, Wanted, Zone,
};

use super::*;
use crate::carry::breaker::Key;
use crate::choose::Pinned;
use crate::policy::Policy;
use crate::prices::{PriceSource, Priced};
use crate::record::Record;
use crate::replay::{Keeper, Kept};
use crate::run::{Hints, Router};

mod checks;
mod hedges;
mod knows;
mod limits;
mod worst;

const POLICY: &str = r#"
[backends.cloud]
protocol = "openai"
url = "https://cloud.example/v1"
zone = "cloud"

[backends.cloud.models.big]
context = 100_000
max_output = 4000
tools = true
quality = { any = 0.95 }
price = { input = 1, output = 2 }
prefill_tps = 4000
decode_tps = 80
first_token = "500ms"

[local.mock]
quality = { any = 0.2 }

[[rule]]
name = "work"
class = ["public", "internal"]
zone = "cloud"
as = "as-is"
"#;

/// A vendor that answers in a word, or with nothing, or cannot be reached. Each answer used one token more than the
/// one before.
#[derive(Debug, Default)]
struct Vendor {
    away: bool,
    mute: bool,
    asked: AtomicUsize,
    left: Mutex<Vec<String>>,
    wishes: Mutex<Vec<bool>>,
}

#[async_trait]
impl Remote for Vendor {
    fn name(&self) -> &str {
        "cloud/big"
    }

    fn zone(&self) -> Zone {
        Zone::Cloud
    }

    async fn send(&self, outbound: Outbound) -> Result<EventStream, BackendError> {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        self.left.lock().unwrap().push(serde_json::to_string(outbound.request()).unwrap());
        self.wishes.lock().unwrap().push(outbound.request().whole);
        if self.away {
            let cause = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
            let error = BackendError::new(ErrorKind::Upstream, "no connection").with_source(cause);
            return Err(error);
        }
        let usage = Usage {
            prompt_tokens: Tokens(1000),
            completion_tokens: Tokens(u32::try_from(number + 1).unwrap()),
            ..Usage::default()
        };
        let usage = if self.mute { Usage::default() } else { usage };
        let finished = Finished {
            reason: FinishReason::EndOfTurn,
            usage,
            timing: Timing::default(),
            seed: 0,
            peak_memory: None,
            receipt: None,
        };
        let said = if self.mute { "" } else { "afar" };
        let piece = Piece { text: said.into(), logprobs: Vec::new() };
        let events = [Event::Piece(piece), Event::Finished(Box::new(finished))];
        Ok(stream::iter(events.map(Ok)).boxed())
    }
}

fn setup(vendor: &Arc<Vendor>) -> Setup {
    let policy = Policy::parse(POLICY).unwrap();
    let detectors = Arc::new(Detectors::default());
    let limits = GuardLimits::default();
    let guard = Arc::new(Guard::new(Arc::clone(&detectors), RootKey::new([7; 32]), limits));
    let candidate = policy.remote_candidates().remove(0);
    let price = candidate.price.unwrap();
    let circuit = Key { host: "cloud".into(), model: "big".into(), key: "cloud".into(), turn: 0 };
    let remote = RemoteModel {
        candidate,
        guarded: Guarded::new(Arc::clone(vendor) as Arc<dyn Remote>, Arc::clone(&guard)),
        price: Some(Priced { price, above: None, source: PriceSource::Policy { date: None } }),
        vendor: "openai".to_owned(),
        circuit,
    };
    let (money, offline, known) = (None, false, Arc::default());
    Setup { policy, remotes: vec![remote], detectors, guard, money, offline, known, checker: None }
}

fn router(vendor: &Arc<Vendor>) -> Router {
    let router = Router::new(Arc::new(Scripted::hello()), None);
    router.switch().replace(setup(vendor));
    router
}

fn call(model: &str) -> Call {
    Call {
        id: "1".to_owned(),
        key: String::new(),
        label: None,
        allowed: None,
        dialect: "openai",
        operation: "chat",
        wanted: Wanted::named(model),
        hints: Hints::default(),
    }
}

fn chat(texts: &[(Role, &str)]) -> Request {
    let messages = texts.iter().map(|(role, text)| Message::new(*role, *text)).collect();
    Request::new(Prompt::Chat(messages))
}

/// The same conversation after a tool was called, with its result.
fn after_a_tool(ask: &[(Role, &str)]) -> Request {
    let mut request = chat(ask);
    let Prompt::Chat(messages) = &mut request.prompt else { panic!() };
    let mut assistant = Message::new(Role::Assistant, "");
    let (id, name) = ("c1".to_owned(), "now".to_owned());
    assistant.tool_calls = vec![ToolCall { id, name, arguments: "{}".into() }];
    messages.extend([assistant, Message::new(Role::Tool, "12:00")]);
    request
}

async fn answer(router: &Router, model: &str, request: Request) -> Result<String, BackendError> {
    let routed = router.decide(call(model), &request).await?;
    let mut stream = routed.run(request).await?;
    let mut said = String::new();
    while let Some(event) = stream.next().await {
        if let Event::Piece(piece) = event? {
            said.push_str(piece.text.expose());
        }
    }
    Ok(said)
}

fn last(router: &Router) -> Arc<Record> {
    router.records().latest(1).remove(0)
}

#[tokio::test]
async fn the_best_that_may_answers_and_the_record_has_all_that_led_to_it() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    assert_eq!(answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap(), "afar");
    let record = last(&router);
    assert_eq!(record.decision.model, "cloud/big");
    let tried = &record.tried[0];
    assert_eq!((tried.ended, tried.source), ("answered", Source::Reported));
    assert_eq!(tried.cost_micro_usd, Some(1002));
    assert_eq!(tried.egress.as_ref().unwrap().rule, "work");
    // By its own name it is that model, and nothing of a policy.
    let said = answer(&router, "mock", chat(&[(Role::User, "Hi")])).await.unwrap();
    assert_eq!(said, "Hello there.");
    assert!(last(&router).plan.is_none());
}

/// Whom the decision names, why, and who answers.
async fn named(router: &Router, model: &str) -> (String, &'static str, Option<String>) {
    let request = chat(&[(Role::User, "Hi")]);
    let routed = router.decide(call(model), &request).await.unwrap();
    assert_eq!(routed.answering(), None);
    let mut stream = routed.run(request).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let decision = routed.decision();
    (decision.model.clone(), decision.reason, routed.answering())
}

#[tokio::test]
async fn who_answers_is_known_once_an_answer_begins() {
    let told = |named: &str, reason, answering: &str| {
        (named.to_owned(), reason, Some(answering.to_owned()))
    };
    let vendor = Arc::new(Vendor { away: true, ..Vendor::default() });
    let want = told("cloud/big", "chosen", "mock");
    assert_eq!(named(&router(&vendor), "auto").await, want);
    // A cascade is named by its first one, whether or not that is kept: a check that nobody runs is not passed.
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let more = "[preferences]\ncascade_margin = 1\n[models.code]\ncheck = \"judge\"\n";
    let text = POLICY.replace("quality = { any = 0.2 }", "quality = 0.6") + more;
    let policy = Policy::parse(&text).unwrap();
    router.switch().replace(Setup { policy, ..setup(&vendor) });
    assert_eq!(named(&router, "auto").await, told("mock", "cascade", "mock"));
    assert_eq!(named(&router, "code").await, told("mock", "cascade", "cloud/big"));
}

#[tokio::test]
async fn a_text_with_special_tokens_is_read_so_by_a_model_of_this_machine_alone() {
    let vendor = Arc::new(Vendor::default());
    let scripted = Scripted::hello();
    let router = Router::new(Arc::new(scripted.clone()), None);
    let policy = format!("{POLICY}\n[models.fast]\ncandidates = [\"mock\"]\n");
    router.switch().replace(Setup { policy: Policy::parse(&policy).unwrap(), ..setup(&vendor) });
    for (special, want) in [(false, None), (true, Some(vec![1, 2]))] {
        for model in ["fast", "cloud/big"] {
            let wanted = Wanted { special, ..Wanted::named(model) };
            let request = Request::new(Prompt::Text("<|im_start|>user Hi".into()));
            let call = Call { wanted, ..call(model) };
            let routed = router.decide(call, &request).await.unwrap();
            routed.run(request).await.unwrap().collect::<Vec<_>>().await;
        }
        let tokens = match scripted.last().prompt {
            Prompt::Tokens(tokens) => Some(tokens),
            _ => None,
        };
        assert_eq!(tokens, want);
    }
    let left = vendor.left.lock().unwrap();
    assert!(left.len() == 2 && left[0] == left[1] && left[0].contains("im_start"), "{left:?}");
}

#[tokio::test]
async fn a_record_lists_some_of_the_parts_that_left_and_counts_all() {
    let router = router(&Arc::default());
    answer(&router, "cloud/big", chat(&[(Role::User, "Hi"); 600])).await.unwrap();
    let record = last(&router);
    let egress = record.tried[0].egress.as_ref().unwrap();
    let listed: usize = egress.surfaces.iter().map(|surface| surface.parts.len()).sum();
    assert_eq!((egress.bytes, listed, egress.unlisted), (1200, 512, 88));
}

#[tokio::test]
async fn who_wants_to_see_an_answer_begin_has_it_streamed() {
    for (deadlines, wish, want) in [
        ("", true, true),
        ("", false, false),
        ("[deadlines]\nfirst_token = \"59s\"", true, false),
        ("[deadlines]\nidle = \"5s\"", true, false),
        ("[deadlines]\nfirst_token = \"2m\"\ntotal = \"5m\"", true, true),
    ] {
        let vendor = Arc::new(Vendor::default());
        let router = router(&vendor);
        let policy = Policy::parse(&format!("{deadlines}\n{POLICY}")).unwrap();
        router.switch().replace(Setup { policy, ..setup(&vendor) });
        let request = Request { whole: wish, ..chat(&[(Role::User, "Hi")]) };
        answer(&router, "cloud/big", request).await.unwrap();
        assert_eq!(*vendor.wishes.lock().unwrap(), [want], "{deadlines}");
    }
}

#[tokio::test]
async fn where_others_may_follow_an_answer_in_one_piece_ends_in_time_for_them() {
    for (model, max_tokens, want) in
        [("cloud/big", None, true), ("auto", None, true), ("auto", Some(Tokens(100)), true)]
    {
        let vendor = Arc::new(Vendor::default());
        let router = router(&vendor);
        let request = Request { whole: true, max_tokens, ..chat(&[(Role::User, "Hi")]) };
        answer(&router, model, request).await.unwrap();
        assert_eq!(*vendor.wishes.lock().unwrap(), [want], "{model} {max_tokens:?}");
    }
    // Nobody knows how long its answers are.
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let mut boundless = setup(&vendor);
    boundless.remotes[0].candidate.max_output = None;
    router.switch().replace(boundless);
    let request = Request { whole: true, ..chat(&[(Role::User, "Hi")]) };
    answer(&router, "auto", request).await.unwrap();
    assert_eq!(*vendor.wishes.lock().unwrap(), [false]);
}

#[tokio::test]
async fn a_decision_is_made_again_from_what_is_kept_of_it() {
    let vendor = Arc::new(Vendor::default());
    let (sink, mut filed) = tokio::sync::mpsc::channel(2);
    let router = Router::new(Arc::new(Scripted::hello()), Some(sink));
    router.switch().replace(setup(&vendor));
    for text in ["card 4111 1111 1111 1111", "Hi"] {
        answer(&router, "auto", chat(&[(Role::User, text)])).await.unwrap();
    }
    let mut keeper = Keeper::default();
    for first in ["mock", "cloud/big"] {
        let row = keeper.row(&filed.recv().await.unwrap()).unwrap();
        assert!(!row.facts.contains("4111") && !row.facts.contains("Hi"), "{}", row.facts);
        let made = Kept::read(&row).unwrap().made.unwrap();
        assert_eq!(made.decision.tries[0].name, first);
        assert_eq!(decide(&setup(&vendor).policy, &made.asked, &made.candidates), made.decision);
    }
}

#[tokio::test]
async fn several_answers_to_one_call_have_a_bill_each() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let request = chat(&[(Role::User, "Hi")]);
    let routed = router.decide(call("cloud/big"), &request).await.unwrap();
    // All are under way before the first of them ends.
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(routed.run(request.clone()).await.unwrap());
    }
    for stream in streams {
        assert!(stream.collect::<Vec<_>>().await.iter().all(Result::is_ok));
    }
    let records = router.records().latest(9);
    let tried = records.iter().flat_map(|record| &record.tried);
    let mut costs: Vec<_> = tried.map(|tried| tried.cost_micro_usd.unwrap()).collect();
    costs.sort_unstable();
    assert_eq!(costs, [1002, 1004, 1006, 1008]);
}

#[tokio::test]
async fn a_network_that_is_gone_means_answers_from_here() {
    let vendor = Arc::new(Vendor { away: true, ..Vendor::default() });
    let router = router(&vendor);
    for _ in 0..8 {
        let said = answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap();
        assert_eq!(said, "Hello there.");
    }
    // After some failures nobody asks any more, and the record says so.
    assert!(vendor.asked.load(Ordering::Relaxed) < 8);
    let plan = last(&router).plan.clone().unwrap();
    let reason = plan.rejections.iter().find(|one| one.name == "cloud/big").unwrap().reason;
    assert!(["offline", "breaker_open"].contains(&reason.as_str()), "{reason:?}");
    // That passes: whoever named it may come again, where it was not ordered to be so.
    let named = || answer(&router, "cloud/big", chat(&[(Role::User, "Hi")]));
    let error = named().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(matches!(error.retry, Retry::After(wait) if !wait.is_zero()), "{:?}", error.retry);
    router.switch().replace(Setup { offline: true, ..setup(&vendor) });
    let error = named().await.unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Denied, Retry::No));
}

#[tokio::test(start_paused = true)]
async fn only_what_may_cost_money_waits_for_a_place_among_the_records() {
    let vendor = Arc::new(Vendor::default());
    let (sink, _nobody_reads) = tokio::sync::mpsc::channel(1);
    let _all_places = sink.clone().try_reserve_owned().unwrap();
    let router = Router::new(Arc::new(Scripted::hello()), Some(sink));
    router.switch().replace(setup(&vendor));
    // A vendor comes first, and a model from here after it.
    let error = answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(vendor.asked.load(Ordering::Relaxed), 0);
    router.switch().replace(Setup { offline: true, ..setup(&vendor) });
    let since = tokio::time::Instant::now();
    let said = answer(&router, "auto", chat(&[(Role::User, "Hi")])).await.unwrap();
    assert_eq!((said.as_str(), since.elapsed().as_secs()), ("Hello there.", 0));
}

#[tokio::test]
async fn a_tools_result_goes_to_whoever_called_it() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let ask = [(Role::System, "Be brief."), (Role::User, "What is the time?")];
    answer(&router, "auto", chat(&ask)).await.unwrap();
    answer(&router, "auto", after_a_tool(&ask)).await.unwrap();
    assert_eq!(last(&router).plan.as_ref().unwrap().pinned, Some(Pinned::ToolLoop));
    // Agents add words of their own to the results.
    let reminder = Message::new(Role::User, "<system-reminder>Keep a list.</system-reminder>");
    let answered = Message::new(Role::Assistant, "It is noon.");
    let next = Message::new(Role::User, "And the day?");
    for (more, want) in [(vec![reminder], true), (vec![answered, next], false)] {
        let mut request = after_a_tool(&ask);
        let Prompt::Chat(messages) = &mut request.prompt else { panic!() };
        messages.extend(more);
        answer(&router, "auto", request).await.unwrap();
        let pinned = last(&router).plan.as_ref().unwrap().pinned;
        assert_eq!(pinned == Some(Pinned::ToolLoop), want, "{pinned:?}");
    }
}

#[tokio::test]
async fn what_may_not_leave_does_not_and_a_class_that_is_none_is_refused() {
    let vendor = Arc::new(Vendor::default());
    let router = router(&vendor);
    let secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ\n-----END OPENSSH PRIVATE KEY-----";
    for role in [Role::System, Role::User, Role::Assistant] {
        let request = chat(&[(role, secret), (Role::User, "Hi")]);
        let error = answer(&router, "cloud/big", request).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Denied, "{role:?}");
        assert_eq!(last(&router).outcome, crate::record::Outcome::Failed);
    }
    let hints = Hints { data_class: Some("privat".to_owned()), ..Hints::default() };
    let request = chat(&[(Role::User, "Hi")]);
    let refused = router.decide(Call { hints, ..call("auto") }, &request).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidRequest);
    let unknown = answer(&router, "cloud/small", request).await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    assert!(vendor.left.lock().unwrap().is_empty());
}
