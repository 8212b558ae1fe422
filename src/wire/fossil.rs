//! Fossil delta: a payload as a patch of the one before it (`spec/centrifuge.md` §4.8).

use crate::limits::FOSSIL_BYTES_MAX;

/// Digits of the integers in a patch, most significant first.
const DIGITS: &[u8; 64] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~";
/// Digits of the largest integer, 2^32 − 1.
const DIGITS_MAX: usize = 6;
/// Bytes that are looked up at once: shorter matches are hardly worth their command.
const WINDOW: usize = 8;
/// Places of the source that are remembered; of two that fall together the later one is.
const PLACES_KEPT: usize = 1 << 16;

/// Why a patch does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// It does not follow the grammar, or ends too early.
    #[error("malformed patch")]
    Malformed,
    /// Its target is larger than the bound.
    #[error("the patch makes more than it may")]
    TooLarge,
    /// It copies what the source does not have.
    #[error("the patch copies past the end of its source")]
    PastSource,
    /// It makes more or less than it says.
    #[error("the patch makes another length than it says")]
    Length,
    /// It was made for another source.
    #[error("the patch belongs to another source")]
    Checksum,
}

/// The patch that makes `target` out of `source`. `None` if it would not be shorter than the target, or either is larger
/// than `FOSSIL_BYTES_MAX`. If the target is UTF-8, so is the patch.
///
/// Takes time and memory in proportion to both lengths: one place of the source is compared at each place of the target, and
/// what is found equal is not looked at again.
#[must_use]
pub fn create(source: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if source.len().max(target.len()) > FOSSIL_BYTES_MAX {
        return None;
    }
    let prefix = source.iter().zip(target).take_while(|(a, b)| a == b);
    let prefix = prefix.count();
    let common = source[prefix..].iter().rev();
    let common = common.zip(target[prefix..].iter().rev());
    let suffix = common.take_while(|(a, b)| a == b).count();

    let mut patch = Patch::new(target, simdutf8::basic::from_utf8(target).is_ok());
    patch.copy(0, 0, prefix);
    let until = target.len() - suffix;
    if until - prefix >= WINDOW {
        patch.middle(source, prefix, until);
    }
    patch.copy(source.len() - suffix, until, suffix);
    patch.end()
}

/// The target that `patch` makes out of `source`, at most `bytes_max` bytes of it.
///
/// # Errors
/// See `PatchError`.
pub fn apply(source: &[u8], patch: &[u8], bytes_max: usize) -> Result<Vec<u8>, PatchError> {
    let mut rest = PatchReader(patch);
    let len = rest.integer()? as usize;
    if len > bytes_max {
        return Err(PatchError::TooLarge);
    }
    if rest.byte()? != b'\n' {
        return Err(PatchError::Malformed);
    }
    let mut target = Vec::with_capacity(len);
    loop {
        let count = rest.integer()?;
        let piece = match rest.byte()? {
            b'@' => {
                let from = rest.integer()? as usize;
                if rest.byte()? != b',' {
                    return Err(PatchError::Malformed);
                }
                let past = PatchError::PastSource;
                let end = from.checked_add(count as usize).ok_or(past)?;
                source.get(from..end).ok_or(past)?
            }
            b':' => rest.take(count as usize)?,
            b';' if target.len() != len => return Err(PatchError::Length),
            b';' if checksum(&target) != count => return Err(PatchError::Checksum),
            b';' => return Ok(target),
            _ => return Err(PatchError::Malformed),
        };
        if piece.len() > len - target.len() {
            return Err(PatchError::Length);
        }
        target.extend_from_slice(piece);
    }
}

/// A patch while it is made.
struct Patch<'t> {
    target: &'t [u8],
    /// Pieces begin and end where characters do.
    is_text: bool,
    /// The target is told up to here.
    told: usize,
    out: Vec<u8>,
}

impl<'t> Patch<'t> {
    fn new(target: &'t [u8], is_text: bool) -> Self {
        let mut out = Vec::with_capacity(64);
        integer(&mut out, target.len() as u32);
        out.push(b'\n');
        Self {
            target,
            is_text,
            told: 0,
            out,
        }
    }

