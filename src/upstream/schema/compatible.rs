//! Does a schema accept everything that an earlier one accepted?
//!
//! The answer is yes only where that follows from the structure; whatever differs and cannot be judged is a no.
//! Subschemas are compared in pairs. A reference is judged by its text: what it names is compared in its own place.

use serde_json::{Map, Value};

use self::parts::{Tuple, bounds, finite, in_set, is_false, is_trivial, property_names};
use self::shape::{Shape, shape};
use crate::limits::SCHEMA_COMPARISONS_MAX;

mod parts;
mod shape;

/// Where a schema accepts less than the earlier one, or may do so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("incompatible at `{pointer}`: {rule}")]
pub struct Narrowed {
    /// Where in the new text, a JSON pointer.
    pub pointer: Box<str>,
    /// What it breaks.
    pub rule: Narrowing,
}

/// How a schema accepts less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Narrowing {
    /// `false` where something was accepted.
    #[error("nothing is accepted any more")]
    Nothing,
    /// `type`
    #[error("a type is no longer accepted")]
    Type,
    /// `enum`, `const`
    #[error("a value is no longer accepted")]
    Value,
    /// Numbers, lengths, counts, `multipleOf`.
    #[error("the bound is tighter")]
    Bound,
    /// `required`, `dependentRequired`
    #[error("a property is required that was optional")]
    Required,
    /// A property that was free.
    #[error("a property is restricted that could hold anything")]
    Property,
    /// `pattern`, `format` and other rules that are there or not.
    #[error("the rule is new, or another one")]
    Rule,
    /// `allOf`, `anyOf`, `oneOf`
    #[error("what an earlier branch accepted is not accepted for certain")]
    Branch,
    /// `$schema`
    #[error("the dialect is another one")]
    Dialect,
    /// `$ref` and what it leads to.
    #[error("a reference, or what it leads to, is another one")]
    Reference,
    /// A keyword whose change has no known effect.
    #[error("the change cannot be judged")]
    Unknown,
    /// Too much to compare.
    #[error("the texts are too complicated to be compared")]
    Complicated,
    /// What is remembered is not JSON.
    #[error("the earlier text cannot be read")]
    Unreadable,
}

impl Narrowed {
    pub(super) fn unreadable() -> Self {
        Self {
            pointer: "".into(),
            rule: Narrowing::Unreadable,
        }
    }
}

/// # Errors
/// The first place where `new` may refuse what `old` accepts.
pub fn compare(old: &Value, new: &Value) -> Result<(), Narrowed> {
    if shape::same(old, new) {
        return Ok(());
    }
    let mut judge = Judge {
        old,
        new,
        path: Vec::new(),
        comparisons: 0,
    };
    judge.dialect()?;
    judge.references()?;
    judge.schema(old, new)
}

struct Judge<'a> {
    /// The whole texts.
    old: &'a Value,
    new: &'a Value,
    path: Vec<String>,
    comparisons: u32,
}

type Judged = Result<(), Narrowed>;
type Object = Map<String, Value>;

