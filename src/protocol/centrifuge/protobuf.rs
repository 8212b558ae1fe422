//! The Protobuf encoding (`spec/centrifuge.md` §2.2): commands in, replies and pushes out, each a message behind its length.
//!
//! What clients send is decoded into the messages of `schema`. What goes out is written field by field out of borrowed state:
//! no owned copy of a publication is ever made. Encoders append the message alone; its length belongs to what stands around it.

use std::borrow::Cow;

use prost::Message as _;

mod command;
mod parts;
mod push;
mod reply;
mod schema;
mod write;

pub use command::{ProtobufCommands, commands};
pub use push::{encode_bare_push, encode_push, encode_pushed};
pub use reply::encode_reply;

use crate::protocol::command::EmulationCommands;
use crate::protocol::disconnect::Disconnect;

/// A ping: the empty reply, whose length is all that travels. The client's pong is the same.
pub const PING: &[u8] = b"";

/// The body of an emulation request (`spec/centrifuge.md` §1.7). Unlike commands it has no length before it.
pub fn decode_emulation(body: &[u8]) -> Result<EmulationCommands<'_>, Disconnect> {
    let request = schema::EmulationRequest::decode(body).map_err(|_| Disconnect::BadRequest)?;
    Ok(EmulationCommands {
        node: Cow::Owned(request.node),
        session: Cow::Owned(request.session),
        data: Cow::Owned(request.data),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_carries_node_session_and_commands() {
        let body = b"\x0a\x01n\x12\x01s\x1a\x02\x00\x00\xa0\x06\x01";
        assert_eq!(
            decode_emulation(body),
            Ok(EmulationCommands {
                node: "n".into(),
                session: "s".into(),
                data: Cow::Borrowed(b"\0\0"),
            })
        );
        assert_eq!(decode_emulation(b""), Ok(EmulationCommands::default()));
    }

    #[test]
    fn emulation_that_is_cut_off_or_no_text_is_refused() {
        for body in [
            &b"\x0a\x02n"[..],
            b"\x0a",
            b"\x0a\x01\xff",
            b"\x08\x01",
            b"{}",
        ] {
            assert_eq!(
                decode_emulation(body),
                Err(Disconnect::BadRequest),
                "{body:?}"
            );
        }
    }
}
