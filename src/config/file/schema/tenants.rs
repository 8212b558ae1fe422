//! `[[channel_sets]]` and `[[tenants]]`.

use std::sync::Arc;

use super::super::super::{AccessKey, ChannelSet, Tenant, Tenants};
use super::super::form::{
    API_METHOD, HOST_NAME, KEY_NAME, NAMESPACE_NAME_OR_NONE, ORIGIN, TENANT_ID, TEXT,
};
use super::super::visit::Visit;
use super::{access_key, namespaces, token};
use crate::limits::TENANT_WEIGHT_MAX;

pub(super) fn channel_sets<V: Visit>(v: &mut V, sets: &mut Vec<ChannelSet>) {
    v.sections("channel_sets", &ChannelSet::default(), sets, |v, set| {
        v.text("name", &KEY_NAME, &mut set.name);
        namespaces(v, &mut set.rules);
    });
}

pub(super) fn tenants<V: Visit>(v: &mut V, tenants: &mut Tenants) {
    let mut list: Vec<Tenant> = tenants.list.iter().map(|one| (**one).clone()).collect();
    v.sections("tenants", &Tenant::default(), &mut list, |v, one| {
        v.text("id", &TENANT_ID, &mut one.id);
        v.list("hosts", &HOST_NAME, &mut one.hosts);
        v.text("channel_set", &TEXT, &mut one.channel_set);
        v.integer("weight", 1, TENANT_WEIGHT_MAX.into(), &mut one.weight);
        v.list("allowed_origins", &ORIGIN, &mut one.allowed_origins);
        v.section("token", |v| token(v, &mut one.token));
        v.sections("keys", &AccessKey::default(), &mut one.keys, |v, key| {
            access_key(v, key);
            v.list("methods", &API_METHOD, &mut key.methods);
            v.list("namespaces", &NAMESPACE_NAME_OR_NONE, &mut key.namespaces);
            key.seal_for_tenant();
        });
    });
    tenants.list = list.into_iter().map(Arc::new).collect();
}