impl Judge<'_> {
    fn no(&self, keyword: &str, rule: Narrowing) -> Narrowed {
        let mut pointer = String::new();
        let last = (!keyword.is_empty()).then_some(keyword);
        for segment in self.path.iter().map(String::as_str).chain(last) {
            pointer.push('/');
            pointer.push_str(&segment.replace('~', "~0").replace('/', "~1"));
        }
        Narrowed {
            pointer: pointer.into(),
            rule,
        }
    }

    fn no_property(&mut self, name: &str) -> Narrowed {
        self.path.push("properties".to_owned());
        let narrowed = self.no(name, Narrowing::Property);
        self.path.pop();
        narrowed
    }

    fn require(&self, fits: bool, keyword: &str, rule: Narrowing) -> Judged {
        fits.then_some(()).ok_or_else(|| self.no(keyword, rule))
    }

    fn at(&mut self, segments: &[&str], old: &Value, new: &Value) -> Judged {
        let depth = self.path.len();
        self.path.extend(segments.iter().map(|&one| one.to_owned()));
        let judged = self.schema(old, new);
        self.path.truncate(depth);
        judged
    }

    fn dialect(&self) -> Judged {
        let same = self.old.get("$schema") == self.new.get("$schema");
        self.require(same, "$schema", Narrowing::Dialect)
    }

    /// Rules on what no other rule has seen depend on everything beside them, and references that are not by a stable
    /// name may lead to what is compared with something else.
    fn references(&self) -> Judged {
        let bad = shape::find(self.new, &mut |key, value| match key {
            "unevaluatedProperties" | "unevaluatedItems" => !is_trivial(value),
            "$ref" => !value.as_str().is_some_and(shape::is_stable),
            "$dynamicRef" | "$recursiveRef" => true,
            _ => false,
        });
        match bad {
            None => Ok(()),
            Some((pointer, keyword)) => Err(Narrowed {
                pointer: pointer.into(),
                rule: if keyword.starts_with('$') {
                    Narrowing::Reference
                } else {
                    Narrowing::Unknown
                },
            }),
        }
    }

    fn schema(&mut self, old: &Value, new: &Value) -> Judged {
        self.comparisons += 1;
        self.require(
            self.comparisons <= SCHEMA_COMPARISONS_MAX,
            "",
            Narrowing::Complicated,
        )?;
        if is_trivial(new) || is_false(old) {
            return Ok(());
        }
        let empty = Map::new();
        let old = match old {
            Value::Object(old) => old,
            Value::Bool(true) => &empty,
            _ => return Err(self.no("", Narrowing::Unknown)),
        };
        let Value::Object(new) = new else {
            return Err(self.no("", Narrowing::Nothing));
        };
        self.values(old, new)?;
        self.numbers(old, new)?;
        self.rules(old, new)?;
        self.required(old, new)?;
        self.properties(old, new)?;
        self.items(old, new)?;
        self.contains(old, new)?;
        self.branches(old, new)?;
        self.conditions(old, new)?;
        self.definitions(old, new)?;
        self.others(old, new)
    }

    fn values(&self, old: &Object, new: &Object) -> Judged {
        if let Some(types) = new.get("type") {
            let fits = old
                .get("type")
                .is_some_and(|before| parts::types_within(before, types));
            self.require(fits, "type", Narrowing::Type)?;
        }
        let before = finite(old);
        for (keyword, single) in [("enum", false), ("const", true)] {
            let Some(now) = new.get(keyword) else {
                continue;
            };
            let accepts = |value: &&Value| {
                if single {
                    *value == now
                } else {
                    in_set(now, value)
                }
            };
            let fits = before
                .as_ref()
                .is_some_and(|before| before.iter().all(accepts));
            self.require(fits, keyword, Narrowing::Value)?;
        }
        Ok(())
    }

    fn numbers(&self, old: &Object, new: &Object) -> Judged {
        if let Some(keyword) = bounds::tighter_range(old, new) {
            return Err(self.no(keyword, Narrowing::Bound));
        }
        for (keyword, least) in bounds::COUNTS {
            let fits = bounds::count_fits(old.get(*keyword), new.get(*keyword), *least);
            self.require(fits, keyword, Narrowing::Bound)?;
        }
        if let Some(step) = new.get("multipleOf") {
            let fits = bounds::multiple_fits(old.get("multipleOf"), step);
            self.require(fits, "multipleOf", Narrowing::Bound)?;
        }
        Ok(())
    }

    /// Rules that are there, the same, or not.
    fn rules(&self, old: &Object, new: &Object) -> Judged {
        for keyword in ["pattern", "format", "contentMediaType", "contentEncoding"] {
            let fits = new.get(keyword).is_none() || new.get(keyword) == old.get(keyword);
            self.require(fits, keyword, Narrowing::Rule)?;
        }
        // What is decoded first decides what the media type is asked of.
        let decoded = !new.contains_key("contentMediaType")
            || old.get("contentEncoding") == new.get("contentEncoding");
        self.require(decoded, "contentEncoding", Narrowing::Rule)?;
        let unique = |schema: &Object| schema.get("uniqueItems") == Some(&Value::Bool(true));
        self.require(!unique(new) || unique(old), "uniqueItems", Narrowing::Rule)?;
        // A reference may hide what stands beside it, so taking one away is not less for certain.
        let same = old.get("$ref") == new.get("$ref");
        self.require(same, "$ref", Narrowing::Reference)
    }

    fn required(&self, old: &Object, new: &Object) -> Judged {
        let before = property_names(old.get("required"));
        for name in property_names(new.get("required")) {
            let fits = before.contains(&name);
            self.require(fits, "required", Narrowing::Required)?;
        }
        let Some(Value::Object(dependent)) = new.get("dependentRequired") else {
            return Ok(());
        };
        let earlier = old.get("dependentRequired");
        for (name, needed) in dependent {
            let earlier = property_names(earlier.and_then(|map| map.get(name)));
            let fits = property_names(Some(needed))
                .iter()
                .all(|needed| before.contains(needed) || earlier.contains(needed));
            self.require(fits, "dependentRequired", Narrowing::Required)?;
        }
        Ok(())
    }

    fn properties(&mut self, old: &Object, new: &Object) -> Judged {
        const ANY: &Value = &Value::Bool(true);
        let none = Map::new();
        let map = |schema: &'_ Object, key: &str| match schema.get(key) {
            Some(Value::Object(map)) => map.clone(),
            _ => none.clone(),
        };
        let (named, named_now) = (map(old, "properties"), map(new, "properties"));
        let (matched, matched_now) = (map(old, "patternProperties"), map(new, "patternProperties"));
        let rest = old.get("additionalProperties").unwrap_or(ANY);
        let rest_now = new.get("additionalProperties").unwrap_or(ANY);
        for (name, now) in &named_now {
            if let Some(before) = named.get(name) {
                self.at(&["properties", name], before, now)?;
            } else if matched.is_empty() && !is_trivial(rest) {
                // A name that was not listed held what the rest may hold.
                self.at(&["properties", name], rest, now)?;
            } else if !is_trivial(now) {
                return Err(self.no_property(name));
            }
        }
        for (pattern, now) in &matched_now {
            let before = matched.get(pattern).unwrap_or(ANY);
            self.at(&["patternProperties", pattern], before, now)?;
        }
        if is_trivial(rest_now) {
            return self.names(old, new);
        }
        let unlisted = named
            .iter()
            .filter(|(name, _)| !named_now.contains_key(*name));
        let unmatched = matched
            .iter()
            .filter(|(pattern, _)| !matched_now.contains_key(*pattern));
        for (_, before) in unlisted.chain(unmatched) {
            self.at(&["additionalProperties"], before, rest_now)?;
        }
        self.at(&["additionalProperties"], rest, rest_now)?;
        self.names(old, new)
    }

    fn names(&mut self, old: &Object, new: &Object) -> Judged {
        self.single(old, new, "propertyNames")?;
        let Some(Value::Object(dependent)) = new.get("dependentSchemas") else {
            return Ok(());
        };
        for (name, now) in dependent {
            let before = old.get("dependentSchemas").and_then(|map| map.get(name));
            let before = before.unwrap_or(&Value::Bool(true));
            self.at(&["dependentSchemas", name], before, now)?;
        }
        Ok(())
    }

    /// A subschema whose absence accepts everything.
    fn single(&mut self, old: &Object, new: &Object, keyword: &str) -> Judged {
        let Some(now) = new.get(keyword) else {
            return Ok(());
        };
        let before = old.get(keyword).unwrap_or(&Value::Bool(true));
        self.at(&[keyword], before, now)
    }

    fn items(&mut self, old: &Object, new: &Object) -> Judged {
        let (before, now) = (Tuple::of(old), Tuple::of(new));
        for index in 0..before.first.len().max(now.first.len()) {
            let text = index.to_string();
            let place: &[&str] = if index < now.first.len() {
                &[now.first_keyword, &text]
            } else {
                &[now.rest_keyword]
            };
            self.at(place, before.item(index), now.item(index))?;
        }
        self.at(&[now.rest_keyword], before.rest, now.rest)
    }

    fn contains(&mut self, old: &Object, new: &Object) -> Judged {
        let Some(now) = new.get("contains") else {
            return Ok(());
        };
        let least = |schema: &Object| match schema.get("minContains") {
            None => Some(1),
            Some(count) => count.as_u64(),
        };
        let (least_before, least_now) = (least(old), least(new));
        let most_now = new.get("maxContains");
        if most_now.is_none() && least_now == Some(0) {
            return Ok(());
        }
        let Some(before) = old.get("contains") else {
            return Err(self.no("contains", Narrowing::Rule));
        };
        let fewer = matches!((least_before, least_now), (Some(old), Some(new)) if new <= old);
        self.require(fewer, "minContains", Narrowing::Bound)?;
        if most_now.is_none() {
            return self.at(&["contains"], before, now);
        }
        // With a highest count, matching more is accepting less.
        self.frozen(old, new, "contains")?;
        let fits = bounds::count_fits(old.get("maxContains"), most_now, false);
        self.require(fits, "maxContains", Narrowing::Bound)
    }

    fn branches(&mut self, old: &Object, new: &Object) -> Judged {
        let whole = Value::Object(old.clone());
        for (index, now) in parts::list(new, "allOf").iter().enumerate() {
            let same_place = parts::list(old, "allOf").get(index);
            let fits = parts::list(old, "allOf")
                .iter()
                .chain([&whole])
                .any(|before| self.at(&["allOf"], before, now).is_ok());
            if !fits {
                let before = same_place.unwrap_or(&Value::Bool(true));
                return self.at(&["allOf", &index.to_string()], before, now);
            }
        }
        if new.contains_key("anyOf") {
            self.alternatives(old, new, "anyOf")?;
        }
        if new.contains_key("oneOf") && self.frozen(old, new, "oneOf").is_err() {
            let apart = parts::all_apart(parts::list(new, "oneOf"));
            self.require(apart, "oneOf", Narrowing::Branch)?;
            self.alternatives(old, new, "oneOf")?;
        }
        Ok(())
    }

    /// Each earlier alternative is within one of the new ones, or everything is.
    fn alternatives(&mut self, old: &Object, new: &Object, keyword: &str) -> Judged {
        let now = parts::list(new, keyword);
        let mut failed = None;
        for earlier in ["anyOf", "oneOf"] {
            let before = parts::list(old, earlier);
            let mut all = !before.is_empty();
            for (index, one) in before.iter().enumerate() {
                if now.iter().any(|now| self.at(&[keyword], one, now).is_ok()) {
                    continue;
                }
                all = false;
                if let Some(now) = now.get(index)
                    && before.len() == now_len(new, keyword)
                {
                    let judged = self.at(&[keyword, &index.to_string()], one, now);
                    failed = failed.or(judged.err());
                }
            }
            if all {
                return Ok(());
            }
        }
        let whole = Value::Object(old.clone());
        if now
            .iter()
            .any(|now| self.at(&[keyword], &whole, now).is_ok())
        {
            return Ok(());
        }
        Err(failed.unwrap_or_else(|| self.no(keyword, Narrowing::Branch)))
    }

    fn conditions(&self, old: &Object, new: &Object) -> Judged {
        if new.contains_key("not") {
            self.frozen(old, new, "not")?;
        }
        if new.contains_key("if") && (new.contains_key("then") || new.contains_key("else")) {
            for keyword in ["if", "then", "else"] {
                self.frozen(old, new, keyword)?;
            }
        }
        if new.contains_key("dependencies") {
            self.frozen(old, new, "dependencies")?;
        }
        Ok(())
    }

    /// Where accepting more inside may be accepting less outside, nothing may change: not what references lead to either.
    fn frozen(&self, old: &Object, new: &Object, keyword: &str) -> Judged {
        let same = match (old.get(keyword), new.get(keyword)) {
            (None, None) => return Ok(()),
            (Some(before), Some(now)) => shape::same_part(keyword, before, now),
            (None, Some(_)) | (Some(_), None) => false,
        };
        let rule = match keyword {
            "oneOf" => Narrowing::Branch,
            _ => Narrowing::Unknown,
        };
        self.require(same, keyword, rule)?;
        let part: Object = new
            .get_key_value(keyword)
            .map(|(key, value)| (key.clone(), value.clone()))
            .into_iter()
            .collect();
        let refers = shape::find(&Value::Object(part), &mut |key, _| key == "$ref").is_some();
        let unchanged = !refers || self.definitions_unchanged();
        self.require(unchanged, keyword, Narrowing::Reference)
    }

    fn definitions_unchanged(&self) -> bool {
        let elsewhere = shape::find(self.new, &mut |key, value| {
            key == "$ref" && !value.as_str().is_some_and(shape::is_definition)
        });
        elsewhere.is_none()
            && ["$defs", "definitions"].iter().all(|keyword| {
                match (self.old.get(*keyword), self.new.get(*keyword)) {
                    (Some(before), Some(now)) => shape::same_part(keyword, before, now),
                    (before, now) => before == now,
                }
            })
    }

    fn definitions(&mut self, old: &Object, new: &Object) -> Judged {
        for keyword in ["$defs", "definitions"] {
            let Some(Value::Object(now)) = new.get(keyword) else {
                continue;
            };
            for (name, now) in now {
                if let Some(before) = old.get(keyword).and_then(|map| map.get(name)) {
                    self.at(&[keyword, name], before, now)?;
                }
            }
        }
        Ok(())
    }

    /// Keywords that nothing above has judged.
    fn others(&self, old: &Object, new: &Object) -> Judged {
        for keyword in old.keys().chain(new.keys()) {
            let free = match shape(keyword) {
                Shape::Free | Shape::Judged | Shape::One | Shape::Many | Shape::Named => true,
                Shape::Base => self.path.is_empty(),
                Shape::Unknown => false,
            };
            let same = free || old.get(keyword) == new.get(keyword);
            self.require(same, keyword, Narrowing::Unknown)?;
        }
        Ok(())
    }
}

fn now_len(schema: &Object, keyword: &str) -> usize {
    parts::list(schema, keyword).len()
}

#[cfg(test)]
mod tests;
