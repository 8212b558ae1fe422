//! The admin listener: `/health`, `/ready`, `/metrics`, `/api/openapi.json`. Bounded, so that a slow or greedy client costs a fixed amount.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as Method, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::{Instant, Sleep, sleep};

use super::hooks;
use super::observe::Question;
use super::process::Process;
use super::prometheus::{self, Snapshot};
use crate::mesh::control::{Page, PageKind};
use crate::mesh::durable::Method as AskMethod;
use crate::protocol::api::{Answer as ApiAnswer, ApiError, Shape, encode_answer};
use crate::upstream::bridge::{Question as LogQuestion, Report as LogReport};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Bytes of a question to the durable log.
const ASK_BYTES_MAX: usize = 1 << 20;
/// Connections at a time; more wait in the accept queue.
const CONNECTIONS_MAX: usize = 64;
/// From one byte of answer to the next: time for a whole request to arrive and for the client to read.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Where the process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// A shard's listeners are not up yet.
    Starting,
    /// Clients are served.
    Serving,
    /// On the way out.
    Draining,
}

impl Phase {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// What `/ready` tells.
#[derive(Clone, Copy, Debug)]
pub struct Readiness {
    /// Ready only while serving.
    pub phase: Phase,
    /// All shards.
    pub shards: usize,
    /// Those whose listeners are up.
    pub shards_ready: usize,
    /// `uring` or `portable`.
    pub reactor: &'static str,
}

/// The durable log as the admin listener sees it.
#[derive(Clone)]
pub struct Log {
    /// How it does.
    pub report: watch::Receiver<LogReport>,
    /// What it is asked.
    pub questions: mpsc::Sender<LogQuestion>,
}

/// What control knows, for whoever may ask: at the admin listener, and through the shards at the internal ones.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) hooks: mpsc::Sender<hooks::Question>,
    pub(super) log: Option<Log>,
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, admin: Admin) {
    let routes = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/api/openapi.json", get(openapi))
        .route("/api/{*method}", post(ask_log))
        .layer(DefaultBodyLimit::max(ASK_BYTES_MAX))
        .with_state(admin);
    let listener = Bounded {
        listener,
        room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
    };
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the admin listener ended");
    }
}

/// Binds the admin listener before any shard starts, so that a taken port is told at once.
///
/// # Errors
/// What `bind` says.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    std::net::TcpListener::bind(address)
}

/// Where this process listens, with the ports the kernel gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub listen: Vec<String>,
    /// For services and probes.
    pub internal: Vec<String>,
    /// The admin listener; empty when it is off.
    pub admin: String,
}

/// Tells a supervisor where this process listens. The file appears whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_ready_file(path: &Path, addresses: &Addresses, reactor: &str) -> io::Result<()> {
    let text = serde_json::json!({
        "listen": addresses.listen,
        "internal": addresses.internal,
        "admin": addresses.admin,
        "reactor": reactor,
    });
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    std::fs::write(&partial, format!("{text}\n"))?;
    std::fs::rename(&partial, path)
}

/// What the server API is, for tools and people. It names no key.
async fn openapi() -> Response {
    let headers = [(header::CONTENT_TYPE, JSON)];
    (headers, crate::protocol::api::OPENAPI).into_response()
}

async fn health() -> Response {
    json(StatusCode::OK, &serde_json::json!({}))
}

async fn ready(State(admin): State<Admin>) -> Response {
    shown(admin.page(PageKind::Ready).await)
}

async fn metrics(State(admin): State<Admin>) -> Response {
    shown(admin.page(PageKind::Metrics).await)
}

fn shown(page: Page) -> Response {
    let Page {
        status,
        content_type,
        body,
    } = page;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}

/// How the durable log does. A process whose log is down is ready: what is not durable is served, and publishers of
/// durable channels are told to come back.
fn log_details(report: &LogReport) -> serde_json::Value {
    let status = &report.status;
    serde_json::json!({
        "up": status.down.is_none(),
        "down": status.down,
        "warnings": status.warnings,
        "bytes": status.bytes,
        "entries": status.entries,
    })
}

