//! What a payload must say: `path op value`, joined by ` and `. For replays (`where`) and triggers (`condition`).
//!
//! A path is `total`, `customer.name`, `items[0].id`; a name with other characters stands in double quotes. Operators are
//! `=`, `!=`, `>`, `>=`, `<` and `<=`. A value is a string in double quotes, a number, `true`, `false` or `null`; the last three are equal
//! or different, and have no order. Numbers compare digit by digit, at any size; numbers and strings compare with their own kind, a path
//! that is not there fits only `!=`.
//!
//! A payload about which nobody can say whether it fits, since it is no JSON or has a member of the path twice, is told apart
//! from one that does not fit. A condition that no payload can fit is refused.

use std::cmp::Ordering;

use serde_json::value::RawValue;

use super::decimal::Decimal;
use super::json::lookup::{Document, Raw, Unreadable};

pub use super::json::lookup::Step;
use crate::limits::{CONDITION_BYTES_MAX, CONDITION_PARTS_MAX, CONDITION_STEPS_MAX};

/// Letters of a word that an error shows.
const SHOWN_CHARS: usize = 32;

/// A condition, ready to be compared with payloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(Vec<Comparison>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    path: Vec<Step>,
    op: Op,
    value: Constant,
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

/// What a payload's value is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Constant {
    Text(Box<str>),
    Number(Decimal),
    /// `true`, `false` or `null`.
    Word(&'static str),
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
pub enum ConditionError {
    /// It is too long, or has too many parts or steps.
    #[error(
        "a condition has at most {CONDITION_BYTES_MAX} bytes, {CONDITION_PARTS_MAX} parts and {CONDITION_STEPS_MAX} steps in a path"
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
    /// A word that is no value.
    #[error("a text stands in double quotes: write `\"{word}\"` at byte {at}")]
    Bare {
        /// The word.
        word: Box<str>,
        /// Where in the text, from 0.
        at: usize,
    },
    /// A path that begins with `$`.
    #[error(
        "a path begins with a member of the payload, not with `$`: leave out `$` and the dot at byte {at} (a member that is called so is `\"$\"`)"
    )]
    Root {
        /// Where in the text, from 0.
        at: usize,
    },
    /// A list or an object for a value.
    #[error(
        "nothing is compared with a list or an object (byte {at}): name one element or member, as in `list[0] = 1` or `object.name = 1`"
    )]
    Whole {
        /// Where in the text, from 0.
        at: usize,
    },
    /// `null > …`
    #[error("`{word}` is only equal or different: write `=` or `!=` at byte {at}")]
    NoOrder {
        /// `true`, `false` or `null`.
        word: &'static str,
        /// Where the operator stands, from 0.
        at: usize,
    },
    /// Two parts that exclude each other.
    #[error("no payload can fit: the parts {0} and {1} say of one path what excludes each other")]
    Never(usize, usize),
}

/// Reads a path alone.
///
/// # Errors
/// It is none.
pub fn path(text: &str) -> Result<Vec<Step>, ConditionError> {
    if text.len() > CONDITION_BYTES_MAX {
        return Err(ConditionError::TooLong);
    }
    let mut reader = ConditionReader { text, at: 0 };
    let path = reader.path()?;
    if reader.rest().is_empty() {
        Ok(path)
    } else {
        Err(reader.expected("the end of the path"))
    }
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// It is too long, something is wrong in it, or no payload can fit it.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        if text.len() > CONDITION_BYTES_MAX {
            return Err(ConditionError::TooLong);
        }
        let mut reader = ConditionReader { text, at: 0 };
        let mut parts = Vec::new();
        loop {
            parts.push(reader.part()?);
            if parts.len() > CONDITION_PARTS_MAX {
                return Err(ConditionError::TooLong);
            }
            reader.skip_spaces();
            if reader.rest().is_empty() {
                break;
            }
            if !reader.takes("and ") {
                return Err(reader.expected("`and` or the end"));
            }
        }
        for (later, part) in parts.iter().enumerate() {
            let excluded = parts[..later].iter().position(|one| one.excludes(part));
            if let Some(earlier) = excluded {
                return Err(ConditionError::Never(earlier + 1, later + 1));
            }
        }
        Ok(Self(parts))
    }

    /// Does a payload say so? What one part denies is denied, whatever the others are about.
    ///
    /// # Errors
    /// Nobody can tell.
    pub fn matches(&self, payload: &[u8]) -> Result<bool, Unreadable> {
        let payload = Document::new(payload)?;
        let mut unreadable = None;
        for part in &self.0 {
            match payload.at(&part.path) {
                Ok(found) if part.accepts(found) => {}
                Ok(_) => return Ok(false),
                Err(error) => unreadable = Some(error),
            }
        }
        unreadable.map_or(Ok(true), Err)
    }
}

