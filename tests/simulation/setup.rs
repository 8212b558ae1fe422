//! The channels and limits of one run.

use std::sync::Arc;
use std::time::Duration;

use ringmain::config::namespace::{Delivery, DeltaType, SlowConsumer};
use ringmain::config::{Config, Namespace, Secret};
use ringmain::mem::Rng;

pub const SECRET: &str = "simulated secret";
pub const API_KEY: &str = "simulated key";

/// Channels that clients use. The part before the colon names the namespace.
pub const CHANNELS: &[&str] = &[
    "ask:1",
    "ask:2",
    "asksafe:1",
    "chat:1",
    "chat:2",
    "drop:1",
    "drop:2",
    "dropplain:1",
    "log:1",
    "log:2",
    "log:3",
    "plain:1",
    "plain:2",
    "pres:1",
    "safe:1",
    "safe:2",
    "safe:3",
    "pres:2",
    "ttl:1",
    "$chat:private",
    "lobby",
    "server:1",
    "server:2",
];
/// Channels that only the server subscribes clients to.
pub const SERVER_CHANNELS: &[&str] = &["server:1", "server:2", "server:3"];

/// Publications of the channel are in the log before their publisher hears of them.
pub fn is_durable(channel: &str) -> bool {
    channel.starts_with("safe:") || channel.starts_with("asksafe:")
}

/// How one run differs from others.
#[derive(Debug)]
pub struct Shape {
    pub shards: u16,
    pub queue: usize,
    pub clients: usize,
    pub services: usize,
    pub pollers: usize,
    pub steps: u64,
    /// Largest padding of a publication.
    pub large: u64,
    /// Of 1000 steps of a client, how many stall it.
    pub stalls: u64,
    /// Of 1000 turns of a shard, how many put it to sleep.
    pub sleeps: u64,
}

impl Shape {
    pub fn random(rng: &mut Rng) -> Self {
        let crowd = rng.below(10) == 0;
        Self {
            shards: 1 + rng.below(4) as u16,
            queue: if rng.below(2) == 0 {
                1024 + 1 + rng.below(8) as usize
            } else {
                4096
            },
            clients: if crowd {
                100 + rng.below(150) as usize
            } else {
                5 + rng.below(45) as usize
            },
            services: 1 + rng.below(3) as usize,
            pollers: rng.below(4) as usize,
            steps: if crowd { 400 } else { 800 + rng.below(800) },
            large: match rng.below(20) {
                0 => 200_000,
                1..=4 => 8_000,
                _ => 300,
            },
            stalls: [0, 5, 30][rng.below(3) as usize],
            sleeps: [0, 10, 50][rng.below(3) as usize],
        }
    }
}

fn open(name: &str) -> Namespace {
    Namespace {
        name: name.to_owned(),
        allow_subscribe_for_client: true,
        allow_subscribe_for_anonymous: true,
        allow_publish_for_client: true,
        allow_publish_for_anonymous: true,
        allow_history_for_client: true,
        allow_history_for_anonymous: true,
        allow_presence_for_client: true,
        allow_presence_for_anonymous: true,
        allowed_delta_types: vec![DeltaType::Fossil],
        delta_publish: true,
        allow_tags_filter: true,
        ..Namespace::default()
    }
}

fn kept(name: &str, size: u64, ttl_s: u64) -> Namespace {
    Namespace {
        history_size: size as u32,
        history_ttl: Duration::from_secs(ttl_s),
        ..open(name)
    }
}

/// A configuration; the next one of the same run is what a reload brings.
pub fn config(rng: &mut Rng) -> Config {
    let mut config = Config::built_in();
    config.client.token.hmac_secret_key = Secret(SECRET.to_owned());
    config.client.subscription_token = config.client.token.clone();
    config.client.allow_anonymous_connect_without_token = true;
    config.client.queue_max_size = [3_000, 20_000, 200_000][rng.below(3) as usize];
    config.client.ping_interval = [
        Some(Duration::from_secs(5)),
        Some(Duration::from_secs(25)),
        None,
    ][rng.below(3) as usize];
    config.client.pong_timeout = Duration::from_secs(3);
    config.client.channel_limit = 12;
    config.client.recovery_max_publication_limit = 25;
    config.durable.append_timeout = Duration::from_secs(3);
    config.server.connections_per_shard_max = [20, 1000][rng.below(2) as usize];
    config.http_api.key = Secret(API_KEY.to_owned());
    for enabled in [
        &mut config.http_stream.enabled,
        &mut config.sse.enabled,
        &mut config.uni_websocket.enabled,
        &mut config.uni_http_stream.enabled,
        &mut config.uni_sse.enabled,
        &mut config.poll.enabled,
    ] {
        *enabled = true;
    }
    let mut namespaces = vec![
        Namespace {
            presence: true,
            join_leave: true,
            allow_recovery: true,
            allowed_delta_types: Vec::new(),
            delta_publish: false,
            subscribe_proxy_enabled: true,
            sub_refresh_proxy_enabled: true,
            publish_proxy_enabled: true,
            ..kept("ask", 20, 60)
        },
        Namespace {
            delivery: Delivery::Durable,
            force_recovery: true,
            allowed_delta_types: Vec::new(),
            delta_publish: false,
            publish_proxy_enabled: true,
            ..kept("asksafe", 10, 60)
        },
        Namespace {
            presence: true,
            join_leave: true,
            allow_positioning: true,
            allow_recovery: true,
            ..kept("chat", 5 + rng.below(20), 60)
        },
        Namespace {
            allow_positioning: true,
            slow_consumer: SlowConsumer::DropOldest,
            ..kept("drop", 50, 60)
        },
        Namespace {
            slow_consumer: SlowConsumer::DropOldest,
            ..open("dropplain")
        },
        Namespace {
            force_recovery: true,
            ..kept("log", 3 + rng.below(10), 60)
        },
        open("plain"),
        Namespace {
            presence: true,
            join_leave: true,
            force_push_join_leave: true,
            ..open("pres")
        },
        Namespace {
            delivery: Delivery::Durable,
            force_recovery: true,
            presence: true,
            join_leave: true,
            ..kept("safe", 1 + rng.below(10), 60)
        },
        Namespace {
            force_recovery: true,
            presence: true,
            allow_subscribe_for_client: false,
            ..kept("server", 30, 60)
        },
        Namespace {
            allow_recovery: true,
            ..kept("ttl", 10, 2)
        },
    ];
    namespaces.sort_by(|a, b| a.name.cmp(&b.name));
    config.channels.namespaces = namespaces.into_iter().map(Arc::new).collect();
    config.channels.without_namespace = Arc::new(open(""));
    config
}

/// Options that a run has from its first to its last step.
pub fn fixed(config: &mut Config, like: &Config) {
    config.client.token.clone_from(&like.client.token);
    let tokens = &like.client.subscription_token;
    config.client.subscription_token.clone_from(tokens);
    config.hooks.clone_from(&like.hooks);
    config.client.user_connection_limit = like.client.user_connection_limit;
    config.client.user_connection_limit_policy = like.client.user_connection_limit_policy;
    config.client.connection_limit = like.client.connection_limit;
    config
        .client
        .user_personal_channel
        .clone_from(&like.client.user_personal_channel);
}
