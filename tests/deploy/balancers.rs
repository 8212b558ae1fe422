//! nginx, HAProxy and Envoy with the shipped configurations in front of two real nodes: what a client does goes through, nothing is
//! held back, and who is left by a drain is served by the successor.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::client::{Client, Encoding, PATH, tcp};
use crate::support::http::{Http, encode};
use crate::support::process::{API_KEY, Server, Start, config, free_port, guard};
use crate::support::token;
use crate::support::wait::{self, now};
use crate::tools::{program, text};

/// The name of the certificate.
const NAME: &str = "localhost";
/// What is delivered later than this was held back.
const AT_ONCE: Duration = Duration::from_secs(2);

type Tls = StreamOwned<ClientConnection, TcpStream>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Nginx,
    Haproxy,
    Envoy,
}

/// A node and its successor with a balancer in front. `ping` of the connect result tells one from the other.
struct Edge {
    old: Server,
    _new: Server,
    balancer: Child,
    _guard: Child,
    directory: TempDir,
    clients: SocketAddr,
    services: SocketAddr,
    trust: Arc<ClientConfig>,
}

const PING_OF_OLD: u64 = 25;
const PING_OF_NEW: u64 = 24;

fn node(ping: u64, notice: &str) -> Server {
    Start::with_config(&config(&format!(
        r#"
[server]
internal_listen = ["127.0.0.1:0"]
trusted_proxies = ["127.0.0.1"]
[client]
ping_interval = "{ping}s"
connection_limit_per_prefix = 1000
[http_stream]
enabled = true
[sse]
enabled = true
[poll]
enabled = true
[channel.without_namespace]
allow_subscribe_for_client = true
history_size = 10
history_ttl = "60s"
force_recovery = true
[drain]
notice = "{notice}"
window = "1s"
grace = "1s"
"#
    )))
    .run()
}

/// Puts values in place of what is marked as to be changed, and of nothing else.
fn changed(text: &str, values: &[(&str, &str)]) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for (from, to) in values {
        let line = lines
            .iter_mut()
            .find(|line| line.contains(from) && line.contains("# change"))
            .unwrap_or_else(|| panic!("`{from}` is not marked as to be changed"));
        *line = line.replace(from, to);
    }
    let text = lines.join("\n");
    assert!(!text.contains(" 10.0.0."), "an address that is not marked");
    text
}

/// A certificate and its key in files, alone and together.
fn certificate(directory: &Path) -> Arc<ClientConfig> {
    let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()]).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    for (name, text) in [
        ("edge.pem", certificate.clone()),
        ("edge.key", key.clone()),
        ("both.pem", certificate + &key),
    ] {
        std::fs::write(directory.join(name), text).expect("the file");
    }
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from(made.cert.der().to_vec());
    roots.add(der).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}

