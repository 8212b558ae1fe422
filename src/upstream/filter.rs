//! What a payload must say: `path op value`, joined by ` and `. For replays (`where`) and triggers (`condition`).
//!
//! A path is `total`, `customer.name`, `items[0].id`; a name with other characters stands in double quotes. Operators are
//! `=`, `!=`, `>`, `>=`, `<` and `<=`. A value is a JSON string, number, `true`, `false` or `null`, or a bare word, which is a string. Numbers
//! and strings compare with their own kind; a path that is not there fits only `!=`.

use std::cmp::Ordering;

use serde_json::Value;

/// Bytes of a condition.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Parts joined by `and`.
pub const PARTS_MAX: usize = 16;
/// Steps of a path.
pub const STEPS_MAX: usize = 32;

/// A condition, ready to be compared with payloads.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter(Vec<Part>);

#[derive(Clone, Debug, PartialEq)]
struct Part {
    path: Vec<Step>,
    op: Op,
    value: Value,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Name(String),
    Index(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Different,
    Greater,
    AtLeast,
    Less,
    AtMost,
}

/// Operators, the longer ones first.
const OPS: [(&str, Op); 6] = [
    ("!=", Op::Different),
    (">=", Op::AtLeast),
    ("<=", Op::AtMost),
    ("=", Op::Equal),
    (">", Op::Greater),
    ("<", Op::Less),
];

/// Why a text is no condition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It is too long, or has too many parts or steps.
    #[error(
        "a condition has at most {TEXT_BYTES_MAX} bytes, {PARTS_MAX} parts and {STEPS_MAX} steps in a path"
    )]
    TooLong,
    /// Something else was expected there.
    #[error("expected {expected} at byte {at}")]
    Expected {
        /// What.
        expected: &'static str,
        /// Where in the text, from 0.
        at: usize,
    },
}

impl Filter {
    /// Reads a condition.
    ///
    /// # Errors
    /// It is too long, or something is wrong in it.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(FilterError::TooLong);
        }
        let mut reader = Reader { text, at: 0 };
        let mut parts = Vec::new();
        loop {
            parts.push(reader.part()?);
            if parts.len() > PARTS_MAX {
                return Err(FilterError::TooLong);
            }
            reader.skip_spaces();
            if reader.rest().is_empty() {
                return Ok(Self(parts));
            }
            if !reader.takes("and ") {
                return Err(reader.expected("`and` or the end"));
            }
        }
    }

    /// Does a payload say so? One that is no JSON does not.
    #[must_use]
    pub fn matches(&self, data: &[u8]) -> bool {
        let Ok(payload) = serde_json::from_slice::<Value>(data) else {
            return false;
        };
        self.0.iter().all(|part| part.matches(&payload))
    }
}

impl Part {
    fn matches(&self, payload: &Value) -> bool {
        let found = self
            .path
            .iter()
            .try_fold(payload, |value, step| match step {
                Step::Name(name) => value.get(name),
                Step::Index(index) => match value {
                    Value::Array(list) => list.get(*index),
                    Value::Object(members) => members.get(&index.to_string()),
                    _ => None,
                },
            });
        let Some(found) = found else {
            return self.op == Op::Different;
        };
        let order = compare(found, &self.value);
        match self.op {
            Op::Equal => order == Some(Ordering::Equal),
            Op::Different => order != Some(Ordering::Equal),
            Op::Greater => order == Some(Ordering::Greater),
            Op::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            Op::Less => order == Some(Ordering::Less),
            Op::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        }
    }
}

