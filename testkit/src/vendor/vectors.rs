//! Vectors of texts, in three dialects: each follows from its text, so that a test can tell which belongs to which.

use serde_json::{Value, json};

use super::{Fault, Script};

/// How many numbers a vector has, where nobody asks for another length.
const LENGTH: usize = 8;

/// The vector of a text, of length 1.
pub fn vector(text: &str, length: usize) -> Vec<f32> {
    let mut state = text
        .bytes()
        .fold(2_166_136_261_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(16_777_619));
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from(u16::try_from(state >> 16).unwrap_or(0)) / 65_536.0 - 0.5
    };
    let mut vector: Vec<f32> = (0..length).map(|_| next()).collect();
    let norm = vector.iter().map(|number| number * number).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|number| *number /= norm);
    vector
}

/// The vectors of these texts, with what is to be wrong about them.
fn vectors(script: &Script, texts: &[String], length: Option<u64>) -> Vec<Vec<f32>> {
    let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(LENGTH);
    let mut all: Vec<Vec<f32>> = texts.iter().map(|text| vector(text, length)).collect();
    match (&script.fault, all.last_mut()) {
        (Fault::VectorMissing, _) => all.truncate(texts.len().saturating_sub(1)),
        (Fault::VectorShort, Some(last)) => last.truncate(length - 1),
        (Fault::VectorLong, _) => all.iter_mut().for_each(|one| one.resize(70_000, 0.0)),
        (Fault::VectorNan, Some(last)) => last[0] = f32::NAN,
        _ => {}
    }
    all
}

fn texts<'a>(all: impl Iterator<Item = &'a Value>) -> Vec<String> {
    all.map(|text| text.as_str().unwrap_or_default().to_owned()).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Numbers; what is none is one beyond all that there are.
fn numbers(vector: &[f32]) -> Value {
    let number = |number: &f32| match number.is_nan() {
        true => json!(1e300),
        false => json!(number),
    };
    vector.iter().map(number).collect()
}

pub(super) fn openai(script: &Script, asked: &Value) -> Value {
    let length = asked["dimensions"].as_u64().or_else(|| asked["output_dimension"].as_u64());
    let all = vectors(script, &texts(list(&asked["input"])), length);
    let base64 = asked["encoding_format"] == "base64";
    let entry = |(index, vector): (usize, Vec<f32>)| {
        let index = if script.fault == Fault::VectorTwice { 0 } else { index };
        let embedding = if base64 { base64_of(&vector).into() } else { numbers(&vector) };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    };
    // Their numbers tell their order, not their places.
    let data: Vec<Value> = all.into_iter().enumerate().map(entry).rev().collect();
    let mut body = json!({ "object": "list", "data": data, "model": "mock" });
    if let Some(told) = script.told() {
        let prompt = match script.fault {
            Fault::NegativeUsage => json!(-7),
            _ => json!(told.prompt),
        };
        body["usage"] = json!({ "prompt_tokens": prompt, "total_tokens": prompt });
    }
    body
}

/// How well a text answers a query: it follows from both.
pub fn score(query: &str, text: &str) -> f32 {
    let pairs = vector(query, LENGTH).into_iter().zip(vector(text, LENGTH));
    pairs.map(|(one, other)| one * other).sum()
}

/// Scores, the best first, as vendors write them.
pub(super) fn rerank(script: &Script, asked: &Value) -> Value {
    let query = asked["query"].as_str().unwrap_or_default();
    let said = texts(list(&asked["documents"]));
    let mut scores: Vec<(usize, f32)> =
        said.iter().map(|text| score(query, text)).enumerate().collect();
    scores.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    match (&script.fault, scores.last_mut()) {
        (Fault::VectorMissing, _) => drop(scores.pop()),
        (Fault::VectorTwice, Some(last)) => last.0 = usize::from(last.0 == 0),
        (Fault::VectorNan, Some(last)) => last.1 = f32::NAN,
        _ => {}
    }
    let entry = |(index, score): &(usize, f32)| {
        json!({ "index": index, "relevance_score": numbers(&[*score])[0],
            "document": { "text": said[*index] } })
    };
    let results: Vec<Value> = scores.iter().map(entry).collect();
    let mut body = json!({ "id": "mock", "model": "mock", "results": results });
    if let Some(told) = script.told() {
        body["usage"] = json!({ "total_tokens": told.prompt });
    }
    body
}

pub(super) fn gemini(script: &Script, asked: &Value) -> Value {
    let requests: Vec<&Value> = list(&asked["requests"]).collect();
    let length = requests.first().and_then(|one| one["outputDimensionality"].as_u64());
    let said = texts(requests.iter().map(|one| &one["content"]["parts"][0]["text"]));
    let all = vectors(script, &said, length);
    let values: Vec<Value> =
        all.iter().map(|vector| json!({ "values": numbers(vector) })).collect();
    let mut body = json!({ "embeddings": values });
    if let Some(told) = script.told() {
        body["usageMetadata"] = json!({ "promptTokenCount": told.prompt });
    }
    body
}

pub(super) fn ollama(script: &Script, asked: &Value) -> Value {
    let all = vectors(script, &texts(list(&asked["input"])), asked["dimensions"].as_u64());
    let values: Vec<Value> = all.iter().map(|vector| numbers(vector)).collect();
    let mut body = json!({ "model": "mock", "embeddings": values, "total_duration": 1 });
    if let Some(told) = script.told() {
        body["prompt_eval_count"] = told.prompt.into();
    }
    body
}

/// The bytes of the numbers, the least significant first.
fn base64_of(vector: &[f32]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let mut three = [0; 3];
        three[..group.len()].copy_from_slice(group);
        let [a, b, c] = three.map(u32::from);
        let bits = a << 16 | b << 8 | c;
        for place in 0..4 {
            let letter = usize::try_from(bits >> (18 - 6 * place) & 63).unwrap_or(0);
            let there = place <= group.len();
            text.push(if there { char::from(LETTERS[letter]) } else { '=' });
        }
    }
    text
}
