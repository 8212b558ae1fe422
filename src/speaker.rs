//! How clients speak. A speaker turns bytes into verbs (`protocol::command`) and outcomes (`protocol::push`) into bytes; the session between
//! them knows neither. What a verb is called by its client goes back with its outcome, untouched.
//!
//! A speaker, an encoding and a framing make a `Format`. All of them are here and nowhere else: who writes a message, what it looks like,
//! what stands around it, and what each class of a channel's subscribers gets.

mod frame;
mod listen;
mod said;
mod say;
mod written;

pub use frame::Compression;
pub use listen::{Verbs, is_opening, verbs};
pub use said::{FoundByPoll, Polled, Said};
pub use say::{Ending, end, ping, push, reply};
pub use written::{Piece, Written};

use crate::model::{Format, Speaker};

impl Speaker {
    /// What its client is told is written, as messages. Otherwise the shard answers by itself, with what it is `Said`.
    #[must_use]
    pub const fn writes(self) -> bool {
        match self {
            Self::Centrifuge | Self::Unidirectional => true,
            Self::Poll => false,
        }
    }

    /// Its client says more than who it is: it sends commands, is answered by their ids, and answers pings of the protocol.
    #[must_use]
    pub const fn converses(self) -> bool {
        match self {
            Self::Centrifuge => true,
            Self::Unidirectional | Self::Poll => false,
        }
    }
}

impl Format {
    /// Messages are the body of an HTTP response without a known end.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self.speaker.writes() && self.framing.is_stream()
    }

    /// Its clients need a name by which other requests, or services, find them: they are told one.
    #[must_use]
    pub fn names_sessions(self) -> bool {
        match self.speaker {
            Speaker::Centrifuge => self.framing.is_stream(),
            Speaker::Unidirectional => true,
            Speaker::Poll => false,
        }
    }
}
