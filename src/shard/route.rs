//! What a request head asks for. Nothing here changes anything: `http` reads the body and serves.

mod image;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use super::kept::Kept;
use super::{Door, Mode, Shard};
use crate::config::{Config, Grant, KeyVerdict, Tenant};
use crate::limits::{BODY_UNUSED_BYTES_MAX, HTTP_BODY_BYTES_MAX};
use crate::mesh::control::PageKind;
use crate::mesh::durable::LogMethod;
use crate::model::{Encoding, Format, Framing, Speaker, TenantId};
use crate::protocol::api::is_method;
use crate::wire::http::{Allow, Cors, HttpError, Method, RequestHead, UpgradeRequest, query_value};
use crate::wire::websocket::deflate::{Agreement, DeflateTerms, MalformedExtensions, negotiate};

/// Subprotocols that this program speaks, in no order: the client's first known one is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subprotocol {
    Json,
    Protobuf,
}

impl Subprotocol {
    const ALL: [Self; 2] = [Self::Json, Self::Protobuf];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Json => "centrifuge-json",
            Self::Protobuf => "centrifuge-protobuf",
        }
    }

    /// The client's first one.
    fn of(upgrade: UpgradeRequest<'_>) -> Option<Self> {
        let name = upgrade.first_of(&Self::ALL.map(Self::name))?;
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

/// What a request head asks for, and how it is answered.
pub(super) struct JudgedRequest {
    pub(super) route: Route,
    /// Lets a browser's script read the answer.
    pub(super) cors: Option<Box<Cors>>,
    /// Bytes of the longest body.
    pub(super) body_bytes_max: usize,
}

/// See `JudgedRequest`.
pub(super) enum Route {
    /// A connection with a session.
    Client(Box<ClientRoute>),
    /// WebSocket without one.
    Echo {
        key: String,
        deflate: Option<Agreement>,
    },
    /// Commands of a client that is told by another connection.
    Emulation(Encoding),
    /// One answer with what a channel has had since a position, or will have.
    Poll(Box<PollRoute>),
    /// `{}`
    Init,
    /// `{}`, for probes.
    Health,
    /// A page that control writes.
    Control(PageKind),
    /// What the server API is.
    OpenApi,
    /// A browser asks what its script may do here.
    Preflight(Allow),
    /// Server API, with the right key: `None` is the newline form.
    Api {
        method: Option<String>,
        transport_errors: bool,
        /// What the key opens; `None` is everything. A request that has begun goes on with it, whatever a reload says meanwhile.
        grant: Option<Arc<Grant>>,
        /// For whom; empty for `default`.
        tenant: Box<str>,
    },
    /// The page.
    Page,
    /// What the server as a whole knows.
    Options(Allow),
    /// An answer that needs no body of the request.
    Refused(HttpError),
}

impl Route {
    /// The request has something to say in its body; else that is read past.
    pub(super) fn wants_body(&self) -> bool {
        match self {
            Self::Client(client) => {
                matches!(client.transport, Transport::Stream { connect: None })
            }
            Self::Emulation(_) | Self::Api { .. } => true,
            Self::Echo { .. }
            | Self::Poll(_)
            | Self::Init
            | Self::Health
            | Self::Control(_)
            | Self::OpenApi
            | Self::Preflight(_)
            | Self::Page
            | Self::Options(_)
            | Self::Refused(_) => false,
        }
    }
}

/// What a client connection is opened with.
pub(super) struct ClientRoute {
    pub(super) transport: Transport,
    pub(super) format: Format,
    /// What the request says about the client.
    pub(super) kept: Kept,
}

/// The transports of client connections (`spec/centrifuge.md` §1.4 – §1.8).
pub(super) enum Transport {
    /// Commands come in frames, and so does what the client gets.
    WebSocket {
        key: String,
        /// Echoed subprotocol.
        protocol: Option<Subprotocol>,
        frame_pings: bool,
        deflate: Option<Agreement>,
    },
    /// Only pushes go out, in frames. The connect request is in the query, or comes as the first message.
    UniWebSocket {
        key: String,
        connect: Option<Box<str>>,
    },
    /// The first commands are the body of the request, or stood in its query.
    Stream { connect: Option<Box<str>> },
}

/// What a long poll asks for.
pub(super) struct PollRoute {
    /// Connection token; empty when there is none.
    pub(super) token: String,
    pub(super) channel: String,
    /// Subscription token; empty when there is none.
    pub(super) subscription_token: String,
    /// Where the client stands: offset, and the epoch as sent.
    pub(super) since: Option<(u64, String)>,
    pub(super) timeout: Duration,
    /// What the request says about the client.
    pub(super) kept: Kept,
}

/// A browser whose origin is not allowed is told nothing; without an origin there is nobody to tell (`spec/centrifuge.md` §1.2).
fn cors(
    config: &Config,
    tenant: Option<&Arc<Tenant>>,
    head: &RequestHead<'_>,
) -> Option<Box<Cors>> {
    let origin = head.origin?;
    let wanted = || head.header("Access-Control-Request-Headers");
    config
        .allows_origin(tenant, Some(origin))
        .then(|| Box::new(Cors::new(origin, wanted())))
}

impl From<Route> for JudgedRequest {
    fn from(route: Route) -> Self {
        let body_bytes_max = match route.wants_body() {
            true => HTTP_BODY_BYTES_MAX,
            false => BODY_UNUSED_BYTES_MAX,
        };
        Self {
            route,
            cors: None,
            body_bytes_max,
        }
    }
}

impl Shard {
    pub(super) fn route(&self, door: Door, head: &RequestHead<'_>) -> JudgedRequest {
        if self.mode == Mode::Echo {
            let Some(upgrade) = &head.upgrade else {
                return Route::Refused(HttpError::UpgradeRequired).into();
            };
            return match deflate(&self.config, head, DeflateTerms::AsOffered) {
                Ok(deflate) => Route::Echo {
                    key: upgrade.key.to_owned(),
                    deflate,
                },
                Err(error) => Route::Refused(error),
            }
            .into();
        }
        if head.method == Method::Unknown {
            return Route::Refused(HttpError::MethodUnknown).into();
        }
        // What is written otherwise is another path, also where a URL's reader could take it for the same: whoever guards
        // paths in front of this program sees what it sees.
        let path = head.path.strip_suffix('/').unwrap_or(head.path);
        if path == "*" {
            return Route::Options(Allow::Any).into();
        }
        let Some((tenant, path)) = self.config.tenants.of_request(head.host, path) else {
            return Route::Refused(HttpError::NotFound).into();
        };
        if door == Door::Internal {
            return self.internal_route(head, tenant, path);
        }
        if let Some((endpoint, body_bytes_max)) = ClientEndpoint::at(&self.config, path) {
            return JudgedRequest {
                route: endpoint.route(&self.config, tenant, head),
                cors: cors(&self.config, tenant, head),
                body_bytes_max,
            };
        }
        match path {
            "" => match head.method {
                Method::Get | Method::Head => Route::Page,
                _ => Route::Refused(HttpError::MethodNotAllowed(Allow::GetHead)),
            },
            _ if self.config.health.enabled && path == self.config.health.handler_prefix => {
                match head.method {
                    Method::Get | Method::Head => Route::Health,
                    _ => Route::Refused(HttpError::MethodNotAllowed(Allow::GetHead)),
                }
            }
            _ if !self.config.serves_api_to_clients() => Route::Refused(HttpError::NotFound),
            "/api" => self.api_route(head, tenant, None),
            _ => match path.strip_prefix("/api/") {
                Some(method) => self.api_route(head, tenant, Some(method)),
                None => Route::Refused(HttpError::NotFound),
            },
        }
        .into()
    }
}

/// Where clients may knock.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientEndpoint {
    WebSocket,
    HttpStream,
    Sse,
    Emulation,
    UniWebSocket,
    UniSse,
    UniHttpStream,
    Poll,
    Init,
}

