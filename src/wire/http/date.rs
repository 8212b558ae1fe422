//! The date of answers (RFC 9110 §5.6.7, §6.6.1).

/// Bytes of a date: `Sun, 06 Nov 1994 08:49:37 GMT`.
const LEN: usize = 29;
const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

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

fn written(unix_s: u64) -> [u8; LEN] {
    let (days, second) = (unix_s / 86_400, unix_s % 86_400);
    let (year, month, day) = civil(days);
    let mut out = *b"Thu, 01 Jan 1970 00:00:00 GMT";
    out[..3].copy_from_slice(DAYS[(days % 7) as usize]);
    digits(&mut out[5..7], day);
    out[8..11].copy_from_slice(MONTHS[month as usize]);
    digits(&mut out[12..16], year);
    digits(&mut out[17..19], second / 3600);
    digits(&mut out[20..22], second / 60 % 60);
    digits(&mut out[23..25], second % 60);
    out
}

fn digits(out: &mut [u8], mut value: u64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Year, month from 0 and day from 1 of a day since the Unix epoch. Years are counted from March, so that the day that a
/// leap year adds is its last.
const fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = era * 400 + year + if month < 2 { 1 } else { 0 };
    (year, month, day)
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
        ] {
            assert_eq!(line.at(unix_s), text);
            assert_eq!(line.at(unix_s), text, "also where it is kept");
        }
    }
}
