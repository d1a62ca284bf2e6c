//! Five hundred values that must not be seen, planted on every surface of every dialect: what vendors got, what is
//! on disk, and what is said in logs, records, metrics and spans holds none of them.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testkit::canaries::{Canary, ascii, canaries, terms};
use testkit::vendor::{CANARY, Fault, Script, Step};
use tokio::sync::broadcast::Receiver;

use super::http::{Said, get, post};
use super::matrix::town::{Terms, Town, bytes};

const COUNT: usize = 500;

/// Models that make vectors and scores, and answers that are kept, stand with each of the rules.
macro_rules! with_all {
    ($root:literal, $rules:literal) => {
        concat!(
            $root,
            "[cache]\nexact = true\nclass = [\"public\", \"internal\", \"private\", \"secret\"]\n",
            "[backends.vllm.models.vectors]\nembeddings = true\n",
            "[backends.vllm.models.scores]\nrerank = true\n",
            $rules
        )
    };
}

const REDACTED: &str = with_all!(
    "",
    "[[rule]]\nname = \"redacted\"\nclass = [\"public\", \"internal\", \
    \"private\", \"secret\"]\nzone = \"cloud\"\nas = \"redacted\"\n"
);

/// Nothing that is private or secret may leave.
const STAYS: &str = with_all!(
    "default_class = \"private\"\n",
    "[[rule]]\nname = \"open\"\n\
    class = [\"public\", \"internal\"]\nzone = \"cloud\"\nas = \"as-is\"\n"
);

const AS_IT_IS: &str = with_all!(
    "",
    "[[rule]]\nname = \"all\"\nclass = [\"public\", \"internal\", \
    \"private\", \"secret\"]\nzone = \"cloud\"\nas = \"as-is\"\n"
);

/// Deals out canaries, and draws lots. The same each time.
struct Hand {
    canaries: Vec<Canary>,
    dealt: usize,
    state: u64,
}

impl Hand {
    fn new(seed: u64) -> Self {
        Self { canaries: canaries(COUNT), dealt: 0, state: seed }
    }

    /// A number below `most`: xorshift64*, Vigna 2016.
    fn draw(&mut self, most: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        let drawn = self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(drawn).unwrap() % most
    }

    /// The next canary in its sentence. The last ones are dealt twice.
    fn say(&mut self) -> String {
        let sentence = self.canaries[self.dealt % COUNT].sentence.clone();
        self.dealt += 1;
        sentence
    }

    /// JSON text that holds two, sometimes with all but ASCII escaped.
    fn object(&mut self) -> String {
        let object = json!({ "to": self.say(), "list": [1, { "file": self.say() }] }).to_string();
        if self.draw(2) == 0 { object } else { ascii(&object) }
    }

    fn schema(&mut self) -> Value {
        json!({ "type": "object", "description": self.say(), "required": ["to"],
            "properties": { "to": { "type": "string", "enum": [self.say(), "x"] } },
            "additionalProperties": false })
    }
}

type Ask = (&'static str, &'static [&'static str], fn(&mut Hand) -> Value);

const CHATS: &[&str] = &[
    "openai/gpt-4.1",
    "vllm/big",
    "openrouter/big",
    "anthropic/claude-sonnet-4-5",
    "gemini/gemini-2.5-flash",
    "ollama/big",
];
const ITEMS: &[&str] = &["openai/gpt-4.1", "vllm/big", "responses/gpt-5.1", "ollama/big"];
const TEXTS: &[&str] = &["openai/gpt-4.1", "vllm/big", "together/big", "tieline/big"];

const ASKS: [Ask; 9] = [
    ("/v1/chat/completions", CHATS, chat),
    ("/v1/messages", CHATS, messages),
    ("/v1/responses", ITEMS, responses),
    ("/api/chat", CHATS, ollama),
    ("/api/generate", CHATS, generate),
    ("/v1/completions", TEXTS, completions),
    ("/completion", TEXTS, completions),
    ("/v1/embeddings", &["vllm/vectors"], embeddings),
    ("/v1/rerank", &["vllm/scores"], rerank),
];

fn chat(hand: &mut Hand) -> Value {
    let mut body = json!({
        "user": hand.say(), "metadata": { "note": hand.say() },
        "messages": [
            { "role": "system", "content": hand.say() },
            { "role": "user", "name": "anna", "content": [
                { "type": "text", "text": hand.say() }, { "type": "text", "text": hand.say() } ] },
            { "role": "assistant", "content": hand.say(), "reasoning_content": hand.say(),
              "tool_calls": [{ "id": "call00001", "type": "function",
                "function": { "name": "mail", "arguments": hand.object() } }] },
            { "role": "tool", "tool_call_id": "call00001", "content": hand.object() },
        ],
        "stop": [hand.say()],
    });
    body["tools"] = json!([{ "type": "function", "function": {
        "name": "mail", "description": hand.say(), "parameters": hand.schema() } }]);
    body
}

fn messages(hand: &mut Hand) -> Value {
    let input: Value = serde_json::from_str(&hand.object()).unwrap();
    json!({
        "max_tokens": 1000, "metadata": { "user_id": hand.say() }, "stop_sequences": [hand.say()],
        "system": [{ "type": "text", "text": hand.say() }],
        "messages": [
            { "role": "user", "content": [{ "type": "text", "text": hand.say() }] },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": hand.say(), "signature": "x" },
                { "type": "tool_use", "id": "toolu_1", "name": "mail", "input": input } ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "toolu_1", "is_error": true,
                  "content": [{ "type": "text", "text": hand.object() }] },
                { "type": "text", "text": hand.say() } ] },
        ],
        "tools": [{ "name": "mail", "description": hand.say(), "input_schema": hand.schema() }],
    })
}

