//! Outcomes into messages.

use std::sync::Arc;

use super::frame::{Compression, framed};
use super::said::Said;
use crate::model::{Encoding, Format, Framing, Publication, Speaker};
use crate::protocol::centrifuge::{json, protobuf};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::push::{Push, Reply, ReplyBody};

/// Appends the answer to a command. Who only listens gets its connect result as a push and no other answer. Returns what the shard has to
/// see to.
pub fn reply(
    out: &mut Vec<u8>,
    format: Format,
    compression: &mut Compression,
    reply: &Reply<'_>,
) -> Option<Said> {
    match format.speaker {
        Speaker::Centrifuge => {
            framed(out, format, compression, |out| match format.encoding {
                Encoding::Json => json::encode_reply(out, reply),
                Encoding::Protobuf => protobuf::encode_reply(out, reply),
            });
        }
        Speaker::Unidirectional => {
            if let ReplyBody::Connect(result) = &reply.body {
                let connected = Push::Connect(result.clone());
                message(out, format, compression, "", &connected);
            }
        }
        Speaker::Poll => {}
    }
    Said::of_reply(format, &reply.body)
}

/// Appends something unasked. Returns what the shard has to see to.
pub fn push(
    out: &mut Vec<u8>,
    format: Format,
    compression: &mut Compression,
    channel: &str,
    push: &Push<'_>,
) -> Option<Said> {
    if format.speaker.writes() {
        message(out, format, compression, channel, push);
    }
    Said::of_push(format, push)
}

/// Appends a push, of a speaker that writes.
pub(super) fn message(
    out: &mut Vec<u8>,
    format: Format,
    compression: &mut Compression,
    channel: &str,
    push: &Push<'_>,
) {
    pushed(out, format, compression, |out| {
        bare_push(out, format.encoding, channel, push);
    });
}

/// Appends a push without anything around it: what all formats of an encoding share.
pub(super) fn bare_push(out: &mut Vec<u8>, encoding: Encoding, channel: &str, push: &Push<'_>) {
    match encoding {
        Encoding::Json => json::encode_bare_push(out, channel, push),
        Encoding::Protobuf => protobuf::encode_bare_push(out, channel, push),
    }
}

/// Appends what stands around a push that `bare` appends.
pub(super) fn pushed(
    out: &mut Vec<u8>,
    format: Format,
    compression: &mut Compression,
    bare: impl FnOnce(&mut Vec<u8>),
) {
    framed(out, format, compression, |out| {
        match (format.speaker, format.encoding) {
            (Speaker::Centrifuge, Encoding::Json) => json::encode_pushed(out, bare),
            (Speaker::Centrifuge, Encoding::Protobuf) => protobuf::encode_pushed(out, bare),
            (Speaker::Unidirectional | Speaker::Poll, _) => bare(out),
        }
    });
}

/// Appends publications as one frame, a line each.
pub(super) fn joined(
    out: &mut Vec<u8>,
    format: Format,
    compression: &mut Compression,
    channel: &str,
    run: &[Arc<Publication>],
) {
    framed(out, format, compression, |out| {
        for (index, publication) in run.iter().enumerate() {
            if index > 0 {
                out.push(b'\n');
            }
            let push = Push::Publication(publication);
            bare_push(out, format.encoding, channel, &push);
        }
    });
}

/// Appends a ping: the empty message.
pub fn ping(out: &mut Vec<u8>, format: Format, compression: &mut Compression) {
    framed(out, format, compression, |out| match format.encoding {
        Encoding::Json => out.extend_from_slice(json::PING),
        Encoding::Protobuf => out.extend_from_slice(protobuf::PING),
    });
}

/// How a client is told that its session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By the response that it waits for.
    Response,
    /// By a push, where the connection says nothing of the kind, and by the end of the body.
    Body,
    /// By a close frame.
    Close,
    /// By a push, and by a close frame behind it, as far as the configuration wants them.
    PushAndClose,
    /// Not at all: the connection is over.
    Nothing,
}

/// See `Ending`.
#[must_use]
pub fn end(format: Format, disconnect: &Disconnect) -> Ending {
    match (format.speaker, format.framing) {
        (Speaker::Poll, _) => Ending::Response,
        (
            _,
            Framing::Stream
            | Framing::EventStream
            | Framing::PlainStream
            | Framing::PlainEventStream,
        ) => Ending::Body,
        // TCP is dropped without a close frame; the client sees 1006.
        _ if disconnect.is_silent() => Ending::Nothing,
        (Speaker::Unidirectional, _) => Ending::PushAndClose,
        (Speaker::Centrifuge, _) => Ending::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_is_told_of_its_end_in_the_way_that_it_has() {
        let told = |speaker, framing, disconnect| {
            let encoding = Encoding::Json;
            let format = Format {
                speaker,
                encoding,
                framing,
            };
            end(format, disconnect)
        };
        let (said, silent) = (Disconnect::Slow, Disconnect::ConnectionClosed);
        for (speaker, framing, wanted, silently) in [
            (
                Speaker::Centrifuge,
                Framing::WebSocket,
                Ending::Close,
                Ending::Nothing,
            ),
            (
                Speaker::Centrifuge,
                Framing::Deflate,
                Ending::Close,
                Ending::Nothing,
            ),
            (
                Speaker::Centrifuge,
                Framing::Stream,
                Ending::Body,
                Ending::Body,
            ),
            (
                Speaker::Unidirectional,
                Framing::Joined,
                Ending::PushAndClose,
                Ending::Nothing,
            ),
            (
                Speaker::Unidirectional,
                Framing::PlainEventStream,
                Ending::Body,
                Ending::Body,
            ),
            (
                Speaker::Poll,
                Framing::WebSocket,
                Ending::Response,
                Ending::Response,
            ),
        ] {
            let found = (
                told(speaker, framing, &said),
                told(speaker, framing, &silent),
            );
            assert_eq!(found, (wanted, silently), "{speaker:?} {framing:?}");
        }
    }
}
