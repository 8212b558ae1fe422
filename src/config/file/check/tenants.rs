//! What one tenant, or one set of namespaces, cannot tell alone.

use std::collections::BTreeMap;

use super::super::super::{Config, Namespace, Tenant};
use super::super::reader::Keys;
use super::super::{ConfigError, ValueOrigin};
use super::reach::unworkable;
use crate::limits::{CHANNEL_SETS_MAX, TENANTS_MAX};

/// Adds everything that does not fit together.
pub(super) fn check(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    sets(config, keys, errors);
    let list = &config.tenants.list;
    if list.len() > TENANTS_MAX {
        let why = format!("a node has at most {TENANTS_MAX} tenants");
        unworkable("tenants", why, keys, errors);
    }
    let mut ids = Seen::new("tenants", "id");
    let mut hosts = Seen::new("tenants", "hosts");
    let mut issuers = Seen::new("tenants", "token.issuer");
    for (at, tenant) in list.iter().enumerate() {
        ids.required(at, &tenant.id, keys, errors);
        for (index, host) in tenant.hosts.iter().enumerate() {
            hosts.unlike(&format!("tenants[{at}].hosts[{index}]"), host, keys, errors);
        }
        let issuer = format!("tenants[{at}].token.issuer");
        issuers.unlike(&issuer, &tenant.token.issuer, keys, errors);
        one(config, at, tenant, keys, errors);
    }
}

fn one(config: &Config, at: usize, tenant: &Tenant, keys: &Keys, errors: &mut Vec<ConfigError>) {
    let path = |name: &str| format!("tenants[{at}].{name}");
    let set = &tenant.channel_set;
    if !set.is_empty() && !config.channel_sets.iter().any(|one| one.name == *set) {
        let why = "there is no table of `channel_sets` with this name".to_owned();
        unworkable(&path("channel_set"), why, keys, errors);
    }
    let sets = &config.channel_sets;
    let personal = config.client.user_personal_channel.as_deref();
    if let Some(name) = personal.filter(|name| !name.is_empty())
        && let Some(own) = sets.iter().find(|one| one.name == *set)
        && own.rules.namespaces.iter().all(|one| one.name != name)
    {
        let why = format!(
            "its set has no namespace {name:?}, where client.subscribe_to_user_personal_channel puts every user: no client of this tenant could connect"
        );
        unworkable(&path("channel_set"), why, keys, errors);
    }
    for (index, host) in tenant.hosts.iter().enumerate() {
        if host.starts_with('*') && !host.starts_with("*.") {
            let why = "a star stands for whole parts of a name: write \"*.example.com\"".to_owned();
            unworkable(&path(&format!("hosts[{index}]")), why, keys, errors);
        }
    }
    if tenant.token.issuer_regex.is_some() {
        let why = "tokens lead to a tenant by their whole issuer: use `issuer`".to_owned();
        unworkable(&path("token.issuer_regex"), why, keys, errors);
    }
    super::token(&path("token"), &tenant.token, keys, errors);
}

fn sets(config: &Config, keys: &Keys, errors: &mut Vec<ConfigError>) {
    if config.channel_sets.len() > CHANNEL_SETS_MAX {
        let why = format!("there are at most {CHANNEL_SETS_MAX} sets");
        unworkable("channel_sets", why, keys, errors);
    }
    let mut names = Seen::new("channel_sets", "name");
    for (at, set) in config.channel_sets.iter().enumerate() {
        names.required(at, &set.name, keys, errors);
        let path = format!("channel_sets[{at}]");
        let without = (
            format!("{path}.without_namespace"),
            &set.rules.without_namespace,
        );
        let members = set.rules.namespaces.iter().enumerate();
        let members = members.map(|(at, one)| (format!("{path}.namespaces[{at}]"), one));
        for (path, namespace) in std::iter::once(without).chain(members) {
            if let Some(option) = of_the_whole_node(namespace) {
                let why = "it is for namespaces of `channel`, which tenants share".to_owned();
                unworkable(&format!("{path}.{option}"), why, keys, errors);
            }
        }
    }
}

/// An option that works on the whole log, whoever's its channels are.
fn of_the_whole_node(namespace: &Namespace) -> Option<&'static str> {
    let plain = Namespace::default();
    Some(match namespace {
        one if one.triggers != plain.triggers => "triggers",
        one if one.schema != plain.schema => "schema",
        one if one.kept != plain.kept => "retention_age",
        one if one.compact_by != plain.compact_by => "compact_by",
        _ => return None,
    })
}

/// What may stand once only.
struct Seen {
    table: &'static str,
    member: &'static str,
    first: BTreeMap<String, String>,
}

impl Seen {
    fn new(table: &'static str, member: &'static str) -> Self {
        let first = BTreeMap::new();
        Self {
            table,
            member,
            first,
        }
    }

    /// A name without which the table is none.
    fn required(&mut self, at: usize, value: &str, keys: &Keys, errors: &mut Vec<ConfigError>) {
        let table = format!("{}[{at}]", self.table);
        let key = format!("{table}.{}", self.member);
        if !value.is_empty() {
            return self.unlike(&key, value, keys, errors);
        }
        // What was refused stands somewhere; what is missing does not.
        if keys.origin(&key) == ValueOrigin::BuiltIn {
            errors.push(ConfigError::Missing {
                origin: keys.origin(&table),
                key,
            });
        }
    }

    fn unlike(&mut self, key: &str, value: &str, keys: &Keys, errors: &mut Vec<ConfigError>) {
        if value.is_empty() {
            return;
        }
        if let Some(first) = self.first.insert(value.to_owned(), key.to_owned()) {
            errors.push(ConfigError::Repeated {
                origin: keys.origin(key),
                key: key.to_owned(),
                first: keys.origin(&first),
            });
        }
    }
}
