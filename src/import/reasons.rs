//! Why a key of Centrifugo has no equivalent, and what to do instead.

/// One reason.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// Why there is no equivalent.
    pub why: &'static str,
    /// What to do instead; empty where there is nothing.
    pub instead: &'static str,
    /// Something that was asked for is not there any more. Otherwise the key has nothing left to decide.
    pub is_loss: bool,
}

const fn lost(why: &'static str, instead: &'static str) -> Reason {
    Reason {
        why,
        instead,
        is_loss: true,
    }
}

const fn needless(why: &'static str) -> Reason {
    Reason {
        why,
        instead: "",
        is_loss: false,
    }
}

/// Another path than `/health` on the second listener.
pub(super) const HEALTH: Reason = lost(
    "health is at /health of server.internal_listen",
    "rewrite the path in the balancer",
);
/// Static headers of hooks that no configuration sets.
pub(super) const OWN_HEADERS: Reason = lost(
    "Content-Type, Content-Length, Transfer-Encoding and Host of a hook's request are ringmain's own to set",
    "bodies are application/json; Host is the one of the endpoint",
);
/// `client.pong_timeout` below zero.
pub(super) const PONG: Reason = lost(
    "a client that answers no ping is always disconnected after client.pong_timeout",
    "client.ping_interval = \"0s\" turns pings off as a whole",
);

/// What only the commercial edition reads.
const PRO: Reason = lost(
    "a feature of Centrifugo PRO that ringmain does not have",
    "",
);

#[rustfmt::skip]
const PRO_KEYS: &[&str] = &[
    "clickhouse_analytics", "push_notifications", "user_status", "user_block", "block_users", "user_connections",
    "token_revoke", "revoke_token", "token_revocation", "invalidate_user_tokens", "user_tokens_invalidate",
    "distributed_rate_limit", "database", "license", "singleflight", "tracing", "client.rate_limit", "client.labels",
    "channel.patterns", "channel.*.pattern", "channel.*.subscribe_cel", "channel.*.publish_cel", "channel.*.history_cel",
    "channel.*.presence_cel", "channel.*.state_proxy_enabled", "channel.*.state_proxy_name",
    "channel.*.cache_empty_proxy_enabled", "channel.*.cache_empty_proxy_name", "channel.*.engine", "channel.*.compaction",
    "channel.*.shared_position_sync",
    "channel.*.keep_latest_publication", "channel.*.state_events", "channel.*.broker_name", "channel.*.presence_manager_name",
    "channel.*.map_broker_name", "channel.*.map.broker_name", "channel.*.allow_channel_compaction", "channel.*.client_publication",
    "channel.*.server_tags_filter", "channel.*.delta_at_most_once",
    "channel.proxy.state", "channel.proxy.cache_empty", "channel.batching", "admin.oidc", "admin.audit_log", "admin.api_key",
    "http_api.jwks", "grpc_api.jwks", "http_server.enabled", "controller.redis", "controller.nats",
    "client.token.jwks", "client.token.meta_from_claim", "client.token.labels_from_claim",
    "client.write_delay", "client.write_with_timer", "client.reply_without_queue", "client.max_messages_in_frame",
    "client.queue_initial_cap", "client.queue_shrink_delay", "client.batch_periodic_events",
    "websocket.compression_prepared_message_cache_size", "websocket.process_commands_off_read_loop",
    "prometheus.client_labels", "prometheus.channel_namespace_for_transport_messages_sent",
    "prometheus.channel_namespace_for_transport_messages_received", "opentelemetry.metrics", "opentelemetry.resource_detectors",
    "shared_poll.notification", "shared_poll_relay", "client_publication", "grpc_server", "sentry", "cache", "state", "brokers",
    "presence_managers", "map_brokers", "hooks", "event_hooks", "bus",
    "channel_patterns", "client_command_rate_limit", "user_command_rate_limit", "redis_user_command_rate_limit",
    "client_error_limits", "admin_oidc", "partitioned_presence", "use_singleflight", "state_vacated_event_delay",
    "client_write_delay", "client_reply_without_queue", "client_max_messages_in_frame", "client_queue_initial_cap",
    "websocket_compression_prepared_message_cache_size", "channel_namespace_for_transport_messages_sent",
    "channel_namespace_for_transport_messages_received", "throttling",
];

