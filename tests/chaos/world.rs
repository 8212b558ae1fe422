//! A proxy with its log, the clients around it, and the books: what every fault happens to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::actors::{self, Orders, Publisher, ask};
use super::joins::{self, Found};
use super::ledger::{Fact, Ledger, Letters, Sought};
use super::link::{Link, http};
use super::names::{CHANNELS, NATURE, Random};
use super::operator::{operator, seek};
use super::workers::{self, GROUPS, PUSHED, Way};
use crate::support::backend::Backend;
use crate::support::process::{Server, Start, config};
use crate::support::wait::now;

/// Publishers with a connection; one more publishes over the server API.
const PUBLISHERS: u32 = 3;
/// Number of the publisher over the server API.
const SERVICE: u32 = PUBLISHERS;
/// Number of the publisher that a fault is itself.
pub(crate) const OWN: u32 = PUBLISHERS + 1;
/// Shards of a proxy, unless a fault says others.
const SHARDS: u32 = 2;
/// Subscribers.
const SUBSCRIBERS: u32 = 2;
/// Who is idle when nothing is published: publishers, the service, the publisher of runs, the operator.
const IDLE: u32 = PUBLISHERS + 3;
/// Workers with a connection, and how they get their deliveries.
const WORKERS: [(&str, Way); 8] = [
    ("free", Way::Consume),
    ("free", Way::Consume),
    ("ordered", Way::Consume),
    ("ordered", Way::Fetch),
    ("keyed", Way::Consume),
    ("keyed", Way::Consume),
    ("lanes", Way::Fetch),
    ("sought", Way::Consume),
];
/// Readers that go away when they are told so.
const READERS: u32 = SUBSCRIBERS + WORKERS.len() as u32 + 1;
/// Least attempts of any options before a publication may be dead.
const ATTEMPTS_MIN: u32 = 2;
/// Facts that wait for the books: clients wait when they are full.
const FACTS_MAX: usize = 65_536;
/// Longest time without any progress.
const STALL: Duration = Duration::from_secs(90);
/// Letters asked for at a time.
const LETTERS: u64 = 500;

/// See the module.
pub(crate) struct World {
    /// Holds the log; removed with the world.
    _directory: TempDir,
    /// Where the embedded log is.
    pub(crate) log: PathBuf,
    engine: Engine,
    text: String,
    /// Of the proxy that is started next.
    pub(crate) shards: u32,
    environment: Vec<(String, String)>,
    server: Option<Server>,
    pub(crate) backends: Backends,
    pub(crate) orders: Orders,
    facts: Receiver<Fact>,
    pub(crate) ledger: Ledger,
    clients: Vec<JoinHandle<()>>,
    pub(crate) random: Random,
}

/// Whom the proxy calls.
pub(crate) struct Backends {
    target: Backend,
    hook: Backend,
    /// Of the hook for dead letters: see `workers::obituaries`.
    pub(crate) mood: Arc<AtomicU8>,
}

impl Backends {
    fn start(orders: &Orders) -> Self {
        let mood = Arc::new(AtomicU8::new(0));
        let (of_target, of_hook, current) = (orders.clone(), orders.clone(), Arc::clone(&mood));
        Self {
            target: Backend::start(move |asked| workers::target(&of_target, asked)),
            hook: Backend::start(move |asked| {
                workers::obituaries(&of_hook, current.load(Ordering::SeqCst), asked)
            }),
            mood,
        }
    }
}

/// What a configuration says that changes between restarts.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) push_batch: u32,
    pub(crate) push_concurrency: u32,
    pub(crate) push_attempts: u32,
    pub(crate) history_size: u32,
    pub(crate) idempotency_hours: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            push_batch: 8,
            push_concurrency: 4,
            push_attempts: 3,
            history_size: 256,
            idempotency_hours: 24,
        }
    }
}

/// How the log of a world is configured.
#[derive(Clone, Debug)]
pub(crate) enum Engine {
    /// In the world's directory.
    Embedded,
    /// There.
    EmbeddedAt(PathBuf),
    /// In these servers, with so many replicas.
    Nats(Vec<String>, u32),
}

