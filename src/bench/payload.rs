//! The payload of a publication of the bench: a stamp that the receiving side checks in band, padded to the asked
//! size. It is a JSON value, so that every protocol carries it unescaped or escaped without touching the stamp.
//!
//! `{"b":"~CCCCCCCCSSSSSSSSTTTTTTTTTTTTTTTT~ text…"}`: channel, sequence and intended time as nibbles in the letters
//! `a` to `p`, which decode eight at a time without a table.

use memchr::{memchr, memchr2, memmem};

/// Bytes between the two marks.
const BODY: usize = 32;
/// Bytes from the first mark to the last, both included.
const STAMP: usize = BODY + 2;
const MARK: u8 = b'~';
const HEAD: &[u8] = b"{\"b\":\"";
const TAIL: &[u8] = b"\"}";

/// Pads a payload: text as a price feed has it, so that compression and patches have something to do that is neither one letter nor noise.
const FILLER: &[u8] = b" symbol=RMN.XN bid=104.25 ask=104.31 last=104.28 volume=482910 venue=north session=regular open=103.90 high=105.02 \
low=103.77 trades=1289 halted=no currency=EUR isin=XX0004711815 lot=50 tick=0.01 depth=5 source=primary latency=low";

/// The smallest payload that holds a stamp, in bytes.
pub(crate) const SIZE_MIN: usize = HEAD.len() + STAMP + TAIL.len();

/// Which publication this is, and when it ought to have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Index of the channel in the scenario.
    pub(crate) channel: u32,
    /// 0, 1, 2 … within the channel.
    pub(crate) sequence: u32,
    /// Nanoseconds since the start of the swarm.
    pub(crate) intended: u64,
}

/// What [`Stamps`] meets in the text of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// One delivery.
    Stamp(Stamp),
    /// A line that is exactly `{}`: the Centrifuge protocol's ping.
    Ping,
}

/// Appends a payload of `size` bytes; of [`SIZE_MIN`] if that is more.
pub(crate) fn write(stamp: Stamp, size: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(HEAD);
    out.push(MARK);
    out.extend_from_slice(&letters(stamp.channel));
    out.extend_from_slice(&letters(stamp.sequence));
    out.extend_from_slice(&letters((stamp.intended >> 32) as u32));
    out.extend_from_slice(&letters(stamp.intended as u32));
    out.push(MARK);
    let padding = FILLER.iter().cycle().take(size.saturating_sub(SIZE_MIN));
    out.extend(padding);
    out.extend_from_slice(TAIL);
}

/// The first stamp in `text`.
pub(crate) fn find(text: &[u8]) -> Option<Stamp> {
    let mut from = 0;
    while let Some(at) = memchr(MARK, &text[from..]) {
        if let Some(stamp) = read(&text[from + at..]) {
            return Some(stamp);
        }
        from += at + 1;
    }
    None
}

/// How many publications a text says that its reader did not get; 0 where it says nothing of the kind.
pub(crate) fn reported(text: &[u8]) -> u64 {
    let Some(at) = memmem::find(text, b"\"lost\":{") else {
        return 0;
    };
    let number = |name: &[u8]| {
        let found = memmem::find(&text[at..], name)?;
        let digits = text[at + found + name.len()..].iter();
        let digits = digits.take_while(|byte| byte.is_ascii_digit());
        Some(digits.fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    };
    let (dropped, conflated) = (number(b"\"publications\":"), number(b"\"conflated\":"));
    dropped.unwrap_or(0) + conflated.unwrap_or(0)
}

/// Where the only stamp of a frame was: most frames of a run look alike, and need not be searched.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usual {
    len: usize,
    at: usize,
}

impl Usual {
    /// The only stamp of `text`, if the text looks like the one learned. `None` says nothing about the text.
    #[inline]
    pub(crate) fn only_stamp(&self, text: &[u8]) -> Option<Stamp> {
        if text.len() != self.len || text.ends_with(b"\n{}") || text.starts_with(b"{}") {
            return None;
        }
        read(text.get(self.at..)?)
    }

    /// Learns from a text with one stamp and nothing else.
    pub(crate) fn learn(&mut self, text: &[u8]) {
        if let Some(at) = memchr(MARK, text).filter(|at| read(&text[*at..]).is_some()) {
            *self = Self {
                len: text.len(),
                at,
            };
        }
    }
}

/// Every stamp and every ping in the text of one frame, in order.
pub(crate) struct Stamps<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Stamps<'a> {
    /// Looks through `text`.
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }
}

