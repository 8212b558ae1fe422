//! Hooks: events of clients that a backend decides over HTTP (`spec/centrifuge.md` §9).

use std::sync::Arc;
use std::time::Duration;

use super::{Config, Secret};
use crate::model::TenantId;

/// Name of a reference that means the definition of the event itself.
pub const DEFAULT_NAME: &str = "default";

/// Names of the definitions that stand at a fixed place of the configuration, as metrics show them.
pub const FIXED_NAMES: [&str; 6] = [
    "client.proxy.connect",
    "client.proxy.refresh",
    "channel.proxy.subscribe",
    "channel.proxy.publish",
    "channel.proxy.sub_refresh",
    "rpc.proxy",
];

/// Every target, and which event goes to which. A target with an empty endpoint is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hooks {
    /// `client.proxy.connect.enabled`
    pub connect_enabled: bool,
    /// `client.proxy.connect`
    pub connect: Arc<Target>,
    /// `client.proxy.refresh.enabled`
    pub refresh_enabled: bool,
    /// `client.proxy.refresh`
    pub refresh: Arc<Target>,
    /// `channel.proxy.subscribe`
    pub subscribe: Arc<Target>,
    /// `channel.proxy.publish`
    pub publish: Arc<Target>,
    /// `channel.proxy.sub_refresh`
    pub sub_refresh: Arc<Target>,
    /// `rpc.proxy`
    pub rpc: Arc<Target>,
    /// `proxies`
    pub named: Vec<Arc<Target>>,
    /// Which RPC methods go where.
    pub methods: Methods,
    /// How calls are signed to targets that have no secret of their own.
    pub signing: Signing,
}

/// What backends know calls by: each carries a signature with either secret. Without a secret none is signed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signing {
    /// `signature_secret`
    pub secret: Secret,
    /// `signature_previous_secret`: rotation, the secret before.
    pub previous: Secret,
}

impl Signing {
    /// The secrets, the new one first.
    pub fn secrets(&self) -> impl Iterator<Item = &Secret> {
        let both = [&self.secret, &self.previous];
        both.into_iter().filter(|secret| !secret.0.is_empty())
    }

    /// These, or where there are none those of all targets.
    #[must_use]
    pub const fn or<'s>(&'s self, of_all: &'s Self) -> &'s Self {
        match self.secret.0.is_empty() {
            true => of_all,
            false => self,
        }
    }
}

/// One definition: where a call goes, what it carries, how much may be under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of `FIXED_NAMES`, or `proxies[].name`.
    pub name: String,
    /// `http://` or `https://` URL; empty when there is none.
    pub endpoint: String,
    /// For the whole call; a call also waits no longer than this for its turn. Default 1 s.
    pub timeout: Duration,
    /// Headers of the client's transport request that are forwarded, in lower case.
    pub http_headers: Vec<String>,
    /// Names of `ConnectRequest.headers` that are forwarded, in lower case.
    pub emulated_headers: Vec<String>,
    /// Payloads go as base64.
    pub binary_encoding: bool,
    /// The connection's `meta` goes along.
    pub include_connection_meta: bool,
    /// Headers of every call. Values may be secrets.
    pub static_headers: Vec<(String, Secret)>,
    /// How calls are signed, if otherwise than those to all targets.
    pub signing: Signing,
    /// HTTP statuses that mean an answer; the first that fits counts.
    pub transforms: Vec<Transform>,
    /// Calls under way at a time, default 64.
    pub concurrency_max: u32,
    /// Calls that wait for their turn, default 1024; more are refused with a temporary error.
    pub queue_max: u32,
    /// Calls in a second, a tenth of them at once; 0 is off. More wait for their turn.
    pub rate: u32,
    /// When calls are refused without asking.
    pub breaker: Breaker,
}

/// `breaker` of a target: calls are refused at once while most of them fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Percent of failed calls within the window at which it opens, default 50; 0 never opens.
    pub error_rate: u32,
    /// A call that takes longer counts as failed; 0 (the default) looks at errors only.
    pub latency: Duration,
    /// Calls that the window must hold before the rate counts, default 10.
    pub calls_min: u32,
    /// How far back calls count, default 10 s.
    pub window: Duration,
    /// How long it stays open before it lets calls through on trial, default 5 s.
    pub open_for: Duration,
}

/// One member of `http.status_to_code_transforms`: exactly one of the two codes is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transform {
    /// Status of the backend's response, never 200.
    pub status_code: u16,
    /// `to_error.code`; 0 for none.
    pub error_code: u32,
    /// `to_error.message`
    pub error_message: String,
    /// `to_error.temporary`
    pub error_temporary: bool,
    /// `to_disconnect.code`; 0 for none.
    pub disconnect_code: u16,
    /// `to_disconnect.reason`
    pub disconnect_reason: String,
}

/// `[rpc]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Methods {
    /// What ends the namespace of a method, default `:`.
    pub namespace_boundary: String,
    /// `Some(method)`: this method is answered here, with nothing (`rpc.ping`).
    pub ping: Option<String>,
    /// Methods without a boundary.
    pub without_namespace: MethodNamespace,
    /// `rpc.namespaces`
    pub namespaces: Vec<MethodNamespace>,
}

