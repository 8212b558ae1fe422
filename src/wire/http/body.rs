//! Request bodies as they arrive (RFC 9112 §6.3, §7.1): each byte is looked at once, however a body is cut.

use httparse::Status;

use super::{BodyLength, HttpError};
use crate::limits::{CHUNK_FRAMING_BYTES_MAX, HTTP_HEADERS_MAX};

/// Reads one body: knows where it ends, and keeps nothing of its data.
#[derive(Debug, PartialEq, Eq)]
pub struct BodyReader {
    /// Bytes of data that the body may still have.
    pub(super) room: usize,
    pub(super) state: Reading,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// So many bytes of data are left, and nothing else.
    Length(u64),
    Chunks(Box<Chunks>),
    /// Nothing is left.
    Nothing,
}

/// Where a chunked body stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chunks {
    pub(super) at: BodyPlace,
    /// The size line or the trailers, as far as they have come.
    pub(super) line: Vec<u8>,
    /// Bytes of framing that the body may still have.
    pub(super) framing: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPlace {
    /// In a size line.
    Size,
    /// In a chunk's data: so many bytes are left.
    Data(usize),
    /// Behind a chunk's data, where a CRLF is: so many bytes of it have come.
    DataEnd(u8),
    /// Behind the last chunk, in lines that end with an empty one.
    Trailers,
}

impl BodyReader {
    /// A body of this length, of which at most `bytes_max` are taken.
    pub fn new(length: BodyLength, bytes_max: usize) -> Result<Self, HttpError> {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => Reading::Nothing,
            BodyLength::Length(length) if length > bytes_max as u64 => {
                return Err(HttpError::BodyTooLarge);
            }
            BodyLength::Length(length) => Reading::Length(length),
            BodyLength::Chunked => Reading::Chunks(Box::new(Chunks {
                at: BodyPlace::Size,
                line: Vec::new(),
                framing: CHUNK_FRAMING_BYTES_MAX,
            })),
        };
        Ok(Self {
            room: bytes_max,
            state,
        })
    }

    /// The whole body has been read.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, Reading::Nothing)
    }

    /// Bytes that are left of a body whose length is known.
    #[must_use]
    pub const fn left(&self) -> Option<u64> {
        match &self.state {
            Reading::Length(left) => Some(*left),
            Reading::Nothing => Some(0),
            Reading::Chunks(_) => None,
        }
    }

    /// Bytes that the reader itself holds.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        match &self.state {
            Reading::Chunks(chunks) => chunks.line.capacity(),
            Reading::Length(_) | Reading::Nothing => 0,
        }
    }

    /// Reads what is of the body at the front of `input` and gives its data to `sink`, piece by piece. Returns the bytes read:
    /// all of them, unless the body has ended before.
    pub fn read(&mut self, input: &[u8], mut sink: impl FnMut(&[u8])) -> Result<usize, HttpError> {
        match &mut self.state {
            Reading::Nothing => Ok(0),
            Reading::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(input.len());
                sink(&input[..taken]);
                *left -= taken as u64;
                if *left == 0 {
                    self.state = Reading::Nothing;
                }
                Ok(taken)
            }
            Reading::Chunks(chunks) => {
                let (used, done) = chunks.read(input, &mut self.room, &mut sink)?;
                if done {
                    self.state = Reading::Nothing;
                }
                Ok(used)
            }
        }
    }
}

