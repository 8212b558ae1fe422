//! A whole payload as a tree, for who checks all of it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::{Malformed, step};

/// Reads a payload in which every reader sees the same: a member that stands twice, a number or a text that no tree can hold is an error.
///
/// # Errors
/// It is no such payload, or none at all.
pub fn tree(payload: &[u8]) -> Result<Value, Malformed> {
    let mut reader = serde_json::Deserializer::from_slice(payload);
    let value = Tree.deserialize(&mut reader)?;
    reader.end()?;
    Ok(value)
}

struct Tree;

impl<'de> DeserializeSeed<'de> for Tree {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(Self)?;
            if object.contains_key(&name) {
                let name = step(&name);
                return Err(A::Error::custom(format_args!("{name}: stands there twice")));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_readers_differ_about_is_an_error() {
        for payload in [
            r#"{"n":1,"n":1}"#,
            r#"{"a":[{"n":1,"\u006e":2}]}"#,
            r#"{"n":"\ud800"}"#,
            r#"{"n":1e999}"#,
            "{} {}",
            "",
        ] {
            assert!(tree(payload.as_bytes()).is_err(), "{payload}");
        }
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert!(tree(deep.as_bytes()).is_err());
        assert!(tree(b"\"\xff\"").is_err());
        let error = tree(br#"{"n":1,"n":1}"#).expect_err("twice").to_string();
        assert_eq!(error, "n: stands there twice");
    }

    #[test]
    fn everything_else_is_the_tree_of_serde() {
        let payload =
            br#" {"a":[1,-2,1.5,true,null,"x\n"],"b":{"c":{}},"n":18446744073709551615} "#;
        assert_eq!(
            tree(payload),
            Ok(serde_json::from_slice(payload).expect("JSON"))
        );
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let _ = tree(&bytes);
        }
    }
}