/// Methods that go to one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MethodNamespace {
    /// Empty for `rpc.without_namespace`.
    pub name: String,
    /// They go to a backend.
    pub proxy_enabled: bool,
    /// Which: `default` is `rpc.proxy`.
    pub proxy_name: String,
}

/// Where an RPC goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookRoute<'a> {
    /// Answered here, with nothing.
    Ping,
    /// To a backend.
    Target(&'a Arc<Target>),
    /// Error 104.
    Unknown,
    /// Error 108.
    NotAvailable,
}

impl Default for Hooks {
    fn default() -> Self {
        let [connect, refresh, subscribe, publish, sub_refresh, rpc] =
            FIXED_NAMES.map(|name| Arc::new(Target::named(name)));
        Self {
            connect_enabled: false,
            connect,
            refresh_enabled: false,
            refresh,
            subscribe,
            publish,
            sub_refresh,
            rpc,
            named: Vec::new(),
            methods: Methods::default(),
            signing: Signing::default(),
        }
    }
}

impl Default for Methods {
    fn default() -> Self {
        Self {
            namespace_boundary: ":".to_owned(),
            ping: None,
            without_namespace: MethodNamespace::default(),
            namespaces: Vec::new(),
        }
    }
}

impl Default for MethodNamespace {
    fn default() -> Self {
        Self {
            name: String::new(),
            proxy_enabled: false,
            proxy_name: DEFAULT_NAME.to_owned(),
        }
    }
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            error_rate: 50,
            latency: Duration::ZERO,
            calls_min: 10,
            window: Duration::from_secs(10),
            open_for: Duration::from_secs(5),
        }
    }
}

impl Target {
    /// A target of this name that leads nowhere.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            endpoint: String::new(),
            timeout: Duration::from_secs(1),
            http_headers: Vec::new(),
            emulated_headers: Vec::new(),
            binary_encoding: false,
            include_connection_meta: false,
            static_headers: Vec::new(),
            signing: Signing::default(),
            transforms: Vec::new(),
            concurrency_max: 64,
            queue_max: 1024,
            rate: 0,
            breaker: Breaker::default(),
        }
    }

    /// Does it lead anywhere?
    #[must_use]
    pub const fn is_set(&self) -> bool {
        !self.endpoint.is_empty()
    }
}

impl Hooks {
    /// Who is asked about new clients of whoever has no target of its own, if anybody is.
    #[must_use]
    pub fn of_connect(&self) -> Option<&Arc<Target>> {
        Some(&self.connect).filter(|target| self.connect_enabled && target.is_set())
    }

    /// Who is asked about connections that expire, likewise.
    #[must_use]
    pub fn of_refresh(&self) -> Option<&Arc<Target>> {
        Some(&self.refresh).filter(|target| self.refresh_enabled && target.is_set())
    }

    /// What a namespace's `subscribe_proxy_name` means.
    #[must_use]
    pub fn of_subscribe(&self, name: &str) -> Option<&Arc<Target>> {
        self.referred(name, &self.subscribe)
    }

    /// What a namespace's `publish_proxy_name` means.
    #[must_use]
    pub fn of_publish(&self, name: &str) -> Option<&Arc<Target>> {
        self.referred(name, &self.publish)
    }

    /// What a namespace's `sub_refresh_proxy_name` means.
    #[must_use]
    pub fn of_sub_refresh(&self, name: &str) -> Option<&Arc<Target>> {
        self.referred(name, &self.sub_refresh)
    }

    /// What a `proxy_name` among RPC methods means.
    #[must_use]
    pub fn of_rpc(&self, name: &str) -> Option<&Arc<Target>> {
        self.referred(name, &self.rpc)
    }

    fn referred<'a>(&'a self, name: &str, default: &'a Arc<Target>) -> Option<&'a Arc<Target>> {
        let target = if name == DEFAULT_NAME {
            default
        } else {
            self.named.iter().find(|target| target.name == name)?
        };
        target.is_set().then_some(target)
    }

    /// Where an RPC goes (`spec/centrifuge.md` §4.7).
    #[must_use]
    pub fn route(&self, method: &str) -> HookRoute<'_> {
        let methods = &self.methods;
        if methods.ping.as_deref() == Some(method) {
            return HookRoute::Ping;
        }
        let any_backend = methods.without_namespace.proxy_enabled || !methods.namespaces.is_empty();
        if !any_backend {
            return match methods.ping {
                Some(_) => HookRoute::Unknown,
                None => HookRoute::NotAvailable,
            };
        }
        let namespace = match method.split_once(methods.namespace_boundary.as_str()) {
            None => &methods.without_namespace,
            Some((name, _)) => match methods.namespaces.iter().find(|one| one.name == name) {
                Some(namespace) => namespace,
                None => return HookRoute::Unknown,
            },
        };
        let target = namespace
            .proxy_enabled
            .then(|| self.of_rpc(&namespace.proxy_name))
            .flatten();
        target.map_or(HookRoute::NotAvailable, HookRoute::Target)
    }

    /// The target with this name.
    #[must_use]
    pub fn target(&self, name: &str) -> Option<&Arc<Target>> {
        self.targets().find(|target| target.name == name)
    }

    /// Every target that leads anywhere.
    pub fn targets(&self) -> impl Iterator<Item = &Arc<Target>> {
        [
            &self.connect,
            &self.refresh,
            &self.subscribe,
            &self.publish,
            &self.sub_refresh,
            &self.rpc,
        ]
        .into_iter()
        .chain(&self.named)
        .filter(|target| target.is_set())
    }
}

