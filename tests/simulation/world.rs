//! All of it on one thread and in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ringmain::config::{Config, UserLimitPolicy};
use ringmain::mem::Rng;
use ringmain::mesh;
use ringmain::mesh::control::ToShard;
use ringmain::model::ShardId;
use ringmain::shard::{Mode, Shard};
use ringmain::time::{Instant, Now};

use super::client::{Client, Scene, Stage};
use super::faulty_log::FaultyLog;
use super::link::Link;
use super::reactor::{Outside, Reactor};
use super::service::Service;
use super::setup::{self, Shape};
use super::truth::Truth;

const UNIX_MS: u64 = 1_700_000_000_000;
/// The wall clock is set by at most so much.
const STEP_MS_MAX: u64 = 2 * 3_600_000;
/// Turns after which a run that is left alone must have come to rest.
const REST_TURNS: u32 = 3000;
/// Turns without anything after which nothing more will come: longer than a shard waits before it tries again.
const QUIET_TURNS: u32 = 25;

pub struct World {
    rng: Rng,
    now: Now,
    /// What the wall clock showed when the monotonic one began, as it is set now.
    unix_start_ms: u64,
    shape: Shape,
    config: Config,
    shards: Vec<Reactor>,
    links: Vec<Link>,
    clients: Vec<Client>,
    services: Vec<Service>,
    truth: Truth,
    log: FaultyLog,
    hash: DefaultHasher,
    calm: bool,
    draining: bool,
}

/// How often what happened.
pub type Seen = BTreeMap<String, u64>;