fn responses(hand: &mut Hand) -> Value {
    json!({
        "instructions": hand.say(), "metadata": { "note": hand.say() }, "user": hand.say(),
        "input": [
            { "type": "message", "role": "user",
              "content": [{ "type": "input_text", "text": hand.say() }] },
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": hand.say() }] },
            { "type": "function_call", "call_id": "call00001", "name": "mail",
              "arguments": hand.object() },
            { "type": "function_call_output", "call_id": "call00001", "output": hand.object() },
        ],
        "text": { "format": { "type": "json_schema", "name": "letter", "schema": hand.schema() } },
        "tools": [{ "type": "function", "name": "mail", "description": hand.say(),
            "parameters": hand.schema() }],
    })
}

fn ollama(hand: &mut Hand) -> Value {
    let arguments: Value = serde_json::from_str(&hand.object()).unwrap();
    json!({
        "messages": [
            { "role": "system", "content": hand.say() },
            { "role": "user", "content": hand.say() },
            { "role": "assistant", "content": "", "thinking": hand.say(), "tool_calls": [
                { "function": { "name": "mail", "arguments": arguments } } ] },
            { "role": "tool", "tool_name": "mail", "content": hand.object() },
        ],
        "tools": [{ "type": "function", "function": {
            "name": "mail", "description": hand.say(), "parameters": hand.schema() } }],
        "options": { "stop": [hand.say()] },
    })
}

fn generate(hand: &mut Hand) -> Value {
    json!({ "prompt": hand.say(), "system": hand.say(), "format": hand.schema() })
}

fn completions(hand: &mut Hand) -> Value {
    // An answer that is kept.
    json!({ "prompt": format!("{}\n{}", hand.say(), hand.say()), "stop": [hand.say()],
        "user": hand.say(), "temperature": 0 })
}

fn embeddings(hand: &mut Hand) -> Value {
    json!({ "input": [hand.say(), hand.say()], "user": hand.say() })
}

fn rerank(hand: &mut Hand) -> Value {
    json!({ "query": hand.say(), "documents": [hand.say(), hand.say()] })
}

/// What is written to the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(buffer);
        Ok(buffer.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// All that is said, to the last word, from now on.
    fn start() -> Self {
        let log = Self::default();
        let writer = log.clone();
        let lines = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        lines.with_ansi(false).with_writer(move || writer.clone()).init();
        log
    }
}

/// Where a value was looked for, and what was there.
struct Found {
    place: &'static str,
    bytes: Vec<u8>,
}

/// How many of the canaries are to be seen: plain, or escaped as JSON once or twice.
fn seen(canaries: &[Canary], found: &Found) -> Vec<String> {
    let text = String::from_utf8_lossy(&found.bytes);
    let shows = |canary: &&Canary| {
        let once = serde_json::to_string(&canary.secret).unwrap();
        let twice = serde_json::to_string(once.trim_matches('"')).unwrap();
        let ascii = ascii(once.trim_matches('"'));
        [canary.secret.as_str(), once.trim_matches('"'), twice.trim_matches('"'), &ascii]
            .iter()
            .any(|form| text.contains(form))
    };
    canaries.iter().filter(shows).map(|canary| canary.secret.clone()).collect()
}

