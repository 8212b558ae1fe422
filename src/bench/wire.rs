//! How a Centrifuge client of the swarm is connected: encoding, transport, compression, delta. Clients take turns in what was asked for.

use super::token::Signer;
use super::{Args, BenchError, Encoding, Transport};
use crate::bench::frame;

/// One kind of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wire {
    pub(crate) encoding: Kind,
    pub(crate) transport: Transport,
    /// Offers permessage-deflate.
    pub(crate) deflate: bool,
    /// Asks for patches.
    pub(crate) delta: bool,
}

/// Encoding of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Json,
    Protobuf,
}

impl Wire {
    /// JSON over WebSocket.
    pub(crate) const PLAIN: Self = Self {
        encoding: Kind::Json,
        transport: Transport::Websocket,
        deflate: false,
        delta: false,
    };

    /// What clients take turns in.
    pub(crate) fn of(args: &Args) -> Vec<Self> {
        let wire = |encoding| Self {
            encoding,
            transport: args.transport,
            deflate: args.deflate,
            delta: args.delta,
        };
        match args.encoding {
            Encoding::Json => vec![wire(Kind::Json)],
            Encoding::Protobuf => vec![wire(Kind::Protobuf)],
            Encoding::Mixed => vec![wire(Kind::Json), wire(Kind::Protobuf)],
        }
    }

    /// The response body of one HTTP request, rather than frames.
    pub(crate) const fn is_stream(self) -> bool {
        !matches!(self.transport, Transport::Websocket)
    }

    pub(crate) const fn opcode(self) -> u8 {
        match self.encoding {
            Kind::Json => frame::TEXT,
            Kind::Protobuf => frame::BINARY,
        }
    }

    /// What opens the connection. A stream connects with its request, and its channels stand in the token.
    pub(crate) fn request(
        self,
        host: &str,
        path: &str,
        signer: &Signer,
        user: &str,
        channels: &[String],
    ) -> Result<Vec<u8>, BenchError> {
        if !self.is_stream() {
            let mut headers = String::new();
            if self.encoding == Kind::Protobuf {
                headers.push_str("Sec-WebSocket-Protocol: centrifuge-protobuf\r\n");
            }
            if self.deflate {
                headers.push_str("Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n");
            }
            return Ok(frame::upgrade_request(host, path, &headers));
        }
        let token = signer.token(user, channels)?;
        let connect = match self.encoding {
            Kind::Json => connect_json(&token).into_bytes(),
            Kind::Protobuf => connect_protobuf(&token),
        };
        Ok(match self.transport {
            Transport::Websocket | Transport::Sse => {
                let query: String = form_urlencoded::Serializer::new(String::new())
                    .append_pair("cf_connect", &String::from_utf8_lossy(&connect))
                    .finish();
                format!("GET /connection/sse?{query} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n")
                    .into_bytes()
            }
            Transport::HttpStream => {
                let content = match self.encoding {
                    Kind::Json => "application/json",
                    Kind::Protobuf => "application/octet-stream",
                };
                let mut request = format!(
                    "POST /connection/http_stream HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content}\r\nContent-Length: {}\r\n\r\n",
                    connect.len()
                )
                .into_bytes();
                request.extend_from_slice(&connect);
                request
            }
        })
    }
}

/// The connect command.
pub(crate) fn connect_json(token: &str) -> String {
    format!("{{\"connect\":{{\"token\":\"{token}\",\"name\":\"bench\"}},\"id\":1}}")
}

/// The same in Protobuf, with its length before it.
pub(crate) fn connect_protobuf(token: &str) -> Vec<u8> {
    let mut connect = Vec::new();
    put_bytes(&mut connect, 1, token.as_bytes());
    put_bytes(&mut connect, 4, b"bench");
    command(1, 4, &connect)
}

/// A subscribe command with its length before it; `recover` holds epoch and offset.
pub(crate) fn subscribe_protobuf(
    id: u32,
    channel: &str,
    recover: Option<(&str, u64)>,
    delta: bool,
) -> Vec<u8> {
    let mut subscribe = Vec::new();
    put_bytes(&mut subscribe, 1, channel.as_bytes());
    if let Some((epoch, offset)) = recover {
        put_number(&mut subscribe, 3, 1);
        put_bytes(&mut subscribe, 6, epoch.as_bytes());
        put_number(&mut subscribe, 7, offset);
    }
    if delta {
        put_bytes(&mut subscribe, 12, b"fossil");
    }
    command(id, 5, &subscribe)
}

