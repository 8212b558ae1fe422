//! The date of answers (RFC 9110 §5.6.7, §6.6.1).

use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Bytes of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
const LEN: usize = 29;
/// The value of `Date`, written anew when its second is over.
#[derive(Clone, Debug)]
pub struct DateLine {
    unix_s: u64,
    text: [u8; LEN],
}

impl Default for DateLine {
    fn default() -> Self {
        Self {
            unix_s: 0,
            text: written(0),
        }
    }
}

impl DateLine {
    /// The date at this second since the Unix epoch.
    pub fn at(&mut self, unix_s: u64) -> &str {
        if unix_s != self.unix_s {
            *self = Self {
                unix_s,
                text: written(unix_s),
            };
        }
        // It is made of ASCII only.
        str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// Unix seconds of a date as answers have it (`Sun, 06 Nov 1994 08:49:37 GMT`).
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let at = OffsetDateTime::parse(text, &Rfc2822).ok()?;
    u64::try_from(at.unix_timestamp()).ok()
}

/// An e-mail's date in its 26 bytes before the zone; what lies behind the year 9999 is the epoch.
fn written(unix_s: u64) -> [u8; LEN] {
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    let mut text = [0; LEN + 2];
    let is_written = i64::try_from(unix_s)
        .ok()
        .and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok())
        .is_some_and(|at| at.format_into(&mut &mut text[..], &Rfc2822).is_ok());
    if is_written {
        out[..26].copy_from_slice(&text[..26]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_is_written_as_rfc_9110_has_it() {
        let mut line = DateLine::default();
        for (unix_s, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (253_402_300_800, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (u64::MAX, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(line.at(unix_s), text);
            assert_eq!(line.at(unix_s), text, "also where it is kept");
        }
    }
}
