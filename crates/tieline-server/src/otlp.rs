//! What happened to requests, as spans of OpenTelemetry: OTLP's JSON, with the names of its conventions for
//! generative AI. Never a text of a request: what the conventions call content is left out.
//!
//! [`export`] gathers records and gives batches to whoever sends them; nothing waits for that.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tieline_router::{AskedFor, Outcome, Record};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::genai::{PROVIDER, answered, operation, requested};

/// Spans in one message.
const BATCH: usize = 256;
/// How long a span may wait for others.
const WAIT: Duration = Duration::from_secs(5);

/// Sends the spans of all records until their source ends, and what is left then. What cannot be sent is lost and
/// said; a collector that is away holds up nobody. `server`: the address that all requests come to, where there is one.
pub async fn export<F: Future<Output = Result<(), String>>>(
    mut records: Receiver<Arc<Record>>,
    server: Option<SocketAddr>,
    send: impl Fn(Vec<u8>) -> F,
) {
    let mut open = true;
    while open {
        let mut batch = Vec::new();
        open = gather(&mut records, &mut batch).await;
        if batch.is_empty() {
            continue;
        }
        let message = message(&batch, server).to_string();
        if let Err(why) = send(message.into_bytes()).await {
            warn!(spans = batch.len(), why, "spans could not be sent");
        }
    }
}

/// Waits for a first record and, a while, for others. Says whether more may come.
async fn gather(records: &mut Receiver<Arc<Record>>, batch: &mut Vec<Arc<Record>>) -> bool {
    let mut until = None;
    while batch.len() < BATCH {
        let next = match until {
            None => records.recv().await,
            Some(until) => match timeout_at(until, records.recv()).await {
                Ok(next) => next,
                Err(_) => return true,
            },
        };
        match next {
            Ok(record) => {
                until.get_or_insert_with(|| Instant::now() + WAIT);
                batch.push(record);
            }
            Err(RecvError::Lagged(missed)) => warn!(missed, "spans were lost"),
            Err(RecvError::Closed) => return false,
        }
    }
    true
}

/// An `ExportTraceServiceRequest`.
fn message(records: &[Arc<Record>], server: Option<SocketAddr>) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let spans = records.iter().zip(0u64..).map(|(one, at)| span(one, at, server));
    let spans: Vec<Value> = spans.collect();
    let service = json!([text("service.name", "tieline"), text("service.version", version)]);
    json!({ "resourceSpans": [{
        "resource": { "attributes": service },
        "scopeSpans": [{ "scope": { "name": "tieline", "version": version }, "spans": spans }],
    }] })
}

fn span(record: &Record, at: u64, server: Option<SocketAddr>) -> Value {
    let (trace, parent) = record.trace_parent.as_deref().and_then(parse).unzip();
    let begin_ns = u128::from(record.at_unix_ms) * 1_000_000;
    let end_ns = begin_ns + u128::from(record.total_us) * 1000;
    let failed = record.outcome == Outcome::Failed;
    json!({
        "traceId": trace.unwrap_or_else(|| hash(&record.id, 0) + &hash(&record.id, 1)),
        "spanId": hash(&record.id, 2 + (at << 1) + record.total_us),
        "parentSpanId": parent.unwrap_or_default(),
        "name": format!("{} {}", operation(record.operation), requested(record)),
        // A server's.
        "kind": 2,
        "startTimeUnixNano": begin_ns.to_string(),
        "endTimeUnixNano": end_ns.to_string(),
        "attributes": attributes(record, server),
        "status": if failed { json!({ "code": 2 }) } else { json!({}) },
    })
}

