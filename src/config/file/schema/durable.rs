//! `[durable]`, `[queue]`, and what a namespace says about both.

use std::time::Duration;

use super::super::super::durable::{Durable, Engine, Expired, Push, Queue, SchemaVersion, Trigger};
use super::super::super::namespace::{Delivery, Namespace};
use super::super::form::{
    FILE, FILE_OR_NONE, JOIN_KEY, LANE_WEIGHT, LONG_S, QUEUE_GROUP, SERVER, TAG_NAME, TEXT,
    TRIGGER_NAME, TURN_KEY, millis, or_off, seconds,
};
use super::Visit;
use crate::limits::{
    GROUP_ATTEMPTS_MAX, JOIN_PARTS_MAX, JOIN_WITHIN_MAX, LOG_SCHEDULED_MAX, PUBLISH_DELAY_MAX,
    PUBLISH_TTL_MAX, PUSH_BATCH_MAX, PUSH_CALLS_MAX,
};

/// In memory of a durable channel, unless the file says otherwise.
const WINDOW: u32 = 256;
/// … for how long.
const WINDOW_TTL: Duration = Duration::from_mins(5);
/// Longest life of what a trigger appends.
const TTL_MS: u64 = PUBLISH_TTL_MAX.as_millis() as u64;
/// … and its longest delay.
const DELAY_MS: u64 = PUBLISH_DELAY_MAX.as_millis() as u64;
/// Life of a durable channel's idempotency keys.
const KEY_TTL: Duration = Duration::from_hours(24);

pub(super) fn durable<V: Visit>(v: &mut V, durable: &mut Durable) {
    const ENGINES: &[(&str, Engine)] = &[("embedded", Engine::Embedded), ("nats", Engine::Nats)];
    v.choice("engine", ENGINES, &mut durable.engine);
    v.duration(
        "retention_age",
        seconds(60, LONG_S),
        &mut durable.retention_age,
    );
    v.integer(
        "retention_bytes",
        0,
        u64::MAX / 2,
        &mut durable.retention_bytes,
    );
    v.duration(
        "append_timeout",
        millis(100, 120_000),
        &mut durable.append_timeout,
    );
    v.integer(
        "scheduled_max",
        0,
        LOG_SCHEDULED_MAX,
        &mut durable.scheduled_max,
    );
    v.section("embedded", |v| {
        v.text("directory", &FILE, &mut durable.embedded.directory);
        v.boolean("create", &mut durable.embedded.create);
        v.integer(
            "cache_bytes",
            1 << 20,
            1 << 40,
            &mut durable.embedded.cache_bytes,
        );
    });
    v.section("nats", |v| {
        let nats = &mut durable.nats;
        v.list("servers", &SERVER, &mut nats.servers);
        v.text("user", &TEXT, &mut nats.user);
        v.secret("password", &mut nats.password);
        v.secret("token", &mut nats.token);
        v.text("credentials", &FILE_OR_NONE, &mut nats.credentials);
        v.text("tls_ca", &FILE_OR_NONE, &mut nats.tls_ca);
        v.text("stream", &TRIGGER_NAME, &mut nats.stream);
        v.boolean("create", &mut nats.create);
        v.text("subject_prefix", &TRIGGER_NAME, &mut nats.subject_prefix);
        v.integer("replicas", 1, 5, &mut nats.replicas);
        v.boolean("memory_storage", &mut nats.memory_storage);
        v.duration(
            "duplicate_window",
            millis(100, 86_400_000),
            &mut nats.duplicate_window,
        );
    });
}

pub(super) fn queue<V: Visit>(v: &mut V, queue: &mut Queue) {
    v.text("dead_letter_hook", &TEXT, &mut queue.dead_letter_hook);
    v.duration(
        "dead_letter_retention",
        or_off(seconds(1, LONG_S)),
        &mut queue.dead_letter_retention,
    );
    let most = u64::MAX / 2;
    v.integer("dead_letters_max", 0, most, &mut queue.dead_letters_max);
    v.integer(
        "dead_letters_bytes_max",
        0,
        most,
        &mut queue.dead_letters_bytes_max,
    );
    v.sections("push", &Push::default(), &mut queue.push, push);
}

