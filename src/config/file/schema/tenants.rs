//! `[[channel_sets]]` and `[[tenants]]`.

use std::sync::Arc;

use super::super::super::{AccessKey, ChannelSet, Tenant, TenantLimits, Tenants, WhenOverRate};
use super::super::form::{
    API_METHOD, HOST_NAME, KEY_NAME, NAMESPACE_NAME_OR_NONE, ORIGIN, TENANT_ID, TEXT, millis,
};
use super::super::hooks;
use super::super::visit::Visit;
use super::RATE_LIMIT_MAX;
use super::{access_key, namespaces, token};
use crate::limits::TENANT_WEIGHT_MAX;

pub(super) fn channel_sets<V: Visit>(v: &mut V, sets: &mut Vec<ChannelSet>) {
    v.sections("channel_sets", &ChannelSet::default(), sets, |v, set| {
        v.text("name", &KEY_NAME, &mut set.name);
        namespaces(v, &mut set.rules);
    });
}

pub(in crate::config::file) fn tenants<V: Visit>(v: &mut V, tenants: &mut Tenants) {
    let mut list: Vec<Tenant> = tenants.list.iter().map(|one| (**one).clone()).collect();
    v.sections("tenants", &Tenant::default(), &mut list, |v, one| {
        v.text("id", &TENANT_ID, &mut one.id);
        v.list("hosts", &HOST_NAME, &mut one.hosts);
        v.text("channel_set", &TEXT, &mut one.channel_set);
        v.integer("weight", 1, TENANT_WEIGHT_MAX.into(), &mut one.weight);
        v.list("allowed_origins", &ORIGIN, &mut one.allowed_origins);
        v.section("token", |v| token(v, &mut one.token));
        v.section("limits", |v| limits(v, Arc::make_mut(&mut one.limits)));
        v.sections("keys", &AccessKey::default(), &mut one.keys, |v, key| {
            access_key(v, key);
            v.list("methods", &API_METHOD, &mut key.methods);
            v.list("namespaces", &NAMESPACE_NAME_OR_NONE, &mut key.namespaces);
            key.seal_for_tenant();
        });
        hooks::proxies(v, &mut one.proxies);
    });
    tenants.list = list.into_iter().map(Arc::new).collect();
}

const WHEN_OVER_RATE: &[(&str, WhenOverRate)] = &[
    ("reject", WhenOverRate::Reject),
    ("queue", WhenOverRate::Queue),
];

fn limits<V: Visit>(v: &mut V, limits: &mut TenantLimits) {
    let l = limits;
    let many = u64::from(u32::MAX);
    v.integer("connections_max", 0, many, &mut l.connections_max);
    v.integer("connect_rate", 0, RATE_LIMIT_MAX, &mut l.connect_rate);
    v.integer("connect_burst", 0, RATE_LIMIT_MAX, &mut l.connect_burst);
    v.integer("publish_rate", 0, RATE_LIMIT_MAX, &mut l.publish_rate);
    v.integer("publish_burst", 0, RATE_LIMIT_MAX, &mut l.publish_burst);
    v.integer("publish_bytes_rate", 0, many, &mut l.publish_bytes_rate);
    v.integer("publish_bytes_burst", 0, many, &mut l.publish_bytes_burst);
    v.integer("append_rate", 0, RATE_LIMIT_MAX, &mut l.append_rate);
    v.integer("append_burst", 0, RATE_LIMIT_MAX, &mut l.append_burst);
    v.integer("deliver_rate", 0, many, &mut l.deliver_rate);
    v.integer("deliver_burst", 0, many, &mut l.deliver_burst);
    v.integer("subscriptions_max", 0, 65_535, &mut l.subscriptions_max);
    v.integer("channels_max", 0, many, &mut l.channels_max);
    v.integer("channel_rate", 0, RATE_LIMIT_MAX, &mut l.channel_rate);
    v.integer("channel_burst", 0, RATE_LIMIT_MAX, &mut l.channel_burst);
    v.integer("history_bytes_max", 0, 1 << 40, &mut l.history_bytes_max);
    v.integer("calls_max", 0, many, &mut l.calls_max);
    v.integer("queue_groups_max", 0, many, &mut l.queue_groups_max);
    v.integer("message_size_max", 0, many, &mut l.message_size_max);
    v.choice("when_over_rate", WHEN_OVER_RATE, &mut l.when_over_rate);
    v.duration(
        "over_rate_wait_max",
        millis(1, 20_000),
        &mut l.over_rate_wait_max,
    );
}
