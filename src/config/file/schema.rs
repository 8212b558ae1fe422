//! Every key of the file, once. The reader and the writer both walk these functions, so that a key is read if and
//! only if it is written. Within a table, plain keys come before tables, as TOML wants it.

mod durable;
mod sources;
mod tenants;
mod transports;

use std::sync::Arc;

use super::super::namespace::{ChannelRules, DataFormat, Namespace, RecoveryMode, SlowConsumer};
use super::super::{
    AccessKey, Admin, Client, Config, Drain, HttpApi, Log, LogFormat, ReactorChoice, Server, Token,
    UserLimitPolicy, WebSocket,
};
use super::form::{
    ADMIN, API_METHOD, CLAIM, CONFLATE_KEY, CORE, DAY_S, DELTA_TYPE, ECDSA_KEY, FILE_OR_NONE,
    GROUP_OR_NONE, HEADER_OR_NONE, HOST_NAME, HOUR_MS, KEY_NAME, KEY_SET_URL, LISTEN, LONG_S, MARK,
    MARK_OR_NONE, MODE, NAMESPACE_NAME, NAMESPACE_NAME_OR_NONE, ORIGIN, PATH, PATTERN, RSA_KEY,
    Span, TEXT, TIME_OR_NONE, TRUSTED_PROXY, millis, or_off, seconds,
};
use super::hooks;
use super::visit::Visit;
use crate::limits::{
    BACKLOG_BYTES_MAX, BATCH_DELAY_MAX, BATCH_PUBLICATIONS_MAX, CHANNEL_NAME_BYTES_MAX,
    CHANNELS_OWNED_MAX, CONNECTIONS_MAX, ECHO_MESSAGE_BYTES_MAX, INPUT_RATE_MAX, JSON_DEPTH_MAX,
    PUBLICATION_LIMIT_MAX, RATE_LIMIT_MAX, SHARDS_MAX,
};

pub(super) use tenants::tenants;

/// The whole file.
pub(super) fn config<V: Visit>(v: &mut V, config: &mut Config) {
    v.section("server", |v| server(v, &mut config.server));
    v.section("admin", |v| admin(v, &mut config.admin));
    v.section("client", |v| {
        client(v, &mut config.client);
        hooks::of_client(v, &mut config.hooks);
    });
    v.section("websocket", |v| websocket(v, &mut config.websocket));
    transports::transports(v, config);
    v.section("http_api", |v| http_api(v, &mut config.http_api));
    v.section("health", |v| {
        v.boolean("enabled", &mut config.health.enabled);
        v.text("handler_prefix", &PATH, &mut config.health.handler_prefix);
    });
    v.section("channel", |v| {
        channel(v, &mut config.channels);
        hooks::of_channel(v, &mut config.hooks);
    });
    tenants::channel_sets(v, &mut config.channel_sets);
    tenants::tenants(v, &mut config.tenants);
    v.section("hooks", |v| hooks::signing(v, &mut config.hooks.signing));
    v.section("rpc", |v| hooks::rpc(v, &mut config.hooks));
    hooks::proxies(v, &mut config.hooks.named);
    v.section("durable", |v| durable::durable(v, &mut config.durable));
    v.section("queue", |v| durable::queue(v, &mut config.queue));
    sources::sources(v, &mut config.sources);
    v.section("drain", |v| drain(v, &mut config.drain));
    v.section("log", |v| log(v, &mut config.log));
}

