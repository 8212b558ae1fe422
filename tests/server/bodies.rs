//! What strangers send costs what its head is worth: a request is judged before its body is kept, what is refused is read past
//! so that the answer arrives, unfinished input has a bound, and an answer that is not taken stops the taking of requests.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::bystander::Bystander;
use crate::support::client::{Client, PATH, tcp, upgrade};
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, config};
use crate::support::wait::{self, DEADLINE};

const CONFIG: &str = r#"
[client]
allow_anonymous_connect_without_token = true
allowed_origins = ["https://good.example"]
[http_stream]
enabled = true
[sse]
enabled = true
[poll]
enabled = true
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
presence = true
history_size = 10
history_ttl = "60s"
"#;

/// Heads that are refused without their bodies, and how.
const REFUSED: [(&str, u16); 9] = [
    ("POST /never HTTP/1.1\r\nHost: a\r\n", 404),
    ("POST /api/publish HTTP/1.1\r\nHost: a\r\n", 401),
    (
        "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: wrong\r\n",
        401,
    ),
    ("PUT /api/publish HTTP/1.1\r\nHost: a\r\n", 405),
    ("POST / HTTP/1.1\r\nHost: a\r\n", 405),
    (
        "POST /connection/http_stream HTTP/1.1\r\nHost: a\r\nOrigin: https://evil.example\r\n",
        403,
    ),
    (
        "POST /emulation HTTP/1.1\r\nHost: a\r\nSec-Fetch-Site: cross-site\r\n",
        403,
    ),
    ("POST /emulation HTTP/1.1\r\nHost: a\r\n", 413),
    ("POST /api/publish HTTP/1.1\r\nHost: a b\r\n", 400),
];

fn server() -> Server {
    Server::start(&config(CONFIG))
}

#[test]
fn request_is_refused_by_its_head_and_nobody_is_asked_for_the_body() {
    let server = server();
    for (head, status) in REFUSED {
        for rest in [
            "Content-Length: 4000000\r\n\r\n",
            "Content-Length: 4000000\r\nExpect: 100-continue\r\n\r\n",
            "Content-Length: 4000000\r\n\r\nthe first bytes",
        ] {
            let mut stream = tcp(server.listen);
            stream
                .write_all(format!("{head}{rest}").as_bytes())
                .expect("the server reads");
            let mut all = Vec::new();
            stream.read_to_end(&mut all).expect("an answer and the end");
            let text = String::from_utf8_lossy(&all);
            assert!(
                text.starts_with(&format!("HTTP/1.1 {status} ")),
                "{head}{rest}: {text}"
            );
            assert!(text.contains("\r\nConnection: close\r\n"), "{text}");
        }
    }
    let mut expects = Http::open(server.listen);
    expects.send(format!("POST /api/info HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n").as_bytes());
    expects.send(b"{}");
    assert_eq!(expects.response().expect("an answer").status, 200);
}

#[test]
fn refusal_reaches_a_client_that_sends_its_whole_body_first() {
    let server = server();
    let body = vec![b'x'; 20 << 20];
    for (head, status) in REFUSED {
        for framing in [
            format!("Content-Length: {}\r\n\r\n", body.len()),
            format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", body.len()),
        ] {
            let mut stream = tcp(server.listen);
            stream
                .write_all(format!("{head}{framing}").as_bytes())
                .expect("the server reads");
            stream.write_all(&body).expect("the server reads on");
            let mut first = [0; 12];
            stream.read_exact(&mut first).expect("an answer");
            let wanted = format!("HTTP/1.1 {status}");
            assert_eq!(first, wanted.as_bytes(), "{head}{framing}");
        }
    }
}

#[test]
fn small_bodies_of_refused_requests_are_read_past_and_the_connection_goes_on() {
    let server = server();
    let mut http = Http::open(server.listen);
    for cut in 0..=60 {
        let request = encode("POST", "/never", &[], &[b'x'; 60]);
        let (front, back) = request.split_at(request.len() - cut);
        http.send(front);
        // The head was whole: the answer does not wait for the rest.
        assert_eq!(http.response().expect("an answer").status, 404);
        http.send(back);
    }
    http.send(b"POST /never HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(http.response().expect("an answer").status, 404);
    http.send(b"3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(http.get("/", &[]).status, 200);
}

#[test]
fn half_bodies_of_strangers_are_not_kept() {
    let server = server();
    let before = server.resident_bytes();
    let bystander = Bystander::start(&server, "bystander");
    let body = vec![b'x'; 4_194_304 - 10];
    let mut open = Vec::new();
    for (head, _) in REFUSED.iter().cycle().take(90) {
        let mut stream = tcp(server.listen);
        let head = format!("{head}Content-Length: 4194304\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("the server reads");
        let mut first = [0; 9];
        stream.read_exact(&mut first).expect("an answer");
        stream.write_all(&body).expect("the server reads on");
        open.push(stream);
    }
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < 32 << 20, "90 bodies of 4 MiB cost {growth} bytes");
    bystander.finish("bodies of strangers");
}

#[test]
fn memory_for_a_body_is_taken_as_it_arrives() {
    let server = server();
    let before = server.resident_bytes();
    let head = format!(
        "POST /api/publish HTTP/1.1\r\nHost: a\r\nX-API-Key: {API_KEY}\r\nContent-Length: 4194304\r\n\r\n0123456789"
    );
    let open: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = tcp(server.listen);
            stream.write_all(head.as_bytes()).expect("the server reads");
            stream
        })
        .collect();
    wait::until("what came to be held", || {
        (server.metric("ringmain_input_bytes") >= 2000.0).then_some(())
    });
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(growth < 16 << 20, "promises cost {growth} bytes");
    drop(open);
    wait::until("it to be forgotten", || {
        (server.metric("ringmain_input_bytes") == 0.0).then_some(())
    });
}