impl Chunks {
    /// The same. True once the body has ended.
    fn read(
        &mut self,
        input: &[u8],
        room: &mut usize,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<(usize, bool), HttpError> {
        let mut used = 0;
        while used < input.len() {
            let rest = &input[used..];
            match self.at {
                BodyPlace::Data(left) => {
                    let taken = left.min(rest.len());
                    sink(&rest[..taken]);
                    used += taken;
                    self.at = match left - taken {
                        0 => BodyPlace::DataEnd(0),
                        left => BodyPlace::Data(left),
                    };
                }
                BodyPlace::DataEnd(come) => {
                    if rest[0] != b"\r\n"[usize::from(come)] {
                        return Err(HttpError::BadRequest);
                    }
                    self.spend(1)?;
                    used += 1;
                    self.at = match come {
                        0 => BodyPlace::DataEnd(1),
                        _ => BodyPlace::Size,
                    };
                }
                BodyPlace::Size => {
                    // `httparse` reads a line without a digit as zero.
                    if self.line.is_empty() && !rest[0].is_ascii_hexdigit() {
                        return Err(HttpError::BadRequest);
                    }
                    // Nearly every size line comes whole: it is read where it lies.
                    if self.line.is_empty()
                        && let Some(end) = memchr::memchr(b'\n', rest)
                    {
                        let line = &rest[..=end];
                        self.spend(line.len())?;
                        if !line.ends_with(b"\r\n") {
                            return Err(HttpError::BadRequest);
                        }
                        self.at = size(line, room)?;
                        used += line.len();
                        continue;
                    }
                    let (taken, whole) = self.take_line(rest)?;
                    used += taken;
                    if whole {
                        self.at = size(&self.line, room)?;
                        self.line = Vec::new();
                    }
                }
                BodyPlace::Trailers => {
                    let before = self.line.len();
                    let (taken, whole) = self.take_line(rest)?;
                    used += taken;
                    let is_last = self.line == b"\r\n" || self.line.ends_with(b"\r\n\r\n");
                    if whole && is_last {
                        check_trailers(&self.line)?;
                        self.line = Vec::new();
                        return Ok((used, true));
                    }
                    debug_assert!(self.line.len() > before, "each turn takes something");
                }
            }
        }
        Ok((used, false))
    }

    /// Moves bytes up to the end of a line into `line`. True if that end is there.
    fn take_line(&mut self, input: &[u8]) -> Result<(usize, bool), HttpError> {
        let end = memchr::memchr(b'\n', input);
        let taken = end.map_or(input.len(), |at| at + 1);
        self.spend(taken)?;
        self.line.extend_from_slice(&input[..taken]);
        // Another reader might not take a bare line feed for the end of a line.
        if end.is_some() && !self.line.ends_with(b"\r\n") {
            return Err(HttpError::BadRequest);
        }
        Ok((taken, end.is_some()))
    }

    fn spend(&mut self, bytes: usize) -> Result<(), HttpError> {
        self.framing = self
            .framing
            .checked_sub(bytes)
            .ok_or(HttpError::BodyTooLarge)?;
        Ok(())
    }
}

/// What follows a whole size line.
fn size(line: &[u8], room: &mut usize) -> Result<BodyPlace, HttpError> {
    let Ok(Status::Complete((_, size))) = httparse::parse_chunk_size(line) else {
        return Err(HttpError::BadRequest);
    };
    if size == 0 {
        return Ok(BodyPlace::Trailers);
    }
    let left = usize::try_from(size)
        .ok()
        .and_then(|size| room.checked_sub(size));
    *room = left.ok_or(HttpError::BodyTooLarge)?;
    Ok(BodyPlace::Data(size as usize))
}

/// Trailers are looked at and dropped.
fn check_trailers(lines: &[u8]) -> Result<(), HttpError> {
    let mut trailers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    match httparse::parse_headers(lines, &mut trailers) {
        Ok(Status::Complete(_)) => Ok(()),
        Err(httparse::Error::TooManyHeaders) => Err(HttpError::TooManyHeaders),
        Ok(Status::Partial) | Err(_) => Err(HttpError::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const MAX: usize = 4 << 20;

    /// Data and what is behind it, once the body is whole.
    type Read = Result<Option<(Vec<u8>, Vec<u8>)>, HttpError>;

    /// The data of the chunked body at the front of these pieces, and what is behind it.
    fn read_all(pieces: &[&[u8]]) -> Read {
        let mut reader = BodyReader::new(BodyLength::Chunked, MAX)?;
        let (mut data, mut behind) = (Vec::new(), Vec::new());
        for piece in pieces {
            let used = reader.read(piece, |bytes| data.extend_from_slice(bytes))?;
            assert!(used == piece.len() || reader.is_done());
            behind.extend_from_slice(&piece[used..]);
        }
        Ok(reader.is_done().then_some((data, behind)))
    }

    fn decoded(wire: &[u8]) -> Read {
        let whole = read_all(&[wire]);
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(whole, read_all(&bytes), "however it is cut");
        whole
    }

    fn chunked(chunks: &[Vec<u8>], extension: &str, trailers: &str) -> Vec<u8> {
        let mut wire = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            wire.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            wire.extend_from_slice(chunk);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
        wire
    }

    #[test]
    fn body_of_a_known_length_ends_where_it_says() {
        let mut reader = BodyReader::new(BodyLength::Length(5), 5).unwrap();
        let mut data = Vec::new();
        assert_eq!(reader.left(), Some(5));
        assert_eq!(
            reader.read(b"ab", |bytes| data.extend_from_slice(bytes)),
            Ok(2)
        );
        assert!(!reader.is_done() && reader.left() == Some(3));
        assert_eq!(
            reader.read(b"cdeGET", |bytes| data.extend_from_slice(bytes)),
            Ok(3)
        );
        assert!(reader.is_done() && data == b"abcde");
        assert_eq!(reader.read(b"GET", |_| unreachable!()), Ok(0));
        assert!(BodyReader::new(BodyLength::None, 0).unwrap().is_done());
        assert_eq!(
            BodyReader::new(BodyLength::Length(6), 5),
            Err(HttpError::BodyTooLarge)
        );
    }

    #[test]
    fn chunks_extensions_and_trailers_are_read() {
        let wire = b"4;a=b\r\nWiki\r\n5 \r\npedia\r\n0\r\nA: b\r\n\r\nGET";
        let wanted = (b"Wikipedia".to_vec(), b"GET".to_vec());
        assert_eq!(decoded(wire), Ok(Some(wanted)));
        assert_eq!(decoded(b"0\r\n\r\n"), Ok(Some((Vec::new(), Vec::new()))));
    }

    #[test]
    fn chunk_that_could_end_elsewhere_is_refused() {
        for wire in [
            &b"\r\n\r\n"[..],
            b";a\r\n",
            b"4\nWiki",
            b"4;a\nb\r\nWiki",
            b"4\r\nWikiX",
            b"4\r\nWiki\n",
            b"4\r\nWiki\rX",
            b"0x4\r\n",
            b"-4\r\n",
            b"4 4\r\n",
            b"0\r\nA: b\n\r\n",
            b"0\r\n A: b\r\n\r\n",
            b"0\r\nA : b\r\n\r\n",
            b"0\r\n\n",
            b"00000000000000001\r\n",
        ] {
            let text = wire.escape_ascii().to_string();
            assert_eq!(decoded(wire), Err(HttpError::BadRequest), "{text}");
        }
    }

    #[test]
    fn body_at_the_limit_passes_and_beyond_it_is_refused_before_it_arrives() {
        let half = vec![b'a'; MAX / 2];
        let wire = chunked(&[half.clone(), half.clone()], "", "");
        assert_eq!(read_all(&[&wire]).unwrap().unwrap().0.len(), MAX);
        for size in ["400001", "FFFFFFFFFFFFFFFF"] {
            let line = format!("{size}\r\n");
            assert_eq!(decoded(line.as_bytes()), Err(HttpError::BodyTooLarge));
        }
        let wire = chunked(&[half, vec![b'a'; MAX / 2 + 1]], "", "");
        assert_eq!(
            read_all(&[&wire[..MAX / 2 + 100]]),
            Err(HttpError::BodyTooLarge)
        );
    }

    #[test]
    fn framing_is_bounded_apart_from_the_data() {
        let crumbs = vec![vec![b'a']; CHUNK_FRAMING_BYTES_MAX / 5];
        assert_eq!(
            decoded(&chunked(&crumbs, "", "")),
            Err(HttpError::BodyTooLarge)
        );
        let fewer = &crumbs[..crumbs.len() - 2];
        let (data, _) = decoded(&chunked(fewer, "", "")).unwrap().unwrap();
        assert_eq!(data.len(), fewer.len());
        let endless_extension = [b"1;", &[b'x'; CHUNK_FRAMING_BYTES_MAX][..]].concat();
        assert_eq!(decoded(&endless_extension), Err(HttpError::BodyTooLarge));
        assert_eq!(
            decoded(&[b"0\r\nA: ", &endless_extension[..]].concat()),
            Err(HttpError::BodyTooLarge)
        );
        let trailers = "A: b\r\n".repeat(HTTP_HEADERS_MAX + 1);
        assert_eq!(
            decoded(&chunked(&[], "", &trailers)),
            Err(HttpError::TooManyHeaders)
        );
    }

    proptest! {
        #[test]
        fn body_is_put_together_however_it_is_cut(
            chunks in vec(vec(any::<u8>(), 0..50), 0..10),
            extension in prop_oneof![Just(""), Just(";name=value"), Just(" ;x")],
            trailers in prop_oneof![Just(""), Just("Digest: abc\r\n")],
            cuts in vec(any::<Index>(), 0..6),
            tail in vec(any::<u8>(), 0..20),
        ) {
            let wire = [chunked(&chunks, extension, trailers), tail.clone()].concat();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|two| &wire[two[0]..two[1]]).collect();
            prop_assert_eq!(read_all(&pieces), Ok(Some((chunks.concat(), tail))));
        }

        #[test]
        fn verdict_on_arbitrary_bytes_does_not_depend_on_how_they_are_cut(
            bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'3'), Just(b';'), any::<u8>()], 0..60),
            cut: Index,
        ) {
            let (front, back) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(read_all(&[front, back]), read_all(&[&bytes]));
        }
    }
}
