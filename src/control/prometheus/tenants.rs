//! What tenants have and how often a limit of theirs said no. Those of which nobody has had anything yet are not shown.

use std::collections::BTreeMap;

use super::{head, line};
use crate::config::TenantRules;
use crate::mem::{Quota, QuotaLimit};

/// A number of a tenant: name, kind, help, access.
type TenantNumber = (&'static str, &'static str, &'static str, fn(&Quota) -> u64);

const TENANTS: [TenantNumber; 8] = [
    (
        "tenant_connections",
        "gauge",
        "Clients of the tenant that are connected.",
        |quota| quota.connections.taken(),
    ),
    (
        "tenant_channels",
        "gauge",
        "Channels of the tenant that shards keep something of.",
        |quota| quota.channels.taken(),
    ),
    (
        "tenant_history_bytes",
        "gauge",
        "Payload bytes in the histories of the tenant's channels.",
        |quota| quota.history_bytes.get(),
    ),
    (
        "tenant_calls",
        "gauge",
        "Calls of the tenant's clients to backends under way.",
        |quota| quota.calls.taken(),
    ),
    (
        "tenant_publications_total",
        "counter",
        "Publications that the tenant's rates let pass.",
        |quota| quota.publications.get(),
    ),
    (
        "tenant_publication_bytes_total",
        "counter",
        "Bytes of the payloads of these.",
        |quota| quota.publication_bytes.get(),
    ),
    (
        "tenant_late_total",
        "counter",
        "Of these, publications that waited for a rate.",
        |quota| quota.late.get(),
    ),
    (
        "tenant_deliveries_total",
        "counter",
        "Publications given to subscribers of the tenant, counted for each subscriber.",
        |quota| quota.deliveries.get(),
    ),
];

pub(super) fn tenants(out: &mut String, tenants: &BTreeMap<Box<str>, TenantRules>) {
    let quotas = tenants.iter().map(|(tenant, own)| (tenant, &*own.quota));
    let tenants: Vec<(_, &Quota)> = quotas.filter(|(_, quota)| !quota.is_unused()).collect();
    if tenants.is_empty() {
        return;
    }
    for (name, kind, help, of) in TENANTS {
        let name = format!("ringmain_{name}");
        head(out, &name, kind, help);
        for (tenant, quota) in &tenants {
            let count = of(quota);
            line(out, format_args!("{name}{{tenant=\"{tenant}\"}} {count}"));
        }
    }
    let name = "ringmain_tenant_refused_total";
    let help = "Times that a limit of the tenant said no, by the key of the limit.";
    head(out, name, "counter", help);
    for (tenant, quota) in &tenants {
        for limit in QuotaLimit::ALL {
            let (key, count) = (limit.key(), quota.refused(limit));
            if count > 0 {
                let labels = format_args!("tenant=\"{tenant}\",limit=\"{key}\"");
                line(out, format_args!("{name}{{{labels}}} {count}"));
            }
        }
    }
}