/// A publish command with its length before it.
pub(crate) fn publish_protobuf(id: u32, channel: &str, data: &[u8]) -> Vec<u8> {
    let mut publish = Vec::new();
    put_bytes(&mut publish, 1, channel.as_bytes());
    put_bytes(&mut publish, 2, data);
    command(id, 7, &publish)
}

/// An RPC with its length before it.
pub(crate) fn rpc_protobuf(id: u32, method: &str, data: &[u8]) -> Vec<u8> {
    let mut rpc = Vec::new();
    put_bytes(&mut rpc, 1, data);
    put_bytes(&mut rpc, 2, method.as_bytes());
    command(id, 13, &rpc)
}

fn command(id: u32, part: u32, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    put_number(&mut message, 1, u64::from(id));
    put_bytes(&mut message, part, body);
    let mut out = Vec::new();
    put_varint(&mut out, message.len() as u64);
    out.extend_from_slice(&message);
    out
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    put_varint(out, u64::from(field) << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_varint(out, u64::from(field) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field of a Protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The fields of a message, up to the first that is not understood.
pub(crate) fn fields(mut bytes: &[u8]) -> impl Iterator<Item = (u32, Field<'_>)> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let tag = take_varint(&mut bytes)?;
        let field = match tag & 7 {
            0 => Field::Number(take_varint(&mut bytes)?),
            2 => {
                let len = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let (body, rest) = bytes.split_at_checked(len)?;
                bytes = rest;
                Field::Bytes(body)
            }
            _ => return None,
        };
        Some(((tag >> 3) as u32, field))
    })
}

/// The body of a field.
pub(crate) fn field(bytes: &[u8], wanted: u32) -> Option<&[u8]> {
    fields(bytes).find_map(|(number, field)| match field {
        Field::Bytes(body) if number == wanted => Some(body),
        Field::Number(_) | Field::Bytes(_) => None,
    })
}

/// The messages of a frame, each without its length.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let len = usize::try_from(take_varint(&mut bytes)?).ok()?;
        let (message, rest) = bytes.split_at_checked(len)?;
        bytes = rest;
        Some(message)
    })
}

/// What a chunked body (RFC 9112 §7.1) begins with.
pub(crate) fn scan_chunk(bytes: &[u8]) -> frame::Scan<'_> {
    let Some(end) = memchr::memchr(b'\n', &bytes[..bytes.len().min(16)]) else {
        return if bytes.len() > 16 {
            frame::Scan::Invalid
        } else {
            frame::Scan::Incomplete
        };
    };
    let digits = std::str::from_utf8(&bytes[..end]).unwrap_or("").trim_end();
    let Ok(len) = usize::from_str_radix(digits, 16) else {
        return frame::Scan::Invalid;
    };
    if len == 0 {
        return frame::Scan::Frame {
            opcode: frame::CLOSE,
            payload: b"",
            used: bytes.len(),
        };
    }
    let from = end + 1;
    match bytes.get(from..from + len + 2) {
        Some(chunk) => frame::Scan::Frame {
            opcode: frame::TEXT,
            payload: &chunk[..len],
            used: from + len + 2,
        },
        None => frame::Scan::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_length_delimited_and_read_back() {
        let bytes = [
            connect_protobuf("token"),
            subscribe_protobuf(2, "bench:0", Some(("abcd", 300)), true),
        ]
        .concat();
        let messages: Vec<&[u8]> = messages(&bytes).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            field(field(messages[0], 4).unwrap(), 1),
            Some(&b"token"[..])
        );
        let subscribe = field(messages[1], 5).unwrap();
        assert_eq!(field(subscribe, 12), Some(&b"fossil"[..]));
        assert!(fields(subscribe).any(|field| field == (7, Field::Number(300))));
    }

    #[test]
    fn chunks_are_scanned_whole() {
        assert_eq!(
            scan_chunk(b"5\r\nhello\r\n3"),
            frame::Scan::Frame {
                opcode: frame::TEXT,
                payload: b"hello",
                used: 10
            }
        );
        for end in 0..10 {
            assert_eq!(
                scan_chunk(&b"5\r\nhello\r\n"[..end]),
                frame::Scan::Incomplete
            );
        }
        assert_eq!(scan_chunk(b"x\r\n"), frame::Scan::Invalid);
        assert!(matches!(
            scan_chunk(b"0\r\n\r\n"),
            frame::Scan::Frame {
                opcode: frame::CLOSE,
                ..
            }
        ));
    }
}
