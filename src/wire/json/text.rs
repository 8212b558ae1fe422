//! JSON text as a whole: whether bytes are some, and the same on one line.

use std::borrow::Cow;

use memchr::memchr2;
use serde::de::IgnoredAny;

/// `raw`, one JSON value, on one line: without line feeds and carriage returns. Both can only stand between tokens,
/// since a string has them escaped. Copies only if there is something to remove.
#[must_use]
pub fn compact(raw: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = memchr2(b'\n', b'\r', raw) else {
        return Cow::Borrowed(raw);
    };
    let mut line = Vec::with_capacity(raw.len() - 1);
    line.extend_from_slice(&raw[..first]);
    line.extend(
        raw[first + 1..]
            .iter()
            .filter(|byte| !matches!(byte, b'\n' | b'\r')),
    );
    Cow::Owned(line)
}

/// True for exactly one JSON value in UTF-8, of any depth.
#[must_use]
pub fn is_json(bytes: &[u8]) -> bool {
    simdutf8::basic::from_utf8(bytes)
        .is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_takes_line_breaks_out_and_copies_nothing_else() {
        assert!(matches!(
            compact(br#"{"a": "b\n"}"#),
            Cow::Borrowed(br#"{"a": "b\n"}"#)
        ));
        assert_eq!(&*compact(b"{\r\n \"a\":\n1\r}\n"), br#"{ "a":1}"#);
        assert_eq!(&*compact(b"\n"), b"");
        assert_eq!(&*compact(b""), b"");
    }

    #[test]
    fn json_is_exactly_one_value_in_utf8() {
        for json in [
            "{}",
            " null ",
            "-1.5e3",
            "\"\\u00e9\"",
            "[1,\n2]",
            "\u{feff}".trim_start_matches('\u{feff}').max("0"),
        ] {
            assert!(is_json(json.as_bytes()), "{json}");
        }
        for bytes in [
            &b""[..],
            b" ",
            b"{} {}",
            b"{",
            b"nul",
            b"\"\n\"",
            b"\"\xff\"",
            b"01",
            b"NaN",
        ] {
            assert!(!is_json(bytes), "{bytes:?}");
        }
    }

    #[test]
    fn json_of_any_depth_is_scanned_without_recursion() {
        let deep = [b"[".repeat(1_000_000), b"]".repeat(1_000_000)].concat();
        assert!(is_json(&deep));
        assert!(!is_json(&deep[1..]));
    }
}
