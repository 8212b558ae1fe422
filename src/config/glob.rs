//! Patterns: `Glob` for origins and the channel list of the server API, `glob_match` for what knows `*` alone.

use std::fmt;

use memchr::memmem;
use regex::{Regex, RegexBuilder};

use crate::limits::{GLOB_BYTES_MAX, GLOB_COMPILED_BYTES_MAX, GLOB_DEPTH_MAX};

/// A pattern for the whole of a text: `*` is any run of characters, `?` any one, `[abc]` one of these, `[a-c]` one
/// from `a` to `c`, `[!…]` any other one, `{a,b}` either, and `\` takes the next character as it is. Matching takes
/// time in proportion to the text, whatever both are.
#[derive(Clone)]
pub struct Glob {
    text: Box<str>,
    /// `None` where `*` is the only mark.
    compiled: Option<Regex>,
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// Over `GLOB_BYTES_MAX`.
    #[error("is longer than {GLOB_BYTES_MAX} bytes")]
    TooLong,
    /// More than `GLOB_DEPTH_MAX` braces within each other.
    #[error("has more than {GLOB_DEPTH_MAX} braces within each other")]
    TooDeep,
    /// A brace without its end.
    #[error("has a `{{` without its `}}`")]
    OpenBrace,
    /// A bracket without its end.
    #[error("has a `[` without its `]`")]
    OpenBracket,
    /// Brackets that hold nothing, a range together with more, or a range that runs backwards.
    #[error("has brackets that hold neither characters, as in [abc], nor one range, as in [a-z]")]
    Brackets,
    /// Nothing is left that `\` could be in front of.
    #[error("ends with a `\\` that stands in front of nothing")]
    Escape,
    /// Over `GLOB_COMPILED_BYTES_MAX`.
    #[error("takes too much memory")]
    TooLarge,
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// It is broken or too large.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        if text.len() > GLOB_BYTES_MAX {
            return Err(GlobError::TooLong);
        }
        let is_plain = !text.contains(['?', '[', '{', '\\']);
        let compiled = if is_plain { None } else { Some(compile(text)?) };
        Ok(Self {
            text: text.into(),
            compiled,
        })
    }

    /// A pattern in which `*` is the only mark.
    #[must_use]
    pub fn stars(text: &str) -> Self {
        Self {
            text: text.into(),
            compiled: None,
        }
    }

    /// The pattern that matches everything.
    #[must_use]
    pub fn any() -> Self {
        Self::stars("*")
    }

    /// Does it match the whole of the text?
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match &self.compiled {
            Some(regex) => regex.is_match(text),
            None => glob_match(&self.text, text),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Glob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Glob {}

impl PartialEq<&str> for Glob {
    fn eq(&self, other: &&str) -> bool {
        *self.text == **other
    }
}

impl fmt::Debug for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// The pattern as a regular expression, whose engine never goes back.
fn compile(text: &str) -> Result<Regex, GlobError> {
    let mut out = String::from(r"\A(?:");
    let mut depth = 0;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '*' => {
                if !out.ends_with(".*") {
                    out.push_str(".*");
                }
            }
            '?' => out.push('.'),
            '[' => class(&mut out, &mut rest)?,
            '{' => {
                depth += 1;
                if depth > GLOB_DEPTH_MAX {
                    return Err(GlobError::TooDeep);
                }
                out.push_str("(?:");
            }
            ',' if depth > 0 => out.push('|'),
            '}' if depth > 0 => {
                depth -= 1;
                out.push(')');
            }
            '\\' => literal(&mut out, rest.next().ok_or(GlobError::Escape)?),
            other => literal(&mut out, other),
        }
    }
    if depth > 0 {
        return Err(GlobError::OpenBrace);
    }
    out.push_str(r")\z");
    RegexBuilder::new(&out)
        .dot_matches_new_line(true)
        .size_limit(GLOB_COMPILED_BYTES_MAX)
        .dfa_size_limit(GLOB_COMPILED_BYTES_MAX)
        .build()
        .map_err(|_| GlobError::TooLarge)
}

/// What stands behind a `[`, up to its end.
fn class(out: &mut String, rest: &mut std::str::Chars<'_>) -> Result<(), GlobError> {
    const OPEN: GlobError = GlobError::OpenBracket;
    let mut ahead = rest.clone();
    out.push('[');
    if ahead.next() == Some('!') {
        rest.next();
        out.push('^');
    }
    let mut ahead = rest.clone();
    let (low, second) = (ahead.next().ok_or(OPEN)?, ahead.next().ok_or(OPEN)?);
    if second == '-' {
        let (high, end) = (ahead.next().ok_or(OPEN)?, ahead.next().ok_or(OPEN)?);
        if end != ']' || low > high {
            return Err(GlobError::Brackets);
        }
        *rest = ahead;
        literal(out, low);
        out.push('-');
        literal(out, high);
    } else {
        let mut is_empty = true;
        loop {
            match rest.next().ok_or(OPEN)? {
                ']' => break,
                '\\' => literal(out, rest.next().ok_or(OPEN)?),
                other => literal(out, other),
            }
            is_empty = false;
        }
        if is_empty {
            return Err(GlobError::Brackets);
        }
    }
    out.push(']');
    Ok(())
}

