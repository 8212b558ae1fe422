//! One client of the durable scenarios: a Centrifuge connection over WebSocket on the generator's runtime.

use std::io::ErrorKind;
use std::net::SocketAddr;

use serde::Deserialize;
use tokio::net::TcpStream;

use super::super::BenchError;
use super::super::frame::{self, Scan, Upgrade};
use super::super::wire::{self, Field, Kind};

/// Bytes that a message may have.
const INPUT_BYTES_MAX: usize = 64 << 20;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a server says in a message.
#[derive(Debug)]
pub(super) enum Heard<'a> {
    /// Answer to a command.
    Reply {
        /// Of the command.
        id: u32,
        /// It was refused.
        error: Option<Refusal>,
    },
    /// A publication or a message, as it is on the wire.
    Push(&'a [u8]),
}

/// Why a command was refused.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) code: u32,
    #[serde(default)]
    pub(super) message: String,
    #[serde(default)]
    pub(super) temporary: bool,
    #[serde(default)]
    pub(super) retry_after_ms: Option<u64>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    id: u32,
    #[serde(default)]
    error: Option<Refusal>,
}

/// Where a line connects to, and as whom.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    pub(super) host: String,
    pub(super) path: String,
    pub(super) kind: Kind,
    pub(super) token: String,
}

/// A connection.
pub(super) struct Line {
    stream: TcpStream,
    kind: Kind,
    input: Vec<u8>,
    chunk: Vec<u8>,
    out: Vec<u8>,
    mask: u32,
}

impl Line {
    /// Upgraded and connected.
    pub(super) async fn open(peer: &Peer) -> Result<Self, BenchError> {
        let stream = TcpStream::connect(peer.address).await?;
        stream.set_nodelay(true)?;
        let mut line = Self {
            stream,
            kind: peer.kind,
            input: Vec::new(),
            chunk: vec![0; CHUNK_BYTES],
            out: Vec::new(),
            mask: 0x9e37_79b9,
        };
        let headers = match peer.kind {
            Kind::Json => "",
            Kind::Protobuf => "Sec-WebSocket-Protocol: centrifuge-protobuf\r\n",
        };
        line.out = frame::upgrade_request(&peer.host, &peer.path, headers);
        line.flush().await?;
        loop {
            line.read().await?;
            match frame::upgrade_answer(&line.input) {
                Upgrade::Accepted(len) => {
                    line.input.drain(..len);
                    break;
                }
                Upgrade::Incomplete => {}
                Upgrade::Refused => return Err(BenchError::Refused("the upgrade".to_owned())),
            }
        }
        let connect = match peer.kind {
            Kind::Json => wire::connect_json(&peer.token).into_bytes(),
            Kind::Protobuf => wire::connect_protobuf(&peer.token),
        };
        line.send(&connect);
        line.confirm(1, "the connect command").await?;
        Ok(line)
    }

    /// Waits for one answer, which must not be a refusal.
    async fn confirm(&mut self, wanted: u32, what: &str) -> Result<(), BenchError> {
        self.flush().await?;
        let mut answer = None;
        while answer.is_none() {
            self.receive(|heard| {
                if let Heard::Reply { id, error } = heard
                    && id == wanted
                {
                    answer = Some(error);
                }
            })
            .await?;
        }
        match answer.flatten() {
            None => Ok(()),
            Some(refusal) => Err(refused(what, &refusal)),
        }
    }

    fn opcode(&self) -> u8 {
        match self.kind {
            Kind::Json => frame::TEXT,
            Kind::Protobuf => frame::BINARY,
        }
    }

    fn send(&mut self, message: &[u8]) {
        self.mask = self
            .mask
            .wrapping_mul(0x0196_600d)
            .wrapping_add(0x3c6e_f35f);
        frame::write_masked(self.opcode(), message, self.mask, &mut self.out);
    }

