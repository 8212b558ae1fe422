//! A connection that was reset is noticed at once, whatever it waits for: also where nothing is owed to it, and where the
//! reset came in the same moment as its last bytes.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::support::backend::{Backend, Reply};
use crate::support::client::{Client, PATH, tcp};
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, Start, config};
use crate::support::wait::now;

/// Far less than any time after which these connections would end by themselves.
const AT_ONCE: Duration = Duration::from_secs(4);
/// The moment in which both arrive is met often enough.
const EACH: usize = 12;

/// Closes with a reset.
fn reset(stream: TcpStream) {
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger of nothing");
    drop(stream);
}

fn sends(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut http = Http::open(server.listen);
    http.send(bytes);
    http.into_stream()
}

fn pong(mut client: Client) -> TcpStream {
    client
        .socket
        .send(Message::Pong("still here".into()))
        .expect("the server reads");
    client
        .socket
        .get_ref()
        .try_clone()
        .expect("a second handle")
}

/// What a worker asks for that waits.
pub(crate) fn wish() -> Value {
    json!({ "group": "g", "channels": ["orders:*"], "limit": 1, "wait_ms": 20_000 })
}

/// A fetch that waits.
pub(crate) fn fetch() -> Vec<u8> {
    encode(
        "POST",
        "/api/queue/fetch",
        &[("X-API-Key", API_KEY)],
        wish().to_string().as_bytes(),
    )
}

/// A long poll that waits.
pub(crate) fn poll() -> Vec<u8> {
    encode("GET", "/connection/poll?channel=p&timeout=60", &[], b"")
}

/// A request half of whose body is missing.
pub(crate) fn half_body() -> Vec<u8> {
    let key = [("X-API-Key", API_KEY)];
    let mut bytes = encode("POST", "/api/publish", &key, &[b' '; 100]);
    bytes.truncate(bytes.len() - 50);
    bytes
}

type Leaves = fn(&Server) -> TcpStream;

const STATES: &[(&str, Leaves)] = &[
    ("half a head", |server| sends(server, b"GET /connection")),
    ("half a body", |server| sends(server, &half_body())),
    ("a long poll", |server| sends(server, &poll())),
    ("a fetch", |server| sends(server, &fetch())),
    (
        "a fetch that was answered because its caller closed its side",
        |server| {
            let stream = sends(server, &fetch());
            stream.shutdown(Shutdown::Write).expect("a half close");
            stream
        },
    ),
    ("a poll with much behind it", |server| {
        let mut bytes = poll();
        bytes.extend(poll().repeat(3000));
        sends(server, &bytes)
    }),
    ("a WebSocket without a session", |server| {
        pong(Client::open(server))
    }),
    ("a WebSocket with a session", |server| {
        pong(Client::anonymous(server))
    }),
    ("a connect that waits for a backend", |server| {
        let mut client = Client::open(server);
        client.send_text(r#"{"id":1,"connect":{"name":"slow"}}"#);
        client
            .socket
            .get_ref()
            .try_clone()
            .expect("a second handle")
    }),
    ("a stream", |server| {
        let mut stream = sends(
            server,
            &encode("GET", "/connection/uni_sse?cf_connect={}", &[], b""),
        );
        let mut received = Vec::new();
        while !received.ends_with(b"}\n\n\r\n") {
            let mut some = [0; 4096];
            let length = std::io::Read::read(&mut stream, &mut some).expect("the connect push");
            received.extend_from_slice(&some[..length]);
        }
        std::io::Write::write_all(&mut stream, b"\r\n").expect("the server reads");
        stream
    }),
];

/// With everything that can be waited for.
pub(crate) fn start(more: &str, directory: &std::path::Path) -> Start {
    Start::with_config(&config(&format!(
        r#"
{more}
[durable.embedded]
directory = "{}"

[uni_sse]
enabled = true

[poll]
enabled = true

[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = 8
history_ttl = "60s"
"#,
        directory.display()
    )))
}

/// Open connections, once there are no more than `most` of them.
fn falls_to(server: &Server, most: usize, what: &str) {
    let end = now() + AT_ONCE;
    loop {
        let open = server.metric("ringmain_connections");
        if open <= most as f64 {
            return;
        }
        assert!(
            now() < end,
            "{what}: {open} connections are open {AT_ONCE:?} after they were reset"
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

#[test]
fn reset_together_with_the_last_bytes_is_noticed_at_once_in_every_state() {
    let directory = tempfile::tempdir().expect("a directory");
    let backend = Backend::start(|asked| {
        let answer = Reply::result(json!({ "user": "" }));
        if asked.body["name"] == "slow" {
            Reply::Late(Duration::from_secs(60), Box::new(answer))
        } else {
            answer
        }
    });
    let hook = format!(
        "[client.proxy.connect]\nenabled = true\nendpoint = \"http://{}/connect\"\ntimeout = \"60s\"\n",
        backend.address
    );
    let server = start(&hook, directory.path()).run();
    for (what, leaves) in STATES {
        let waits = leaves(&server);
        for _ in 0..EACH {
            reset(leaves(&server));
        }
        falls_to(&server, 1, what);
        waits.set_nonblocking(true).expect("a socket");
        let owed = waits.peek(&mut [0]).map_err(|error| error.kind());
        if !what.contains("its caller") {
            assert_eq!(owed, Err(std::io::ErrorKind::WouldBlock), "{what}");
        }
        reset(waits);
        falls_to(&server, 0, what);
    }
}

#[test]
fn reset_while_the_key_of_a_token_is_awaited_is_noticed_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    // Accepts and says nothing.
    let service = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = service.local_addr().expect("an address");
    let server = start(
        &format!(
            "[client.subscription_token]\nenabled = true\njwks_public_endpoint = \"http://{address}/\"\n[client]\nallow_anonymous_connect_without_token = true\n"
        ),
        directory.path(),
    )
    .run();
    // An unsigned stand-in is enough: the key is looked for before the signature is read.
    let token = "eyJhbGciOiJSUzI1NiIsImtpZCI6InVua25vd24ifQ.e30.AAAA";
    for _ in 0..EACH {
        let mut client = Client::anonymous(&server);
        client.send_text(&format!(
            r#"{{"id":2,"subscribe":{{"channel":"a","token":"{token}"}}}}"#
        ));
        reset(
            client
                .socket
                .get_ref()
                .try_clone()
                .expect("a second handle"),
        );
    }
    falls_to(&server, 0, "a subscribe that waits for a key");
}

#[test]
fn reset_of_a_client_that_does_not_take_what_it_is_sent_is_noticed_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(
        "[client]\nallow_anonymous_connect_without_token = true\n",
        directory.path(),
    )
    .run();
    let stream = tcp(server.listen);
    socket2::SockRef::from(&stream)
        .set_recv_buffer_size(4096)
        .expect("a small buffer");
    let mut client = Client::open_over(stream, PATH, &[], crate::support::client::Encoding::Json)
        .connect(&json!({}));
    client.subscribe("flood");
    let data = "x".repeat(100_000);
    crate::support::wait::until("something to wait for the client", || {
        server.api_result("publish", &json!({ "channel": "flood", "data": data }));
        (server.metric("ringmain_backlog_bytes") > 0.0).then_some(())
    });
    reset(
        client
            .socket
            .get_ref()
            .try_clone()
            .expect("a second handle"),
    );
    drop(client);
    falls_to(&server, 0, "a backlog");
}