fn literal(out: &mut String, c: char) {
    out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
}

/// Does `pattern` match the whole of `text`, where `*` stands for any run of bytes and nothing else is special? Linear
/// in both: the text between two stars is looked for once, as far left as possible, which leaves the most for what
/// follows.
#[must_use]
pub fn glob_match(pattern: &str, text: &str) -> bool {
    let Some((prefix, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut left) = text.as_bytes().strip_prefix(prefix.as_bytes()) else {
        return false;
    };
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        let Some(at) = memmem::find(left, part.as_bytes()) else {
            return false;
        };
        left = &left[at + part.len()..];
    }
    left.ends_with(suffix.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, exponential in the number of stars.
    fn by_definition(pattern: &[u8], text: &[u8]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some((b'*', rest)) => (0..=text.len()).any(|at| by_definition(rest, &text[at..])),
            Some((byte, rest)) => text.first() == Some(byte) && by_definition(rest, &text[1..]),
        }
    }

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).expect(pattern).matches(text)
    }

    #[test]
    fn star_matches_any_run_and_nothing_else_is_special() {
        assert!(glob_match("*", ""));
        assert!(glob_match("chat:*", "chat:"));
        assert!(glob_match(
            "https://*.example.com",
            "https://a.b.example.com"
        ));
        assert!(glob_match("a*b*c", "aXbYbZc"));
        assert!(!glob_match("a*a", "a"));
        assert!(!glob_match("", "a"));
        assert!(!glob_match("a?c", "abc"));
        assert!(glob_match("a?c", "a?c"));
    }

    #[test]
    fn many_stars_against_long_text_end_at_once() {
        let pattern = "a*".repeat(5_000) + "b";
        assert!(!glob_match(&pattern, &"a".repeat(100_000)));
    }

    /// What the library of Centrifugo answers.
    #[test]
    fn every_mark_means_what_it_means_in_centrifugo() {
        for (pattern, text) in [
            ("{a,b}", "a"),
            ("a}", "a}"),
            ("[abc-]", "-"),
            ("[-a]", "-"),
            ("[ab-d]", "-"),
            ("[!a-z]", "B"),
            ("[!ab]", "c"),
            ("[^a]", "^"),
            ("[*]", "*"),
            ("[a\\]b]", "]"),
            ("[a]]", "a]"),
            ("\\*\\?\\[\\{\\\\", "*?[{\\"),
            ("{a,{b,c}}d", "cd"),
            ("{,a}", ""),
            ("{}", ""),
            ("{a-b}", "a-b"),
            ("{[ab],c}", "b"),
            ("{*,b}c", "ac"),
            ("{a\\,b,c}", "a,b"),
            (",!-]", ",!-]"),
            ("**", "abc"),
            ("?", "\u{e9}"),
            ("[\u{e9}]", "\u{e9}"),
            ("a?c", "a\nc"),
            (
                "http{,s}://{app,www}.example.com:300[0-9]",
                "https://app.example.com:3004",
            ),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("[ab-d]", "c"),
            ("[!ab]", "a"),
            ("?", ""),
            ("?", "ab"),
            ("a.c", "abc"),
            ("{ab,c}", "a"),
            ("[a-c]", "d"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn broken_pattern_is_refused() {
        let deep = "{".repeat(GLOB_DEPTH_MAX + 1);
        let long = "a".repeat(GLOB_BYTES_MAX + 1);
        for (pattern, error) in [
            ("[a-", GlobError::OpenBracket),
            ("[a", GlobError::OpenBracket),
            ("[", GlobError::OpenBracket),
            ("[]", GlobError::OpenBracket),
            ("[]a]", GlobError::Brackets),
            ("[!]x", GlobError::Brackets),
            ("[z-a]", GlobError::Brackets),
            ("[a-cx]", GlobError::Brackets),
            ("{a", GlobError::OpenBrace),
            ("a\\", GlobError::Escape),
            (&deep, GlobError::TooDeep),
            (&long, GlobError::TooLong),
        ] {
            assert_eq!(Glob::parse(pattern), Err(error), "{pattern}");
        }
        let deepest = format!(
            "{}x{}",
            "{".repeat(GLOB_DEPTH_MAX),
            "}".repeat(GLOB_DEPTH_MAX)
        );
        assert!(matches(&deepest, "x"));
        assert!(matches(
            &"a".repeat(GLOB_BYTES_MAX),
            &"a".repeat(GLOB_BYTES_MAX)
        ));
    }

    #[test]
    fn no_pattern_takes_long_whatever_the_text_is() {
        let text = "a".repeat(20_000);
        for pattern in [
            "[a]*".repeat(GLOB_BYTES_MAX / 4 - 1) + "b",
            "{a*,*a}".repeat(GLOB_BYTES_MAX / 7 - 1) + "b",
            "{a,aa,?}".repeat(GLOB_BYTES_MAX / 8 - 1) + "*b",
            "[!b]*".repeat(GLOB_BYTES_MAX / 5 - 1) + "b",
        ] {
            // One that takes too much memory is refused, and so takes no time either.
            if let Ok(glob) = Glob::parse(&pattern) {
                assert!(!glob.matches(&text), "{pattern}");
            }
        }
    }

    /// A pattern as a tree, written down and matched by trying everything.
    #[derive(Clone, Debug)]
    enum Part {
        Char(char),
        One,
        Run,
        Class(bool, Vec<char>),
        Range(bool, char, char),
        Either(Vec<Vec<Self>>),
    }

    fn write(parts: &[Part], out: &mut String) {
        for part in parts {
            match part {
                Part::Char(c) => out.extend(['\\', *c]),
                Part::One => out.push('?'),
                Part::Run => out.push('*'),
                Part::Class(not, chars) => {
                    out.push_str(if *not { "[!" } else { "[" });
                    out.extend(chars);
                    out.push(']');
                }
                Part::Range(not, low, high) => {
                    out.push_str(if *not { "[!" } else { "[" });
                    out.extend([*low, '-', *high, ']']);
                }
                Part::Either(choices) => {
                    out.push('{');
                    for (at, choice) in choices.iter().enumerate() {
                        if at > 0 {
                            out.push(',');
                        }
                        write(choice, out);
                    }
                    out.push('}');
                }
            }
        }
    }

    fn by_trying(parts: &[Part], text: &[char]) -> bool {
        let Some((part, after)) = parts.split_first() else {
            return text.is_empty();
        };
        let one = |fits: &dyn Fn(char) -> bool| {
            text.first()
                .is_some_and(|&c| fits(c) && by_trying(after, &text[1..]))
        };
        match part {
            Part::Char(c) => one(&|found| found == *c),
            Part::One => one(&|_| true),
            Part::Run => (0..=text.len()).any(|at| by_trying(after, &text[at..])),
            Part::Class(not, chars) => one(&|found| chars.contains(&found) != *not),
            Part::Range(not, low, high) => one(&|found| (*low..=*high).contains(&found) != *not),
            Part::Either(choices) => choices.iter().any(|choice| {
                let whole: Vec<Part> = choice.iter().chain(after).cloned().collect();
                by_trying(&whole, text)
            }),
        }
    }

    fn parts() -> impl Strategy<Value = Vec<Part>> {
        let leaf = prop_oneof![
            prop::sample::select(vec!['a', 'b', '*', '[', '{', '}', ',', '\\', '?'])
                .prop_map(Part::Char),
            Just(Part::One),
            Just(Part::Run),
            (
                any::<bool>(),
                prop::collection::vec(prop::sample::select(vec!['a', 'b', 'c']), 1..3)
            )
                .prop_map(|(not, chars)| Part::Class(not, chars)),
            any::<bool>().prop_map(|not| Part::Range(not, 'a', 'b')),
        ];
        let part = leaf.prop_recursive(2, 12, 3, |inner| {
            prop::collection::vec(prop::collection::vec(inner, 0..3), 1..3).prop_map(Part::Either)
        });
        prop::collection::vec(part, 0..5)
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(glob_match(&pattern, &text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn agrees_with_trying_everything(parts in parts(), text in "[abc*,]{0,7}") {
            let mut pattern = String::new();
            write(&parts, &mut pattern);
            let glob = Glob::parse(&pattern).map_err(|error| TestCaseError::fail(error.to_string()))?;
            let text_of: Vec<char> = text.chars().collect();
            prop_assert_eq!(glob.matches(&text), by_trying(&parts, &text_of), "{} {}", pattern, text);
        }

        #[test]
        fn arbitrary_text_is_a_pattern_or_an_error(pattern in r"[\PC\n\[\]{},*?!\\-]{0,40}", text in ".{0,20}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                let _ = glob.matches(&text);
            }
        }
    }
}