impl Edge {
    fn start(kind: Kind, notice: &str) -> Self {
        let directory = TempDir::new().expect("a directory");
        let (old, new) = (node(PING_OF_OLD, notice), node(PING_OF_NEW, notice));
        let trust = certificate(directory.path());
        let (clients, services) = (free_port(), free_port());
        let mut command = match kind {
            Kind::Nginx => nginx(directory.path(), &old, &new, clients, services),
            Kind::Haproxy => haproxy(directory.path(), &old, &new, clients, services),
            Kind::Envoy => envoy(directory.path(), &old, &new, clients, services),
        };
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let balancer = command
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        let mut edge = Self {
            _guard: guard(balancer.id()),
            old,
            _new: new,
            balancer,
            directory,
            clients,
            services,
            trust,
        };
        // It listens before it knows of its nodes: who asks it then is told 503.
        wait::until("the balancer to lead to the first node", || {
            if let Some(status) = edge.balancer.try_wait().expect("it can be asked") {
                panic!("the balancer ended with {status}\n{}", edge.log());
            }
            let socket = TcpStream::connect(edge.services).ok()?;
            drop(socket);
            let mut http = Http::open(edge.services);
            http.send(&edge.publish_request("nobody", &json!(0)));
            (http.response()?.status == 200).then_some(())?;
            let socket = TcpStream::connect(edge.clients).ok()?;
            drop(socket);
            let mut http = Http::over(edge.tls());
            http.send(&encode("GET", "/connection/poll?channel=p", &[], b""));
            let status = http.response()?.status;
            (status != 503).then_some(())
        });
        edge
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// A connection of a client to the balancer.
    fn tls(&self) -> Tls {
        let name = NAME.try_into().expect("a name");
        let session = ClientConnection::new(Arc::clone(&self.trust), name).expect("TLS");
        StreamOwned::new(session, tcp(self.clients))
    }

    fn client(&self) -> Client<Tls> {
        Client::open_over(self.tls(), PATH, &[], Encoding::Json)
            .connect(&json!({ "token": token::user("u") }))
    }

    fn publish_request(&self, channel: &str, data: &Value) -> Vec<u8> {
        let body = json!({ "channel": channel, "data": data }).to_string();
        let key = ("X-API-Key", API_KEY);
        encode("POST", "/api/publish", &[key], body.as_bytes())
    }

    /// By way of the balancer, as services do.
    fn publish(&self, channel: &str, data: &Value) {
        let mut http = Http::open(self.services);
        http.send(&self.publish_request(channel, data));
        let response = http.response().expect("an answer");
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(
            response.json().get("result").is_some(),
            "{}",
            response.text()
        );
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of the balancer ---\n{}", self.log());
        }
        // The guard goes with it: afterwards the number may be another process's.
        for child in [&mut self._guard, &mut self.balancer] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn nginx(
    directory: &Path,
    old: &Server,
    new: &Server,
    clients: SocketAddr,
    services: SocketAddr,
) -> Command {
    let path = directory.display();
    let text = changed(
        &text("nginx.conf"),
        &[
            ("10.0.0.5:8000", &old.listen.to_string()),
            ("10.0.0.6:8000", &new.listen.to_string()),
            ("10.0.0.5:9000", &old.internal.to_string()),
            ("10.0.0.6:9000", &new.internal.to_string()),
            ("listen 443", &format!("listen {clients}")),
            ("listen 127.0.0.1:9000", &format!("listen {services}")),
            ("rt.example.com;", &format!("{NAME};")),
            ("/etc/ssl/rt.example.com.pem", &format!("{path}/edge.pem")),
            ("/etc/ssl/rt.example.com.key", &format!("{path}/edge.key")),
        ],
    );
    // Where it may write, whoever runs it.
    let mut own = String::from("http {\n");
    for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        own.push_str(&format!("    {name}_temp_path {path}/{name};\n"));
    }
    let text = text.replacen("http {\n", &own, 1);
    let file = directory.join("nginx.conf");
    std::fs::write(&file, text).expect("the file");
    let mut command = Command::new(program("nginx"));
    let global = format!("daemon off; master_process off; pid {path}/pid; error_log stderr;");
    command
        .args(["-p", &path.to_string(), "-e", "stderr", "-g", &global])
        .arg("-c")
        .arg(file);
    command
}

fn haproxy(
    directory: &Path,
    old: &Server,
    new: &Server,
    clients: SocketAddr,
    services: SocketAddr,
) -> Command {
    let checked = |server: &Server| format!("{} port {}", server.listen, server.internal.port());
    let text = changed(
        &text("haproxy.cfg"),
        &[
            ("10.0.0.5:8000 port 9000", &checked(old)),
            ("10.0.0.6:8000 port 9000", &checked(new)),
            ("10.0.0.5:9000", &old.internal.to_string()),
            ("10.0.0.6:9000", &new.internal.to_string()),
            ("bind :443", &format!("bind {clients}")),
            ("bind 127.0.0.1:9000", &format!("bind {services}")),
            (
                "/etc/haproxy/rt.example.com.pem",
                &directory.join("both.pem").display().to_string(),
            ),
        ],
    );
    // More than a test machine's limit of descriptors has room for.
    let text = text.replacen("maxconn 200000", "maxconn 1000", 1);
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, text + "\n").expect("the file");
    let mut command = Command::new(program("haproxy"));
    command.arg("-db").arg("-f").arg(file);
    command
}

fn envoy(
    directory: &Path,
    old: &Server,
    new: &Server,
    clients: SocketAddr,
    services: SocketAddr,
) -> Command {
    let port = |port: u16| format!("port_value: {port} ");
    let node = |address: SocketAddr| format!("127.0.0.1, port_value: {} ", address.port());
    let path = directory.display();
    let text = changed(
        &text("envoy.yaml"),
        &[
            ("10.0.0.5, port_value: 8000 ", &node(old.listen)),
            ("10.0.0.6, port_value: 8000 ", &node(new.listen)),
            ("10.0.0.5, port_value: 9000 ", &node(old.internal)),
            ("10.0.0.6, port_value: 9000 ", &node(new.internal)),
            (
                "{ port_value: 9000 ",
                &format!("{{ {}", port(old.internal.port())),
            ),
            (
                "{ port_value: 9000 ",
                &format!("{{ {}", port(new.internal.port())),
            ),
            ("0.0.0.0, port_value: 443 ", &node(clients)),
            ("127.0.0.1, port_value: 9000 ", &node(services)),
            ("/etc/envoy/rt.example.com.pem", &format!("{path}/edge.pem")),
            ("/etc/envoy/rt.example.com.key", &format!("{path}/edge.key")),
        ],
    );
    let file = directory.join("envoy.yaml");
    std::fs::write(&file, text).expect("the file");
    let mut command = Command::new(program("envoy"));
    command
        .args(["--disable-hot-restart", "--concurrency", "1"])
        .args(["--log-level", "warning", "-c"])
        .arg(file);
    command
}

/// Reads until this text has come; the stream must go on.
fn read_until(stream: &mut Tls, text: &str) {
    let mut received = Vec::new();
    let mut bytes = [0; 4096];
    while !String::from_utf8_lossy(&received).contains(text) {
        let length = stream.read(&mut bytes).expect("it comes in time");
        let so_far = String::from_utf8_lossy(&received);
        assert!(length > 0, "the stream ended before `{text}`: {so_far}");
        received.extend_from_slice(&bytes[..length]);
    }
}