/// Questions about queue groups, dead letters and replays, which need no key here: bulk reading does not go through a shard.
async fn ask_log(
    State(admin): State<Admin>,
    Method(method): Method<String>,
    data: Bytes,
) -> Response {
    let Some(asked) = AskMethod::of_api(&method).filter(|method| method.is_for_admin()) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(log) = &admin.log else {
        let error = serde_json::json!({ "error": { "code": 108, "message": "not available" } });
        return json(StatusCode::OK, &error);
    };
    let (answer, answered) = oneshot::channel();
    let question = LogQuestion {
        method: asked,
        data,
        answer,
    };
    if log.questions.send(question).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Ok(result) = answered.await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let mut out = Vec::new();
    let answer = result.map(ApiAnswer::Log).map_err(ApiError::Log);
    encode_answer(&mut out, &answer, Shape::Single);
    ([(header::CONTENT_TYPE, JSON)], out).into_response()
}

fn hook_details(reports: &[hooks::Report]) -> serde_json::Value {
    let of = |report: &hooks::Report| {
        let details = serde_json::json!({
            "breaker": report.breaker,
            "in_flight": report.in_flight,
            "waiting": report.waiting,
        });
        (report.name.clone(), details)
    };
    serde_json::Value::Object(reports.iter().map(of).collect())
}

impl Admin {
    /// A page for whoever may see it.
    pub(super) async fn page(&self, kind: PageKind) -> Page {
        match kind {
            PageKind::Ready => self.ready_page().await,
            PageKind::Metrics => self.metrics_page().await.unwrap_or(Page {
                status: 503,
                content_type: TEXT,
                body: Bytes::from_static(b"the counters are not to be had\n"),
            }),
        }
    }

    async fn ready_page(&self) -> Page {
        let Readiness {
            phase,
            shards,
            shards_ready,
            reactor,
        } = *self.readiness.borrow();
        let ready = phase == Phase::Serving;
        let body = serde_json::json!({
            "ready": ready,
            "phase": phase.as_str(),
            "draining": phase == Phase::Draining,
            "shards": shards,
            "shards_ready": shards_ready,
            "reactor": reactor,
            // A backend that fails is told and does not make this process unready: what needs no hook is served.
            "hooks": hook_details(&self.reports().await),
            "durable": self.log.as_ref().map(|log| log_details(&log.report.borrow())),
        });
        Page {
            status: if ready { 200 } else { 503 },
            content_type: JSON,
            body: body.to_string().into(),
        }
    }

    /// `None` when nobody can say.
    async fn metrics_page(&self) -> Option<Page> {
        let (question, answer) = oneshot::channel();
        self.questions.try_send(question).ok()?;
        let shards = answer.await.ok()?;
        let reports = self.reports().await;
        let Readiness { phase, reactor, .. } = *self.readiness.borrow();
        let text = prometheus::render(&Snapshot {
            shards: &shards,
            reactor,
            ready: phase == Phase::Serving,
            draining: phase == Phase::Draining,
            process: Process::read(),
            hooks: &reports,
            durable: self.log.as_ref().map(|log| log.report.borrow().clone()),
        });
        Some(Page {
            status: 200,
            content_type: prometheus::CONTENT_TYPE,
            body: text.into(),
        })
    }