impl World {
    /// A proxy that is ready, with its clients around it.
    pub(crate) fn start(engine: &Engine, environment: &[(String, String)], seed: u64) -> Self {
        let directory = TempDir::new().expect("a directory");
        let log = match engine {
            Engine::EmbeddedAt(path) => path.clone(),
            Engine::Embedded | Engine::Nats(..) => directory.path().join("log"),
        };
        let (sender, facts) = sync_channel(FACTS_MAX);
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut orders = Orders::new(nowhere, sender);
        let backends = Backends::start(&orders);
        let text = configuration(engine, &log, &backends, &Settings::default());
        let server = proxy(&text, "127.0.0.1:0", SHARDS, environment);
        orders.address = server.listen;
        let mut world = Self {
            _directory: directory,
            log,
            engine: engine.clone(),
            text,
            shards: SHARDS,
            environment: environment.to_vec(),
            server: Some(server),
            backends,
            orders,
            facts,
            ledger: Ledger::new(&GROUPS, NATURE, ATTEMPTS_MIN),
            clients: Vec::new(),
            random: Random(seed),
        };
        world.invite();
        world
    }

    /// Subscribers come first, so that they see every channel from its beginning.
    fn invite(&mut self) {
        for number in 0..SUBSCRIBERS {
            self.client(move |orders| actors::subscriber(&orders, number));
        }
        let mut link = Link::to(self.orders.address, "first");
        let end = now() + STALL;
        for channel in 0..CHANNELS {
            // A subscription is counted by the owner of its channel.
            let request = json!({ "channel": format!("orders:{channel}") });
            loop {
                let id = link.send("presence_stats", &request).expect("a connection");
                let reply = reply_to(&mut link, id, end);
                if reply["presence_stats"]["num_clients"] == SUBSCRIBERS {
                    break;
                }
                assert!(now() < end, "subscribers do not come: {reply}");
            }
        }
        for number in 0..PUBLISHERS {
            self.client(move |orders| Publisher::new(orders, number).run());
        }
        self.client(|orders| actors::service(&orders, SERVICE));
        self.client(|orders| joins::publisher(&orders));
        for (group, way) in WORKERS {
            self.client(move |orders| workers::worker(&orders, group, way));
        }
        self.client(|orders| workers::fetcher(&orders, "fetched"));
        let seed = self.random.0;
        self.client(move |orders| operator(&orders, seed));
    }

    fn client(&mut self, run: impl FnOnce(Orders) + Send + 'static) {
        let orders = self.orders.clone();
        self.clients.push(std::thread::spawn(move || run(orders)));
    }

    /// The proxy that runs.
    pub(crate) fn server(&self) -> &Server {
        self.server.as_ref().expect("a proxy runs")
    }

    /// `kill -9` of the proxy.
    pub(crate) fn kill(&mut self) {
        self.server = None;
    }

    /// The proxy is asked to end, and does.
    pub(crate) fn end(&mut self) {
        let mut server = self.server.take().expect("a proxy runs");
        server.signal("TERM");
        let end = now() + STALL;
        while server.is_running() {
            self.book(Duration::from_millis(10));
            assert!(now() < end, "the proxy does not end:\n{}", server.log());
        }
        // Whoever publishes without a pause is cut when the grace is over, which is status 1.
        let status = server.exit_status();
        let code = status.code();
        assert!(matches!(code, Some(0 | 1)), "{status}:\n{}", server.log());
    }

    /// Another proxy at the same address, with the same log.
    pub(crate) fn start_again(&mut self) {
        let address = self.orders.address.to_string();
        let proxy = proxy(&self.text, &address, self.shards, &self.environment);
        self.server = Some(proxy);
    }

    /// The proxy that is started next is configured so.
    pub(crate) fn configure(&mut self, settings: &Settings) {
        self.text = configuration(&self.engine, &self.log, &self.backends, settings);
    }

