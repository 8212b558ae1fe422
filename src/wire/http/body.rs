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

/// Reads the chunked body at the front of `bytes` and moves its data together there; gives the data's length and the bytes the body took on the wire.
/// While it is incomplete `bytes` stays as it is. Trailers are checked and dropped.
pub fn decode_chunked(bytes: &mut [u8]) -> Result<Decoded<usize>, HttpError> {
    let Some((body_len, wire_len)) = measure(bytes)? else { return Ok(Decoded::Incomplete) };
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
fn measure(bytes: &[u8]) -> Result<Option<(usize, usize)>, HttpError> {
    let (mut at, mut body_len) = (0, 0);
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let piece = next_piece(rest)?;
        let framing_len = at - body_len;
        match piece {
            Piece::Chunk { framing, data } => {
                body_len += data;
                if body_len > HTTP_BODY_BYTES_MAX || framing_len + framing > CHUNK_FRAMING_BYTES_MAX {
                    return Err(HttpError::BodyTooLarge);
                }
                let end = at + framing + data;
                if bytes.get(end).is_some_and(|&byte| byte != b'\r') || bytes.get(end + 1).is_some_and(|&byte| byte != b'\n') {
                    return Err(HttpError::BadRequest);
                }
                at = end + 2;
            }
            Piece::End { framing } if framing_len + framing > CHUNK_FRAMING_BYTES_MAX => return Err(HttpError::BodyTooLarge),
            Piece::End { framing } => return Ok(Some((body_len, at + framing))),
            Piece::Incomplete if framing_len + rest.len() > CHUNK_FRAMING_BYTES_MAX => return Err(HttpError::BodyTooLarge),
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
        return Ok(Piece::Chunk { framing: line_len, data: data as usize });
    }
    let mut trailers = [httparse::EMPTY_HEADER; HTTP_HEADERS_MAX];
    let trailer_bytes = &bytes[line_len..];
    match httparse::parse_headers(trailer_bytes, &mut trailers) {
        Ok(Status::Complete((len, _))) if has_bare_line_feed(&trailer_bytes[..len]) => Err(HttpError::BadRequest),
        Ok(Status::Complete((len, _))) => Ok(Piece::End { framing: line_len + len }),
        Ok(Status::Partial) => Ok(Piece::Incomplete),
        Err(httparse::Error::TooManyHeaders) => Err(HttpError::TooManyHeaders),
        Err(_) => Err(HttpError::BadRequest),
    }
}
