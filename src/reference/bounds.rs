//! What `limits.rs` says of each bound.

use std::collections::BTreeMap;

use super::{begun, code, row, table};

const SOURCE: &str = include_str!("../limits.rs");

/// A number of the source: sums, products and shifts of numbers and of other bounds. `None` for anything else.
fn value(text: &str, known: &BTreeMap<&str, u128>) -> Option<u128> {
    let fold = |sign: &str, of: fn(u128, u128) -> Option<u128>| -> Option<Option<u128>> {
        let (first, last) = text.rsplit_once(sign)?;
        Some(
            value(first, known)
                .zip(value(last, known))
                .and_then(|(a, b)| of(a, b)),
        )
    };
    let text = text.trim();
    fold(" << ", |a, b| a.checked_shl(u32::try_from(b).ok()?))
        .or_else(|| fold(" + ", u128::checked_add))
        .or_else(|| fold(" * ", u128::checked_mul))
        .or_else(|| fold(" / ", u128::checked_div))
        .unwrap_or_else(|| {
            let text = text.split(" as ").next().unwrap_or(text);
            let number = text.replace('_', "");
            number.parse().ok().or_else(|| known.get(text).copied())
        })
}

/// A number as people write it: bytes in the largest unit that fits.
fn shown(name: &str, value: u128) -> String {
    let is_bytes = name.contains("BYTES");
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    if is_bytes
        && let Some((size, unit)) = units
            .into_iter()
            .find(|(size, _)| value >= *size && value.is_multiple_of(*size))
    {
        return format!("{} {unit}", value / size);
    }
    let digits = value.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if is_bytes { format!("{out} B") } else { out }
}

/// A duration of the source, or a number, or else the source itself.
fn told<'s>(name: &'s str, text: &str, known: &mut BTreeMap<&'s str, u128>) -> String {
    for (maker, unit) in [
        ("from_hours", "h"),
        ("from_secs", "s"),
        ("from_millis", "ms"),
    ] {
        if let Some(time) = text
            .strip_prefix("Duration::")
            .and_then(|rest| rest.strip_prefix(maker))
            .and_then(|rest| rest.strip_prefix('('))
            .and_then(|rest| rest.split_once(')'))
            .and_then(|(time, _)| value(time, known))
        {
            return format!("{} {unit}", shown("", time));
        }
    }
    match value(text, known) {
        Some(value) => {
            known.insert(name, value);
            shown(name, value)
        }
        None => code(text),
    }
}

pub(super) fn page() -> String {
    let mut out = begun(
        "limits",
        "Bounds",
        "This page lets you look up every bound that a peer can reach and that no key changes.",
    );
    out.push_str("Bounds that an operator sets are keys of the [configuration](configuration.md). [Limits](../limits.md) says what happens at them.\n");
    table(&mut out, &["bound", "value", "of what"]);
    let mut known = BTreeMap::new();
    let mut comment = String::new();
    for item in SOURCE.split_inclusive('\n') {
        let line = item.trim_end();
        if let Some(text) = line.strip_prefix("/// ") {
            if !comment.is_empty() {
                comment.push(' ');
            }
            comment.push_str(text);
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            if let Some((name, rest)) = rest.split_once(": ")
                && let Some((_, text)) = rest.split_once(" = ")
            {
                let text = told(name, text.trim_end_matches(';'), &mut known);
                row(&mut out, &[&code(name), &text, &comment]);
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_the_source_are_worked_out() {
        let known = BTreeMap::from([("RING", 1 << 20)]);
        for (text, expected) in [
            ("4096", Some(4096)),
            ("64 * 1024", Some(65_536)),
            ("10_000", Some(10_000)),
            ("128 << 20", Some(128 << 20)),
            ("RING / 8", Some(131_072)),
            ("RING as usize + 2 * 3", Some((1 << 20) + 6)),
            ("size_of::<u8>()", None),
        ] {
            assert_eq!(value(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn every_bound_is_told_as_a_value() {
        let page = page();
        let consts = SOURCE.matches("\npub const ").count();
        let rows = page.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, consts, "{page}");
        let raw: Vec<&str> = page
            .lines()
            .filter(|line| line.matches('`').count() > 2 && line.contains("` | `"))
            .collect();
        assert!(raw.is_empty(), "these are not worked out: {raw:#?}");
    }
}
