//! Close frames: RFC 6455 §5.5.1 and §7.4.

use std::borrow::Cow;

use tungstenite::protocol::frame::coding::CloseCode;

use super::header::{CONTROL_PAYLOAD_BYTES_MAX, Opcode, encode_frame_header};
use super::{Payload, WebSocketError};

/// 1014 "Bad Gateway" is registered with IANA but unknown to [`CloseCode`].
const BAD_GATEWAY: u16 = 1014;

/// Code and reason of a client's close frame; `None` when its payload is empty.
pub(super) fn decode(payload: Payload<'_>) -> Result<Option<(u16, Cow<'_, str>)>, WebSocketError> {
    let code = match *payload {
        [] => return Ok(None),
        [_] => return Err(WebSocketError::Protocol),
        [high, low, ..] => u16::from_be_bytes([high, low]),
    };
    if !may_be_sent(code) {
        return Err(WebSocketError::Protocol);
    }
    let reason = match payload {
        Payload::Borrowed(bytes) => {
            let bytes: &[u8] = bytes;
            Cow::Borrowed(
                simdutf8::basic::from_utf8(&bytes[2..]).map_err(|_| WebSocketError::InvalidUtf8)?,
            )
        }
        Payload::Owned(mut bytes) => {
            bytes.drain(..2);
            Cow::Owned(String::from_utf8(bytes).map_err(|_| WebSocketError::InvalidUtf8)?)
        }
    };
    Ok(Some((code, reason)))
}

/// Whether a close frame may carry `code` (RFC 6455 §7.4.1, §7.4.2 and the IANA registry).
fn may_be_sent(code: u16) -> bool {
    code == BAD_GATEWAY || CloseCode::from(code).is_allowed()
}

/// Appends a close frame. A reason beyond 123 bytes is cut at a character's edge.
pub fn encode_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    assert!(may_be_sent(code), "this close code is not for the wire");
    let reason = &reason[..reason.floor_char_boundary(CONTROL_PAYLOAD_BYTES_MAX - 2)];
    encode_frame_header(out, Opcode::Close, 2 + reason.len());
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}
