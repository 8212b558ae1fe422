//! All of it on one thread and in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use ringmain::config::{Config, UserLimitPolicy};
use ringmain::limits::{COMMANDS_UNDER_WAY_MAX, WAITING_BYTES_MAX};
use ringmain::mem::Rng;
use ringmain::mesh;
use ringmain::mesh::control::ToShard;
use ringmain::model::ShardId;
use ringmain::shard::{Mode, Shard};
use ringmain::time::{Instant, Now};

use super::backend::{self, Backend};
use super::client::{Client, Scene, Stage};
use super::faulty_log::FaultyLog;
use super::keys::{KeyService, Keys};
use super::link::Link;
use super::network::Network;
use super::poller::Poller;
use super::reactor::{Outside, Reactor};
use super::service::Service;
use super::setup::{self, Shape, is_durable};
use super::streams::{Concern, stream};
use super::truth::{Truth, situation};

/// One turn of so many is followed by the replacement of its shard by an image.
const TURNS_UNMOVED: u64 = 64;
const UNIX_MS: u64 = 1_700_000_000_000;
/// The wall clock is set by at most so much.
const STEP_MS_MAX: u64 = 2 * 3_600_000;
/// Turns after which a run that is left alone must have come to rest.
const REST_TURNS: u32 = 3000;
/// Turns without anything after which those who wait do so in vain.
const STILL_TURNS: u32 = 3;
/// Turns without anything after which nothing more will come: longer than a shard waits before it tries again.
const QUIET_TURNS: u32 = 25;
/// What may be received before a shard that has enough of a session's commands is read no further: the rest of a frame and what comes
/// with it, and what a request of its own brings.
const WAITING_BYTES_BEYOND: usize = 160 << 10;

/// Parts of the shape of a run that draw by themselves.
const ROUNDS: u64 = 1;
const USERS: u64 = 2;
const HOOKS: u64 = 3;
const KEYS: u64 = 4;
const INTAKE: u64 = 5;

mod leaving;
mod runs;

use leaving::Leaving;
pub use runs::{run, run_unmoved, run_with_faulty_mesh};

pub struct World {
    seed: u64,
    clock: Rng,
    network: Rng,
    machine: Rng,
    operator: Rng,
    crowd: Rng,
    images: Rng,
    /// Shards are replaced by their images.
    moves: bool,
    /// What each client and each service draws from.
    of_clients: Vec<Rng>,
    of_services: Vec<Rng>,
    now: Now,
    /// What the wall clock showed when the monotonic one began, as it is set now.
    unix_start_ms: u64,
    shape: Shape,
    config: Config,
    shards: Vec<Reactor>,
    links: Vec<Link>,
    mesh: Network,
    clients: Vec<Client>,
    services: Vec<Service>,
    pollers: Vec<Poller>,
    of_pollers: Vec<Rng>,
    truth: Truth,
    log: FaultyLog,
    backend: Backend,
    keys: Keys,
    key_service: KeyService,
    hash: DefaultHasher,
    calm: bool,
    drained_by: Option<Instant>,
    /// Shards on their way out.
    leaving: Vec<Leaving>,
}

/// How often what happened.
pub type Seen = BTreeMap<String, u64>;

