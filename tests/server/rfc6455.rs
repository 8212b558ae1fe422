//! What RFC 6455 asks of a server, as tables: section, what is sent, what is answered. Handshakes go to the endpoint of
//! clients, frames to `ringmain echo`, whose answers are the bytes of the frames themselves.
//!
//! Not here, because this program has no such thing: what only clients must do (§4.1, §5.3, §7.2), extensions other than
//! `permessage-deflate` (§9; that one has tests of its own), authentication by cookies of the handshake (§10.5), TLS.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::OnceLock;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::support::client::tcp;
use crate::support::process::{Server, Start, config};
use crate::violations::{bytes, header};

const GOOD: &str = "GET /connection/websocket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Section; what in `GOOD` is written otherwise, and how; status and headers of the answer (`-Name` is one that is not there).
struct Handshake(
    &'static str,
    &'static str,
    &'static str,
    &'static [&'static str],
);

const HANDSHAKES: &[Handshake] = &[
    Handshake(
        "4.2.2",
        "",
        "",
        &[
            "101",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
            "-Sec-WebSocket-Protocol",
            "-Sec-WebSocket-Extensions",
            "-Content-Length",
            "-Transfer-Encoding",
        ],
    ),
    // 4.2.1: what the client's part has to be
    Handshake("4.2.1", "GET /", "POST /", &["405", "Allow: GET"]),
    Handshake(
        "4.2.1",
        "HTTP/1.1",
        "HTTP/1.0",
        &["426", "Upgrade: websocket"],
    ),
    Handshake("4.2.1", "Host: a\r\n", "", &["400"]),
    Handshake(
        "4.2.1",
        "Upgrade: websocket\r\n",
        "",
        &["426", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
    ),
    Handshake(
        "4.2.1",
        "Upgrade: websocket\r\n",
        "Upgrade: h2c, WebSocket\r\n",
        &["101"],
    ),
    Handshake("4.2.1", "Connection: Upgrade\r\n", "", &["426"]),
    Handshake(
        "4.2.1",
        "Connection: Upgrade\r\n",
        "Connection: keep-alive, upgrade\r\n",
        &["101"],
    ),
    Handshake(
        "4.2.1",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "",
        &["400"],
    ),
    Handshake("4.2.1", "dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", &["400"]),
    Handshake(
        "4.2.1",
        "dGhlIHNhbXBsZSBub25jZQ==",
        "not base64, but of 24 oc",
        &["400"],
    ),
    Handshake("4.2.1", "Sec-WebSocket-Version: 13\r\n", "", &["400"]),
    Handshake(
        "11.3.1",
        "Host: a\r\n",
        "Host: a\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        &["400"],
    ),
    // 4.4: other versions
    Handshake(
        "4.4",
        "Version: 13",
        "Version: 8",
        &["426", "Sec-WebSocket-Version: 13", "Upgrade: websocket"],
    ),
    Handshake(
        "4.4",
        "Version: 13",
        "Version: 25",
        &["426", "Sec-WebSocket-Version: 13"],
    ),
    // 4.2.2: origin and subprotocols
    Handshake(
        "4.2.2",
        "Host: a\r\n",
        "Host: a\r\nOrigin: https://evil.example\r\n",
        &["403", "-Sec-WebSocket-Accept"],
    ),
    Handshake(
        "4.2.2",
        "Host: a\r\n",
        "Host: a\r\nOrigin: https://good.example\r\n",
        &["101"],
    ),
    Handshake(
        "4.2.2",
        "Host: a\r\n",
        "Host: a\r\nSec-WebSocket-Protocol: x, y\r\n",
        &["101", "-Sec-WebSocket-Protocol"],
    ),
    Handshake(
        "4.2.2",
        "Host: a\r\n",
        "Host: a\r\nSec-WebSocket-Protocol: x, centrifuge-json\r\n",
        &["101", "Sec-WebSocket-Protocol: centrifuge-json"],
    ),
    Handshake(
        "9.1",
        "Host: a\r\n",
        "Host: a\r\nSec-WebSocket-Extensions: x-unknown; a=b\r\n",
        &["101", "-Sec-WebSocket-Extensions"],
    ),
];

fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("an answer"), 1, "{head:?}");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