fn server<V: Visit>(v: &mut V, server: &mut Server) {
    const REACTORS: &[(&str, ReactorChoice)] = &[
        ("auto", ReactorChoice::Auto),
        ("uring", ReactorChoice::Uring),
        ("portable", ReactorChoice::Portable),
    ];
    v.list("listen", &LISTEN, &mut server.listen);
    v.list("internal_listen", &LISTEN, &mut server.internal_listen);
    v.integer("shards", 0, SHARDS_MAX as u64, &mut server.shards);
    v.boolean("shared_port", &mut server.shared_port);
    v.text("unix_mode", &MODE, &mut server.unix_mode);
    v.text("unix_group", &GROUP_OR_NONE, &mut server.unix_group);
    v.choice("reactor", REACTORS, &mut server.reactor);
    v.list("cores", &CORE, &mut server.cores);
    v.integer("backlog", 1, 65_535, &mut server.backlog);
    v.integer(
        "connections_per_shard_max",
        1,
        u64::from(CONNECTIONS_MAX),
        &mut server.connections_per_shard_max,
    );
    v.integer("accept_rate", 0, 1_000_000, &mut server.accept_rate);
    v.integer(
        "handshakes_max",
        0,
        u64::from(CONNECTIONS_MAX),
        &mut server.handshakes_max,
    );
    v.duration(
        "handshake_timeout",
        millis(10, HOUR_MS),
        &mut server.handshake_timeout,
    );
    v.duration(
        "http_idle_timeout",
        millis(10, HOUR_MS),
        &mut server.http_idle_timeout,
    );
    v.integer(
        "input_max_size",
        1 << 20,
        1 << 40,
        &mut server.input_max_size,
    );
    v.list(
        "trusted_proxies",
        &TRUSTED_PROXY,
        &mut server.trusted_proxies,
    );
    v.text(
        "tenants_directory",
        &FILE_OR_NONE,
        &mut server.tenants_directory,
    );
}

fn admin<V: Visit>(v: &mut V, admin: &mut Admin) {
    v.text("listen", &ADMIN, &mut admin.listen);
    v.secret("key", &mut admin.key);
    v.text("unix_mode", &MODE, &mut admin.unix_mode);
    v.text("unix_group", &GROUP_OR_NONE, &mut admin.unix_group);
    v.list("hosts", &HOST_NAME, &mut admin.hosts);
    v.sections("keys", &AccessKey::default(), &mut admin.keys, |v, one| {
        access_key(v, one);
        one.seal();
    });
}

fn client<V: Visit>(v: &mut V, client: &mut Client) {
    // Asked before the token is read: both are empty in a configuration that is being read.
    let mut separate = client.subscription_token != client.token;
    let mut ping_interval = client.ping_interval.unwrap_or_default();
    v.list("allowed_origins", &ORIGIN, &mut client.allowed_origins);
    v.duration(
        "ping_interval",
        or_off(seconds(1, 3600)),
        &mut ping_interval,
    );
    client.ping_interval = (!ping_interval.is_zero()).then_some(ping_interval);
    client_times(v, client);
    client_limits(v, client);
    client_switches(v, client);
    v.section("token", |v| token(v, &mut client.token));
    v.section("subscription_token", |v| {
        v.boolean("enabled", &mut separate);
        let own = std::mem::take(&mut client.subscription_token);
        let mut own = if separate { own } else { Token::default() };
        token(v, &mut own);
        client.subscription_token = if separate { own } else { client.token.clone() };
    });
    let mut personal = client.user_personal_channel.is_some();
    let mut namespace = client.user_personal_channel.take().unwrap_or_default();
    v.section("subscribe_to_user_personal_channel", |v| {
        v.boolean("enabled", &mut personal);
        v.text(
            "personal_channel_namespace",
            &NAMESPACE_NAME_OR_NONE,
            &mut namespace,
        );
        v.boolean("single_connection", &mut client.single_connection);
    });
    client.user_personal_channel = personal.then_some(namespace);
    let disconnects = &mut client.connect_code_to_unidirectional_disconnect;
    v.section("connect_code_to_unidirectional_disconnect", |v| {
        transports::disconnects(v, disconnects);
    });
}

fn client_times<V: Visit>(v: &mut V, c: &mut Client) {
    v.duration("pong_timeout", millis(10, HOUR_MS), &mut c.pong_timeout);
    v.duration(
        "stale_close_delay",
        millis(10, HOUR_MS),
        &mut c.stale_close_delay,
    );
    v.duration(
        "expired_close_delay",
        millis(0, HOUR_MS),
        &mut c.expired_close_delay,
    );
    v.duration(
        "expired_sub_close_delay",
        millis(0, HOUR_MS),
        &mut c.expired_sub_close_delay,
    );
}