    /// Tells the target between `prefix` and `until`, whose neighbours on both sides are equal to the source's ends.
    fn middle(&mut self, source: &[u8], prefix: usize, until: usize) {
        let places = WindowPlaces::new(source);
        // Where the source would go on if what is not found were a change in place.
        let mut shift = 0_isize;
        let mut at = prefix;
        while at + WINDOW <= until {
            let window = &self.target[at..at + WINDOW];
            let same = |from: &usize| source.get(*from..from + WINDOW) == Some(window);
            let in_place = at.checked_add_signed(shift).filter(same);
            let Some(from) = in_place.or_else(|| places.find(window).filter(same)) else {
                at += 1;
                continue;
            };
            let back = self.target[self.told..at].iter().rev();
            let back = back.zip(source[..from].iter().rev());
            let back = back.take_while(|(a, b)| a == b).count();
            let ahead = self.target[at..until].iter().zip(&source[from..]);
            let ahead = ahead.take_while(|(a, b)| a == b).count();
            if self.copy(from - back, at - back, back + ahead) {
                shift = from as isize - at as isize;
            }
            // What was equal lies behind, copied or not: nothing is compared twice.
            at += ahead;
        }
    }

    /// Copies `len` bytes that the source has at `from` and the target at `to`, if that is shorter than to tell them.
    fn copy(&mut self, mut from: usize, mut to: usize, mut len: usize) -> bool {
        if self.is_text {
            while len > 0 && !self.is_boundary(to) {
                (from, to, len) = (from + 1, to + 1, len - 1);
            }
            while len > 0 && !self.is_boundary(to + len) {
                len -= 1;
            }
        }
        if len <= digits(len as u32) + digits(from as u32) + 2 {
            return false;
        }
        self.insert_until(to);
        integer(&mut self.out, len as u32);
        self.out.push(b'@');
        integer(&mut self.out, from as u32);
        self.out.push(b',');
        self.told = to + len;
        true
    }

    /// Does a character of the target begin at `at`?
    fn is_boundary(&self, at: usize) -> bool {
        self.target.get(at).is_none_or(|&byte| byte & 0xc0 != 0x80)
    }

    fn insert_until(&mut self, end: usize) {
        if self.told < end {
            integer(&mut self.out, (end - self.told) as u32);
            self.out.push(b':');
            self.out.extend_from_slice(&self.target[self.told..end]);
            self.told = end;
        }
    }

    fn end(mut self) -> Option<Vec<u8>> {
        self.insert_until(self.target.len());
        integer(&mut self.out, checksum(self.target));
        self.out.push(b';');
        (self.out.len() < self.target.len()).then_some(self.out)
    }
}

/// Where windows of the source begin, by hash.
struct WindowPlaces {
    /// Place + 1; 0 for none. The length is a power of two.
    table: Vec<u32>,
    shift: u32,
}

impl WindowPlaces {
    fn new(source: &[u8]) -> Self {
        let len = source.len().next_power_of_two().clamp(2, PLACES_KEPT);
        let mut places = Self {
            table: vec![0; len],
            shift: 64 - len.trailing_zeros(),
        };
        for (at, window) in source.windows(WINDOW).enumerate() {
            let slot = places.slot(window);
            places.table[slot] = at as u32 + 1;
        }
        places
    }