impl ClientEndpoint {
    /// The endpoint at a path, and how long a body it takes.
    fn at(config: &Config, path: &str) -> Option<(Self, usize)> {
        let is = |on: bool, prefix: &str| on && path == prefix;
        let (stream, sse) = (&config.http_stream, &config.sse);
        let (uni_stream, uni_sse) = (&config.uni_http_stream, &config.uni_sse);
        let (websocket, uni_websocket) = (&config.websocket, &config.uni_websocket);
        let emulation = &config.emulation;
        Some(if is(!websocket.disabled, &websocket.handler_prefix) {
            (Self::WebSocket, BODY_UNUSED_BYTES_MAX)
        } else if is(stream.enabled, &stream.handler_prefix) {
            (Self::HttpStream, stream.max_request_body_size)
        } else if is(sse.enabled, &sse.handler_prefix) {
            (Self::Sse, sse.max_request_body_size)
        } else if is(stream.enabled || sse.enabled, &emulation.handler_prefix) {
            (Self::Emulation, emulation.max_request_body_size)
        } else if is(uni_websocket.enabled, &uni_websocket.handler_prefix) {
            (Self::UniWebSocket, BODY_UNUSED_BYTES_MAX)
        } else if is(uni_sse.enabled, &uni_sse.handler_prefix) {
            (Self::UniSse, uni_sse.max_request_body_size)
        } else if is(uni_stream.enabled, &uni_stream.handler_prefix) {
            (Self::UniHttpStream, uni_stream.max_request_body_size)
        } else if is(config.poll.enabled, &config.poll.handler_prefix) {
            (Self::Poll, BODY_UNUSED_BYTES_MAX)
        } else if is(config.init.enabled, &config.init.handler_prefix) {
            (Self::Init, BODY_UNUSED_BYTES_MAX)
        } else {
            return None;
        })
    }

