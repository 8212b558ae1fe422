//! What RFC 9110 and RFC 9112 ask of a server that is an origin of its own, as tables: section, what is sent, what is
//! answered. Every row is a connection of its own to the real binary.
//!
//! Not here, because this program has no such thing: proxies, gateways, tunnels and caches (RFC 9110 §7.6.2, §7.6.3, §7.7,
//! §9.3.6; RFC 9112 §7.1.3), ranges and multipart (§14, §15.3.7), validators and conditional requests (§8.8, §13: no answer
//! has an `ETag` or `Last-Modified`, so every condition is ignored as §13.1 allows), content codings and negotiation (§8.4,
//! §12), redirects (§15.4), `PUT`, `DELETE`, `PATCH` and `TRACE` (§9.3.4 – §9.3.8: refused), `Max-Forwards`, `From`,
//! `Referer`, `User-Agent`, `TE` and `Trailer` (§10.1: no answer has trailers), message/http (RFC 9112 §10), and
//! TLS (RFC 9112 §9.7, §9.8), which a proxy in front ends. A minor version above 1 is refused with 505 where §2.5 of RFC 9110
//! says SHOULD.

#[path = "http_musts/rfc9110.rs"]
mod rfc9110;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;

use crate::support::client::tcp;
use crate::support::process::{API_KEY, Server, Start, config};
use rfc9110::RFC_9110;

/// One row: section, what is sent, what is answered. `{key}` stands for a header with the key of the server API.
///
/// Of an answer a row says: its status; `Name: value`, a header that it has; `-Name`, one that it has not; `=text`, its body;
/// `closes`, the connection ends behind it; `goes on`, the next request on it is answered.
struct Row(&'static str, &'static str, &'static [&'static str]);