/// How two values compare; `None` where they do not.
fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => match (left.as_i64(), right.as_i64()) {
            (Some(left), Some(right)) => Some(left.cmp(&right)),
            _ => left.as_f64()?.partial_cmp(&right.as_f64()?),
        },
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (left, right) => (left == right).then_some(Ordering::Equal),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_spaces(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn takes(&mut self, word: &str) -> bool {
        let there = self.rest().starts_with(word);
        if there {
            self.at += word.len();
        }
        there
    }

    const fn expected(&self, expected: &'static str) -> FilterError {
        FilterError::Expected {
            expected,
            at: self.at,
        }
    }

    fn part(&mut self) -> Result<Part, FilterError> {
        self.skip_spaces();
        let path = self.path()?;
        self.skip_spaces();
        let op = OPS.iter().find(|(text, _)| self.rest().starts_with(text));
        let Some(&(text, op)) = op else {
            return Err(self.expected("one of = != > >= < <="));
        };
        self.at += text.len();
        self.skip_spaces();
        let value = self.value()?;
        Ok(Part { path, op, value })
    }

    fn path(&mut self) -> Result<Vec<Step>, FilterError> {
        let mut path = vec![self.step()?];
        loop {
            if self.takes("[") {
                let digits: String = self
                    .rest()
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                let index = digits
                    .parse()
                    .map_err(|_malformed| self.expected("an index"))?;
                self.at += digits.len();
                if !self.takes("]") {
                    return Err(self.expected("`]`"));
                }
                path.push(Step::Index(index));
            } else if self.takes(".") {
                path.push(self.step()?);
            } else {
                return Ok(path);
            }
            if path.len() > STEPS_MAX {
                return Err(FilterError::TooLong);
            }
        }
    }

    fn step(&mut self) -> Result<Step, FilterError> {
        if self.rest().starts_with('"') {
            let name = self.string()?;
            return Ok(Step::Name(name));
        }
        let name: String = self
            .rest()
            .chars()
            .take_while(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '-' | '$'))
            .collect();
        if name.is_empty() {
            return Err(self.expected("a name"));
        }
        self.at += name.len();
        Ok(name.parse().map_or(Step::Name(name), Step::Index))
    }

    /// A JSON string.
    fn string(&mut self) -> Result<String, FilterError> {
        let mut stream = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let Some(Ok(text)) = stream.next() else {
            return Err(self.expected("a string in double quotes"));
        };
        let read = stream.byte_offset();
        self.at += read;
        Ok(text)
    }

    fn value(&mut self) -> Result<Value, FilterError> {
        if self.rest().starts_with('"') {
            return self.string().map(Value::String);
        }
        let word: String = self
            .rest()
            .chars()
            .take_while(|letter| !letter.is_whitespace())
            .collect();
        if word.is_empty() {
            return Err(self.expected("a value"));
        }
        self.at += word.len();
        Ok(match serde_json::from_str::<Value>(&word) {
            Ok(value @ (Value::Null | Value::Bool(_) | Value::Number(_))) => value,
            Ok(_) | Err(_) => Value::String(word),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &[u8] =
        br#"{"total":100,"big":9007199254740993,"customer":{"name":"Ann Lee","vip":true},
        "items":[{"id":"a"},{"id":"b"}],"odd name":1.5,"none":null,"0":"zero"}"#;

    fn says(text: &str) -> bool {
        Filter::parse(text)
            .unwrap_or_else(|error| panic!("{text}: {error}"))
            .matches(PAYLOAD)
    }

    #[test]
    fn conditions_compare_what_stands_at_their_paths() {
        for text in [
            "total = 100",
            "total>=100",
            "total < 100.5",
            "big > 9007199254740992",
            r#"customer.name = "Ann Lee""#,
            "customer.vip = true",
            "items[1].id = b",
            "items.0.id = a",
            r#""odd name" = 1.5"#,
            "none = null",
            "0 = zero",
            "missing != 1",
            "total != 5 and customer.vip != false and items[0].id < b",
        ] {
            assert!(says(text), "{text}");
        }
        for text in [
            "total = 101",
            "total = \"100\"",
            "total > word",
            "missing = null",
            "missing < 1",
            "items[2].id = c",
            "total = 100 and total = 101",
        ] {
            assert!(!says(text), "{text}");
        }
    }

    #[test]
    fn payload_that_is_no_json_never_matches() {
        let filter = Filter::parse("a != 1").expect("a condition");
        assert!(!filter.matches(b"\xff"));
        assert!(!filter.matches(b""));
        assert!(filter.matches(b"1"));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("= 1", 0),
            ("a", 1),
            ("a =", 3),
            ("a[x] = 1", 2),
            ("a[1 = 1", 3),
            ("a = 1 or b = 2", 6),
            (r#"a = "x"#, 4),
            ("a.", 2),
        ] {
            match Filter::parse(text) {
                Err(FilterError::Expected { at: found, .. }) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = "a".repeat(TEXT_BYTES_MAX + 1);
        assert_eq!(Filter::parse(&long), Err(FilterError::TooLong));
        let many = ["a = 1"; PARTS_MAX + 1].join(" and ");
        assert_eq!(Filter::parse(&many), Err(FilterError::TooLong));
        let deep = format!("{} = 1", ["a"; STEPS_MAX + 1].join("."));
        assert_eq!(Filter::parse(&deep), Err(FilterError::TooLong));
    }
}