fn client_limits<V: Visit>(v: &mut V, c: &mut Client) {
    let users_max = u64::from(u32::MAX);
    v.integer("queue_max_size", 1024, 1 << 30, &mut c.queue_max_size);
    v.integer("channel_limit", 1, 65_535, &mut c.channel_limit);
    v.integer("concurrency", 1, 1024, &mut c.concurrency);
    v.integer("command_rate", 0, RATE_LIMIT_MAX, &mut c.command_rate);
    v.integer("command_burst", 0, RATE_LIMIT_MAX, &mut c.command_burst);
    v.integer("input_rate", 0, INPUT_RATE_MAX, &mut c.input_rate);
    v.integer("input_burst", 0, INPUT_RATE_MAX, &mut c.input_burst);
    let (limit, rate) = (
        &mut c.invalid_token_limit,
        &mut c.invalid_token_rate_per_prefix,
    );
    v.integer("invalid_token_limit", 0, 1_000_000, limit);
    v.integer("invalid_token_rate_per_prefix", 0, RATE_LIMIT_MAX, rate);
    v.integer("connection_limit", 0, users_max, &mut c.connection_limit);
    let (rate, limit, prefix_rate) = (
        &mut c.connection_rate_limit,
        &mut c.connection_limit_per_prefix,
        &mut c.connection_rate_limit_per_prefix,
    );
    v.integer("connection_rate_limit", 0, RATE_LIMIT_MAX, rate);
    v.integer("connection_limit_per_prefix", 0, users_max, limit);
    v.integer(
        "connection_rate_limit_per_prefix",
        0,
        RATE_LIMIT_MAX,
        prefix_rate,
    );
    v.integer("ipv4_prefix", 1, 32, &mut c.ipv4_prefix);
    v.integer("ipv6_prefix", 1, 128, &mut c.ipv6_prefix);
    v.integer(
        "user_connection_limit",
        0,
        users_max,
        &mut c.user_connection_limit,
    );
    v.choice(
        "user_connection_limit_policy",
        &[
            ("refuse", UserLimitPolicy::Refuse),
            ("close_oldest", UserLimitPolicy::CloseOldest),
        ],
        &mut c.user_connection_limit_policy,
    );
    let (history, recovery) = (
        &mut c.history_max_publication_limit,
        &mut c.recovery_max_publication_limit,
    );
    v.integer(
        "history_max_publication_limit",
        1,
        PUBLICATION_LIMIT_MAX,
        history,
    );
    v.integer(
        "recovery_max_publication_limit",
        1,
        PUBLICATION_LIMIT_MAX,
        recovery,
    );
    v.integer("json_depth_max", 1, JSON_DEPTH_MAX, &mut c.json_depth_max);
}

fn client_switches<V: Visit>(v: &mut V, c: &mut Client) {
    let (allow, disallow) = (
        &mut c.allow_anonymous_connect_without_token,
        &mut c.disallow_anonymous_connection_tokens,
    );
    v.text(
        "user_id_http_header",
        &HEADER_OR_NONE,
        &mut c.user_id_http_header,
    );
    v.boolean("allow_anonymous_connect_without_token", allow);
    v.boolean("disallow_anonymous_connection_tokens", disallow);
    v.boolean(
        "connect_include_server_time",
        &mut c.connect_include_server_time,
    );
    v.boolean("insecure", &mut c.insecure);
    v.boolean(
        "insecure_skip_token_signature_verify",
        &mut c.insecure_skip_token_signature_verify,
    );
}