#[test]
fn handshake_is_answered_as_rfc_6455_asks() {
    let server = Server::start(&config(
        "[client]\nallow_anonymous_connect_without_token = true\nallowed_origins = [\"https://good.example\"]\n",
    ));
    for Handshake(section, from, to, expected) in HANDSHAKES {
        let name = format!("{section}: {to:?} for {from:?}");
        assert!(GOOD.contains(from), "{name}");
        let mut stream = tcp(server.listen);
        let request = GOOD.replacen(from, to, 1);
        stream
            .write_all(request.as_bytes())
            .expect("the server reads");
        let head = read_head(&mut stream);
        let header = |name: &str| {
            let mut lines = head
                .lines()
                .skip(1)
                .filter_map(|line| line.split_once(": "));
            lines
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map(|(_, value)| value)
        };
        assert_eq!(&head[9..12], expected[0], "{name}");
        for what in &expected[1..] {
            match (what.strip_prefix('-'), what.split_once(": ")) {
                (Some(absent), _) => assert_eq!(header(absent), None, "{name}"),
                (None, Some((own, value))) => assert_eq!(header(own), Some(value), "{name}"),
                (None, None) => panic!("{what}"),
            }
        }
    }
}

fn echo() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Start::echo().run())
}

/// An open WebSocket, as bytes.
fn open() -> TcpStream {
    let mut stream = tcp(echo().listen);
    stream.write_all(GOOD.as_bytes()).expect("the server reads");
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    stream
}

fn data(opcode: Data, is_final: bool, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader {
        is_final,
        ..header(OpCode::Data(opcode))
    };
    bytes(header, payload)
}

fn control(opcode: Control, payload: &[u8]) -> Vec<u8> {
    bytes(header(OpCode::Control(opcode)), payload)
}

/// A masked frame whose length is written with more bytes than it needs.
fn long_length(length: &[u8], payload: &[u8]) -> Vec<u8> {
    [
        &[0x82, 0x80 | if length.len() == 2 { 126 } else { 127 }],
        length,
        &[0; 4],
        payload,
    ]
    .concat()
}

