//! `ringmain echo`, against the groups of checks that WebSocket conformance suites are made of: framing, pings,
//! reserved bits, opcodes, fragmentation, UTF-8, closing.

use std::io::Write;
use std::net::TcpStream;
use std::sync::OnceLock;

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::{Error, Message, WebSocket};

use crate::support::client::{Ended, upgrade};
use crate::support::process::{Server, Start};
use crate::violations::{bytes, header, refused};

fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Start::echo().run())
}

fn connect() -> WebSocket<TcpStream> {
    upgrade(server().listen, "/", &[])
}

fn frame(opcode: Data, is_final: bool, payload: &[u8]) -> Message {
    Message::Frame(Frame::message(
        payload.to_vec(),
        OpCode::Data(opcode),
        is_final,
    ))
}

/// What the server ends the connection with; messages before it are returned too.
fn until_end(socket: &mut WebSocket<TcpStream>) -> (Vec<Message>, Ended) {
    let mut before = Vec::new();
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => {
                while socket.read().is_ok() {}
                return (before, Ended::from_frame(frame));
            }
            Ok(message) => before.push(message),
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("the server does not close")
            }
            Err(_) => {
                return (
                    before,
                    Ended {
                        code: 1006,
                        reason: String::new(),
                    },
                );
            }
        }
    }
}

/// Repeats with the length, never twice the same in a row.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn messages_of_every_length_class_come_back() {
    let mut socket = connect();
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537, 1 << 20] {
        let text = "*".repeat(length);
        socket.send(Message::text(text.clone())).expect("sent");
        assert_eq!(
            socket.read().expect("an echo"),
            Message::text(text),
            "{length}"
        );
        let binary = pattern(length);
        socket.send(Message::binary(binary.clone())).expect("sent");
        assert_eq!(
            socket.read().expect("an echo"),
            Message::binary(binary),
            "{length}"
        );
    }
}

/// Sends on another thread: neither side may wait for the other to read 16 MiB.
fn echo_large(message: Message, frames: Vec<Message>) {
    let mut socket = connect();
    let mut writer = WebSocket::from_raw_socket(
        socket.get_ref().try_clone().expect("the socket"),
        tungstenite::protocol::Role::Client,
        Some(crate::support::client::wide_limits()),
    );
    let sender = std::thread::spawn(move || {
        frames
            .into_iter()
            .for_each(|frame| writer.send(frame).expect("sent"))
    });
    assert!(
        socket.read().expect("an echo") == message,
        "the echo is what was sent"
    );
    sender.join().expect("everything is sent");
}

#[test]
fn message_of_16_mib_comes_back_in_one_frame_and_in_many() {
    const LENGTH: usize = 16 << 20;
    let payload = pattern(LENGTH);
    echo_large(
        Message::binary(payload.clone()),
        vec![Message::binary(payload.clone())],
    );
    let text = "grüße! ".repeat(LENGTH / 9);
    echo_large(Message::text(text.clone()), vec![Message::text(text)]);
    for piece in [1024, 65_536] {
        let last = LENGTH / piece - 1;
        let opcode = |at| {
            if at == 0 {
                Data::Binary
            } else {
                Data::Continue
            }
        };
        let frames = payload
            .chunks(piece)
            .enumerate()
            .map(|(at, chunk)| frame(opcode(at), at == last, chunk));
        echo_large(Message::binary(payload.clone()), frames.collect());
    }
}

#[test]
fn message_over_16_mib_closes_with_1009_before_it_comes() {
    let mut socket = connect();
    let mut head = Vec::new();
    header(OpCode::Data(Data::Binary))
        .format((16 << 20) + 1, &mut head)
        .expect("a header");
    socket.get_mut().write_all(&head).expect("sent");
    assert_eq!(until_end(&mut socket).1.code, 1009);
}

#[test]
fn message_may_arrive_in_any_pieces() {
    let payload = pattern(300);
    let whole = bytes(header(OpCode::Data(Data::Binary)), &payload);
    for piece in [1, 2, 3, 7, 64] {
        let mut socket = connect();
        for chunk in whole.chunks(piece) {
            socket.get_mut().write_all(chunk).expect("sent");
        }
        assert_eq!(
            socket.read().expect("an echo"),
            Message::binary(payload.clone()),
            "{piece}"
        );
    }
}

#[test]
fn many_messages_in_one_segment_come_back_in_order() {
    let mut socket = connect();
    let mut all = Vec::new();
    for n in 0..1000 {
        all.extend(bytes(
            header(OpCode::Data(Data::Text)),
            format!("message {n}").as_bytes(),
        ));
    }
    socket.get_mut().write_all(&all).expect("sent");
    for n in 0..1000 {
        assert_eq!(
            socket.read().expect("an echo"),
            Message::text(format!("message {n}"))
        );
    }
}

#[test]
fn pings_are_answered_with_their_payload_and_pongs_ignored() {
    let mut socket = connect();
    for length in [0, 1, 125] {
        socket
            .send(Message::Ping(pattern(length).into()))
            .expect("sent");
        assert_eq!(
            socket.read().expect("a pong"),
            Message::Pong(pattern(length).into())
        );
    }
    for n in 0..10_u8 {
        socket.send(Message::Ping(vec![n].into())).expect("sent");
    }
    for n in 0..10_u8 {
        assert_eq!(
            socket.read().expect("a pong"),
            Message::Pong(vec![n].into()),
            "every ping, in order"
        );
    }
    socket
        .send(Message::Pong(b"unasked".to_vec().into()))
        .expect("sent");
    socket.send(Message::text("after")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text("after"));
}

