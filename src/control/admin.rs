//! The admin listener: `/health`, `/ready`, `/metrics`, `/api/openapi.json`, and with a key what concerns the durable log.
//!
//! It trusts nobody. A browser on this host can be sent here by any page: what a page of a stranger can have asked for is
//! refused by its head, and what changes something or shows payloads needs the key. Bounded, so that a slow or greedy
//! client costs a fixed amount and keeps nobody away.

mod copy;
mod crowd;
mod drain;
mod tenants;

use std::io;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path as PathOf, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use tokio::sync::{mpsc, oneshot, watch};

use super::hooks;
use super::observe::{Observation, Question};
use super::process::{Process, Reload};
use super::prometheus::{self, Snapshot};
use crate::config::{Config, KeyVerdict, ListenAddr};
use crate::limits::ADMIN_BODY_BYTES_MAX;
use crate::mesh::control::{ControlPage, PageKind, TableKind};
use crate::mesh::durable::{LogError, LogMethod};
use crate::model::TenantId;
use crate::protocol::api::{ApiAnswer, ApiError, ApiForm, encode_answer};
use crate::upstream::bridge::{CopyWanted, Question as LogQuestion, Report as LogReport};
use crate::uring::listen::Bound;
use crate::wire::http::is_same_site;

pub use crowd::{Door, Listening};
pub(super) use tenants::Line as TenantsLine;

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// Connections that the kernel keeps until they are let in.
pub const BACKLOG: u32 = 1024;
/// What the server API is.
const OPENAPI_PATH: &str = "/api/openapi.json";

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
#[derive(Clone, Debug)]
pub struct Readiness {
    /// Ready only while serving.
    pub phase: Phase,
    /// All shards.
    pub shards: usize,
    /// Those whose listeners are up.
    pub shards_ready: usize,
    /// `uring` or `portable`.
    pub reactor: &'static str,
    /// Shards on which each table is nearly full: bit n for shard n.
    pub filling: [u64; TableKind::ALL.len()],
    /// Limits of the system that are near, each with what to do. They do not make the process unready: who is connected
    /// is served.
    pub warnings: Vec<String>,
    /// What came of reading the configuration again.
    pub reload: Reload,
}

/// The durable log as the admin listener sees it.
#[derive(Clone)]
pub struct Log {
    /// How it does.
    pub report: watch::Receiver<LogReport>,
    /// What it is asked.
    pub questions: mpsc::Sender<LogQuestion>,
    /// Copies that are wanted of it.
    pub copies: mpsc::Sender<CopyWanted>,
}

/// What control knows, for whoever may ask: at the admin listener, and through the shards at the internal ones.
#[derive(Clone)]
pub(super) struct Admin {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) readiness: watch::Receiver<Readiness>,
    pub(super) questions: mpsc::Sender<Question>,
    pub(super) hooks: mpsc::Sender<hooks::Question>,
    pub(super) drains: mpsc::Sender<super::stage::Wanted>,
    pub(super) log: Option<Log>,
    pub(super) tenants: TenantsLine,
}

/// What everybody who is let in may ask, each by whom `guard` lets.
fn routes(admin: Admin, door: Door) -> Router {
    let guarded = Guarded {
        config: admin.config.clone(),
        door,
    };
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route(OPENAPI_PATH, get(openapi))
        .route(copy::PATH, post(copy::stream))
        .route("/api/{*method}", post(ask_log))
        .route("/t/{tenant}/api/{*method}", post(ask_log_of))
        .route(drain::PATH, post(drain::begin))
        .route(tenants::PATH, get(tenants::list).post(tenants::put))
        .route(tenants::PATH_OF_ONE, delete(tenants::remove))
        .layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX))
        // Paths that lead nowhere are nobody's.
        .route_layer(from_fn_with_state(guarded, guard))
        .with_state(admin)
}

/// Serves until it is `closing`, and what is under way then to its end.
pub(super) async fn serve(listener: Listening, admin: Admin, closing: watch::Receiver<bool>) {
    let routes = routes(admin, listener.door());
    crowd::attend(listener, routes, closing).await;
}

#[derive(Clone)]
struct Guarded {
    config: watch::Receiver<Arc<Config>>,
    door: Door,
}

