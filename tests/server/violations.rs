//! Frames that break RFC 6455 end a client's connection with the code that it names.

use std::io::Write;
use std::net::TcpStream;
use std::sync::OnceLock;

use tungstenite::protocol::frame::coding::{Control, Data, OpCode};
use tungstenite::protocol::frame::{Frame, FrameHeader};

use crate::support::client::Client;
use crate::support::process::{Server, config};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(&config("[client]\ninsecure = true\n")))
}

/// A masked, final frame; the tests bend it.
pub(crate) fn header(opcode: OpCode) -> FrameHeader {
    FrameHeader {
        opcode,
        mask: Some([7, 77, 177, 250]),
        ..FrameHeader::default()
    }
}

/// Bytes of the frame as the library writes it.
pub(crate) fn bytes(header: FrameHeader, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::from_payload(header, payload.to_vec().into())
        .format(&mut out)
        .expect("a frame");
    out
}

/// Frames that a server must refuse, with the code.
pub(crate) fn refused() -> Vec<(&'static str, Vec<u8>, u16)> {
    let text = || header(OpCode::Data(Data::Text));
    let ping = || header(OpCode::Control(Control::Ping));
    let close = || header(OpCode::Control(Control::Close));
    let chain = |frames: &[(FrameHeader, &[u8])]| {
        frames
            .iter()
            .flat_map(|(header, payload)| bytes(header.clone(), payload))
            .collect::<Vec<_>>()
    };
    vec![
        (
            "no mask",
            bytes(
                FrameHeader {
                    mask: None,
                    ..text()
                },
                b"{}",
            ),
            1002,
        ),
        (
            "reserved bit 1",
            bytes(
                FrameHeader {
                    rsv1: true,
                    ..text()
                },
                b"{}",
            ),
            1002,
        ),
        (
            "reserved bit 2",
            bytes(
                FrameHeader {
                    rsv2: true,
                    ..text()
                },
                b"{}",
            ),
            1002,
        ),
        (
            "reserved bit 3",
            bytes(
                FrameHeader {
                    rsv3: true,
                    ..text()
                },
                b"{}",
            ),
            1002,
        ),
        (
            "reserved bit in a ping",
            bytes(
                FrameHeader {
                    rsv2: true,
                    ..ping()
                },
                b"{}",
            ),
            1002,
        ),
        (
            "reserved data opcode",
            bytes(header(OpCode::Data(Data::Reserved(3))), b"{}"),
            1002,
        ),
        (
            "reserved control opcode",
            bytes(header(OpCode::Control(Control::Reserved(11))), b""),
            1002,
        ),
        (
            "fragmented ping",
            bytes(
                FrameHeader {
                    is_final: false,
                    ..ping()
                },
                b"x",
            ),
            1002,
        ),
        ("ping of 126 bytes", bytes(ping(), &[b'x'; 126]), 1002),
        ("close of 126 bytes", bytes(close(), &[3; 126]), 1002),
        (
            "continuation of nothing",
            bytes(header(OpCode::Data(Data::Continue)), b"{}"),
            1002,
        ),
        (
            "text inside a fragmented message",
            chain(&[
                (
                    FrameHeader {
                        is_final: false,
                        ..text()
                    },
                    b"{",
                ),
                (text(), b"{}"),
            ]),
            1002,
        ),
        ("invalid UTF-8", bytes(text(), b"\"\xff\xfe\""), 1007),
        (
            "a surrogate in UTF-8",
            bytes(text(), b"\"\xed\xa0\x80\""),
            1007,
        ),
        ("overlong UTF-8", bytes(text(), b"\"\xc0\xaf\""), 1007),
        ("UTF-8 cut at the end", bytes(text(), b"\"\xe2\x82"), 1007),
        (
            "invalid UTF-8 in a fragment",
            chain(&[
                (
                    FrameHeader {
                        is_final: false,
                        ..text()
                    },
                    b"\"\xe2\x82",
                ),
                (header(OpCode::Data(Data::Continue)), b"\""),
            ]),
            1007,
        ),
        ("close of one byte", bytes(close(), &[3]), 1002),
        (
            "close with a code that is not for the wire",
            bytes(close(), &1005_u16.to_be_bytes()),
            1002,
        ),
        (
            "close with a code below 1000",
            bytes(close(), &999_u16.to_be_bytes()),
            1002,
        ),
        (
            "close with a code above 4999",
            bytes(close(), &5000_u16.to_be_bytes()),
            1002,
        ),
        (
            "close with an undefined code",
            bytes(close(), &1016_u16.to_be_bytes()),
            1002,
        ),
        (
            "close with a reason that is not UTF-8",
            bytes(close(), &[3, 232, 0xff]),
            1007,
        ),
    ]
}

#[test]
fn violations_close_with_the_code_of_the_rfc() {
    for (name, frame, code) in refused() {
        let mut client = Client::<TcpStream>::anonymous(server());
        client
            .socket
            .get_mut()
            .write_all(&frame)
            .expect("the server reads");
        let ended = client.ended();
        assert_eq!(ended.code, code, "{name}: {ended:?}");
    }
}

#[test]
fn binary_frames_carry_json_too() {
    let mut client = Client::anonymous(server());
    client.send_frame(Frame::message(
        br#"{"id":9,"unsubscribe":{"channel":"a"}}"#.to_vec(),
        OpCode::Data(Data::Binary),
        true,
    ));
    assert_eq!(
        client.reply(9)["unsubscribe"],
        serde_json::json!({}),
        "the type of a frame is not checked"
    );
}

#[test]
fn commands_may_be_fragmented_anywhere_with_pings_between() {
    let mut client = Client::anonymous(server());
    let text = r#"{"id":9,"publish":{"channel":"ü","data":{"text":"grüße \u263a ☺"}}}"#
        .replace("\"ü\"", "\"a\"")
        .into_bytes();
    client.subscribe("a");
    for (at, byte) in text.iter().enumerate() {
        let opcode = OpCode::Data(if at == 0 { Data::Text } else { Data::Continue });
        client.send_frame(Frame::message(vec![*byte], opcode, at + 1 == text.len()));
        if at % 5 == 0 {
            client.send_frame(Frame::ping(vec![b'p'; at % 125]));
        }
    }
    assert_eq!(client.publication("a")["data"]["text"], "grüße ☺ ☺");
}
