//! Which keywords hold subschemas, and walks over them: `title` within `properties` is a property.

use serde_json::Value;

/// What a keyword's value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A note for people: it may change.
    Free,
    /// The address that references start from: it may change at the root only.
    Base,
    /// A plain value whose change is judged.
    Judged,
    /// One subschema, or several in a list.
    One,
    /// Subschemas in a list.
    Many,
    /// Subschemas by name.
    Named,
    /// Anything else.
    Unknown,
}

pub(super) fn shape(keyword: &str) -> Shape {
    match keyword {
        "title" | "description" | "default" | "example" | "examples" | "$comment"
        | "deprecated" | "readOnly" | "writeOnly" => Shape::Free,
        "$id" | "id" => Shape::Base,
        "type" | "enum" | "const" | "minimum" | "maximum" | "exclusiveMinimum"
        | "exclusiveMaximum" | "multipleOf" | "minLength" | "maxLength" | "minItems"
        | "maxItems" | "minProperties" | "maxProperties" | "minContains" | "maxContains"
        | "pattern" | "format" | "contentMediaType" | "contentEncoding" | "uniqueItems"
        | "required" | "dependentRequired" | "$ref" => Shape::Judged,
        "additionalProperties"
        | "propertyNames"
        | "items"
        | "additionalItems"
        | "contains"
        | "not"
        | "if"
        | "then"
        | "else"
        | "unevaluatedProperties"
        | "unevaluatedItems" => Shape::One,
        "contentSchema" => Shape::Free,
        "allOf" | "anyOf" | "oneOf" | "prefixItems" => Shape::Many,
        "properties" | "patternProperties" | "dependentSchemas" | "dependencies" | "$defs"
        | "definitions" => Shape::Named,
        _ if keyword.starts_with("x-") => Shape::Free,
        _ => Shape::Unknown,
    }
}

/// Do two schemas differ in notes only?
pub(super) fn same(old: &Value, new: &Value) -> bool {
    let (Value::Object(old), Value::Object(new)) = (old, new) else {
        return old == new;
    };
    let matters = |(keyword, _): &(&String, &Value)| shape(keyword) != Shape::Free;
    let count = |schema: &serde_json::Map<String, Value>| schema.iter().filter(matters).count();
    count(old) == count(new)
        && old.iter().filter(matters).all(|(keyword, before)| {
            new.get(keyword)
                .is_some_and(|now| same_part(keyword, before, now))
        })
}

/// The same for the value of one keyword.
pub(super) fn same_part(keyword: &str, old: &Value, new: &Value) -> bool {
    let each = |old: &[Value], new: &[Value]| {
        old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
    };
    match (shape(keyword), old, new) {
        (Shape::One | Shape::Many, Value::Array(old), Value::Array(new)) => each(old, new),
        (Shape::One, old, new) => same(old, new),
        (Shape::Named, Value::Object(old), Value::Object(new)) => {
            old.len() == new.len()
                && old
                    .iter()
                    .all(|(name, old)| new.get(name).is_some_and(|new| same(old, new)))
        }
        _ => old == new,
    }
}

/// The first keyword, anywhere, that `wanted` says yes to: its pointer and name.
pub(super) fn find(
    schema: &Value,
    wanted: &mut impl FnMut(&str, &Value) -> bool,
) -> Option<(String, String)> {
    let object = schema.as_object()?;
    for (keyword, value) in object {
        if wanted(keyword, value) {
            return Some((format!("/{}", escaped(keyword)), keyword.clone()));
        }
        let below = match (shape(keyword), value) {
            (Shape::One | Shape::Many, Value::Array(list)) => {
                list.iter().enumerate().find_map(|(index, one)| {
                    find(one, wanted).map(|(at, found)| (format!("/{index}{at}"), found))
                })
            }
            (Shape::One, one) => find(one, wanted),
            (Shape::Named, Value::Object(map)) => map.iter().find_map(|(name, one)| {
                find(one, wanted).map(|(at, found)| (format!("/{}{at}", escaped(name)), found))
            }),
            _ => None,
        };
        if let Some((at, found)) = below {
            return Some((format!("/{}{at}", escaped(keyword)), found));
        }
    }
    None
}

fn escaped(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

/// Does a reference name its place by names only, so that the place is compared with its own earlier text?
pub(super) fn is_stable(reference: &str) -> bool {
    if reference == "#" {
        return true;
    }
    let Some(pointer) = reference.strip_prefix("#/") else {
        return false;
    };
    let mut segments = pointer.split('/');
    while let Some(keyword) = segments.next() {
        let named = matches!(keyword, "properties" | "$defs" | "definitions");
        if !named || segments.next().is_none() {
            return false;
        }
    }
    true
}

/// Does a reference lead into the root's definitions?
pub(super) fn is_definition(reference: &str) -> bool {
    is_stable(reference)
        && (reference.starts_with("#/$defs/") || reference.starts_with("#/definitions/"))
}