/// What older versions of Centrifugo had and version 6 has not.
#[rustfmt::skip]
const GONE: &[(&[&str], Reason)] = &[
    (&["sockjs", "sockjs_url", "sockjs_handler_prefix", "sockjs_heartbeat_delay"], lost(
        "SockJS is not spoken, nor is it by Centrifugo 6", "SDKs fall back to HTTP streaming and SSE: http_stream.enabled, sse.enabled")),
    (&["tarantool_mode", "tarantool_address", "tarantool_user", "tarantool_password"], lost(
        "ringmain runs as one node today, with channels, history and presence in its memory", "")),
    (&["gomaxprocs"], needless("server.shards says how many cores there are")),
    (&["granular_proxy_mode", "connect_proxy_name", "refresh_proxy_name"], needless("hooks are where version 6 has them")),
    (&["use_client_protocol_v1_by_default", "disable_client_protocol_v1"], lost(
        "the first client protocol is not spoken, nor is it by Centrifugo 5 and 6", "SDKs from July 2022 on speak the second one")),
    (&["use_unlimited_history_by_default"], lost(
        "a history command without a limit gives the position only, as in Centrifugo 4 and later", "clients say a limit")),
    (&["channel.*.proxy_subscribe", "channel.*.proxy_publish"], needless("it is written under its name of version 6")),
];

/// In this order: the first that fits counts. A pattern stands for the key and everything below it; `*` is any one
/// part, `**.` any start.
#[rustfmt::skip]
const REASONS: &[(&[&str], Reason)] = &[
    (&["http_server.tls", "http_server.tls_autocert", "http_server.tls_external", "http_server.internal_tls"], lost(
        "ringmain does not terminate TLS",
        "put a terminating proxy (HAProxy, nginx, Caddy, your cloud's balancer) in front; a unix socket in server.listen saves the loopback")),
    (&["http_server.http3", "http_server.h2c_external"], lost(
        "clients are served over HTTP/1.1 and WebSocket", "HTTP/2 and HTTP/3 end at the balancer")),
    (&["engine", "broker", "presence_manager", "controller"], lost(
        "ringmain runs as one node today, with channels, history and presence in its memory",
        "take the broker out; one node's shards use all its cores, and clients find a new epoch after a restart")),
    (&["consumers"], lost(
        "ringmain does not consume from databases and queues",
        "let a consumer of your own call POST /api/batch, which takes many publications a request")),
    (&["grpc_api"], lost(
        "the server API is HTTP with JSON only", "POST /api/<method> with the same fields")),
    (&["uni_grpc"], lost(
        "there is no gRPC transport", "the unidirectional WebSocket, SSE and HTTP streaming carry the same pushes")),
    (&["webtransport"], lost(
        "there is no WebTransport", "SDKs fall back to WebSocket")),
    (&["map_broker", "channel.*.map", "channel.*.map_clients_presence_channel_prefix",
       "channel.*.map_users_presence_channel_prefix", "channel.proxy.map_publish", "channel.proxy.map_remove"], lost(
        "there are no map subscriptions; asking for one gets the defined error", "a channel with history, or force_recovery_mode = \"cache\" for the newest state")),
    (&["shared_poll", "channel.*.shared_poll", "channel.proxy.shared_poll_refresh"], lost(
        "there is no shared poll; asking for it gets the defined error", "publish changes through the server API")),
    (&["channel.*.subscription_type"], lost(
        "channels are streams: there are neither map subscriptions nor shared poll", "")),
    (&["channel.proxy.subscribe_stream", "channel.*.subscribe_stream_proxy_enabled", "channel.*.subscribe_stream_proxy_name",
       "channel.*.subscribe_stream_proxy_bidirectional"], lost(
        "subscription streams need gRPC, which hooks do not speak", "publish into the channel through the server API")),
    (&["**.grpc", "**.grpc_metadata"], lost(
        "hooks speak HTTP only", "give the hook an http:// or https:// endpoint; bodies have the same fields")),
    (&["**.http.tls"], lost(
        "TLS towards a hook uses the well-known authorities", "a private authority or a client certificate needs a local proxy beside the backend")),
    (&["client.proxy", "channel.proxy", "proxies", "channel.*.subscribe_proxy_enabled", "channel.*.subscribe_proxy_name",
       "channel.*.publish_proxy_enabled", "channel.*.publish_proxy_name", "channel.*.sub_refresh_proxy_enabled",
       "channel.*.sub_refresh_proxy_name"], lost(
        "this hook, or this option of hooks, is not there", "tokens carry what a connect or subscribe hook would answer; publish through the server API")),
    (&["rpc"], lost(
        "this part of client RPC is not there", "let clients call your backend over HTTP")),
    (&["admin"], lost(
        "there is no admin web interface",
        "/ready and /metrics are at admin.listen; the server API answers info, channels, presence and history")),
    (&["prometheus.handler_prefix"], lost("metrics are at /metrics", "tell the scraper")),
    (&["prometheus"], lost(
        "ringmain's metrics are a set of their own, whose names begin with ringmain_", "")),
    (&["swagger"], lost("there is no API explorer in the program", "")),
    (&["debug"], lost("there are no profiling endpoints of the Go runtime", "perf shows the process; `ringmain doctor` looks at the host")),
    (&["opentelemetry", "graphite"], lost(
        "metrics are pulled in Prometheus' format, not pushed, and there are no traces", "an agent (OpenTelemetry Collector, Telegraf) scrapes /metrics and passes them on")),
    (&["usage_stats"], needless("ringmain reports to nobody")),
    (&["node"], needless("one node has nobody to tell its name to")),
    (&["pid_file"], lost("no file with the process id is written", "systemd knows it; --ready-file tells when the proxy listens")),
    (&["enable_unreleased_features"], needless("there are none")),
    (&["log.file"], lost("the log goes to standard error", "journald, or a redirection")),
    (&["http_api.handler_prefix"], lost("the server API is at /api", "rewrite the path in the balancer")),
    (&["websocket.read_buffer_size", "websocket.write_buffer_size", "websocket.use_write_buffer_pool",
       "uni_websocket.read_buffer_size", "uni_websocket.write_buffer_size", "uni_websocket.use_write_buffer_pool"],
        needless("buffers are shared by all connections of a shard")),
    (&["websocket.write_timeout", "uni_websocket.write_timeout"],
        needless("a reader is slow by its unsent bytes (client.queue_max_size), not by the time of one write")),
    (&["websocket", "uni_websocket"], lost("this option of the endpoint is not there", "")),
    (&["client.presence_update_interval"], needless("presence is exact: it is kept with the connection, not renewed by a timer")),
    (&["client.channel_position_check_delay", "client.channel_position_max_time_lag"],
        needless("positions are compared at every delivery, not by a timer")),
    (&["client.token.insecure_skip_jwks_endpoint_safety_check", "client.subscription_token.insecure_skip_jwks_endpoint_safety_check"],
        lost("the check of a key set's address is not switched off", "use an address without a placeholder that a token fills")),
    (&["client.token", "client.subscription_token"], lost("this kind of key or expectation is not there", "secrets, public keys in PEM and key sets by URL are")),
    (&["client", "channel"], lost("this option is not there", "")),
];