    /// Books facts until the books say so; fails when nothing goes on any more.
    pub(crate) fn until(&mut self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let mut last = (self.progress(), now());
        while !reached(self) {
            self.book(Duration::from_millis(10));
            if self.progress() != last.0 {
                last = (self.progress(), now());
            }
            assert!(
                last.1.elapsed() < STALL,
                "waited for {what}: nothing goes on; {:?}; {}; broken: {:?}",
                self.ledger.missing(SUBSCRIBERS),
                self.ledger,
                self.ledger.broken()
            );
        }
    }

    fn progress(&self) -> (usize, u64) {
        let published = self.ledger.acknowledged() + self.ledger.joins.parts();
        (published, self.ledger.deliveries())
    }

    /// Books what has come, and waits so long for the first.
    pub(crate) fn book(&mut self, wait: Duration) {
        // What was asked is booked by whoever has answered.
        drop((self.backends.target.unread(), self.backends.hook.unread()));
        match self.facts.recv_timeout(wait) {
            Ok(fact) => self.ledger.book(fact),
            Err(RecvTimeoutError::Timeout) => return,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the orders hold a sender"),
        }
        while let Ok(fact) = self.facts.try_recv() {
            self.ledger.book(fact);
        }
    }

    /// Lets publishers get so many more acknowledgements: a moment that depends on nothing but the load.
    pub(crate) fn go_on(&mut self, acknowledgements: u64) {
        let goal = self.ledger.acknowledged() + acknowledgements as usize;
        self.until("acknowledgements", |world| {
            world.ledger.acknowledged() >= goal
        });
    }

    /// From now on nothing that is published may be acknowledged.
    pub(crate) fn close_books(&mut self) {
        self.ledger.closed = Some(self.orders.next_moment());
    }

    /// It may again.
    pub(crate) fn open_books(&mut self) {
        self.book(Duration::ZERO);
        self.ledger.closed = None;
    }

    /// Publishers have nothing under way, readers have everything; then readers go away, too.
    pub(crate) fn come_to_rest(&mut self) {
        self.orders.pause();
        self.until("publishers to pause", |world| world.orders.idle() == IDLE);
        self.until_worked_off();
        self.orders.set_away(true);
        let end = now() + STALL;
        while self.orders.gone() < READERS {
            self.book(Duration::from_millis(10));
            assert!(now() < end, "readers do not go away");
        }
    }

    fn until_worked_off(&mut self) {
        let mut looked = (0, None::<Instant>);
        self.until("readers", |world| {
            // The whole books are compared now and then only.
            if looked
                .1
                .is_some_and(|at| at.elapsed() < Duration::from_millis(100))
            {
                return false;
            }
            looked = (looked.0 + 1, Some(now()));
            world.ledger.missing(SUBSCRIBERS).is_none()
        });
    }

    /// Everybody goes on.
    pub(crate) fn resume(&self) {
        self.orders.set_away(false);
        self.orders.publish();
    }

    /// What `/ready` says.
    pub(crate) fn ready(&self) -> Value {
        http(self.server().admin, "GET", "/ready", "", "").unwrap_or_default()
    }

    /// A publication of an ephemeral channel reaches its subscriber.
    pub(crate) fn fast_path_works(&self) -> Result<(), String> {
        let mut link = Link::to(self.orders.address, "fast");
        let end = now() + Duration::from_secs(10);
        let id = link
            .send("subscribe", &json!({ "channel": "fast:1" }))
            .map_err(|_| "the connection broke")?;
        reply_to(&mut link, id, end);
        let data = json!({ "n": self.ledger.acknowledged() });
        let answer = ask(
            self.orders.address,
            "publish",
            &json!({ "channel": "fast:1", "data": data }),
        );
        if answer
            .as_ref()
            .is_none_or(|answer| answer.get("error").is_some())
        {
            return Err(format!(
                "an ephemeral publication was answered by {answer:?}"
            ));
        }
        while now() < end {
            for object in link.receive().map_err(|_| "the connection broke")? {
                if object["push"]["pub"]["data"] == data {
                    return Ok(());
                }
            }
        }
        Err("an ephemeral publication did not arrive".to_owned())
    }