/// A stream of this kind, which has its subscription from its token.
fn stream(edge: &Edge, channel: &str, is_sse: bool) -> Tls {
    let token = token::sign(&json!({ "sub": "u", "channels": [channel] }));
    let command = json!({ "id": 1, "connect": { "token": token } }).to_string();
    let query: String = form_urlencoded::byte_serialize(command.as_bytes()).collect();
    let request = if is_sse {
        encode(
            "GET",
            &format!("/connection/sse?cf_connect={query}"),
            &[],
            b"",
        )
    } else {
        encode("POST", "/connection/http_stream", &[], command.as_bytes())
    };
    let mut stream = edge.tls();
    stream.write_all(&request).expect("it is taken");
    read_until(&mut stream, "\"session\":");
    stream
}

fn serves_every_transport(kind: Kind) {
    let edge = Edge::start(kind, "0s");
    let mut client = edge.client();
    assert_eq!(client.connected["ping"], PING_OF_OLD);
    client.subscribe("news");
    edge.publish("news", &json!({ "n": 1 }));
    assert_eq!(client.publication("news")["data"]["n"], 1);

    for is_sse in [true, false] {
        let channel = format!("stream-{is_sse}");
        let mut stream = stream(&edge, &channel, is_sse);
        for n in 0..3 {
            let marker = format!("publication-{n}");
            let before = now();
            edge.publish(&channel, &json!(marker));
            read_until(&mut stream, &marker);
            let took = now() - before;
            assert!(took < AT_ONCE, "held back for {took:?}, SSE: {is_sse}");
        }
    }

    // The first answer names a position; what comes after that is never missed, however late the second request is.
    let token = token::user("u");
    let path = format!("/connection/poll?channel=polled&token={token}");
    let mut poll = Http::over(edge.tls());
    let position = poll.get(&format!("{path}&timeout=1"), &[]).json();
    let epoch = position["epoch"].as_str().expect("an epoch");
    let next = format!(
        "{path}&timeout=60&epoch={epoch}&offset={}",
        position["offset"]
    );
    poll.send(&encode("GET", &next, &[], b""));
    edge.publish("polled", &json!("for who polls"));
    let answer = poll.response().expect("an answer").text();
    assert!(answer.contains("for who polls"), "{answer}");

    let mut outside = Http::over(edge.tls());
    outside.send(&edge.publish_request("news", &json!(2)));
    let refused = outside.first_line();
    assert!(refused.contains(" 404 "), "the API from outside: {refused}");
}

#[test]
fn nginx_passes_every_transport_on_at_once() {
    serves_every_transport(Kind::Nginx);
}

#[test]
fn haproxy_passes_every_transport_on_at_once() {
    serves_every_transport(Kind::Haproxy);
}

#[test]
fn envoy_passes_every_transport_on_at_once() {
    serves_every_transport(Kind::Envoy);
}

/// While the old node drains, every single client that comes is served, by the successor in the end; the old one's own clients are
/// told to reconnect. `is_asked`: the balancer learns of the drain by `/ready`, before anything is refused.
fn leaves_a_drained_node(kind: Kind, notice: &str, is_asked: bool) {
    let mut edge = Edge::start(kind, notice);
    let mut stays = edge.client();
    assert_eq!(stays.connected["ping"], PING_OF_OLD);
    edge.old.signal("TERM");
    let mut first = wait::until("a client to be led to the successor", || {
        let client = edge.client();
        (client.connected["ping"] == PING_OF_NEW).then_some(client)
    });
    if is_asked {
        assert!(
            TcpStream::connect(edge.old.listen).is_ok(),
            "the old node refuses nobody yet"
        );
    }
    first.subscribe("news");
    wait::until("the API to be led to the successor", || {
        edge.publish("news", &json!(1));
        client_has_publication(&mut first).then_some(())
    });
    assert_eq!(stays.ends_with(3001), "shutdown");
    let status = edge.old.exit_status();
    assert_eq!(status.code(), Some(0));
    let last = edge.client();
    assert_eq!(last.connected["ping"], PING_OF_NEW);
}

/// Whether a publication came before the answer to a command that is sent now.
fn client_has_publication(client: &mut Client<Tls>) -> bool {
    client
        .pending()
        .iter()
        .any(|object| object.get("push").is_some())
}

#[test]
fn nginx_leaves_a_node_that_drains_and_no_client_hears_of_it() {
    leaves_a_drained_node(Kind::Nginx, "1s", false);
}

#[test]
fn haproxy_leaves_a_node_that_drains_before_it_refuses_anybody() {
    leaves_a_drained_node(Kind::Haproxy, "6s", true);
}

#[test]
fn envoy_leaves_a_node_that_drains_before_it_refuses_anybody() {
    leaves_a_drained_node(Kind::Envoy, "6s", true);
}