    fn route(self, config: &Config, of: Option<&Arc<Tenant>>, head: &RequestHead<'_>) -> Route {
        let tenant = of.map_or(TenantId::NONE, |of| of.id());
        // Nothing is done at `init`: a browser keeps the answer from a script that may not have it.
        if self != Self::Init && !is_welcome(config, of, head) {
            return Route::Refused(HttpError::Forbidden);
        }
        match self {
            Self::WebSocket => websocket_route(config, tenant, head),
            Self::HttpStream => stream_route(config, tenant, head, Speaker::Centrifuge),
            Self::Sse => sse_route(config, tenant, head, Speaker::Centrifuge),
            Self::Emulation => emulation_route(head),
            Self::UniWebSocket => uni_websocket_route(config, tenant, head),
            Self::UniSse => sse_route(config, tenant, head, Speaker::Unidirectional),
            Self::UniHttpStream => stream_route(config, tenant, head, Speaker::Unidirectional),
            Self::Poll => poll_route(config, tenant, head),
            Self::Init => match head.method {
                Method::Get | Method::Head => Route::Init,
                _ => Route::Refused(HttpError::MethodNotAllowed(Allow::GetHead)),
            },
        }
    }
}

/// May a client speak for whoever the request comes from? A browser names the page's origin where a script asks or a form
/// is sent. With an image or a link it only says that another site asks: its user's cookies come along all the same.
fn is_welcome(config: &Config, tenant: Option<&Arc<Tenant>>, head: &RequestHead<'_>) -> bool {
    let is_welcome = match head.origin {
        Some(_) => config.allows_origin(tenant, head.origin),
        None => !head.is_cross_site || config.allows_every_origin(tenant),
    };
    is_welcome && (!config.client.insecure || is_local_name(config, head))
}

/// Where nothing is asked of who comes, and only this host can: is it asked for under a name of this host? A page of a
/// stranger reads what it gets from its own name, and that name can be made to mean this host.
fn is_local_name(config: &Config, head: &RequestHead<'_>) -> bool {
    !config.listens_locally() || config.allows_host(head.host)
}

