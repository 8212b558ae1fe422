//! How deep a JSON text is nested.

use memchr::{memchr2, memchr2_iter};
use serde::de::IgnoredAny;

/// Is this valid JSON nested deeper than `levels`? A scalar has none, `[]` has one.
///
/// One pass at most, and mostly less: what is too short, or has too few brackets at all, is not looked at one by one.
#[must_use]
pub fn is_deeper(json: &[u8], levels: usize) -> bool {
    // A level takes two bytes, and an opening bracket.
    json.len() > levels.saturating_mul(2)
        && memchr2_iter(b'{', b'[', json).nth(levels).is_some()
        && depth_passes(json, levels)
}

/// Is this JSON, and nested deeper than `levels`? What is no JSON has no depth.
#[must_use]
pub fn is_json_deeper(payload: &[u8], levels: usize) -> bool {
    is_deeper(payload, levels) && serde_json::from_slice::<IgnoredAny>(payload).is_ok()
}

/// The whole rule: brackets within strings do not count.
fn depth_passes(json: &[u8], levels: usize) -> bool {
    let mut depth = 0usize;
    let mut rest = json;
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => rest = behind_string(rest),
            _ => {}
        }
    }
    false
}

/// What follows a string whose opening quote is taken.
pub(super) fn behind_string(mut rest: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', rest) {
        if rest[at] == b'"' {
            return &rest[at + 1..];
        }
        rest = rest.get(at + 2..).unwrap_or(&[]);
    }
    &[]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_levels_and_nothing_in_strings() {
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let objects = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        for levels in [1, 2, 64, 100] {
            for text in [nested(levels), objects(levels)] {
                assert!(!is_deeper(text.as_bytes(), levels), "{levels}");
                assert!(is_deeper(text.as_bytes(), levels - 1), "{levels}");
            }
        }
        for flat in [
            "1",
            "\"[[[[[[[[[[[[[[[[[[\"",
            r#"{"a\"[[[[[[":"\\","b":[1,"[{[{"]}"#,
        ] {
            assert!(!is_deeper(flat.as_bytes(), 2), "{flat}");
        }
        assert!(is_json_deeper(b"[[[]]]", 2) && !is_json_deeper(b"[[[[[[[[", 2));
        let wide = format!("[{}]", vec!["[]"; 1000].join(","));
        assert!(!is_deeper(wide.as_bytes(), 2));
        assert!(is_deeper(wide.as_bytes(), 1));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>, levels in 0usize..5) {
            let _ = is_deeper(&bytes, levels);
        }
    }
}
