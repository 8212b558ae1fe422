//! Bytes into verbs.

use crate::model::{Encoding, Format, Speaker};
use crate::protocol::centrifuge::{self, Commands, decode_connect};
use crate::protocol::command::{Body, Command};
use crate::protocol::disconnect::Disconnect;

/// Id of the one command of a client that sends none: it is never answered by id.
const CONNECT_ID: u32 = 1;

/// What a client says with one message, in order.
#[derive(Clone, Debug)]
pub enum Verbs<'a> {
    /// Commands.
    Commands(Commands<'a>),
    /// Who it is; `None` once that was read.
    Connect(Option<&'a [u8]>),
}

/// Reads a message.
#[must_use]
pub const fn verbs(format: Format, message: &[u8]) -> Verbs<'_> {
    match format.speaker {
        Speaker::Centrifuge => Verbs::Commands(centrifuge::commands(format.encoding, message)),
        Speaker::Unidirectional => Verbs::Connect(Some(message)),
        // Its verbs are made of the request that it is.
        Speaker::Poll => Verbs::Connect(None),
    }
}

impl<'a> Verbs<'a> {
    /// What is not decoded yet.
    #[must_use]
    pub const fn rest(&self) -> Option<&'a [u8]> {
        match self {
            Self::Commands(commands) => commands.rest(),
            Self::Connect(message) => *message,
        }
    }
}

impl<'a> Iterator for Verbs<'a> {
    type Item = Result<Command<'a>, Disconnect>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Commands(commands) => commands.next(),
            Self::Connect(message) => {
                let connect = decode_connect(message.take()?);
                Some(connect.map(|connect| Command {
                    id: CONNECT_ID,
                    body: Body::Connect(connect),
                }))
            }
        }
    }
}

/// May a connection begin with this? A query carries a connect command and nothing else: whoever can make a browser follow a link would
/// otherwise act as its user (`spec/centrifuge.md` §1.2). What a client of commands has in a body is judged as it is carried out.
#[must_use]
pub fn is_opening(format: Format, message: &[u8], is_query: bool) -> bool {
    match format.speaker {
        Speaker::Unidirectional => decode_connect(message).is_ok(),
        Speaker::Centrifuge if is_query => {
            let mut commands = centrifuge::commands(Encoding::Json, message);
            let is_connect = |command: Command<'_>| matches!(command.body, Body::Connect(_));
            commands.next().and_then(Result::ok).is_some_and(is_connect)
                && commands.next().is_none()
        }
        Speaker::Centrifuge | Speaker::Poll => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECT: &[u8] = br#"{"id":1,"connect":{}}"#;
    const TWO: &[u8] =
        b"{\"id\":1,\"connect\":{}}\n{\"id\":2,\"publish\":{\"channel\":\"a\",\"data\":1}}";

    const fn format(speaker: Speaker) -> Format {
        Format {
            speaker,
            encoding: Encoding::Json,
            framing: crate::model::Framing::WebSocket,
        }
    }

    #[test]
    fn who_only_listens_says_who_it_is_and_nothing_else() {
        let mut verbs = verbs(format(Speaker::Unidirectional), br#"{"token":"t"}"#);
        assert!(verbs.rest().is_some());
        let first = verbs.next().unwrap().unwrap();
        assert!(matches!(first.body, Body::Connect(connect) if connect.token == "t"));
        assert!(verbs.next().is_none() && verbs.rest().is_none());
        let mut wrong = super::verbs(format(Speaker::Unidirectional), CONNECT);
        assert!(wrong.next().unwrap().is_ok(), "unknown members are ignored");
        assert!(
            super::verbs(format(Speaker::Unidirectional), b"[")
                .next()
                .unwrap()
                .is_err()
        );
    }

    #[test]
    fn commands_are_read_one_after_the_other() {
        let ids: Vec<u32> = verbs(format(Speaker::Centrifuge), TWO)
            .map(|command| command.unwrap().id)
            .collect();
        assert_eq!(ids, [1, 2]);
        assert!(verbs(format(Speaker::Poll), TWO).next().is_none());
    }

    #[test]
    fn a_query_opens_a_connection_and_does_nothing_else() {
        let both = |message| {
            [false, true].map(|query| is_opening(format(Speaker::Centrifuge), message, query))
        };
        assert_eq!(both(CONNECT), [true, true]);
        assert_eq!(both(TWO), [true, false]);
        assert_eq!(both(br#"{"id":1,"rpc":{}}"#), [true, false]);
        assert_eq!(both(b"no"), [true, false]);
        let listens = |message| is_opening(format(Speaker::Unidirectional), message, true);
        assert!(listens(b"{}") && listens(b"null") && !listens(b"no"));
    }
}
