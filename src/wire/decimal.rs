//! Decimal numbers as their digits, compared digit by digit: there is no rounding at any length.

use std::cmp::Ordering;

/// `0.digits × 10^magnitude`, with a sign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// Never set for zero.
    negative: bool,
    /// Places of the point to the right of the first digit; 0 for zero.
    magnitude: i64,
    /// Without zeros at either end; empty for zero.
    digits: Box<str>,
}

impl Decimal {
    /// `-12.50`, `+7`, `.5`, `3.`: no exponent.
    #[must_use]
    pub fn plain(text: &str) -> Option<Self> {
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        Self::of_parts(text.starts_with('-'), unsigned, 0)
    }

    /// A number as JSON has it, with or without an exponent. One beyond all bounds is larger, or nearer to zero, than any other.
    #[must_use]
    pub fn of_json(text: &str) -> Option<Self> {
        /// Far beyond what a text that fits a memory can shift by its digits.
        const EXPONENT_BEYOND_ALL: i64 = 1 << 60;
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let (number, exponent) = match unsigned.split_once(['e', 'E']) {
            None => (unsigned, 0),
            Some((number, exponent)) => {
                let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
                if digits.is_empty() || !are_digits(digits) {
                    return None;
                }
                let size = digits
                    .parse()
                    .unwrap_or(EXPONENT_BEYOND_ALL)
                    .min(EXPONENT_BEYOND_ALL);
                let negative = exponent.starts_with('-');
                (number, if negative { -size } else { size })
            }
        };
        Self::of_parts(text.starts_with('-'), number, exponent)
    }

    /// One that `plain` has read, as it reads it again.
    #[must_use]
    pub fn to_plain(&self) -> String {
        let Self {
            negative,
            magnitude,
            digits,
        } = self;
        let zeros = |count: u64| "0".repeat(count as usize);
        let sign = if *negative { "-" } else { "" };
        let places = digits.len() as i64;
        match usize::try_from(*magnitude) {
            Ok(0) if digits.is_empty() => "0".to_owned(),
            Ok(whole) if *magnitude < places => {
                let (whole, fraction) = digits.split_at(whole);
                format!("{sign}{whole}.{fraction}")
            }
            Ok(_) => format!("{sign}{digits}{}", zeros(magnitude.abs_diff(places))),
            Err(_) => format!("{sign}.{}{digits}", zeros(magnitude.unsigned_abs())),
        }
    }

    fn of_parts(negative: bool, number: &str, exponent: i64) -> Option<Self> {
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || !are_digits(whole) || !are_digits(fraction) {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let (digits, places) = if whole.is_empty() {
            let digits = fraction.trim_start_matches('0');
            let zeros = fraction.len() - digits.len();
            (digits.into(), -i64::try_from(zeros).ok()?)
        } else {
            let digits = if fraction.is_empty() {
                whole.trim_end_matches('0').into()
            } else {
                [whole, fraction].concat().into_boxed_str()
            };
            (digits, i64::try_from(whole.len()).ok()?)
        };
        let digits: Box<str> = digits;
        let is_zero = digits.is_empty();
        Some(Self {
            negative: negative && !is_zero,
            magnitude: if is_zero {
                0
            } else {
                places.saturating_add(exponent)
            },
            digits,
        })
    }

    /// How two numbers compare.
    #[must_use]
    pub fn order(&self, other: &Self) -> Ordering {
        self.sign().cmp(&other.sign()).then_with(|| {
            let size = self
                .magnitude
                .cmp(&other.magnitude)
                .then_with(|| self.digits.cmp(&other.digits));
            if self.negative { size.reverse() } else { size }
        })
    }

    const fn sign(&self) -> i8 {
        if self.digits.is_empty() {
            0
        } else if self.negative {
            -1
        } else {
            1
        }
    }
}

fn are_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_number_is_written_as_it_is_read() {
        for (text, written) in [
            ("0", "0"),
            ("-0.0", "0"),
            ("7", "7"),
            ("-12.50", "-12.5"),
            ("+1200", "1200"),
            (".005", ".005"),
            (".5", ".5"),
            ("-3.", "-3"),
            ("10.01", "10.01"),
        ] {
            let number = Decimal::plain(text).unwrap();
            assert_eq!(number.to_plain(), written);
            assert_eq!(Decimal::plain(written), Some(number), "{text}");
        }
    }

    #[test]
    fn numbers_with_exponents_compare_exactly_at_any_size() {
        let ascending = [
            "-1e999999999999999999999",
            "-1e400",
            "-100000000000000000000.5",
            "-1",
            "-1e-400",
            "0",
            "1e-99999999999999999999999",
            "1e-400",
            "0.001",
            "1.5e-1",
            "1",
            "9.0071992547409925e15",
            "9007199254740993",
            "1e16",
            "1e400",
            "12e400",
            "1e99999999999999999999999",
        ];
        for (at, low) in ascending.iter().enumerate() {
            for (other, high) in ascending.iter().enumerate() {
                let number = |text| Decimal::of_json(text).expect("a number");
                assert_eq!(
                    number(low).order(&number(high)),
                    at.cmp(&other),
                    "{low} {high}"
                );
            }
        }
        for (one, other) in [
            ("1e2", "100"),
            ("1.50E+1", "15"),
            ("0e5", "-0.0"),
            ("10e-1", "1"),
        ] {
            assert_eq!(Decimal::of_json(one), Decimal::of_json(other), "{one}");
        }
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in [
            "", "-", "e5", "1e", "1e+", "1e5.5", "x", "1_0", "1.2.3", "--1",
        ] {
            assert_eq!(Decimal::of_json(text), None, "{text}");
        }
        assert_eq!(Decimal::plain("1e3"), None);
    }
}
