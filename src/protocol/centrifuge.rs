//! Centrifuge protocol v2: encodings of `command` and `push`.

use crate::model::Encoding;
use crate::protocol::command::{Command, Connect, EmulationCommands};
use crate::protocol::disconnect::Disconnect;

pub mod json;
pub mod protobuf;

/// `version` of a connect result.
const VERSION: &str = concat!("ringmain ", env!("CARGO_PKG_VERSION"));

/// The commands of one frame, in order, as either encoding has them.
#[must_use]
pub const fn commands(encoding: Encoding, frame: &[u8]) -> Commands<'_> {
    match encoding {
        Encoding::Json => Commands::Json(json::commands(frame)),
        Encoding::Protobuf => Commands::Protobuf(protobuf::commands(frame)),
    }
}

/// Iterator over the commands of one frame.
#[derive(Clone, Debug)]
pub enum Commands<'a> {
    /// Lines.
    Json(json::JsonCommands<'a>),
    /// Messages behind their lengths.
    Protobuf(protobuf::ProtobufCommands<'a>),
}

impl<'a> Commands<'a> {
    /// What is not decoded yet.
    #[must_use]
    pub const fn rest(&self) -> Option<&'a [u8]> {
        match self {
            Self::Json(commands) => commands.rest(),
            Self::Protobuf(commands) => commands.rest(),
        }
    }
}

impl<'a> Iterator for Commands<'a> {
    type Item = Result<Command<'a>, Disconnect>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Json(commands) => commands.next(),
            Self::Protobuf(commands) => commands.next(),
        }
    }
}

/// The body of an emulation request (`spec/centrifuge.md` §1.7).
pub fn decode_emulation(
    encoding: Encoding,
    body: &[u8],
) -> Result<EmulationCommands<'_>, Disconnect> {
    match encoding {
        Encoding::Json => json::decode_emulation(body),
        Encoding::Protobuf => protobuf::decode_emulation(body),
    }
}

/// A connect request by itself, as clients of unidirectional transports send it: always JSON, `null` counts as `{}`.
///
/// # Errors
/// It is none.
pub fn decode_connect(text: &[u8]) -> Result<Connect<'_>, Disconnect> {
    json::decode_connect(text)
}