/// What the vendor answers: in words, with a call, or with an error that repeats what it should not.
fn script(hand: &mut Hand) -> Script {
    match hand.draw(4) {
        0 => Script::text(&["x"]).failing(Fault::Status {
            status: 400,
            retry_after: None,
            code: "invalid_value".to_owned(),
        }),
        1 => Script::text(&["x"]).failing(Fault::ErrorAfter(1)),
        2 => Script {
            steps: vec![
                Step::Call { index: 0, id: "c1".to_owned(), name: "mail".to_owned() },
                Step::Arguments { index: 0, text: "{\"to\":\"x\"}".to_owned() },
            ],
            ..Script::text(&[])
        },
        _ => Script::text(&["Done", "."]),
    }
}

/// Asks until every canary was in a request that a vendor got, or, where nothing may leave, in one that was refused.
fn ask_all(town: &Town, hand: &mut Hand, leaves: bool) -> Vec<Said> {
    let mut said = Vec::new();
    while hand.dealt < COUNT {
        let (path, models, ask) = ASKS[said.len() % ASKS.len()];
        let mut body = ask(hand);
        let model = models[hand.draw(models.len())];
        (body["model"], body["stream"]) = (json!(model), json!(hand.draw(2) == 0));
        town.renew(said.len());
        town.vendor.answers(script(hand));
        let before = town.vendor.captured().len();
        let answer = post(town.address, path, &body);
        assert!(!answer.body.contains(CANARY), "{}", answer.body);
        let left = town.vendor.captured().len() > before;
        assert_eq!(left, leaves, "{path} to {model}: {} {}", answer.status, answer.body);
        said.push(answer);
    }
    said
}

/// What the records tell, as whoever asks for them sees it.
fn decisions(town: &Town, said: &[Said]) -> Vec<u8> {
    let ids = said.iter().map(|said| said.header("x-request-id").unwrap());
    let told = ids.map(|id| get(town.address, &format!("/tieline/v1/decisions/{id}")).body);
    told.collect::<String>().into_bytes()
}

async fn spans(records: Receiver<Arc<tieline_router::Record>>, to: Arc<Mutex<Vec<u8>>>) {
    let send = |body: Vec<u8>| {
        to.lock().unwrap().extend(body);
        std::future::ready(Ok(()))
    };
    tieline_server::otlp::export(records, None, send).await;
}

/// All that others may see of the requests, and where.
fn exposed(rules: &'static str, leaves: bool, log: &Log) -> (Vec<Canary>, Vec<Found>) {
    let mut hand = Hand::new(0x7161_e11e);
    let mut words = terms(&hand.canaries);
    words.push(CANARY.to_owned());
    let town = Town::with(Terms { rules, terms: words });
    let told = Arc::new(Mutex::new(Vec::new()));
    town.beside(spans(town.app.router().records().subscribe(), Arc::clone(&told)));
    let said = ask_all(&town, &mut hand, leaves);
    if !leaves {
        // Nothing is found in this: the class alone keeps it here.
        let body =
            json!({ "model": "vllm/big", "messages": [{ "role": "user", "content": "Hello" }] });
        let answer = post(town.address, "/v1/chat/completions", &body);
        assert_eq!((answer.status, town.vendor.captured().len()), (403, 0), "{}", answer.body);
    }
    let sent = town.vendor.captured().iter().flat_map(|one| one.raw.clone()).collect();
    let decisions = decisions(&town, &said);
    assert!(decisions.len() > 100 * said.len(), "there are records");
    let metrics = get(town.address, "/metrics").body.into_bytes();
    assert!(metrics.len() > 1000, "there are metrics");
    let home = town.end();
    let disk = bytes(home.path());
    let spans = std::mem::take(&mut *told.lock().unwrap());
    assert!(disk.len() > 1000 && spans.len() > 1000, "there are rows and spans");
    let log = log.0.lock().unwrap().clone();
    assert!(log.len() > 1000, "there is a log");
    let places = [
        ("vendor", sent),
        ("records", decisions),
        ("metrics", metrics),
        ("disk", disk),
        ("spans", spans),
        ("log", log),
    ];
    let found = places.map(|(place, bytes)| Found { place, bytes });
    (hand.canaries, found.into())
}

#[test]
fn no_canary_is_seen_outside() {
    let log = Log::start();
    for (rules, leaves) in [(REDACTED, true), (STAYS, false)] {
        let (canaries, found) = exposed(rules, leaves, &log);
        for place in &found {
            let seen = seen(&canaries, place);
            assert!(seen.is_empty(), "{}: {} canaries: {seen:?}", place.place, seen.len());
        }
    }
    // What would be seen if nothing were done: so the test can see.
    let (canaries, found) = exposed(AS_IT_IS, true, &log);
    for place in &found {
        let seen: BTreeSet<String> = seen(&canaries, place).into_iter().collect();
        assert_eq!(
            seen.len() > COUNT / 2,
            place.place == "vendor",
            "{}: {}",
            place.place,
            seen.len()
        );
    }
}