const RFC_9112: &[Row] = &[
    // Parsing
    Row(
        "2.2",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "goes on"],
    ),
    Row("2.2", "GET / HTTP/1.1\nHost: a\r\n\r\n", &["400", "closes"]),
    Row(
        "2.2",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\rC: d\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "2.2",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "2.2",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "2.3",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3",
        "GET / x HTTP/1.1\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row("3", "GET /\r\n\r\n", &["400", "closes"]),
    // Targets and Host
    Row("3.2", "GET / HTTP/1.1\r\n\r\n", &["400", "closes"]),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "3.2",
        "GET / HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
        &["200", "goes on"],
    ),
    Row("3.2", "GET / HTTP/1.0\r\n\r\n", &["200", "closes"]),
    Row(
        "3.2.1",
        "GET /?a=b HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "3.2.1",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2.2",
        "GET http://other/ HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "3.2.2",
        "GET http://other HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "3.2.2",
        "GET http://other/ HTTP/1.1\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2.2",
        "GET http://a@other/ HTTP/1.1\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2.4",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "3.2.4",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        &["204", "goes on"],
    ),
    // Header lines
    Row(
        "5.1",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "5.1",
        "GET / HTTP/1.1\r\nHost:\t a \t\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "5.2",
        "GET / HTTP/1.1\r\nHost: a\r\nA: b\r\n c\r\n\r\n",
        &["400", "closes"],
    ),
    // Lengths
    Row(
        "6.1",
        "POST /api/info HTTP/1.0\r\n{key}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "6.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &["501", "closes"],
    ),
    Row(
        "6.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: CHUNKED\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "6.2",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 99999999999999999999\r\n\r\n",
        &["413", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: gzip\r\n\r\n{}",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked, gzip\r\n\r\n{}",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 2, 3\r\n\r\n{} ",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: -2\r\n\r\n{}",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: +2\r\n\r\n{}",
        &["400", "closes"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        &["200", "goes on"],
    ),
    Row(
        "6.3",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}\r\n",
        &["400", "goes on"],
    ),
    // Chunks
    Row(
        "7.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n01\r\n}\r\n000\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "7.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        &["400", "closes"],
    ),
    Row(
        "7.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        &["413", "closes"],
    ),
    Row(
        "7.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n2\r\n{}x\r\n",
        &["400", "closes"],
    ),
    Row(
        "7.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n2\n{}\r\n0\r\n\r\n",
        &["400", "closes"],
    ),
    Row(
        "7.1.1",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n2;a;b=\"c\"\r\n{}\r\n0;d\r\n\r\n",
        &["200", "goes on"],
    ),
    Row(
        "7.1.2",
        "POST /api/info HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nContent-Length: 9\r\n\r\n",
        &["200", "goes on"],
    ),
    // Streams: a body without a known end
    Row(
        "6.3",
        "POST /connection/http_stream HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
        &[
            "200",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "closes",
        ],
    ),
    Row(
        "6.3",
        "GET /connection/uni_sse HTTP/1.1\r\nHost: a\r\n\r\n",
        &[
            "200",
            "Transfer-Encoding: chunked",
            "Connection: close",
            "-Content-Length",
        ],
    ),
    Row(
        "6.3",
        "POST /connection/http_stream HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
        &[
            "200",
            "-Transfer-Encoding",
            "-Content-Length",
            "Connection: close",
            "={\"push\":{\"disconnect\":{\"code\":3501,\"reason\":\"bad request\"}}}\n",
            "closes",
        ],
    ),
    Row(
        "6.3",
        "POST /connection/sse HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
        &[
            "200",
            "-Transfer-Encoding",
            "Connection: close",
            "=\r\ndata: {\"push\":{\"disconnect\":{\"code\":3501,\"reason\":\"bad request\"}}}\n\n",
            "closes",
        ],
    ),
    Row(
        "6.3",
        "GET /connection/uni_sse HTTP/1.0\r\n\r\n",
        &[
            "200",
            "-Transfer-Encoding",
            "-Content-Length",
            "Connection: close",
        ],
    ),
    Row(
        "6.3",
        "POST /connection/uni_http_stream HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
        &[
            "200",
            "-Transfer-Encoding",
            "-Content-Length",
            "Connection: close",
        ],
    ),
    // Persistence
    Row(
        "9.3",
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "Connection: keep-alive", "goes on"],
    ),
    Row(
        "9.3",
        "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        &["200", "Connection: keep-alive", "goes on"],
    ),
    Row(
        "9.3",
        "GET / HTTP/1.0\r\n\r\n",
        &["200", "Connection: close", "closes"],
    ),
    Row(
        "9.6",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &["200", "Connection: close", "closes"],
    ),
];

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Start::with_config(&config(
            r#"
[client]
allow_anonymous_connect_without_token = true
allowed_origins = ["https://good.example"]
[http_stream]
enabled = true
[sse]
enabled = true
[uni_sse]
enabled = true
[uni_http_stream]
enabled = true
[uni_websocket]
enabled = true
[poll]
enabled = true
[init]
enabled = true
"#,
        ))
        .run()
    })
}

/// What came back for one request.
struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let named = |(own, _): &&(String, String)| own.eq_ignore_ascii_case(name);
        self.headers.iter().find(named).map(|(_, value)| &**value)
    }
}

/// Reads one answer as a client must: the end of its body is where RFC 9112 §6.3 says.
fn read_answer(stream: &mut TcpStream, to_head: bool, rest: &mut Vec<u8>) -> Answer {
    let mut receive = |rest: &mut Vec<u8>| {
        let mut chunk = [0; 4096];
        let length = stream.read(&mut chunk).unwrap_or(0);
        rest.extend_from_slice(&chunk[..length]);
        length > 0
    };
    let end = loop {
        if let Some(at) = rest.windows(4).position(|four| four == b"\r\n\r\n") {
            break at + 4;
        }
        assert!(
            receive(rest),
            "no answer: {:?}",
            rest.escape_ascii().to_string()
        );
    };
    let head = String::from_utf8(rest.drain(..end).collect()).expect("text");
    let mut lines = head.lines();
    let first = lines.next().expect("a status line");
    assert_eq!(&first[..9], "HTTP/1.1 ", "{first}");
    let mut answer = Answer {
        status: first[9..12].to_owned(),
        headers: lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        body: Vec::new(),
    };
    let bodiless =
        to_head || answer.status.starts_with('1') || ["204", "304"].contains(&&*answer.status);
    let length = match answer.header("Content-Length") {
        _ if bodiless => 0,
        Some(length) => length.parse::<usize>().expect("a length"),
        // A stream: what is there is looked at by the rows that wait for its end.
        None => return answer,
    };
    while rest.len() < length {
        assert!(receive(rest), "half a body");
    }
    answer.body = rest.drain(..length).collect();
    answer
}

