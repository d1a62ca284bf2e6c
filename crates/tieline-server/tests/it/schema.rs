//! JSON schemas, as far as the OpenAPI document uses them: whether a value fits one, and values that do or do not.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

/// So deep do made values go.
const DEEP: usize = 7;

/// The document.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> =
        LazyLock::new(|| serde_json::from_str(&tieline_server::openapi()).unwrap());
    &DOCUMENT
}

/// What a reference means; anything else is itself.
pub(crate) fn resolved(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(reference) => document().pointer(&reference[1..]).unwrap(),
        None => schema,
    }
}

/// Why the value does not fit, and where.
pub(crate) fn misfit(schema: &Value, value: &Value) -> Option<String> {
    let schema = resolved(schema);
    let all = schema["allOf"].as_array().into_iter().flatten();
    let of_all = all.filter_map(|one| misfit(one, value));
    of_all.chain(of_choice(schema, value)).chain(of_itself(schema, value)).next()
}

fn of_choice(schema: &Value, value: &Value) -> Option<String> {
    let choice = schema.get("anyOf").or(schema.get("oneOf"))?.as_array().unwrap();
    let why: Vec<String> =
        choice.iter().map(|one| misfit(one, value)).collect::<Option<Vec<_>>>()?;
    Some(format!("none fits: {}", why.join("; ")))
}

fn of_itself(schema: &Value, value: &Value) -> Option<String> {
    let types = types(schema);
    if !types.is_empty() && !types.iter().any(|name| is_type(name, value)) {
        return Some(format!("{value} is no {types:?}"));
    }
    if schema.get("const").is_some_and(|one| one != value) {
        return Some(format!("{value} is not {}", schema["const"]));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        return Some(format!("{value} is none of {}", schema["enum"]));
    }
    match value {
        Value::Object(members) => of_object(schema, members),
        Value::Array(items) => of_list(schema, items),
        Value::Number(number) => {
            let (least, most) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
            let number = number.as_f64().unwrap();
            let fits =
                least.is_none_or(|least| number >= least) && most.is_none_or(|most| number <= most);
            (!fits).then(|| format!("{number} is not from {least:?} to {most:?}"))
        }
        Value::String(text) => {
            let least = schema["minLength"].as_u64().unwrap_or(0);
            (text.len() < usize::try_from(least).unwrap()).then(|| "a text is too short".to_owned())
        }
        Value::Bool(_) | Value::Null => None,
    }
}

fn of_object(schema: &Value, members: &Map<String, Value>) -> Option<String> {
    let required = schema["required"].as_array().into_iter().flatten();
    let mut missing = required.filter(|name| !members.contains_key(name.as_str().unwrap()));
    if let Some(name) = missing.next() {
        return Some(format!("{name} is missing"));
    }
    members.iter().find_map(|(name, value)| {
        let known = schema["properties"].get(name);
        let schema =
            known.or(schema.get("additionalProperties").filter(|more| more.is_object()))?;
        misfit(schema, value).map(|why| format!("{name}: {why}"))
    })
}

fn of_list(schema: &Value, items: &[Value]) -> Option<String> {
    let least = schema["minItems"].as_u64().unwrap_or(0);
    if items.len() < usize::try_from(least).unwrap() {
        return Some("a list is too short".to_owned());
    }
    items.iter().enumerate().find_map(|(at, item)| {
        let schema = schema["prefixItems"].get(at).or(schema.get("items"))?;
        misfit(schema, item).map(|why| format!("[{at}]: {why}"))
    })
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

/// The members that an object may have, of all forms that it fits.
pub(crate) fn members(schema: &Value) -> Map<String, Value> {
    let schema = resolved(schema);
    let forms = schema["allOf"].as_array().into_iter().flatten().map(members);
    let mut all: Map<String, Value> = forms.flatten().collect();
    // A form that says less of a member does not hide what another says.
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        all.insert(name.clone(), member.clone());
    }
    all
}

/// Values that fit: each word, each kind, both ends of each range, each member of each object.
pub(crate) fn values(schema: &Value) -> Vec<Value> {
    made(schema, DEEP)
}

fn made(schema: &Value, deep: usize) -> Vec<Value> {
    let schema = resolved(schema);
    let Some(deep) = deep.checked_sub(1) else { return Vec::new() };
    if let Some(one) = schema.get("const") {
        return vec![one.clone()];
    }
    if let Some(words) = schema["enum"].as_array() {
        return words.clone();
    }
    let choice = schema.get("anyOf").or(schema.get("oneOf")).and_then(Value::as_array);
    if let (Some(choice), true) = (choice, schema.get("properties").is_none()) {
        return choice.iter().flat_map(|one| made(one, deep)).collect();
    }
    let types = types(schema);
    if types.is_empty() {
        return vec![json!("x"), json!({ "x": 1 })];
    }
    types.iter().flat_map(|name| of_type(name, schema, deep)).collect()
}

