//! Request heads.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Decoded, HttpError, has_bare_line_feed};
use crate::limits::{HTTP_HEAD_BYTES_MAX, HTTP_HEADERS_MAX};

/// Bytes of a decoded `Sec-WebSocket-Key` (RFC 6455 §4.1).
const KEY_BYTES: usize = 16;
/// Base64 characters that hold them.
const KEY_CHARS: usize = KEY_BYTES.div_ceil(3) * 4;

/// A request's head, borrowed from the received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead<'a> {
    /// The method.
    pub method: Method,
    /// The path, not percent-decoded: begins with `/`, or is `*`.
    pub path: &'a str,
    /// What follows the path's `?`, not percent-decoded; empty when there is nothing.
    pub query: &'a str,
    /// HTTP/1.1; else it is HTTP/1.0, which has no chunks.
    pub is_http_11: bool,
    /// Whether the client would send another request on this connection.
    pub keep_alive: bool,
    /// How the body's end is known.
    pub body: BodyLength,
    /// `Origin`, which browsers send and scripts in them cannot change.
    pub origin: Option<&'a str>,
    /// A browser says that a page of another site asks (`Sec-Fetch-Site`). It does so also where it sends no `Origin`: with
    /// an image or a link.
    pub is_cross_site: bool,
    /// `Host`, or the authority of an absolute request target. Always there in HTTP/1.1.
    pub host: Option<&'a str>,
    /// The client waits for [`super::CONTINUE`] before it sends the body.
    pub expect_continue: bool,
    /// The valid wish to speak WebSocket.
    pub upgrade: Option<UpgradeRequest<'a>>,
    /// Request line and header lines, each with its CRLF.
    lines: &'a [u8],
}

/// The methods this program tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `GET`
    Get,
    /// `POST`
    Post,
    /// `OPTIONS`
    Options,
    /// `HEAD`
    Head,
    /// One of the other methods that HTTP defines: no path has it.
    Other,
    /// Nobody here knows it.
    Unknown,
}

/// How the end of a request's body is known (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    None,
    /// `Content-Length`, in bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What a client says that wants to speak WebSocket version 13 (RFC 6455 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UpgradeRequest<'a> {
    /// `Sec-WebSocket-Key`: the base64 of 16 bytes.
    pub key: &'a str,
    /// `Sec-WebSocket-Protocol`: a comma-separated list, empty when absent.
    pub protocols: &'a str,
}

impl UpgradeRequest<'_> {
    /// The first of the subprotocols that the client offers which is among `known`.
    pub fn first_of<'n>(&self, known: &[&'n str]) -> Option<&'n str> {
        self.protocols.split(',').find_map(|offer| {
            let offer = offer.trim_matches([' ', '\t']);
            known.iter().find(|name| **name == offer).copied()
        })
    }
}

impl<'a> RequestHead<'a> {
    /// The first header of that name, its case aside. `None` too when its value is not UTF-8.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        self.headers(name).next()
    }

    /// Values of all headers of this name, in their order.
    pub fn headers<'n>(&self, name: &'n str) -> impl Iterator<Item = &'a str> + use<'a, 'n> {
        self.lines
            .split(|&byte| byte == b'\n')
            .skip(1)
            .filter_map(move |line| {
                let (key, rest) = line.split_at_checked(name.len())?;
                let value = rest.strip_prefix(b":")?;
                if !key.eq_ignore_ascii_case(name.as_bytes()) {
                    return None;
                }
                str::from_utf8(value.trim_ascii()).ok()
            })
    }
}