fn token<V: Visit>(v: &mut V, token: &mut Token) {
    v.secret("hmac_secret_key", &mut token.hmac_secret_key);
    v.secret(
        "hmac_previous_secret_key",
        &mut token.hmac_previous_secret_key,
    );
    let until = &mut token.hmac_previous_secret_key_valid_until;
    v.integer(
        "hmac_previous_secret_key_valid_until",
        0,
        LAST_SECOND,
        until,
    );
    v.text("rsa_public_key", &RSA_KEY, &mut token.rsa_public_key);
    let (previous, until) = (
        &mut token.rsa_previous_public_key,
        &mut token.rsa_previous_public_key_valid_until,
    );
    v.text("rsa_previous_public_key", &RSA_KEY, previous);
    v.integer("rsa_previous_public_key_valid_until", 0, LAST_SECOND, until);
    v.text("ecdsa_public_key", &ECDSA_KEY, &mut token.ecdsa_public_key);
    let (previous, until) = (
        &mut token.ecdsa_previous_public_key,
        &mut token.ecdsa_previous_public_key_valid_until,
    );
    v.text("ecdsa_previous_public_key", &ECDSA_KEY, previous);
    v.integer(
        "ecdsa_previous_public_key_valid_until",
        0,
        LAST_SECOND,
        until,
    );
    v.text(
        "jwks_public_endpoint",
        &KEY_SET_URL,
        &mut token.jwks_public_endpoint,
    );
    v.text("audience", &TEXT, &mut token.audience);
    v.text("audience_regex", &PATTERN, &mut token.audience_regex);
    v.text("issuer", &TEXT, &mut token.issuer);
    v.text("issuer_regex", &PATTERN, &mut token.issuer_regex);
    v.text("user_id_claim", &CLAIM, &mut token.user_id_claim);
}

fn websocket<V: Visit>(v: &mut V, websocket: &mut WebSocket) {
    v.boolean("disabled", &mut websocket.disabled);
    v.text("handler_prefix", &PATH, &mut websocket.handler_prefix);
    v.integer(
        "message_size_limit",
        64,
        ECHO_MESSAGE_BYTES_MAX as u64,
        &mut websocket.message_size_limit,
    );
    v.boolean("compression", &mut websocket.compression);
    v.integer("compression_level", 1, 9, &mut websocket.compression_level);
    v.integer(
        "compression_min_size",
        0,
        ECHO_MESSAGE_BYTES_MAX as u64,
        &mut websocket.compression_min_size,
    );
    v.integer(
        "decompressed_message_size_limit",
        0,
        10 * ECHO_MESSAGE_BYTES_MAX as u64,
        &mut websocket.decompressed_message_size_limit,
    );
}

fn http_api<V: Visit>(v: &mut V, http_api: &mut HttpApi) {
    v.secret("key", &mut http_api.key);
    v.boolean("insecure", &mut http_api.insecure);
    v.boolean("external", &mut http_api.external);
    v.choice(
        "error_mode",
        &[("", false), ("transport", true)],
        &mut http_api.transport_errors,
    );
    let fresh = AccessKey::default();
    v.sections("keys", &fresh, &mut http_api.keys, |v, one| {
        access_key(v, one);
        v.list("methods", &API_METHOD, &mut one.methods);
        v.list("namespaces", &NAMESPACE_NAME_OR_NONE, &mut one.namespaces);
        one.seal();
    });
}

fn access_key<V: Visit>(v: &mut V, key: &mut AccessKey) {
    v.text("name", &KEY_NAME, &mut key.name);
    v.secret("key", &mut key.key);
    v.secret("hash", &mut key.hash);
    v.text("expires", &TIME_OR_NONE, &mut key.expires);
}

fn channel<V: Visit>(v: &mut V, rules: &mut ChannelRules) {
    v.integer(
        "max_length",
        1,
        CHANNEL_NAME_BYTES_MAX as u64,
        &mut rules.max_length,
    );
    v.text("private_prefix", &MARK_OR_NONE, &mut rules.private_prefix);
    v.text("namespace_boundary", &MARK, &mut rules.namespace_boundary);
    v.text("user_boundary", &MARK, &mut rules.user_boundary);
    v.text("user_separator", &MARK, &mut rules.user_separator);
    let most = CHANNELS_OWNED_MAX as u64;
    v.integer("owned_limit", 1, most, &mut rules.owned_limit);
    for (key, limit) in [
        ("new_rate_limit", &mut rules.new_rate_limit),
        (
            "new_rate_limit_per_user",
            &mut rules.new_rate_limit_per_user,
        ),
        (
            "new_rate_limit_per_prefix",
            &mut rules.new_rate_limit_per_prefix,
        ),
        ("kept_limit_per_user", &mut rules.kept_limit_per_user),
        ("kept_limit_per_prefix", &mut rules.kept_limit_per_prefix),
    ] {
        v.integer(key, 0, most, limit);
    }
    namespaces(v, rules);
}