/// Section, what is sent, what comes back: the server masks nothing (§5.1). `ends`: with it the server closes.
fn frames() -> Vec<(&'static str, Vec<u8>, Vec<u8>, bool)> {
    let close = |code: u16| [&[0x88, 2], &code.to_be_bytes()[..]].concat();
    let text = |payload: &[u8]| data(Data::Text, true, payload);
    let unmasked = FrameHeader {
        mask: None,
        ..header(OpCode::Data(Data::Text))
    };
    let reserved = |rsv1, rsv2, rsv3| {
        let header = FrameHeader {
            rsv1,
            rsv2,
            rsv3,
            ..header(OpCode::Data(Data::Text))
        };
        bytes(header, b"a")
    };
    let fragmented_ping = FrameHeader {
        is_final: false,
        ..header(OpCode::Control(Control::Ping))
    };
    let first = data(Data::Text, false, b"a");
    let last = data(Data::Continue, true, b"b");
    let ping = control(Control::Ping, b"p");
    vec![
        ("5.1", text(b"a"), b"\x81\x01a".to_vec(), false),
        ("5.1", bytes(unmasked, b"a"), close(1002), true),
        ("5.2", reserved(true, false, false), close(1002), true),
        ("5.2", reserved(false, true, false), close(1002), true),
        ("5.2", reserved(false, false, true), close(1002), true),
        ("5.2", data(Data::Reserved(3), true, b""), close(1002), true),
        ("5.2", data(Data::Reserved(7), true, b""), close(1002), true),
        (
            "5.2",
            control(Control::Reserved(11), b""),
            close(1002),
            true,
        ),
        (
            "5.2",
            control(Control::Reserved(15), b""),
            close(1002),
            true,
        ),
        ("5.2", long_length(&[0, 125], &[7; 125]), close(1002), true),
        (
            "5.2",
            long_length(&[0, 0, 0, 0, 0, 0, 0xff, 0xff], &[]),
            close(1002),
            true,
        ),
        (
            "5.2",
            long_length(&[0x80, 0, 0, 0, 0, 0, 0, 1], &[]),
            close(1002),
            true,
        ),
        (
            "5.2",
            data(Data::Binary, true, &[7; 126]),
            [&[0x82, 126, 0, 126][..], &[7; 126]].concat(),
            false,
        ),
        (
            "5.4",
            [first.clone(), last.clone()].concat(),
            b"\x81\x02ab".to_vec(),
            false,
        ),
        (
            "5.4",
            [first.clone(), ping.clone(), last.clone()].concat(),
            b"\x8a\x01p\x81\x02ab".to_vec(),
            false,
        ),
        ("5.4", [first, text(b"c")].concat(), close(1002), true),
        ("5.4", last, close(1002), true),
        ("5.5", bytes(fragmented_ping, b"p"), close(1002), true),
        ("5.5", control(Control::Ping, &[7; 126]), close(1002), true),
        (
            "5.5.1",
            control(Control::Close, &1000_u16.to_be_bytes()),
            close(1000),
            true,
        ),
        ("5.5.1", control(Control::Close, b""), vec![0x88, 0], true),
        ("5.5.1", control(Control::Close, &[3]), close(1002), true),
        (
            "5.5.1",
            [
                control(Control::Close, &1001_u16.to_be_bytes()),
                text(b"late"),
            ]
            .concat(),
            close(1001),
            true,
        ),
        (
            "5.5.1",
            control(Control::Close, &[3, 232, 0xff]),
            close(1007),
            true,
        ),
        ("5.5.2", ping, b"\x8a\x01p".to_vec(), false),
        ("5.5.2", control(Control::Ping, b""), vec![0x8a, 0], false),
        (
            "5.5.2",
            control(Control::Ping, &[7; 125]),
            [&[0x8a, 125][..], &[7; 125]].concat(),
            false,
        ),
        (
            "5.5.3",
            [control(Control::Pong, b"unasked"), text(b"a")].concat(),
            b"\x81\x01a".to_vec(),
            false,
        ),
        (
            "5.6",
            data(Data::Binary, true, b"\xff"),
            b"\x82\x01\xff".to_vec(),
            false,
        ),
        (
            "7.4.1",
            control(Control::Close, &999_u16.to_be_bytes()),
            close(1002),
            true,
        ),
        (
            "7.4.1",
            control(Control::Close, &1004_u16.to_be_bytes()),
            close(1002),
            true,
        ),
        (
            "7.4.1",
            control(Control::Close, &1005_u16.to_be_bytes()),
            close(1002),
            true,
        ),
        (
            "7.4.1",
            control(Control::Close, &1006_u16.to_be_bytes()),
            close(1002),
            true,
        ),
        (
            "7.4.1",
            control(Control::Close, &1015_u16.to_be_bytes()),
            close(1002),
            true,
        ),
        (
            "7.4.2",
            control(Control::Close, &3000_u16.to_be_bytes()),
            close(3000),
            true,
        ),
        (
            "7.4.2",
            control(Control::Close, &4999_u16.to_be_bytes()),
            close(4999),
            true,
        ),
        ("8.1", text(b"\xc3\x28"), close(1007), true),
        ("8.1", text(b"\xed\xa0\x80"), close(1007), true),
        (
            "8.1",
            [
                data(Data::Text, false, b"\xe2\x82"),
                data(Data::Continue, true, b"\xac"),
            ]
            .concat(),
            b"\x81\x03\xe2\x82\xac".to_vec(),
            false,
        ),
        (
            "10.4",
            [&[0x82, 0xff], &(1_u64 << 40).to_be_bytes()[..], &[0; 4]].concat(),
            close(1009),
            true,
        ),
    ]
}

#[test]
fn frames_are_answered_as_rfc_6455_asks() {
    for (section, sent, answered, ends) in frames() {
        let name = format!("{section}: {}", sent.escape_ascii());
        for cut in [sent.len(), sent.len() / 2] {
            let mut stream = open();
            let (front, back) = sent.split_at(cut);
            stream.write_all(front).expect("the server reads");
            // The server may have closed for what the front says.
            let _ = stream.write_all(back);
            if !ends {
                // Nothing else comes: this is answered next.
                stream
                    .write_all(&control(Control::Ping, b"end"))
                    .expect("the server reads");
            }
            let wanted = match ends {
                true => answered.clone(),
                false => [&answered[..], b"\x8a\x03end"].concat(),
            };
            let mut got = vec![0; wanted.len()];
            stream
                .read_exact(&mut got)
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(
                got.escape_ascii().to_string(),
                wanted.escape_ascii().to_string(),
                "{name}"
            );
            if ends {
                // §7.1.1: the server is the first to close TCP.
                let mut more = Vec::new();
                let _ = stream.read_to_end(&mut more);
                assert!(more.is_empty(), "{name}: {more:?}");
            }
        }
    }
}

#[test]
fn end_of_tcp_without_a_close_frame_ends_the_connection() {
    let mut stream = open();
    stream
        .write_all(&data(Data::Text, true, b"a"))
        .expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("a half close");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("the end");
    assert_eq!(all, b"\x81\x01a", "what was asked is answered");
}