/// Decides by the head alone who is answered: nothing of a body is read for others.
async fn guard(State(guarded): State<Guarded>, request: Request, next: Next) -> Response {
    let verdict = {
        let config = guarded.config.borrow();
        verdict(&config, guarded.door, super::clock::unix_s(), &request)
    };
    match verdict {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.response(),
    }
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// It may come from a page of a stranger.
    Stranger,
    /// The key is missing or wrong.
    Key,
    /// The key was right until its time was over.
    Expired,
    /// No key is configured that could be right.
    NoKey,
    /// The body is not said to be JSON. A form of a stranger's page could send what it likes, but not that.
    ContentType,
}

impl Refusal {
    fn response(self) -> Response {
        const KEY_WANTED: [(header::HeaderName, &str); 1] = [(header::WWW_AUTHENTICATE, "apikey")];
        match self {
            Self::Stranger => (
                StatusCode::FORBIDDEN,
                "asked by a page of another site, or under a name that is not in admin.hosts\n",
            )
                .into_response(),
            Self::Key => (
                StatusCode::UNAUTHORIZED,
                KEY_WANTED,
                "X-API-Key must be admin.key or one of admin.keys, or where there is none a key of the server API that opens everything\n",
            )
                .into_response(),
            Self::Expired => (
                StatusCode::UNAUTHORIZED,
                KEY_WANTED,
                "this key has expired: ask for a new one\n",
            )
                .into_response(),
            Self::NoKey => (
                StatusCode::UNAUTHORIZED,
                KEY_WANTED,
                "no key is configured: set admin.key or http_api.key\n",
            )
                .into_response(),
            Self::ContentType => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "Content-Type must be application/json\n",
            )
                .into_response(),
        }
    }
}

fn verdict<B>(
    config: &Config,
    door: Door,
    now_unix_s: u64,
    request: &axum::http::Request<B>,
) -> Result<(), Refusal> {
    let path = request.uri().path();
    // No browser speaks over a unix socket, and its mode says who may connect.
    if path == "/health" || door == Door::Unix {
        return Ok(());
    }
    let header = |name: header::HeaderName| match request.headers().get(name) {
        None => Ok(None),
        Some(value) => value.to_str().map(Some).map_err(|_| Refusal::Stranger),
    };
    let authority = request.uri().authority().map(|name| name.as_str());
    let host = header(header::HOST)?;
    let is_allowed = config.allows_host(host)
        && config.allows_host(authority)
        && is_same_site(
            host,
            header(header::ORIGIN)?,
            header(header::HeaderName::from_static("sec-fetch-site"))?,
        );
    if !is_allowed {
        return Err(Refusal::Stranger);
    }
    // Whatever else there is, or will be, needs a key.
    if matches!(path, "/ready" | "/metrics" | OPENAPI_PATH) {
        return Ok(());
    }
    if !config.has_admin_key() {
        return Err(Refusal::NoKey);
    }
    let given = given_key(request.headers()).unwrap_or_default();
    match config.judge_admin_key(given, now_unix_s) {
        KeyVerdict::Unnamed | KeyVerdict::Named(_) => {}
        KeyVerdict::Expired => return Err(Refusal::Expired),
        KeyVerdict::Unknown => return Err(Refusal::Key),
    }
    let kind = header(header::CONTENT_TYPE)?.unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if request.method() == Method::POST && !kind.eq_ignore_ascii_case(JSON) {
        return Err(Refusal::ContentType);
    }
    Ok(())
}

/// `X-API-Key: KEY`, or `Authorization: apikey KEY`.
fn given_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get("X-API-Key") {
        return Some(key.as_bytes());
    }
    let given = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = given.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("apikey")
        .then(|| key.trim().as_bytes())
}

/// Listens on the admin address, which was bound before any shard started, so that a taken port is told at once.
///
/// # Errors
/// What `listen` says.
pub fn listen(bound: &Bound) -> io::Result<Listening> {
    bound.listen().map_err(io::Error::other)?;
    let socket = bound.socket(0)?;
    Ok(match bound.address() {
        ListenAddr::Tcp(_) => Listening::Tcp(socket.into()),
        ListenAddr::Unix(_) => Listening::Unix(socket.into()),
    })
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

fn shown(page: ControlPage) -> Response {
    let ControlPage {
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
        "breaker": report.breaker,
        "warnings": status.warnings,
        "bytes": status.bytes,
        "entries": status.entries,
    })
}

/// Questions about queue groups, dead letters and replays: bulk reading does not go through a shard.
async fn ask_log(
    State(admin): State<Admin>,
    PathOf(method): PathOf<String>,
    data: Bytes,
) -> Response {
    admin.ask_log("", &method, data).await
}