fn of_type(name: &str, schema: &Value, deep: usize) -> Vec<Value> {
    match name {
        "null" => vec![Value::Null],
        "boolean" => vec![json!(true), json!(false)],
        "string" => vec![text(schema)],
        "integer" => {
            let ends = ["minimum", "maximum"].map(|end| schema[end].clone());
            let ends = ends.into_iter().filter(|end| end.is_i64() || end.is_u64());
            ends.chain([json!(1)]).collect()
        }
        "number" => {
            let ends = ["minimum", "maximum"].map(|end| schema[end].clone());
            ends.into_iter().filter(Value::is_number).chain([json!(1)]).collect()
        }
        "array" => lists(schema, deep),
        "object" => objects(schema, deep),
        other => panic!("no type {other}"),
    }
}

fn text(schema: &Value) -> Value {
    if schema["contentEncoding"] == "base64" {
        // The first bytes of a PNG.
        return json!("iVBORw0KGgo=");
    }
    match schema["pattern"].as_str() {
        Some(pattern) if pattern.contains("ms|s|m|h") => json!("5m"),
        _ => json!("x"),
    }
}

fn lists(schema: &Value, deep: usize) -> Vec<Value> {
    if let Some(items) = schema["prefixItems"].as_array() {
        let firsts: Option<Vec<Value>> =
            items.iter().map(|item| made(item, deep).first().cloned()).collect();
        return firsts.map(Value::Array).into_iter().collect();
    }
    let empty = schema["minItems"].as_u64().unwrap_or(0) == 0;
    let one = made(&schema["items"], deep).into_iter().map(|item| json!([item]));
    empty.then(|| json!([])).into_iter().chain(one).collect()
}

fn objects(schema: &Value, deep: usize) -> Vec<Value> {
    let base = least(schema, deep);
    let Some(base) = base else { return Vec::new() };
    let with = |name: &String, value: Value| {
        let mut object = base.clone();
        object.insert(name.clone(), value);
        Value::Object(object)
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    let each = properties
        .flat_map(|(name, member)| made(member, deep).into_iter().map(move |value| (name, value)))
        .map(|(name, value)| with(name, value));
    let more = schema.get("additionalProperties").filter(|more| more.is_object());
    let more = more.into_iter().flat_map(|more| made(more, deep));
    let others = more.map(|value| with(&"1".to_owned(), value));
    [Value::Object(base.clone())].into_iter().chain(each).chain(others).collect()
}

/// An object of what must be there.
fn least(schema: &Value, deep: usize) -> Option<Map<String, Value>> {
    let required = schema["required"].as_array().into_iter().flatten();
    required
        .map(|name| {
            let name = name.as_str().unwrap();
            let values = made(&schema["properties"][name], deep);
            // An empty list or text is seldom what is meant.
            let filled = values.iter().find(|value| **value != json!([]));
            Some((name.to_owned(), filled?.clone()))
        })
        .collect()
}

/// Values that do not fit, each in one place.
pub(crate) fn misfits(schema: &Value) -> Vec<Value> {
    let others = [json!({ "x": [true] }), json!([[true]]), json!("x"), json!(7), json!(true)];
    let mut all: Vec<Value> = others.into_iter().collect();
    all.extend(spoiled(schema, DEEP));
    all.retain(|value| misfit(schema, value).is_some());
    all
}

/// What fits but for one member somewhere within.
fn spoiled(schema: &Value, deep: usize) -> Vec<Value> {
    let schema = resolved(schema);
    let Some(deep) = deep.checked_sub(1) else { return Vec::new() };
    if schema.get("properties").is_some() {
        let Some(base) = least(schema, deep) else { return Vec::new() };
        let wrong = |member: &Value| {
            let mut wrong = vec![json!({ "x": [true] }), json!([[true]]), json!(7)];
            wrong.retain(|value| misfit(member, value).is_some());
            wrong.truncate(1);
            wrong.extend(spoiled(member, deep));
            wrong
        };
        let members = schema["properties"].as_object().into_iter().flatten();
        let each = members.flat_map(|(name, member)| {
            let base = &base;
            wrong(member).into_iter().map(move |value| {
                let mut object = base.clone();
                object.insert(name.clone(), value);
                Value::Object(object)
            })
        });
        return each.collect();
    }
    if let Some(items) = schema.get("items") {
        return spoiled(items, deep).into_iter().map(|item| json!([item])).collect();
    }
    let choice = ["anyOf", "oneOf"].map(|name| schema[name].as_array());
    choice.into_iter().flatten().flatten().flat_map(|one| spoiled(one, deep)).collect()
}