    /// Queues a publish command; goes out with the next flush.
    pub(super) fn publish(&mut self, id: u32, channel: &str, data: &[u8]) {
        let message = match self.kind {
            Kind::Json => {
                let mut text = Vec::with_capacity(data.len() + channel.len() + 64);
                text.extend_from_slice(b"{\"id\":");
                text.extend_from_slice(itoa::Buffer::new().format(id).as_bytes());
                text.extend_from_slice(b",\"publish\":{\"channel\":\"");
                text.extend_from_slice(channel.as_bytes());
                text.extend_from_slice(b"\",\"data\":");
                text.extend_from_slice(data);
                text.extend_from_slice(b"}}");
                text
            }
            Kind::Protobuf => wire::publish_protobuf(id, channel, data),
        };
        self.send(&message);
    }

    /// Queues an RPC with JSON parameters.
    pub(super) fn rpc(&mut self, id: u32, method: &str, data: &str) {
        let message = match self.kind {
            Kind::Json => {
                format!("{{\"id\":{id},\"rpc\":{{\"method\":\"{method}\",\"data\":{data}}}}}")
                    .into_bytes()
            }
            Kind::Protobuf => wire::rpc_protobuf(id, method, data.as_bytes()),
        };
        self.send(&message);
    }

    /// Subscribes, which must succeed.
    pub(super) async fn subscribe(&mut self, id: u32, channel: &str) -> Result<(), BenchError> {
        let message = match self.kind {
            Kind::Json => {
                format!("{{\"id\":{id},\"subscribe\":{{\"channel\":\"{channel}\"}}}}").into_bytes()
            }
            Kind::Protobuf => wire::subscribe_protobuf(id, channel, None, false),
        };
        self.send(&message);
        self.confirm(id, "a subscription").await
    }

