//! Durations as text: `25s`, `500ms`, `1h`, `1m30s`, `1.5h`.

use std::fmt::Write;
use std::time::Duration;

/// Nanoseconds of each unit. A unit that another one begins with comes later.
const UNITS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a duration; `None` for any other text. A lone `0` needs no unit.
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
            return None;
        }
        let (unit, scale) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        rest = &after[unit.len()..];
        nanos = nanos.checked_add(number(whole)?.checked_mul(*scale)?)?;
        nanos = nanos.checked_add(
            number(fraction)? * scale / 10u128.pow(u32::try_from(fraction.len()).ok()?),
        )?;
    }
    if text.is_empty() {
        return None;
    }
    let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
    Some(Duration::new(
        seconds,
        u32::try_from(nanos % 1_000_000_000).ok()?,
    ))
}

/// Writes what `parse` reads, in the largest units that fit.
pub(super) fn show(duration: Duration) -> String {
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let mut out = String::new();
    let mut nanos = duration.as_nanos();
    for (unit, scale) in [UNITS[6], UNITS[5], UNITS[4], UNITS[3], UNITS[1], UNITS[0]] {
        let count = nanos / scale;
        nanos %= scale;
        if count > 0 {
            // Writing to a String cannot fail.
            let _ = write!(out, "{count}{unit}");
        }
    }
    out
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(
        text.find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len()),
    )
}

fn number(digits: &str) -> Option<u128> {
    if digits.is_empty() {
        Some(0)
    } else {
        digits.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_the_usual_forms() {
        for (text, millis) in [
            ("25s", 25_000),
            ("500ms", 500),
            ("1h", 3_600_000),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("0", 0),
            ("0s", 0),
            ("720h", 720 * 3_600_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("3us"), Some(Duration::from_micros(3)));
        assert_eq!(parse("3µs7ns"), Some(Duration::from_nanos(3_007)));
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "25",
            "s",
            "25 s",
            "-1s",
            "+1s",
            "1d",
            "1s1",
            ".s",
            "1e3s",
            "1.0000000001s",
            " 1s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&("9".repeat(60) + "h")), None);
        assert_eq!(parse("99999999999999999999h"), None);
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(nanos in any::<u64>()) {
            let duration = Duration::from_nanos(nanos);
            prop_assert_eq!(parse(&show(duration)), Some(duration));
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".{0,40}") {
            let _ = parse(&text);
        }
    }
}