/// The namespaces of `[channel]`, or of a set.
fn namespaces<V: Visit>(v: &mut V, rules: &mut ChannelRules) {
    // Two options have a default for all namespaces. It is not kept: every namespace has its own value.
    let mut fresh = Namespace::default();
    v.duration(
        "history_meta_ttl",
        HISTORY_META_TTL,
        &mut fresh.history_meta_ttl,
    );
    v.choice(
        "publication_data_format",
        DATA_FORMATS,
        &mut fresh.publication_data_format,
    );

    let mut without = if *rules.without_namespace == Namespace::default() {
        fresh.clone()
    } else {
        (*rules.without_namespace).clone()
    };
    v.section("without_namespace", |v| namespace(v, &mut without));
    rules.without_namespace = Arc::new(without);

    let mut namespaces: Vec<Namespace> =
        rules.namespaces.iter().map(|one| (**one).clone()).collect();
    v.sections("namespaces", &fresh, &mut namespaces, |v, one| {
        v.text("name", &NAMESPACE_NAME, &mut one.name);
        namespace(v, one);
    });
    rules.namespaces = namespaces.into_iter().map(Arc::new).collect();
    rules.seal();
}

/// Unix seconds, as TOML can write them.
const LAST_SECOND: u64 = i64::MAX as u64;
const HISTORY_META_TTL: Span = seconds(1, LONG_S);
const BATCH_DELAY: Span = or_off(millis(1, BATCH_DELAY_MAX.as_millis() as u64));
const DATA_FORMATS: &[(&str, DataFormat)] = &[
    ("", DataFormat::NotEmpty),
    ("json", DataFormat::Json),
    ("json_object", DataFormat::JsonObject),
    ("binary", DataFormat::Binary),
];
const SLOW_CONSUMERS: &[(&str, SlowConsumer)] = &[
    ("disconnect", SlowConsumer::Disconnect),
    ("drop_oldest", SlowConsumer::DropOldest),
    ("conflate", SlowConsumer::Conflate),
    ("degrade", SlowConsumer::Degrade),
];

/// The options that `namespace::OPTIONS` lists, in its order.
pub(super) fn namespace<V: Visit>(v: &mut V, ns: &mut Namespace) {
    durable::delivery(v, ns);
    options(v, ns);
    durable::rules(v, ns);
}

fn options<V: Visit>(v: &mut V, ns: &mut Namespace) {
    v.boolean("presence", &mut ns.presence);
    v.boolean("join_leave", &mut ns.join_leave);
    v.boolean("force_push_join_leave", &mut ns.force_push_join_leave);
    v.integer("join_leave_rate", 0, 1_000_000, &mut ns.join_leave_rate);
    v.integer("history_size", 0, 1_000_000, &mut ns.history_size);
    v.duration(
        "history_ttl",
        or_off(seconds(1, LONG_S)),
        &mut ns.history_ttl,
    );
    v.duration(
        "history_meta_ttl",
        HISTORY_META_TTL,
        &mut ns.history_meta_ttl,
    );
    v.boolean("force_positioning", &mut ns.force_positioning);
    v.boolean("allow_positioning", &mut ns.allow_positioning);
    v.boolean("force_recovery", &mut ns.force_recovery);
    v.boolean("allow_recovery", &mut ns.allow_recovery);
    permissions(v, ns);
    v.choice(
        "publication_data_format",
        DATA_FORMATS,
        &mut ns.publication_data_format,
    );
    outbox(v, ns);
    v.integer(
        "size_max",
        0,
        ECHO_MESSAGE_BYTES_MAX as u64,
        &mut ns.size_max,
    );
    v.integer("rate", 0, 1_000_000, &mut ns.rate);
    v.duration(
        "idempotency_ttl",
        seconds(1, DAY_S),
        &mut ns.idempotency_ttl,
    );
    recovery_and_delta(v, ns);
    hooks::of_namespace(v, ns);
}