    /// Everybody finishes, dead letters are counted, the books are closed.
    pub(crate) fn finish(mut self) -> Ledger {
        self.resume();
        self.orders.finish();
        self.until("publishers to finish", |world| world.orders.idle() == IDLE);
        self.until("runs to be over", |world| world.ledger.joins.is_over());
        seek(&self.orders, &json!("beginning"), Sought::All);
        self.until_worked_off();
        self.until_nothing_is_left();
        self.until_nothing_waits();
        let mut letters = self.letters();
        let end = now() + STALL;
        // The last attempts of poisoned publications are behind everything else, and the hook is behind them.
        let wanted = self.ledger.poisoned();
        let is_there = |ledger: &Ledger, letters: &Letters| {
            letters.kept.values().all(|kept| kept.len() >= wanted)
                && letters.announced.values().all(|all| all.len() >= wanted)
                && ledger.told() >= wanted * GROUPS.len()
                && ledger.joins.are_settled(&letters.joins)
                && ledger.joins.are_told(&letters.joins)
        };
        while !is_there(&self.ledger, &letters) && now() < end {
            self.book(Duration::from_millis(100));
            letters = self.letters();
        }
        self.dismiss();
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.close(SUBSCRIBERS, &letters);
        ledger
    }

    /// The end of a world whose log is lost: nobody is owed anything any more.
    pub(crate) fn abandon(mut self) -> Ledger {
        self.dismiss();
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.void();
        ledger
    }

    fn dismiss(&mut self) {
        self.orders.stop();
        for client in std::mem::take(&mut self.clients) {
            while !client.is_finished() {
                self.book(Duration::from_millis(10));
            }
            client.join().expect("clients do not panic");
        }
        self.book(Duration::ZERO);
    }

