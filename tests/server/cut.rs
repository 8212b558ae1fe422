//! A peer whose network is gone says nothing any more. Whatever carries it, it is noticed within ping interval and pong
//! timeout.

use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Client, Encoding, PATH, tcp};
use crate::support::http::{Http, encode};
use crate::support::process::{Server, Start, config};
use crate::support::stream::{Shape, Stream};
use crate::support::wait::{self, now};

/// `ping_interval` and `pong_timeout` of the test, what the kernel's clocks add, and a slow machine.
const NOTICED: Duration = Duration::from_secs(2 + 1 + 1 + 4);
/// A WebSocket that is told to go is waited for.
const CLOSED: Duration = Duration::from_secs(5 + 3);

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A network namespace for the server, with one link to where the tests run.
struct Namespace {
    name: String,
    link: String,
    address: String,
}

impl Namespace {
    fn new() -> Self {
        let pid = std::process::id();
        let (name, link) = (format!("cut-{pid}"), format!("cut{pid}"));
        let inner = format!("in{pid}");
        let subnet = format!("10.213.{}", pid % 250);
        let (here, there) = (format!("{subnet}.1/30"), format!("{subnet}.2/30"));
        run("ip", &["netns", "add", &name]);
        run(
            "ip",
            &[
                "link", "add", &link, "type", "veth", "peer", "name", &inner, "netns", &name,
            ],
        );
        run("ip", &["address", "add", &here, "dev", &link]);
        run("ip", &["link", "set", &link, "up"]);
        for arguments in [
            ["address", "add", &there, "dev", &inner],
            ["link", "set", "dev", "lo", "up"],
            ["link", "set", "dev", &inner, "up"],
        ] {
            let mut all = vec!["-n", &name];
            all.extend(arguments);
            run("ip", &all);
        }
        Self {
            name,
            link,
            address: format!("{subnet}.2"),
        }
    }

    /// Nothing passes any more, in either direction.
    fn cut(&self) {
        run("ip", &["link", "set", &self.link, "down"]);
    }

    /// A gauge of the server, asked for within the namespace.
    fn metric(&self, server: &Server, name: &str) -> f64 {
        let url = format!("http://{}/metrics", server.admin);
        let page = run("ip", &["netns", "exec", &self.name, "curl", "-s", &url]);
        let lines = page
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removed = Command::new("ip")
            .args(["netns", "del", &self.name])
            .status();
        debug_assert!(removed.is_ok_and(|status| status.success()));
    }
}

fn socket_of(client: &Client) -> TcpStream {
    client
        .socket
        .get_ref()
        .try_clone()
        .expect("a second handle")
}

/// A connection of each transport that waits for something.
fn everybody(server: &Server) -> Vec<TcpStream> {
    let mut all = vec![
        socket_of(&Client::anonymous(server)),
        socket_of(&Client::open_over(
            tcp(server.listen),
            "/connection/uni_websocket?cf_connect={}",
            &[],
            Encoding::Json,
        )),
        // Connected, and never to send its connect command.
        socket_of(&Client::open_over(
            tcp(server.listen),
            PATH,
            &[],
            Encoding::Json,
        )),
    ];
    for (shape, path) in [
        (
            Shape::Events,
            "/connection/sse?cf_connect={\"id\":1,\"connect\":{}}",
        ),
        (Shape::Events, "/connection/uni_sse?cf_connect={}"),
    ] {
        let path = path.replace('"', "%22");
        all.push(Stream::request(server, shape, "GET", &path, &[], b"").socket);
    }
    for (path, body) in [
        ("/connection/http_stream", &b"{\"id\":1,\"connect\":{}}"[..]),
        ("/connection/uni_http_stream", b"{}"),
    ] {
        all.push(Stream::request(server, Shape::Lines, "POST", path, &[], body).socket);
    }
    let mut poll = Http::open(server.listen);
    poll.send(&encode(
        "GET",
        "/connection/poll?channel=p&timeout=60",
        &[],
        b"",
    ));
    let mut idle = Http::open(server.listen);
    assert_eq!(idle.get("/nothing", &[]).status, 404);
    let mut half = Http::open(server.listen);
    half.send(b"GET /connection/websocket HTTP/1.1\r\n");
    all.extend([poll, idle, half].map(Http::into_stream));
    all
}

fn falls_to_nothing(namespace: &Namespace, server: &Server, name: &str, by: Instant) {
    loop {
        let left = namespace.metric(server, name);
        if left == 0.0 {
            return;
        }
        assert!(now() < by, "{name}: {left} are left");
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn peer_whose_network_is_gone_is_noticed_on_every_transport() {
    let namespace = Namespace::new();
    let text = config(
        r#"
[server]
handshake_timeout = "10m"
http_idle_timeout = "10m"

[client]
allow_anonymous_connect_without_token = true
ping_interval = "2s"
pong_timeout = "1s"
stale_close_delay = "4s"

[poll]
enabled = true
[sse]
enabled = true
[http_stream]
enabled = true
[uni_websocket]
enabled = true
[uni_sse]
enabled = true
[uni_http_stream]
enabled = true

[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
"#,
    );
    let server = Start::with_config(&text)
        .listen(&format!("{}:0", namespace.address))
        .in_namespace(&namespace.name)
        .run();
    let all = everybody(&server);
    wait::until("everybody to be there", || {
        (namespace.metric(&server, "ringmain_connections") >= all.len() as f64
            && namespace.metric(&server, "ringmain_sessions") >= 7.0)
            .then_some(())
    });
    namespace.cut();
    let cut = now();
    falls_to_nothing(&namespace, &server, "ringmain_sessions", cut + NOTICED);
    falls_to_nothing(
        &namespace,
        &server,
        "ringmain_connections",
        cut + NOTICED + CLOSED,
    );
    drop(all);
}