/// Reads the request head at the front of `bytes`. Empty lines before it are skipped, as RFC 9112 §2.2 wishes, and count into its limit.
pub fn decode_head(bytes: &[u8]) -> Result<Decoded<RequestHead<'_>>, HttpError> {
    let bounded = &bytes[..bytes.len().min(HTTP_HEAD_BYTES_MAX)];
    let mut headers = [const { MaybeUninit::uninit() }; HTTP_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let used = match request.parse_with_uninit_headers(bounded, &mut headers) {
        Ok(httparse::Status::Complete(used)) => used,
        Ok(httparse::Status::Partial) if bytes.len() < HTTP_HEAD_BYTES_MAX => {
            return Ok(Decoded::Incomplete);
        }
        Ok(httparse::Status::Partial)
            if memchr::memchr(b'\n', bounded.trim_ascii_start()).is_some() =>
        {
            return Err(HttpError::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Err(HttpError::UriTooLong),
        Err(error) => return Err(refusal(error, bounded)),
    };
    if has_bare_line_feed(&bounded[..used]) {
        return Err(HttpError::BadRequest);
    }
    let (Some(method), Some(target), Some(minor_version)) =
        (request.method, request.path, request.version)
    else {
        return Err(HttpError::BadRequest);
    };
    let fields = DecidingHeaders::collect(request.headers)?;
    let is_http_11 = minor_version == 1;
    if method == "CONNECT" {
        // It asks for a tunnel, and its target is no path.
        return Err(HttpError::MethodUnknown);
    }
    let method = Method::parse(method);
    let (authority, path, query) = split_target(target, method)?;
    let host = authority.or(fields.host);
    if is_http_11 && fields.host.is_none() || !host.is_none_or(is_host) {
        return Err(HttpError::BadRequest);
    }
    if fields.expects_other {
        return Err(HttpError::ExpectationFailed);
    }
    let body = fields.body(is_http_11)?;
    let upgrade = if is_http_11 && method == Method::Get {
        fields.upgrade_request(body)?
    } else {
        None
    };
    let head = RequestHead {
        method,
        path,
        query,
        is_http_11,
        keep_alive: !fields.connection_close && (is_http_11 || fields.connection_keep_alive),
        body,
        origin: fields.origin,
        is_cross_site: fields.cross_site,
        host,
        expect_continue: is_http_11 && fields.expect_continue,
        upgrade,
        lines: bounded[..used].trim_ascii_start(),
    };
    Ok(Decoded::Complete(head, used))
}

/// Tells an unknown version of HTTP from noise; `httparse` calls both a version.
fn refusal(error: httparse::Error, bytes: &[u8]) -> HttpError {
    match error {
        httparse::Error::TooManyHeaders => HttpError::TooManyHeaders,
        httparse::Error::Version => {
            let line = bytes
                .trim_ascii_start()
                .split(|&byte| byte == b'\n')
                .next()
                .unwrap_or_default();
            let version = line.split(|&byte| byte == b' ').nth(2).unwrap_or_default();
            if version.starts_with(b"HTTP/") {
                HttpError::VersionUnsupported
            } else {
                HttpError::BadRequest
            }
        }
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token => HttpError::BadRequest,
    }
}

/// Authority, path and query of a request target in origin, absolute or asterisk form (RFC 9112 §3.2).
fn split_target(target: &str, method: Method) -> Result<(Option<&str>, &str, &str), HttpError> {
    if target == "*" && method == Method::Options {
        return Ok((None, target, ""));
    }
    if target.contains('#') {
        return Err(HttpError::BadRequest);
    }
    let (authority, local) = match ["http://", "https://"]
        .into_iter()
        .find_map(|scheme| strip_prefix_ignore_case(target, scheme))
    {
        None if target.starts_with('/') => (None, target),
        None => return Err(HttpError::BadRequest),
        Some(rest) => {
            let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            if authority.is_empty() || !is_host(authority) {
                return Err(HttpError::BadRequest);
            }
            (Some(authority), local)
        }
    };
    let (path, query) = local.split_once('?').unwrap_or((local, ""));
    Ok((authority, if path.is_empty() { "/" } else { path }, query))
}

fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (front, rest) = text.split_at_checked(prefix.len())?;
    front.eq_ignore_ascii_case(prefix).then_some(rest)
}

impl Method {
    fn parse(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "POST" => Self::Post,
            "OPTIONS" => Self::Options,
            "HEAD" => Self::Head,
            "PUT" | "DELETE" | "PATCH" | "TRACE" => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// The headers that decide how a request is read, gathered in one pass.
#[derive(Default)]
struct DecidingHeaders<'a> {
    host: Option<&'a str>,
    origin: Option<&'a str>,
    cross_site: bool,
    content_length: Option<u64>,
    transfer_encoding: Option<&'a str>,
    connection_close: bool,
    connection_keep_alive: bool,
    connection_upgrade: bool,
    expect_continue: bool,
    expects_other: bool,
    upgrade_websocket: bool,
    websocket_key: Option<&'a str>,
    websocket_version: Option<&'a str>,
    websocket_protocols: Option<&'a str>,
}

impl<'a> DecidingHeaders<'a> {
    fn collect(headers: &[httparse::Header<'a>]) -> Result<Self, HttpError> {
        let mut fields = Self::default();
        for header in headers {
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            // The length of a name leaves at most two candidates to compare with.
            match header.name.len() {
                4 if is("host") => once(&mut fields.host, text(header)?)?,
                6 if is("origin") => once(&mut fields.origin, text(header)?)?,
                6 if is("expect") => {
                    let value = text(header)?;
                    let known = has_token(value, "100-continue");
                    fields.expect_continue |= known;
                    fields.expects_other |= !known || value.contains(',');
                }
                7 if is("upgrade") => {
                    fields.upgrade_websocket |= has_token(text(header)?, "websocket")
                }
                10 if is("connection") => {
                    let value = text(header)?;
                    fields.connection_close |= has_token(value, "close");
                    fields.connection_keep_alive |= has_token(value, "keep-alive");
                    fields.connection_upgrade |= has_token(value, "upgrade");
                }
                14 if is("sec-fetch-site") => {
                    fields.cross_site |= header.value.eq_ignore_ascii_case(b"cross-site")
                }
                14 if is("content-length") => {
                    let length = content_length(header.value)?;
                    if fields.content_length.is_some_and(|other| other != length) {
                        return Err(HttpError::BadRequest);
                    }
                    fields.content_length = Some(length);
                }
                17 if is("transfer-encoding") => {
                    once(&mut fields.transfer_encoding, text(header)?)?
                }
                17 if is("sec-websocket-key") => once(&mut fields.websocket_key, text(header)?)?,
                21 if is("sec-websocket-version") => {
                    once(&mut fields.websocket_version, text(header)?)?
                }
                // A list may be split over several headers; choosing from the first alone is as legal as choosing none.
                22 if is("sec-websocket-protocol") => {
                    fields.websocket_protocols = fields.websocket_protocols.or(Some(text(header)?))
                }
                _ => {}
            }
        }
        Ok(fields)
    }

    fn body(&self, is_http_11: bool) -> Result<BodyLength, HttpError> {
        match (self.transfer_encoding, self.content_length) {
            (None, None) => Ok(BodyLength::None),
            (None, Some(length)) => Ok(BodyLength::Length(length)),
            (Some(_), Some(_)) => Err(HttpError::BadRequest),
            (Some(_), None) if !is_http_11 => Err(HttpError::BadRequest),
            (Some(coding), None) => coded(coding),
        }
    }

    /// Without both `Upgrade: websocket` and `Connection: upgrade` there is no wish to upgrade; with them the rest has to be right.
    fn upgrade_request(&self, body: BodyLength) -> Result<Option<UpgradeRequest<'a>>, HttpError> {
        if !(self.upgrade_websocket && self.connection_upgrade) {
            return Ok(None);
        }
        match self.websocket_version {
            Some("13") => {}
            Some(_) => return Err(HttpError::UpgradeRequired),
            None => return Err(HttpError::BadRequest),
        }
        let key = self
            .websocket_key
            .filter(|key| is_websocket_key(key))
            .ok_or(HttpError::BadRequest)?;
        match body {
            BodyLength::None | BodyLength::Length(0) => {}
            BodyLength::Length(_) | BodyLength::Chunked => return Err(HttpError::BadRequest),
        }
        Ok(Some(UpgradeRequest {
            key,
            protocols: self.websocket_protocols.unwrap_or_default(),
        }))
    }
}

/// A body whose last coding is not `chunked`, or that is chunked twice, has no end that can be known (RFC 9112 §6.3); what
/// is under the chunks is a matter of codings that are spoken here, and none is.
fn coded(codings: &str) -> Result<BodyLength, HttpError> {
    let mut codings = codings
        .rsplit(',')
        .map(|coding| coding.trim_matches([' ', '\t']));
    let is_chunked = |coding: &str| coding.eq_ignore_ascii_case("chunked");
    if !codings.next().is_some_and(is_chunked) {
        return Err(HttpError::BadRequest);
    }
    let mut below = codings.filter(|coding| !coding.is_empty()).peekable();
    if below.peek().is_none() {
        return Ok(BodyLength::Chunked);
    }
    if below.any(is_chunked) {
        return Err(HttpError::BadRequest);
    }
    Err(HttpError::TransferEncodingUnsupported)
}

/// Whether a URL may name a host like this, with or without a port (RFC 3986 §3.2.2). Nobody is named by an empty one, which
/// is legal as well (RFC 9112 §3.2).
fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((address, port)) = rest.split_once(']') else {
                return false;
            };
            // What comes after IPv6 has a version of its own, which nobody uses.
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            ("", port)
        }
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let digits = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    if !port.is_empty() && !port.strip_prefix(':').is_some_and(digits) {
        return false;
    }
    let mut bytes = host.bytes();
    while let Some(byte) = bytes.next() {
        let escaped = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_hexdigit());
        let is_legal = match byte {
            b'%' => escaped(bytes.next()) && escaped(bytes.next()),
            byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
        };
        if !is_legal {
            return false;
        }
    }
    true
}