/// The same about what a tenant has.
async fn ask_log_of(
    State(admin): State<Admin>,
    PathOf((tenant, method)): PathOf<(String, String)>,
    data: Bytes,
) -> Response {
    let config = Arc::clone(&admin.config.borrow());
    let tenant = match config.tenants.get(TenantId::new(&tenant)) {
        Some(tenant) => tenant.id.as_str(),
        None if tenant == crate::model::tenant::DEFAULT => "",
        None => return StatusCode::NOT_FOUND.into_response(),
    };
    admin.ask_log(tenant, &method, data).await
}

impl Admin {
    async fn ask_log(&self, tenant: &str, method: &str, data: Bytes) -> Response {
        let Some(asked) = LogMethod::of_api(method).filter(|method| method.is_for_admin()) else {
            return StatusCode::NOT_FOUND.into_response();
        };
        let Some(log) = &self.log else {
            return no_log();
        };
        let (answer, answered) = oneshot::channel();
        let question = LogQuestion {
            method: asked,
            tenant: tenant.into(),
            data,
            answer,
        };
        if log.questions.send(question).await.is_err() {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        }
        let Ok(result) = answered.await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        answer_of_log(result)
    }
}

/// Nothing here is durable.
fn no_log() -> Response {
    let error = serde_json::json!({ "error": { "code": 108, "message": "not available" } });
    json(StatusCode::OK, &error)
}

fn answer_of_log(result: Result<Bytes, LogError>) -> Response {
    let mut out = Vec::new();
    let answer = result.map(ApiAnswer::Log).map_err(ApiError::Log);
    encode_answer(&mut out, &answer, ApiForm::Single);
    ([(header::CONTENT_TYPE, JSON)], out).into_response()
}

fn hook_details(reports: &[hooks::Report]) -> serde_json::Value {
    let of = |report: &hooks::Report| {
        let details = serde_json::json!({
            "breaker": report.breaker,
            "in_flight": report.in_flight,
            "waiting": report.waiting,
        });
        let name = match report.tenant.is_empty() {
            true => report.name.clone(),
            false => format!("{}/{}", report.tenant, report.name),
        };
        (name, details)
    };
    // There may be thousands of tenants: of theirs those are told that fail.
    let is_told = |report: &&hooks::Report| report.tenant.is_empty() || report.breaker != "closed";
    serde_json::Value::Object(reports.iter().filter(is_told).map(of).collect())
}

impl Admin {
    /// A page for whoever may see it.
    pub(super) async fn page(&self, kind: PageKind) -> ControlPage {
        match kind {
            PageKind::Ready => self.ready_page().await,
            PageKind::Metrics => self.metrics_page().await.unwrap_or(ControlPage {
                status: 503,
                content_type: TEXT,
                body: Bytes::from_static(b"the counters are not to be had\n"),
            }),
        }
    }

    async fn ready_page(&self) -> ControlPage {
        let Readiness {
            phase,
            shards,
            shards_ready,
            reactor,
            filling,
            warnings,
            reload,
        } = self.readiness.borrow().clone();
        let filling: Vec<&str> = TableKind::ALL
            .into_iter()
            .filter(|&table| filling[table as usize] != 0)
            .map(TableKind::name)
            .collect();
        let ready = phase == Phase::Serving;
        let body = serde_json::json!({
            "ready": ready,
            "phase": phase.as_str(),
            "pid": std::process::id(),
            "draining": phase == Phase::Draining,
            "shards": shards,
            "shards_ready": shards_ready,
            "reactor": reactor,
            "filling": filling,
            "warnings": warnings,
            "reload_refused": reload.refused.is_some(),
            // A backend that fails is told and does not make this process unready: what needs no hook is served.
            "hooks": hook_details(&self.reports().await),
            "durable": self.log.as_ref().map(|log| log_details(&log.report.borrow())),
        });
        ControlPage {
            status: if ready { 200 } else { 503 },
            content_type: JSON,
            body: body.to_string().into(),
        }
    }

    /// `None` when nobody can say.
    async fn metrics_page(&self) -> Option<ControlPage> {
        let shards = self.observe().await?;
        let reports = self.reports().await;
        let Readiness {
            phase,
            reactor,
            reload,
            ..
        } = self.readiness.borrow().clone();
        let config = Arc::clone(&self.config.borrow());
        let text = prometheus::render(&Snapshot {
            tenants: &config.channels.tenants,
            shards: &shards,
            reactor,
            ready: phase == Phase::Serving,
            draining: phase == Phase::Draining,
            process: Process::read(),
            reload: &reload,
            hooks: &reports,
            durable: self.log.as_ref().map(|log| log.report.borrow().clone()),
        });
        Some(ControlPage {
            status: 200,
            content_type: prometheus::CONTENT_TYPE,
            body: text.into(),
        })
    }