impl Op {
    fn accepts(self, order: Option<Ordering>) -> bool {
        match self {
            Self::Equal => order == Some(Ordering::Equal),
            Self::Different => order != Some(Ordering::Equal),
            Self::Greater => order == Some(Ordering::Greater),
            Self::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
            Self::Less => order == Some(Ordering::Less),
            Self::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        }
    }

    /// Larger values fit, or smaller ones; `None` for those without a direction.
    const fn is_upward(self) -> Option<bool> {
        match self {
            Self::Greater | Self::AtLeast => Some(true),
            Self::Less | Self::AtMost => Some(false),
            Self::Equal | Self::Different => None,
        }
    }
}

impl Comparison {
    fn accepts(&self, found: Option<Raw<'_>>) -> bool {
        match found {
            Some(found) => self.op.accepts(self.value.order_of(found)),
            None => self.op == Op::Different,
        }
    }

    /// No value fits both.
    fn excludes(&self, other: &Self) -> bool {
        if self.path != other.path {
            return false;
        }
        let order = self.value.order(&other.value);
        if self.op == Op::Equal {
            return !other.op.accepts(order);
        }
        if other.op == Op::Equal {
            return !self.op.accepts(order.map(Ordering::reverse));
        }
        match (self.op.is_upward(), other.op.is_upward()) {
            (Some(one), Some(another)) if one == another => order.is_none(),
            (Some(is_lower), Some(_)) => {
                let order = if is_lower {
                    order
                } else {
                    order.map(Ordering::reverse)
                };
                let both = self.op.accepts(Some(Ordering::Equal))
                    && other.op.accepts(Some(Ordering::Equal));
                match order {
                    Some(Ordering::Less) => false,
                    Some(Ordering::Equal) => !both,
                    Some(Ordering::Greater) | None => true,
                }
            }
            _ => false,
        }
    }
}

impl Constant {
    /// How a payload's value compares with it; `None` where they do not.
    fn order_of(&self, found: Raw<'_>) -> Option<Ordering> {
        match self {
            Self::Text(text) => Some((*found.string()?).cmp(text.as_bytes())),
            Self::Number(number) => Some(Decimal::of_json(found.text())?.order(number)),
            Self::Word(word) => (found.text() == *word).then_some(Ordering::Equal),
        }
    }

    /// How it compares with another one.
    fn order(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(one), Self::Text(another)) => Some(one.cmp(another)),
            (Self::Number(one), Self::Number(another)) => Some(one.order(another)),
            (one, another) => (one == another).then_some(Ordering::Equal),
        }
    }
}

struct ConditionReader<'a> {
    text: &'a str,
    at: usize,
}

