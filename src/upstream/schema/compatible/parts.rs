//! Parts of schemas in the form in which they are compared.

use serde_json::{Map, Value};

use super::shape::{Shape, shape};

type Object = Map<String, Value>;

/// Accepts everything for certain.
pub(super) fn is_trivial(schema: &Value) -> bool {
    match schema {
        Value::Bool(accepts) => *accepts,
        Value::Object(object) => object.keys().all(|key| shape(key) == Shape::Free),
        _ => false,
    }
}

/// Accepts nothing.
pub(super) fn is_false(schema: &Value) -> bool {
    *schema == Value::Bool(false)
}

pub(super) fn list<'a>(schema: &'a Object, keyword: &str) -> &'a [Value] {
    match schema.get(keyword) {
        Some(Value::Array(list)) => list,
        _ => &[],
    }
}

/// Names in `required` and its like.
pub(super) fn property_names(list: Option<&Value>) -> Vec<&str> {
    let list = list.and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn types(value: &Value) -> Vec<&str> {
    match value {
        Value::String(one) => vec![one],
        other => property_names(Some(other)),
    }
}

/// Each of the old types is among the new ones.
pub(super) fn types_within(old: &Value, new: &Value) -> bool {
    let new = types(new);
    types(old)
        .iter()
        .all(|one| new.contains(one) || (*one == "integer" && new.contains(&"number")))
}

/// The values that a schema accepts at most, if it lists them.
pub(super) fn finite(schema: &Object) -> Option<Vec<&Value>> {
    if let Some(one) = schema.get("const") {
        return Some(vec![one]);
    }
    let list = schema.get("enum")?.as_array()?;
    Some(list.iter().collect())
}

pub(super) fn in_set(set: &Value, value: &Value) -> bool {
    set.as_array().is_some_and(|set| set.contains(value))
}

/// Is no value accepted by two of these, for certain?
pub(super) fn all_apart(branches: &[Value]) -> bool {
    branches.iter().enumerate().all(|(index, one)| {
        branches[index + 1..]
            .iter()
            .all(|other| match (one.as_object(), other.as_object()) {
                (Some(one), Some(other)) => apart(one, other),
                _ => is_false(one) || is_false(other),
            })
    })
}

/// By type, by value, or by the value of a property that both are told apart by.
fn apart(one: &Object, other: &Object) -> bool {
    // What stands beside a reference may be without effect.
    if one.contains_key("$ref") || other.contains_key("$ref") {
        return false;
    }
    if let (Some(one), Some(other)) = (one.get("type"), other.get("type")) {
        let meets = |a: &str, b: &str| {
            a == b || matches!((a, b), ("integer", "number") | ("number", "integer"))
        };
        let (one, other) = (types(one), types(other));
        if !one.iter().any(|a| other.iter().any(|b| meets(a, b))) {
            return true;
        }
    }
    if let (Some(one), Some(other)) = (finite(one), finite(other))
        && strings_apart(&one, &other)
    {
        return true;
    }
    let is_object = |schema: &Object| schema.get("type").is_some_and(|of| types(of) == ["object"]);
    if !is_object(one) || !is_object(other) {
        return false;
    }
    let needed = property_names(other.get("required"));
    property_names(one.get("required")).iter().any(|name| {
        let values = |schema: &Object| -> Option<Vec<Value>> {
            let property = schema.get("properties")?.get(*name)?.as_object()?;
            // What stands beside a reference may be without effect.
            let plain = !property.contains_key("$ref");
            let values = finite(property).filter(|_| plain)?;
            Some(values.into_iter().cloned().collect())
        };
        needed.contains(name)
            && match (values(one), values(other)) {
                (Some(one), Some(other)) => strings_apart(
                    &one.iter().collect::<Vec<_>>(),
                    &other.iter().collect::<Vec<_>>(),
                ),
                _ => false,
            }
    })
}

/// Strings have one form each: numbers may be the same in two.
fn strings_apart(one: &[&Value], other: &[&Value]) -> bool {
    let all_strings = one.iter().chain(other).all(|value| value.is_string());
    all_strings && !one.iter().any(|value| other.contains(value))
}

/// The rules of an array's items in one form for all dialects: the first ones each, then the rest.
pub(super) struct Tuple<'a> {
    pub first: &'a [Value],
    pub first_keyword: &'static str,
    pub rest: &'a Value,
    pub rest_keyword: &'static str,
}