    /// The counters of all shards; `None` when too many ask.
    pub(super) async fn observe(&self) -> Option<Observation> {
        let (question, answer) = oneshot::channel();
        self.questions.try_send(question).ok()?;
        answer.await.ok()
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream as Client};
    use std::time::Duration;
    use tokio::task::spawn_blocking;

    use crate::config::{Secret, Source};

    const KEY: &str = "the-key";

    struct Served {
        address: SocketAddr,
        readiness: watch::Sender<Readiness>,
        closing: watch::Sender<bool>,
    }

    async fn served() -> Served {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let readiness = watch::Sender::new(Readiness {
            phase: Phase::Starting,
            shards: 1,
            shards_ready: 0,
            reactor: "portable",
            filling: [0; TableKind::ALL.len()],
            warnings: Vec::new(),
            reload: Reload::default(),
        });
        let (questions_in, mut questions) = mpsc::channel::<Question>(4);
        let (hooks_in, _) = mpsc::channel(1);
        let mut config = Config::built_in();
        config.admin.key = Secret(KEY.to_owned());
        config.admin.hosts = vec!["probe.internal".to_owned()];
        let (_, config) = watch::channel(Arc::new(config));
        let admin = Admin {
            config,
            readiness: readiness.subscribe(),
            questions: questions_in,
            hooks: hooks_in,
            drains: mpsc::channel(1).0,
            log: None,
            tenants: TenantsLine {
                tenancy: watch::channel(super::super::tenants::Tenancy::default()).1,
                changes: None,
            },
        };
        let (closing_in, closing) = watch::channel(false);
        tokio::spawn(serve(Listening::Tcp(listener), admin, closing));
        tokio::spawn(async move {
            while let Some(question) = questions.recv().await {
                drop(question.send(vec![None]));
            }
        });
        Served {
            address,
            readiness,
            closing: closing_in,
        }
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

    #[tokio::test]
    async fn a_listener_that_closes_ends_idle_connections_and_takes_nobody_any_more() {
        let served = served().await;
        let address = served.address;
        let idle = spawn_blocking(move || {
            let mut idle = client(address);
            write!(idle, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
            let mut head = [0; 12];
            idle.read_exact(&mut head).expect("an answer");
            assert_eq!(&head, b"HTTP/1.1 200");
            idle
        });
        let mut idle = idle.await.expect("asked");
        served.closing.send_replace(true);
        let rest = spawn_blocking(move || idle.read_to_end(&mut Vec::new()));
        rest.await.expect("read").expect("its end");
        let refused = spawn_blocking(move || Client::connect(address).is_err());
        assert!(refused.await.expect("tried"));
    }

    async fn ask(address: SocketAddr, path: &'static str) -> String {
        let exchange = move || {
            let mut client = client(address);
            write!(
                client,
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
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

    fn asked(path: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut config = Config::built_in();
        config.admin.key = Secret(KEY.to_owned());
        config.http_api.key = Secret("another".to_owned());
        config.admin.hosts = vec!["probe.internal".to_owned()];
        let is_question = path.starts_with("/api/") && path != OPENAPI_PATH;
        let mut request = axum::http::Request::builder()
            .method(if is_question { "POST" } else { "GET" })
            .uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        verdict(&config, Door::Tcp, 0, &request.body(()).expect("a request"))
    }

    #[test]
    fn a_page_of_a_stranger_is_refused_whatever_it_asks_and_knows() {
        let paths = [
            "/ready",
            "/metrics",
            OPENAPI_PATH,
            "/api/queue/delete",
            "/api/replay",
        ];
        for path in paths {
            for strange in [
                ("Host", "rebind.evil"),
                ("Host", "127.0.0.1.evil:8001"),
                ("Origin", "http://evil"),
                ("Origin", "null"),
                ("Origin", "http://127.0.0.1:8000"),
                ("Sec-Fetch-Site", "cross-site"),
                ("Sec-Fetch-Site", "same-site"),
            ] {
                let mut headers = vec![
                    ("X-API-Key", KEY),
                    ("Content-Type", "application/json"),
                    strange,
                ];
                if strange.0 != "Host" {
                    headers.push(("Host", "127.0.0.1:8001"));
                }
                assert_eq!(
                    asked(path, &headers),
                    Err(Refusal::Stranger),
                    "{path} {strange:?}"
                );
            }
        }
        assert_eq!(asked("/health", &[("Host", "anything")]), Ok(()));
    }

    #[test]
    fn what_changes_or_shows_payloads_needs_the_key_and_json() {
        const JSON_BODY: (&str, &str) = ("Content-Type", "application/json; charset=utf-8");
        const HOST: (&str, &str) = ("Host", "probe.internal:8001");
        for path in [
            "/api/queue/groups",
            "/api/dlq/drop",
            "/api/replay",
            "/api/never",
        ] {
            let ask = |headers: &[(&str, &str)]| asked(path, &[&[HOST], headers].concat());
            assert_eq!(ask(&[JSON_BODY]), Err(Refusal::Key), "{path}");
            for wrong in ["", "the-kez", "the-key2", "another"] {
                assert_eq!(ask(&[JSON_BODY, ("X-API-Key", wrong)]), Err(Refusal::Key));
            }
            assert_eq!(ask(&[("X-API-Key", KEY)]), Err(Refusal::ContentType));
            let form = ("Content-Type", "text/plain");
            assert_eq!(ask(&[("X-API-Key", KEY), form]), Err(Refusal::ContentType));
            assert_eq!(ask(&[("X-API-Key", KEY), JSON_BODY]), Ok(()));
            let bearer = ("Authorization", "ApiKey the-key");
            assert_eq!(ask(&[bearer, JSON_BODY]), Ok(()));
            let own_page = ("Origin", "http://probe.internal:8001");
            assert_eq!(ask(&[bearer, JSON_BODY, own_page]), Ok(()));
        }
    }

    #[test]
    fn without_a_key_of_its_own_the_key_of_the_server_api_counts() {
        let mut config = Config::built_in();
        let request = |key: &str| {
            axum::http::Request::post("/api/queue/groups")
                .header("Host", "localhost")
                .header("Content-Type", JSON)
                .header("X-API-Key", key)
                .body(())
                .expect("a request")
        };
        let ask = |config: &Config, key| verdict(config, Door::Tcp, 100, &request(key));
        assert_eq!(ask(&config, ""), Err(Refusal::NoKey));
        config.http_api.key = Secret("k".to_owned());
        assert_eq!(ask(&config, "k"), Ok(()));
        config.admin.key = Secret("own".to_owned());
        assert_eq!(ask(&config, "k"), Err(Refusal::Key));
        assert_eq!(verdict(&config, Door::Unix, 100, &request("")), Ok(()));
        let load = |text: &str| {
            let name = "ringmain.toml";
            Config::load(&[Source { name, text }], &[]).expect("a configuration")
        };
        let of_api = r#"
            [[http_api.keys]]
            name = "part"
            key = "part"
            methods = ["queue/*"]
            [[http_api.keys]]
            name = "whole"
            key = "whole"
        "#;
        let config = load(of_api);
        assert_eq!(ask(&config, "part"), Err(Refusal::Key), "not a part of it");
        assert_eq!(ask(&config, "whole"), Ok(()));
        let of_admin = r#"
            [[admin.keys]]
            name = "now"
            key = "now"
            [[admin.keys]]
            name = "then"
            key = "then"
            expires = "1970-01-01T00:01:40Z"
        "#;
        let config = load(&format!("{of_api}{of_admin}"));
        assert_eq!(ask(&config, "now"), Ok(()));
        assert_eq!(ask(&config, "then"), Err(Refusal::Expired));
        assert_eq!(ask(&config, "whole"), Err(Refusal::Key));
    }

    #[tokio::test]
    async fn a_thousand_idle_connections_delay_no_probe() {
        let served = served().await;
        let address = served.address;
        let probes = move || {
            let mut idle: Vec<Client> = (0..500).map(|_| client(address)).collect();
            idle.extend((0..500).map(|_| {
                let mut slow = client(address);
                slow.write_all(
                    b"POST /api/replay HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n",
                )
                .expect("a start");
                slow
            }));
            let start = tokio::time::Instant::now();
            let mut probe = client(address);
            probe
                .write_all(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .expect("a request");
            let mut answer = String::new();
            probe.read_to_string(&mut answer).expect("an answer");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            drop(idle);
            start.elapsed()
        };
        let took = spawn_blocking(probes).await.expect("the probe ends");
        assert!(took < Duration::from_secs(2), "{took:?}");
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