/// The reason why there is no such key, by its path with `[]` for each member of a list.
pub(super) fn of(path: &str) -> Option<&'static Reason> {
    let fits = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, path));
    REASONS
        .iter()
        .find(|(patterns, _)| fits(patterns))
        .map(|(_, reason)| reason)
}

/// Why a key of an older version is no key of version 6 either.
pub(super) fn of_gone(path: &str) -> Option<&'static Reason> {
    let fits = |patterns: &[&str]| patterns.iter().any(|pattern| matches(pattern, path));
    GONE.iter()
        .find(|(patterns, _)| fits(patterns))
        .map(|(_, reason)| reason)
}

/// Is it a key of the commercial edition?
pub(super) fn of_pro(path: &str) -> Option<&'static Reason> {
    PRO_KEYS
        .iter()
        .any(|pattern| matches(pattern, path))
        .then_some(&PRO)
}

fn matches(pattern: &str, path: &str) -> bool {
    let parts: Vec<&str> = path
        .split('.')
        .map(|part| part.trim_end_matches("[]"))
        .collect();
    let anywhere = pattern.strip_prefix("**.");
    let pattern: Vec<&str> = anywhere.unwrap_or(pattern).split('.').collect();
    let fits = |parts: &[&str]| {
        parts.len() >= pattern.len()
            && pattern
                .iter()
                .zip(parts)
                .all(|(want, part)| *want == "*" || want == part)
    };
    match anywhere {
        Some(_) => (0..parts.len()).any(|start| fits(&parts[start..])),
        None => fits(&parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_stand_for_what_is_below_them() {
        assert!(matches("engine", "engine.redis.address"));
        assert!(!matches("engine", "engines") && !matches("engine.redis", "engine"));
        assert!(matches("channel.*.map", "channel.namespaces[].map.mode"));
        assert!(matches("**.grpc", "proxies[].grpc.compression"));
        assert!(!matches("**.grpc", "grpc_api.enabled"));
    }

    #[test]
    fn reasons_read_as_part_of_a_line() {
        for (patterns, reason) in REASONS.iter().chain(GONE) {
            for text in [reason.why, reason.instead] {
                assert!(!text.ends_with('.') && !text.contains('\n'), "{patterns:?}");
            }
            assert!(!reason.why.is_empty());
        }
    }
}
