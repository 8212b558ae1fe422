//! Tenants: isolated customers of the proxy, each with keys, names and channels of its own (`[[tenants]]`).

mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::access::{self, AccessKey, KeyDigest, KeyVerdict};
use super::hooks::Target;
use super::namespace::ServerNameError;
use super::{ChannelRules, Glob, Namespace, ResolveError, Secret, Token};
use crate::mem::Quota;
use crate::model::{ChannelName, TenantId, Weights, tenant};

pub use limits::{TenantLimits, WhenOverRate};

/// Stands before the id of a tenant in a path.
const PATH_PREFIX: &str = "/t/";

/// What stands before a path that means a tenant.
#[must_use]
pub fn path_of(tenant: TenantId<'_>) -> String {
    match tenant.is_default() {
        true => String::new(),
        false => format!("{PATH_PREFIX}{tenant}"),
    }
}

/// One of `[[tenants]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Unique: lower-case letters, digits and `-`, up to `limits::TENANT_ID_BYTES_MAX`.
    pub id: String,
    /// Names under which its clients and services come, in lower case: exact, or `*.example.com`.
    pub hosts: Vec<String>,
    /// `channel_sets` name of its namespaces; empty for those of `[channel]`.
    pub channel_set: String,
    /// Origins of its pages; empty leaves `client.allowed_origins`.
    pub allowed_origins: Vec<Glob>,
    /// Keys of its connection and subscription tokens. A token whose `iss` is `token.issuer` is its.
    pub token: Token,
    /// Keys of the server API that act for it, and for nobody else.
    pub keys: Vec<AccessKey>,
    /// What it gets of that which tenants share, beside one with 1: 1 up to `limits::TENANT_WEIGHT_MAX`.
    pub weight: u32,
    /// What it may have, and how fast it may go.
    pub limits: Arc<TenantLimits>,
    /// Who is asked about its clients in place of the target with the same name.
    pub proxies: Vec<Arc<Target>>,
}

impl Default for Tenant {
    fn default() -> Self {
        Self {
            id: String::new(),
            hosts: Vec::new(),
            channel_set: String::new(),
            allowed_origins: Vec::new(),
            token: Token::default(),
            keys: Vec::new(),
            weight: 1,
            limits: Arc::default(),
            proxies: Vec::new(),
        }
    }
}

/// One of `[[channel_sets]]`: namespaces that tenants have in place of those of `[channel]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChannelSet {
    /// Unique.
    pub name: String,
    /// Its rules. Marks and limits are those of `[channel]`.
    pub rules: ChannelRules,
}

/// What a tenant may do, and what it has done.
#[derive(Clone, Debug)]
pub struct TenantRules {
    /// Its namespaces.
    pub rules: Arc<ChannelRules>,
    /// What it may have.
    pub limits: Arc<TenantLimits>,
    /// What all shards have taken of that, the same over all configurations that have this tenant.
    pub quota: Arc<Quota>,
}

/// What it has done says nothing of the configuration.
impl PartialEq for TenantRules {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules && self.limits == other.limits
    }
}

impl Eq for TenantRules {}

/// All of them, and the ways to one.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    /// Ascending by id.
    pub list: Vec<Arc<Tenant>>,
    hosts: BTreeMap<Box<str>, u32>,
    /// `example.com` of `*.example.com`.
    domains: BTreeMap<Box<str>, u32>,
    issuers: BTreeMap<Box<str>, u32>,
    keys: BTreeMap<KeyDigest, (u32, u32)>,
    /// What each gets of that which they share.
    pub weights: Arc<Weights>,
    /// Headers of requests that some target of a tenant wants.
    pub(super) http_headers: BTreeSet<String>,
    /// Headers of connect commands, likewise.
    pub(super) emulated_headers: BTreeSet<String>,
    /// Rules for those who are no tenant any more.
    pub(super) nobodys: ChannelRules,
}

/// What follows from the list says nothing of its own.
impl PartialEq for Tenants {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Tenants {}

impl Tenants {
    /// These, without the ways to them.
    pub(super) fn plain(list: Vec<Arc<Tenant>>) -> Self {
        Self {
            list,
            ..Self::default()
        }
    }

