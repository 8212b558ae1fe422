//! What codes tell a client, and what there is to do.

use super::{begun, row, table};
use crate::protocol::disconnect::Disconnect;
use crate::protocol::error::ClientError;
use crate::protocol::push::Unsubscribe;

/// Why a command was refused, and what helps.
const fn of_error(error: ClientError) -> &'static str {
    match error {
        ClientError::Internal => {
            "Something that had to be asked did not answer in time, or a table is full. The same command may be sent again."
        }
        ClientError::Unauthorized => {
            "The client is not known as one that may do this. It needs a token."
        }
        ClientError::UnknownChannel => "No namespace has this channel.",
        ClientError::PermissionDenied => {
            "Options, token or backend do not allow it. See permissions."
        }
        ClientError::MethodNotFound => "There is no such method.",
        ClientError::AlreadySubscribed => "The connection has a subscription to this channel.",
        ClientError::LimitExceeded => {
            "A bound of the connection is reached, such as `client.channel_limit`."
        }
        ClientError::BadRequest => {
            "The command is malformed, or what it asks cannot be. Sending it again does not help."
        }
        ClientError::NotAvailable => "The channel's options do not have this, such as history.",
        ClientError::TokenExpired => {
            "The token is too old. The SDK asks the application for a new one."
        }
        ClientError::Expired => "What the backend or the token allowed is over.",
        ClientError::TooManyRequests => "A rate or a share of a table is used up. Try again later.",
        ClientError::TooFast(_) => {
            "More than a rate allows. `retry_after_ms` says when to try again."
        }
        ClientError::Full(_) => {
            "Every place that the tenant may have is taken. `retry_after_ms` says when to try again."
        }
        ClientError::GroupBehind(_) => {
            "The workers of a queue group do not keep up (`lag_max`). `retry_after_ms` says when to try again."
        }
        ClientError::UnrecoverablePosition => {
            "What lies behind this position is not kept any more. The client reads its state anew."
        }
        ClientError::NoReply => {
            "No worker has replied to the request yet. Asking again with the same key waits for the same reply."
        }
        ClientError::LogBusy(_) => {
            "Too much is on its way to the durable log. `retry_after_ms` says when to try again."
        }
        ClientError::LogUnavailable(_) => {
            "The durable log does not store. `retry_after_ms` says when to try again."
        }
    }
}

const ERRORS: [ClientError; 17] = [
    ClientError::Internal,
    ClientError::LogUnavailable(0),
    ClientError::Unauthorized,
    ClientError::UnknownChannel,
    ClientError::PermissionDenied,
    ClientError::MethodNotFound,
    ClientError::AlreadySubscribed,
    ClientError::LimitExceeded,
    ClientError::BadRequest,
    ClientError::NotAvailable,
    ClientError::TokenExpired,
    ClientError::Expired,
    ClientError::TooManyRequests,
    ClientError::TooFast(0),
    ClientError::LogBusy(0),
    ClientError::UnrecoverablePosition,
    ClientError::NoReply,
];

/// Why a connection ended.
const fn of_disconnect(disconnect: &Disconnect) -> &'static str {
    match disconnect {
        Disconnect::ConnectionClosed => "The connection was dropped without a word.",
        Disconnect::Shutdown => {
            "The server drains. The client connects to another one or comes back."
        }
        Disconnect::Internal => "The server could not go on with this connection.",
        Disconnect::Expired => "The token of the connection expired and was not refreshed.",
        Disconnect::SubscriptionExpired => {
            "The token of a subscription expired and was not refreshed."
        }
        Disconnect::Slow => "The client took less than it was sent: its queue was full.",
        Disconnect::WriteError => "What was to be sent could not be.",
        Disconnect::InsufficientState => {
            "Publications of a server-side subscription were lost. The SDK reconnects and recovers."
        }
        Disconnect::ForceReconnect => "A service asked for it.",
        Disconnect::NoPong => "The client did not answer a ping in time.",
        Disconnect::TooManyRequests => "The address prefix used up its rate. Come again later.",
        Disconnect::InvalidToken => {
            "The token is none, was revoked, or too many subscription tokens were none."
        }
        Disconnect::BadRequest => "The client broke the protocol.",
        Disconnect::Stale => "No connect command came in time.",
        Disconnect::ForceDisconnect => "A service asked for it, or the user is blocked.",
        Disconnect::ConnectionLimit => "The user has too many connections.",
        Disconnect::ChannelLimit => "The connection has too many subscriptions.",
        Disconnect::InappropriateProtocol => "The client sent another encoding than was agreed on.",
        Disconnect::PermissionDenied => "The client may not connect in this way.",
        Disconnect::NotAvailable => "What the client asks for is not switched on.",
        Disconnect::Degraded(_) => {
            "The client is too slow for what is pushed. The reason says where to poll, and from which position."
        }
        Disconnect::Custom(..) => "A backend or a service chose code and reason.",
    }
}