/// A header that may come once only.
fn once<'a>(field: &mut Option<&'a str>, value: &'a str) -> Result<(), HttpError> {
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(HttpError::BadRequest),
    }
}

fn text<'a>(header: &httparse::Header<'a>) -> Result<&'a str, HttpError> {
    str::from_utf8(header.value).map_err(|_| HttpError::BadRequest)
}

fn has_token(list: &str, token: &str) -> bool {
    list.split(',')
        .any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(token))
}

/// Digits and nothing else; a number no `u64` holds is beyond every limit.
fn content_length(value: &[u8]) -> Result<u64, HttpError> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(HttpError::BadRequest);
    }
    let digits = str::from_utf8(value).map_err(|_| HttpError::BadRequest)?;
    Ok(digits.parse().unwrap_or(u64::MAX))
}

fn is_websocket_key(key: &str) -> bool {
    let mut decoded = [0; KEY_CHARS];
    key.len() == KEY_CHARS && BASE64.decode_slice_unchecked(key, &mut decoded) == Ok(KEY_BYTES)
}

/// The value of the first parameter `name` in a query, decoded as `application/x-www-form-urlencoded`.
pub fn query_value<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    form_urlencoded::parse(query.as_bytes()).find_map(|(key, value)| (key == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    const BROWSER: &str = "GET /connection/websocket?token=a%2Bb&x HTTP/1.1\r\nHost: edge.example:8000\r\nConnection: keep-alive, Upgrade\r\n\
        Upgrade: WebSocket\r\nOrigin: https://app.example\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: centrifuge-json, centrifuge-protobuf\r\n\r\n";
    const API: &str = "POST /api/publish HTTP/1.1\r\nHost: localhost\r\nX-API-Key: secret\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n";

    fn head(text: &str) -> RequestHead<'_> {
        match decode_head(text.as_bytes()) {
            Ok(Decoded::Complete(head, used)) if used == text.len() => head,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(text: &str) -> HttpError {
        decode_head(text.as_bytes()).expect_err(text)
    }

    /// A GET of HTTP/1.1 with these further header lines.
    fn get(lines: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")
    }

    fn upgrade(from: &str, to: &str) -> String {
        assert!(BROWSER.contains(from), "{from}");
        BROWSER.replace(from, to)
    }

    #[test]
    fn upgrade_of_a_browser_is_understood() {
        let head = head(BROWSER);
        assert_eq!(
            (head.method, head.path, head.query),
            (Method::Get, "/connection/websocket", "token=a%2Bb&x")
        );
        assert_eq!(
            (head.origin, head.host),
            (Some("https://app.example"), Some("edge.example:8000"))
        );
        assert!(head.keep_alive && !head.expect_continue && head.body == BodyLength::None);
        let upgrade = head.upgrade.unwrap();
        assert_eq!(upgrade.key, "dGhlIHNhbXBsZSBub25jZQ==");
        let known = ["centrifuge-protobuf", "centrifuge", "centrifuge-json"];
        assert_eq!(upgrade.first_of(&known), Some("centrifuge-json"));
        assert_eq!(upgrade.first_of(&known[..2]), Some(known[0]));
        assert_eq!(upgrade.first_of(&known[1..2]), None);
    }

    #[test]
    fn request_of_the_api_is_understood() {
        let head = head(API);
        assert_eq!(
            (head.method, head.path, head.query),
            (Method::Post, "/api/publish", "")
        );
        assert_eq!(head.body, BodyLength::Length(12));
        assert!(head.expect_continue && head.upgrade.is_none());
        assert_eq!(head.header("x-api-key"), Some("secret"));
        assert_eq!(
            (
                head.header("x-api"),
                head.header("authorization"),
                head.header("POST /api/publish HTTP/1.1")
            ),
            (None, None, None)
        );
    }

    #[test]
    fn pipelined_request_begins_where_the_head_ends() {
        let both = format!("\r\n{API}{BROWSER}");
        let Ok(Decoded::Complete(first, used)) = decode_head(both.as_bytes()) else {
            panic!()
        };
        assert_eq!(
            (used, first.header("X-Api-Key")),
            (2 + API.len(), Some("secret"))
        );
        assert_eq!(
            decode_head(&both.as_bytes()[used..]),
            Ok(Decoded::Complete(head(BROWSER), BROWSER.len()))
        );
    }

    #[test]
    fn connection_persists_as_its_version_and_header_say() {
        assert!(head(&get("")).keep_alive);
        assert!(!head(&get("Connection: x, Close\r\n")).keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(
            !head("GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n")
                .keep_alive
        );
    }

    #[test]
    fn targets_are_split_in_every_form() {
        let split = |target: &str, method| {
            split_target(target, method).map(|(a, p, q)| format!("{a:?} {p} {q}"))
        };
        assert_eq!(split("/a?b?c", Method::Get).unwrap(), "None /a b?c");
        assert_eq!(
            split("HTTP://h:1/a?b", Method::Get).unwrap(),
            "Some(\"h:1\") /a b"
        );
        assert_eq!(
            split("https://h?b", Method::Get).unwrap(),
            "Some(\"h\") / b"
        );
        assert_eq!(split("*", Method::Options).unwrap(), "None * ");
        for bad in ["*", "a", "h:80", "http:///a", "ftp://h/a", "/a#b"] {
            assert_eq!(split(bad, Method::Get), Err(HttpError::BadRequest), "{bad}");
        }
        assert_eq!(
            head("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n").host,
            Some("b")
        );
        assert_eq!(
            head("PATCH / HTTP/1.1\r\nHost: a\r\n\r\n").method,
            Method::Other
        );
    }

    #[test]
    fn request_whose_end_is_ambiguous_is_refused() {
        for lines in [
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Content-Length: 1\r\nContent-Length: 2\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length:\r\n",
            "Content-Length : 1\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "A: b\r\n c\r\n",
            " A: b\r\n",
            "A: b\n",
            "A: b\rC: d\r\n",
            "A\r\n",
            ": b\r\n",
            "A: \0\r\n",
            "Host: b\r\n",
        ] {
            assert_eq!(refused(&get(lines)), HttpError::BadRequest, "{lines:?}");
        }
        assert_eq!(
            refused("GET / HTTP/1.1\nHost: a\r\n\r\n"),
            HttpError::BadRequest
        );
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: a\r\n\n"),
            HttpError::BadRequest
        );
        assert_eq!(
            refused("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
            HttpError::BadRequest
        );
        assert_eq!(
            refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
            HttpError::BadRequest
        );
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), HttpError::BadRequest);
        assert_eq!(
            head(&get("Content-Length: 1\r\nContent-Length: 1\r\n")).body,
            BodyLength::Length(1)
        );
        assert_eq!(
            head(&get("Transfer-Encoding: Chunked\r\n")).body,
            BodyLength::Chunked
        );
        let refused_for = |coding: &str| refused(&get(&format!("Transfer-Encoding: {coding}\r\n")));
        for coding in ["gzip, chunked", "GZIP,\tchunked"] {
            assert_eq!(
                refused_for(coding),
                HttpError::TransferEncodingUnsupported,
                "{coding}"
            );
        }
        for coding in [
            "identity",
            "chunked, chunked",
            "chunked, gzip",
            "xchunked",
            "chunked;a=b",
            "",
        ] {
            assert_eq!(refused_for(coding), HttpError::BadRequest, "{coding}");
        }
        assert_eq!(
            head(&get("Transfer-Encoding: , chunked\r\n")).body,
            BodyLength::Chunked
        );
    }

    #[test]
    fn host_is_what_a_url_may_have() {
        let with = |host: &str| format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        for host in [
            "a",
            "a.b:80",
            "a:",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:80",
            "xn--a",
            "a%C3%A4b",
            "a_b",
            "",
        ] {
            assert_eq!(head(&with(host)).host, Some(host));
        }
        for host in [
            "a b", "a/b", "a?b", "a@b", "a#b", "a:b", "a:80:80", "[::1", "::1", "[a]", "[::1]x",
            "a%", "a%zz", "a\\b", "a\"b", "<a>", "\u{e4}", "a\tb",
        ] {
            assert_eq!(refused(&with(host)), HttpError::BadRequest, "{host:?}");
        }
        for target in ["http://a b/", "http://u@a/", "http://a:b/"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            assert_eq!(refused(&request), HttpError::BadRequest, "{target}");
        }
        assert_eq!(
            refused("GET / HTTP/1.0\r\nHost: a b\r\n\r\n"),
            HttpError::BadRequest
        );
    }

    #[test]
    fn methods_that_nobody_knows_and_expectations_that_nobody_meets_are_told_apart() {
        let method = |name: &str| head(&get("").replace("GET", name)).method;
        assert_eq!(method("DELETE"), Method::Other);
        assert_eq!(method("get"), Method::Unknown, "methods have a case");
        assert_eq!(method("BREW"), Method::Unknown);
        assert_eq!(
            refused("CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n"),
            HttpError::MethodUnknown
        );
        assert!(head(&get("Expect: 100-Continue\r\n")).expect_continue);
        for other in ["200-ok", "100-continue, x", ""] {
            let lines = format!("Expect: {other}\r\n");
            assert_eq!(refused(&get(&lines)), HttpError::ExpectationFailed);
        }
    }

    #[test]
    fn unknown_version_is_told_from_noise() {
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9"] {
            assert_eq!(
                refused(&format!("GET / {version}\r\n\r\n")),
                HttpError::VersionUnsupported
            );
        }
        assert_eq!(
            refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            HttpError::VersionUnsupported
        );
        for noise in [
            "GET /a b HTTP/1.1\r\n\r\n",
            "GET / http/1.1\r\n\r\n",
            "\x16\x03\x01\x02",
            "G\0T",
            "GET  / HTTP/1.1\r\n",
        ] {
            assert_eq!(refused(noise), HttpError::BadRequest, "{noise:?}");
        }
    }

    #[test]
    fn length_that_no_number_holds_is_beyond_every_limit() {
        let body = |length: &str| head(&get(&format!("Content-Length: {length}\r\n"))).body;
        assert_eq!(body("4194305"), BodyLength::Length(4_194_305));
        assert_eq!(
            body("99999999999999999999999999"),
            BodyLength::Length(u64::MAX)
        );
    }

    #[test]
    fn head_at_the_limit_passes_and_beyond_it_is_refused() {
        let filled = |len: usize| {
            let bare = get("A: \r\n").len();
            get(&format!("A: {}\r\n", "a".repeat(len - bare)))
        };
        assert!(matches!(
            decode_head(filled(HTTP_HEAD_BYTES_MAX).as_bytes()),
            Ok(Decoded::Complete(_, HTTP_HEAD_BYTES_MAX))
        ));
        let over = filled(HTTP_HEAD_BYTES_MAX + 1);
        assert_eq!(refused(&over), HttpError::HeadTooLarge);
        assert_eq!(
            refused(&over[..HTTP_HEAD_BYTES_MAX]),
            HttpError::HeadTooLarge
        );
        assert_eq!(
            decode_head(&over.as_bytes()[..HTTP_HEAD_BYTES_MAX - 1]),
            Ok(Decoded::Incomplete)
        );
        let long_line = format!("GET /{}", "a".repeat(HTTP_HEAD_BYTES_MAX));
        assert_eq!(refused(&long_line), HttpError::UriTooLong);
        assert_eq!(
            refused(&"\r\n".repeat(HTTP_HEAD_BYTES_MAX / 2)),
            HttpError::UriTooLong
        );
    }

    #[test]
    fn headers_at_the_limit_pass_and_one_more_is_refused() {
        head(&get(&"A: b\r\n".repeat(HTTP_HEADERS_MAX - 1)));
        assert_eq!(
            refused(&get(&"A: b\r\n".repeat(HTTP_HEADERS_MAX))),
            HttpError::TooManyHeaders
        );
    }

    #[test]
    fn broken_upgrade_is_refused() {
        for (from, to) in [
            ("Sec-WebSocket-Version: 13\r\n", ""),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", ""),
            ("dGhlIHNhbXBsZSBub25jZQ==", ""),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZXMh"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!=="),
            ("Origin: https://app.example", "Content-Length: 1"),
            ("Origin: https://app.example", "Transfer-Encoding: chunked"),
            (
                "Origin: https://app.example",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ),
        ] {
            assert_eq!(refused(&upgrade(from, to)), HttpError::BadRequest, "{to:?}");
        }
        for version in ["8", "14", "013", ""] {
            assert_eq!(
                refused(&upgrade("Version: 13", &format!("Version: {version}"))),
                HttpError::UpgradeRequired
            );
        }
    }

    #[test]
    fn without_the_wish_there_is_no_upgrade() {
        for (from, to) in [
            ("keep-alive, Upgrade", "keep-alive"),
            ("WebSocket\r\n", "h2c\r\n"),
            ("GET", "POST"),
            ("HTTP/1.1", "HTTP/1.0"),
        ] {
            assert_eq!(head(&upgrade(from, to)).upgrade, None, "{to:?}");
        }
    }

    #[test]
    fn query_values_are_decoded() {
        assert_eq!(
            query_value("a=1&b=%7B%22x%22%3A+1%7D&b=2", "b").as_deref(),
            Some("{\"x\": 1}")
        );
        assert_eq!(query_value("a&%62=%zz", "b").as_deref(), Some("%zz"));
        assert_eq!(query_value("a", "a").as_deref(), Some(""));
        assert_eq!(query_value("", "a"), None);
    }

    proptest! {
        #[test]
        fn head_is_incomplete_until_its_last_byte_and_not_changed_by_what_follows(cut: Index, tail in vec(any::<u8>(), 0..40)) {
            for text in [BROWSER, API] {
                prop_assert_eq!(decode_head(&text.as_bytes()[..cut.index(text.len())]), Ok(Decoded::Incomplete));
                let longer = [text.as_bytes(), &tail].concat();
                match decode_head(&longer) {
                    Ok(Decoded::Complete(_, used)) => prop_assert_eq!(used, text.len()),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
        }

        #[test]
        fn verdict_on_a_damaged_head_stands_whatever_arrives_later(
            damage in vec((any::<Index>(), prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':')]), 0..4),
            cut: Index,
        ) {
            let mut bytes = BROWSER.as_bytes().to_vec();
            for (at, value) in damage {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            match (decode_head(&bytes[..cut.index(bytes.len())]), decode_head(&bytes)) {
                (Ok(Decoded::Incomplete), _) => {}
                (Ok(before), after) => prop_assert_eq!(Ok(before), after),
                (Err(_), after) => prop_assert!(after.is_err()),
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..300)) {
            let _ = decode_head(&bytes);
            let _ = decode_head(&[b"GET / HTTP/1.1\r\nHost: ", &bytes[..]].concat());
        }
    }
}