    /// Sorts them, gives each its channels, and makes the ways to them. Everything was checked.
    pub(super) fn seal(&mut self, channels: &mut ChannelRules, sets: &[ChannelSet]) {
        channels.tenants = Arc::default();
        let common = Arc::new(channels.clone());
        let rules: BTreeMap<&str, Arc<ChannelRules>> = sets
            .iter()
            .map(|set| (set.name.as_str(), Arc::new(set.rules.under(channels))))
            .collect();
        let of = |tenant: &Arc<Tenant>| {
            let rules = rules.get(tenant.channel_set.as_str()).unwrap_or(&common);
            let own = TenantRules {
                rules: Arc::clone(rules),
                limits: Arc::clone(&tenant.limits),
                quota: Arc::default(),
            };
            (tenant.id.as_str().into(), own)
        };
        channels.tenants = Arc::new(self.list.iter().map(of).collect());
        self.list.sort_by(|a, b| a.id.cmp(&b.id));
        let place = |at: usize| u32::try_from(at).expect("bounded by `limits::TENANTS_MAX`");
        let weights = self
            .list
            .iter()
            .map(|one| (one.id.as_str().into(), one.weight));
        self.weights = Arc::new(weights.collect());
        (self.hosts, self.domains, self.issuers) = Default::default();
        self.keys = BTreeMap::default();
        let proxies = || self.list.iter().flat_map(|tenant| &tenant.proxies);
        let http = proxies().flat_map(|target| target.http_headers.clone());
        let emulated = proxies().flat_map(|target| target.emulated_headers.clone());
        (self.http_headers, self.emulated_headers) = (http.collect(), emulated.collect());
        for (at, tenant) in self.list.iter().enumerate() {
            for host in &tenant.hosts {
                match host.strip_prefix("*.") {
                    Some(domain) => self.domains.insert(domain.into(), place(at)),
                    None => self.hosts.insert(host.as_str().into(), place(at)),
                };
            }
            if !tenant.token.issuer.is_empty() {
                let issuer = tenant.token.issuer.as_str().into();
                self.issuers.insert(issuer, place(at));
            }
            for (index, key) in tenant.keys.iter().enumerate() {
                if let Some(digest) = key.digest() {
                    self.keys.insert(digest.clone(), (place(at), place(index)));
                }
            }
        }
    }

    /// The tenant with this id; `default` is none of them.
    #[must_use]
    pub fn get(&self, id: TenantId<'_>) -> Option<&Arc<Tenant>> {
        let by_id = |tenant: &Arc<Tenant>| tenant.id.as_str().cmp(id.as_str());
        let at = self.list.binary_search_by(by_id).ok()?;
        self.list.get(at)
    }

    /// Are there any beside `default`?
    #[must_use]
    pub fn are_configured(&self) -> bool {
        !self.list.is_empty()
    }

    /// Whose a request to this host is; `None` where the host is nobody's own.
    #[must_use]
    pub fn of_host(&self, host: &str) -> Option<&Arc<Tenant>> {
        if self.hosts.is_empty() && self.domains.is_empty() {
            return None;
        }
        let name = super::host::name(host).to_ascii_lowercase();
        let above = || {
            let mut rest = name.as_str();
            std::iter::from_fn(move || {
                rest = rest.split_once('.')?.1;
                Some(rest)
            })
        };
        let exact = self.hosts.get(name.as_str());
        let at = exact.or_else(|| above().find_map(|domain| self.domains.get(domain)));
        at.and_then(|&at| self.list.get(at as usize))
    }

    /// Whose a request is, by its host and by a path such as `/t/acme/api`, and the rest of the path. Empty-handed where there is no
    /// such tenant, or where the two are not one.
    #[must_use]
    pub fn of_request<'p>(
        &self,
        host: Option<&str>,
        path: &'p str,
    ) -> Option<(Option<&Arc<Tenant>>, &'p str)> {
        if self.list.is_empty() {
            return Some((None, path));
        }
        let by_host = host.and_then(|host| self.of_host(host));
        let Some(rest) = path.strip_prefix(PATH_PREFIX) else {
            return Some((by_host, path));
        };
        let id = rest.split('/').next().unwrap_or_default();
        let by_path = match id {
            tenant::DEFAULT => None,
            id => Some(self.get(TenantId::new(id))?),
        };
        let is_one = by_host.is_none_or(|own| by_path.is_some_and(|asked| asked.id == own.id));
        is_one.then_some((by_path, &rest[id.len()..]))
    }

