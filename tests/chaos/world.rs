//! A proxy with its log, the clients around it, and the books: what every fault happens to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::actors::{self, CHANNELS, Orders, Publisher, ask, is_poisoned};
use super::ledger::{Fact, Ledger};
use super::link::{Link, http};
use crate::support::process::{Server, Start, config};
use crate::support::wait::now;

/// Publishers with a connection; one more publishes over the server API.
const PUBLISHERS: u32 = 3;
/// Number of the publisher over the server API.
const SERVICE: u32 = PUBLISHERS;
/// Number of the publisher that a fault is itself.
pub(crate) const OWN: u32 = PUBLISHERS + 1;
/// Subscribers.
const SUBSCRIBERS: u32 = 2;
/// Groups, and whether they are ordered.
const GROUPS: [(&str, bool); 3] = [("free", false), ("ordered", true), ("fetched", false)];
/// Facts that wait for the books: clients wait when they are full.
const FACTS_MAX: usize = 65_536;
/// Longest time without any progress.
const STALL: Duration = Duration::from_secs(60);
/// Letters asked for at a time.
const LETTERS: u64 = 500;

/// See the module.
pub(crate) struct World {
    /// Holds the log; removed with the world.
    _directory: TempDir,
    /// Where the embedded log is.
    pub(crate) log: PathBuf,
    text: String,
    environment: Vec<(String, String)>,
    server: Option<Server>,
    pub(crate) orders: Orders,
    facts: Receiver<Fact>,
    pub(crate) ledger: Ledger,
    clients: Vec<JoinHandle<()>>,
    pub(crate) random: Random,
}

/// Numbers that follow from a seed.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end.max(1)
    }

    pub(crate) fn between(&mut self, first: u64, end: u64) -> u64 {
        first + self.below(end - first)
    }
}

/// How the log of a world is configured.
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
        let text = config(&configuration(engine, &log));
        let server = proxy(&text, "127.0.0.1:0", environment);
        let (sender, facts) = sync_channel(FACTS_MAX);
        let orders = Orders::new(server.listen, sender);
        let mut world = Self {
            _directory: directory,
            log,
            text,
            environment: environment.to_vec(),
            server: Some(server),
            orders,
            facts,
            ledger: Ledger::new(&GROUPS),
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
        for (group, is_ordered) in [GROUPS[0], GROUPS[0], GROUPS[1], GROUPS[1]] {
            self.client(move |orders| actors::worker(&orders, group, is_ordered));
        }
        self.client(|orders| actors::fetcher(&orders, GROUPS[2].0));
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

    /// Another proxy at the same address, with the same log.
    pub(crate) fn start_again(&mut self) {
        let address = self.orders.address.to_string();
        self.server = Some(proxy(&self.text, &address, &self.environment));
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
        (self.ledger.acknowledged(), self.ledger.deliveries())
    }

    /// Books what has come, and waits so long for the first.
    pub(crate) fn book(&mut self, wait: Duration) {
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

    /// Publishers have nothing under way, readers have everything; then readers go away, too.
    pub(crate) fn come_to_rest(&mut self) {
        self.orders.pause();
        self.until("publishers to pause", |world| {
            world.orders.idle() > PUBLISHERS
        });
        self.until_worked_off();
        self.orders.set_away(true);
        let readers = SUBSCRIBERS + 5;
        let end = now() + STALL;
        while self.orders.gone() < readers {
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
        self.until("publishers to finish", |world| {
            world.orders.idle() > PUBLISHERS
        });
        self.until_worked_off();
        self.until_nothing_is_left();
        let mut letters = self.letters();
        let end = now() + STALL;
        // The last attempts of poisoned publications are behind everything else.
        while letters.values().map(BTreeSet::len).min() < Some(self.poisoned()) && now() < end {
            self.book(Duration::from_millis(50));
            letters = self.letters();
        }
        self.orders.stop();
        for client in std::mem::take(&mut self.clients) {
            while !client.is_finished() {
                self.book(Duration::from_millis(10));
            }
            client.join().expect("clients do not panic");
        }
        self.book(Duration::ZERO);
        let mut ledger = std::mem::take(&mut self.ledger);
        ledger.close(SUBSCRIBERS, is_poisoned, &letters);
        ledger
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
            if groups.len() == GROUPS.len() && groups.iter().all(is_done) {
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

    fn poisoned(&self) -> usize {
        self.ledger.ids().filter(|id| is_poisoned(*id)).count()
    }

    fn letters(&self) -> BTreeMap<&'static str, BTreeSet<String>> {
        GROUPS
            .iter()
            .map(|(group, _)| (*group, self.letters_of(group)))
            .collect()
    }

    fn letters_of(&self, group: &str) -> BTreeSet<String> {
        let (mut events, mut after) = (BTreeSet::new(), None::<Value>);
        loop {
            let mut request = json!({ "group": group, "limit": LETTERS });
            if let Some(after) = &after {
                request["after"] = after.clone();
            }
            let answer = ask(self.orders.address, "dlq/list", &request).unwrap_or_default();
            let Some(letters) = answer["result"]["letters"].as_array() else {
                return events;
            };
            events.extend(
                letters
                    .iter()
                    .filter_map(|letter| letter["event_id"].as_str())
                    .map(str::to_owned),
            );
            match &answer["result"]["next"] {
                Value::String(next) if !next.is_empty() && !letters.is_empty() => {
                    after = Some(json!(next))
                }
                _ => return events,
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

fn proxy(text: &str, listen: &str, environment: &[(String, String)]) -> Server {
    let start = Start::with_config(text).listen(listen).shards(2);
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

fn configuration(engine: &Engine, log: &Path) -> String {
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
    format!(
        r#"{durable}
[[channel.namespaces]]
name = "orders"
delivery = "durable"
presence = true
allow_subscribe_for_client = true
allow_publish_for_client = true
allow_presence_for_client = true

[[channel.namespaces]]
name = "fast"
allow_subscribe_for_client = true
"#
    )
}
