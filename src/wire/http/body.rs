//! Chunked request bodies (RFC 9112 §7.1).

use httparse::Status;

use super::{Decoded, HttpError, has_bare_line_feed};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_HEADERS_MAX};

/// Bytes of one request body that are size lines, chunk extensions and trailers. It bounds the number of chunks, and with it what walking them again costs.
pub const CHUNK_FRAMING_BYTES_MAX: usize = 64 * 1024;

/// One step through a chunked body.
enum Piece {
    /// The chunk's data begins after `framing` bytes, and a CRLF follows it.
    Chunk { framing: usize, data: usize },
    /// Last chunk and trailers are `framing` bytes.
    End { framing: usize },
    /// It goes on beyond the bytes that are there.
    Incomplete,
}

/// Reads the chunked body of at most `body_bytes_max` bytes at the front of `bytes` and moves its data together there; gives the data's length and the bytes the body took on the wire.
/// While it is incomplete `bytes` stays as it is. Trailers are checked and dropped.
pub fn decode_chunked(
    bytes: &mut [u8],
    body_bytes_max: usize,
) -> Result<Decoded<usize>, HttpError> {
    let Some((body_len, wire_len)) = measure(bytes, body_bytes_max)? else {
        return Ok(Decoded::Incomplete);
    };
    let (mut from, mut to) = (0, 0);
    while let Piece::Chunk { framing, data } = next_piece(&bytes[from..])? {
        from += framing;
        bytes.copy_within(from..from + data, to);
        from += data + 2;
        to += data;
    }
    assert!(to == body_len, "both walks see the same chunks");
    Ok(Decoded::Complete(body_len, wire_len))
}

/// Bytes of data and bytes on the wire of a complete body.
fn measure(bytes: &[u8], body_bytes_max: usize) -> Result<Option<(usize, usize)>, HttpError> {
    let (mut at, mut body_len) = (0, 0);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let piece = next_piece(rest)?;
        let framing_len = at - body_len;
        match piece {
            Piece::Chunk { framing, data } => {
                body_len += data;
                if body_len > body_bytes_max || framing_len + framing > CHUNK_FRAMING_BYTES_MAX {
                    return Err(HttpError::BodyTooLarge);
                }
                let end = at + framing + data;
                if bytes.get(end).is_some_and(|&byte| byte != b'\r')
                    || bytes.get(end + 1).is_some_and(|&byte| byte != b'\n')
                {
                    return Err(HttpError::BadRequest);
                }
                at = end + 2;
            }
            Piece::End { framing } if framing_len + framing > CHUNK_FRAMING_BYTES_MAX => {
                return Err(HttpError::BodyTooLarge);
            }
            Piece::End { framing } => return Ok(Some((body_len, at + framing))),
            Piece::Incomplete if framing_len + rest.len() > CHUNK_FRAMING_BYTES_MAX => {
                return Err(HttpError::BodyTooLarge);
            }
            Piece::Incomplete => return Ok(None),
        }
    }
}