/// Can this be a service, where nothing is asked of services? No page is one that is not the server's own, whatever pages clients
/// may come from: a browser names the page's origin with everything that the server API takes.
fn is_service(config: &Config, head: &RequestHead<'_>) -> bool {
    is_no_stranger(config, head)
        || head.origin.is_none() && !head.is_cross_site && is_local_name(config, head)
}

/// What both WebSocket endpoints ask of a request.
fn upgrade_key(head: &RequestHead<'_>) -> Result<String, Route> {
    if head.method != Method::Get {
        return Err(Route::Refused(HttpError::MethodNotAllowed(Allow::Get)));
    }
    let Some(upgrade) = &head.upgrade else {
        return Err(Route::Refused(HttpError::UpgradeRequired));
    };
    Ok(upgrade.key.to_owned())
}

fn websocket_route(config: &Config, tenant: TenantId<'_>, head: &RequestHead<'_>) -> Route {
    let key = match upgrade_key(head) {
        Ok(key) => key,
        Err(refused) => return refused,
    };
    let deflate = match deflate(config, head, DeflateTerms::Stateless) {
        Ok(deflate) => deflate,
        Err(error) => return Route::Refused(error),
    };
    let protocol = head.upgrade.and_then(Subprotocol::of);
    // The older name of the parameter is still sent by clients that choose no subprotocol.
    let wants_protobuf = ["cf_protocol", "format"]
        .iter()
        .any(|name| query_value(head.query, name).is_some_and(|value| value == "protobuf"));
    let encoding = if wants_protobuf || protocol == Some(Subprotocol::Protobuf) {
        Encoding::Protobuf
    } else {
        Encoding::Json
    };
    Route::Client(Box::new(ClientRoute {
        transport: Transport::WebSocket {
            key,
            protocol,
            frame_pings: query_value(head.query, "cf_ws_frame_ping_pong")
                .is_some_and(|value| value == "true"),
            deflate,
        },
        format: Format {
            framing: match deflate {
                Some(_) => Framing::Deflate,
                None => Framing::WebSocket,
            },
            encoding,
            ..Format::default()
        },
        kept: Kept::of(config, tenant, head),
    }))
}

/// What is agreed on about compression. A client that does not say it in the language of the RFC is refused.
fn deflate(
    config: &Config,
    head: &RequestHead<'_>,
    terms: DeflateTerms,
) -> Result<Option<Agreement>, HttpError> {
    if !config.websocket.compression {
        return Ok(None);
    }
    let offers = head.headers("Sec-WebSocket-Extensions");
    negotiate(offers.map(str::as_bytes), terms).map_err(|MalformedExtensions| HttpError::BadRequest)
}

fn uni_websocket_route(config: &Config, tenant: TenantId<'_>, head: &RequestHead<'_>) -> Route {
    let key = match upgrade_key(head) {
        Ok(key) => key,
        Err(refused) => return refused,
    };
    Route::Client(Box::new(ClientRoute {
        transport: Transport::UniWebSocket {
            key,
            connect: query_connect(head),
        },
        format: Format {
            framing: if config.uni_websocket.join_push_messages {
                Framing::Joined
            } else {
                Framing::WebSocket
            },
            speaker: Speaker::Unidirectional,
            ..Format::default()
        },
        kept: Kept::of(config, tenant, head),
    }))
}

fn stream_route(
    config: &Config,
    tenant: TenantId<'_>,
    head: &RequestHead<'_>,
    speaker: Speaker,
) -> Route {
    match head.method {
        Method::Post => stream(
            (config, tenant),
            Format {
                encoding: match speaker {
                    Speaker::Centrifuge => body_encoding(head),
                    Speaker::Unidirectional | Speaker::Poll => Encoding::Json,
                },
                framing: if head.is_http_11 {
                    Framing::Stream
                } else {
                    Framing::PlainStream
                },
                speaker,
            },
            None,
            head,
        ),
        Method::Options => Route::Preflight(Allow::PostOptions),
        _ => Route::Refused(HttpError::MethodNotAllowed(Allow::PostOptions)),
    }
}

