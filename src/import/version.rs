//! Which version of Centrifugo a configuration is for.

use std::collections::BTreeMap;
use std::fmt;

use super::document::{Table, Value};
use super::known::Known;
use super::legacy::{OF_VERSION_3, is_old};

/// A major version, as far as the names tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// 3: what clients may do is said by what they may not.
    Three,
    /// 4.
    Four,
    /// 5.
    Five,
    /// 4 or 5, which have the same names for everything that stands here.
    FourOrFive,
    /// 6: names have tables.
    Six,
}

impl Version {
    /// By number.
    #[must_use]
    pub const fn of_number(number: u8) -> Option<Self> {
        match number {
            3 => Some(Self::Three),
            4 => Some(Self::Four),
            5 => Some(Self::Five),
            6 => Some(Self::Six),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Three => "3",
            Self::Four => "4",
            Self::Five => "5",
            Self::FourOrFive => "4 or 5",
            Self::Six => "6",
        })
    }
}

/// Starts of the names of version 6 that no older one has, with underscores for its dots.
const OF_6: [&str; 22] = [
    "http_api_",
    "http_server_",
    "channel_without_namespace_",
    "channel_namespaces",
    "channel_proxy_",
    "channel_history_meta_ttl",
    "channel_publication_data_format",
    "client_token_",
    "client_subscription_token_",
    "client_proxy_",
    "client_allowed_origins",
    "client_subscribe_to_",
    "client_ping_interval",
    "client_pong_timeout",
    "client_allow_",
    "client_disallow_",
    "rpc_without_",
    "rpc_proxy_",
    "engine_",
    "broker_",
    "presence_manager_",
    "node_name",
];
/// Names that came with version 5, and that went with it.
const OF_5: [&str; 6] = [
    "global_history_meta_ttl",
    "force_recovery_mode",
    "allowed_delta_types",
    "delta_publish",
    "client_connect_include_server_time",
    "proxy_subscribe_stream_endpoint",
];
const OF_4: [&str; 2] = [
    "use_client_protocol_v1_by_default",
    "disable_client_protocol_v1",
];
const OF_3: [&str; 2] = ["client_anonymous", "use_unlimited_history_by_default"];

/// By the names in a file, and by those that variables and options have, in lower case with underscores.
pub(super) fn detect(root: &Table, others: &[String], known: &BTreeMap<String, Known>) -> Version {
    let is_table_of_6 = |name: &str| {
        let start = format!("{name}.");
        let next = known.range(start.clone()..).next();
        next.is_some_and(|(path, _)| path.starts_with(&start))
    };
    let in_tables = root
        .iter()
        .any(|(name, value)| matches!(value, Value::Table(_)) && is_table_of_6(name));
    let of_6 = |name: &String| {
        OF_6.iter().any(|start| name.starts_with(start)) || name.ends_with("_enabled")
    };
    if in_tables || others.iter().any(of_6) {
        return Version::Six;
    }
    // What versions have in common is no sign of any.
    let is_shared = |name: &str| matches!(name, "pid_file" | "proxies" | "consumers");
    let names = || {
        let flat = root.keys().map(String::as_str);
        flat.chain(others.iter().map(String::as_str))
    };
    if !names().any(|name| !is_shared(name) && is_old(name, known)) {
        return Version::Six;
    }
    let mut of_namespaces: Vec<&str> = names().collect();
    if let Some(Value::List(members)) = root.get("namespaces") {
        for member in members {
            if let Value::Table(table) = member {
                of_namespaces.extend(table.keys().map(String::as_str));
            }
        }
    }
    let has = |list: &[&str]| of_namespaces.iter().any(|name| list.contains(name));
    let is_later = of_namespaces.iter().any(|name| {
        name.starts_with("allow_") && *name != "allowed_origins" || name.starts_with("force_")
    });
    if !is_later && (has(&OF_VERSION_3) || has(&OF_3)) {
        Version::Three
    } else if has(&OF_5) {
        Version::Five
    } else if has(&OF_4) {
        Version::Four
    } else {
        Version::FourOrFive
    }
}