fn attributes(record: &Record, server: Option<SocketAddr>) -> Vec<Value> {
    let mut all = vec![
        text("gen_ai.operation.name", operation(record.operation)),
        text("gen_ai.provider.name", PROVIDER),
        text("gen_ai.request.model", requested(record)),
        text("gen_ai.response.id", &record.id),
        text("tieline.dialect", record.dialect),
        text("tieline.reason", record.decision.reason),
        text("tieline.outcome", record.outcome.as_str()),
    ];
    all.extend(asked_for(&record.asked_for));
    all.extend(answered(record).map(|model| text("gen_ai.response.model", model)));
    all.extend(record.finish.map(|reason| {
        let reasons = json!({ "values": [{ "stringValue": reason }] });
        json!({ "key": "gen_ai.response.finish_reasons", "value": { "arrayValue": reasons } })
    }));
    if let Some(server) = server {
        all.push(text("server.address", &server.ip().to_canonical().to_string()));
        all.push(int("server.port", server.port().into()));
    }
    if let Some(digest) = record.digest {
        all.push(text("tieline.model.digest", &digest.to_string()));
    }
    if let Some(error) = &record.error {
        all.push(text("error.type", error));
    }
    if let Some(first_us) = record.first_token_us {
        // Exact enough: a double holds days of microseconds.
        #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
        let seconds = first_us as f64 / 1e6;
        all.push(double("gen_ai.response.time_to_first_chunk", seconds));
    }
    if let Some(usage) = record.usage {
        for (name, tokens) in [
            ("gen_ai.usage.input_tokens", usage.prompt_tokens),
            ("gen_ai.usage.output_tokens", usage.completion_tokens),
            ("gen_ai.usage.cache_read.input_tokens", usage.cached_tokens),
            ("gen_ai.usage.cache_creation.input_tokens", usage.cache_write_tokens),
            ("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens),
        ] {
            all.push(int(name, tokens.0));
        }
    }
    all
}

/// The settings of a request that were chosen. Texts that end an answer are text of the request: they stay out.
fn asked_for(asked_for: &AskedFor) -> Vec<Value> {
    let AskedFor { max_tokens, top_k, seed, streams, json, .. } = *asked_for;
    let integers = [
        ("gen_ai.request.max_tokens", max_tokens.map(|tokens| tokens.0)),
        ("gen_ai.request.top_k", top_k),
        ("gen_ai.request.seed", seed),
    ];
    let numbers = [
        ("gen_ai.request.temperature", asked_for.temperature),
        ("gen_ai.request.top_p", asked_for.top_p),
        ("gen_ai.request.frequency_penalty", asked_for.frequency_penalty),
        ("gen_ai.request.presence_penalty", asked_for.presence_penalty),
    ];
    let mut all: Vec<Value> =
        integers.into_iter().filter_map(|(key, value)| Some(int(key, value?))).collect();
    all.extend(numbers.into_iter().filter_map(|(key, value)| Some(double(key, plain(value?)))));
    all.extend(streams.map(
        |streams| json!({ "key": "gen_ai.request.stream", "value": { "boolValue": streams } }),
    ));
    all.extend(json.then(|| text("gen_ai.output.type", "json")));
    all
}

/// A number as people write it: 0.8 and not 0.800000011920929.
fn plain(value: f32) -> f64 {
    value.to_string().parse().unwrap_or_else(|_| value.into())
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// OTLP's JSON writes integers of 64 bits as texts.
fn int(key: &str, value: u32) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn double(key: &str, value: f64) -> Value {
    json!({ "key": key, "value": { "doubleValue": value } })
}

/// Eight bytes as hex digits, never all zero: that is no id.
fn hash(id: &str, salt: u64) -> String {
    let mut hasher = DefaultHasher::new();
    (id, salt).hash(&mut hasher);
    format!("{:016x}", hasher.finish().max(1))
}

/// The trace and the caller's span of a `traceparent` of W3C; `None` where it is none.
fn parse(text: &str) -> Option<(String, String)> {
    let mut parts = text.split('-');
    let (version, trace, span) = (parts.next()?, parts.next()?, parts.next()?);
    let hex = |part: &str, len: usize| {
        part.len() == len
            && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
            && part.bytes().any(|byte| byte != b'0')
    };
    let known = version.len() == 2 && version != "ff" && hex(trace, 32) && hex(span, 16);
    known.then(|| (trace.to_owned(), span.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(traceparent: &str, want: Option<(&str, &str)>) {
        let parsed = parse(traceparent);
        let parsed = parsed.as_ref().map(|(trace, span)| (trace.as_str(), span.as_str()));
        assert_eq!(parsed, want, "{traceparent}");
    }

    #[test]
    fn a_callers_trace_is_gone_on_with_where_it_is_one() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        check(&format!("00-{trace}-{span}-01"), Some((trace, span)));
        check(&format!("00-{trace}-{span}"), Some((trace, span)));
        check(&format!("ff-{trace}-{span}-01"), None);
        check(&format!("00-{}-{span}-01", "0".repeat(32)), None);
        check(&format!("00-{trace}-{}-01", "0".repeat(16)), None);
        check(&format!("00-{}-{span}-01", trace.to_uppercase()), None);
        check("", None);
        check("00-x-y-z", None);
    }

    #[test]
    fn ids_have_their_length_and_differ() {
        assert_eq!(hash("a", 0).len(), 16);
        assert_ne!(hash("a", 0), hash("a", 1));
        assert_ne!(hash("a", 0), hash("b", 0));
    }
}
