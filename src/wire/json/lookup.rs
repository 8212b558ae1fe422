//! What stands at a path of a payload, found without reading the rest of it: no value is converted, so no number, no surrogate and
//! no depth is out of reach.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::depth::behind_string;
use super::shown;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into the member of an object.
    Name(Box<str>),
    /// Into the element of a list, counted from 0, or into the member with this number for a name.
    Index(usize),
}

/// Why nobody can say what stands there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Not one JSON value in UTF-8.
    #[error("the payload is not JSON")]
    NotJson,
    /// Readers differ in which of the two they take.
    #[error("ambiguous: the payload has the member `{0}` more than once")]
    Ambiguous(Box<str>),
}

/// A payload that is JSON.
#[derive(Clone, Copy, Debug)]
pub struct Document<'a>(&'a str);

/// A value as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<'a>(&'a str);

impl<'a> Document<'a> {
    /// Looks whether a payload is JSON at all.
    ///
    /// # Errors
    /// It is not.
    pub fn new(payload: &'a [u8]) -> Result<Self, Unreadable> {
        let text = simdutf8::basic::from_utf8(payload).map_err(|_| Unreadable::NotJson)?;
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Ok(Self(text.trim_ascii())),
            Err(_) => Err(Unreadable::NotJson),
        }
    }

    /// The value at a path; `None` if there is none.
    ///
    /// # Errors
    /// A step has two answers.
    pub fn at(self, path: &[Step]) -> Result<Option<Raw<'a>>, Unreadable> {
        let mut value = self.0;
        for step in path {
            let found = match value.as_bytes().first() {
                Some(b'{') => match step {
                    Step::Name(name) => member(value, name)?,
                    Step::Index(index) => member(value, itoa::Buffer::new().format(*index))?,
                },
                Some(b'[') => match step {
                    Step::Name(_) => None,
                    Step::Index(index) => RawValues(&value[1..]).nth(*index),
                },
                _ => None,
            };
            let Some(found) = found else {
                return Ok(None);
            };
            value = found;
        }
        Ok(Some(Raw(value)))
    }
}

impl<'a> Raw<'a> {
    /// As it stands.
    #[must_use]
    pub const fn text(self) -> &'a str {
        self.0
    }

    /// The text of a string, in UTF-8 but for surrogates without their other half, which are encoded as though they were letters.
    #[must_use]
    pub fn string(self) -> Option<Cow<'a, [u8]>> {
        self.0.starts_with('"').then(|| decoded(self.0))
    }
}

/// The member of an object, which must be the only one of its name.
fn member<'a>(object: &'a str, wanted: &str) -> Result<Option<&'a str>, Unreadable> {
    let mut found = None;
    let mut parts = RawValues(&object[1..]);
    while let Some(name) = parts.next() {
        let Some(value) = parts.next() else { break };
        let inner = name.get(1..name.len().saturating_sub(1)).unwrap_or("");
        // A name with escapes is longer than what it says.
        let is_it = inner == wanted
            || inner.len() > wanted.len()
                && inner.contains('\\')
                && *decoded(name) == *wanted.as_bytes();
        if is_it && found.replace(value).is_some() {
            return Err(Unreadable::Ambiguous(shown(wanted).into()));
        }
    }
    Ok(found)
}

/// Values of a list, or names and values of an object in turn, behind its opening bracket.
struct RawValues<'a>(&'a str);

impl<'a> Iterator for RawValues<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let between = |byte: u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b':');
        let start = self.0.bytes().position(|byte| !between(byte))?;
        let rest = self.0.get(start..)?;
        let len = value_len(rest.as_bytes());
        if len == 0 {
            // The closing bracket.
            self.0 = "";
            return None;
        }
        self.0 = rest.get(len..)?;
        rest.get(..len)
    }
}

/// Bytes of the value that valid JSON goes on with; 0 where none begins.
fn value_len(json: &[u8]) -> usize {
    let mut depth = 0usize;
    let mut rest = json;
    while let [byte, after @ ..] = rest {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return 0,
            b'}' | b']' => depth -= 1,
            b'"' => {
                rest = behind_string(after);
                if depth == 0 {
                    return json.len() - rest.len();
                }
                continue;
            }
            _ if depth == 0 => {
                let ends =
                    |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}');
                return rest.iter().position(ends).unwrap_or(rest.len());
            }
            _ => {}
        }
        rest = after;
        if depth == 0 {
            return json.len() - rest.len();
        }
    }
    json.len()
}

/// What a string with its quotes says.
fn decoded(string: &str) -> Cow<'_, [u8]> {
    let inner = string.get(1..string.len().saturating_sub(1)).unwrap_or("");
    if !inner.contains('\\') {
        return Cow::Borrowed(inner.as_bytes());
    }
    let mut out = Vec::with_capacity(inner.len());
    let mut rest = inner;
    while let Some(at) = memchr::memchr(b'\\', rest.as_bytes()) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        rest = rest.get(at + 2..).unwrap_or("");
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let high = unit(&mut rest);
                let mut code = high;
                if (0xd800..0xdc00).contains(&high)
                    && let Some(mut low_rest) = rest.strip_prefix("\\u")
                {
                    let low = unit(&mut low_rest);
                    if (0xdc00..0xe000).contains(&low) {
                        code = 0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        rest = low_rest;
                    }
                }
                push(&mut out, code);
            }
            other => out.push(other),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    Cow::Owned(out)
}