#[test]
fn unfinished_input_has_a_bound_and_the_largest_goes_first() {
    let server = Server::start(&config(&format!(
        "[server]\ninput_max_size = 4194304\n[websocket]\nmessage_size_limit = 8388608\n{CONFIG}"
    )));
    let publish = |channel: &str, bytes: usize| {
        let data = json!({ "channel": channel, "data": "x".repeat(bytes) });
        encode(
            "POST",
            "/api/publish",
            &[("X-API-Key", API_KEY)],
            data.to_string().as_bytes(),
        )
    };
    let half = |bytes: &[u8]| {
        let mut http = Http::open(server.listen);
        http.send(bytes);
        http
    };
    let held = |bytes: f64| {
        wait::until("input to be held", || {
            (server.metric("ringmain_input_bytes") >= bytes).then_some(())
        });
    };
    let small = publish("small", 100_000);
    let mut modest: Vec<Http> = (0..5).map(|_| half(&small[..60_000])).collect();
    held(5.0 * 59_000.0);
    let large = publish("large", 3 << 20);
    let mut first = half(&large[..large.len() - 10]);
    held(3_400_000.0);
    let mut second = half(&large[..1 << 20]);
    let refused = first.response().expect("an answer");
    assert_eq!(refused.status, 503, "the largest goes");
    let after = refused.header("retry-after").expect("when");
    assert!(["1", "2"].contains(&after), "{after}");
    // A message of a WebSocket is input like any other.
    let mut socket = upgrade(server.listen, PATH, &[]);
    let frame = [&[0x81, 0xff][..], &(4_000_000_u64).to_be_bytes(), &[0; 4]].concat();
    let stream = socket.get_mut();
    stream.write_all(&frame).expect("the server reads");
    stream
        .write_all(&vec![b' '; 3_500_000])
        .expect("the server reads on");
    let end = socket.read().and_then(|_| socket.read());
    assert!(end.is_err(), "the largest goes: {end:?}");
    second.send(&large[1 << 20..]);
    assert_eq!(second.response().expect("an answer").status, 200);
    for http in &mut modest {
        http.send(&small[60_000..]);
        assert_eq!(
            http.response().expect("an answer").status,
            200,
            "the small stay"
        );
    }
    assert_eq!(server.metric("ringmain_input_given_up_total"), 2.0);
    assert!(
        server.log().contains("server.input_max_size"),
        "{}",
        server.log()
    );
    let mut client = Client::anonymous(&server);
    client.subscribe("afterwards");
}

/// A socket that takes little before it is full.
fn narrow(server: &Server) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    socket.connect(&server.listen.into()).expect("accepted");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

#[test]
fn answers_that_are_not_taken_stop_the_taking_of_requests() {
    const REQUESTS: usize = 3300;
    let server = server();
    let before = server.resident_bytes();
    let page = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(REQUESTS);
    let bystander = Bystander::start(&server, "bystander");
    let mut deaf: Vec<TcpStream> = (0..20).map(|_| narrow(&server)).collect();
    for stream in &mut deaf {
        let mut stream = stream.try_clone().expect("the socket");
        let page = page.clone();
        // What the server does not read waits in the sockets, or in this thread.
        std::thread::spawn(move || stream.write_all(&page));
    }
    bystander.finish("peers that do not read");
    let growth = server.resident_bytes().saturating_sub(before);
    assert!(
        growth < 32 << 20,
        "answers that nobody takes cost {growth} bytes"
    );
    // Who reads after all gets every answer.
    let mut stream = deaf.pop().expect("one of them");
    let mut answers = 0;
    let (mut bytes, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    while answers < REQUESTS {
        let length = stream.read(&mut chunk).expect("more answers");
        assert!(length > 0, "{answers} answers and the end");
        bytes.extend_from_slice(&chunk[..length]);
        answers += memchr::memmem::find_iter(&bytes, b"HTTP/1.1 200 OK\r\n").count();
        let kept = bytes.len().min(16);
        bytes.drain(..bytes.len() - kept);
    }
}

#[test]
fn everything_that_a_half_closed_peer_has_asked_is_answered() {
    let server = server();
    let mut all = Vec::new();
    for n in 0..500 {
        let body = json!({ "channel": "half", "data": n }).to_string();
        all.extend(encode(
            "POST",
            "/api/publish",
            &[("X-API-Key", API_KEY)],
            body.as_bytes(),
        ));
    }
    let mut stream = tcp(server.listen);
    stream.write_all(&all).expect("the server reads");
    stream.shutdown(Shutdown::Write).expect("a half close");
    let mut answers = Vec::new();
    stream
        .read_to_end(&mut answers)
        .expect("answers and the end");
    let text = String::from_utf8_lossy(&answers);
    assert_eq!(text.matches("HTTP/1.1 200 OK\r\n").count(), 500);
}
