//! Does a schema accept everything that another one accepts? Conservative: what differs and cannot be judged counts as no.

use serde_json::{Map, Value};

/// What says nothing about payloads.
const ANNOTATIONS: [&str; 11] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$anchor",
];
/// Levels that are looked at.
const DEPTH_MAX: usize = 64;

/// `Err` says which rule of `new` might refuse what `old` accepted.
pub(super) fn accepts_all(old: &Value, new: &Value) -> Result<(), String> {
    schema(old, new, "", 0)
}

fn schema(old: &Value, new: &Value, at: &str, depth: usize) -> Result<(), String> {
    if old == new || *new == Value::Bool(true) || *old == Value::Bool(false) {
        return Ok(());
    }
    if depth > DEPTH_MAX {
        return Err(format!("`{at}` is too deep to be compared"));
    }
    let empty = Map::new();
    let old = match old {
        Value::Object(old) => old,
        Value::Bool(true) => &empty,
        _ => return Err(format!("`{at}` cannot be compared")),
    };
    let Value::Object(new) = new else {
        return Err(format!("`{at}` accepts nothing any more"));
    };
    let keys = old
        .keys()
        .chain(new.keys().filter(|key| !old.contains_key(*key)));
    for key in keys {
        if ANNOTATIONS.contains(&key.as_str()) {
            continue;
        }
        keyword(key, old, new, at, depth)?;
    }
    Ok(())
}

fn keyword(
    key: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    at: &str,
    depth: usize,
) -> Result<(), String> {
    let path = format!("{at}/{key}");
    let (before, after) = (old.get(key), new.get(key));
    if before == after {
        return Ok(());
    }
    let Some(after) = after else {
        return gone(key, &path);
    };
    match key {
        "type" => types(before, after, &path),
        "required" => subset(after, before, &path),
        "enum" => match before {
            Some(before) => subset(before, Some(after), &path),
            None => Err(format!("`{path}` is new")),
        },
        "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" => {
            bound(before, after, &path, |before, after| after <= before)
        }
        "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties" => {
            bound(before, after, &path, |before, after| after >= before)
        }
        "uniqueItems" if *after == Value::Bool(false) => Ok(()),
        "properties" | "$defs" | "definitions" => members(before, after, old, &path, depth),
        "items" | "additionalProperties" | "additionalItems" | "contains" | "propertyNames" => {
            let before = before.unwrap_or(&Value::Bool(true));
            schema(before, after, &path, depth + 1)
        }
        "allOf" | "anyOf" | "prefixItems" => lists(key, before, after, &path, depth),
        _ => Err(format!("`{path}` is new or differs")),
    }
}

/// A rule that is gone refuses nothing, but what others refer to or depend on.
fn gone(key: &str, path: &str) -> Result<(), String> {
    match key {
        "anyOf"
        | "oneOf"
        | "allOf"
        | "not"
        | "if"
        | "then"
        | "else"
        | "type"
        | "required"
        | "enum"
        | "const"
        | "minimum"
        | "maximum"
        | "exclusiveMinimum"
        | "exclusiveMaximum"
        | "minLength"
        | "maxLength"
        | "pattern"
        | "format"
        | "multipleOf"
        | "minItems"
        | "maxItems"
        | "uniqueItems"
        | "contains"
        | "minProperties"
        | "maxProperties"
        | "propertyNames"
        | "items"
        | "additionalProperties" => Ok(()),
        // Without these, `additionalProperties` and `items` speak of more than before.
        _ => Err(format!("`{path}` is gone")),
    }
}

