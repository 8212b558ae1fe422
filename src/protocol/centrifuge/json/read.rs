//! Reads objects field by field, the way clients and services may write them (`spec/centrifuge.md` §2.1):
//! names match without regard to case, `null` counts as absent, unknown fields are skipped, payloads stay raw.
//!
//! Nothing here recurses with the input: skipped and raw values are scanned by a loop, and every object that is
//! looked into has a depth of its own, fixed by its type.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

/// An object whose fields are known by name.
pub(in crate::protocol) trait Object<'de>: Default {
    /// Reads the value of `name` (in lower case) out of `map`. False: no such field, nothing was read.
    fn read<A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error>;

    /// Adds the names of the fields, where they are listed by [`fields`].
    fn names(_out: &mut Vec<&'static str>) {}
}

/// Adds the names of the fields of the object that a field is.
pub(in crate::protocol) fn names_of<'de, O, T: Object<'de>>(
    _field: fn(&O) -> &T,
    out: &mut Vec<&'static str>,
) {
    T::names(out);
}

/// What a field may hold.
pub(in crate::protocol) trait Value<'de>: Sized {
    /// Reads the value that follows a name.
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error>;
}

/// Reads the value that follows a name.
pub(in crate::protocol) fn value<'de, V: Value<'de>, A: MapAccess<'de>>(
    map: &mut A,
) -> Result<V, A::Error> {
    V::read(map)
}

/// `impl Object` for a struct over `'de`: wire name => field; names it does not know go to the field after `..`.
macro_rules! fields {
    ($object:ty { $($name:literal => $field:ident),+ $(, .. $others:ident)? $(,)? }) => {
        impl<'de> $crate::protocol::centrifuge::json::read::Object<'de> for $object {
            fn read<A: serde::de::MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<bool, A::Error> {
                match name {
                    $($name => self.$field = $crate::protocol::centrifuge::json::read::value(map)?,)+
                    _ => {
                        $(if self.$others.read(name, map)? {
                            return Ok(true);
                        })?
                        return Ok(false);
                    }
                }
                Ok(true)
            }

            fn names(out: &mut Vec<&'static str>) {
                out.extend([$($name),+]);
                $($crate::protocol::centrifuge::json::read::names_of(|object: &Self| &object.$others, out);)?
            }
        }
    };
}
pub(in crate::protocol) use fields;

/// An object, or `None` for `null`.
pub(in crate::protocol) struct Part<T>(pub(in crate::protocol) Option<T>);

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
        while let Some(Name(name)) = map.next_key()? {
            if !object.read(&name, &mut map)? {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Part(Some(object)))
    }
}

impl<'de, T: Object<'de>> Value<'de> for Option<T> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<Part<T>>()?.0)
    }
}

/// A field name in lower case.
struct Name<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(mut name) = Text::deserialize(deserializer)?;
        if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            name.to_mut().make_ascii_lowercase();
        }
        Ok(Self(name))
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
        Ok(map.next_value::<Text<'de>>()?.0)
    }
}

/// Text that may be absent, where absent and empty differ.
impl<'de> Value<'de> for Option<Cow<'de, str>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<Option<Text<'de>>>()?.map(|text| text.0))
    }
}

/// One JSON value as it stands, `null` included; never empty.
impl<'de> Value<'de> for &'de [u8] {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<&'de RawValue>()?.get().as_bytes())
    }
}

/// Numbers and flags: the type's own reader, or zero for `null`.
macro_rules! plain {
    ($($type:ty),+) => {
        $(impl<'de> Value<'de> for $type {
            fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
                Ok(map.next_value::<Option<$type>>()?.unwrap_or_default())
            }
        })+
    };
}
plain!(bool, u32, u64, i32, i64);

impl<'de> Value<'de> for Vec<Cow<'de, str>> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        let texts = map
            .next_value::<Option<Vec<Text<'de>>>>()?
            .unwrap_or_default();
        Ok(texts.into_iter().map(|text| text.0).collect())
    }
}

/// A map, in the sender's order; a name that is sent twice is in it twice.
impl<'de, V: Value<'de>> Value<'de> for Vec<(Cow<'de, str>, V)> {
    fn read<A: MapAccess<'de>>(map: &mut A) -> Result<Self, A::Error> {
        Ok(map.next_value::<Entries<'de, V>>()?.0)
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
            entries.push((key, V::read(&mut map)?));
        }
        Ok(entries)
    }
}

/// Reads the first JSON value of `text`; what follows it is not looked at.
pub(in crate::protocol) fn first<'de, T: Deserialize<'de>>(
    text: &'de str,
) -> serde_json::Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_str(text))
}
