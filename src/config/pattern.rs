//! Regular expressions of the configuration.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Bytes that a compiled pattern may take.
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// A regular expression. Matching takes time in proportion to the text, whatever the text is.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// `None` when this is no regular expression, or too large a one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        RegexBuilder::new(text)
            .size_limit(COMPILED_BYTES_MAX)
            .build()
            .ok()
            .map(Self)
    }

    /// Does it match somewhere in the text? `^` and `$` tie it to the ends.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        self.0.is_match(text)
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pattern_that_is_none_or_too_large_is_refused() {
        assert!(Pattern::parse("(").is_none());
        assert!(Pattern::parse("(?:a{1000}){1000}").is_none());
    }

    #[test]
    fn pattern_matches_anywhere_unless_it_is_tied() {
        let loose = Pattern::parse("edge-[0-9]+").unwrap();
        assert!(loose.matches("the edge-12 of town"));
        let tied = Pattern::parse("^edge-[0-9]+$").unwrap();
        assert!(tied.matches("edge-12") && !tied.matches("the edge-12"));
    }
}