/// Who is asked about clients of a tenant: its own targets, else those of everybody.
impl Config {
    /// In place of a target of everybody.
    #[must_use]
    pub fn target_of<'c>(
        &'c self,
        tenant: TenantId<'_>,
        target: &'c Arc<Target>,
    ) -> &'c Arc<Target> {
        self.own_target(tenant, &target.name).unwrap_or(target)
    }

    /// The target that a tenant calls so.
    #[must_use]
    pub fn find_target(&self, tenant: TenantId<'_>, name: &str) -> Option<&Arc<Target>> {
        if !tenant.is_default() {
            self.tenants.get(tenant)?;
        }
        let own = self.own_target(tenant, name);
        own.or_else(|| self.hooks.target(name))
    }

    fn own_target(&self, tenant: TenantId<'_>, name: &str) -> Option<&Arc<Target>> {
        if tenant.is_default() {
            return None;
        }
        let own = &self.tenants.get(tenant)?.proxies;
        own.iter().find(|target| target.name == name)
    }

    /// Who decides about connections without a token. A tenant with a target of its own for that needs no switch.
    #[must_use]
    pub fn connect_hook(&self, tenant: TenantId<'_>) -> Option<&Arc<Target>> {
        let own = self.own_target(tenant, &self.hooks.connect.name);
        own.or_else(|| self.hooks.of_connect())
    }

    /// Who prolongs connections. Likewise.
    #[must_use]
    pub fn refresh_hook(&self, tenant: TenantId<'_>) -> Option<&Arc<Target>> {
        let own = self.own_target(tenant, &self.hooks.refresh.name);
        own.or_else(|| self.hooks.of_refresh())
    }

    /// Headers (in lower case) of a client's transport request that some target wants.
    pub fn forwarded_headers(&self) -> impl Iterator<Item = &String> {
        let of_all = self.hooks.targets().flat_map(|target| &target.http_headers);
        of_all.chain(&self.tenants.http_headers)
    }

    /// Does a target want this member (in lower case) of `ConnectRequest.headers`?
    #[must_use]
    pub fn forwards_emulated(&self, name: &str) -> bool {
        let mut of_all = self
            .hooks
            .targets()
            .flat_map(|target| &target.emulated_headers);
        of_all.any(|one| one == name) || self.tenants.emulated_headers.contains(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str) -> Arc<Target> {
        Arc::new(Target {
            endpoint: "http://backend/".to_owned(),
            ..Target::named(name)
        })
    }

    #[test]
    fn methods_go_where_their_namespace_says() {
        let mut hooks = Hooks::default();
        assert_eq!(
            hooks.route("x"),
            HookRoute::NotAvailable,
            "nothing is configured"
        );
        hooks.methods.ping = Some("ping".to_owned());
        assert_eq!(hooks.route("ping"), HookRoute::Ping);
        assert_eq!(hooks.route("x"), HookRoute::Unknown);
        hooks.rpc = target("rpc.proxy");
        hooks.named = vec![target("other")];
        hooks.methods.namespaces = vec![
            MethodNamespace {
                name: "math".to_owned(),
                proxy_enabled: true,
                proxy_name: "other".to_owned(),
            },
            MethodNamespace {
                name: "off".to_owned(),
                ..MethodNamespace::default()
            },
        ];
        assert_eq!(hooks.route("math:sum"), HookRoute::Target(&hooks.named[0]));
        assert_eq!(hooks.route("off:x"), HookRoute::NotAvailable);
        assert_eq!(hooks.route("none:x"), HookRoute::Unknown);
        assert_eq!(hooks.route("x"), HookRoute::NotAvailable);
        hooks.methods.without_namespace.proxy_enabled = true;
        assert_eq!(hooks.route("x"), HookRoute::Target(&hooks.rpc));
    }

    #[test]
    fn a_target_without_endpoint_is_not_there() {
        let mut hooks = Hooks {
            connect_enabled: true,
            ..Hooks::default()
        };
        assert!(hooks.of_connect().is_none() && hooks.of_publish(DEFAULT_NAME).is_none());
        hooks.connect = target("client.proxy.connect");
        assert!(hooks.of_connect().is_some());
        hooks.connect_enabled = false;
        assert!(hooks.of_connect().is_none());
    }
}