    /// How the targets of hooks do; nothing when nobody can say.
    async fn reports(&self) -> Vec<hooks::Report> {
        let (question, answer) = oneshot::channel();
        if self.hooks.try_send(question).is_err() {
            return Vec::new();
        }
        answer.await.unwrap_or_default()
    }
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response {
    (status, [(header::CONTENT_TYPE, JSON)], body.to_string()).into_response()
}

/// Accepts while there is room.
struct Bounded {
    listener: TcpListener,
    room: Arc<Semaphore>,
}

impl Listener for Bounded {
    type Io = Timed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Timed, SocketAddr) {
        let place = Arc::clone(&self.room)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        (
            Timed {
                stream,
                sleep: Box::pin(sleep(IDLE_TIMEOUT)),
                _place: place,
            },
            peer,
        )
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that ends when no byte of an answer left for `IDLE_TIMEOUT`. Bytes received do not count: a request that trickles in
/// is cut like one that never comes.
struct Timed {
    stream: TcpStream,
    sleep: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Timed {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }

    fn progress(&mut self) {
        self.sleep.as_mut().reset(Instant::now() + IDLE_TIMEOUT);
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        if matches!(written, Poll::Ready(Ok(_))) {
            self.progress();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream as Client;
    use tokio::task::spawn_blocking;

    struct Served {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
    }

    async fn served() -> Served {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let readiness = watch::Sender::new(Readiness {
            phase: Phase::Starting,
            shards: 1,
            shards_ready: 0,
            reactor: "portable",
        });
        let (questions_in, mut questions) = mpsc::channel::<Question>(4);
        let (hooks_in, _) = mpsc::channel(1);
        let admin = Admin {
            readiness: readiness.subscribe(),
            questions: questions_in,
            hooks: hooks_in,
            log: None,
        };
        tokio::spawn(serve(listener, admin));
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                drop(question.send(vec![None]));
            }
        });
        Served { address, readiness }
    }

    fn client(address: SocketAddr) -> Client {
        let client = Client::connect(address).expect("a connection");
        client
            .set_read_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        client
            .set_write_timeout(Some(Duration::from_secs(10)))
            .expect("a timeout");
        client
    }

    async fn ask(address: SocketAddr, path: &'static str) -> String {
        let exchange = move || {
            let mut client = client(address);
            write!(
                client,
                "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            )
            .expect("a request");
            let mut answer = String::new();
            client
                .read_to_string(&mut answer)
                .expect("an answer in time");
            answer
        };
        spawn_blocking(exchange).await.expect("the client ends")
    }

    #[tokio::test]
    async fn readiness_follows_the_phase_and_health_does_not() {
        let served = served().await;
        for (phase, status) in [
            (Phase::Starting, "503"),
            (Phase::Serving, "200"),
            (Phase::Draining, "503"),
        ] {
            served
                .readiness
                .send_modify(|readiness| readiness.phase = phase);
            let answer = ask(served.address, "/ready").await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(
                answer.contains(&format!("\"phase\":\"{}\"", phase.as_str())),
                "{answer}"
            );
            let health = ask(served.address, "/health").await;
            assert!(
                health.starts_with("HTTP/1.1 200 ") && health.ends_with("{}"),
                "{health}"
            );
        }
    }

    #[tokio::test]
    async fn a_client_that_never_finishes_its_request_holds_nobody_up() {
        let served = served().await;
        let mut slow = client(served.address);
        slow.write_all(b"GET /metrics HT").expect("half a request");
        let answer = ask(served.address, "/metrics").await;
        assert!(
            answer.contains("ringmain_shard_up{shard=\"0\"} 0"),
            "{answer}"
        );
    }

    #[tokio::test]
    async fn a_request_head_without_end_is_refused() {
        let served = served().await;
        let refused = move || {
            let mut client = client(served.address);
            client
                .write_all(b"GET /health HTTP/1.1\r\nX: ")
                .expect("a start");
            let filler = [b'a'; 64 * 1024];
            loop {
                if let Err(error) = client.write_all(&filler) {
                    return error.kind();
                }
            }
        };
        let kind = spawn_blocking(refused).await.expect("the client ends");
        assert!(
            matches!(
                kind,
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
            "{kind}"
        );
    }

    #[test]
    fn the_ready_file_names_every_address() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ready.json");
        write_ready_file(
            &path,
            &Addresses {
                listen: vec!["127.0.0.1:8000".to_owned()],
                internal: vec!["127.0.0.1:9000".to_owned()],
                admin: "127.0.0.1:8001".to_owned(),
            },
            "uring",
        )
        .expect("written");
        let value: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(&path).expect("a file")).expect("JSON");
        assert_eq!(
            value,
            serde_json::json!({
                "listen": ["127.0.0.1:8000"],
                "internal": ["127.0.0.1:9000"],
                "admin": "127.0.0.1:8001",
                "reactor": "uring",
            })
        );
    }
}
