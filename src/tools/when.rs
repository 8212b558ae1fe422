//! A place in the log as people write it: a time, an offset, an end.

use std::time::{SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Numbers below it are offsets, from it on Unix milliseconds (1973 and later).
const UNIX_MS_MIN: u64 = 100_000_000_000;

/// `--from`, `--to`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// The oldest that is kept.
    Beginning,
    /// What is there when the command starts.
    Now,
    /// Unix milliseconds.
    Time(u64),
    /// Offset in the one channel.
    Offset(u64),
}

impl When {
    /// Reads what stands on the command line.
    ///
    /// # Errors
    /// What would have been understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::parse_at(text, unix_ms())
    }

    fn parse_at(text: &str, now: u64) -> Result<Self, String> {
        match text {
            "beginning" => return Ok(Self::Beginning),
            "now" => return Ok(Self::Now),
            _ => {}
        }
        if let Some(age) = text.strip_prefix('-') {
            return duration_ms(age)
                .map(|age| Self::Time(now.saturating_sub(age)))
                .ok_or_else(|| "a time before now is -30s, -15m, -2h or -3d".to_owned());
        }
        if let Ok(number) = text.parse::<u64>() {
            return Ok(if number < UNIX_MS_MIN {
                Self::Offset(number)
            } else {
                Self::Time(number)
            });
        }
        rfc3339(text).map(Self::Time).ok_or_else(|| {
            "expected 2026-11-25T08:00:00Z, -2h, Unix milliseconds, an offset, `beginning` or `now`"
                .to_owned()
        })
    }

    /// As the server API takes it.
    pub(super) fn json(self) -> serde_json::Value {
        match self {
            Self::Beginning => "beginning".into(),
            Self::Now => "now".into(),
            Self::Time(ms) => serde_json::json!({ "time": ms }),
            Self::Offset(offset) => serde_json::json!({ "offset": offset }),
        }
    }
}

/// A time that is one, Unix milliseconds.
pub(super) fn time(text: &str) -> Result<u64, String> {
    match When::parse(text) {
        Ok(When::Time(unix_ms)) => Ok(unix_ms),
        Ok(When::Now) => Ok(unix_ms()),
        Ok(When::Beginning) => Ok(0),
        Ok(When::Offset(_)) | Err(_) => {
            Err("expected 2026-11-25T08:00:00Z, -2h or Unix milliseconds".to_owned())
        }
    }
}

/// A time that passes, such as `90s`, in milliseconds.
pub(super) fn milliseconds(text: &str) -> Result<u64, String> {
    duration_ms(text).ok_or_else(|| "expected a duration, such as 90s, 15m, 2h or 3d".to_owned())
}

/// The wall clock.
#[expect(
    clippy::disallowed_methods,
    reason = "people name times relative to the wall clock, and this is no core module"
)]
pub(super) fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
}

/// Milliseconds of `30s`, `15m`, `2h`, `3d`.
pub(super) fn duration_ms(text: &str) -> Option<u64> {
    let unit = text.chars().last()?;
    let ms = match unit {
        's' => 1000,
        'm' => 60_000,
        'h' => 3_600_000,
        'd' => 86_400_000,
        _ => return None,
    };
    text[..text.len() - 1].parse::<u64>().ok()?.checked_mul(ms)
}

/// Unix milliseconds of `YYYY-MM-DDTHH:MM:SS[.fff](Z|±HH:MM)`; also of the date alone, in UTC.
fn rfc3339(text: &str) -> Option<u64> {
    let midnight;
    let text = match text.as_bytes().get(10) {
        None => {
            midnight = format!("{text}T00:00:00Z");
            &midnight
        }
        Some(b'T' | b't' | b' ') => text,
        Some(_) => return None,
    };
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok()
}

/// A moment for people, UTC, to the second.
pub(super) fn shown(unix_ms: u64) -> String {
    crate::time::rfc3339(unix_ms / 1000 * 1000)
}

/// An age for people.
pub(super) fn age(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_every_form() {
        let now = 1_800_000_000_000;
        for (text, expected) in [
            ("beginning", When::Beginning),
            ("now", When::Now),
            ("-2h", When::Time(now - 7_200_000)),
            ("-3d", When::Time(now - 3 * 86_400_000)),
            ("1764057600000", When::Time(1_764_057_600_000)),
            ("17", When::Offset(17)),
            ("2025-11-25T08:00:00Z", When::Time(1_764_057_600_000)),
            (
                "2025-11-25T09:00:00.250+01:00",
                When::Time(1_764_057_600_250),
            ),
            ("2025-11-25t02:30:00-05:30", When::Time(1_764_057_600_000)),
            ("2025-11-25 08:00:00Z", When::Time(1_764_057_600_000)),
            ("2025-11-25", When::Time(1_764_028_800_000)),
            ("2024-02-29T00:00:00Z", When::Time(1_709_164_800_000)),
            ("1970-01-01T00:00:00Z", When::Time(0)),
        ] {
            assert_eq!(When::parse_at(text, now), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "-",
            "-2",
            "-2w",
            "-h",
            "yesterday",
            "2025-13-01T00:00:00Z",
            "2025-02-29",
            "2025-11-25T24:00:00Z",
            "2025-11-25T08:00:00",
            "2025-11-25T08:00:00.Z",
            "2025-11-25T08:00:00+1:00",
            "2025-11-25 8:00",
            "2025-11-25_08:00:00Z",
            "1969-12-31T23:59:58Z",
            "é025-11-25T08:00:00Z",
            "-9é",
        ] {
            assert!(When::parse_at(text, 0).is_err(), "{text}");
        }
    }

    #[test]
    fn moments_are_shown_as_they_are_read() {
        for ms in [0, 951_782_400_000, 1_709_164_799_000, 4_102_444_800_000] {
            assert_eq!(When::parse_at(&shown(ms), 0), Ok(When::Time(ms)));
        }
        assert_eq!(
            (age(900), age(119_000)),
            ("900 ms".to_owned(), "119 s".to_owned())
        );
    }
}
