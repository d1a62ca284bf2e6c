//! Writes the document.

use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::{answers, errors, shape};
use crate::routes::{Answers, Dialect, Form, Guard, Route};

/// The document of these routes.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.with_transform(RecursiveTransform(complete)).into_generator();
    let mut paths: Map<String, Value> = Map::new();
    let mut sorted: Vec<&Route> = routes.iter().collect();
    sorted.sort_by_key(|route| (route.path, route.method.to_string()));
    for route in sorted {
        let methods = paths.entry(path(route.path)).or_insert_with(|| json!({}));
        let method = route.method.as_str().to_ascii_lowercase();
        methods[method] = operation(route, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.extend(answered(routes));
    for dialect in Dialect::ALL {
        schemas.insert(errors::name(dialect), errors::schema(dialect));
    }
    schemas.sort_keys();
    let key = json!({
        "type": "http",
        "scheme": "bearer",
        "description": "A key, or the admin token of this machine.",
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tieline",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The models of this machine, in the dialects that clients speak.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "paths": paths,
        "components": { "schemas": schemas, "securitySchemes": { "key": key } },
    })
}

/// Writes the upper end of a whole number, which schemars leaves to its format, and no default that says nothing.
fn complete(schema: &mut Schema) {
    if matches!(schema.get("default"), Some(Value::Null))
        || schema.get("default") == Some(&json!(""))
    {
        schema.remove("default");
    }
    let most = match schema.get("format").and_then(Value::as_str) {
        Some("uint32") => json!(u32::MAX),
        Some("int64") => json!(i64::MAX),
        Some("uint" | "uint64") => json!(u64::MAX),
        _ => return,
    };
    schema.ensure_object().entry("maximum").or_insert(most);
}

/// The forms of all answers, and those that they are made of.
fn answered(routes: &[Route]) -> Map<String, Value> {
    use answers::{anthropic, openai};
    let parts = [openai::RESPONSE_ITEM, anthropic::BLOCK, anthropic::MODEL, anthropic::MODELS];
    let of_routes = routes.iter().flat_map(|route| {
        let Answers { json, streams, other, .. } = &route.answers;
        let streamed = streams.and_then(|(_, form)| form);
        json.iter().copied().chain(streamed).chain(other.map(|(_, form)| form))
    });
    let written = |(name, form): Form| (name.to_owned(), shape::schema(&form()));
    of_routes.chain(parts).map(written).collect()
}

/// A path in OpenAPI's words, which know no rest of a path.
fn path(path: &str) -> String {
    path.replace("{*", "{")
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": id(route),
        "tags": [route.dialect.as_str()],
        "x-guard": route.guard.as_str(),
        "security": match route.guard {
            Guard::Open => json!([]),
            Guard::Read | Guard::Infer | Guard::Manage => json!([{ "key": [] }]),
        },
        "responses": responses(route),
    });
    if let Some(about) = route.about {
        operation["summary"] = json!(about);
    }
    let mut parameters = in_path(route.path);
    parameters.extend(in_query(route, generator));
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(content) = body(route, generator) {
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

/// A name that no other route has, from method and path.
fn id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
    format!("{}_{words}", route.method.as_str().to_ascii_lowercase())
}

fn in_path(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        let schema = match name {
            "digest" => json!({ "type": "string", "pattern": "^sha256[:-][0-9a-f]{64}$" }),
            _ => json!({ "type": "string", "minLength": 1 }),
        };
        let name = name.trim_start_matches('*');
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    };
    names.map(parameter).collect()
}

/// A parameter for each member of the query's form. What is absent is not given: none of them is `null`.
fn in_query(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let Some(describe) = route.query else { return Vec::new() };
    let form = describe(generator).to_value();
    let parameter = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        let about = schema.as_object_mut().and_then(|schema| schema.remove("description"));
        without_null(&mut schema);
        let mut parameter = json!({ "name": name, "in": "query", "schema": schema });
        if let Some(about) = about {
            parameter["description"] = about;
        }
        parameter
    };
    form["properties"].as_object().into_iter().flatten().map(parameter).collect()
}

fn without_null(schema: &mut Value) {
    if let [one, Value::String(null)] = schema["type"].as_array().map_or(&[][..], Vec::as_slice)
        && null == "null"
    {
        schema["type"] = one.clone();
    }
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.retain(|word| !word.is_null());
    }
    if let Some(members) = schema.as_object_mut() {
        members.retain(|name, value| name != "default" || !value.is_null());
    }
}

/// What the body looks like, by its media type.
fn body(route: &Route, generator: &mut SchemaGenerator) -> Option<Value> {
    if route.takes_file {
        return Some(json!({ "application/octet-stream": {} }));
    }
    let forms: Vec<Value> =
        route.bodies.iter().map(|describe| describe(generator).to_value()).collect();
    let schema = match forms.as_slice() {
        [] => return None,
        [form] => form.clone(),
        forms => json!({ "allOf": forms }),
    };
    Some(json!({ "application/json": { "schema": schema } }))
}

fn responses(route: &Route) -> Value {
    let answers = &route.answers;
    let of_form = |(name, _): Form| json!({ "schema": { "$ref": reference(name) } });
    let mut responses = json!({});
    let mut content = Map::new();
    if let Some(form) = answers.json {
        content.insert("application/json".to_owned(), of_form(form));
    }
    if let Some((media, form)) = answers.streams {
        content.insert(media.to_owned(), streamed(media, form));
    }
    if !content.is_empty() {
        responses["200"] = json!({ "description": "Done.", "content": content });
    }
    for status in answers.bare {
        responses[status.to_string()] = json!({ "description": "Done." });
    }
    if let Some((status, form)) = answers.other {
        let content = json!({ "application/json": of_form(form) });
        responses[status.to_string()] = json!({ "description": "Not now.", "content": content });
    }
    let content = json!({ "application/json": { "schema": error(route) } });
    responses["default"] = match route.method.as_str() {
        "HEAD" => json!({ "description": "Refused or failed." }),
        _ => json!({ "description": "Refused or failed.", "content": content }),
    };
    responses
}

/// Two dialects have `/v1/models`.
fn error(route: &Route) -> Value {
    let of = |dialect| json!({ "$ref": reference(&errors::name(dialect)) });
    match route.path.starts_with("/v1/models") {
        true => json!({ "anyOf": [of(Dialect::OpenAi), of(Dialect::Anthropic)] }),
        false => of(route.dialect),
    }
}

/// A stream is a text to JSON schema; what its parts are is told beside it, as `itemSchema` of later versions does.
fn streamed(media: &str, form: Option<Form>) -> Value {
    let mut content = json!({ "schema": { "type": "string" } });
    if let Some((name, _)) = form {
        let part = if media == "text/event-stream" { "The data of an event" } else { "A line" };
        content["schema"]["description"] = json!(format!("{part} is a {name}."));
        content["x-item-schema"] = json!({ "$ref": reference(name) });
    }
    content
}

fn reference(name: &str) -> String {
    format!("#/components/schemas/{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_form_of_an_answer_has_a_bodys_name() {
        let table = crate::table::table();
        let mut generator = SchemaSettings::draft2020_12().into_generator();
        for route in &table {
            route.bodies.iter().for_each(|describe| drop(describe(&mut generator)));
        }
        let bodies = generator.take_definitions(false);
        for name in answered(&table).keys() {
            assert!(!bodies.contains_key(name), "{name} is two forms");
        }
        let doubled = bodies.keys().find(|name| name.ends_with(|c: char| c.is_ascii_digit()));
        assert_eq!(doubled, None, "two forms of bodies have one name");
    }
}
