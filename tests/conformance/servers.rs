//! The processes that the checks share, one for each configuration, started by the first check that asks.

use std::sync::OnceLock;

use crate::support::process::{Server, config};

/// Namespaces of every server here. Tests use channels of their own, so that they can run side by side.
const NAMESPACES: &str = r#"
[channel.without_namespace]
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Everything a client may do, nothing kept.
[[channel.namespaces]]
name = "open"
presence = true
join_leave = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_presence_for_client = true
allow_presence_for_anonymous = true

# Join and leave for every subscriber.
[[channel.namespaces]]
name = "joins"
presence = true
join_leave = true
force_push_join_leave = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_subscriber = true
allow_publish_for_anonymous = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true

# History that clients may read, recovery on request.
[[channel.namespaces]]
name = "kept"
history_size = 2000
history_ttl = "300s"
allow_recovery = true
allow_positioning = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true

# Three publications, every subscription recoverable.
[[channel.namespaces]]
name = "three"
history_size = 3
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Recoverable and readable by subscribers only.
[[channel.namespaces]]
name = "members"
history_size = 10
history_ttl = "300s"
force_recovery = true
force_positioning = true
presence = true
allow_history_for_subscriber = true
allow_history_for_anonymous = true
allow_presence_for_subscriber = true
allow_presence_for_anonymous = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Loses the oldest publications of a slow subscriber, and tells it.
[[channel.namespaces]]
name = "lossy"
slow_consumer = "drop_oldest"
history_size = 1
history_ttl = "300s"
force_positioning = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Publications as patches of the one before, where their publisher allows it.
[[channel.namespaces]]
name = "delta"
allowed_delta_types = ["fossil"]
history_size = 20
history_ttl = "300s"
force_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true

# Likewise for every publication, and positions only on request.
[[channel.namespaces]]
name = "patches"
allowed_delta_types = ["fossil"]
delta_publish = true
history_size = 1
history_ttl = "300s"
allow_recovery = true
slow_consumer = "drop_oldest"
allow_tags_filter = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true

# The latest publication only.
[[channel.namespaces]]
name = "cache"
history_size = 5
history_ttl = "300s"
force_recovery = true
force_recovery_mode = "cache"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Likewise, for whoever subscribes.
[[channel.namespaces]]
name = "latest"
allowed_delta_types = ["fossil"]
delta_publish = true
history_size = 1
history_ttl = "300s"
force_recovery = true
force_recovery_mode = "cache"
auto_cache_recover = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Subscribers choose by tags; publications carry their time.
[[channel.namespaces]]
name = "tagged"
allow_tags_filter = true
publication_time = true
history_size = 20
history_ttl = "300s"
allow_recovery = true
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_history_for_client = true
allow_history_for_anonymous = true

# Names in letters, in any script.
[[channel.namespaces]]
name = "letters"
channel_regex = "^\\p{L}+$"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true

# Nothing without a token.
[[channel.namespaces]]
name = "closed"
presence = true

# dialog:x#42,43
[[channel.namespaces]]
name = "dialog"
allow_user_limited_channels = true

[[channel.namespaces]]
name = "objects"
publication_data_format = "json_object"
allow_subscribe_for_client = true
allow_subscribe_for_anonymous = true
allow_publish_for_client = true
allow_publish_for_anonymous = true
"#;

/// These lines may continue `[client.token]`; the namespaces follow.
pub(crate) fn with_namespaces(lines: &str) -> String {
    config(&format!("{lines}\n{NAMESPACES}"))
}

/// Anonymous connections allowed, default limits.
pub(crate) fn plain() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&with_namespaces(
            r#"
[client]
allow_anonymous_connect_without_token = true
allowed_origins = ["https://*.example.com"]
"#,
        ))
    })
}

/// Tokens only, from one issuer for one audience.
pub(crate) fn strict() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&with_namespaces(
            r#"
audience = "clients"
issuer = "the-house"

[client]
disallow_anonymous_connection_tokens = true
user_connection_limit = 2
channel_limit = 4
"#,
        ))
    })
}

/// Every timer of a client short.
pub(crate) fn quick() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        Server::start(&with_namespaces(
            r#"
[client]
allow_anonymous_connect_without_token = true
ping_interval = "2s"
pong_timeout = "1s"
stale_close_delay = "1s"
expired_close_delay = "1s"
expired_sub_close_delay = "1s"
"#,
        ))
    })
}