    fn slot(&self, window: &[u8]) -> usize {
        let mut bytes = [0; WINDOW];
        bytes.copy_from_slice(window);
        (u64::from_le_bytes(bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    fn find(&self, window: &[u8]) -> Option<usize> {
        (self.table[self.slot(window)] as usize).checked_sub(1)
    }
}

struct PatchReader<'p>(&'p [u8]);

impl<'p> PatchReader<'p> {
    fn byte(&mut self) -> Result<u8, PatchError> {
        let (&byte, rest) = self.0.split_first().ok_or(PatchError::Malformed)?;
        self.0 = rest;
        Ok(byte)
    }

    fn take(&mut self, count: usize) -> Result<&'p [u8], PatchError> {
        let (taken, rest) = self
            .0
            .split_at_checked(count)
            .ok_or(PatchError::Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn integer(&mut self) -> Result<u32, PatchError> {
        let is_digit =
            |byte: &&u8| matches!(byte, b'0'..=b'9' | b'A'..=b'Z' | b'_' | b'a'..=b'z' | b'~');
        let count = self
            .0
            .iter()
            .take(DIGITS_MAX + 1)
            .take_while(is_digit)
            .count();
        if count == 0 || count > DIGITS_MAX {
            return Err(PatchError::Malformed);
        }
        let digit = |value: u64, &byte: &u8| {
            let place = match byte {
                b'0'..=b'9' => byte - b'0',
                b'A'..=b'Z' => byte - b'A' + 10,
                b'_' => 36,
                b'a'..=b'z' => byte - b'a' + 37,
                _ => 63,
            };
            value << 6 | u64::from(place)
        };
        let value = self.take(count)?.iter().fold(0, digit);
        u32::try_from(value).map_err(|_over| PatchError::Malformed)
    }
}

/// Digits of a number.
const fn digits(value: u32) -> usize {
    let bits = 32 - value.leading_zeros() as usize;
    if bits == 0 { 1 } else { bits.div_ceil(6) }
}

fn integer(out: &mut Vec<u8>, value: u32) {
    for place in (0..digits(value)).rev() {
        out.push(DIGITS[(u64::from(value) >> (6 * place)) as usize & 63]);
    }
}

/// The sum of big-endian words, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    let sum = |sum: u32, word: &[u8; 4]| sum.wrapping_add(u32::from_be_bytes(*word));
    words.iter().fold(u32::from_be_bytes(last), sum)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    const SOURCE: &[u8] = br#"{"text":"the quick brown fox","n":1}"#;
    const TARGET: &[u8] = br#"{"text":"the quick brown fox","n":2}"#;
    const PATCH: &[u8] = b"_\nY@0,2:2}1m8y2W;";

    #[test]
    fn patch_looks_as_the_protocol_describes_it() {
        assert_eq!(create(SOURCE, TARGET).as_deref(), Some(PATCH));
        assert_eq!(apply(SOURCE, PATCH, TARGET.len()).as_deref(), Ok(TARGET));
    }

    #[test]
    fn patch_that_is_not_shorter_is_none() {
        assert_eq!(create(b"", b""), None);
        assert_eq!(create(b"{}", b"{\"a\":1}"), None);
        assert_eq!(
            create(SOURCE, b"0123456789012345678901234567890123456789"),
            None
        );
        assert_eq!(create(SOURCE, b""), None);
    }

    #[test]
    fn payload_over_the_bound_gets_no_patch() {
        let most = vec![b'a'; FOSSIL_BYTES_MAX];
        let over = vec![b'a'; FOSSIL_BYTES_MAX + 1];
        assert!(create(&most, &most).is_some());
        assert!(create(&most, &over).is_none() && create(&over, &most).is_none());
    }

    #[test]
    fn moved_and_repeated_pieces_are_copied() {
        let words: Vec<String> = (0..60)
            .map(|n| format!("word number {n} of many; "))
            .collect();
        let source = words.concat();
        let target = [&words[40..], &words[..10], &words[40..]].concat().concat();
        let patch = create(source.as_bytes(), target.as_bytes()).unwrap();
        assert!(patch.len() < target.len() / 4, "{} bytes", patch.len());
        assert_eq!(
            apply(source.as_bytes(), &patch, target.len()),
            Ok(target.into_bytes())
        );
    }

    #[test]
    fn changes_in_many_places_cost_little_more_than_the_changes() {
        let row = |n: u32, price: u32| format!(r#"{{"id":{n},"name":"item","price":{price}}},"#);
        let source: String = (0..100).map(|n| row(n, 1000 + n)).collect();
        let target: String = (0..100).map(|n| row(n, 1000 + n + n / 10 % 2)).collect();
        let patch = create(source.as_bytes(), target.as_bytes()).unwrap();
        assert!(
            patch.len() < target.len() / 4,
            "{} of {}",
            patch.len(),
            target.len()
        );
        assert_eq!(
            apply(source.as_bytes(), &patch, target.len()),
            Ok(target.into_bytes())
        );
    }

    #[test]
    fn characters_are_never_cut() {
        // Every pair of characters shares its first or its last byte.
        let (source, target) = (
            "\u{e9}".repeat(30) + "\u{129}",
            "\u{e9}".repeat(30) + "\u{e8}",
        );
        let patch = create(source.as_bytes(), target.as_bytes()).unwrap();
        assert!(str::from_utf8(&patch).is_ok());
        assert_eq!(
            apply(source.as_bytes(), &patch, 100),
            Ok(target.into_bytes())
        );
    }

    #[test]
    fn broken_patches_are_refused_each_for_its_reason() {
        for (patch, why) in [
            (&b""[..], PatchError::Malformed),
            (b"_", PatchError::Malformed),
            (b"\n", PatchError::Malformed),
            (b"_ Y@0,", PatchError::Malformed),
            (b"_\n", PatchError::Malformed),
            (b"_\nY@0,2:2}1m8y2W", PatchError::Malformed),
            (b"_\nY@0;2:2}1m8y2W;", PatchError::Malformed),
            (b"_\nY@0,2:2", PatchError::Malformed),
            (b"_\nY?0,2:2}1m8y2W;", PatchError::Malformed),
            (b"_\n@0,2:2}1m8y2W;", PatchError::Malformed),
            (b"0000000\n0;", PatchError::Malformed),
            (b"~~~~~~\n0;", PatchError::Malformed),
            (b"a\n0;", PatchError::TooLarge),
            (b"3~~~~~\n0;", PatchError::TooLarge),
            (b"_\nY@3,2:2}1m8y2W;", PatchError::PastSource),
            (b"_\nY@3~~~~~,2:2}1m8y2W;", PatchError::PastSource),
            (b"_\nY@0,1m8y2W;", PatchError::Length),
            (b"Z\nY@0,2:2}1m8y2W;", PatchError::Length),
            (b"_\nY@0,2:3}1m8y2W;", PatchError::Checksum),
            (b"_\nY@0,2:2}1m8y2X;", PatchError::Checksum),
        ] {
            let text = String::from_utf8_lossy(patch);
            assert_eq!(apply(SOURCE, patch, TARGET.len()), Err(why), "{text}");
        }
    }

    #[test]
    fn numbers_have_as_few_digits_as_they_need() {
        for (value, text) in [
            (0, "0"),
            (9, "9"),
            (10, "A"),
            (35, "Z"),
            (36, "_"),
            (37, "a"),
            (62, "z"),
            (63, "~"),
            (64, "10"),
            (4095, "~~"),
            (4096, "100"),
            (u32::MAX, "3~~~~~"),
        ] {
            let mut out = Vec::new();
            integer(&mut out, value);
            assert_eq!(str::from_utf8(&out), Ok(text));
            assert_eq!(PatchReader(&out).integer(), Ok(value));
        }
    }

    /// Each vector: what the decoder of npm `centrifuge` makes of a patch, `None` where it throws.
    #[test]
    fn patches_apply_as_the_sdk_applies_them() {
        #[derive(serde::Deserialize)]
        struct Vector {
            what: String,
            source: String,
            patch: String,
            target: Option<String>,
        }
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../tests/vectors/fossil.json")).unwrap();
        assert!(vectors.len() > 100);
        let bytes = |text: &str| STANDARD.decode(text).unwrap();
        for vector in vectors {
            let made = apply(&bytes(&vector.source), &bytes(&vector.patch), 1 << 20);
            let wanted = vector.target.as_deref().map(bytes);
            assert_eq!(made.as_ref().ok(), wanted.as_ref(), "{}", vector.what);
            // Our own patch of the same pair makes the same target.
            if let Some(target) = wanted
                && let Some(patch) = create(&bytes(&vector.source), &target)
            {
                assert_eq!(apply(&bytes(&vector.source), &patch, 1 << 20), Ok(target));
            }
        }
    }

    /// A text and an edited copy of it.
    fn pair() -> impl Strategy<Value = (String, String)> {
        let piece = prop_oneof![
            "[a-c]{0,12}",
            "\\PC{0,8}",
            Just("a longer piece that comes again".to_owned())
        ];
        let pieces = prop::collection::vec(piece, 1..12);
        let picks = prop::collection::vec((any::<prop::sample::Index>(), "\\PC{0,3}"), 0..16);
        (pieces, picks).prop_map(|(pieces, picks)| {
            let target = picks
                .iter()
                .map(|(at, text)| at.get(&pieces).clone() + text);
            (pieces.concat(), target.collect())
        })
    }

    proptest! {
        #[test]
        fn every_patch_makes_its_target((source, target) in pair()) {
            if let Some(patch) = create(source.as_bytes(), target.as_bytes()) {
                prop_assert!(patch.len() < target.len());
                prop_assert!(str::from_utf8(&patch).is_ok());
                prop_assert_eq!(apply(source.as_bytes(), &patch, target.len()), Ok(target.into_bytes()));
            }
        }

        #[test]
        fn bytes_that_are_no_text_survive(
            source in prop::collection::vec(0x7e_u8..0xc4, 0..200),
            cut in 0_usize..200, insert in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let cut = cut.min(source.len());
            let target = [&source[..cut], &insert, &source[cut..]].concat();
            if let Some(patch) = create(&source, &target) {
                prop_assert_eq!(apply(&source, &patch, target.len()), Ok(target));
            }
        }

        #[test]
        fn hostile_patches_never_panic_and_never_make_more_than_the_bound(
            source: Vec<u8>, patch: Vec<u8>, grammar in "[0-9A-Za-z_~]{1,6}\n([0-9A-Z]{1,6}[@:;,][0-9a-z,:]{0,6}){0,6}",
        ) {
            for patch in [&patch[..], grammar.as_bytes()] {
                if let Ok(target) = apply(&source, patch, 1000) {
                    prop_assert!(target.len() <= 1000);
                }
            }
        }

        #[test]
        fn damaged_patches_never_panic((source, target) in pair(), at: prop::sample::Index, byte: u8) {
            if let Some(mut patch) = create(source.as_bytes(), target.as_bytes()) {
                let at = at.index(patch.len());
                patch[at] = byte;
                let _ = apply(source.as_bytes(), &patch, target.len());
            }
        }
    }
}
