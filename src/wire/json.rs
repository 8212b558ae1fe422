//! JSON from others, read member by member. Every door that takes JSON reads it here: what clients and services send, what backends
//! answer, what tokens say, what is asked of the log. What goes out is written by `write`.
//!
//! A member that is `null` is one that is not there. What else differs from door to door is its [`Rules`]. A payload stays raw: it is
//! looked into by conditions only (`lookup`), and its `null` is a value like any other.
//!
//! An error says which member and what belongs there, never what was found. Nothing here recurses with the input: skipped and raw
//! values are scanned by a loop, and every object that is looked into has a depth of its own, fixed by its type.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

mod depth;
pub mod lookup;
#[cfg(test)]
pub(crate) mod null;
mod text;
mod tree;
pub mod write;

pub use depth::{is_deeper, is_json_deeper};
pub use text::{compact, is_json};
pub use tree::tree;

/// Letters of a name or a path that an error shows.
const SHOWN_CHARS: usize = 64;

/// How the members of an object are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// As the reference reads them: names without regard to case, of a repeated name the last, unknown names skipped.
    Lenient,
    /// What somebody has signed: names as they are written, none twice, unknown names skipped.
    Signed,
    /// What this program alone defines: names as they are written, none twice, none that is not known.
    Own,
}

/// What is wrong with a text: which member, and what belongs there. It never holds a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Malformed {
    text: Box<str>,
    is_syntax: bool,
}

impl Malformed {
    /// Not UTF-8.
    pub(crate) fn not_utf8() -> Self {
        Self {
            text: "not UTF-8".into(),
            is_syntax: true,
        }
    }

    /// A member is not what it must be.
    pub(crate) fn member(path: &str, what: &str) -> Self {
        Self {
            text: format!("{path}: {what}").into(),
            is_syntax: false,
        }
    }

    /// The text is no JSON, or not UTF-8, as a whole.
    #[must_use]
    pub const fn is_syntax(&self) -> bool {
        self.is_syntax
    }

    /// The same as an error within something larger, which goes on with the path.
    pub(crate) fn as_part(&self) -> String {
        if self.is_syntax || self.text.starts_with("expected ") {
            format!(": {}", self.text)
        } else {
            format!(".{}", self.text)
        }
    }

    #[cfg(feature = "server")]
    /// The same, of one entry in a member whose names are data.
    pub(crate) fn of(&self, member: &str, name: &str) -> Self {
        self.within(&format!("{member}{}", step(name)))
    }

    /// The same, in a member of something larger.
    pub(crate) fn within(&self, path: &str) -> Self {
        Self {
            text: format!("{path}{}", self.as_part()).into(),
            is_syntax: false,
        }
    }
}

impl From<serde_json::Error> for Malformed {
    fn from(error: serde_json::Error) -> Self {
        let text = error.to_string();
        if !is_located(&text) {
            let is_syntax = !is_mismatch(&text);
            let text = if is_syntax {
                format!("not JSON: {text}")
            } else {
                "expected an object".to_owned()
            };
            return Self {
                text: text.into(),
                is_syntax,
            };
        }
        let end = text.rfind(" at line ").unwrap_or(text.len());
        let text = text[..end].trim_start_matches(['.', ':', ' ']);
        Self {
            text: text.into(),
            is_syntax: false,
        }
    }
}

/// Reads one object and nothing behind it; `null` is one without members.
pub(crate) fn object<'de, T: Object<'de>>(bytes: &'de [u8]) -> Result<T, Malformed> {
    let text = simdutf8::basic::from_utf8(bytes).map_err(|_| Malformed::not_utf8())?;
    let Part(object) = serde_json::from_str::<Part<T>>(text)?;
    Ok(object.unwrap_or_default())
}

/// An error that a member's reader has made: it begins with the way to the member.
fn is_located(text: &str) -> bool {
    text.starts_with(['.', '[', ':'])
}

/// An error of serde's own about a value that is JSON: it may hold the value.
fn is_mismatch(text: &str) -> bool {
    let kinds = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown ",
        "missing ",
        "duplicate ",
        "number out of range",
    ];
    kinds.iter().any(|kind| text.starts_with(kind))
}

/// Says what belongs there, in place of what was found.
#[cold]
pub(crate) fn expected<E: Error>(what: &str, error: E) -> E {
    let text = error.to_string();
    if is_located(&text) || !is_mismatch(&text) {
        return error;
    }
    E::custom(format_args!(": expected {what}"))
}

/// Says in which member an error is.
#[cold]
pub(crate) fn within<E: Error>(step: &str, error: &E) -> E {
    let text = error.to_string();
    if is_located(&text) {
        E::custom(format_args!("{step}{text}"))
    } else if is_mismatch(&text) {
        E::custom(format_args!("{step}: expected an object"))
    } else {
        E::custom(format_args!("{step}: {text}"))
    }
}

/// A member as a step of a path: `.name`, or `["any text"]`.
fn step(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if !name.is_empty() && name.len() <= SHOWN_CHARS && name.bytes().all(is_plain) {
        format!(".{name}")
    } else {
        format!("[\"{}\"]", shown(name))
    }
}

