//! Patterns in which `*` stands for any run of bytes: origins and the channel list of the server API.

use memchr::memmem;

/// Does `pattern` match the whole of `text`? Linear in both: the text between two stars is looked for once,
/// as far left as possible, which leaves the most for what follows.
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

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            prop_assert_eq!(glob_match(&pattern, &text), by_definition(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