    /// Writes everything that is queued.
    pub(super) async fn flush(&mut self) -> Result<(), BenchError> {
        let mut from = 0;
        while from < self.out.len() {
            match self.stream.try_write(&self.out[from..]) {
                Ok(len) => from += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stream.writable().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.out.clear();
        Ok(())
    }

    /// Appends what has come to the input, at least one byte. Dropping it loses nothing.
    async fn read(&mut self) -> Result<(), BenchError> {
        loop {
            self.stream.readable().await?;
            match self.stream.try_read(&mut self.chunk) {
                Ok(0) => return Err(BenchError::Io(ErrorKind::UnexpectedEof.into())),
                Ok(len) => {
                    self.input.extend_from_slice(&self.chunk[..len]);
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for bytes and gives out every whole message in them. Dropping it loses nothing.
    pub(super) async fn receive(
        &mut self,
        mut each: impl FnMut(Heard<'_>),
    ) -> Result<(), BenchError> {
        self.read().await?;
        let (mut used, mut pings) = (0, 0);
        let mut pongs = Vec::new();
        loop {
            match frame::scan(&self.input[used..]) {
                Scan::Frame {
                    opcode,
                    payload,
                    used: len,
                } => {
                    match opcode {
                        frame::TEXT => pings += lines(payload, &mut each)?,
                        frame::BINARY => pings += messages(payload, &mut each),
                        frame::PING => pongs.push(payload.to_vec()),
                        frame::CLOSE => return Err(closed(payload)),
                        _ => {}
                    }
                    used += len;
                }
                Scan::Incomplete if self.input.len() - used <= INPUT_BYTES_MAX => break,
                Scan::Incomplete | Scan::Invalid => {
                    return Err(BenchError::Refused(
                        "WebSocket: the server's frames are invalid".to_owned(),
                    ));
                }
            }
        }
        self.input.drain(..used);
        for pong in pongs {
            frame::write_masked(frame::PONG, &pong, self.mask, &mut self.out);
        }
        for _ in 0..pings {
            // An empty message is an answer to an empty message.
            let message: &[u8] = match self.kind {
                Kind::Json => b"{}",
                Kind::Protobuf => &[0],
            };
            self.send(message);
        }
        if !self.out.is_empty() {
            self.flush().await?;
        }
        Ok(())
    }
}

/// What a refused command says to the one who runs the bench.
pub(super) fn refused(what: &str, refusal: &Refusal) -> BenchError {
    BenchError::Refused(format!(
        "{what}: {} (error {})",
        refusal.message, refusal.code
    ))
}

fn closed(payload: &[u8]) -> BenchError {
    let code = payload
        .first_chunk()
        .map_or(1005, |code| u16::from_be_bytes(*code));
    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
    BenchError::Refused(format!("the connection: {reason} (close {code})"))
}

/// Pings among the lines of a text frame; the rest is given out.
fn lines(text: &[u8], each: &mut impl FnMut(Heard<'_>)) -> Result<u32, BenchError> {
    let mut pings = 0;
    for line in text.split(|byte| *byte == b'\n') {
        if line == b"{}" {
            pings += 1;
        } else if line.starts_with(b"{\"push\"") {
            each(Heard::Push(line));
        } else if !line.is_empty() {
            let Reply { id, error } = serde_json::from_slice(line).map_err(|_| {
                BenchError::Refused("JSON: the server's replies are invalid".to_owned())
            })?;
            each(Heard::Reply { id, error });
        }
    }
    Ok(pings)
}

/// The same for a binary frame.
fn messages(bytes: &[u8], each: &mut impl FnMut(Heard<'_>)) -> u32 {
    let mut pings = 0;
    for message in wire::messages(bytes) {
        if message.is_empty() {
            pings += 1;
            continue;
        }
        let (mut id, mut error, mut push) = (0, None, None);
        for field in wire::fields(message) {
            match field {
                (1, Field::Number(number)) => id = number as u32,
                (2, Field::Bytes(body)) => error = Some(refusal(body)),
                (4, Field::Bytes(body)) => push = Some(body),
                _ => {}
            }
        }
        match push {
            Some(body) => each(Heard::Push(body)),
            None => each(Heard::Reply { id, error }),
        }
    }
    pings
}

fn refusal(bytes: &[u8]) -> Refusal {
    let mut refusal = Refusal::default();
    for field in wire::fields(bytes) {
        match field {
            (1, Field::Number(code)) => refusal.code = code as u32,
            (2, Field::Bytes(text)) => refusal.message = String::from_utf8_lossy(text).into_owned(),
            (3, Field::Number(flag)) => refusal.temporary = flag != 0,
            _ => {}
        }
    }
    refusal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_pushes_and_pings_are_told_apart_in_both_encodings() {
        let text = b"{\"id\":7,\"publish\":{}}\n{}\n{\"id\":8,\"error\":{\"code\":100,\"message\":\"busy\",\"temporary\":true,\"retry_after_ms\":5}}\n{\"push\":{\"x\":1}}";
        let mut seen = Vec::new();
        let pings = lines(text, &mut |heard| seen.push(format!("{heard:?}"))).unwrap();
        assert_eq!((pings, seen.len()), (1, 3));
        assert!(
            seen[0].contains("id: 7, error: None") && seen[1].contains("Some(5)"),
            "{seen:?}"
        );
        assert!(seen[2].starts_with("Push"));
        assert!(lines(b"nonsense", &mut |_| {}).is_err());

        let reply = [
            &[4, 8, 7, 82, 0][..],
            &[0],
            &[6, 8, 9, 18, 2, 8, 100],
            &[4, 34, 2, 1, 2],
        ]
        .concat();
        let mut seen = Vec::new();
        let pings = messages(&reply, &mut |heard| seen.push(format!("{heard:?}")));
        assert_eq!((pings, seen.len()), (1, 3));
        assert!(
            seen[0].contains("id: 7, error: None") && seen[1].contains("code: 100"),
            "{seen:?}"
        );
        assert_eq!(seen[2], "Push([1, 2])");
    }
}