const DISCONNECTS: [Disconnect; 20] = [
    Disconnect::ConnectionClosed,
    Disconnect::Shutdown,
    Disconnect::Internal,
    Disconnect::Expired,
    Disconnect::SubscriptionExpired,
    Disconnect::Slow,
    Disconnect::WriteError,
    Disconnect::InsufficientState,
    Disconnect::ForceReconnect,
    Disconnect::NoPong,
    Disconnect::TooManyRequests,
    Disconnect::InvalidToken,
    Disconnect::BadRequest,
    Disconnect::Stale,
    Disconnect::ForceDisconnect,
    Disconnect::ConnectionLimit,
    Disconnect::ChannelLimit,
    Disconnect::InappropriateProtocol,
    Disconnect::PermissionDenied,
    Disconnect::NotAvailable,
];

/// Why a subscription ended.
const fn of_unsubscribe(unsubscribe: Unsubscribe) -> &'static str {
    match unsubscribe {
        Unsubscribe::Server => "A service or a revocation ended it.",
        Unsubscribe::Gone => "A reload removed the namespace.",
        Unsubscribe::Insufficient => {
            "Publications were lost. The SDK subscribes anew and recovers."
        }
        Unsubscribe::Expired => "The token of the subscription expired and was not refreshed.",
    }
}

const UNSUBSCRIBES: [Unsubscribe; 4] = [
    Unsubscribe::Server,
    Unsubscribe::Gone,
    Unsubscribe::Insufficient,
    Unsubscribe::Expired,
];

/// SDKs reconnect by themselves, or do not (`spec/centrifuge.md` §5.2).
const fn reconnects(code: u16) -> bool {
    !matches!(code, 3500..=3999 | 4500..=4999)
}

pub(super) fn page() -> String {
    let mut out = begun(
        "codes",
        "Codes",
        "This page lets you look up the code that a client was given: why, and what helps.",
    );
    out.push_str("\n## Errors\n\nAn error answers a command, and the connection goes on. A temporary one may be tried again.\n");
    table(&mut out, &["code", "message", "temporary", "why"]);
    for error in ERRORS {
        let temporary = if error.temporary() { "yes" } else { "no" };
        let code = error.code().to_string();
        row(
            &mut out,
            &[&code, error.message(), temporary, of_error(error)],
        );
    }
    out.push_str("\n## Disconnects\n\nA disconnect ends the connection. It is the code of the close frame, or a push where there is no such frame.\n");
    table(&mut out, &["code", "reason", "SDKs reconnect", "why"]);
    let chosen = Disconnect::Custom(4000, "chosen by others".into());
    let degraded = Disconnect::Degraded("poll <path>?epoch=…&offset=…&channel=…".into());
    for disconnect in DISCONNECTS.iter().chain([&degraded, &chosen]) {
        let code = match disconnect {
            Disconnect::Custom(..) => "3000 to 4999".to_owned(),
            _ => disconnect.code().to_string(),
        };
        let again = match disconnect {
            Disconnect::Custom(..) => "by the code",
            _ if reconnects(disconnect.code()) => "yes",
            _ => "no",
        };
        row(
            &mut out,
            &[&code, disconnect.reason(), again, of_disconnect(disconnect)],
        );
    }
    out.push_str("\nCodes 3500 to 3999 and 4500 to 4999 tell SDKs to stay away. All others let them come back.\n");
    out.push_str("\n## Unsubscribes\n\nAn unsubscribe ends one subscription, and the connection goes on. From 2500 on, SDKs subscribe anew.\n");
    table(&mut out, &["code", "reason", "why"]);
    for unsubscribe in UNSUBSCRIBES {
        let (code, reason) = unsubscribe.code_reason();
        row(
            &mut out,
            &[&code.to_string(), reason, of_unsubscribe(unsubscribe)],
        );
    }
    out
}