impl Iterator for Stamps<'_> {
    type Item = Seen;

    fn next(&mut self) -> Option<Seen> {
        if self.at == 0 && is_ping(self.text) {
            self.at = 2;
            return Some(Seen::Ping);
        }
        while let Some(found) = memchr2(MARK, b'\n', &self.text[self.at..]) {
            let at = self.at + found;
            self.at = at + 1;
            if self.text[at] == MARK {
                if let Some(stamp) = read(&self.text[at..]) {
                    self.at = at + STAMP;
                    return Some(Seen::Stamp(stamp));
                }
            } else if is_ping(&self.text[at + 1..]) {
                return Some(Seen::Ping);
            }
        }
        self.at = self.text.len();
        None
    }
}

fn is_ping(line: &[u8]) -> bool {
    line.starts_with(b"{}") && matches!(line.get(2), None | Some(b'\n'))
}

fn read(text: &[u8]) -> Option<Stamp> {
    let stamp: &[u8; STAMP] = text.first_chunk()?;
    if stamp[0] != MARK || stamp[STAMP - 1] != MARK {
        return None;
    }
    let word = |at: usize| number(*stamp[1 + at..].first_chunk()?);
    Some(Stamp {
        channel: word(0)?,
        sequence: word(8)?,
        intended: u64::from(word(16)?) << 32 | u64::from(word(24)?),
    })
}

pub(super) fn letters(number: u32) -> [u8; 8] {
    std::array::from_fn(|i| b'a' + (number >> (28 - 4 * i) & 0xF) as u8)
}

pub(super) fn number(letters: [u8; 8]) -> Option<u32> {
    let nibbles = u64::from_be_bytes(letters).wrapping_sub(0x6161_6161_6161_6161);
    if nibbles & 0xF0F0_F0F0_F0F0_F0F0 != 0 {
        return None;
    }
    let bytes = (nibbles | nibbles >> 4) & 0x00FF_00FF_00FF_00FF;
    let halves = (bytes | bytes >> 8) & 0x0000_FFFF_0000_FFFF;
    Some((halves | halves >> 16) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_that_it_left_out_is_read() {
        let said = br#"{"push":{"message":{"data":{"lost":{"channel":"a","publications":12,"conflated":3,"from":1}}}}}"#;
        assert_eq!(reported(said), 15);
        assert_eq!(
            reported(br#"{"push":{"pub":{"data":{"publications":9}}}}"#),
            0
        );
    }

    const STAMPED: Stamp = Stamp {
        channel: 7,
        sequence: 0xDEAD_BEEF,
        intended: 0x0123_4567_89AB_CDEF,
    };

    #[test]
    fn stamp_survives_the_way_through_a_payload_of_the_asked_size() {
        for size in [SIZE_MIN, 128, 4096] {
            let mut out = Vec::new();
            write(STAMPED, size, &mut out);
            assert_eq!(out.len(), size);
            assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
            assert_eq!(find(&out), Some(STAMPED));
        }
    }

    #[test]
    fn every_stamp_and_ping_of_a_batch_is_seen_in_order() {
        let mut text = b"{\"push\":{\"channel\":\"a~b\",\"pub\":{\"data\":".to_vec();
        write(STAMPED, 128, &mut text);
        text.extend_from_slice(b"}}}\n{}\n{\"push\":");
        write(
            Stamp {
                sequence: 1,
                ..STAMPED
            },
            50,
            &mut text,
        );
        text.extend_from_slice(b"}\n{}");
        let seen: Vec<Seen> = Stamps::new(&text).collect();
        let second = Stamp {
            sequence: 1,
            ..STAMPED
        };
        assert_eq!(
            seen,
            [
                Seen::Stamp(STAMPED),
                Seen::Ping,
                Seen::Stamp(second),
                Seen::Ping
            ]
        );
    }

    #[test]
    fn usual_frame_is_read_without_a_search_and_an_unusual_one_is_left_alone() {
        let mut usual = Usual::default();
        let mut text = b"{\"push\":".to_vec();
        write(STAMPED, 64, &mut text);
        assert_eq!(usual.only_stamp(&text), None);
        usual.learn(&text);
        assert_eq!(usual.only_stamp(&text), Some(STAMPED));
        assert_eq!(usual.only_stamp(&[text.as_slice(), b"\n{}"].concat()), None);
        let len = text.len();
        text[len - 3..].copy_from_slice(b"\n{}");
        assert_eq!(usual.only_stamp(&text), None);
    }

    #[test]
    fn lone_ping_is_seen_and_other_objects_are_not() {
        assert_eq!(Stamps::new(b"{}").collect::<Vec<_>>(), [Seen::Ping]);
        assert_eq!(Stamps::new(b"{}{}").count(), 0);
        assert_eq!(Stamps::new(b"{\"id\":1}\n{ }").count(), 0);
    }

    #[test]
    fn cut_or_foreign_marks_are_no_stamp() {
        let mut text = Vec::new();
        write(STAMPED, 64, &mut text);
        for end in 0..HEAD.len() + STAMP {
            assert_eq!(find(&text[..end]), None);
        }
        assert_eq!(find(&[b"~".as_slice(), &[b'z'; 32], b"~"].concat()), None);
    }
}