    /// No group has anything that is not done, dead or alive.
    fn until_nothing_is_left(&mut self) {
        let end = now() + STALL;
        loop {
            let answer = ask(self.orders.address, "queue/groups", &json!({})).unwrap_or_default();
            let groups = answer["result"]["groups"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            let is_done = |group: &Value| ["lag", "held"].iter().all(|key| group[*key] == 0);
            let own = groups
                .iter()
                .filter(|group| group["group"].as_str().and_then(workers::named).is_some());
            if own.clone().count() == GROUPS.len() && own.clone().all(is_done) {
                return;
            }
            if now() > end {
                let text = format!("work is left when everything is done: {answer}");
                self.ledger.book(Fact::Broken(text));
                return;
            }
            self.book(Duration::from_millis(50));
        }
    }

    /// Every run is joined or given up.
    fn until_nothing_waits(&mut self) {
        let end = now() + joins::WITHIN + STALL;
        loop {
            let answer = ask(self.orders.address, "queue/groups", &json!({})).unwrap_or_default();
            let mut groups = answer["result"]["groups"].as_array().into_iter().flatten();
            let group = groups.find(|group| group["group"] == joins::GROUP);
            let is_done = |group: &Value| {
                let waits = [&group["joins"]["open"], &group["joins"]["parts"]];
                waits.iter().all(|waits| **waits == 0) && group["lag"] == 0 && group["held"] == 0
            };
            if group.is_some_and(is_done) {
                return;
            }
            if now() > end {
                let text = format!("parts wait when everything is done: {group:?}");
                self.ledger.book(Fact::Broken(text));
                return;
            }
            self.book(Duration::from_millis(50));
        }
    }

    fn letters(&self) -> Letters {
        let names = || GROUPS.iter().map(|rules| rules.name);
        let event = |letter: &Value| letter["event_id"].as_str().map(str::to_owned);
        let kept = |name| self.letters_of(name).iter().filter_map(event).collect();
        Letters {
            kept: names().map(|name| (name, kept(name))).collect(),
            announced: names()
                .map(|name| (name, self.announcements_of(name)))
                .collect(),
            joins: Found {
                joined: self.publications_of(joins::JOINED),
                letters: self.letters_of(joins::GROUP),
                announced: self.announcements_of(joins::GROUP),
            },
        }
    }

    /// What stands on the group's channel of dead letters, in order.
    fn announcements_of(&self, group: &str) -> Vec<String> {
        let all = self.publications_of(&format!("$dead:{group}"));
        let event = |one: &Value| one["data"]["event_id"].as_str().map(str::to_owned);
        all.iter().filter_map(event).collect()
    }

    /// What stands on a channel, in order.
    fn publications_of(&self, channel: &str) -> Vec<Value> {
        let (mut found, mut since) = (Vec::new(), Value::Null);
        loop {
            let request = json!({ "channel": channel, "limit": LETTERS, "since": since });
            let mut answer = ask(self.orders.address, "history", &request).unwrap_or_default();
            let result = answer["result"].take();
            let Some(last) = result["publications"].as_array().and_then(|all| all.last()) else {
                return found;
            };
            since = json!({ "offset": last["offset"], "epoch": result["epoch"] });
            let publications = result["publications"].as_array().into_iter().flatten();
            found.extend(publications.cloned());
        }
    }

    fn letters_of(&self, group: &str) -> Vec<Value> {
        let (mut found, mut after) = (Vec::new(), None::<Value>);
        loop {
            let mut request = json!({ "group": group, "limit": LETTERS });
            if let Some(after) = &after {
                request["after"] = after.clone();
            }
            let answer = ask(self.orders.address, "dlq/list", &request).unwrap_or_default();
            let Some(letters) = answer["result"]["letters"].as_array() else {
                return found;
            };
            found.extend(letters.iter().cloned());
            match &answer["result"]["next"] {
                Value::String(next) if !next.is_empty() && !letters.is_empty() => {
                    after = Some(json!(next))
                }
                _ => return found,
            }
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.orders.stop();
        if std::thread::panicking()
            && let Some(server) = &self.server
        {
            let log = server.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!(
                "--- end of the proxy's log ---\n{}",
                lines[lines.len().saturating_sub(20)..].join("\n")
            );
        }
    }
}

fn proxy(text: &str, listen: &str, shards: u32, environment: &[(String, String)]) -> Server {
    let start = Start::with_config(text).listen(listen).shards(shards);
    environment
        .iter()
        .fold(start, |start, (name, value)| start.env(name, value))
        .run()
}

fn reply_to(link: &mut Link, id: u64, end: Instant) -> Value {
    loop {
        let objects = link.receive().expect("a connection");
        if let Some(reply) = objects.into_iter().find(|object| object["id"] == id) {
            return reply;
        }
        assert!(now() < end, "no reply");
    }
}

fn configuration(engine: &Engine, log: &Path, backends: &Backends, settings: &Settings) -> String {
    let durable = match engine {
        Engine::Embedded | Engine::EmbeddedAt(_) => format!(
            "[durable]\nengine = \"embedded\"\n[durable.embedded]\ndirectory = \"{}\"\n",
            log.display()
        ),
        Engine::Nats(servers, replicas) => {
            format!(
                "[durable]\nengine = \"nats\"\nappend_timeout = \"2s\"\n[durable.nats]\nservers = {servers:?}\nreplicas = {replicas}\n"
            )
        }
    };
    let (target, hook) = (backends.target.url("/work"), backends.hook.url("/dead"));
    let runs = joins::configuration(settings.idempotency_hours);
    let Settings {
        push_batch,
        push_concurrency,
        push_attempts,
        history_size,
        idempotency_hours,
    } = settings;
    config(&format!(
        r#"{durable}
[drain]
window = "300ms"
grace = "1s"

[[proxies]]
name = "work"
endpoint = "{target}"
timeout = "10s"
breaker.open_for = "300ms"

[[proxies]]
name = "dead"
endpoint = "{hook}"
timeout = "2s"
breaker.open_for = "300ms"

[queue]
dead_letter_hook = "dead"

[[queue.push]]
group = "{PUSHED}"
channels = ["orders:*"]
target = "work"
batch = {push_batch}
concurrency = {push_concurrency}
max_attempts = {push_attempts}
backoff.base = "5ms"
backoff.cap = "20ms"

[[channel.namespaces]]
name = "orders"
delivery = "durable"
history_size = {history_size}
idempotency_ttl = "{idempotency_hours}h"
presence = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true

[[channel.namespaces]]
name = "fast"
allow_subscribe_for_client = true
{runs}"#
    ))
}