impl<'a> Tuple<'a> {
    pub(super) fn of(schema: &'a Object) -> Self {
        const ANY: &Value = &Value::Bool(true);
        if let Some(Value::Array(first)) = schema.get("items") {
            return Self {
                first,
                first_keyword: "items",
                rest: schema.get("additionalItems").unwrap_or(ANY),
                rest_keyword: "additionalItems",
            };
        }
        Self {
            first: list(schema, "prefixItems"),
            first_keyword: "prefixItems",
            rest: schema.get("items").unwrap_or(ANY),
            rest_keyword: "items",
        }
    }

    pub(super) fn item(&self, index: usize) -> &'a Value {
        self.first.get(index).unwrap_or(self.rest)
    }
}

/// Bounds on numbers and counts.
pub(super) mod bounds {
    use std::cmp::Ordering;

    use serde_json::{Number, Value};

    use super::Object;

    /// Counts, and whether each is a least one.
    pub(in super::super) const COUNTS: &[(&str, bool)] = &[
        ("minLength", true),
        ("maxLength", false),
        ("minItems", true),
        ("maxItems", false),
        ("minProperties", true),
        ("maxProperties", false),
    ];

    /// Exact, or `None`.
    fn order(one: &Number, other: &Number) -> Option<Ordering> {
        let whole = |number: &Number| {
            let signed = number.as_i64().map(i128::from);
            signed.or_else(|| number.as_u64().map(i128::from))
        };
        const EXACT: i128 = 1 << 53;
        match (whole(one), whole(other)) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            (Some(whole), None) | (None, Some(whole)) if whole.abs() > EXACT => None,
            _ => one.as_f64()?.partial_cmp(&other.as_f64()?),
        }
    }

    fn compared(one: Option<&Value>, other: &Value) -> Option<Ordering> {
        match (one?, other) {
            (Value::Number(one), Value::Number(other)) => order(one, other),
            _ => None,
        }
    }

    pub(in super::super) fn count_fits(
        old: Option<&Value>,
        new: Option<&Value>,
        least: bool,
    ) -> bool {
        let Some(new) = new else {
            return true;
        };
        if least && new.as_u64() == Some(0) {
            return true;
        }
        let wanted = if least {
            Ordering::Greater
        } else {
            Ordering::Less
        };
        compared(old, new).is_some_and(|order| order == wanted || order == Ordering::Equal)
    }

    /// The keyword whose bound is tighter.
    pub(in super::super) fn tighter_range(old: &Object, new: &Object) -> Option<&'static str> {
        let lower = ("minimum", "exclusiveMinimum", Ordering::Greater);
        let upper = ("maximum", "exclusiveMaximum", Ordering::Less);
        for (open, shut, wanted) in [lower, upper] {
            let (old_open, old_shut) = (old.get(open), old.get(shut));
            let (new_open, new_shut) = (new.get(open), new.get(shut));
            if [old_shut, new_shut]
                .into_iter()
                .flatten()
                .any(Value::is_boolean)
            {
                // Draft 4: the second only says how the first is meant.
                let same = old_open == new_open && old_shut == new_shut;
                if !same && new_open.is_some() {
                    return Some(open);
                }
                continue;
            }
            let beyond = |old, new: &Value, equal: bool| {
                compared(old, new)
                    .is_some_and(|order| order == wanted || (equal && order == Ordering::Equal))
            };
            if new_open
                .is_some_and(|new| !beyond(old_open, new, true) && !beyond(old_shut, new, true))
            {
                return Some(open);
            }
            if new_shut
                .is_some_and(|new| !beyond(old_open, new, false) && !beyond(old_shut, new, true))
            {
                return Some(shut);
            }
        }
        None
    }

    /// Every multiple of the old is one of the new.
    pub(in super::super) fn multiple_fits(old: Option<&Value>, new: &Value) -> bool {
        let Some(old) = old else {
            return false;
        };
        old == new
            || matches!((old.as_u64(), new.as_u64()), (Some(old), Some(new)) if new > 0 && old % new == 0)
    }
}