    /// Whose tokens name this issuer.
    #[must_use]
    pub fn of_issuer(&self, issuer: &str) -> Option<&Arc<Tenant>> {
        let at = self.issuers.get(issuer)?;
        self.list.get(*at as usize)
    }

    /// Is there a tenant that a token's issuer can lead to?
    #[must_use]
    pub fn has_issuers(&self) -> bool {
        !self.issuers.is_empty()
    }

    /// Whose a key of the server API is, and which of theirs.
    #[must_use]
    pub fn judge(&self, given: &[u8], now_unix_s: u64) -> Option<(&Arc<Tenant>, KeyVerdict<'_>)> {
        if self.keys.is_empty() || given.is_empty() {
            return None;
        }
        let (at, _) = self.keys.get(&KeyDigest::of(given))?;
        let tenant = self.list.get(*at as usize)?;
        // Compared as every key is.
        let verdict = access::judge(&Secret::default(), &tenant.keys, given, now_unix_s);
        Some((tenant, verdict))
    }
}

impl Tenant {
    /// Its id, for names.
    #[must_use]
    pub fn id(&self) -> TenantId<'_> {
        TenantId::new(&self.id)
    }

    /// Is it written without a mark that names have where tenants are told apart?
    #[must_use]
    pub fn is_id(text: &str) -> bool {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        (1..=crate::limits::TENANT_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(fits)
    }
}

impl ChannelRules {
    /// The rules of a tenant's channels; `None` if there is no such tenant (any more).
    #[must_use]
    pub fn of(&self, tenant: TenantId<'_>) -> Option<&Self> {
        match tenant.is_default() {
            true => Some(self),
            false => self.tenants.get(tenant.as_str()).map(|own| &*own.rules),
        }
    }

    /// What a tenant may have, and what it has; `None` for `default`, and where there is no such tenant (any more).
    #[must_use]
    pub fn limits_of(&self, tenant: TenantId<'_>) -> Option<(&TenantLimits, &Arc<Quota>)> {
        if tenant.is_default() {
            return None;
        }
        let own = self.tenants.get(tenant.as_str())?;
        Some((&own.limits, &own.quota))
    }

    /// Goes on counting what tenants of the configuration before have taken.
    pub fn inherit_quotas(&mut self, before: &Self) {
        for (id, own) in Arc::make_mut(&mut self.tenants) {
            if let Some(known) = before.tenants.get(id) {
                own.quota = Arc::clone(&known.quota);
            }
        }
    }

    /// The namespace of a channel, whoever's it is.
    ///
    /// # Errors
    /// Its namespace is not configured, or its tenant is not.
    pub fn resolve_of(&self, channel: &ChannelName) -> Result<&Arc<Namespace>, ResolveError> {
        self.resolve_whole(channel.whole())
    }

    /// `reaches_durable` of a whole name, or of the whole of a pattern.
    #[must_use]
    pub fn reaches_durable_whole(&self, pattern: &str) -> bool {
        let (tenant, pattern) = TenantId::split(pattern);
        self.of(tenant)
            .is_some_and(|rules| rules.reaches_durable(pattern))
    }

    /// `resolve_named_by_server` of a whole name.
    ///
    /// # Errors
    /// As there. A tenant that is not there has no namespace.
    pub fn resolve_whole_named_by_server(
        &self,
        whole: &str,
    ) -> Result<&Arc<Namespace>, ServerNameError> {
        let (tenant, name) = TenantId::split(whole);
        let rules = self.of(tenant).ok_or(ServerNameError::Unknown)?;
        rules.resolve_named_by_server(name)
    }

    /// The namespace of the channel with this whole name.
    ///
    /// # Errors
    /// As `resolve_of`.
    pub fn resolve_whole(&self, whole: &str) -> Result<&Arc<Namespace>, ResolveError> {
        let (tenant, name) = TenantId::split(whole);
        let rules = self.of(tenant).ok_or(ResolveError::Unknown)?;
        rules.resolve(name)
    }
}