fn sse_route(
    config: &Config,
    tenant: TenantId<'_>,
    head: &RequestHead<'_>,
    speaker: Speaker,
) -> Route {
    let connect = match head.method {
        Method::Get => match query_connect(head) {
            Some(connect) => Some(connect),
            None if speaker == Speaker::Unidirectional => Some("{}".into()),
            None => return Route::Refused(HttpError::BadRequest),
        },
        Method::Post => None,
        _ => return Route::Refused(HttpError::MethodNotAllowed(Allow::GetPost)),
    };
    let format = Format {
        encoding: Encoding::Json,
        framing: if head.is_http_11 {
            Framing::EventStream
        } else {
            Framing::PlainEventStream
        },
        speaker,
    };
    stream((config, tenant), format, connect, head)
}

fn stream(
    (config, tenant): (&Config, TenantId<'_>),
    format: Format,
    connect: Option<Box<str>>,
    head: &RequestHead<'_>,
) -> Route {
    Route::Client(Box::new(ClientRoute {
        transport: Transport::Stream { connect },
        format,
        kept: Kept::of(config, tenant, head),
    }))
}

fn emulation_route(head: &RequestHead<'_>) -> Route {
    match head.method {
        Method::Post => Route::Emulation(body_encoding(head)),
        Method::Options => Route::Preflight(Allow::PostOptions),
        _ => Route::Refused(HttpError::MethodNotAllowed(Allow::PostOptions)),
    }
}

/// The connect frame of a request without a body; an empty one is none.
fn query_connect(head: &RequestHead<'_>) -> Option<Box<str>> {
    query_value(head.query, "cf_connect")
        .filter(|connect| !connect.is_empty())
        .map(|connect| match connect {
            Cow::Borrowed(connect) => connect.into(),
            Cow::Owned(connect) => connect.into_boxed_str(),
        })
}

fn body_encoding(head: &RequestHead<'_>) -> Encoding {
    match head.header("Content-Type") {
        Some("application/octet-stream") => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}

fn poll_route(config: &Config, tenant: TenantId<'_>, head: &RequestHead<'_>) -> Route {
    match head.method {
        Method::Get => {}
        Method::Options => return Route::Preflight(Allow::GetOptions),
        _ => return Route::Refused(HttpError::MethodNotAllowed(Allow::GetOptions)),
    }
    let value = |name: &str| query_value(head.query, name).map(Cow::into_owned);
    let bearer = || {
        let (scheme, token) = head.header("Authorization")?.split_once(' ')?;
        let is_bearer = scheme.eq_ignore_ascii_case("bearer");
        is_bearer.then(|| token.trim().to_owned())
    };
    let (Ok(offset), Ok(timeout)) = (
        value("offset").map(|offset| offset.parse()).transpose(),
        value("timeout")
            .map(|timeout| poll_timeout(&timeout).ok_or(()))
            .transpose(),
    ) else {
        return Route::Refused(HttpError::BadRequest);
    };
    let epoch = value("epoch").unwrap_or_default();
    let most = config.poll.max_timeout;
    Route::Poll(Box::new(PollRoute {
        token: value("token").or_else(bearer).unwrap_or_default(),
        channel: value("channel").unwrap_or_default(),
        subscription_token: value("subscription_token").unwrap_or_default(),
        since: match offset {
            Some(offset) => Some((offset, epoch)),
            // An epoch alone is its beginning.
            None => (!epoch.is_empty()).then_some((0, epoch)),
        },
        timeout: timeout.unwrap_or(config.poll.timeout).min(most),
        kept: Kept::of(config, tenant, head),
    }))
}

/// Seconds, with an `s` behind them or not.
fn poll_timeout(text: &str) -> Option<Duration> {
    let digits = text.strip_suffix('s').unwrap_or(text);
    digits.parse().ok().map(Duration::from_secs)
}

impl Shard {
    /// What is asked of the server API.
    pub(super) fn api_route(
        &self,
        head: &RequestHead<'_>,
        tenant: Option<&Arc<Tenant>>,
        method: Option<&str>,
    ) -> Route {
        api_route((&self.config, self.now.unix_s()), tenant, head, method)
    }
}

/// Method, key and name are looked at before a body is waited for; what the key does not open is not spoken of.
fn api_route(
    (config, now_unix_s): (&Config, u64),
    tenant: Option<&Arc<Tenant>>,
    head: &RequestHead<'_>,
    method: Option<&str>,
) -> Route {
    if head.method != Method::Post {
        return Route::Refused(HttpError::MethodNotAllowed(Allow::Post));
    }
    let api = &config.http_api;
    let given = head.header("X-API-Key").map(str::to_owned).or_else(|| {
        let (scheme, key) = head.header("Authorization")?.split_once(' ')?;
        scheme
            .eq_ignore_ascii_case("apikey")
            .then(|| key.trim().to_owned())
    });
    let given = given.or_else(|| query_value(head.query, "api_key").map(Cow::into_owned));
    let opened = match given {
        _ if api.insecure => Ok((tenant, None)),
        Some(given) => opened((config, now_unix_s), tenant, given.as_bytes()),
        None => Err(HttpError::Unauthorized),
    };
    let (tenant, grant) = match opened {
        Ok(opened) => opened,
        Err(error) => return Route::Refused(error),
    };
    if api.insecure && !is_service(config, head) {
        return Route::Refused(HttpError::Forbidden);
    }
    if method.is_some_and(|method| !is_method(method) && LogMethod::of_api(method).is_none()) {
        return Route::Refused(HttpError::NotFound);
    }
    Route::Api {
        method: method.map(str::to_owned),
        grant,
        tenant: tenant.map_or_else(Box::default, |tenant| tenant.id.as_str().into()),
        transport_errors: api.transport_errors
            || head
                .header("X-Centrifugo-Error-Mode")
                .is_some_and(|mode| mode.eq_ignore_ascii_case("transport")),
    }
}

/// A tenant, and what is open of it: everything without a grant.
type Opened<'c> = (Option<&'c Arc<Tenant>>, Option<Arc<Grant>>);

/// For which tenant a key opens what. A tenant's key is that tenant's, whichever way the request comes; any other is the operator's,
/// and acts for the tenant of the host or path. One that is for some namespaces means those of `[channel]`.
fn opened<'c>(
    (config, now_unix_s): (&'c Config, u64),
    tenant: Option<&'c Arc<Tenant>>,
    given: &[u8],
) -> Result<Opened<'c>, HttpError> {
    match config.http_api.judge(given, now_unix_s) {
        KeyVerdict::Unnamed => Ok((tenant, None)),
        KeyVerdict::Named(key) if key.grant().is_for_channels_only() && tenant.is_some() => {
            Err(HttpError::Unauthorized)
        }
        KeyVerdict::Named(key) => Ok((tenant, Some(Arc::clone(key.grant())))),
        KeyVerdict::Expired => Err(HttpError::KeyExpired),
        KeyVerdict::Unknown => match config.tenants.judge(given, now_unix_s) {
            Some((own, _)) if tenant.is_some_and(|tenant| tenant.id != own.id) => {
                Err(HttpError::Unauthorized)
            }
            Some((own, KeyVerdict::Named(key))) => Ok((Some(own), Some(Arc::clone(key.grant())))),
            Some((_, KeyVerdict::Expired)) => Err(HttpError::KeyExpired),
            Some((_, KeyVerdict::Unnamed | KeyVerdict::Unknown)) | None => {
                Err(HttpError::Unauthorized)
            }
        },
    }
}

/// Is this a request that no page of a stranger can have made? Where there is no key, a browser on the same host could be
/// sent here.
pub(super) fn is_no_stranger(config: &Config, head: &RequestHead<'_>) -> bool {
    config.allows_host(head.host)
        && crate::wire::http::is_same_site(head.host, head.origin, head.header("Sec-Fetch-Site"))
}