/// One run. Returns a hash of everything that was sent, and what was seen.
pub fn run(seed: u64) -> (u64, Seen) {
    let mut world = World::new(seed);
    let rounds = 1 + world.rng.below(3);
    for _ in 0..rounds {
        for _ in 0..world.shape.steps / rounds {
            world.step();
        }
        world.rest();
        world.check_rest();
    }
    world.drain();
    world.count();
    (world.hash.finish(), world.truth.counts)
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let shape = Shape::random(&mut rng);
        let mut config = setup::config(&mut rng);
        config.client.user_connection_limit = [0, 0, 2][rng.below(3) as usize];
        config.client.user_connection_limit_policy =
            [UserLimitPolicy::Refuse, UserLimitPolicy::CloseOldest][rng.below(2) as usize];
        config.client.connection_limit = [0, 0, 4, 15][rng.below(4) as usize];
        config.client.user_personal_channel = (rng.below(3) == 0).then(String::new);
        let shards = mesh::build_with(shape.shards, shape.queue)
            .into_iter()
            .map(|endpoint| {
                let id = endpoint.shard();
                Reactor::new(Shard::new(
                    id,
                    Mode::Proxy,
                    Arc::new(config.clone()),
                    endpoint,
                    seed,
                ))
            })
            .collect();
        let users = Self::users(&shape);
        let clients = (0..shape.clients)
            .map(|_| {
                let user = rng.below(users + users / 4 + 1);
                Client::new(if user < users {
                    format!("u{user}")
                } else {
                    String::new()
                })
            })
            .collect();
        let log = FaultyLog::new(shape.shards, &mut rng);
        Self {
            now: Now {
                at: Instant(1_000_000),
                unix_ms: UNIX_MS,
            },
            unix_start_ms: UNIX_MS,
            services: (0..shape.services).map(|_| Service::default()).collect(),
            rng,
            shape,
            config,
            shards,
            links: Vec::new(),
            clients,
            truth: Truth::default(),
            log,
            hash: DefaultHasher::new(),
            calm: false,
            draining: false,
        }
    }

    fn users(shape: &Shape) -> u64 {
        (shape.clients as u64 / 2).max(1)
    }

    fn advance(&mut self, by: Duration) {
        self.now = Now {
            at: self.now.at + by,
            unix_ms: self.unix_start_ms + (self.now.at + by).0 / 1_000_000,
        };
    }

    fn open_link(&mut self) -> usize {
        let window = [1_000, 16_000, 200_000][self.rng.below(3) as usize];
        self.links.push(Link::new(window));
        let link = self.links.len() - 1;
        let shard = self.rng.below(self.shards.len() as u64) as usize;
        self.shards[shard].backlog.push_back(link);
        link
    }

    /// One step of everybody.
    fn step(&mut self) {
        let ms = match self.rng.below(100) {
            0..=79 => self.rng.below(4),
            80..=97 => self.rng.below(150),
            _ => self.rng.below(6000),
        };
        self.advance(Duration::from_millis(ms));
        self.act();
        self.read();
        self.operate();
        self.turns();
    }

    /// Clients and services do what they like.
    fn act(&mut self) {
        let acting = 1 + self.rng.below(self.clients.len() as u64 / 3 + 3);
        for _ in 0..acting {
            let at = self.rng.below(self.clients.len() as u64) as usize;
            if self.clients[at].stage == Stage::Offline {
                if self.rng.below(3) == 0 {
                    let link = self.open_link();
                    let (clients, mut scene, links) = self.scene();
                    clients[at].connect(link, links, &mut scene);
                }
                continue;
            }
            let (clients, mut scene, links) = self.scene();
            clients[at].act(links, &mut scene);
        }
        let ids: Vec<String> = self
            .clients
            .iter()
            .filter_map(|client| client.id.clone())
            .collect();
        let users = Self::users(&self.shape);
        for at in 0..self.services.len() {
            if self.services[at].link.is_none() {
                self.services[at].link = Some(self.open_link());
            }
            let busy = self.rng.below(4);
            for _ in 0..busy {
                let mut services = std::mem::take(&mut self.services);
                let (_, mut scene, links) = self.scene();
                services[at].act(links, &mut scene, users, &ids);
                self.services = services;
                if self.services[at].link.is_none() {
                    break;
                }
            }
        }
    }

    fn scene(&mut self) -> (&mut Vec<Client>, Scene<'_>, &mut [Link]) {
        let scene = Scene {
            now: self.now,
            rng: &mut self.rng,
            truth: &mut self.truth,
            large: self.shape.large,
            stalls: self.shape.stalls,
        };
        (&mut self.clients, scene, &mut self.links)
    }

    fn read(&mut self) {
        for at in 0..self.clients.len() {
            if self.calm {
                self.clients[at].stalled = 0;
            } else if self.rng.below(4) == 0 {
                continue;
            }
            let (clients, mut scene, links) = self.scene();
            clients[at].read(links, &mut scene);
        }
        let mut services = std::mem::take(&mut self.services);
        for service in &mut services {
            let (_, mut scene, links) = self.scene();
            service.read(links, &mut scene);
        }
        self.services = services;
    }

    /// What the operator and the machine do.
    fn operate(&mut self) {
        if self.rng.below(150) == 0 {
            let mut config = setup::config(&mut self.rng);
            setup::fixed(&mut config, &self.config);
            self.config = config;
            for shard in &mut self.shards {
                shard
                    .control
                    .push_back(ToShard::Reload(Arc::new(self.config.clone())));
            }
        }
        if self.rng.below(300) == 0 {
            // Somebody sets the clock of the machine, to and fro.
            self.unix_start_ms = UNIX_MS - STEP_MS_MAX + self.rng.below(2 * STEP_MS_MAX);
            self.truth.count("wall clock set");
        }
        for shard in &mut self.shards {
            if self.rng.below(1000) < self.shape.sleeps {
                shard.asleep = self.rng.below(60);
            }
        }
    }

    /// One turn of every shard that is awake, in an order that chance gives. Returns whether any was.
    fn turns(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.shards.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.rng.below(at as u64 + 1) as usize);
        }
        let mut any = false;
        for at in order {
            let mut wakes = Vec::new();
            any |= self.shards[at].turn(&mut Outside {
                now: self.now,
                links: &mut self.links,
                rng: &mut self.rng,
                wakes: &mut wakes,
                hash: &mut self.hash,
                calm: self.calm,
                log: &mut self.log,
                truth: &mut self.truth,
            });
            for ShardId(shard) in wakes {
                self.shards[usize::from(shard)].bell = true;
            }
            let limit = self.config.client.connection_limit;
            let (let_in, _) = self.shards[at].shard.let_in();
            assert!(limit == 0 || let_in <= limit, "{let_in} are in");
            let under_way = self.shards[at].shard.under_way();
            assert_eq!(
                under_way.backlog_bytes, under_way.backlog_bytes_counted,
                "unsent bytes of shard {at}"
            );
            assert_eq!(
                under_way.input_bytes, under_way.input_bytes_counted,
                "unfinished input of shard {at}"
            );
        }
        any
    }

    /// Everybody reads and nobody acts until nothing moves any more.
    fn rest(&mut self) {
        self.calm = true;
        // Megabytes through a narrow window would be slow, not stuck.
        for link in &mut self.links {
            link.window = link.window.max(1 << 20);
        }
        let mut quiet = 0;
        for _ in 0..REST_TURNS {
            let again = self
                .shards
                .iter()
                .any(|one| one.shard.under_way().unopened > 0);
            self.advance(Duration::from_micros(if again { 20_000 } else { 100 }));
            self.read();
            let awake = self.turns();
            let moving = self
                .links
                .iter()
                .any(|link| !link.down.is_empty() && !link.up_reset);
            quiet = if awake || moving || again {
                0
            } else {
                quiet + 1
            };
            if quiet == QUIET_TURNS {
                self.calm = false;
                return;
            }
        }
        let awake: Vec<_> = self
            .shards
            .iter()
            .map(|shard| shard.shard.under_way())
            .collect();
        panic!("the run does not come to rest: {awake:?}");
    }

    fn check_rest(&self) {
        for client in &self.clients {
            client.check_quiet();
        }
        for service in &self.services {
            service.check_quiet();
        }
        for (at, reactor) in self.shards.iter().enumerate() {
            let under_way = reactor.shard.under_way();
            let nothing = ringmain::shard::inspect::UnderWay {
                ring_bytes: 0,
                backlog_bytes: 0,
                backlog_bytes_counted: 0,
                // Half a message of somebody who is not done may be there.
                input_bytes: under_way.input_bytes,
                input_bytes_counted: under_way.input_bytes,
                mesh_held: 0,
                mesh_queued: 0,
                mesh_own: 0,
                api_calls: 0,
                log_requests: 0,
                waiting: 0,
                parts: 0,
                woken: false,
                unopened: 0,
            };
            assert_eq!(under_way, nothing, "shard {at} is at rest");
        }
        self.check_channels();
        self.check_clients();
        self.truth.check_orders();
    }

    /// Owners and hubs agree on who wants what and on where it stands.
    fn check_channels(&self) {
        let here: Vec<_> = self
            .shards
            .iter()
            .map(|reactor| reactor.shard.channels_here())
            .collect();
        let owned: Vec<_> = self
            .shards
            .iter()
            .flat_map(|reactor| reactor.shard.channels_owned())
            .collect();
        let subscriptions: Vec<_> = self
            .shards
            .iter()
            .flat_map(|reactor| reactor.shard.subscriptions())
            .collect();
        for (shard, channels) in here.iter().enumerate() {
            for channel in channels {
                assert_eq!(
                    channel.pending, 0,
                    "{:?} waits for an owner on shard {shard}",
                    channel.name
                );
                assert!(
                    !channel.catching_up,
                    "{:?} still reads what it lost on shard {shard}",
                    channel.name
                );
                let owner = owned.iter().find(|owner| owner.name == channel.name);
                let owner = owner
                    .unwrap_or_else(|| panic!("{:?} has subscribers and no owner", channel.name));
                assert!(
                    owner.interest >> shard & 1 == 1,
                    "the owner of {:?} forgot shard {shard}",
                    channel.name
                );
                if owner.position.offset.0 > 0 {
                    assert_eq!(
                        channel.position, owner.position,
                        "{:?} on shard {shard}",
                        channel.name
                    );
                }
            }
        }
        for owner in &owned {
            for (shard, channels) in here.iter().enumerate() {
                if owner.interest >> shard & 1 == 1 {
                    let wants = channels.iter().any(|channel| channel.name == owner.name);
                    assert!(
                        wants,
                        "the owner of {:?} sends to shard {shard}, where nobody listens",
                        owner.name
                    );
                }
            }
            let mut present: Vec<_> = subscriptions
                .iter()
                .filter(|subscribed| subscribed.present && subscribed.channel == owner.name)
                .map(|subscribed| subscribed.client)
                .collect();
            present.sort_unstable();
            assert_eq!(owner.presence, present, "presence of {:?}", owner.name);
            assert!(
                owner.kept.windows(2).all(|pair| pair[1] == pair[0] + 1),
                "{:?} keeps {:?}",
                owner.name,
                owner.kept
            );
            assert!(
                owner.kept.len() <= 50,
                "{:?} keeps {}",
                owner.name,
                owner.kept.len()
            );
            if owner.name.as_str().starts_with("safe:")
                && let Some(end) = self.log.end(&owner.name)
                && owner.interest != 0
            {
                assert_eq!(owner.position, end, "the end of {:?}", owner.name);
            }
            if owner.name.as_str().starts_with("safe:") && owner.interest == 0 {
                // It may have to be asked for anew before anybody learns it.
                continue;
            }
            let epoch = owner.position.epoch;
            self.truth
                .check_top(owner.name.as_str(), epoch.as_str(), owner.position.offset.0);
            for client in self.clients.iter().filter(|client| client.is_connected()) {
                if let Some(position) = client.position(owner.name.as_str()) {
                    assert_eq!(
                        position, owner.position.offset.0,
                        "a tracked subscriber of {:?}",
                        owner.name
                    );
                }
            }
        }
    }

    /// Shards and clients agree on who is connected and subscribed.
    fn check_clients(&self) {
        let known: BTreeSet<(String, String)> = self
            .shards
            .iter()
            .flat_map(|reactor| reactor.shard.subscriptions())
            .map(|subscribed| {
                (
                    subscribed.client.to_string(),
                    subscribed.channel.as_str().to_owned(),
                )
            })
            .collect();
        let believed: BTreeSet<(String, String)> = self
            .clients
            .iter()
            .filter(|client| client.is_connected())
            .flat_map(|client| {
                let id = client.id.clone().unwrap_or_default();
                client
                    .subs
                    .keys()
                    .map(move |channel| (id.clone(), channel.clone()))
            })
            .collect();
        let differ: Vec<_> = known.symmetric_difference(&believed).collect();
        assert!(
            differ.is_empty(),
            "subscriptions that only a shard or only its client knows: {differ:?}"
        );
        let let_in: Vec<_> = self.shards.iter().map(|one| one.shard.let_in()).collect();
        assert_eq!(
            let_in.iter().map(|(gate, _)| gate).sum::<u32>(),
            let_in.iter().map(|(_, here)| here).sum::<u32>(),
            "the gate counts who is in: {let_in:?}"
        );
        let mut users = BTreeMap::<Box<str>, u32>::new();
        for user in self
            .shards
            .iter()
            .flat_map(|reactor| reactor.shard.admitted_users())
        {
            *users.entry(user).or_default() += 1;
        }
        if self.config.client.user_connection_limit > 0 {
            assert!(
                users
                    .values()
                    .all(|&count| count <= self.config.client.user_connection_limit),
                "{users:?}"
            );
            let registered: BTreeMap<_, _> = self
                .shards
                .iter()
                .flat_map(|reactor| reactor.shard.registered())
                .collect();
            assert_eq!(registered, users, "connections of users");
        }
    }

    /// What the shards counted.
    fn count(&mut self) {
        for reactor in &self.shards {
            let values = reactor.shard.counters().values();
            for ((_, name, _), value) in ringmain::metrics::DESCRIPTIONS.iter().zip(values) {
                *self
                    .truth
                    .counts
                    .entry(format!("counter {name}"))
                    .or_default() += value;
            }
        }
    }

    /// The end: everybody is told, nobody is left.
    fn drain(&mut self) {
        let window = Duration::from_millis(self.rng.below(2000));
        let grace = Duration::from_millis(self.rng.below(2000));
        self.draining = true;
        for shard in &mut self.shards {
            shard.asleep = 0;
            shard.control.push_back(ToShard::Drain { window, grace });
        }
        let end = self.now.at + window + grace + Duration::from_millis(500);
        while self.now.at < end {
            let ms = self.rng.below(20);
            self.advance(Duration::from_millis(ms));
            if self.rng.below(2) == 0 {
                let at = self.rng.below(self.clients.len() as u64) as usize;
                let (clients, mut scene, links) = self.scene();
                clients[at].act(links, &mut scene);
            }
            self.read();
            self.turns();
        }
        for shard in &mut self.shards {
            shard.asleep = 0;
        }
        self.rest();
        for (at, reactor) in self.shards.iter().enumerate() {
            assert_eq!(reactor.open(), 0, "sockets of shard {at} after its drain");
            assert!(
                reactor.drained.is_some(),
                "shard {at} reports the end of its drain"
            );
            assert!(!reactor.shard.is_accepting());
            assert!(
                reactor.shard.counters().sessions == 0,
                "sessions of shard {at} after its drain"
            );
        }
        for client in &self.clients {
            assert_eq!(client.stage, Stage::Offline, "a client was not told");
        }
        self.check_rest();
    }
}