/// Four hexadecimal digits.
fn unit(rest: &mut &str) -> u32 {
    let digits = rest.get(..4).unwrap_or("");
    *rest = rest.get(4..).unwrap_or("");
    u32::from_str_radix(digits, 16).unwrap_or(0)
}

/// One code point in UTF-8, a surrogate by the same rule.
fn push(out: &mut Vec<u8>, code: u32) {
    match char::from_u32(code) {
        Some(letter) => out.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
        None => out.extend_from_slice(&[
            0xe0 | (code >> 12) as u8 & 0x0f,
            0x80 | (code >> 6) as u8 & 0x3f,
            0x80 | code as u8 & 0x3f,
        ]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn name(text: &str) -> Step {
        Step::Name(text.into())
    }

    fn at<'a>(payload: &'a str, path: &[Step]) -> Result<Option<&'a str>, Unreadable> {
        let document = Document::new(payload.as_bytes())?;
        Ok(document.at(path)?.map(Raw::text))
    }

    #[test]
    fn values_are_found_as_they_stand_whatever_is_beside_them() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        let payload = format!(
            r#" {{ "x" : {deep}, "s":"\ud800", "e":1e999, "a" : {{"b":[ 10 , {{"c\u0064":"]}}"}} ,-1.50e3]}},"":0, "7":true}} "#
        );
        for (path, wanted) in [
            (vec![name("e")], Some("1e999")),
            (vec![name("s")], Some(r#""\ud800""#)),
            (vec![name("x")], Some(&*deep)),
            (vec![name("a"), name("b"), Step::Index(0)], Some("10")),
            (vec![name("a"), name("b"), Step::Index(2)], Some("-1.50e3")),
            (
                vec![name("a"), name("b"), Step::Index(1), name("cd")],
                Some("\"]}\""),
            ),
            (vec![name("a"), name("b"), Step::Index(3)], None),
            (vec![name("a"), name("b"), name("0")], None),
            (vec![name("")], Some("0")),
            (vec![Step::Index(7)], Some("true")),
            (vec![name("nothing")], None),
            (vec![name("e"), name("e")], None),
        ] {
            assert_eq!(at(&payload, &path), Ok(wanted), "{path:?}");
        }
    }

    #[test]
    fn a_name_that_stands_twice_has_no_value() {
        for payload in [
            r#"{"n":101,"n":1}"#,
            r#"{"n":1,"n":101}"#,
            r#"{"n":1,"\u006e":1}"#,
            r#"{"n":null,"a":{},"n":null}"#,
        ] {
            let ambiguous = Unreadable::Ambiguous("n".into());
            assert_eq!(at(payload, &[name("n")]), Err(ambiguous), "{payload}");
            assert!(at(payload, &[name("m")]).is_ok(), "{payload}");
        }
        assert_eq!(at(r#"{"n":1,"a":{"n":2}}"#, &[name("n")]), Ok(Some("1")));
    }

    #[test]
    fn what_is_no_json_is_told_apart_from_what_is_not_there() {
        for payload in ["", "{", "{\"a\":1,}", "{} {}", "nul"] {
            assert_eq!(
                at(payload, &[name("a")]),
                Err(Unreadable::NotJson),
                "{payload}"
            );
        }
        assert!(matches!(
            Document::new(b"\"\xff\""),
            Err(Unreadable::NotJson)
        ));
    }

    #[test]
    fn surrogates_are_put_together_where_they_belong_together() {
        for (raw, wanted) in [
            (r#""a\u00e9\n\"\/""#, "aé\n\"/".as_bytes()),
            (r#""\ud83d\ude00!""#, "😀!".as_bytes()),
            (r#""\ud800x""#, b"\xed\xa0\x80x"),
            (r#""\ud800\u0041""#, b"\xed\xa0\x80A"),
            (r#""\udc00\ud800""#, b"\xed\xb0\x80\xed\xa0\x80"),
        ] {
            let document = Document::new(raw.as_bytes()).expect("JSON");
            let found = document.at(&[]).expect("one").expect("itself");
            assert_eq!(&*found.string().expect("a string"), wanted, "{raw}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(document) = Document::new(&bytes) {
                let _ = document.at(&[Step::Index(0), name("a")]);
            }
        }

        #[test]
        fn text_near_json_never_panics(text in r#"(\{|\}|"|:|,|\[|\]|\\|\\u|d800|a|1| ){0,40}"#) {
            if let Ok(document) = Document::new(text.as_bytes()) {
                let _ = document.at(&[Step::Index(0), name("a")]);
            }
        }

        #[test]
        fn members_are_those_of_a_whole_reading(
            members in prop::collection::btree_map(".{0,6}", prop::collection::vec(".{0,6}", 0..4), 0..6),
            pretty: bool,
        ) {
            let value = serde_json::to_value(&members).expect("JSON");
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.expect("JSON");
            for (key, list) in &members {
                let found = at(&text, &[name(key)]).expect("unambiguous").expect("there");
                prop_assert_eq!(&serde_json::from_str::<Value>(found).expect("JSON"), &value[key]);
                for (index, item) in list.iter().enumerate() {
                    let document = Document::new(text.as_bytes()).expect("JSON");
                    let found = document.at(&[name(key), Step::Index(index)]).expect("unambiguous").expect("there");
                    prop_assert_eq!(&*found.string().expect("a string"), item.as_bytes());
                }
            }
        }
    }
}
