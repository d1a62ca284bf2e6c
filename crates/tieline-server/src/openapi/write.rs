//! Writes the document.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::errors;
use crate::routes::{Dialect, Guard, Route};

/// The document of these routes.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    let mut sorted: Vec<&Route> = routes.iter().collect();
    sorted.sort_by_key(|route| (route.path, route.method.to_string()));
    for route in sorted {
        let methods = paths.entry(path(route.path)).or_insert_with(|| json!({}));
        let method = route.method.as_str().to_ascii_lowercase();
        methods[method] = operation(route, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
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
    let parameters = parameters(route.path);
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some(schema) = body(route, generator) {
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

/// A name that no other route has, from method and path.
fn id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join("_");
    format!("{}_{words}", route.method.as_str().to_ascii_lowercase())
}

fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter = |name: &str| {
        json!({
            "name": name.trim_start_matches('*'),
            "in": "path",
            "required": true,
            "schema": { "type": "string", "minLength": 1 },
        })
    };
    names.map(parameter).collect()
}

/// What the body looks like. One that nobody described is some JSON object.
fn body(route: &Route, generator: &mut SchemaGenerator) -> Option<Value> {
    let forms: Vec<Value> =
        route.bodies.iter().map(|describe| describe(generator).to_value()).collect();
    match forms.as_slice() {
        [] if matches!(route.method.as_str(), "GET" | "HEAD" | "DELETE") => None,
        [] => Some(json!({ "type": "object" })),
        [form] => Some(form.clone()),
        forms => Some(json!({ "allOf": forms })),
    }
}

fn responses(route: &Route) -> Value {
    let mut content = json!({ "application/json": {} });
    if let Some(media) = route.streams {
        content[media] = json!({});
    }
    let error = json!({ "$ref": format!("#/components/schemas/{}", errors::name(route.dialect)) });
    json!({
        "200": { "description": "Done.", "content": content },
        "default": {
            "description": "Refused or failed.",
            "content": { "application/json": { "schema": error } },
        },
    })
}
