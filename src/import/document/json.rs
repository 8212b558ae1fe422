//! JSON, with a key that is given twice refused rather than the first one lost.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{Budget, Table, Value, check_depth, insert};

/// Reads one JSON value.
pub(in crate::import) fn read(text: &str) -> Result<Value, String> {
    let mut from = serde_json::Deserializer::from_str(text);
    let mut budget = Budget::new();
    let seed = Node {
        depth: 0,
        budget: &mut budget,
    };
    let value = seed.deserialize(&mut from).map_err(|e| e.to_string())?;
    from.end().map_err(|error| error.to_string())?;
    Ok(value)
}

struct Node<'a> {
    depth: usize,
    budget: &'a mut Budget,
}

impl Node<'_> {
    fn spend<E: Error>(self, value: Value, bytes: usize) -> Result<Value, E> {
        self.budget.spend(bytes).map_err(E::custom)?;
        Ok(value)
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        check_depth(self.depth).map_err(D::Error::custom)?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.spend(Value::Null, 0)
    }

    fn visit_bool<E: Error>(self, boolean: bool) -> Result<Value, E> {
        self.spend(Value::Boolean(boolean), 0)
    }

    fn visit_i64<E: Error>(self, integer: i64) -> Result<Value, E> {
        self.spend(Value::Integer(integer), 0)
    }

    fn visit_u64<E: Error>(self, integer: u64) -> Result<Value, E> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "no key takes a number this large"
        )]
        let value = i64::try_from(integer).map_or(Value::Float(integer as f64), Value::Integer);
        self.spend(value, 0)
    }

    fn visit_f64<E: Error>(self, float: f64) -> Result<Value, E> {
        self.spend(Value::Float(float), 0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.spend(Value::Text(text.to_owned()), text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        self.budget.spend(0).map_err(A::Error::custom)?;
        let mut values = Vec::new();
        while let Some(value) = members.next_element_seed(Node {
            depth: self.depth + 1,
            budget: &mut *self.budget,
        })? {
            values.push(value);
        }
        Ok(Value::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        self.budget.spend(0).map_err(A::Error::custom)?;
        let mut table = Table::new();
        while let Some(key) = fields.next_key::<String>()? {
            self.budget.spend(key.len()).map_err(A::Error::custom)?;
            let value = fields.next_value_seed(Node {
                depth: self.depth + 1,
                budget: &mut *self.budget,
            })?;
            insert(&mut table, &key, value).map_err(A::Error::custom)?;
        }
        Ok(Value::Table(table))
    }
}