fn check(rfc: &str, row: &Row) {
    let Row(section, sent, expected) = row;
    let name = format!("RFC {rfc} {section}: {sent:?}");
    let request = sent.replace("{key}", &format!("X-API-Key: {API_KEY}\r\n"));
    let mut stream = tcp(server().listen);
    stream
        .write_all(request.as_bytes())
        .expect("the server reads");
    let mut rest = Vec::new();
    let mut answer = read_answer(&mut stream, sent.starts_with("HEAD"), &mut rest);
    let is_stream = answer.header("Content-Length").is_none() && answer.status == "200";
    for what in *expected {
        match *what {
            "closes" => {
                let mut more = std::mem::take(&mut rest);
                let _ = stream.read_to_end(&mut more);
                if is_stream {
                    answer.body = more;
                } else {
                    assert_eq!(
                        more.escape_ascii().to_string(),
                        "",
                        "{name}: nothing follows"
                    );
                }
            }
            "goes on" => {
                assert!(
                    rest.is_empty(),
                    "{name}: {:?}",
                    rest.escape_ascii().to_string()
                );
                stream
                    .write_all(b"GET /connection/init HTTP/1.1\r\nHost: a\r\n\r\n")
                    .expect("the server reads");
                let next = read_answer(&mut stream, false, &mut rest);
                assert_eq!(
                    (&*next.status, &*next.body),
                    ("200", &b"{}"[..]),
                    "{name}: and then"
                );
            }
            _ => {}
        }
    }
    for what in *expected {
        if let Some(body) = what.strip_prefix('=') {
            assert_eq!(String::from_utf8_lossy(&answer.body), body, "{name}");
        } else if let Some(header) = what.strip_prefix('-') {
            assert_eq!(answer.header(header), None, "{name}");
        } else if let Some((header, value)) = what.split_once(": ") {
            let found = answer.header(header);
            assert!(
                found.is_some_and(|found| value == "*" || found == value),
                "{name}: {header} is {found:?}"
            );
        } else if what.parse::<u16>().is_ok() {
            assert_eq!(answer.status, *what, "{name}");
        }
    }
    if answer.status != "100" && answer.status != "101" {
        let date = answer.header("Date").unwrap_or_default();
        assert!(
            date.len() == 29 && date.ends_with(" GMT"),
            "{name}: Date is {date:?}"
        );
    }
}

#[test]
fn server_does_what_rfc_9110_asks_of_one() {
    RFC_9110.iter().for_each(|row| check("9110", row));
}

#[test]
fn server_does_what_rfc_9112_asks_of_one() {
    RFC_9112.iter().for_each(|row| check("9112", row));
}

#[test]
fn heads_and_targets_beyond_their_limits_are_told_apart() {
    let long = "a".repeat(17_000);
    let many = "A: b\r\n".repeat(65);
    for (request, status) in [
        (format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), "414"),
        (
            format!("GET / HTTP/1.1\r\nHost: a\r\nA: {long}\r\n\r\n"),
            "431",
        ),
        (format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n"), "431"),
    ] {
        let mut stream = tcp(server().listen);
        stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        let answer = read_answer(&mut stream, false, &mut Vec::new());
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("Connection"), Some("close"));
    }
}

#[test]
fn path_written_otherwise_is_another_path() {
    let status = |path: &str| {
        let mut stream = tcp(server().listen);
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        read_answer(&mut stream, false, &mut Vec::new()).status
    };
    for path in [
        "/connection/init",
        "/connection/init/",
        "/connection/init?a",
    ] {
        assert_eq!(status(path), "200", "{path}");
    }
    for path in [
        "//connection/init",
        "/connection//init",
        "/connection/init//",
        "/connection%2Finit",
        "/connection/%69nit",
        "/connection/./init",
        "/x/../connection/init",
        "/Connection/init",
        "/connection/init;a",
    ] {
        assert_eq!(status(path), "404", "{path}");
    }
}
