//! The page of the server API, made of its OpenAPI document, which the tests hold against the answers.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{begun, cell, code, table};
use crate::protocol::api::OPENAPI;

/// Where the document keeps its schemas.
const SCHEMAS: &str = "#/components/schemas/";

/// Makes the page.
pub(super) fn page() -> String {
    let mut out = begun(
        "api",
        "Methods of the server API",
        "This page lets you look up every method of the server API: what it takes, and what it answers.",
    );
    out.push_str(
        "How requests are made, and what errors look like, is in [server API](../api.md).\n\
         Types with a name of their own are at the end.\n",
    );
    // It is part of the program: what it lacks shows up as a page without that.
    let document: Value = serde_json::from_str(OPENAPI).unwrap_or_default();
    let mut named = BTreeSet::new();
    for (path, item) in members(&document["paths"]) {
        let post = &item["post"];
        out.push_str(&format!(
            "\n## `POST {path}`\n\n{}.\n",
            ended(&post["summary"])
        ));
        if let Some(more) = post["description"].as_str() {
            out.push_str(&format!("{more}\n"));
        }
        let body = &post["requestBody"]["content"]["application/json"];
        part(&mut out, &document, "Request", &body["schema"], &mut named);
        if body["example"].is_object() {
            out.push_str(&format!("\n```json\n{}\n```\n", body["example"]));
        }
        let answer = &post["responses"]["200"]["content"]["application/json"]["schema"];
        let result = match &answer["properties"]["result"] {
            Value::Null => answer,
            result => result,
        };
        part(&mut out, &document, "Result", result, &mut named);
    }
    let mut shown = BTreeSet::new();
    out.push_str("\n## Types\n");
    // A type may name others.
    while let Some(name) = named.difference(&shown).next().cloned() {
        let schema = &document["components"]["schemas"][&name];
        out.push_str(&format!("\n### {name}\n"));
        if let Some(text) = schema["description"].as_str() {
            out.push_str(&format!("\n{}.\n", text.trim_end_matches('.')));
        }
        fields(&mut out, &document, schema, &mut named);
        shown.insert(name);
    }
    out
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn ended(text: &Value) -> &str {
    text.as_str().unwrap_or_default().trim_end_matches('.')
}

/// Name of a schema that is meant by reference.
fn reference(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix(SCHEMAS)
}

fn part(
    out: &mut String,
    document: &Value,
    title: &str,
    schema: &Value,
    named: &mut BTreeSet<String>,
) {
    let whole = match reference(schema) {
        Some(name) => &document["components"]["schemas"][name],
        None => schema,
    };
    let is_empty = whole["properties"].as_object().is_none_or(Map::is_empty);
    if is_empty {
        out.push_str(&format!("\n{title}: no fields.\n"));
        return;
    }
    out.push_str(&format!("\n{title}:\n"));
    fields(out, document, whole, named);
}

fn fields(out: &mut String, document: &Value, schema: &Value, named: &mut BTreeSet<String>) {
    if schema["properties"].as_object().is_none_or(Map::is_empty) {
        return;
    }
    table(out, &["field", "type", "meaning"]);
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    for (name, field) in members(&schema["properties"]) {
        let mut meaning = match (field["description"].as_str(), reference(field)) {
            (Some(text), _) => text.to_owned(),
            (None, Some(name)) => document["components"]["schemas"][name]["description"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            (None, None) => String::new(),
        };
        if required.contains(&name.as_str()) {
            meaning = format!("Needed. {meaning}");
        }
        for (key, words) in [
            ("default", "Default"),
            ("minimum", "At least"),
            ("maximum", "At most"),
            ("enum", "One of"),
        ] {
            if !field[key].is_null() {
                meaning = format!("{meaning} {words} {}.", code(&field[key].to_string()));
            }
        }
        let kind = kind(field, named);
        out.push_str(&format!(
            "| {} | {kind} | {} |\n",
            code(name),
            cell(&meaning)
        ));
    }
}

/// What a field takes, in words; types with a name lead to their place.
fn kind(field: &Value, named: &mut BTreeSet<String>) -> String {
    if let Some(name) = reference(field) {
        named.insert(name.to_owned());
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(Value::Array(forms)) = field.get("oneOf").or_else(|| field.get("anyOf")) {
        let forms: Vec<String> = forms.iter().map(|form| kind(form, named)).collect();
        return forms.join(" or ");
    }
    match field["type"].as_str() {
        Some("array") => format!("list of {}", kind(&field["items"], named)),
        Some("object") if field["additionalProperties"].is_object() => {
            format!("object of {}", kind(&field["additionalProperties"], named))
        }
        Some("string") if field["contentEncoding"] == "base64" => "base64".to_owned(),
        Some(kind) => kind.to_owned(),
        None => "any JSON value".to_owned(),
    }
}
