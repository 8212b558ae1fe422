//! Regular expressions of the configuration.

use std::fmt;

use crate::limits::REGEX_COMPILED_BYTES_MAX;
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, HirKind, Look};

/// A regular expression. Matching takes time in proportion to the text, whatever the text is.
#[derive(Clone)]
pub struct Pattern(Regex);

impl Pattern {
    /// `None` when this is no regular expression, or too large a one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        RegexBuilder::new(text)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .build()
            .ok()
            .map(Self)
    }

    /// Is there a text that this pattern matches? A look at its structure: `true` where it does not tell.
    #[must_use]
    pub fn can_match(text: &str) -> bool {
        regex_syntax::parse(text).map_or(true, |hir| reachable(&hir))
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

/// Can this part of a pattern match at all? Nothing stands in front of the begin of the text, or behind its end.
fn reachable(hir: &Hir) -> bool {
    // A part that matches nothing has no least length.
    let Some(_) = hir.properties().minimum_len() else {
        return false;
    };
    match hir.kind() {
        HirKind::Capture(capture) => reachable(&capture.sub),
        HirKind::Repetition(repetition) => repetition.min == 0 || reachable(&repetition.sub),
        HirKind::Alternation(parts) => parts.iter().any(reachable),
        HirKind::Concat(parts) => {
            let mut before = 0;
            let mut is_over = false;
            parts.iter().all(|part| {
                let properties = part.properties();
                let length = properties.minimum_len().unwrap_or(0);
                let starts = properties.look_set_prefix().contains(Look::Start);
                let fits = !(starts && before > 0 || is_over && length > 0);
                before += length;
                is_over |= properties.look_set_suffix().contains(Look::End);
                fits && reachable(part)
            })
        }
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => true,
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
    fn pattern_that_matches_no_text_is_told_from_one_that_does() {
        for never in [
            "a^b",
            "a$b",
            "(a^)b",
            "x(?:^a|^b)",
            "[^\\s\\S]",
            "(a$)+b",
            "(?:b$|a$)c",
        ] {
            assert!(Pattern::parse(never).is_some(), "{never}");
            assert!(!Pattern::can_match(never), "{never}");
        }
        for some in [
            "",
            "^",
            "^a$",
            "a*^b",
            "a$b?",
            "(^a|b)c",
            "x(^a|b)",
            "(?m)a\\n^b",
            "a|b^c",
            "^^a$$",
            "\\bx\\b",
        ] {
            assert!(Pattern::can_match(some), "{some}");
        }
    }

    #[test]
    fn pattern_matches_anywhere_unless_it_is_tied() {
        let loose = Pattern::parse("edge-[0-9]+").unwrap();
        assert!(loose.matches("the edge-12 of town"));
        let tied = Pattern::parse("^edge-[0-9]+$").unwrap();
        assert!(tied.matches("edge-12") && !tied.matches("the edge-12"));
    }
}