fn types(before: Option<&Value>, after: &Value, path: &str) -> Result<(), String> {
    let list = |value: &Value| -> Vec<String> {
        match value {
            Value::String(one) => vec![one.clone()],
            Value::Array(many) => many
                .iter()
                .filter_map(|one| one.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        }
    };
    let Some(before) = before else {
        return Err(format!("`{path}` is new"));
    };
    let after = list(after);
    let fits = |one: &String| {
        after.contains(one) || one == "integer" && after.iter().any(|other| other == "number")
    };
    match list(before).iter().find(|one| !fits(one)) {
        None => Ok(()),
        Some(lost) => Err(format!("`{path}` no longer allows {lost}")),
    }
}

/// Every member of `small` is one of `large`.
fn subset(small: &Value, large: Option<&Value>, path: &str) -> Result<(), String> {
    let none = Vec::new();
    let large = large.and_then(Value::as_array).unwrap_or(&none);
    let Some(small) = small.as_array() else {
        return Err(format!("`{path}` cannot be compared"));
    };
    match small.iter().find(|one| !large.contains(one)) {
        None => Ok(()),
        Some(one) => Err(format!("`{path}` differs by {one}")),
    }
}

fn bound(
    before: Option<&Value>,
    after: &Value,
    path: &str,
    is_wider: impl Fn(f64, f64) -> bool,
) -> Result<(), String> {
    let before = before.and_then(Value::as_f64);
    match (before, after.as_f64()) {
        (Some(before), Some(after)) if is_wider(before, after) => Ok(()),
        (None, _) => Err(format!("`{path}` is new")),
        _ => Err(format!("`{path}` is narrower")),
    }
}

fn members(
    before: Option<&Value>,
    after: &Value,
    old: &Map<String, Value>,
    path: &str,
    depth: usize,
) -> Result<(), String> {
    let empty = Map::new();
    let before = before.and_then(Value::as_object).unwrap_or(&empty);
    let Some(after) = after.as_object() else {
        return Err(format!("`{path}` cannot be compared"));
    };
    let is_definitions = !path.ends_with("/properties");
    if let Some(name) = before.keys().find(|name| !after.contains_key(*name)) {
        return Err(format!("`{path}/{name}` is gone"));
    }
    for (name, new) in after {
        let path = format!("{path}/{name}");
        match before.get(name) {
            Some(old) => schema(old, new, &path, depth + 1)?,
            None if is_definitions => {}
            // Until now, this member was whatever `additionalProperties` says.
            None => {
                let rest = old
                    .get("additionalProperties")
                    .unwrap_or(&Value::Bool(true));
                schema(rest, new, &path, depth + 1)?;
            }
        }
    }
    Ok(())
}

fn lists(
    key: &str,
    before: Option<&Value>,
    after: &Value,
    path: &str,
    depth: usize,
) -> Result<(), String> {
    let (Some(before), Some(after)) = (before.and_then(Value::as_array), after.as_array()) else {
        return Err(format!("`{path}` is new"));
    };
    // One more alternative is fine, one more demand is not.
    let fits = match key {
        "anyOf" => after.len() >= before.len(),
        _ => after.len() == before.len(),
    };
    if !fits {
        return Err(format!("`{path}` has another number of members"));
    }
    for (at, (old, new)) in before.iter().zip(after).enumerate() {
        schema(old, new, &format!("{path}/{at}"), depth + 1)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn wider_schemas_are_compatible_and_narrower_ones_are_not() {
        let pairs = [
            (json!({ "type": "integer" }), json!({ "type": "number" })),
            (
                json!({ "type": "string" }),
                json!({ "type": ["string", "null"] }),
            ),
            (
                json!({ "required": ["a", "b"] }),
                json!({ "required": ["a"] }),
            ),
            (json!({ "enum": [1] }), json!({ "enum": [1, 2] })),
            (json!({ "minimum": 2 }), json!({ "minimum": 1 })),
            (json!({ "maxLength": 5 }), json!({ "maxLength": 6 })),
            (json!({ "pattern": "a" }), json!({})),
            (json!({ "additionalProperties": false }), json!({})),
            (
                json!({ "properties": { "a": { "minimum": 2 } } }),
                json!({ "properties": { "a": { "minimum": 1 } } }),
            ),
            (
                json!({ "properties": {}, "additionalProperties": false }),
                json!({ "properties": { "a": { "type": "string" } }, "additionalProperties": false }),
            ),
            (
                json!({ "items": { "type": "integer" } }),
                json!({ "items": {} }),
            ),
            (
                json!({ "anyOf": [{ "type": "null" }] }),
                json!({ "anyOf": [{ "type": "null" }, {}] }),
            ),
            (json!({ "const": 1 }), json!({})),
        ];
        for (narrow, wide) in pairs {
            assert_eq!(accepts_all(&narrow, &wide), Ok(()), "{narrow} to {wide}");
            assert!(accepts_all(&wide, &narrow).is_err(), "{wide} to {narrow}");
        }
    }

    #[test]
    fn annotations_may_change_and_what_cannot_be_judged_may_not() {
        let old = json!({ "title": "a", "oneOf": [{ "type": "null" }] });
        assert_eq!(
            accepts_all(
                &old,
                &json!({ "title": "b", "oneOf": [{ "type": "null" }] })
            ),
            Ok(())
        );
        let new = json!({ "oneOf": [{ "type": "null" }, { "type": "string" }] });
        let rule = accepts_all(&old, &new).unwrap_err();
        assert!(rule.contains("/oneOf"), "{rule}");
        let new_member = json!({ "properties": { "a": { "type": "string" } } });
        let rule = accepts_all(&json!({}), &new_member).unwrap_err();
        assert!(rule.contains("/properties/a/type"), "{rule}");
    }
}