/// A name of somebody else's choice, for people.
fn shown(name: &str) -> String {
    let mut text: String = name
        .chars()
        .take(SHOWN_CHARS)
        .flat_map(char::escape_debug)
        .collect();
    if name.chars().nth(SHOWN_CHARS).is_some() {
        text.push('…');
    }
    text
}

/// The known name that looks most like an unknown one: at most every third letter differs.
fn nearest(known: &[&'static str], unknown: &str) -> Option<&'static str> {
    if unknown.len() > SHOWN_CHARS {
        return None;
    }
    let distance = |name: &str| strsim::osa_distance(name, unknown);
    let best = known.iter().copied().min_by_key(|name| distance(name))?;
    (distance(best) <= (best.len().max(unknown.len()) / 3).max(1)).then_some(best)
}

/// What is said of a member that nobody knows.
#[cold]
pub(crate) fn unknown_member<'de, T: Object<'de>>(name: &str) -> Box<str> {
    let mut known = Vec::new();
    T::names(&mut known);
    let name = step(name);
    let name = name.trim_start_matches('.');
    let text = match nearest(&known, name) {
        Some(near) => format!("{name}: unknown, did you mean `{near}`?"),
        None if known.is_empty() => format!("{name}: unknown, nothing may stand here"),
        None => format!("{name}: unknown, known are {}", known.join(", ")),
    };
    text.into()
}

/// An object whose fields are known by name.
pub(crate) trait Object<'de>: Default {
    /// How they are read.
    const RULES: Rules = Rules::Lenient;

    /// Reads the value of `name` (in lower case where case does not count) out of `map`. False: no such field, nothing was read.
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;

    /// A member that nobody knows is passed over.
    fn skip(&mut self, _name: &str) {}

    /// Adds the names of the fields, where they are listed by [`fields`].
    fn names(_out: &mut Vec<&'static str>) {}
}

/// Adds the names of the fields of the object that a field is.
pub(crate) fn names_of<'de, O, T: Object<'de>>(_field: fn(&O) -> &T, out: &mut Vec<&'static str>) {
    T::names(out);
}

/// What a field may hold.
pub(crate) trait Value<'de>: Sized {
    /// Reads the value that follows a name.
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error>;
}

/// Reads the value that follows a name.
pub(crate) fn value<'de, V: Value<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<V, A::Error> {
    V::read(map)
}

/// `impl Object` for a struct over `'de`: wire name => field; names it does not know go to the field after `..`, and what
/// is wrong with the first of those that nobody knows to the one after `else`. `@Own` or `@Signed` before the struct names its rules.
macro_rules! fields {
    (@$rules:ident $object:ty { $($members:tt)* }) => {
        $crate::wire::json::fields!(@@$rules, $object, $($members)*);
    };
    (@@$rules:ident, $object:ty, $($name:literal => $field:ident),+ $(, .. $others:ident)? $(, else $unknown:ident)? $(,)?) => {
        impl<'de> $crate::wire::json::Object<'de> for $object {
            const RULES: $crate::wire::json::Rules = $crate::wire::json::Rules::$rules;

            fn read<A: serde::de::MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
                match name {
                    $($name => self.$field = $crate::wire::json::value(map)?,)+
                    _ => {
                        $(if $crate::wire::json::Object::read(&mut self.$others, name, map)? {
                            return Ok(true);
                        })?
                        return Ok(false);
                    }
                }
                Ok(true)
            }

            $(fn skip(&mut self, name: &str) {
                if self.$unknown.is_none() {
                    self.$unknown = Some($crate::wire::json::unknown_member::<Self>(name));
                }
            })?

            fn names(out: &mut Vec<&'static str>) {
                out.extend([$($name),+]);
                $($crate::wire::json::names_of(|object: &Self| &object.$others, out);)?
            }
        }
    };
    ($object:ty { $($members:tt)* }) => {
        $crate::wire::json::fields!(@@Lenient, $object, $($members)*);
    };
}
pub(crate) use fields;

/// An object, or `None` for `null`.
pub(crate) struct Part<T>(pub(crate) Option<T>);

impl<'de, T: Object<'de>> Deserialize<'de> for Part<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PartVisitor(PhantomData))
    }
}

struct PartVisitor<T>(PhantomData<T>);

impl<'de, T: Object<'de>> Visitor<'de> for PartVisitor<T> {
    type Value = Part<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Part(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut object = T::default();
        let mut seen = BTreeSet::new();
        while let Some(Text(mut name)) = map.next_key()? {
            if T::RULES == Rules::Lenient {
                if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
                    name.to_mut().make_ascii_lowercase();
                }
            } else if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format_args!(
                    "{}: stands here twice",
                    step(&name)
                )));
            }
            let read = object
                .read(&name, &mut map)
                .map_err(|error| within(&step(&name), &error))?;
            if read {
                continue;
            }
            if T::RULES == Rules::Own {
                let text = unknown_member::<T>(&name);
                let joint = if text.starts_with('[') { "" } else { "." };
                return Err(A::Error::custom(format_args!("{joint}{text}")));
            }
            map.next_value::<IgnoredAny>()?;
            object.skip(&name);
        }
        Ok(Part(Some(object)))
    }
}