fn push<V: Visit>(v: &mut V, push: &mut Push) {
    const FROM: &[(&str, bool)] = &[("beginning", false), ("new", true)];
    v.text("group", &QUEUE_GROUP, &mut push.group);
    v.list("channels", &TEXT, &mut push.channels);
    v.text("target", &TEXT, &mut push.target);
    v.integer("batch", 1, u64::from(PUSH_BATCH_MAX), &mut push.batch);
    let calls = u64::from(PUSH_CALLS_MAX);
    v.integer("concurrency", 1, calls, &mut push.concurrency);
    v.choice("from", FROM, &mut push.from_new);
    v.duration("ack_wait", millis(1000, 43_200_000), &mut push.ack_wait);
    let attempts = u64::from(GROUP_ATTEMPTS_MAX);
    v.integer("max_attempts", 1, attempts, &mut push.max_attempts);
    v.boolean("ordered", &mut push.ordered);
    v.text("condition", &TEXT, &mut push.condition);
    v.texts("tags", &TAG_NAME, &TEXT, &mut push.tags);
    v.text("key", &TURN_KEY, &mut push.key);
    v.integer("key_concurrency", 0, 1_000_000, &mut push.key_concurrency);
    v.integer("key_rate", 0, 1_000_000, &mut push.key_rate);
    v.section("lanes", |v| {
        v.text("by", &TURN_KEY, &mut push.lanes_by);
        v.list("weights", &LANE_WEIGHT, &mut push.lanes_weights);
    });
    v.section("backoff", |v| {
        v.duration(
            "base",
            or_off(millis(1, 43_200_000)),
            &mut push.backoff_base,
        );
        v.integer("factor", 1, 100, &mut push.backoff_factor);
        v.duration("cap", or_off(millis(1, 43_200_000)), &mut push.backoff_cap);
    });
}

/// What is promised of a namespace's publications, and the defaults that follow from it.
pub(super) fn delivery<V: Visit>(v: &mut V, namespace: &mut Namespace) {
    const DELIVERIES: &[(&str, Delivery)] = &[
        ("ephemeral", Delivery::Ephemeral),
        ("durable", Delivery::Durable),
    ];
    v.choice("delivery", DELIVERIES, &mut namespace.delivery);
    if v.reads() && namespace.is_durable() {
        namespace.history_size = WINDOW;
        namespace.history_ttl = WINDOW_TTL;
        namespace.idempotency_ttl = KEY_TTL;
        namespace.force_recovery = true;
    }
}

/// Retention, schemas and triggers of a namespace.
pub(super) fn rules<V: Visit>(v: &mut V, namespace: &mut Namespace) {
    const EXPIRED: &[(&str, Expired)] = &[
        ("drop", Expired::Drop),
        ("dead_letter", Expired::DeadLetter),
    ];
    let kept = &mut namespace.kept;
    v.duration("retention_age", or_off(seconds(1, LONG_S)), &mut kept.age);
    v.integer("retention_bytes", 0, u64::MAX / 2, &mut kept.bytes);
    v.integer("retention_count", 0, u64::MAX / 2, &mut kept.count);
    v.text("compact_by", &TURN_KEY, &mut namespace.compact_by);
    v.duration(
        "compact_after",
        or_off(millis(1, 86_400_000)),
        &mut namespace.compact_after,
    );
    v.choice("expired", EXPIRED, &mut kept.expired);
    v.section("schema", |v| {
        v.boolean("required", &mut namespace.schema.required);
        let fresh = SchemaVersion::default();
        v.sections(
            "versions",
            &fresh,
            &mut namespace.schema.accepted,
            |v, one| {
                v.integer("version", 1, u64::from(u32::MAX), &mut one.version);
                v.text("json_schema", &TEXT, &mut one.json_schema);
            },
        );
    });
    let fresh = Trigger::default();
    v.sections("triggers", &fresh, &mut namespace.triggers, |v, one| {
        v.text("name", &TRIGGER_NAME, &mut one.name);
        v.text("channels", &TEXT, &mut one.channels);
        v.text("condition", &TEXT, &mut one.condition);
        v.text("append", &TEXT, &mut one.append);
        v.text("hook", &TEXT, &mut one.hook);
        v.duration("delay", millis(0, DELAY_MS), &mut one.delay);
        v.duration("ttl", millis(0, TTL_MS), &mut one.ttl);
        v.section("join", |v| {
            let join = &mut one.join;
            v.text("by", &JOIN_KEY, &mut join.by);
            v.integer("count", 0, u64::from(JOIN_PARTS_MAX), &mut join.count);
            v.text("expected", &JOIN_KEY, &mut join.expected);
            let longest = JOIN_WITHIN_MAX.as_secs();
            v.duration("within", or_off(seconds(1, longest)), &mut join.within);
        });
    });
}