impl ConditionReader<'_> {
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

    const fn expected(&self, expected: &'static str) -> ConditionError {
        ConditionError::Expected {
            expected,
            at: self.at,
        }
    }

    fn part(&mut self) -> Result<Comparison, ConditionError> {
        self.skip_spaces();
        let path = self.path()?;
        self.skip_spaces();
        let op = OPS.iter().find(|(text, _)| self.rest().starts_with(text));
        let Some(&(text, op)) = op else {
            return Err(self.expected("one of = != > >= < <="));
        };
        let at = self.at;
        self.at += text.len();
        self.skip_spaces();
        let value = self.value()?;
        match value {
            Constant::Word(word) if op.is_upward().is_some() => {
                Err(ConditionError::NoOrder { word, at })
            }
            value => Ok(Comparison { path, op, value }),
        }
    }

    fn path(&mut self) -> Result<Vec<Step>, ConditionError> {
        let at = self.at;
        let mut path = vec![self.step()?];
        if self.text[at..self.at] == *"$" {
            return Err(ConditionError::Root { at });
        }
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
            if path.len() > CONDITION_STEPS_MAX {
                return Err(ConditionError::TooLong);
            }
        }
    }

    fn step(&mut self) -> Result<Step, ConditionError> {
        if self.rest().starts_with('"') {
            let name = self.string()?;
            return Ok(Step::Name(name.into()));
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
        Ok(match name.parse() {
            // `007` is a name, not the element 7.
            Ok(index) if name == "0" || !name.starts_with('0') => Step::Index(index),
            Ok(_) | Err(_) => Step::Name(name.into()),
        })
    }

    /// A JSON string.
    fn string(&mut self) -> Result<String, ConditionError> {
        let mut stream = serde_json::Deserializer::from_str(self.rest()).into_iter::<String>();
        let Some(Ok(text)) = stream.next() else {
            return Err(self.expected("a string in double quotes"));
        };
        let read = stream.byte_offset();
        self.at += read;
        Ok(text)
    }

    fn value(&mut self) -> Result<Constant, ConditionError> {
        let at = self.at;
        if self.rest().starts_with('"') {
            return Ok(Constant::Text(self.string()?.into()));
        }
        let word: String = self
            .rest()
            .chars()
            .take_while(|letter| !letter.is_whitespace())
            .collect();
        let Some(first) = word.chars().next() else {
            return Err(self.expected("a value"));
        };
        self.at += word.len();
        if let Some(known) = ["true", "false", "null"]
            .iter()
            .find(|known| **known == word)
        {
            return Ok(Constant::Word(known));
        }
        if matches!(first, '[' | '{') {
            return Err(ConditionError::Whole { at });
        }
        let is_number = serde_json::from_str::<&RawValue>(&word).is_ok();
        if let Some(number) = Decimal::of_json(&word).filter(|_| is_number) {
            return Ok(Constant::Number(number));
        }
        if first.is_ascii_digit() || matches!(first, '-' | '+' | '.') {
            let expected = "a number as JSON has it, or a text in double quotes,";
            return Err(ConditionError::Expected { expected, at });
        }
        let word = word.trim_matches('\'').chars().take(SHOWN_CHARS);
        Err(ConditionError::Bare {
            word: word.collect::<String>().into(),
            at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYLOAD: &str = r#"{"total":100,"big":9007199254740993,"customer":{"name":"Ann Lee","vip":true},
        "items":[{"id":"a"},{"id":"b"}],"odd name":1.5,"none":null,"0":"zero","$":1,"e":1e999}"#;

    fn condition(text: &str) -> Condition {
        Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn says(text: &str) -> bool {
        condition(text)
            .matches(PAYLOAD.as_bytes())
            .expect("readable")
    }

    #[test]
    fn conditions_compare_what_stands_at_their_paths() {
        for text in [
            "total = 100",
            "total = 1.00e2",
            "total>=100",
            "total < 100.5",
            "big > 9007199254740992",
            "big > 9007199254740992.9",
            "big < 9007199254740993.1",
            "e > 1e998 and e < 1.1e999",
            r#"customer.name = "Ann Lee""#,
            "customer.vip = true",
            r#"items[1].id = "b""#,
            r#"items.0.id = "a""#,
            r#""odd name" = 1.5"#,
            "none = null",
            r#"0 = "zero""#,
            r#""$" = 1"#,
            "missing != 1",
            r#"total != 5 and customer.vip != false and items[0].id < "b""#,
        ] {
            assert!(says(text), "{text}");
        }
        for text in [
            "total = 101",
            "total = \"100\"",
            "total > \"word\"",
            "missing = null",
            "missing < 1",
            r#"items[2].id = "c""#,
            "total > 1 and total > 100",
        ] {
            assert!(!says(text), "{text}");
        }
    }

    #[test]
    fn payload_that_hides_something_unreadable_elsewhere_is_judged_all_the_same() {
        let deep = "[".repeat(5000) + &"]".repeat(5000);
        let condition = condition("n > 100");
        for beside in [
            r#""\ud800""#,
            "1e999",
            "-0",
            deep.as_str(),
            r#"{"n":1,"n":2}"#,
        ] {
            for (n, wanted) in [
                ("101", true),
                ("1", false),
                ("1e999", true),
                ("1e-999", false),
            ] {
                let payload = format!(r#"{{"n":{n},"x":{beside}}}"#);
                assert_eq!(
                    condition.matches(payload.as_bytes()),
                    Ok(wanted),
                    "{payload:.80}"
                );
            }
        }
    }

    #[test]
    fn payload_that_nobody_can_judge_is_not_called_false() {
        let big = condition("n > 100");
        for payload in [
            r#"{"n":101,"n":1}"#,
            r#"{"n":1,"n":101}"#,
            r#"{"n":1,"\u006e":1}"#,
        ] {
            let ambiguous = Err(Unreadable::Ambiguous("n".into()));
            assert_eq!(big.matches(payload.as_bytes()), ambiguous, "{payload}");
            let also = condition("n > 100 and m = 1");
            assert_eq!(
                also.matches(payload.as_bytes()),
                Ok(false),
                "m is not there"
            );
        }
        let other = condition("a != 1");
        for payload in [&b"\xff"[..], b"", b"{\"a\":2,}"] {
            assert_eq!(other.matches(payload), Err(Unreadable::NotJson));
        }
        assert_eq!(other.matches(b"1"), Ok(true));
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
            ("n = 01", 4),
            ("n = 1.", 4),
            ("n = +1", 4),
        ] {
            match Condition::parse(text) {
                Err(ConditionError::Expected { at: found, .. }) => assert_eq!(found, at, "{text}"),
                other => panic!("{text}: {other:?}"),
            }
        }
        let long = "a".repeat(CONDITION_BYTES_MAX + 1);
        assert_eq!(Condition::parse(&long), Err(ConditionError::TooLong));
        let many = ["a = 1"; CONDITION_PARTS_MAX + 1].join(" and ");
        assert_eq!(Condition::parse(&many), Err(ConditionError::TooLong));
        let deep = format!("{} = 1", ["a"; CONDITION_STEPS_MAX + 1].join("."));
        assert_eq!(Condition::parse(&deep), Err(ConditionError::TooLong));
    }

    #[test]
    fn condition_that_no_payload_can_fit_is_refused_and_says_what_to_write() {
        for (text, advice) in [
            ("$.n = 3", "leave out `$`"),
            ("n = abc", r#"write `"abc"`"#),
            ("n = 'abc'", r#"write `"abc"`"#),
            ("n = TRUE", r#"write `"TRUE"`"#),
            ("arr = [1,2]", "list[0] = 1"),
            (r#"o = {"a":1}"#, "object.name = 1"),
            ("n > null", "write `=` or `!=`"),
            ("n <= true", "write `=` or `!=`"),
            ("n = 1 and n = 2", "the parts 1 and 2"),
            ("n = 1 and m = 1 and n > 1", "the parts 1 and 3"),
            ("n < 1 and n = 1", "the parts 1 and 2"),
            ("n = 1 and n != 1.0", "the parts 1 and 2"),
            (r#"n > 1 and n > "a""#, "the parts 1 and 2"),
            ("n > 5 and n < 5", "the parts 1 and 2"),
            ("n <= 4 and n >= 5", "the parts 1 and 2"),
        ] {
            let error = Condition::parse(text).expect_err(text).to_string();
            assert!(error.contains(advice), "{text}: {error}");
        }
        for text in [
            "n >= 5 and n <= 5",
            "n > 1 and n > 2",
            "n > 1 and n < 2",
            "n != 1 and n != 2",
            "n > 1 and m < 1",
            "$ref = 1",
            "a.$ = 1",
        ] {
            assert!(Condition::parse(text).is_ok(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_and_bytes_never_panic(text: String, payload: Vec<u8>) {
            if let Ok(condition) = Condition::parse(&text) {
                let _ = condition.matches(&payload);
            }
        }
    }
}