impl<'de, T: Object<'de>> Value<'de> for Option<T> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let part = map.next_value::<Part<T>>();
        Ok(part.map_err(|error| expected("an object", error))?.0)
    }
}

/// A string; empty for `null`. Borrowed unless it has escapes.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor).map(Self)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(""))
    }
}

impl<'de> Value<'de> for Cow<'de, str> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let text = map.next_value::<Text<'de>>();
        Ok(text.map_err(|error| expected("a string", error))?.0)
    }
}

/// Text that may be absent, where absent and empty differ.
impl<'de> Value<'de> for Option<Cow<'de, str>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let text = map.next_value::<Option<Text<'de>>>();
        Ok(text
            .map_err(|error| expected("a string", error))?
            .map(|text| text.0))
    }
}

/// One JSON value as it stands, `null` included; never empty.
impl<'de> Value<'de> for &'de [u8] {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<&'de RawValue>()?.get().as_bytes())
    }
}

impl<'de> Value<'de> for Cow<'de, [u8]> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        value::<&'de [u8], A>(map).map(Cow::Borrowed)
    }
}

/// The same where `null` is no payload.
impl<'de> Value<'de> for Option<&'de RawValue> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        map.next_value()
    }
}

/// Numbers and flags: the type's own reader, or zero for `null`; as options they tell zero from absent.
macro_rules! plain {
    ($($type:ty: $what:literal),+ $(,)?) => {
        $(impl<'de> Value<'de> for $type {
            fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
                Ok(value::<Option<$type>, A>(map)?.unwrap_or_default())
            }
        }

        impl<'de> Value<'de> for Option<$type> {
            fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
                map.next_value().map_err(|error| expected($what, error))
            }
        })+
    };
}
plain!(
    bool: "true or false",
    u32: "a whole number from 0 to 4294967295",
    u64: "a whole number from 0",
    usize: "a whole number from 0",
    i32: "a whole number of 32 bits",
    i64: "a whole number",
    f64: "a number",
);

impl<'de> Value<'de> for Option<Box<str>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(value::<Option<Cow<'de, str>>, A>(map)?.map(Into::into))
    }
}

impl<'de> Value<'de> for Box<str> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(value::<Cow<'de, str>, A>(map)?.into())
    }
}

/// A member of a list that is `null` is an empty text: lists are answered place by place.
impl<'de> Value<'de> for Vec<Cow<'de, str>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(value::<Option<Self>, A>(map)?.unwrap_or_default())
    }
}

impl<'de> Value<'de> for Option<Vec<Cow<'de, str>>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let texts = map
            .next_value::<Option<Vec<Text<'de>>>>()
            .map_err(|error| expected("a list of strings", error))?;
        Ok(texts.map(|texts| texts.into_iter().map(|text| text.0).collect()))
    }
}

/// A list of names: `null` in it names nothing.
impl<'de> Value<'de> for Vec<Option<Cow<'de, str>>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let texts = map
            .next_value::<Option<Vec<Option<Text<'de>>>>>()
            .map_err(|error| expected("a list of strings", error))?
            .unwrap_or_default();
        let text = |text: Option<Text<'de>>| text.map(|text| text.0);
        Ok(texts.into_iter().map(text).collect())
    }
}

impl<'de> Value<'de> for Option<Vec<Box<str>>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let texts: Option<Vec<Cow<'de, str>>> = value(map)?;
        Ok(texts.map(|texts| texts.into_iter().map(Into::into).collect()))
    }
}

impl<'de> Value<'de> for Vec<Box<str>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(value::<Option<Self>, A>(map)?.unwrap_or_default())
    }
}

impl<'de> Value<'de> for Vec<u64> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let numbers = map
            .next_value::<Option<Self>>()
            .map_err(|error| expected("a list of whole numbers from 0", error))?;
        Ok(numbers.unwrap_or_default())
    }
}

/// A map whose names are data, in the sender's order: a name that is sent twice is in it twice, and one with `null` counts with an
/// empty value.
impl<'de, V: Value<'de>> Value<'de> for Vec<(Cow<'de, str>, V)> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let entries = map.next_value::<Entries<'de, V>>();
        Ok(entries.map_err(|error| expected("an object", error))?.0)
    }
}

struct Entries<'de, V>(Vec<(Cow<'de, str>, V)>);

impl<'de, V: Value<'de>> Deserialize<'de> for Entries<'de, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_any(EntriesVisitor(PhantomData))
            .map(Self)
    }
}

struct EntriesVisitor<V>(PhantomData<V>);

impl<'de, V: Value<'de>> Visitor<'de> for EntriesVisitor<V> {
    type Value = Vec<(Cow<'de, str>, V)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(Text(key)) = map.next_key()? {
            let read = V::read(&mut map);
            let value = read.map_err(|error| within(&step(&key), &error))?;
            entries.push((key, value));
        }
        Ok(entries)
    }
}

/// Reads the first JSON value of `text`; what follows it is not looked at.
pub(crate) fn first<'de, T: Deserialize<'de>>(text: &'de str) -> serde_json::Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_str(text))
}
