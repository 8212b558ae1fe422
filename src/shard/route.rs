//! What a request head asks for. Nothing here changes anything: `http` reads the body and serves.

use std::borrow::Cow;

use super::{Mode, Shard};
use crate::config::Config;
use crate::model::Encoding;
use crate::wire::http::{HttpError, Method, RequestHead, query_value};

/// Subprotocols that this program speaks, in no order: the client's first known one is taken.
const SUBPROTOCOLS: [&str; 2] = [JSON, PROTOBUF];
const JSON: &str = "centrifuge-json";
const PROTOBUF: &str = "centrifuge-protobuf";

/// What a request head asks for, and how it is answered.
pub(super) struct Asked {
    pub(super) route: Route,
    /// Lets a browser's script read the answer.
    pub(super) cors: Option<Box<Cors>>,
}

/// See `Asked`.
pub(super) enum Route {
    /// A connection with a session.
    Client(Box<ClientRoute>),
    /// WebSocket without one.
    Echo { key: String },
    /// `{}`
    Init,
    /// Server API: `None` is the newline form.
    Api {
        method: Option<String>,
        key: ApiKey,
        transport_errors: bool,
    },
    /// The page.
    Page,
    /// An answer that needs no body of the request.
    Refused(HttpError),
    /// The origin is not allowed.
    Forbidden,
    /// Nothing is here.
    NotFound,
}

/// What a client connection is opened with.
pub(super) struct ClientRoute {
    pub(super) transport: Transport,
}

/// The transports of client connections (`spec/centrifuge.md` §1.4 – §1.8).
pub(super) enum Transport {
    /// Commands come in frames, and so does what the client gets.
    WebSocket {
        key: String,
        /// Echoed subprotocol.
        protocol: Option<&'static str>,
        encoding: Encoding,
        frame_pings: bool,
    },
}

/// Does the request carry the key of the server API?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ApiKey {
    Right,
    Wrong,
}

/// What is told to a browser whose origin is allowed (`spec/centrifuge.md` §1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cors {
    origin: Box<str>,
    /// Headers that the script wants to send.
    headers: Option<Box<str>>,
}

impl Cors {
    fn of(head: &RequestHead<'_>, config: &Config) -> Option<Box<Self>> {
        let origin = head.origin?;
        config.allows_origin(Some(origin)).then(|| {
            let headers = head.header("Access-Control-Request-Headers");
            Box::new(Self {
                origin: origin.into(),
                headers: headers.map(Into::into),
            })
        })
    }

    /// Names and values of the answer's headers.
    pub(super) fn headers(&self) -> Vec<(&'static str, &str)> {
        let mut headers = vec![
            ("Access-Control-Allow-Origin", &*self.origin),
            ("Access-Control-Allow-Credentials", "true"),
        ];
        if let Some(wanted) = &self.headers {
            headers.push(("Access-Control-Allow-Headers", wanted));
        }
        headers
    }
}

impl From<Route> for Asked {
    fn from(route: Route) -> Self {
        Self { route, cors: None }
    }
}

impl Shard {
    pub(super) fn route(&self, head: &RequestHead<'_>) -> Asked {
        if self.mode == Mode::Echo {
            return match &head.upgrade {
                Some(upgrade) => Route::Echo {
                    key: upgrade.key.to_owned(),
                },
                None => Route::Refused(HttpError::UpgradeRequired),
            }
            .into();
        }
        let path = head.path.trim_end_matches('/');
        if let Some(route) = client_route(&self.config, head, path) {
            return Asked {
                route,
                cors: Cors::of(head, &self.config),
            };
        }
        match path {
            "" => match head.method {
                Method::Get | Method::Head => Route::Page,
                _ => Route::Refused(HttpError::MethodNotAllowed),
            },
            "/api" => api_route(&self.config, head, None),
            _ => match path.strip_prefix("/api/") {
                Some(method) => api_route(&self.config, head, Some(method.to_owned())),
                None => Route::NotFound,
            },
        }
        .into()
    }
}

/// The endpoints of clients.
fn client_route(config: &Config, head: &RequestHead<'_>, path: &str) -> Option<Route> {
    let is = |on: bool, prefix: &str| on && path == prefix;
    let (websocket, init) = (&config.websocket, &config.init);
    Some(if is(!websocket.disabled, &websocket.handler_prefix) {
        websocket_route(config, head)
    } else if is(init.enabled, &init.handler_prefix) {
        match head.method {
            Method::Get => Route::Init,
            _ => Route::Refused(HttpError::MethodNotAllowed),
        }
    } else {
        return None;
    })
}

/// What a WebSocket endpoint asks of a request. Another origin is refused here, as no browser would do it for us.
fn upgrade_key(config: &Config, head: &RequestHead<'_>) -> Result<String, Route> {
    if head.method != Method::Get {
        return Err(Route::Refused(HttpError::MethodNotAllowed));
    }
    let Some(upgrade) = &head.upgrade else {
        return Err(Route::Refused(HttpError::UpgradeRequired));
    };
    if !config.allows_origin(head.origin) {
        return Err(Route::Forbidden);
    }
    Ok(upgrade.key.to_owned())
}

fn websocket_route(config: &Config, head: &RequestHead<'_>) -> Route {
    let key = match upgrade_key(config, head) {
        Ok(key) => key,
        Err(refused) => return refused,
    };
    let protocol = head
        .upgrade
        .and_then(|upgrade| upgrade.first_of(&SUBPROTOCOLS));
    // The older name of the parameter is still sent by clients that choose no subprotocol.
    let wants_protobuf = ["cf_protocol", "format"]
        .iter()
        .any(|name| query_value(head.query, name).is_some_and(|value| value == "protobuf"));
    let encoding = if wants_protobuf || protocol == Some(PROTOBUF) {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    Route::Client(Box::new(ClientRoute {
        transport: Transport::WebSocket {
            key,
            protocol,
            encoding,
            frame_pings: query_value(head.query, "cf_ws_frame_ping_pong")
                .is_some_and(|value| value == "true"),
        },
    }))
}

fn api_route(config: &Config, head: &RequestHead<'_>, method: Option<String>) -> Route {
    if head.method != Method::Post {
        return Route::Refused(HttpError::MethodNotAllowed);
    }
    let api = &config.http_api;
    let given = head.header("X-API-Key").map(str::to_owned).or_else(|| {
        let (scheme, key) = head.header("Authorization")?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("apikey")
            .then(|| key.trim().to_owned())
    });
    let given = given.or_else(|| query_value(head.query, "api_key").map(Cow::into_owned));
    let right = api.insecure
        || !api.key.0.is_empty()
            && given.is_some_and(|given| same_secret(given.as_bytes(), api.key.0.as_bytes()));
    Route::Api {
        method,
        key: if right { ApiKey::Right } else { ApiKey::Wrong },
        transport_errors: api.transport_errors
            || head
                .header("X-Centrifugo-Error-Mode")
                .is_some_and(|mode| mode.eq_ignore_ascii_case("transport")),
    }
}

/// Compares in time that depends on the lengths only.
fn same_secret(given: &[u8], wanted: &[u8]) -> bool {
    given.len() == wanted.len()
        && std::hint::black_box(
            given
                .iter()
                .zip(wanted)
                .fold(0, |differ, (a, b)| differ | (a ^ b)),
        ) == 0
}