fn outbox<V: Visit>(v: &mut V, ns: &mut Namespace) {
    v.choice("slow_consumer", SLOW_CONSUMERS, &mut ns.slow_consumer);
    v.text("conflate_key", &CONFLATE_KEY, &mut ns.conflate_key);
    v.integer(
        "outbox_bytes_max",
        0,
        BACKLOG_BYTES_MAX as u64,
        &mut ns.outbox_bytes_max,
    );
    v.duration(
        "outbox_age_max",
        or_off(millis(100, HOUR_MS)),
        &mut ns.outbox_age_max,
    );
}

fn recovery_and_delta<V: Visit>(v: &mut V, ns: &mut Namespace) {
    const MODES: &[(&str, RecoveryMode)] = &[
        ("stream", RecoveryMode::Stream),
        ("cache", RecoveryMode::Cache),
    ];
    v.choice("force_recovery_mode", MODES, &mut ns.force_recovery_mode);
    v.boolean("auto_cache_recover", &mut ns.auto_cache_recover);
    v.list(
        "allowed_delta_types",
        &DELTA_TYPE,
        &mut ns.allowed_delta_types,
    );
    v.boolean("delta_publish", &mut ns.delta_publish);
    v.boolean("allow_tags_filter", &mut ns.allow_tags_filter);
    v.boolean("publication_time", &mut ns.publication_time);
    v.duration("batch_max_delay", BATCH_DELAY, &mut ns.batch_max_delay);
    v.integer(
        "batch_max_size",
        0,
        u64::from(BATCH_PUBLICATIONS_MAX),
        &mut ns.batch_max_size,
    );
    v.boolean("batch_flush_latest", &mut ns.batch_flush_latest);
    v.text("channel_regex", &PATTERN, &mut ns.channel_regex);
}

fn permissions<V: Visit>(v: &mut V, ns: &mut Namespace) {
    v.boolean(
        "allow_subscribe_for_client",
        &mut ns.allow_subscribe_for_client,
    );
    v.boolean(
        "allow_subscribe_for_anonymous",
        &mut ns.allow_subscribe_for_anonymous,
    );
    v.boolean("allow_publish_for_client", &mut ns.allow_publish_for_client);
    v.boolean(
        "allow_publish_for_subscriber",
        &mut ns.allow_publish_for_subscriber,
    );
    v.boolean(
        "allow_publish_for_anonymous",
        &mut ns.allow_publish_for_anonymous,
    );
    v.boolean("allow_history_for_client", &mut ns.allow_history_for_client);
    v.boolean(
        "allow_history_for_subscriber",
        &mut ns.allow_history_for_subscriber,
    );
    v.boolean(
        "allow_history_for_anonymous",
        &mut ns.allow_history_for_anonymous,
    );
    v.boolean(
        "allow_presence_for_client",
        &mut ns.allow_presence_for_client,
    );
    v.boolean(
        "allow_presence_for_subscriber",
        &mut ns.allow_presence_for_subscriber,
    );
    v.boolean(
        "allow_presence_for_anonymous",
        &mut ns.allow_presence_for_anonymous,
    );
    v.boolean(
        "allow_user_limited_channels",
        &mut ns.allow_user_limited_channels,
    );
}

fn drain<V: Visit>(v: &mut V, drain: &mut Drain) {
    v.duration("notice", millis(0, HOUR_MS), &mut drain.notice);
    v.duration("window", millis(0, HOUR_MS), &mut drain.window);
    v.duration("grace", millis(0, HOUR_MS), &mut drain.grace);
    v.duration("deadline", millis(0, 3 * HOUR_MS), &mut drain.deadline);
}

fn log<V: Visit>(v: &mut V, log: &mut Log) {
    const LEVELS: [&str; 4] = ["error", "warn", "info", "debug"];
    const FORMATS: &[(&str, LogFormat)] = &[
        ("auto", LogFormat::Auto),
        ("human", LogFormat::Human),
        ("json", LogFormat::Json),
    ];
    let mut level = LEVELS
        .iter()
        .find(|level| **level == log.level)
        .copied()
        .unwrap_or("info");
    v.choice("level", &LEVELS.map(|level| (level, level)), &mut level);
    level.clone_into(&mut log.level);
    v.choice("format", FORMATS, &mut log.format);
}