/// What begins at the front of `bytes`, a chunk's edge.
fn next_piece(bytes: &[u8]) -> Result<Piece, HttpError> {
    // `httparse` reads a line without a digit as zero.
    if bytes.first().is_some_and(|byte| !byte.is_ascii_hexdigit()) {
        return Err(HttpError::BadRequest);
    }
    let (line_len, data) = match httparse::parse_chunk_size(bytes) {
        Ok(Status::Complete(parsed)) => parsed,
        Ok(Status::Partial) => return Ok(Piece::Incomplete),
        Err(_) => return Err(HttpError::BadRequest),
    };
    if has_bare_line_feed(&bytes[..line_len]) {
        return Err(HttpError::BadRequest);
    }
    if data > HTTP_BODY_BYTES_MAX as u64 {
        return Err(HttpError::BodyTooLarge);
    }
    if data > 0 {
        return Ok(Piece::Chunk {
            framing: line_len,
            data: data as usize,
        });
    }
    let mut trailers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let trailer_bytes = &bytes[line_len..];
    match httparse::parse_headers(trailer_bytes, &mut trailers) {
        Ok(Status::Complete((len, _))) if has_bare_line_feed(&trailer_bytes[..len]) => {
            Err(HttpError::BadRequest)
        }
        Ok(Status::Complete((len, _))) => Ok(Piece::End {
            framing: line_len + len,
        }),
        Ok(Status::Partial) => Ok(Piece::Incomplete),
        Err(httparse::Error::TooManyHeaders) => Err(HttpError::TooManyHeaders),
        Err(_) => Err(HttpError::BadRequest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn decoded(wire: &[u8]) -> Result<Option<(Vec<u8>, usize)>, HttpError> {
        let mut bytes = wire.to_vec();
        match decode_chunked(&mut bytes, HTTP_BODY_BYTES_MAX)? {
            Decoded::Complete(len, used) => {
                assert_eq!(&bytes[used..], &wire[used..], "what follows the body stays");
                Ok(Some((bytes[..len].to_vec(), used)))
            }
            Decoded::Incomplete => {
                assert_eq!(bytes, wire, "an incomplete body stays as it is");
                Ok(None)
            }
        }
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
    fn chunks_extensions_and_trailers_are_read() {
        let wire = b"4;a=b\r\nWiki\r\n5 \r\npedia\r\n0\r\nA: b\r\n\r\nGET";
        assert_eq!(
            decoded(wire),
            Ok(Some((b"Wikipedia".to_vec(), wire.len() - 3)))
        );
        assert_eq!(decoded(b"0\r\n\r\n"), Ok(Some((Vec::new(), 5))));
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
            b"0\r\n\n",
            b"00000000000000001\r\n",
        ] {
            assert_eq!(
                decoded(wire),
                Err(HttpError::BadRequest),
                "{:?}",
                wire.escape_ascii().to_string()
            );
        }
    }

    #[test]
    fn body_at_the_limit_passes_and_beyond_it_is_refused_before_it_arrives() {
        let half = vec![b'a'; HTTP_BODY_BYTES_MAX / 2];
        let wire = chunked(&[half.clone(), half.clone()], "", "");
        assert_eq!(
            decoded(&wire).unwrap().unwrap().0.len(),
            HTTP_BODY_BYTES_MAX
        );
        assert_eq!(decoded(b"400001\r\n"), Err(HttpError::BodyTooLarge));
        assert_eq!(
            decoded(b"FFFFFFFFFFFFFFFF\r\n"),
            Err(HttpError::BodyTooLarge)
        );
        let wire = chunked(&[half, vec![b'a'; HTTP_BODY_BYTES_MAX / 2 + 1]], "", "");
        assert_eq!(
            decoded(&wire[..HTTP_BODY_BYTES_MAX / 2 + 100]),
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
        assert_eq!(
            decoded(&chunked(&crumbs[..crumbs.len() - 2], "", ""))
                .unwrap()
                .unwrap()
                .0
                .len(),
            crumbs.len() - 2
        );
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
        fn body_is_put_together_once_its_last_byte_is_there(
            chunks in vec(vec(any::<u8>(), 0..50), 0..10),
            extension in prop_oneof![Just(""), Just(";name=value"), Just(" ;x")],
            trailers in prop_oneof![Just(""), Just("Digest: abc\r\n")],
            cut: Index,
            tail in vec(any::<u8>(), 0..20),
        ) {
            let wire = chunked(&chunks, extension, trailers);
            prop_assert_eq!(decoded(&wire[..cut.index(wire.len())]), Ok(None));
            prop_assert_eq!(decoded(&[&wire[..], &tail].concat()), Ok(Some((chunks.concat(), wire.len()))));
        }

        #[test]
        fn verdict_on_arbitrary_bytes_stands_whatever_arrives_later(
            bytes in vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'3'), Just(b';'), any::<u8>()], 0..60),
            cut: Index,
        ) {
            match (decoded(&bytes[..cut.index(bytes.len() + 1)]), decoded(&bytes)) {
                (Ok(None), _) => {}
                (Ok(before), after) => prop_assert_eq!(Ok(before), after),
                (Err(_), after) => prop_assert!(after.is_err()),
            }
        }
    }
}