#[test]
fn fragments_with_pings_between_are_one_message() {
    let mut socket = connect();
    let text = "Hello-µ@ßöäüàá-UTF-8!!".as_bytes();
    for (at, byte) in text.iter().enumerate() {
        let opcode = if at == 0 { Data::Text } else { Data::Continue };
        socket
            .send(frame(opcode, at + 1 == text.len(), &[*byte]))
            .expect("sent");
        socket
            .send(Message::Ping(vec![at as u8].into()))
            .expect("sent");
    }
    let mut pongs = 0;
    let mut echoes = 0;
    while pongs < text.len() || echoes < 1 {
        match socket.read().expect("a message") {
            Message::Pong(payload) => {
                assert_eq!(usize::from(payload[0]), pongs);
                pongs += 1;
            }
            Message::Text(echo) => {
                assert_eq!(echo.as_bytes(), text);
                echoes += 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn empty_fragments_make_an_empty_message() {
    let mut socket = connect();
    for opcode in [Data::Text, Data::Continue] {
        socket.send(frame(opcode, false, b"")).expect("sent");
    }
    socket.send(frame(Data::Continue, true, b"")).expect("sent");
    assert_eq!(socket.read().expect("an echo"), Message::text(""));
}

#[test]
fn violations_end_with_their_code_and_what_came_before_is_echoed() {
    for (name, violation, code) in refused() {
        let mut socket = connect();
        socket.send(Message::text("before")).expect("sent");
        socket.get_mut().write_all(&violation).expect("sent");
        socket
            .get_mut()
            .write_all(&bytes(header(OpCode::Data(Data::Text)), b"after"))
            .expect("sent");
        let (before, ended) = until_end(&mut socket);
        assert_eq!(before, [Message::text("before")], "{name}");
        assert_eq!(ended.code, code, "{name}");
    }
}

#[test]
fn invalid_utf_8_is_noticed_before_the_message_ends() {
    let mut socket = connect();
    socket
        .send(frame(Data::Text, false, "κόσμε".as_bytes()))
        .expect("sent");
    socket
        .send(frame(Data::Continue, false, &[0xf4, 0x90]))
        .expect("sent");
    assert_eq!(
        until_end(&mut socket).1.code,
        1007,
        "above U+10FFFF, with the message still open"
    );
}

#[test]
fn utf_8_is_text_wherever_it_is_cut() {
    let texts = [
        "κόσμε",
        "\u{0}",
        "\u{7f}",
        "\u{80}",
        "\u{7ff}",
        "\u{800}",
        "\u{d7ff}",
        "\u{e000}",
        "\u{fffd}",
        "\u{fffe}",
        "\u{ffff}",
        "\u{10000}",
        "\u{10ffff}",
        "𝄞𝄢",
    ];
    let mut socket = connect();
    for text in texts {
        for cut in 0..=text.len() {
            let (first, second) = text.as_bytes().split_at(cut);
            socket.send(frame(Data::Text, false, first)).expect("sent");
            socket
                .send(frame(Data::Continue, true, second))
                .expect("sent");
            assert_eq!(
                socket.read().expect("an echo"),
                Message::text(text),
                "{text:?} cut at {cut}"
            );
        }
    }
}

#[test]
fn malformed_utf_8_closes_with_1007() {
    let malformed: [&[u8]; 16] = [
        b"\x80",
        b"\xbf",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xc2",
        b"\xe0\x80\x80",
        b"\xe0\x9f\xbf",
        b"\xe2\x82",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf0\x8f\xbf\xbf",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\xff",
    ];
    for payload in malformed {
        let mut socket = connect();
        socket.send(frame(Data::Text, true, payload)).expect("sent");
        assert_eq!(until_end(&mut socket).1.code, 1007, "{payload:x?}");
        let mut socket = connect();
        socket
            .send(Message::binary(payload.to_vec()))
            .expect("sent");
        assert_eq!(
            socket.read().expect("an echo"),
            Message::binary(payload.to_vec()),
            "binary is anything"
        );
    }
}

#[test]
fn close_is_answered_with_its_code() {
    let codes = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    for code in codes {
        let mut socket = connect();
        let reason = "r".repeat(123);
        socket
            .close(Some(CloseFrame {
                code: CloseCode::from(code),
                reason: reason.into(),
            }))
            .expect("sent");
        let (_, ended) = until_end(&mut socket);
        assert_eq!(ended.code, code);
    }
    let mut socket = connect();
    socket.close(None).expect("sent");
    assert_eq!(
        until_end(&mut socket).1.code,
        1005,
        "an empty close is answered with an empty one"
    );
}

#[test]
fn nothing_after_a_close_is_echoed() {
    let mut socket = connect();
    let mut all = bytes(header(OpCode::Data(Data::Text)), b"one");
    all.extend(bytes(header(OpCode::Control(Control::Close)), &[3, 232]));
    all.extend(bytes(header(OpCode::Data(Data::Text)), b"two"));
    all.extend(bytes(header(OpCode::Control(Control::Ping)), b"three"));
    socket.get_mut().write_all(&all).expect("sent");
    let (before, ended) = until_end(&mut socket);
    assert_eq!(before, [Message::text("one")]);
    assert_eq!(ended.code, 1000);
}