impl World {
    fn new(seed: u64, is_mesh_faulty: bool) -> Self {
        let mut rng = stream(seed, Concern::Shape, 0);
        let shape = Shape::random(&mut rng);
        let mut config = setup::config(&mut rng);
        config.client.user_connection_limit = [0, 0, 2][rng.below(3) as usize];
        config.client.user_connection_limit_policy =
            [UserLimitPolicy::Refuse, UserLimitPolicy::CloseOldest][rng.below(2) as usize];
        config.client.connection_limit = [0, 0, 4, 15][rng.below(4) as usize];
        config.client.user_personal_channel = (rng.below(3) == 0).then(String::new);
        let mut rng = stream(seed, Concern::Shape, HOOKS);
        if rng.below(3) > 0 {
            config.hooks = backend::hooks(&mut rng);
        }
        let mut rng = stream(seed, Concern::Shape, INTAKE);
        config.server.accept_rate = [0, 0, 20, 100][rng.below(4) as usize];
        config.server.handshakes_max = [0, 0, 0, 6][rng.below(4) as usize];
        let keys = Keys::random(&mut stream(seed, Concern::Shape, KEYS));
        keys.configure(&mut config);
        let (endpoints, wires) = mesh::build_wired(shape.shards, shape.queue);
        let shards = endpoints
            .into_iter()
            .map(|endpoint| {
                let id = endpoint.shard();
                let shard = Shard::new(id, Mode::Proxy, Arc::new(config.clone()), endpoint, seed);
                let network = stream(seed, Concern::Network, 1 + u64::from(id.0));
                Reactor::new(shard, network)
            })
            .collect();
        let users = Self::users(&shape);
        let mut rng = stream(seed, Concern::Shape, USERS);
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
        let log = FaultyLog::new(shape.shards, stream(seed, Concern::Log, 0));
        let each = |concern, count: usize| -> Vec<Rng> {
            (0..count as u64)
                .map(|which| stream(seed, concern, which))
                .collect()
        };
        Self {
            seed,
            images: stream(seed, Concern::Image, 0),
            moves: true,
            clock: stream(seed, Concern::Clock, 0),
            network: stream(seed, Concern::Network, 0),
            machine: stream(seed, Concern::Machine, 0),
            operator: stream(seed, Concern::Operator, 0),
            crowd: stream(seed, Concern::Crowd, 0),
            of_clients: each(Concern::Client, shape.clients),
            of_services: each(Concern::Service, shape.services),
            now: Now {
                at: Instant(1_000_000),
                unix_ms: UNIX_MS,
            },
            unix_start_ms: UNIX_MS,
            services: (0..shape.services)
                .map(|which| Service::new(which == 0))
                .collect(),
            pollers: (0..shape.pollers).map(|_| Poller::default()).collect(),
            of_pollers: each(Concern::Poller, shape.pollers),
            backend: Backend::new(stream(seed, Concern::Backend, 0)),
            keys,
            key_service: KeyService::new(stream(seed, Concern::Keys, 0)),
            shape,
            config,
            shards,
            links: Vec::new(),
            mesh: Network::new(wires, stream(seed, Concern::Mesh, 0), is_mesh_faulty),
            clients,
            truth: Truth::default(),
            log,
            hash: DefaultHasher::new(),
            calm: false,
            drained_by: None,
            leaving: Vec::new(),
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
        let window = [1_000, 16_000, 200_000][self.network.below(3) as usize];
        self.links.push(Link::new(window));
        let link = self.links.len() - 1;
        let shard = self.network.below(self.shards.len() as u64) as usize;
        self.shards[shard].backlog.push_back(link);
        link
    }

    /// One step of everybody.
    fn step(&mut self) {
        let ms = match self.clock.below(100) {
            0..=79 => self.clock.below(4),
            80..=97 => self.clock.below(150),
            _ => self.clock.below(6000),
        };
        self.advance(Duration::from_millis(ms));
        self.act();
        self.read();
        self.operate();
        self.turns();
    }

    /// Clients and services do what they like.
    fn act(&mut self) {
        let acting = 1 + self.crowd.below(self.clients.len() as u64 / 3 + 3);
        for _ in 0..acting {
            let at = self.crowd.below(self.clients.len() as u64) as usize;
            if self.clients[at].stage != Stage::Offline {
                self.client(at, Client::act);
                self.post(at);
            } else if self.crowd.below(3) == 0 {
                let link = self.open_link();
                self.client(at, |client, links, scene| {
                    client.connect(link, links, scene);
                });
            }
        }
        let ids: Vec<String> = self
            .clients
            .iter()
            .filter_map(|client| client.id.clone())
            .collect();
        let tokens: Vec<String> = self
            .clients
            .iter()
            .filter(|client| client.is_connected() && !client.token_id.is_empty())
            .map(|client| client.token_id.clone())
            .collect();
        let users = Self::users(&self.shape);
        for at in 0..self.services.len() {
            if self.services[at].link.is_none() {
                self.services[at].link = Some(self.open_link());
            }
            let busy = self.crowd.below(4);
            for _ in 0..busy {
                self.service(at, |service, links, scene| {
                    service.act(links, scene, users, &ids, &tokens);
                });
                if self.services[at].link.is_none() {
                    break;
                }
            }
        }
        for at in 0..self.pollers.len() {
            if self.pollers[at].link.is_none() {
                self.pollers[at].link = Some(self.open_link());
            }
            self.poller(at, Poller::act);
        }
    }

    /// Commands of a client that go in a request of their own, to any shard.
    fn post(&mut self, at: usize) {
        if let Some(request) = self.clients[at].next_post() {
            let link = self.open_link();
            self.links[link].up = request;
            self.clients[at].posted(link);
        }
    }

    /// Lets one client do something.
    fn client(&mut self, at: usize, act: impl FnOnce(&mut Client, &mut [Link], &mut Scene<'_>)) {
        let mut scene = scene(
            self.now,
            &self.shape,
            &self.keys,
            &mut self.of_clients[at],
            &mut self.truth,
        );
        act(&mut self.clients[at], &mut self.links, &mut scene);
    }

    /// Lets one service do something.
    fn service(&mut self, at: usize, act: impl FnOnce(&mut Service, &mut [Link], &mut Scene<'_>)) {
        let mut scene = scene(
            self.now,
            &self.shape,
            &self.keys,
            &mut self.of_services[at],
            &mut self.truth,
        );
        act(&mut self.services[at], &mut self.links, &mut scene);
    }

    /// Lets one poller do something.
    fn poller(&mut self, at: usize, act: impl FnOnce(&mut Poller, &mut [Link], &mut Scene<'_>)) {
        let mut scene = scene(
            self.now,
            &self.shape,
            &self.keys,
            &mut self.of_pollers[at],
            &mut self.truth,
        );
        act(&mut self.pollers[at], &mut self.links, &mut scene);
    }

    fn read(&mut self) {
        for at in 0..self.clients.len() {
            if self.calm {
                self.clients[at].stalled = 0;
            } else if self.crowd.below(4) == 0 {
                continue;
            }
            self.client(at, Client::read);
            self.post(at);
        }
        for at in 0..self.services.len() {
            self.service(at, Service::read);
        }
        for at in 0..self.pollers.len() {
            self.poller(at, Poller::read);
        }
    }

    /// What the operator and the machine do.
    fn operate(&mut self) {
        if self.operator.below(150) == 0 {
            let mut config = setup::config(&mut self.operator);
            setup::fixed(&mut config, &self.config);
            self.config = config;
            for shard in &mut self.shards {
                shard
                    .control
                    .push_back(ToShard::Reload(Arc::new(self.config.clone())));
            }
        }
        if self.clock.below(300) == 0 {
            // Somebody sets the clock of the machine, to and fro.
            self.unix_start_ms = UNIX_MS - STEP_MS_MAX + self.clock.below(2 * STEP_MS_MAX);
            self.truth.count("wall clock set");
            self.truth.clock_set = Some(self.now.at);
        }
        for shard in &mut self.shards {
            if self.machine.below(1000) < self.shape.sleeps {
                shard.asleep = self.machine.below(60);
            }
        }
    }

    /// One turn of every shard that is awake, in an order that chance gives. Returns whether any was.
    fn turns(&mut self) -> bool {
        let mut order: Vec<usize> = (0..self.shards.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.machine.below(at as u64 + 1) as usize);
        }
        while let Some((shard, message)) =
            self.key_service.poll(self.now, self.calm, &mut self.truth)
        {
            self.shards[shard].control.push_back(message);
        }
        let mut any = false;
        for at in order {
            for ShardId(shard) in self.mesh.pass(self.now.at, self.calm, &mut self.truth) {
                self.shards[usize::from(shard)].bell = true;
            }
            let mut wakes = Vec::new();
            any |= self.shards[at].turn(&mut Outside {
                now: self.now,
                links: &mut self.links,
                wakes: &mut wakes,
                hash: &mut self.hash,
                calm: self.calm,
                drained_by: self.drained_by,
                log: &mut self.log,
                backend: &mut self.backend,
                keys: &mut self.key_service,
                truth: &mut self.truth,
            });
            for ShardId(shard) in wakes {
                self.shards[usize::from(shard)].bell = true;
            }
            if let Some(leaving) = self.leaving.get_mut(at) {
                leaving.look(self.now.at, &self.shards[at].shard, &mut self.truth);
            }
            if self.moves && self.images.below(TURNS_UNMOVED) == 0 {
                self.replace(at);
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
            assert_eq!(under_way.due, 0, "left undone by shard {at}");
            assert_eq!(
                under_way.waiting_bytes, under_way.waiting_bytes_counted,
                "waiting commands of shard {at}"
            );
            if under_way.waiting_bytes_most >= WAITING_BYTES_MAX {
                self.truth.count(situation::READ_NO_FURTHER);
            }
            assert!(
                under_way.waiting_bytes_most <= WAITING_BYTES_MAX + WAITING_BYTES_BEYOND,
                "{} bytes of one session wait",
                under_way.waiting_bytes_most
            );
            assert!(
                under_way.commands_most <= COMMANDS_UNDER_WAY_MAX,
                "{} commands of one session are under way",
                under_way.commands_most
            );
            if under_way.commands_most == COMMANDS_UNDER_WAY_MAX {
                self.truth.count(situation::NO_MORE_UNDER_WAY);
            }
            if under_way.parked > 0 {
                self.truth.count(situation::WAITS_FOR_KEY);
            }
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
        let mut still = 0;
        for _ in 0..REST_TURNS {
            let under_way = || self.shards.iter().map(|one| one.shard.under_way());
            // Only time brings an end to what nobody answers.
            let waits = still > STILL_TURNS
                && under_way().any(|one| one.questions + one.api_calls + one.waiting > 0);
            let stand_and_wait = self.shards.iter().any(|one| {
                // Only time lets them in.
                !one.backlog.is_empty() && one.shard.under_way().is_paced
            });
            let again =
                waits || stand_and_wait || under_way().any(|one| one.unopened + one.run_bytes > 0);
            let us = match (waits, again) {
                (true, _) => 100_000,
                (false, true) => 20_000,
                (false, false) => 100,
            };
            self.advance(Duration::from_micros(us));
            self.read();
            let awake = self.turns();
            let moving = self
                .links
                .iter()
                .any(|link| !link.down.is_empty() && !link.up_reset);
            still = if awake || moving { 0 } else { still + 1 };
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
        let shards = self.shards.iter();
        let awake: Vec<_> = shards.map(|one| one.shard.under_way()).collect();
        panic!("the run does not come to rest: {awake:?}");
    }

    fn check_rest(&self) {
        for client in &self.clients {
            client.check_quiet();
            let has_ended = client.link.is_some_and(|link| self.links[link].up_fin);
            assert!(!has_ended, "a client that says no more is not let go");
        }
        for poller in &self.pollers {
            poller.check_quiet();
        }
        assert!(self.backend.is_idle(), "a backend was asked in vain");
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
                questions: 0,
                waits: 0,
                log_requests: 0,
                waiting: 0,
                parts: 0,
                woken: false,
                unopened: 0,
                due: 0,
                run_bytes: 0,
                is_paced: under_way.is_paced,
                hook_calls: 0,
                parked: 0,
                parked_bytes: 0,
                commands_most: 0,
                waiting_bytes: 0,
                waiting_bytes_counted: 0,
                waiting_bytes_most: 0,
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
            if is_durable(owner.name.whole())
                && let Some(end) = self.log.end(&owner.name)
                && owner.interest != 0
            {
                assert_eq!(owner.position, end, "the end of {:?}", owner.name);
            }
            if is_durable(owner.name.whole()) && owner.interest == 0 {
                // It may have to be asked for anew before anybody learns it.
                continue;
            }
            let epoch = owner.position.epoch;
            self.truth
                .check_top(owner.name.whole(), epoch.as_str(), owner.position.offset.0);
            for client in self.clients.iter().filter(|client| client.is_connected()) {
                let (name, top) = (owner.name.whole(), owner.position.offset.0);
                client.check_told(name, epoch.as_str(), top, &self.truth);
                if let Some(position) = client.position(owner.name.whole()) {
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
                    subscribed.channel.whole().to_owned(),
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
        let lost: Vec<_> = believed.difference(&known).collect();
        assert!(lost.is_empty(), "only their clients know: {lost:?}");
        // A poll is a session of which its client knows no name. It may be subscribed to more than it asked for.
        let mut polls = BTreeMap::<&str, BTreeSet<&str>>::new();
        for (client, channel) in known.difference(&believed) {
            polls.entry(client).or_default().insert(channel);
        }
        let polling: Vec<&str> = self.pollers.iter().filter_map(Poller::waits_for).collect();
        assert_eq!(
            polls.len(),
            polling.len(),
            "only shards know: {polls:?}, only pollers: {polling:?}"
        );
        for channel in polling {
            let waits = polls.values().any(|channels| channels.contains(channel));
            assert!(
                waits,
                "no shard knows that somebody polls {channel}: {polls:?}"
            );
        }
        for client in self.clients.iter().filter(|client| client.is_connected()) {
            let (user, token) = (&client.user, &client.token_id);
            assert!(!self.truth.blocked.contains(user), "{user} is shut out");
            assert!(!self.truth.revoked.contains(token), "{token} is revoked");
            let is_over = client.id.as_ref().map(|id| self.truth.ended.contains(id));
            assert_ne!(is_over, Some(true), "a backend ended {:?}", client.id);
        }
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
            let counters = ringmain::metrics::DESCRIPTIONS.iter().zip(values);
            for ((_, name, _), value) in counters.filter(|&(_, value)| value > 0) {
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
        let window = Duration::from_millis(self.operator.below(2000));
        let grace = Duration::from_millis(self.operator.below(2000));
        for shard in &mut self.shards {
            shard.asleep = 0;
            shard.control.push_back(ToShard::Drain { window, grace });
            let mut leaving = Leaving::default();
            leaving.begin(self.now.at, window);
            self.leaving.push(leaving);
        }
        self.drained_by = Some(self.now.at + window + grace);
        let end = self.now.at + window + grace + Duration::from_millis(500);
        while self.now.at < end {
            let ms = self.clock.below(20);
            self.advance(Duration::from_millis(ms));
            if self.crowd.below(2) == 0 {
                let at = self.crowd.below(self.clients.len() as u64) as usize;
                self.client(at, Client::act);
                self.post(at);
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
            let Some(outcome) = reactor.drained else {
                panic!("shard {at} reports the end of its drain");
            };
            let closed = reactor.shard.counters().closed - reactor.closed_before;
            self.leaving[at].check(outcome, closed);
            assert!(!reactor.shard.is_accepting());
            assert!(
                reactor.shard.counters().sessions == 0,
                "sessions of shard {at} after its drain"
            );
        }
        for client in &self.clients {
            assert_eq!(client.stage, Stage::Offline, "a client was not told");
        }
        for poller in &self.pollers {
            assert_eq!(poller.waits_for(), None, "a poll was not answered");
        }
        self.check_rest();
    }
}

/// What somebody acts with.
fn scene<'a>(
    now: Now,
    shape: &Shape,
    keys: &'a Keys,
    rng: &'a mut Rng,
    truth: &'a mut Truth,
) -> Scene<'a> {
    Scene {
        now,
        rng,
        truth,
        keys,
        large: shape.large,
        stalls: shape.stalls,
    }
}
